// Exact attention on a matrix unit: both products are cooperative multiplications of square fragments.
//
//     O = softmax(S) V,   S = score(Q Kᵀ)                      pieces/score.wgsl; pieces/dropout_*.wgsl drops weights
//
// The query heads that share a KV head are computed together: row n is query n / group of the group's head n mod group.
//
// grid        (⌈Lq · group / ROWS⌉, Hkv, B · parts of the keys)
// workgroup   SUBGROUPS subgroups. Each owns ROW_FRAGMENTS · SIDE rows and keeps their Q and O in fragments;
//             LANES = SUBGROUP / (ROW_FRAGMENTS · SIDE) of its threads share the softmax of a row
// memory      bytes: k_tile 2 · BLOCK_KV · (DIM_QK + 8), v_tile 2 · BLOCK_KV · (DIM_V + 8), p_tile 2 · ROWS · (BLOCK_KV + 8),
//             s_tile 4 · ROWS · (BLOCK_KV + 4), marks 4 · (4 + BLOCK_KV). The rows of tiles are padded by 16 bytes, so that
//             the rows of a fragment begin in different banks
// barriers    at the start 1, and 2 per BLOCK_KV rows; per tile 2, 1 more where score_rows runs and LANES > 1, and 3 more per
//             BLOCK_KV columns of O where a row of the workgroup moves its anchor; at the end 2, and 2 per BLOCK_KV columns of O
//
//     k_tile ← K of the first tile
//     for each tile of keys that some row may see:
//         registers ← K of the next tile and V of this one
//         s_tile ← Q Kᵀ
//     ──  barrier: the scores are stored; this K and the previous V have been read
//         k_tile, v_tile ← registers
//         S is capped, biased and masked by score_rows, unless the tile is full and its scores are plain products
//         m′ ← rowmax S if exp(rowmax S − m) > 2⁸, else m;  P ← exp(S − m′);  l ← l·exp(m − m′) + rowsum P
//     ──  barrier: P, this V and the next K are stored
//         O ← O·exp(m − m′), by way of s_tile, if any row of the workgroup has m′ ≠ m
//         O ← O + P V
//     O ← O / l;  lse ← m + ln l                              a row that sees no key: 0 and −∞
//
// A tile is full if every row sees every key of it, by position and by the masks. Under a mask or a mask_mod, only a block
// mask can tell that. A full tile with plain products runs no mask code: score_rows is skipped, and V is staged without a
// check for NaN. With a softcap or ALiBi, score_rows runs in full tiles too, but it evaluates neither mask there. With a
// bias or a score_mod no tile is full, since a score may then hide its key.
//
// A kernel cannot access the elements of a fragment. So scores and weights go through workgroup memory, and O is rescaled
// only when necessary: m is an anchor that keeps exp(S − m) in range, and need not be the running maximum. Weights are
// stored multiplied by 2⁷, so that f16 represents weights far below the largest.
//
// Online softmax: Milakov & Gimelshein 2018; tiling: Dao et al., FlashAttention, 2022; rescaling seldom: FlashAttention-4, 2025.

// pieces/fragments_*.wgsl load, multiply and store fragments. pieces/tiles_*.wgsl declare the tiles; places in them count
// vectors of four. matrix_staging.wgsl fills them, and matrix_softmax.wgsl turns scores into weights.
//
// From the host: SIDE, the rows of a fragment; SUBGROUP, the threads of a subgroup; SUBGROUPS per workgroup; ROW_FRAGMENTS
// per subgroup; BLOCK_KV, the keys of a tile; DIM_QK and DIM_V, multiples of SIDE; QK_FRAGMENTS, V_FRAGMENTS and
// KEY_FRAGMENTS, these in fragments; O_FRAGMENTS, the fragments of O of a subgroup; O_CHUNKS, the chunks of BLOCK_KV
// columns in O; ROW_QUADS, the vectors of four keys in a row of a tile, and LANE_QUADS, those of one thread; K_MOVES and
// V_MOVES, the vectors of a tile that a thread moves.
const ROWS = SUBGROUPS * ROW_FRAGMENTS * SIDE;
const THREADS = SUBGROUPS * SUBGROUP;
const LANES = THREADS / ROWS;                                  // threads per row
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
const BLOCK_ROWS = ROWS;
const LAG = 8.0;                                               // so weights are at most 2^(8 + 7), which fits f16
const RAISE = 7.0;
const IN_FOURS = true;
const INVERSE_RAISE = 0.0078125;                               // 2⁻⁷, which undoes RAISE
const PLAIN = !HAS_SOFTCAP && !HAS_SCORE_MOD && !HAS_BIAS && !HAS_ALIBI;  // scores are products, up to the scale's sign

