// Tiles as arrays of scalars, for Metal, which reads fragments from nothing else.
const PER_QUAD = 4u;

var<workgroup> k_tile: array<f16, BLOCK_KV * K_STRIDE * 4u>;   // [key][dim]
var<workgroup> v_tile: array<f16, BLOCK_KV * V_STRIDE * 4u>;   // [key][dim]
var<workgroup> p_tile: array<f16, ROWS * P_STRIDE * 4u>;       // [row][key]
var<workgroup> s_tile: array<f32, ROWS * S_STRIDE * 4u>;       // [row][key]

fn set_k(at: u32, x: vec4<f16>) {
    k_tile[at * 4u] = x.x;
    k_tile[at * 4u + 1u] = x.y;
    k_tile[at * 4u + 2u] = x.z;
    k_tile[at * 4u + 3u] = x.w;
}
fn set_v(at: u32, x: vec4<f16>) {
    v_tile[at * 4u] = x.x;
    v_tile[at * 4u + 1u] = x.y;
    v_tile[at * 4u + 2u] = x.z;
    v_tile[at * 4u + 3u] = x.w;
}
fn set_p(at: u32, x: vec4<f16>) {
    p_tile[at * 4u] = x.x;
    p_tile[at * 4u + 1u] = x.y;
    p_tile[at * 4u + 2u] = x.z;
    p_tile[at * 4u + 3u] = x.w;
}
fn set_scores(at: u32, x: vec4<f32>) {
    s_tile[at * 4u] = x.x;
    s_tile[at * 4u + 1u] = x.y;
    s_tile[at * 4u + 2u] = x.z;
    s_tile[at * 4u + 3u] = x.w;
}
fn scores(at: u32) -> vec4<f32> {
    return vec4(s_tile[at * 4u], s_tile[at * 4u + 1u], s_tile[at * 4u + 2u], s_tile[at * 4u + 3u]);
}

// Single elements: `i` counts elements.
fn k_element(i: u32) -> f32 { return f32(k_tile[i]); }
fn v_element(i: u32) -> f32 { return f32(v_tile[i]); }
fn p_element(i: u32) -> f32 { return f32(p_tile[i]); }
