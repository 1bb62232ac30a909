// Copies keys with values, or queries with the gradients of outputs, to textures of f32, as stage.wgsl does for attention.
//
// grid        (⌈L / PAIRS⌉, H, B)
// workgroup   64 threads; thread i copies pairs i, i + 64, … of the workgroup's
// memory      none
// barriers    none
//
//     staged_x ← K or Q
//     staged_y ← V or dO, then one texel with what else is known of the pair: pieces/staged_keys.wgsl, staged_rows.wgsl
//
// A pair with a number that is not finite becomes 0, and its last texel begins with 1: gradient_lanes.wgsl makes what sees it NaN,
// and 0 · NaN reaches nothing else.

// From the host: PAIRS per workgroup, many as in stage.wgsl.

const THREADS = 64u;
const INFINITY_BITS = 0x7f800000u;                             // the bits of ∞; those of NaN are larger

fn magnitude(x: vec4<f32>) -> vec4<u32> { return bitcast<vec4<u32>>(x) & vec4(0x7fffffffu); }

fn copy_pair(batch: u32, head: u32, n: u32) {
    let x_at = x_address(batch, head, n);
    let y_at = y_address(batch, head, n);
    let place = pair_place(batch, head, n);
    let x_texel = vec2(place % X_PER_ROW * X_VECTORS, place / X_PER_ROW);
    let y_texel = vec2(place % Y_PER_ROW * (Y_VECTORS + 1u), place / Y_PER_ROW);

    var size = vec4(0u);                                       // the largest magnitudes, as bits
    for (var i = 0u; i < X_VECTORS; i++) {
        var x = vec4(0.0);
        if (i * 4u < params.dim_qk) { x = load_x(x_at, i * 4u, params.dim_qk - i * 4u); }
        size = max(size, magnitude(x));
        textureStore(staged_x, x_texel + vec2(i, 0u), x);
    }
    for (var i = 0u; i < Y_VECTORS; i++) {
        var y = vec4(0.0);
        if (i * 4u < params.dim_v) { y = load_y(y_at, i * 4u, params.dim_v - i * 4u); }
        size = max(size, magnitude(y));
        textureStore(staged_y, y_texel + vec2(i, 0u), y);
    }
    let is_finite = max(max(size.x, size.y), max(size.z, size.w)) < INFINITY_BITS;
    let note = note_of(batch, head, n);
    textureStore(staged_y, y_texel + vec2(Y_VECTORS, 0u), vec4(select(1.0, 0.0, is_finite), note, 0.0));
    if (!is_finite) {
        for (var i = 0u; i < X_VECTORS; i++) { textureStore(staged_x, x_texel + vec2(i, 0u), vec4(0.0)); }
        for (var i = 0u; i < Y_VECTORS; i++) { textureStore(staged_y, y_texel + vec2(i, 0u), vec4(0.0)); }
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let end = min((workgroup.x + 1u) * PAIRS, params.len_q);
    for (var n = workgroup.x * PAIRS + thread; n < end && is_there(workgroup.z, n); n += THREADS) {
        copy_pair(workgroup.z, workgroup.y, n);
    }
}