const_assert LANES * ROWS == THREADS && LANES <= ROW_QUADS && LANE_QUADS * LANES == ROW_QUADS && LANE_QUADS <= 8u;
const_assert BLOCK_KV % SIDE == 0u && QK_FRAGMENTS * SIDE == DIM_QK && V_FRAGMENTS * SIDE == DIM_V;

// A mark holds the number, from 1, of the tile that set it, so marks are never reset. They are one array whose first two
// marks take 16 bytes: fragments are read at multiples of 16 bytes, and a smaller variable could misalign a tile.
var<workgroup> marks: array<atomic<u32>, MARKS>;
const MOVED = 0u;                                              // some row with l > 0 moved its anchor
const NON_FINITE = 1u;                                         // some value is not finite
const NON_FINITE_KEYS = 4u;                                    // + key of the tile: its value is not finite
const MARKS = NON_FINITE_KEYS + BLOCK_KV;

// s_tile ← Q Kᵀ, for this subgroup's rows.
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

// O ← O + P V, for this subgroup's rows.
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

// Stores chunk `c` of O, BLOCK_KV columns, in s_tile, where threads can access its elements.
fn store_chunk(subgroup: u32, c: u32, o: ptr<function, array<Sum, O_ARRAY>>) {
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

// Loads chunk `c` of O back from s_tile.
fn load_chunk(subgroup: u32, c: u32, o: ptr<function, array<Sum, O_ARRAY>>) {
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
        store_chunk(subgroup, c, o);
        workgroupBarrier();
        // unroll
        for (var i = 0u; i < LANE_QUADS; i++) {
            let at = thread / LANES * S_STRIDE + i * LANES + thread % LANES;
            set_scores(at, scores(at) * factor);
        }
        workgroupBarrier();
        load_chunk(subgroup, c, o);
        workgroupBarrier();
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    // Not the builtin: a driver crashes on modules that declare both matrices and subgroups. If subgroups are larger than
    // SUBGROUP, the probe fails. If they are smaller, several do the same work, which is slow but correct.
    let subgroup = thread / SUBGROUP;
    begin(thread);
    let block = block_of(site_of(workgroup));
    if (is_idle(block.site)) { return; }
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
    var next = next_tile(block, keys.x, keys.y);
    stage_k(thread, fetch_k(block, thread, next, keys.y));
    workgroupBarrier();
    while (next < keys.y) {
        let kv = next;
        let tile = mark_of(kv);
        let full = !HAS_HIDING_SCORES && is_full(block, kv);
        next = next_tile(block, kv + BLOCK_KV, keys.y);
        let next_k = fetch_k(block, thread, next, keys.y);
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
        let factor = take_in(&softmax, block, thread, kv, seen, full);
        workgroupBarrier();

        if (!full) { softmax.sees_spoilt |= sees_spoilt(thread, seen, tile); }
        if (atomicLoad(&marks[MOVED]) == tile) { rescale_output(thread, factor, &o); }
        multiply_values(subgroup, &o);
    }

    finish(block, thread, softmax, &o);
}

// Stores O / l and the statistics, by way of s_tile. The vector after a row's scores holds the row's totals.
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
            store_statistics(block_row(block, row), softmax.m, all_found.x * INVERSE_RAISE, all_found.y > 0.0);
        }
    }

    // unroll
    for (var c = 0u; c < O_CHUNKS; c++) {
        workgroupBarrier();  // the readers of the previous chunk are done
        store_chunk(thread / SUBGROUP, c, o);
        workgroupBarrier();
        for (var i = thread; i < ROWS * ROW_QUADS; i += THREADS) {
            let row = i / ROW_QUADS;
            let dim = (c * ROW_QUADS + i % ROW_QUADS) * 4u;
            if (block.first + row <= block.final_row && dim < params.dim_v) {
                let total = scores(row * S_STRIDE + ROW_QUADS);  // l, saw, sees_spoilt, m
                let columns = scores(row * S_STRIDE + i % ROW_QUADS) * INVERSE_RAISE;
                let o = select(columns, vec4(params.nan), total.z > 0.0);
                store_columns(block_row(block, row), dim, o, total.w, total.x * INVERSE_RAISE, total.y > 0.0);
            }
        }
    }
}
