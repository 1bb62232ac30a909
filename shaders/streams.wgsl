// Exact attention for few query rows on CPUs that play a GPU, where reading K and V once is most of the time there is.
//
//     O = softmax(S) V,   S = softcap(scale · Q Kᵀ) + bias, masked
//
// The query heads that share a KV head are rows like any other: row n of a KV head is query n / group, head n mod group.
// Every lane walks through keys of its own, RUN of them that follow one another in memory and then those of the next tile:
// so many streams the CPU fetches ahead, and one key to a lane, whose neighbour is a row further, it does not.
//
// grid        (⌈Lq · group / ROWS⌉, Hkv, B · parts of the keys)
// workgroup   one subgroup of LANES, with Q and each lane's share of O for all rows in its registers
// memory      none; barriers: none
//
//     for each key of this lane that some row may see:
//         s ← q kᵀ, scaled, capped, biased, masked
//         m′ ← s where that is a leap above m, else m;  p ← exp(s − m′);  l ← l·exp(m − m′) + p      of this lane alone
//         O ← O·exp(m − m′) + p v
//     m ← max over the lanes;  l, O ← sums over them                               as merge.wgsl does for the parts
//     O ← O / l;  lse ← m + ln l                                                   a row that saw no key: 0 and −∞
//
// Straight-line, no branch by the parameters alone, and m left behind by less than a leap, for the reasons told in lanes.wgsl.
// Splitting the keys: Dao et al., Flash-Decoding, 2023; rows of a group together: Ainslie et al., GQA, 2023.

// From the host: LANES, ROWS; Q_VECTORS and V_VECTORS of four dimensions, of which a lane brings K_TEXELS of each query and
// takes V_TEXELS of each result.
const RUN = 16u;                                               // at most 16 KiB, at least a page of f32 from D = 64 on
const TILE = LANES * RUN;
const LOWEST = -3.4028234e38f;                                 // below every score; never a sign of anything
const LEAP = 4.0;                                              // of a score above m, in powers of two, before m follows
const Q_ARRAY = ROWS * DIM_QK;
const O_ARRAY = ROWS * DIM_V;

const_assert K_TEXELS * LANES == Q_VECTORS && V_TEXELS * LANES == V_VECTORS;
const_assert LANES == 4u || LANES == 8u;

@group(0) @binding(0) var<uniform> params: Params;

fn sum_of_lanes(x: f32) -> f32 {
    var sum = x + subgroupShuffleXor(x, 1u);
    sum += subgroupShuffleXor(sum, 2u);
    if (LANES == 8u) { sum += subgroupShuffleXor(sum, 4u); }
    return sum;
}

