// Four 16-bit elements a word, and every row starts at a multiple of four elements: a driver that takes the numbers of a
// vector one by one then takes half as many.
@group(0) @binding(1) var<storage, read> q: array<u64>;                // (B, Hq, Lq, Dqk)
@group(0) @binding(2) var<storage, read> k: array<u64>;                // (B, Hkv, Lk, Dqk)
@group(0) @binding(3) var<storage, read> v: array<u64>;                // (B, Hkv, Lk, Dv)

fn numbers(word: u64) -> vec4<f32> { return vec4(widen(u32(word)), widen(u32(word >> 32u))); }

// Four elements from `at`; those past `count` are zero.
fn load_q(at: u32, count: u32) -> vec4<f32> { return numbers(q[at >> 2u]); }
fn load_k(at: u32, count: u32) -> vec4<f32> { return numbers(k[at >> 2u]); }
fn load_v(at: u32, count: u32) -> vec4<f32> { return numbers(v[at >> 2u]); }
