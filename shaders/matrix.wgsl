// Exact attention on matrix units: both products are cooperative multiplications of square fragments.
//
//     O = softmax(S) V,   S = score(Q Kᵀ)                      pieces/score.wgsl
//
// The query heads that share a KV head are rows like any other: row n of a KV head is query n / group, head n mod group.
//
// grid        (⌈Lq · group / ROWS⌉, Hkv, B · parts of the keys)
// workgroup   SUBGROUPS subgroups, each with ROW_FRAGMENTS · SIDE rows of its own: their Q and O stay in its matrices, and
//             SUBGROUP / (ROW_FRAGMENTS · SIDE) = LANES of its threads share the softmax of a row
// memory      BLOCK_KV keys and their values in f16, and ROWS · BLOCK_KV scores in f32 and weights in f16. Rows are 16 bytes
//             longer than what they hold, so that a fragment's rows begin in different banks
// barriers    a tile: 2; 1 more where scores are capped, biased or masked and LANES > 1; 3 for each BLOCK_KV columns of O
//             where a row of the workgroup moves its anchor. At the start 1, and 2 for each BLOCK_KV rows; at the end 2, and 2 for
//             each BLOCK_KV columns
//
//     K of the first tile → k_tile
//     for each tile of keys that some row may see:
//         the next tile's K and this one's V → registers
//         s_tile ← Q Kᵀ
//     ──  barrier: the scores are there; this K and the last V have been read
//         k_tile, v_tile ← registers
//         S capped, biased, masked, unless the tile is full and has none of that
//         m′ ← rowmax S where that is more than m by 2⁸, else m;  P ← exp(S − m′);  l ← l·exp(m − m′) + rowsum P
//     ──  barrier: the weights, this V and the next K are there
//         O ← O·exp(m − m′), by way of s_tile, if any row of the workgroup has m′ ≠ m
//         O ← O + P V
//     O ← O / l;  lse ← m + ln l                              a row that saw no key: 0 and −∞
//
// A fragment's elements cannot be reached, so scores and weights go through memory, and O is rescaled only where it must be:
// m need not be the maximum, it only has to keep exp(S − m) in range. Weights are 2⁷ times as large as they say, which leaves
// f16 its whole range below the largest.
//
// Online softmax: Milakov & Gimelshein 2018; tiling: Dao et al., FlashAttention, 2022; rescaling seldom: FlashAttention-4, 2025.

// pieces/fragments_*.wgsl multiply, pieces/tiles_*.wgsl are the tiles, counted in vectors of four; matrix_staging.wgsl fills them,
// and matrix_softmax.wgsl is what threads do with scores.
//
// From the host: SIDE of a fragment, SUBGROUP threads; SUBGROUPS, ROW_FRAGMENTS, BLOCK_KV; DIM_QK and DIM_V in whole fragments;
// QK_FRAGMENTS, V_FRAGMENTS, KEY_FRAGMENTS; O_CHUNKS, how often BLOCK_KV columns go into O; ROW_QUADS, the vectors of four keys of a
// tile, and LANE_QUADS, those of a thread; K_MOVES and V_MOVES, the vectors a thread brings in of a tile.
const ROWS = SUBGROUPS * ROW_FRAGMENTS * SIDE;
const THREADS = SUBGROUPS * SUBGROUP;
const LANES = THREADS / ROWS;                                  // threads of a row
const SIDE_QUADS = SIDE / 4u;
const QK_QUADS = DIM_QK / 4u;
const V_QUADS = DIM_V / 4u;
const K_CELLS = BLOCK_KV * QK_QUADS;
const V_CELLS = BLOCK_KV * V_QUADS;
const K_STRIDE = QK_QUADS + 2u;                                // 16 bytes of padding, here and below
const V_STRIDE = V_QUADS + 2u;
const P_STRIDE = ROW_QUADS + 2u;
const S_STRIDE = ROW_QUADS + 1u;
const Q_ARRAY = ROW_FRAGMENTS * QK_FRAGMENTS;
const O_ARRAY = ROW_FRAGMENTS * V_FRAGMENTS;

const GROUPED = true;
const LAG = 8.0;                                               // so weights are at most 2^(8 + 7), which fits f16
const RAISE = 7.0;
const LOWER = 0.0078125;                                       // what takes RAISE back
const PLAIN = !HAS_SOFTCAP && !HAS_SCORE_MOD && !HAS_BIAS && !HAS_ALIBI;  // scores are products, but for the scale's sign

const_assert LANES * ROWS == THREADS && LANES <= ROW_QUADS && LANE_QUADS * LANES == ROW_QUADS && LANE_QUADS <= 8u;
const_assert BLOCK_KV % SIDE == 0u && QK_FRAGMENTS * SIDE == DIM_QK && V_FRAGMENTS * SIDE == DIM_V;