fn largest_of_lanes(x: f32) -> f32 {
    var most = max(x, subgroupShuffleXor(x, 1u));
    most = max(most, subgroupShuffleXor(most, 2u));
    if (LANES == 8u) { most = max(most, subgroupShuffleXor(most, 4u)); }
    return most;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let batch = workgroup.z / params.parts;
    let part = workgroup.z % params.parts * params.part_keys;
    let kv_head = workgroup.y;
    let valid = valid_keys(batch);
    let diagonal = i32(params.first_row) + i32(valid * params.band_from_end);
    let rows = params.len_q * params.group;
    let first_row = workgroup.x * ROWS;
    let final_row = min(first_row + ROWS, rows) - 1u;

    var q = array<f32, Q_ARRAY>();                             // [row][dim], the same in every lane
    var o = array<f32, O_ARRAY>();                             // [row][dim], over this lane's keys
    var m = array<f32, ROWS>();                                // the largest score of this lane's keys, but for a leap
    var l = array<f32, ROWS>();                                // the sum of weights relative to it
    var saw = array<bool, ROWS>();                             // whether the row sees a key, which no sum tells
    var first = array<i32, ROWS>();                            // the keys it sees by position
    var last = array<i32, ROWS>();
    let end = min(valid, part + params.part_keys);
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        let row = min(first_row + r, final_row);
        let stands_at = i32(row / params.group) + diagonal;
        first[r] = stands_at + params.band_first;
        last[r] = min(stands_at + params.band_last, i32(end) - 1);
        m[r] = LOWEST;
        let at = address(params.q, batch, kv_head * params.group + row % params.group, row / params.group);
        // unroll
        for (var c = 0u; c < K_TEXELS; c++) {
            let dim = (c * LANES + lane) * 4u;
            var mine = vec4(0.0);
            if (dim < params.dim_qk) { mine = load_q(at + dim, params.dim_qk - dim); }
            // unroll
            for (var t = 0u; t < LANES; t++) {
                let all = subgroupShuffle(mine, t);
                let i = r * DIM_QK + (c * LANES + t) * 4u;
                q[i] = all.x;
                q[i + 1u] = all.y;
                q[i + 2u] = all.z;
                q[i + 3u] = all.w;
            }
        }
    }

    // Past its end a row is read again: there q is 0, and what o becomes is not stored.
    let final_k = (params.dim_qk - 1u) / 4u * 4u;
    let final_v = (params.dim_v - 1u) / 4u * 4u;
    // In steps of a key to each lane, from the start of the part; RUN of them to a tile.
    let first_seen = u32(max(i32(first_row / params.group) + diagonal + params.band_first, i32(part))) - part;
    let end_seen = min(u32(max(i32(final_row / params.group) + diagonal + params.band_last + 1, i32(part))), max(end, part)) - part;
    let last_step = (end_seen + TILE - 1u) / TILE * RUN;
    for (var step = first_seen / TILE * RUN; step < last_step; step++) {
        let key = part + step / RUN * TILE + lane * RUN + step % RUN;
        let within = min(key, params.len_kv - 1u);
        let k_at = address(params.k, batch, kv_head, within);
        let v_at = address(params.v, batch, kv_head, within);

        var s = array<f32, ROWS>();
        // unroll
        for (var d = 0u; d < Q_VECTORS; d++) {
            let i = min(d * 4u, final_k);
            let k4 = load_k(k_at + i, params.dim_qk - i);
            // unroll
            for (var r = 0u; r < ROWS; r++) {
                // unroll
                for (var c = 0u; c < 4u; c++) { s[r] = fma(q[r * DIM_QK + d * 4u + c], k4[c], s[r]); }
            }
        }

        var seen = array<bool, ROWS>();
        var rescale = array<f32, ROWS>();
        // unroll
        for (var r = 0u; r < ROWS; r++) {
            let row = min(first_row + r, final_row);
            let query = row / params.group;
            let head = kv_head * params.group + row % params.group;
            seen[r] = (i32(key) >= first[r]) & (i32(key) <= last[r]);
            s[r] = shape_scores(vec4(s[r])).x;
            if (HAS_MASK) { seen[r] &= attend(address(params.mask, batch, head, query), vec4(within)).x; }
            if (HAS_BIAS) {
                let bias = load_bias(address(params.bias, batch, head, query), vec4(within)).x;
                s[r] += bias;
                seen[r] &= bitcast<u32>(bias) != 0xff800000u;  // −∞ hides
            }
            s[r] = select(LOWEST, s[r], seen[r]);
            let before = m[r];
            m[r] = select(before, s[r], (s[r] - before) * params.exp2_scale > LEAP);
            // A key that a row does not see leaves its bits alone: the factor is then 1, whatever exp2(0) is.
            rescale[r] = select(exp2((before - m[r]) * params.exp2_scale), 1.0, before == m[r]);
            s[r] = select(0.0, exp2((s[r] - m[r]) * params.exp2_scale), seen[r]);
            l[r] = fma(l[r], rescale[r], s[r]);
            saw[r] |= seen[r];
        }

        // unroll
        for (var d = 0u; d < V_VECTORS; d++) {
            let i = min(d * 4u, final_v);
            let v4 = load_v(v_at + i, params.dim_v - i);
            // unroll
            for (var r = 0u; r < ROWS; r++) {
                // unroll
                for (var c = 0u; c < 4u; c++) {
                    // A value that the row does not see may hold anything, and is not touched.
                    let at = r * DIM_V + d * 4u + c;
                    o[at] = fma(s[r], select(0.0, v4[c], seen[r]), o[at] * rescale[r]);
                }
            }
        }
    }

    // unroll
    for (var r = 0u; r < ROWS; r++) {
        let row = first_row + r;
        let at = Row(batch, kv_head * params.group + row % params.group, row / params.group, workgroup.z % params.parts);
        let top = largest_of_lanes(m[r]);
        let rescale = select(exp2((m[r] - top) * params.exp2_scale), 1.0, m[r] == top);
        let all_l = sum_of_lanes(l[r] * rescale);
        let saw_any = largest_of_lanes(select(0.0, 1.0, saw[r])) > 0.0;
        // unroll
        for (var c = 0u; c < V_TEXELS; c++) {
            var mine = vec4(0.0);
            // unroll
            for (var t = 0u; t < LANES; t++) {
                let i = r * DIM_V + (c * LANES + t) * 4u;
                let all_o = vec4(sum_of_lanes(o[i] * rescale), sum_of_lanes(o[i + 1u] * rescale),
                                 sum_of_lanes(o[i + 2u] * rescale), sum_of_lanes(o[i + 3u] * rescale));
                mine = select(mine, all_o, lane == t);
            }
            let dim = (c * LANES + lane) * 4u;
            if ((row < rows) & (dim < params.dim_v)) { store_columns(at, dim, mine, all_l, saw_any); }
        }
        if ((lane == 0u) & (row < rows)) { store_statistics(at, top, all_l, saw_any); }
    }
}
