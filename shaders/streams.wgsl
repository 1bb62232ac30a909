// Exact attention for few query rows on software GPUs, where reading K and V takes most of the time.
//
//     O = softmax(S) V,   S = score(Q Kᵀ)                      pieces/score.wgsl; pieces/dropout_*.wgsl drops weights
//
// The query heads that share a KV head are computed together: row n is query n / group of the group's head n mod group.
// Each lane reads RUN keys that are contiguous in memory, then its RUN keys of the next tile. The CPU prefetches
// such streams, one per lane. With neighbouring keys in neighbouring lanes it does not.
//
// grid        (⌈Lq · group / ROWS⌉, Hkv, B · parts of the keys)
// workgroup   one subgroup of LANES; each lane holds, for all rows, Q and the O of its keys in registers
// memory      none
// barriers    none
//
//     for each key of this lane, over the tiles in which some row may see a key:
//         s ← q kᵀ, scaled, capped, biased, masked
//         m′ ← s if exp(s − m) > 2⁴, else m;  p ← exp(s − m′);  l ← l·exp(m − m′) + p      over this lane's keys only
//         O ← O·exp(m − m′) + p v
//     m ← max over the lanes;  l, O ← sums over them                               as merge.wgsl does for the parts
//     O ← O / l;  lse ← m + ln l                                                   a row that sees no key: 0 and −∞
//
// The code is straight-line, no branch depends on parameters alone, and m lags behind the maximum, for the reasons given in
// lanes.wgsl.
// Splitting the keys: Dao et al., Flash-Decoding, 2023; rows of a group together: Ainslie et al., GQA, 2023.

// From the host: DIM_QK, DIM_V, LANES, ROWS; Q_VECTORS and V_VECTORS, the vectors of four per row of Q and V; K_TEXELS,
// those that a lane loads of each query; V_TEXELS, those that it stores of each result.
const RUN = 16u;                                               // keys: in f32 a page of 4 KiB at D = 64, and 16 KiB at D = 256
const TILE = LANES * RUN;
const GROUPED = true;
const BLOCK_ROWS = ROWS;
const LAG = 4.0;
const RAISE = 0.0;
const IN_FOURS = true;
const Q_ARRAY = ROWS * DIM_QK;
const O_ARRAY = ROWS * DIM_V;

const_assert K_TEXELS * LANES == Q_VECTORS && V_TEXELS * LANES == V_VECTORS;
const_assert LANES == 4u || LANES == 8u;

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

alias Query = array<f32, Q_ARRAY>;                             // [row][dim], the same in every lane
alias Output = array<f32, O_ARRAY>;                            // [row][dim], over this lane's keys

// The workgroup's rows, and their softmax so far over this lane's keys.
struct Rows {
    row: array<Row, ROWS>,
    m: array<f32, ROWS>,
    l: array<f32, ROWS>,
    saw: array<bool, ROWS>,
}

// Rows past the end repeat the last one, and are not stored.
fn rows_of(site: Site, first: u32) -> Rows {
    var rows = Rows();
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        rows.row[r] = row_of(site, min(first + r, site.rows - 1u));
        rows.m[r] = LOWEST;
    }
    return rows;
}

// Each lane loads its share of the queries and broadcasts it to the others.
fn load_queries(rows: ptr<function, Rows>, lane: u32) -> Query {
    var q = Query();
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        let at = q_address((*rows).row[r]);
        // unroll
        for (var c = 0u; c < K_TEXELS; c++) {
            let dim = (c * LANES + lane) * 4u;
            var mine = vec4(0.0);
            if (dim < params.dim_qk) { mine = load_q(at, dim, params.dim_qk - dim); }
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
    return q;
}

// The products of all rows with a key. Vectors past dim_qk repeat the last one: q is 0 there.
fn products(at: u32, q: ptr<function, Query>) -> array<f32, ROWS> {
    let final_vector = (params.dim_qk - 1u) / 4u * 4u;
    var s = array<f32, ROWS>();
    // unroll
    for (var d = 0u; d < Q_VECTORS; d++) {
        let i = min(d * 4u, final_vector);
        let k4 = load_k(at, i, params.dim_qk - i);
        // unroll
        for (var r = 0u; r < ROWS; r++) {
            // unroll
            for (var c = 0u; c < 4u; c++) { s[r] = fma((*q)[r * DIM_QK + d * 4u + c], k4[c], s[r]); }
        }
    }
    return s;
}

// The weights of a key's scores, and the factors that rescale the earlier sums to the new m.
struct Taken {
    p: array<f32, ROWS>,
    seen: array<bool, ROWS>,
    factor: array<f32, ROWS>,
}

fn take_in(key: u32, products: array<f32, ROWS>, rows: ptr<function, Rows>) -> Taken {
    var taken = Taken();
    var product = products;
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        // score() takes four keys: all four are the same one.
        let row = (*rows).row[r];
        let scores = score(row, vec4(key), vec4(product[r]), sees(row, vec4(key)));
        let before = (*rows).m[r];
        let m = follow(before, scores.s.x);
        let p = weigh(scores.s, scores.seen, m);
        taken.p[r] = kept(row, vec4(key), p).x;
        taken.seen[r] = scores.seen.x;
        taken.factor[r] = rescale(before, m);
        (*rows).m[r] = m;
        (*rows).l[r] = fma((*rows).l[r], taken.factor[r], p.x);
        (*rows).saw[r] |= scores.seen.x;
    }
    return taken;
}

