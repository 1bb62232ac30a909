// One tile of scores, and which of its keys each query sees: what tiled.wgsl and weights.wgsl share.
//
// The tile is 32 queries × 32 keys; thread (ty, tx) of 8 × 8 owns rows 4ty.. and keys 4tx.. of it, as four rows of
// four keys in registers. Q and K come through workgroup memory 32 dimensions at a time; both are read as vectors of
// four, so that 8 reads feed 64 multiply-adds. Barriers: 2 for each 32 dimensions, 3 more with a boolean mask.
// pieces/rows_*.wgsl is how the 8 threads of a row learn the largest score and the sum of weights from each other.

const ROWS = 32u;
const BLOCK_KV = 32u;
const THREADS = 64u;
const LAG = 0.0;                                               // m is the largest score
const RAISE = 0.0;
const GROUPED = false;
const SLICE = 8u;                                              // of the head dimension: vectors of four
const QK_SLICES = DIM_QK / 32u;
const Q_TILE = ROWS * SLICE * select(1u, QK_SLICES, Q_RESIDENT);

const_assert DIM_QK % 32u == 0u && DIM_QK > 0u;

var<workgroup> q_tile: array<vec4<f32>, Q_TILE>;               // [dim / 4][row], four dims of a row together
var<workgroup> kv_tile: array<vec4<f32>, 256>;                 // [dim][key / 4], four keys of a dim together

// Which of a thread's keys each of its rows sees: [row], four keys.
alias Seen = array<vec4<bool>, 4>;

// Whether every row of the block sees every key of the tile, as far as positions tell.
fn is_full(block: Block, kv: u32) -> bool {
    return all_see(block_row(block, 0u), block_row(block, ROWS), kv, BLOCK_KV);
}

// sum + m x, as four fused multiply-adds: both matrix products are made of this.
fn accumulate(m: mat4x4<f32>, x: vec4<f32>, sum: vec4<f32>) -> vec4<f32> {
    return fma(m[3], vec4(x.w), fma(m[2], vec4(x.z), fma(m[1], vec4(x.y), fma(m[0], vec4(x.x), sum))));
}

// Slice `from` of Q becomes slice `to` of q_tile; rows and dimensions past the end are zero.
fn stage_q(block: Block, thread: u32, from_slice: u32, to_slice: u32) {
    // unroll
    for (var step = 0u; step < 4u; step++) {
        let row = (step * THREADS + thread) / SLICE;
        let vector = thread % SLICE;
        let dim = (from_slice * SLICE + vector) * 4u;
        var x = vec4(0.0);
        if (block.first + row <= block.final_row && dim < params.dim_qk) {
            x = load_q(q_address(block_row(block, row)) + dim, params.dim_qk - dim);
        }
        q_tile[(to_slice * SLICE + vector) * ROWS + row] = x;
    }
}

// Each thread reads four dims of four keys and leaves four keys of four dims. Keys past the valid ones are zero: they
// may hold anything.
fn stage_k(block: Block, thread: u32, kv: u32, slice: u32) {
    let key = thread % 8u * 4u;
    let vector = thread / 8u;
    let dim = (slice * SLICE + vector) * 4u;
    var x = mat4x4<f32>();
    // unroll
    for (var i = 0u; i < 4u; i++) {
        if (kv + key + i < block.site.end && dim < params.dim_qk) {
            x[i] = load_k(k_address(block.site, kv + key + i) + dim, params.dim_qk - dim);
        }
    }
    x = transpose(x);
    // unroll
    for (var i = 0u; i < 4u; i++) {
        kv_tile[(vector * 4u + i) * 8u + key / 4u] = x[i];
    }
}

