// binary16 as it is, rows of any length anywhere.
@group(0) @binding(1) var<storage, read> q: array<f16>;  // (B, Hq, Lq, Dqk)
@group(0) @binding(2) var<storage, read> k: array<f16>;  // (B, Hkv, Lk, Dqk)
@group(0) @binding(3) var<storage, read> v: array<f16>;  // (B, Hkv, Lk, Dv)

// Four elements, of which those past `count` become zero.
fn first_of(x: vec4<f16>, count: u32) -> vec4<f16> { return select(vec4<f16>(), x, LANE < vec4(count)); }

// Four elements from `at`; those past `count` are zero.
fn load_q(at: u32, count: u32) -> vec4<f16> {
    let i = places(at, count);
    return first_of(vec4(q[i.x], q[i.y], q[i.z], q[i.w]), count);
}
fn load_k(at: u32, count: u32) -> vec4<f16> {
    let i = places(at, count);
    return first_of(vec4(k[i.x], k[i.y], k[i.z], k[i.w]), count);
}
fn load_v(at: u32, count: u32) -> vec4<f16> {
    let i = places(at, count);
    return first_of(vec4(v[i.x], v[i.y], v[i.z], v[i.w]), count);
}
