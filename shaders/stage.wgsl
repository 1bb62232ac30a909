// Copies keys and values to textures of f32, four elements a texel: what a software GPU reads fastest, since it has
// the texels of a whole subgroup fetched as vectors, and from a buffer takes one element of one lane at a time.
//
// grid        (⌈Lk / 64⌉, Hkv, B)
// workgroup   64 threads, a key to a thread
// memory      none; barriers: none
//
// Key n of all (B, Hkv, Lk) lies at texel (n mod K · D / 4, ⌊n / K⌋), with K keys to a row. A value with an element that is not
// finite is stored as 0, because 0 · NaN is NaN and would reach the rows that do not see it. Its first element is NaN, which tells
// lanes.wgsl so.

const THREADS = 64u;
const INFINITE = 0x7f800000u;                                  // the bits from which a number is infinite or NaN

fn magnitude(x: vec4<f32>) -> vec4<u32> { return bitcast<vec4<u32>>(x) & vec4(0x7fffffffu); }

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let key = workgroup.x * THREADS + thread;
    if (key >= params.len_q) { return; }
    let n = address(params.staged, workgroup.z, workgroup.y, key);

    let k_at = address(params.k, workgroup.z, workgroup.y, key);
    let k_texel = vec2(n % K_KEYS_PER_ROW * (DIM_QK / 4u), n / K_KEYS_PER_ROW);
    for (var i = 0u; i < DIM_QK / 4u; i++) {
        var x = vec4(0.0);
        if (i * 4u < params.dim_qk) { x = load_k(k_at + i * 4u, params.dim_qk - i * 4u); }
        textureStore(staged_k, k_texel + vec2(i, 0u), x);
    }

    var size = vec4(0u);                                       // the largest magnitudes, as bits
    let v_at = address(params.v, workgroup.z, workgroup.y, key);
    let v_texel = vec2(n % V_KEYS_PER_ROW * (DIM_V / 4u), n / V_KEYS_PER_ROW);
    for (var i = 0u; i < DIM_V / 4u; i++) {
        var x = vec4(0.0);
        if (i * 4u < params.dim_v) { x = load_v(v_at + i * 4u, params.dim_v - i * 4u); }
        size = max(size, magnitude(x));
        textureStore(staged_v, v_texel + vec2(i, 0u), x);
    }

    if (max(max(size.x, size.y), max(size.z, size.w)) >= INFINITE) {
        textureStore(staged_v, v_texel, vec4(params.nan, 0.0, 0.0, 0.0));
        for (var i = 1u; i < DIM_V / 4u; i++) { textureStore(staged_v, v_texel + vec2(i, 0u), vec4(0.0)); }
    }
}
