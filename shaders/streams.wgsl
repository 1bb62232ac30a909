// Exact attention for few query rows on software GPUs, where reading K and V once is most of the time there is.
//
//     O = softmax(S) V,   S = score(Q Kᵀ)                      pieces/score.wgsl
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
const GROUPED = true;
const LAG = 4.0;
const RAISE = 0.0;
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

// Past its end the last row is read again: what becomes of that is not stored.
fn rows_of(site: Site, first: u32) -> Rows {
    var rows = Rows();
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        rows.row[r] = row_of(site, min(first + r, row_count() - 1u));
        rows.m[r] = LOWEST;
    }
    return rows;
}

// Each lane loads its share of the queries and hands it to all.
fn load_queries(rows: ptr<function, Rows>, lane: u32) -> Query {
    var q = Query();
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        let at = q_address((*rows).row[r]);
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
    return q;
}

// The products of all rows with a key. Past the end of the dimensions the last vector is read again: there q is 0.
fn products(at: u32, q: ptr<function, Query>) -> array<f32, ROWS> {
    let final_vector = (params.dim_qk - 1u) / 4u * 4u;
    var s = array<f32, ROWS>();
    // unroll
    for (var d = 0u; d < Q_VECTORS; d++) {
        let i = min(d * 4u, final_vector);
        let k4 = load_k(at + i, params.dim_qk - i);
        // unroll
        for (var r = 0u; r < ROWS; r++) {
            // unroll
            for (var c = 0u; c < 4u; c++) { s[r] = fma((*q)[r * DIM_QK + d * 4u + c], k4[c], s[r]); }
        }
    }
    return s;
}

// What a key's scores become.
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
        // One key where the rules take four: the others are the same.
        let row = (*rows).row[r];
        let scores = score(row, vec4(key), vec4(product[r]), sees(row, vec4(key)));
        let before = (*rows).m[r];
        let m = follow(before, scores.s.x);
        taken.p[r] = weigh(scores.s, scores.seen, m).x;
        taken.seen[r] = scores.seen.x;
        taken.factor[r] = rescale(before, m);
        (*rows).m[r] = m;
        (*rows).l[r] = fma((*rows).l[r], taken.factor[r], taken.p[r]);
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
        let v4 = load_v(at + i, params.dim_v - i);
        // unroll
        for (var r = 0u; r < ROWS; r++) {
            // unroll
            for (var c = 0u; c < 4u; c++) {
                // A value that the row does not see may hold anything, and is not touched.
                let to = r * DIM_V + d * 4u + c;
                (*o)[to] = fma(taken.p[r], select(0.0, v4[c], taken.seen[r]), (*o)[to] * taken.factor[r]);
            }
        }
    }
}

// Brings all lanes' states to one m, adds them up and stores what they come to.
fn finish(rows: ptr<function, Rows>, first: u32, lane: u32, o: ptr<function, Output>) {
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        let is_real = first + r < row_count();
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
    let site = site_of(workgroup);
    let first = workgroup.x * ROWS;
    let final_row = min(first + ROWS, row_count()) - 1u;

    var rows = rows_of(site, first);
    var q = load_queries(&rows, lane);
    var o = Output();
    // In steps of a key to each lane, from the start of the part; RUN of them to a tile.
    let range = keys_of(site, row_of(site, first), row_of(site, final_row), 1u);
    let last_step = (max(range.y, site.begin) - site.begin + TILE - 1u) / TILE * RUN;
    for (var step = (range.x - site.begin) / TILE * RUN; step < last_step; step++) {
        let key = site.begin + step / RUN * TILE + lane * RUN + step % RUN;
        let readable = min(key, params.len_kv - 1u);
        let taken = take_in(key, products(k_address(site, readable), &q), &rows);
        accumulate_values(v_address(site, readable), taken, &o);
    }
    finish(&rows, first, lane, &o);
}
