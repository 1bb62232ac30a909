// binary16 as it is, four a vector, and every row starts at a multiple of four elements.
@group(0) @binding(1) var<storage, read> q: array<vec4<f16>>;  // (B, Hq, Lq, Dqk)
@group(0) @binding(2) var<storage, read> k: array<vec4<f16>>;  // (B, Hkv, Lk, Dqk)
@group(0) @binding(3) var<storage, read> v: array<vec4<f16>>;  // (B, Hkv, Lk, Dv)

// Four elements from `at`; those past `count` are zero.
fn load_q(at: u32, count: u32) -> vec4<f16> { return q[at >> 2u]; }
fn load_k(at: u32, count: u32) -> vec4<f16> { return k[at >> 2u]; }
fn load_v(at: u32, count: u32) -> vec4<f16> { return v[at >> 2u]; }