// Q Kᵀ of the tile.
fn products(block: Block, thread: u32, kv: u32) -> mat4x4<f32> {
    let row = thread / 8u * 4u;
    let key = thread % 8u;
    var s = mat4x4<f32>();
    for (var slice = 0u; slice < QK_SLICES; slice++) {
        workgroupBarrier();  // the tiles' last readers are done
        let q_slice = select(0u, slice, Q_RESIDENT);
        if (!Q_RESIDENT) { stage_q(block, thread, slice, 0u); }
        stage_k(block, thread, kv, slice);
        workgroupBarrier();
        for (var i = 0u; i < SLICE; i++) {
            let k4 = mat4x4(kv_tile[i * 32u + key], kv_tile[i * 32u + key + 8u],
                            kv_tile[i * 32u + key + 16u], kv_tile[i * 32u + key + 24u]);
            let q = (q_slice * SLICE + i) * ROWS + row;
            s[0] = accumulate(k4, q_tile[q], s[0]);
            s[1] = accumulate(k4, q_tile[q + 1u], s[1]);
            s[2] = accumulate(k4, q_tile[q + 2u], s[2]);
            s[3] = accumulate(k4, q_tile[q + 3u], s[3]);
        }
    }
    return s;
}

// Finds what this thread's rows see of the tile at key `kv`, by position and mask. Returns whether no thread's rows see
// anything, to the whole workgroup alike.
fn skips(block: Block, thread: u32, kv: u32, seen: ptr<function, Seen>) -> bool {
    *seen = Seen(vec4(true), vec4(true), vec4(true), vec4(true));
    if (HAS_MASKS || !is_full(block, kv)) {
        let keys = kv + thread % 8u * 4u + vec4(0u, 1u, 2u, 3u);
        // unroll
        for (var r = 0u; r < 4u; r++) { (*seen)[r] = sees(block_row(block, thread / 8u * 4u + r), keys); }
    }
    return nobody_sees(thread, any((*seen)[0] | (*seen)[1] | (*seen)[2] | (*seen)[3]));
}

// The scores of the tile at key `kv`; a bias may hide more keys. Leaves kv_tile free.
fn score_tile(block: Block, thread: u32, kv: u32, seen: ptr<function, Seen>) -> mat4x4<f32> {
    let keys = kv + thread % 8u * 4u + vec4(0u, 1u, 2u, 3u);
    var s = products(block, thread, kv);
    // unroll
    for (var r = 0u; r < 4u; r++) {
        let scores = score(block_row(block, thread / 8u * 4u + r), keys, s[r], (*seen)[r]);
        s[r] = scores.s;
        (*seen)[r] = scores.seen;
    }
    workgroupBarrier();  // kv_tile's last readers are done
    return s;
}

// The softmax of a thread's four rows so far: m over all threads' keys; l and whether the row sees a key (1 or 0) over its own.
struct Softmax {
    m: vec4<f32>,    // [row]
    l: vec4<f32>,    // [row]
    saw: vec4<f32>,  // [row]
}

fn nothing_yet() -> Softmax { return Softmax(vec4(LOWEST), vec4(0.0), vec4(0.0)); }

// Takes a tile's scores in and makes them weights relative to the new maximum. Returns the factor that brings what was
// accumulated under the old maximum to the new one.
fn take_in(softmax: ptr<function, Softmax>, s: ptr<function, mat4x4<f32>>, seen: Seen, thread: u32) -> vec4<f32> {
    let before = (*softmax).m;
    let tops = largest_of_row(thread, vec4(largest((*s)[0]), largest((*s)[1]), largest((*s)[2]), largest((*s)[3])));
    var factor = vec4(1.0);
    // unroll
    for (var r = 0u; r < 4u; r++) {
        let m = follow(before[r], tops[r]);
        factor[r] = rescale(before[r], m);
        (*s)[r] = weigh((*s)[r], seen[r], m);
        (*softmax).m[r] = m;
        (*softmax).l[r] = fma((*softmax).l[r], factor[r], sum((*s)[r]));
        (*softmax).saw[r] = select((*softmax).saw[r], 1.0, any(seen[r]));
    }
    return factor;
}
