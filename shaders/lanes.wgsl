// Exact attention for software GPUs: lavapipe, SwiftShader, WARP.
//
//     O = softmax(S) V,   S = score(Q Kᵀ)                      pieces/score.wgsl
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
const GROUPED = false;
const LAG = 4.0;
const RAISE = 0.0;
const INFINITE = 0x7f800000u;                                  // the bits above which a number is NaN

const Q_ARRAY = ROWS * Q_VECTORS;
const O_ARRAY = ROWS * DIM_V;
const S_ARRAY = ROWS * KEYS;
const K_ARRAY = KEYS * K_TEXELS;
const V_ARRAY = KEYS * V_TEXELS;

const_assert LANES * ROWS > 0u && K_TEXELS * LANES == Q_VECTORS && V_TEXELS * LANES == V_VECTORS;
const_assert KEYS == 1u || KEYS == 2u || KEYS == 4u;  // so that a tile's keys are whole rounds

alias Query = array<vec4<f32>, Q_ARRAY>;                       // [row][dim / 4]
alias Output = array<f32, O_ARRAY>;                            // [row][dim]
alias Weights = array<f32, S_ARRAY>;                           // [row][key]; first the products, then what they become

// A lane's rows, and their softmax so far.
struct Rows {
    row: array<Row, ROWS>,
    m: array<f32, ROWS>,
    l: array<f32, ROWS>,
    saw: array<bool, ROWS>,
}

// What a lane brings of the keys and values of a round.
struct Tile {
    k: array<vec4<f32>, K_ARRAY>,                              // [key][texel / LANES]
    v: array<vec4<f32>, V_ARRAY>,
    spoilt: array<bool, KEYS>,                                 // whether the value is not finite, the same in all lanes
}

fn rows_of(site: Site, first: u32, lane: u32) -> Rows {
    var rows = Rows();
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        rows.row[r] = row_of(site, min(first + r * LANES + lane, params.len_q - 1u));
        rows.m[r] = LOWEST;
    }
    return rows;
}

fn load_queries(rows: ptr<function, Rows>, first: u32, lane: u32) -> Query {
    var q = Query();
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        let at = q_address((*rows).row[r]);
        // unroll
        for (var d = 0u; d < Q_VECTORS; d++) {
            if ((first + r * LANES + lane < params.len_q) & (d * 4u < params.dim_qk)) {
                q[r * Q_VECTORS + d] = load_q(at + d * 4u, params.dim_qk - d * 4u);
            }
        }
    }
    return q;
}

fn fetch(site: Site, kv: u32, lane: u32) -> Tile {
    var tile = Tile();
    // unroll
    for (var t = 0u; t < KEYS; t++) {
        let n = address(params.staged, site.batch, site.kv_head, min(kv + t, params.len_kv - 1u));
        let k_texel = vec2(n % K_KEYS_PER_ROW * Q_VECTORS + lane, n / K_KEYS_PER_ROW);
        let v_texel = vec2(n % V_KEYS_PER_ROW * V_VECTORS + lane, n / V_KEYS_PER_ROW);
        // unroll
        for (var c = 0u; c < K_TEXELS; c++) { tile.k[t * K_TEXELS + c] = textureLoad(staged_k, k_texel + vec2(c * LANES, 0u)); }
        // unroll
        for (var c = 0u; c < V_TEXELS; c++) { tile.v[t * V_TEXELS + c] = textureLoad(staged_v, v_texel + vec2(c * LANES, 0u)); }
        // stage.wgsl marks a value that is not finite: its first element is NaN, and all others are 0.
        tile.spoilt[t] = (bitcast<u32>(subgroupShuffle(tile.v[t * V_TEXELS].x, 0u)) & 0x7fffffffu) > INFINITE;
        tile.v[t * V_TEXELS].x = select(tile.v[t * V_TEXELS].x, 0.0, tile.spoilt[t]);
    }
    return tile;
}

// Q Kᵀ: each number of K is handed to all lanes and used for all their rows.
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

// P in the place of S. Returns the factors for what was accumulated before.
fn take_in(kv: u32, rows: ptr<function, Rows>, tile: ptr<function, Tile>, s: ptr<function, Weights>) -> array<f32, ROWS> {
    var factor = array<f32, ROWS>();
    let keys = kv + vec4(0u, 1u, 2u, 3u) % KEYS;               // four, though a round may have fewer: those are left out below
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
        factor[r] = rescale(before, m);
        (*rows).m[r] = m;
        var sum_p = 0.0;
        // unroll
        for (var t = 0u; t < KEYS; t++) {
            sum_p += p[t];
            (*rows).saw[r] |= scores.seen[t];
            // Rows that see a spoilt value are NaN, but for their LSE.
            (*s)[r * KEYS + t] = select(p[t], params.nan, scores.seen[t] & (*tile).spoilt[t]);
        }
        (*rows).l[r] = fma((*rows).l[r], factor[r], sum_p);
    }
    return factor;
}

// O ← O·factor + P V: each number of V is handed to all lanes and used for all their rows.
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

fn finish(rows: ptr<function, Rows>, first: u32, lane: u32, o: ptr<function, Output>) {
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        let is_real = first + r * LANES + lane < params.len_q;
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
    let site = site_of(workgroup);
    let first = workgroup.x * LANES * ROWS;
    let final_row = min(first + LANES * ROWS, params.len_q) - 1u;

    var rows = rows_of(site, first, lane);
    var q = load_queries(&rows, first, lane);
    var o = Output();
    let range = keys_of(site, row_of(site, first), row_of(site, final_row), KEYS);
    for (var kv = range.x; kv < range.y; kv += KEYS) {
        var tile = fetch(site, kv, lane);
        var p = products(&tile, &q);
        let factor = take_in(kv, &rows, &tile, &p);
        accumulate_values(&tile, &p, factor, &o);
    }
    finish(&rows, first, lane, &o);
}
