// f32, rows of any length anywhere.
@group(0) @binding(1) var<storage, read> q: array<f32>;          // (B, Hq, Lq, Dqk)
@group(0) @binding(2) var<storage, read> k: array<f32>;          // (B, Hkv, Lk, Dqk)
@group(0) @binding(3) var<storage, read> v: array<f32>;          // (B, Hkv, Lk, Dv)
@group(0) @binding(4) var<storage, read_write> out: array<f32>;  // (B, Hq, Lq, Dv), or the weights (B, Hq, Lq, Lk)

fn keep(x: vec4<f32>, count: u32) -> vec4<f32> { return select(vec4(0.0), x, LANE < vec4(count)); }

// Four elements from `at`; those past `count` are zero.
fn load_q(at: u32, count: u32) -> vec4<f32> {
    let i = places(at, count);
    return keep(vec4(q[i.x], q[i.y], q[i.z], q[i.w]), count);
}
fn load_k(at: u32, count: u32) -> vec4<f32> {
    let i = places(at, count);
    return keep(vec4(k[i.x], k[i.y], k[i.z], k[i.w]), count);
}
fn load_v(at: u32, count: u32) -> vec4<f32> {
    let i = places(at, count);
    return keep(vec4(v[i.x], v[i.y], v[i.z], v[i.w]), count);
}
fn store_out(at: u32, count: u32, x: vec4<f32>) {
    out[at] = x.x;
    if (count > 1u) { out[at + 1u] = x.y; }
    if (count > 2u) { out[at + 2u] = x.z; }
    if (count > 3u) { out[at + 3u] = x.w; }
}
