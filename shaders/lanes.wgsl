// Exact attention for software GPUs: lavapipe, SwiftShader, WARP.
//
//     O = softmax(S) V,   S = score(Q Kᵀ)                      pieces/score.wgsl; pieces/dropout_*.wgsl drops weights
//
// A software GPU runs a subgroup as one CPU vector and a workgroup on one CPU thread. Workgroup memory gains nothing there,
// barriers are expensive, a branch costs both of its sides, and a buffer load reads the lanes one by one. So:
//
// grid        (⌈Lq / (LANES · ROWS)⌉, Hq, B · parts of the keys)
// workgroup   one subgroup of LANES; lane i owns rows i, i + LANES, … of the block, with Q and O in its registers
// memory      none; K and V come from textures, which stage.wgsl fills
// barriers    none
//
//     for each KEYS keys that some row may see:               lane i reads texels i, i + LANES, … of each key
//         S ← Q Kᵀ, scaled, capped, biased, masked            each lane for its rows; shuffles broadcast K
//         m′ ← rowmax S if exp(rowmax S − m) > 2⁴, else m;  P ← exp(S − m′);  l ← l·exp(m − m′) + rowsum P
//         O ← O·exp(m − m′) + P V                             shuffles broadcast V
//     O ← O / l;  lse ← m + ln l                              a row that sees no key: 0 and −∞
//
// m lags behind the running maximum because the exp of these drivers has a small error that always has the same sign. With
// few keys per iteration an exact m would rise often, and the errors would add up.
//
// The loop's body is straight-line code: on these drivers an inner loop or a branch costs more than it saves. One iteration
// must fit the first-level instruction cache, which bounds ROWS · KEYS · D: with twice the text the kernel runs at half the
// speed. No branch depends on parameters alone: lavapipe would then compile the kernel again for the parameters of each
// dispatch.

// From the host: LANES; ROWS per lane; KEYS per iteration; DIM_QK and DIM_V; Q_VECTORS and V_VECTORS, the vectors of four
// per row of Q and V; K_TEXELS and V_TEXELS, how many of a key's texels a lane reads; K_KEYS_PER_ROW and V_KEYS_PER_ROW, as
// in stage.wgsl.
const GROUPED = false;
const BLOCK_ROWS = LANES * ROWS;
const LAG = 4.0;
const RAISE = 0.0;
const IN_FOURS = true;
const INFINITY_BITS = 0x7f800000u;                             // the bits of ∞; those of NaN are larger

const Q_ARRAY = ROWS * Q_VECTORS;
const O_ARRAY = ROWS * DIM_V;
const S_ARRAY = ROWS * KEYS;
const K_ARRAY = KEYS * K_TEXELS;
const V_ARRAY = KEYS * V_TEXELS;

const_assert LANES * ROWS > 0u && K_TEXELS * LANES == Q_VECTORS && V_TEXELS * LANES == V_VECTORS;
const_assert KEYS == 1u || KEYS == 2u || KEYS == 4u;  // so that a tile of 32 keys is a whole number of iterations

alias Query = array<vec4<f32>, Q_ARRAY>;                       // [row][dim / 4]
alias Output = array<f32, O_ARRAY>;                            // [row][dim]
alias Weights = array<f32, S_ARRAY>;                           // [row][key]: the products, then the weights

// A lane's rows, and their softmax so far.
struct Rows {
    row: array<Row, ROWS>,
    m: array<f32, ROWS>,
    l: array<f32, ROWS>,
    saw: array<bool, ROWS>,
}

// A lane's share of the keys and values of an iteration.
struct Tile {
    k: array<vec4<f32>, K_ARRAY>,                              // [key][texel / LANES]
    v: array<vec4<f32>, V_ARRAY>,
    non_finite: array<bool, KEYS>,                             // whether the value is not finite; the same in all lanes
}

fn rows_of(site: Site, first: u32, lane: u32) -> Rows {
    var rows = Rows();
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        rows.row[r] = row_of(site, min(first + r * LANES + lane, site.rows - 1u));
        rows.m[r] = LOWEST;
    }
    return rows;
}

fn load_queries(site: Site, rows: ptr<function, Rows>, first: u32, lane: u32) -> Query {
    var q = Query();
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        let at = q_address((*rows).row[r]);
        // unroll
        for (var d = 0u; d < Q_VECTORS; d++) {
            if ((first + r * LANES + lane < site.rows) & (d * 4u < params.dim_qk)) {
                q[r * Q_VECTORS + d] = load_q(at, d * 4u, params.dim_qk - d * 4u);
            }
        }
    }
    return q;
}

fn fetch(site: Site, kv: u32, lane: u32) -> Tile {
    var tile = Tile();
    // unroll
    for (var t = 0u; t < KEYS; t++) {
        let place = staged_place(site.batch, site.keys_at, readable(site, kv + t));
        let n = address(params.staged, place.batch, site.kv_head, place.row);
        let k_texel = vec2(n % K_KEYS_PER_ROW * Q_VECTORS + lane, n / K_KEYS_PER_ROW);
        let v_texel = vec2(n % V_KEYS_PER_ROW * V_VECTORS + lane, n / V_KEYS_PER_ROW);
        // unroll
        for (var c = 0u; c < K_TEXELS; c++) { tile.k[t * K_TEXELS + c] = textureLoad(staged_k, k_texel + vec2(c * LANES, 0u)); }
        // unroll
        for (var c = 0u; c < V_TEXELS; c++) { tile.v[t * V_TEXELS + c] = textureLoad(staged_v, v_texel + vec2(c * LANES, 0u)); }
        // stage.wgsl replaced a value that is not finite: its first element is NaN, and all others are 0.
        tile.non_finite[t] = (bitcast<u32>(subgroupShuffle(tile.v[t * V_TEXELS].x, 0u)) & 0x7fffffffu) > INFINITY_BITS;
        tile.v[t * V_TEXELS].x = select(tile.v[t * V_TEXELS].x, 0.0, tile.non_finite[t]);
    }
    return tile;
}

