// Two 16-bit elements a word, rows of any length anywhere.
@group(0) @binding(1) var<storage, read> q: array<u32>;                  // (B, Hq, Lq, Dqk)
@group(0) @binding(2) var<storage, read> k: array<u32>;                  // (B, Hkv, Lk, Dqk)
@group(0) @binding(3) var<storage, read> v: array<u32>;                  // (B, Hkv, Lk, Dv)

// The half of each word that its place names; those past `count` are zero.
fn halves(words: vec4<u32>, i: vec4<u32>, count: u32) -> vec4<f32> {
    let bits = words >> ((i & vec4(1u)) << vec4(4u));
    let x = vec4(widen(bits.x).x, widen(bits.y).x, widen(bits.z).x, widen(bits.w).x);
    return select(vec4(0.0), x, LANE < vec4(count));
}

// Four elements from `at`; those past `count` are zero.
fn load_q(at: u32, count: u32) -> vec4<f32> {
    let i = places(at, count);
    return halves(vec4(q[i.x >> 1u], q[i.y >> 1u], q[i.z >> 1u], q[i.w >> 1u]), i, count);
}
fn load_k(at: u32, count: u32) -> vec4<f32> {
    let i = places(at, count);
    return halves(vec4(k[i.x >> 1u], k[i.y >> 1u], k[i.z >> 1u], k[i.w >> 1u]), i, count);
}
fn load_v(at: u32, count: u32) -> vec4<f32> {
    let i = places(at, count);
    return halves(vec4(v[i.x >> 1u], v[i.y >> 1u], v[i.z >> 1u], v[i.w >> 1u]), i, count);
}
