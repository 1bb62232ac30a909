// Two 16-bit elements a word, and every row starts at a multiple of four elements.
@group(0) @binding(1) var<storage, read> q: array<vec2<u32>>;          // (B, Hq, Lq, Dqk)
@group(0) @binding(2) var<storage, read> k: array<vec2<u32>>;          // (B, Hkv, Lk, Dqk)
@group(0) @binding(3) var<storage, read> v: array<vec2<u32>>;          // (B, Hkv, Lk, Dv)

// Four elements from `at`; those past `count` are zero.
fn load_q(at: u32, count: u32) -> vec4<f32> { return vec4(widen(q[at >> 2u].x), widen(q[at >> 2u].y)); }
fn load_k(at: u32, count: u32) -> vec4<f32> { return vec4(widen(k[at >> 2u].x), widen(k[at >> 2u].y)); }
fn load_v(at: u32, count: u32) -> vec4<f32> { return vec4(widen(v[at >> 2u].x), widen(v[at >> 2u].y)); }