// Q Kᵀ. Each element of K is broadcast to all lanes and used for all of their rows.
fn products(tile: ptr<function, Tile>, q: ptr<function, Query>) -> Weights {
    var s = Weights();
    // unroll
    for (var d = 0u; d < DIM_QK; d++) {
        var key = array<f32, KEYS>();
        // unroll
        for (var t = 0u; t < KEYS; t++) {
            key[t] = subgroupShuffle((*tile).k[t * K_TEXELS + d / 4u / LANES][d % 4u], d / 4u % LANES);
        }
        // unroll
        for (var r = 0u; r < ROWS; r++) {
            // unroll
            for (var t = 0u; t < KEYS; t++) { s[r * KEYS + t] = fma(key[t], (*q)[r * Q_VECTORS + d / 4u][d % 4u], s[r * KEYS + t]); }
        }
    }
    return s;
}

// Replaces the products by weights. Returns the factors that rescale the earlier sums to the new m.
fn take_in(kv: u32, rows: ptr<function, Rows>, tile: ptr<function, Tile>, s: ptr<function, Weights>) -> array<f32, ROWS> {
    var factor = array<f32, ROWS>();
    let keys = kv + vec4(0u, 1u, 2u, 3u) % KEYS;               // with fewer KEYS than four they repeat, and the copies are not used
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        let row = (*rows).row[r];
        let product = vec4((*s)[r * KEYS], (*s)[r * KEYS + 1u % KEYS], (*s)[r * KEYS + 2u % KEYS], (*s)[r * KEYS + 3u % KEYS]);
        let scores = score(row, keys, product, sees(row, keys));
        let before = (*rows).m[r];
        var top = before;
        // unroll
        for (var t = 0u; t < KEYS; t++) { top = max(top, scores.s[t]); }
        let m = follow(before, top);
        let p = weigh(scores.s, scores.seen, m);
        let used = kept(row, keys, p);
        factor[r] = rescale(before, m);
        (*rows).m[r] = m;
        var sum_p = 0.0;
        // unroll
        for (var t = 0u; t < KEYS; t++) {
            sum_p += p[t];
            (*rows).saw[r] |= scores.seen[t];
            // The output of a row that sees a value that is not finite is NaN. Its LSE is not affected.
            (*s)[r * KEYS + t] = select(used[t], params.nan, scores.seen[t] & (*tile).non_finite[t]);
        }
        (*rows).l[r] = fma((*rows).l[r], factor[r], sum_p);
    }
    return factor;
}

// O ← O·factor + P V. Each element of V is broadcast to all lanes and used for all of their rows.
fn accumulate_values(tile: ptr<function, Tile>, p: ptr<function, Weights>, factors: array<f32, ROWS>, o: ptr<function, Output>) {
    var factor = factors;
    // unroll
    for (var d = 0u; d < DIM_V; d++) {
        var value = array<f32, KEYS>();
        // unroll
        for (var t = 0u; t < KEYS; t++) { value[t] = subgroupShuffle((*tile).v[t * V_TEXELS + d / 4u / LANES][d % 4u], d / 4u % LANES); }
        // unroll
        for (var r = 0u; r < ROWS; r++) {
            var sum = (*o)[r * DIM_V + d] * factor[r];
            // unroll
            for (var t = 0u; t < KEYS; t++) { sum = fma(value[t], (*p)[r * KEYS + t], sum); }
            (*o)[r * DIM_V + d] = sum;
        }
    }
}

fn finish(site: Site, rows: ptr<function, Rows>, first: u32, lane: u32, o: ptr<function, Output>) {
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        let is_real = first + r * LANES + lane < site.rows;
        let row = (*rows).row[r];
        // unroll
        for (var d = 0u; d < V_VECTORS; d++) {
            let i = r * DIM_V + d * 4u;
            let columns = vec4((*o)[i], (*o)[i + 1u], (*o)[i + 2u], (*o)[i + 3u]);
            if (is_real & (d * 4u < params.dim_v)) { store_columns(row, d * 4u, columns, (*rows).m[r], (*rows).l[r], (*rows).saw[r]); }
        }
        if (is_real) { store_statistics(row, (*rows).m[r], (*rows).l[r], (*rows).saw[r]); }
    }
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    var site = site_of(workgroup);
    // No return: these drivers would run all that follows under a mask, which takes half as long again.
    if (is_idle(site)) { site.rows = 0u; }
    let first = site.first;
    let final_row = min(first + BLOCK_ROWS, site.rows) - 1u;

    var rows = rows_of(site, first, lane);
    var q = load_queries(site, &rows, first, lane);
    var o = Output();
    let head = row_of(site, first);
    let tail = row_of(site, final_row);
    var range = keys_of(site, head, tail, KEYS);
    if (site.rows == 0u) { range.y = 0u; }
    for (var kv = next_seen(head, tail, range.x, range.y); kv < range.y; kv = next_seen(head, tail, kv + KEYS, range.y)) {
        var tile = fetch(site, kv, lane);
        var p = products(&tile, &q);
        let factor = take_in(kv, &rows, &tile, &p);
        accumulate_values(&tile, &p, factor, &o);
    }
    finish(site, &rows, first, lane, &o);
}