// Marks hold the number of the tile that made them, counted from 1, so that none need be taken back. One array, and 16 bytes
// for the first two: fragments are read at multiples of 16 bytes, and no smaller variable may push a tile off them.
var<workgroup> marks: array<atomic<u32>, MARKS>;
const MOVED = 0u;                                              // some row that holds anything has moved its anchor
const SPOILT = 1u;                                             // some value is not finite
const SPOILT_KEYS = 4u;                                        // and it is this key's
const MARKS = SPOILT_KEYS + BLOCK_KV;

// Whether every row of the block sees every key of the tile, and its scores are the products.
fn is_full(block: Block, kv: u32) -> bool {
    return !HAS_HIDDEN_KEYS && all_see(block_row(block, 0u), block_row(block, ROWS), kv, BLOCK_KV);
}

// s_tile ← Q Kᵀ, this subgroup's rows.
fn multiply_keys(subgroup: u32, q: ptr<function, array<Left, Q_ARRAY>>) {
    // unroll
    for (var n = 0u; n < KEY_FRAGMENTS; n++) {
        var s = array<Sum, ROW_FRAGMENTS>();
        // unroll
        for (var f = 0u; f < ROW_FRAGMENTS; f++) { s[f] = zero(); }
        // unroll
        for (var d = 0u; d < QK_FRAGMENTS; d++) {
            let k = k_fragment(n * SIDE * K_STRIDE + d * SIDE_QUADS);
            // unroll
            for (var f = 0u; f < ROW_FRAGMENTS; f++) { s[f] = multiply_add((*q)[f * QK_FRAGMENTS + d], k, s[f]); }
        }
        // unroll
        for (var f = 0u; f < ROW_FRAGMENTS; f++) {
            store_fragment(s[f], (subgroup * ROW_FRAGMENTS + f) * SIDE * S_STRIDE + n * SIDE_QUADS);
        }
    }
}

// O ← O + P V, this subgroup's rows.
fn multiply_values(subgroup: u32, o: ptr<function, array<Sum, O_ARRAY>>) {
    // unroll
    for (var n = 0u; n < KEY_FRAGMENTS; n++) {
        var p = array<Left, ROW_FRAGMENTS>();
        // unroll
        for (var f = 0u; f < ROW_FRAGMENTS; f++) {
            p[f] = p_fragment((subgroup * ROW_FRAGMENTS + f) * SIDE * P_STRIDE + n * SIDE_QUADS);
        }
        // unroll
        for (var c = 0u; c < V_FRAGMENTS; c++) {
            let v = v_fragment(n * SIDE * V_STRIDE + c * SIDE_QUADS);
            // unroll
            for (var f = 0u; f < ROW_FRAGMENTS; f++) {
                (*o)[f * V_FRAGMENTS + c] = multiply_add(p[f], v, (*o)[f * V_FRAGMENTS + c]);
            }
        }
    }
}

// BLOCK_KV columns of O, the `c`th such, where a thread can reach them: in s_tile.
fn lay_out(subgroup: u32, c: u32, o: ptr<function, array<Sum, O_ARRAY>>) {
    // unroll
    for (var f = 0u; f < ROW_FRAGMENTS; f++) {
        let at = (subgroup * ROW_FRAGMENTS + f) * SIDE * S_STRIDE;
        // unroll
        for (var n = 0u; n < KEY_FRAGMENTS; n++) {
            let column = c * KEY_FRAGMENTS + n;
            if (column < V_FRAGMENTS) { store_fragment((*o)[f * V_FRAGMENTS + column], at + n * SIDE_QUADS); }
        }
    }
}

// And back.
fn take_back(subgroup: u32, c: u32, o: ptr<function, array<Sum, O_ARRAY>>) {
    // unroll
    for (var f = 0u; f < ROW_FRAGMENTS; f++) {
        let at = (subgroup * ROW_FRAGMENTS + f) * SIDE * S_STRIDE;
        // unroll
        for (var n = 0u; n < KEY_FRAGMENTS; n++) {
            let column = c * KEY_FRAGMENTS + n;
            if (column < V_FRAGMENTS) { (*o)[f * V_FRAGMENTS + column] = sum_fragment(at + n * SIDE_QUADS); }
        }
    }
}

