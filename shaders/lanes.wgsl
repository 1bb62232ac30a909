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
//     for each LANES keys that some row may see, a key and its value to a lane:
//         S ← Q Kᵀ, scaled, capped, biased, masked            each lane its rows, the keys handed round by shuffles
//         m′ ← max(m, rowmax S);  P ← exp(S − m′);  l ← l·exp(m − m′) + rowsum P
//         O ← O·exp(m − m′) + P V                              the values handed round
//     O ← O / l;  lse ← m + ln l                              a row that saw no key: 0 and −∞
//
// All of it is straight-line: what a driver of this kind spends on a loop or a branch is more than what it would save. No
// branch depends on the parameters alone: lavapipe would compile the kernel anew for each dispatch's.

// From the host: LANES, ROWS of a lane, Q_VECTORS and V_VECTORS of four dimensions, and how K and V are staged.
const LOWEST = -3.4028234e38f;                                 // below every score; never a sign of anything
const INFINITE = 0x7f800000u;                                  // the bits from which a number is infinite or NaN

const_assert LANES * ROWS > 0u && LANES % 4u == 0u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(10) var staged_k: texture_2d<f32>;
@group(0) @binding(11) var staged_v: texture_2d<f32>;

// WGSL lets tanh overflow, and lose the digits of a small x to the difference of two exponentials. Those are taken from
// its continued fraction, whose error below ½ is far below f32's.
fn accurate_tanh(x: vec4<f32>) -> vec4<f32> {
    let y = x * x;
    let small = x * fma(y, y + 105.0, vec4(945.0)) / fma(y, fma(y, vec4(15.0), vec4(420.0)), vec4(945.0));
    let t = exp(-2.0 * abs(x));
    let large = sign(x) * (1.0 - t) / (1.0 + t);
    return select(large, small, y < vec4(0.25));
}

fn shape_scores(product: vec4<f32>) -> vec4<f32> {
    let x = product * params.score_scale;
    if (SOFTCAP) { return params.softcap_scale * accurate_tanh(x); }
    return x;
}

