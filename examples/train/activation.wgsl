// The activation between the two matrices of a block: h = max(u, 0)². Its gradient: du = 2 max(u, 0) dh.

@group(0) @binding(0) var<storage, read> u: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> h: array<vec4<f32>>;

@group(0) @binding(1) var<storage, read> dh: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> du: array<vec4<f32>>;

@compute @workgroup_size(64) fn activate(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= arrayLength(&u)) { return; }
    let positive = max(u[id.x], vec4<f32>());
    h[id.x] = positive * positive;
}

@compute @workgroup_size(64) fn activate_gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= arrayLength(&u)) { return; }
    du[id.x] = 2.0 * max(u[id.x], vec4<f32>()) * dh[id.x];
}
