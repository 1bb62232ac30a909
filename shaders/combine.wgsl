// Merges the pairs (Oᵢ, LSEᵢ) of each row, which are results of attention over different keys, into the result over all keys.
//
//     m ← max LSEᵢ;  wᵢ ← exp(LSEᵢ − m);  O ← Σ wᵢ·Oᵢ / Σ wᵢ;  LSE ← m + ln Σ wᵢ
//
// grid        (⌈Lq · ⌈Dv / 4⌉ / 64⌉, Hq, B)
// workgroup   64 threads, each of which computes four columns of a row
// memory      none
// barriers    none
//
//     m ← the largest LSE
//     for each pair:
//         w ← its weight, 0 if it saw no key
//         l ← l + w
//         O ← O + w·Oᵢ
//     O ← O / l
//
// For this kernel, params.parts is the number of pairs.
//
// The formula is that of Rabe & Staats 2021. Merging a shared prefix: Juravsky et al., Hydragen, 2024.

const THREADS = 64u;
const LOWEST = -3.4028234e38f;                                 // no LSE is below it, except −∞

// Whether a pair saw no key. The bits are compared, because a compiler may assume that no number is infinite.
fn saw_none(lse: f32) -> bool { return bitcast<u32>(lse) == 0xff800000u; }

// The weight of a pair. The largest is exactly 1, whatever exp(0) is, so a pair alone stays as it is. If the LSE is +∞, the
// difference and so the row are NaN.
fn weight_of(lse: f32, m: f32) -> f32 {
    let below = lse - m;
    return select(select(exp(below), 1.0, below == 0.0), 0.0, saw_none(lse));
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let vectors = (params.dim_v + 3u) / 4u;
    let n = workgroup.x * THREADS + thread;
    let row = n / vectors;
    if (row >= params.len_q) { return; }
    let dim = n % vectors * 4u;
    let count = params.dim_v - dim;
    let lse_at = address(params.pair_lse, workgroup.z, workgroup.y, row);
    let out_at = address(params.pair_out, workgroup.z, workgroup.y, row) + dim;

    var m = LOWEST;
    for (var i = 0u; i < params.parts; i++) {
        m = max(m, pair_lse[lse_at + i * params.pair_lse_stride]);
    }

    var l = 0.0;
    var o = vec4(0.0);
    for (var i = 0u; i < params.parts; i++) {
        let weight = weight_of(pair_lse[lse_at + i * params.pair_lse_stride], m);
        let x = load_pair_out(out_at + i * params.pair_out_stride, 0u, count);
        l += weight;
        // What a pair of no weight holds may be NaN, and 0 · NaN is NaN.
        o = fma(select(vec4(0.0), x, weight > 0.0), vec4(weight), o);
    }

    // Some weight is 1, unless all pairs saw nothing. A quotient by 1 need not be exact.
    let result = select(select(o / l, o, l == 1.0), vec4(0.0), l == 0.0);
    store_out(address(params.out, workgroup.z, workgroup.y, row) + dim, count, result);
    if (dim == 0u) {
        let lse = select(m + natural_log(l), params.negative_infinity, l == 0.0);
        store_lse(address(params.lse, workgroup.z, workgroup.y, row), lse);
    }
}