// O ← diag(factor) O.
fn rescale_output(thread: u32, factor: f32, o: ptr<function, array<Sum, O_ARRAY>>) {
    let subgroup = thread / SUBGROUP;
    // unroll
    for (var c = 0u; c < O_CHUNKS; c++) {
        lay_out(subgroup, c, o);
        workgroupBarrier();
        // unroll
        for (var i = 0u; i < LANE_QUADS; i++) {
            let at = thread / LANES * S_STRIDE + i * LANES + thread % LANES;
            set_scores(at, scores(at) * factor);
        }
        workgroupBarrier();
        take_back(subgroup, c, o);
        workgroupBarrier();
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    // Not the builtin: a driver crashes on modules with matrices and subgroups both. The probe notices larger subgroups than
    // said; with smaller ones several do the same, which is slow and right.
    let subgroup = thread / SUBGROUP;
    begin(thread);
    let block = block_of(workgroup);
    for (var i = thread; i < MARKS; i += THREADS) { atomicStore(&marks[i], 0u); }

    var q = array<Left, Q_ARRAY>();                            // [row fragment][fragment of dimensions]
    for (var first = 0u; first < ROWS; first += BLOCK_KV) {
        stage_q(block, thread, first);
        workgroupBarrier();
        // unroll
        for (var f = 0u; f < ROW_FRAGMENTS; f++) {
            let row = (subgroup * ROW_FRAGMENTS + f) * SIDE;
            if (first <= row && row < first + BLOCK_KV) {
                // unroll
                for (var d = 0u; d < QK_FRAGMENTS; d++) {
                    q[f * QK_FRAGMENTS + d] = q_fragment((row - first) * K_STRIDE + d * SIDE_QUADS);
                }
            }
        }
        workgroupBarrier();
    }

    var o = array<Sum, O_ARRAY>();                             // [row fragment][fragment of columns]
    // unroll
    for (var i = 0u; i < O_FRAGMENTS; i++) { o[i] = zero(); }
    var softmax = Softmax(LOWEST, 0.0, false, false);
    let keys = key_range(block);
    stage_k(thread, fetch_k(block, thread, keys.x, keys.y));
    workgroupBarrier();
    for (var kv = keys.x; kv < keys.y; kv += BLOCK_KV) {
        let tile = kv / BLOCK_KV + 1u;
        let full = is_full(block, kv);
        let next_k = fetch_k(block, thread, kv + BLOCK_KV, keys.y);
        let v = fetch_v(block, thread, kv, keys.y);
        multiply_keys(subgroup, &q);
        workgroupBarrier();

        stage_k(thread, next_k);
        var seen = ALL;
        if (full) { stage_v(thread, v); } else { stage_v_marking(thread, v, tile); }
        if (!full || !PLAIN) {
            seen = score_rows(block, thread, kv);
            if (LANES > 1u) { workgroupBarrier(); }
        }
        let factor = take_in(&softmax, thread, seen, full, tile);
        workgroupBarrier();

        if (!full) { softmax.sees_spoilt |= sees_spoilt(thread, seen, tile); }
        if (atomicLoad(&marks[MOVED]) == tile) { rescale_output(thread, factor, &o); }
        multiply_values(subgroup, &o);
    }

    finish(block, thread, softmax, &o);
}

// O / l and the statistics, by way of s_tile; the vector after a row's scores holds what its threads found.
fn finish(block: Block, thread: u32, softmax: Softmax, o: ptr<function, array<Sum, O_ARRAY>>) {
    let found = vec4(softmax.l, select(0.0, 1.0, softmax.saw), select(0.0, 1.0, softmax.sees_spoilt), 0.0);
    let row = thread / LANES;
    workgroupBarrier();  // the last readers of s_tile are done
    set_scores(row * S_STRIDE + thread % LANES, found);
    workgroupBarrier();
    var all_found = vec4(0.0);
    for (var lane = 0u; lane < LANES; lane++) { all_found += scores(row * S_STRIDE + lane); }
    if (thread % LANES == 0u) {
        all_found.w = softmax.m;
        set_scores(row * S_STRIDE + ROW_QUADS, all_found);
        if (block.first + row <= block.final_row) {
            store_statistics(block_row(block, row), softmax.m, all_found.x * LOWER, all_found.y > 0.0);
        }
    }

    // unroll
    for (var c = 0u; c < O_CHUNKS; c++) {
        workgroupBarrier();  // those of the last columns are done
        lay_out(thread / SUBGROUP, c, o);
        workgroupBarrier();
        for (var i = thread; i < ROWS * ROW_QUADS; i += THREADS) {
            let row = i / ROW_QUADS;
            let dim = (c * ROW_QUADS + i % ROW_QUADS) * 4u;
            if (block.first + row <= block.final_row && dim < params.dim_v) {
                let total = scores(row * S_STRIDE + ROW_QUADS);  // l, saw, sees_spoilt, m
                let columns = scores(row * S_STRIDE + i % ROW_QUADS) * LOWER;
                let o = select(columns, vec4(params.nan), total.z > 0.0);
                store_columns(block_row(block, row), dim, o, total.w, total.x * LOWER, total.y > 0.0);
            }
        }
    }
}
