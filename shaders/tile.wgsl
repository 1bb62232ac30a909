// A tile of scores, and which of its keys each query sees. tiled.wgsl, weights.wgsl and gradient_tile.wgsl share this
// file.
//
//     S ← Q Kᵀ, scaled, capped, biased, masked                 pieces/score.wgsl
//
// workgroup   DOWN × ACROSS threads. Thread (y, x) holds a block of the tile in registers: ROW_COUNT rows from row
//             y · ROW_COUNT on, and the keys of the vectors of four x, x + ACROSS, …
// memory      slices of K and, unless Q_RESIDENT, of Q; 9/8 of their size, because of the padding. Votes 4 bytes with a mask or
//             a mask_mod
// barriers    per tile 1, and 2 per slice; 3 more for the vote
//
//     unless the tile is full:
//         seen ← which keys this thread's rows see
//         skip the tile if no row sees any key                 pieces/skip_by_*.wgsl
//     for each slice of the dimensions:
//         S ← S + Q Kᵀ                                         products.wgsl
//
// A tile is full if every row sees every key of it, by position and by the masks. Under a mask or a mask_mod, only a block
// mask can tell that. A full tile takes no vote and runs no mask code. In other tiles the threads vote whether to skip the
// tile, if there is a mask or a mask_mod.
//
// pieces/rows_*.wgsl compute the maximum and the sum over the ACROSS threads of a row.

// From the host: DIM_QK; ROW_VECTORS and KEY_VECTORS, a thread's vectors of four rows and of four keys; ROW_COUNT, its
// rows; SCORES, the vectors of its scores; DOWN, ACROSS; SLICE, the dimensions that are staged together; STEP, the
// dimensions of one loop iteration; K_LOADS and Q_LOADS, the blocks of 4 × 4 numbers of K and Q that a thread copies per
// slice; K_AT, Q_AT and V_AT, where the parts of `tile` begin; TILE, its size.
const THREADS = DOWN * ACROSS;
const ROWS = DOWN * ROW_VECTORS * 4u;
const BLOCK_KV = ACROSS * KEY_VECTORS * 4u;
const LAG = 0.0;                                               // m is the largest score
const RAISE = 0.0;
const IN_FOURS = true;
const GROUPED = false;
const BLOCK_ROWS = ROWS;
const QK_SLICES = DIM_QK / SLICE;

// Workgroup memory consists of groups of 8 vectors that one thread reads in a row: the index of the group is computed and
// bounded once, and the index within it is a constant. The ninth vector spreads the groups over the banks.
const GROUP = 8u;
const K_DIMS = GROUP / KEY_VECTORS;                            // dimensions per group
const Q_DIMS = GROUP / ROW_VECTORS;
var<workgroup> tile: array<array<vec4<f32>, 9>, TILE>;

const_assert DIM_QK % SLICE == 0u && DIM_QK > 0u && SLICE % STEP == 0u && STEP % GROUP == 0u;
const_assert SCORES == ROW_COUNT * KEY_VECTORS && ROW_COUNT == ROW_VECTORS * 4u;

// A thread's scores or weights, and which keys its rows see: [row][key vector].
alias Quads = array<vec4<f32>, SCORES>;
alias Seen = array<vec4<bool>, SCORES>;
// One number per row of a thread: [row / 4][row % 4].
alias PerRow = array<vec4<f32>, ROW_VECTORS>;

// Row `r` of a thread, counted within the block.
fn row_within(thread: u32, r: u32) -> u32 { return thread / ACROSS * ROW_COUNT + r; }

// The keys of a thread's key vector `n` in the tile at key `kv`.
fn keys_within(thread: u32, kv: u32, n: u32) -> vec4<u32> {
    return kv + (thread % ACROSS + n * ACROSS) * 4u + vec4(0u, 1u, 2u, 3u);
}

// Sets `seen`: which keys of the tile at key `kv` this thread's rows see, by position and by the masks. Returns whether to
// skip the tile, the same for the whole workgroup.
fn skips(block: Block, thread: u32, kv: u32, seen: ptr<function, Seen>) -> bool {
    // unroll
    for (var i = 0u; i < SCORES; i++) { (*seen)[i] = vec4(true); }
    if (is_full(block, kv)) { return false; }
    var any_seen = vec4(false);
    // unroll
    for (var r = 0u; r < ROW_COUNT; r++) {
        let row = block_row(block, row_within(thread, r));
        // unroll
        for (var n = 0u; n < KEY_VECTORS; n++) {
            (*seen)[r * KEY_VECTORS + n] = sees(row, keys_within(thread, kv, n));
            any_seen |= (*seen)[r * KEY_VECTORS + n];
        }
    }
    return may_skip(thread, any(any_seen));
}

// The scores of the tile at key `kv`. Clears `seen` where a bias or a score_mod hides a key. The tile may be written
// afterwards.
fn score_tile(block: Block, thread: u32, kv: u32, seen: ptr<function, Seen>) -> Quads {
    var s = products(block, thread, kv);
    // unroll
    for (var r = 0u; r < ROW_COUNT; r++) {
        let row = block_row(block, row_within(thread, r));
        // unroll
        for (var n = 0u; n < KEY_VECTORS; n++) {
            let i = r * KEY_VECTORS + n;
            let scores = score(row, keys_within(thread, kv, n), s[i], (*seen)[i]);
            s[i] = scores.s;
            (*seen)[i] = scores.seen;
        }
    }
    workgroupBarrier();  // the tile's last readers are done
    return s;
}

// The softmax of a thread's rows so far. m is over the keys of all threads; l and saw (1 if the row sees a key) are over this
// thread's keys.
struct Softmax {
    m: PerRow,
    l: PerRow,
    saw: PerRow,
}

fn nothing_yet() -> Softmax {
    var softmax = Softmax();
    // unroll
    for (var a = 0u; a < ROW_VECTORS; a++) { softmax.m[a] = vec4(LOWEST); }
    return softmax;
}

// Replaces a tile's scores by weights relative to the new maximum, and updates the state. Returns for each row the factor
// that rescales sums under the old maximum to the new one.
fn take_in(softmax: ptr<function, Softmax>, s: ptr<function, Quads>, seen: Seen, thread: u32) -> PerRow {
    var tops = PerRow();
    // unroll
    for (var r = 0u; r < ROW_COUNT; r++) {
        var top = largest((*s)[r * KEY_VECTORS]);
        // unroll
        for (var n = 0u; n < KEY_VECTORS; n++) { top = max(top, largest((*s)[r * KEY_VECTORS + n])); }
        tops[r / 4u][r % 4u] = top;
    }
    tops = largest_of_row(thread, tops);
    var factor = PerRow();
    // unroll
    for (var r = 0u; r < ROW_COUNT; r++) {
        let before = (*softmax).m[r / 4u][r % 4u];
        let m = follow(before, tops[r / 4u][r % 4u]);
        factor[r / 4u][r % 4u] = rescale(before, m);
        var l = (*softmax).l[r / 4u][r % 4u] * factor[r / 4u][r % 4u];
        // unroll
        for (var n = 0u; n < KEY_VECTORS; n++) {
            let i = r * KEY_VECTORS + n;
            (*s)[i] = weigh((*s)[i], seen[i], m);
            l += sum((*s)[i]);
            (*softmax).saw[r / 4u][r % 4u] = select((*softmax).saw[r / 4u][r % 4u], 1.0, any(seen[i]));
        }
        (*softmax).m[r / 4u][r % 4u] = m;
        (*softmax).l[r / 4u][r % 4u] = l;
    }
    return factor;
}