fn sum(x: vec4<f32>) -> f32 { return (x.x + x.y) + (x.z + x.w); }
fn largest(x: vec4<f32>) -> f32 { return max(max(x.x, x.y), max(x.z, x.w)); }
fn magnitude(x: vec4<f32>) -> vec4<u32> { return bitcast<vec4<u32>>(x) & vec4(0x7fffffffu); }

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

    var q: array<vec4<f32>, Q_ARRAY>;                          // [row][dim / 4]
    var o: array<vec4<f32>, O_ARRAY>;                          // [row][dim / 4]
    var m: array<f32, ROWS>;                                   // the largest score
    var l: array<f32, ROWS>;                                   // the sum of weights relative to it
    var saw: array<bool, ROWS>;                                // whether the row sees any key, which no sum tells
    var poisoned: array<bool, ROWS>;                           // whether it sees one that is not finite
    var first: array<i32, ROWS>;                               // the keys it sees by position
    var last: array<i32, ROWS>;
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

    let begin = max(u32(max(i32(block_row) + diagonal + params.band_first, 0)) / LANES * LANES, part * params.part_keys);
    let end = min(valid, u32(max(i32(block_end) + diagonal + params.band_last, 0)));
    for (var kv = begin; kv < end; kv += LANES) {
        let n = address(params.staged, batch, kv_head, min(kv + lane, params.len_kv - 1u));

        // This lane's key, and its value: of keys that are not finite, zeroes, and their rows are told.
        let k_texel = vec2(n % K_KEYS_PER_ROW * Q_VECTORS, n / K_KEYS_PER_ROW);
        let v_texel = vec2(n % V_KEYS_PER_ROW * V_VECTORS, n / V_KEYS_PER_ROW);
        var k: array<vec4<f32>, Q_VECTORS>;
        var v: array<vec4<f32>, V_VECTORS>;
        var size = vec4(0u);
        // unroll
        for (var d = 0u; d < Q_VECTORS; d++) {
            k[d] = textureLoad(staged_k, k_texel + vec2(d, 0u), 0);
            size = max(size, magnitude(k[d]));
        }
        // unroll
        for (var d = 0u; d < V_VECTORS; d++) {
            v[d] = textureLoad(staged_v, v_texel + vec2(d, 0u), 0);
            size = max(size, magnitude(v[d]));
        }
        let not_finite = max(max(size.x, size.y), max(size.z, size.w)) >= INFINITE;
        let poison = subgroupBallot(not_finite).x;
        // unroll
        for (var d = 0u; d < V_VECTORS; d++) { v[d] = select(v[d], vec4(0.0), not_finite); }

        // S, and P in its place.
        var p: array<vec4<f32>, P_ARRAY>;                      // [row][key / 4]
        var rescale: array<f32, ROWS>;
        // unroll
        for (var c = 0u; c < LANE_QUADS; c++) {
            var keys: array<vec4<f32>, DIM_QK>;                // [dim], four keys
            // unroll
            for (var d = 0u; d < Q_VECTORS; d++) {
                // unroll
                for (var i = 0u; i < 4u; i++) {
                    let x = k[d][i];
                    keys[d * 4u + i] = vec4(subgroupShuffle(x, c * 4u), subgroupShuffle(x, c * 4u + 1u),
                                            subgroupShuffle(x, c * 4u + 2u), subgroupShuffle(x, c * 4u + 3u));
                }
            }
            // unroll
            for (var r = 0u; r < ROWS; r++) {
                var s = vec4(0.0);
                // unroll
                for (var d = 0u; d < Q_VECTORS; d++) {
                    // unroll
                    for (var i = 0u; i < 4u; i++) { s = fma(vec4(q[r * Q_VECTORS + d][i]), keys[d * 4u + i], s); }
                }
                p[r * LANE_QUADS + c] = s;
            }
        }
        // unroll
        for (var r = 0u; r < ROWS; r++) {
            let row = min(block_row + r * LANES + lane, params.len_q - 1u);
            var seen: array<vec4<bool>, LANE_QUADS>;
            var before = m[r];
            // unroll
            for (var c = 0u; c < LANE_QUADS; c++) {
                let keys = kv + c * 4u + vec4(0u, 1u, 2u, 3u);
                let i = vec4<i32>(keys);
                seen[c] = (i >= vec4(first[r])) & (i <= vec4(last[r]));
                var s = shape_scores(p[r * LANE_QUADS + c]);
                if (HAS_MASK) {
                    let at = address(params.mask, batch, head, row);
                    seen[c] &= attend(at, min(keys, vec4(params.len_kv - 1u)));
                }
                if (HAS_BIAS) {
                    let at = address(params.bias, batch, head, row);
                    let bias = load_bias(at, min(keys, vec4(params.len_kv - 1u)));
                    s += bias;
                    seen[c] &= bitcast<vec4<u32>>(bias) != vec4(0xff800000u);  // −∞ hides
                }
                p[r * LANE_QUADS + c] = select(vec4(LOWEST), s, seen[c]);
                m[r] = max(m[r], largest(p[r * LANE_QUADS + c]));
                let marks = vec4(poison) & (vec4(1u, 2u, 4u, 8u) << vec4(c * 4u));
                poisoned[r] |= any(seen[c] & (marks != vec4(0u)));
                saw[r] |= any(seen[c]);
            }
            // Keys of which a row sees none leave its bits alone: the factor is then 1, whatever exp2(0) is.
            rescale[r] = select(exp2((before - m[r]) * params.exp2_scale), 1.0, before == m[r]);
            l[r] *= rescale[r];
            // unroll
            for (var c = 0u; c < LANE_QUADS; c++) {
                let weights = exp2((p[r * LANE_QUADS + c] - vec4(m[r])) * params.exp2_scale);
                p[r * LANE_QUADS + c] = select(vec4(0.0), weights, seen[c]);
                l[r] += sum(p[r * LANE_QUADS + c]);
            }
        }

        // unroll
        for (var d = 0u; d < V_VECTORS; d++) {
            var value: array<vec4<f32>, LANES>;
            // unroll
            for (var t = 0u; t < LANES; t++) { value[t] = subgroupShuffle(v[d], t); }
            // unroll
            for (var r = 0u; r < ROWS; r++) {
                var sum_o = o[r * V_VECTORS + d] * rescale[r];
                // unroll
                for (var t = 0u; t < LANES; t++) { sum_o = fma(vec4(p[r * LANE_QUADS + t / 4u][t % 4u]), value[t], sum_o); }
                o[r * V_VECTORS + d] = sum_o;
            }
        }
    }

    // unroll
    for (var r = 0u; r < ROWS; r++) {
        let query = block_row + r * LANES + lane;
        let at = Row(batch, head, query, part);
        // unroll
        for (var d = 0u; d < V_VECTORS; d++) {
            let x = select(o[r * V_VECTORS + d], vec4(params.nan), poisoned[r]);
            if ((query < params.len_q) & (d * 4u < params.dim_v)) { store_columns(at, d * 4u, x, l[r], saw[r]); }
        }
        if (query < params.len_q) { store_statistics(at, m[r], l[r], saw[r]); }
    }
}
