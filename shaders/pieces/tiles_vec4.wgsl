// Tiles as arrays of vectors of four, which threads move whole. A fragment's place and stride also count vectors.
const PER_QUAD = 1u;

var<workgroup> k_tile: array<vec4<f16>, BLOCK_KV * K_STRIDE>;  // [key][dim / 4]
var<workgroup> v_tile: array<vec4<f16>, BLOCK_KV * V_STRIDE>;  // [key][dim / 4]
var<workgroup> p_tile: array<vec4<f16>, ROWS * P_STRIDE>;      // [row][key / 4]
var<workgroup> s_tile: array<vec4<f32>, ROWS * S_STRIDE>;      // [row][key / 4]

fn set_k(at: u32, x: vec4<f16>) { k_tile[at] = x; }
fn set_v(at: u32, x: vec4<f16>) { v_tile[at] = x; }
fn set_p(at: u32, x: vec4<f16>) { p_tile[at] = x; }
fn set_scores(at: u32, x: vec4<f32>) { s_tile[at] = x; }
fn scores(at: u32) -> vec4<f32> { return s_tile[at]; }

// Single elements: `i` counts elements.
fn k_element(i: u32) -> f32 { return f32(k_tile[i / 4u][i % 4u]); }
fn v_element(i: u32) -> f32 { return f32(v_tile[i / 4u][i % 4u]); }
fn p_element(i: u32) -> f32 { return f32(p_tile[i / 4u][i % 4u]); }
