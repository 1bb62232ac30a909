// Exact attention for CPUs that play a GPU: lavapipe, SwiftShader, WARP.
//
//     O = softmax(S) V,   S = softcap(scale · Q Kᵀ) + bias, masked
//
// There a subgroup is one vector of the CPU and a workgroup one thread's work: nothing is gained by sharing memory, a
// barrier or a branch costs what both its sides do, and a load from a buffer takes the lanes one by one. So:
//
// grid        (⌈Lq / (LANES · ROWS)⌉, Hq, B · parts of the keys)
// workgroup   one subgroup of LANES; lane i owns rows i, i + LANES, … of the block, with Q and O in its registers
// memory      none; barriers: none. K and V come from textures, staged by stage.wgsl
//
//     for each KEYS keys that some row may see, lane i reading texels i, i + LANES, … of each:
//         S ← Q Kᵀ, scaled, capped, biased, masked            each lane its rows, K handed round by shuffles
//         m′ ← rowmax S where that is a leap above m, else m;  P ← exp(S − m′);  l ← l·exp(m − m′) + rowsum P
//         O ← O·exp(m − m′) + P V                              V handed round
//     O ← O / l;  lse ← m + ln l                              a row that saw no key: 0 and −∞
//
// m follows a score only from a leap on, because these drivers' exp is off by the same little each time, and with few keys a
// round m would rise often.
//
// All of it is straight-line: what a driver of this kind spends on a loop or a branch is more than what it would save. But
// one round must fit the first-level instruction cache, which bounds ROWS · KEYS · D: with twice the text it runs at
// half the speed. No branch depends on the parameters alone: lavapipe would compile the kernel anew for each dispatch's.

// From the host: LANES, ROWS of a lane, KEYS of a round; Q_VECTORS and V_VECTORS of four dimensions, of which a lane reads
// K_TEXELS and V_TEXELS; and how K and V are staged.
const LOWEST = -3.4028234e38f;                                 // below every score; never a sign of anything
const LEAP = 4.0;                                              // of a score above m, in powers of two, before m follows
const INFINITE = 0x7f800000u;                                  // the bits above which a number is NaN

const Q_ARRAY = ROWS * Q_VECTORS;
const O_ARRAY = ROWS * DIM_V;
const S_ARRAY = ROWS * KEYS;
const K_ARRAY = KEYS * K_TEXELS;
const V_ARRAY = KEYS * V_TEXELS;

const_assert LANES * ROWS > 0u && K_TEXELS * LANES == Q_VECTORS && V_TEXELS * LANES == V_VECTORS;
const_assert KEYS == 1u || KEYS == 2u || KEYS == 4u;  // so that a tile's keys are whole rounds

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(10) var staged_k: texture_storage_2d<rgba32float, read>;
@group(0) @binding(11) var staged_v: texture_storage_2d<rgba32float, read>;