// O ← O·factor + p v.
fn accumulate_values(at: u32, taken_in: Taken, o: ptr<function, Output>) {
    let final_vector = (params.dim_v - 1u) / 4u * 4u;
    var taken = taken_in;
    // unroll
    for (var d = 0u; d < V_VECTORS; d++) {
        let i = min(d * 4u, final_vector);
        let v4 = load_v(at, i, params.dim_v - i);
        // unroll
        for (var r = 0u; r < ROWS; r++) {
            // unroll
            for (var c = 0u; c < 4u; c++) {
                // A value that the row does not see may be NaN.
                let to = r * DIM_V + d * 4u + c;
                (*o)[to] = fma(taken.p[r], select(0.0, v4[c], taken.seen[r]), (*o)[to] * taken.factor[r]);
            }
        }
    }
}

// Rescales all lanes' states to one m, adds them up and stores the result.
fn finish(site: Site, rows: ptr<function, Rows>, first: u32, lane: u32, o: ptr<function, Output>) {
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        let is_real = first + r < site.rows;
        let row = (*rows).row[r];
        let top = largest_of_lanes((*rows).m[r]);
        let factor = rescale((*rows).m[r], top);
        let l = sum_of_lanes((*rows).l[r] * factor);
        let saw_any = largest_of_lanes(select(0.0, 1.0, (*rows).saw[r])) > 0.0;
        // unroll
        for (var c = 0u; c < V_TEXELS; c++) {
            var mine = vec4(0.0);
            // unroll
            for (var t = 0u; t < LANES; t++) {
                let i = r * DIM_V + (c * LANES + t) * 4u;
                let all_o = vec4(sum_of_lanes((*o)[i] * factor), sum_of_lanes((*o)[i + 1u] * factor),
                                 sum_of_lanes((*o)[i + 2u] * factor), sum_of_lanes((*o)[i + 3u] * factor));
                mine = select(mine, all_o, lane == t);
            }
            let dim = (c * LANES + lane) * 4u;
            if (is_real & (dim < params.dim_v)) { store_columns(row, dim, mine, top, l, saw_any); }
        }
        if ((lane == 0u) & is_real) { store_statistics(row, top, l, saw_any); }
    }
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    var site = site_of(workgroup);
    // No return: see lanes.wgsl.
    if (is_idle(site)) { site.rows = 0u; }
    let first = site.first;
    let final_row = min(first + ROWS, site.rows) - 1u;

    var rows = rows_of(site, first);
    var q = load_queries(&rows, lane);
    var o = Output();
    // A step is one key per lane; a tile is RUN steps. Both count from the start of the part.
    var range = keys_of(site, row_of(site, first), row_of(site, final_row), 1u);
    if (site.rows == 0u) { range.y = 0u; }
    let last_step = (max(range.y, site.begin) - site.begin + TILE - 1u) / TILE * RUN;
    for (var step = (range.x - site.begin) / TILE * RUN; step < last_step; step++) {
        let key = site.begin + step / RUN * TILE + lane * RUN + step % RUN;
        let place = place_at(site, key);
        let taken = take_in(key, products(address(params.k, place.batch, site.kv_head, place.row), &q), &rows);
        accumulate_values(address(params.v, place.batch, site.kv_head, place.row), taken, &o);
    }
    finish(site, &rows, first, lane, &o);
}
