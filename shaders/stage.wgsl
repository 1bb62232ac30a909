// Copies keys and values to textures of f32, four elements per texel. A software GPU reads textures fastest: it fetches the
// texels of a whole subgroup as vectors, but loads a buffer one element of one lane at a time.
//
// grid        (⌈Lk / KEYS⌉, Hkv, B)
// workgroup   64 threads; thread i copies keys i, i + 64, … of the workgroup's
// memory      none
// barriers    none
//
//     staged_k ← K
//     staged_v ← V, but (NaN, 0, 0, …) for a value with an element that is not finite
//
// Keys are numbered through (B, Hkv, Lk). Key n begins at texel ((n mod K) · D / 4, ⌊n / K⌋), with K keys per row of the
// texture. Only finite values are copied, because 0 · NaN would reach rows that do not see the key. The NaN marks a value that
// is replaced; lanes.wgsl reads it as 0.
//
// For this kernel, params.len_q is the number of keys in the dispatch, and params.first_row the first of them. Keys that are
// not valid are not copied.
//
// A software GPU runs the text of a workgroup once even if none of its keys is valid. So a workgroup has many keys, and room for
// many more keys than are valid costs little.

// From the host: KEYS per workgroup.

const THREADS = 64u;
const INFINITY_BITS = 0x7f800000u;                             // the bits of ∞; those of NaN are larger

fn magnitude(x: vec4<f32>) -> vec4<u32> { return bitcast<vec4<u32>>(x) & vec4(0x7fffffffu); }

fn copy_key(batch: u32, head: u32, key: u32) {
    let n = address(params.staged, batch, head, key);
    let source = source_of(batch, key);

    let k_at = address(params.k, source.batch, head, source.row);
    let k_texel = vec2(n % K_KEYS_PER_ROW * (DIM_QK / 4u), n / K_KEYS_PER_ROW);
    for (var i = 0u; i < DIM_QK / 4u; i++) {
        var x = vec4(0.0);
        if (i * 4u < params.dim_qk) { x = load_k(k_at, i * 4u, params.dim_qk - i * 4u); }
        textureStore(staged_k, k_texel + vec2(i, 0u), x);
    }

    var size = vec4(0u);                                       // the largest magnitudes, as bits
    let v_at = address(params.v, source.batch, head, source.row);
    let v_texel = vec2(n % V_KEYS_PER_ROW * (DIM_V / 4u), n / V_KEYS_PER_ROW);
    for (var i = 0u; i < DIM_V / 4u; i++) {
        var x = vec4(0.0);
        if (i * 4u < params.dim_v) { x = load_v(v_at, i * 4u, params.dim_v - i * 4u); }
        size = max(size, magnitude(x));
        textureStore(staged_v, v_texel + vec2(i, 0u), x);
    }

    if (max(max(size.x, size.y), max(size.z, size.w)) >= INFINITY_BITS) {
        textureStore(staged_v, v_texel, vec4(params.nan, 0.0, 0.0, 0.0));
        for (var i = 1u; i < DIM_V / 4u; i++) { textureStore(staged_v, v_texel + vec2(i, 0u), vec4(0.0)); }
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let end = min((workgroup.x + 1u) * KEYS, params.len_q);
    for (var key = workgroup.x * KEYS + thread; key < end && is_staged(workgroup.z, key); key += THREADS) {
        copy_key(workgroup.z, workgroup.y, key);
    }
}