// The keys of a round, as masks and biases are read. Past KEYS they begin again, which compilers find out.
fn keys_at(kv: u32) -> vec4<u32> { return kv + vec4(0u, 1u, 2u, 3u) % KEYS; }

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let batch = workgroup.z / params.parts;
    let part = workgroup.z % params.parts;
    let head = workgroup.y;
    let kv_head = head / params.group;
    let valid = min(valid_keys(batch), (part + 1u) * params.part_keys);
    let diagonal = i32(params.first_row) + i32(valid_keys(batch) * params.band_from_end);
    let block_row = workgroup.x * LANES * ROWS;
    let block_end = min(block_row + LANES * ROWS, params.len_q);

    var q = array<vec4<f32>, Q_ARRAY>();                       // [row][dim / 4]
    var o = array<f32, O_ARRAY>();                             // [row][dim]
    var m = array<f32, ROWS>();                                // the largest score, but for a leap
    var l = array<f32, ROWS>();                                // the sum of weights relative to it
    var saw = array<bool, ROWS>();                             // whether the row sees any key, which no sum tells
    var first = array<i32, ROWS>();                            // the keys it sees by position
    var last = array<i32, ROWS>();
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        let row = min(block_row + r * LANES + lane, params.len_q - 1u);
        first[r] = i32(row) + diagonal + params.band_first;
        last[r] = min(i32(row) + diagonal + params.band_last, i32(valid) - 1);
        m[r] = LOWEST;
        let at = address(params.q, batch, head, row);
        // unroll
        for (var d = 0u; d < Q_VECTORS; d++) {
            if ((row < params.len_q) & (d * 4u < params.dim_qk)) { q[r * Q_VECTORS + d] = load_q(at + d * 4u, params.dim_qk - d * 4u); }
        }
    }

    let begin = max(u32(max(i32(block_row) + diagonal + params.band_first, 0)) / KEYS * KEYS, part * params.part_keys);
    let end = min(valid, u32(max(i32(block_end) + diagonal + params.band_last, 0)));
    for (var kv = begin; kv < end; kv += KEYS) {
        // This lane's texels of each key and value.
        var k = array<vec4<f32>, K_ARRAY>();                   // [key][texel / LANES]
        var v = array<vec4<f32>, V_ARRAY>();
        var spoilt = array<bool, KEYS>();                      // whether the value is not finite
        // unroll
        for (var t = 0u; t < KEYS; t++) {
            let n = address(params.staged, batch, kv_head, min(kv + t, params.len_kv - 1u));
            let k_texel = vec2(n % K_KEYS_PER_ROW * Q_VECTORS + lane, n / K_KEYS_PER_ROW);
            let v_texel = vec2(n % V_KEYS_PER_ROW * V_VECTORS + lane, n / V_KEYS_PER_ROW);
            // unroll
            for (var c = 0u; c < K_TEXELS; c++) { k[t * K_TEXELS + c] = textureLoad(staged_k, k_texel + vec2(c * LANES, 0u)); }
            // unroll
            for (var c = 0u; c < V_TEXELS; c++) { v[t * V_TEXELS + c] = textureLoad(staged_v, v_texel + vec2(c * LANES, 0u)); }
            // stage.wgsl marks a value that is not finite: its first element is NaN, and all others are 0.
            spoilt[t] = (bitcast<u32>(subgroupShuffle(v[t * V_TEXELS].x, 0u)) & 0x7fffffffu) > INFINITE;
            v[t * V_TEXELS].x = select(v[t * V_TEXELS].x, 0.0, spoilt[t]);
        }

        // S = Q Kᵀ: each number of K is handed to all lanes and used for all their rows.
        var s = array<f32, S_ARRAY>();                         // [row][key]
        // unroll
        for (var d = 0u; d < DIM_QK; d++) {
            var key = array<f32, KEYS>();
            // unroll
            for (var t = 0u; t < KEYS; t++) {
                key[t] = subgroupShuffle(k[t * K_TEXELS + d / 4u / LANES][d % 4u], d / 4u % LANES);
            }
            // unroll
            for (var r = 0u; r < ROWS; r++) {
                // unroll
                for (var t = 0u; t < KEYS; t++) { s[r * KEYS + t] = fma(key[t], q[r * Q_VECTORS + d / 4u][d % 4u], s[r * KEYS + t]); }
            }
        }

        // P in the place of S.
        var rescale = array<f32, ROWS>();
        // unroll
        for (var r = 0u; r < ROWS; r++) {
            let row = min(block_row + r * LANES + lane, params.len_q - 1u);
            var seen = array<bool, KEYS>();
            let before = m[r];
            let shaped = shape_scores(vec4(s[r * KEYS], s[r * KEYS + 1u % KEYS], s[r * KEYS + 2u % KEYS], s[r * KEYS + 3u % KEYS]));
            // unroll
            for (var t = 0u; t < KEYS; t++) {
                let j = i32(kv + t);
                seen[t] = (j >= first[r]) & (j <= last[r]);
                s[r * KEYS + t] = shaped[t];
            }
            if (HAS_MASK) {
                let attended = attend(address(params.mask, batch, head, row), min(keys_at(kv), vec4(params.len_kv - 1u)));
                // unroll
                for (var t = 0u; t < KEYS; t++) { seen[t] &= attended[t]; }
            }
            if (HAS_BIAS) {
                let bias = load_bias(address(params.bias, batch, head, row), min(keys_at(kv), vec4(params.len_kv - 1u)));
                // unroll
                for (var t = 0u; t < KEYS; t++) {
                    s[r * KEYS + t] += bias[t];
                    seen[t] &= bitcast<u32>(bias[t]) != 0xff800000u;  // −∞ hides
                }
            }
            var top = before;
            // unroll
            for (var t = 0u; t < KEYS; t++) {
                s[r * KEYS + t] = select(LOWEST, s[r * KEYS + t], seen[t]);
                top = max(top, s[r * KEYS + t]);
                saw[r] |= seen[t];
            }
            m[r] = select(before, top, (top - before) * params.exp2_scale > LEAP);
            // Keys of which a row sees none leave its bits alone: the factor is then 1, whatever exp2(0) is.
            rescale[r] = select(exp2((before - m[r]) * params.exp2_scale), 1.0, before == m[r]);
            var sum = 0.0;
            // unroll
            for (var t = 0u; t < KEYS; t++) {
                let weight = select(0.0, exp2((s[r * KEYS + t] - m[r]) * params.exp2_scale), seen[t]);
                sum += weight;
                // Rows that see a spoilt value are NaN, but for their LSE.
                s[r * KEYS + t] = select(weight, params.nan, seen[t] & spoilt[t]);
            }
            l[r] = fma(l[r], rescale[r], sum);
        }

        // unroll
        for (var d = 0u; d < DIM_V; d++) {
            var value = array<f32, KEYS>();
            // unroll
            for (var t = 0u; t < KEYS; t++) { value[t] = subgroupShuffle(v[t * V_TEXELS + d / 4u / LANES][d % 4u], d / 4u % LANES); }
            // unroll
            for (var r = 0u; r < ROWS; r++) {
                var sum = o[r * DIM_V + d] * rescale[r];
                // unroll
                for (var t = 0u; t < KEYS; t++) { sum = fma(value[t], s[r * KEYS + t], sum); }
                o[r * DIM_V + d] = sum;
            }
        }
    }

    // unroll
    for (var r = 0u; r < ROWS; r++) {
        let query = block_row + r * LANES + lane;
        let at = Row(batch, head, query, part);
        // unroll
        for (var d = 0u; d < V_VECTORS; d++) {
            let i = r * DIM_V + d * 4u;
            if ((query < params.len_q) & (d * 4u < params.dim_v)) { store_columns(at, d * 4u, vec4(o[i], o[i + 1u], o[i + 2u], o[i + 3u]), l[r], saw[r]); }
        }
        if (query < params.len_q) { store_statistics(at, m[r], l[r], saw[r]); }
    }
}
