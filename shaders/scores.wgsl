// One tile of scores, S = softcap(scale · Q Kᵀ) + bias, and which of its keys each query sees.
//
// The tile is 32 queries × 32 keys; thread (ty, tx) of 8 × 8 owns rows 4ty.. and keys 4tx.. of it, as four rows of
// four keys in registers. Q and K come through workgroup memory 32 dimensions at a time; both are read as vectors of
// four, so that 8 reads feed 64 multiply-adds. Barriers: 2 for each 32 dimensions, 3 more with a boolean mask.
// pieces/rows_*.wgsl is how the 8 threads of a row learn the largest score and the sum of weights from each other.

const BLOCK_Q = 32u;
const BLOCK_KV = 32u;
const THREADS = 64u;
const SLICE = 8u;                                              // of the head dimension: vectors of four
const QK_SLICES = DIM_QK / 32u;
const Q_TILE = BLOCK_Q * SLICE * select(1u, QK_SLICES, Q_RESIDENT);

const LOWEST = -3.4028234e38f;                                 // below every score; never a sign of anything

const_assert DIM_QK % 32u == 0u && DIM_QK > 0u;

@group(0) @binding(0) var<uniform> params: Params;

var<workgroup> q_tile: array<vec4<f32>, Q_TILE>;               // [dim / 4][row], four dims of a row together
var<workgroup> kv_tile: array<vec4<f32>, 256>;                 // [dim][key / 4], four keys of a dim together

// What a workgroup works on.
struct Block {
    batch: u32,
    head: u32,
    kv_head: u32,
    first_row: u32,    // within the dispatch
    valid: u32,        // keys
    diagonal: i32,     // where the band is measured from
    part: u32,         // of the keys
}

// Which of a thread's keys each of its rows sees: [row], four keys.
alias Seen = array<vec4<bool>, 4>;

fn block_of(workgroup: vec3<u32>) -> Block {
    let batch = workgroup.z / params.parts;
    let valid = valid_keys(batch);
    let kv_head = workgroup.y / params.group;
    let diagonal = i32(params.first_row) + i32(valid * params.band_from_end);
    return Block(batch, workgroup.y, kv_head, workgroup.x * BLOCK_Q, valid, diagonal, workgroup.z % params.parts);
}

fn first_key(block: Block, row: u32) -> i32 { return i32(row) + block.diagonal + params.band_first; }
fn last_key(block: Block, row: u32) -> i32 { return i32(row) + block.diagonal + params.band_last; }

fn final_row(block: Block) -> u32 { return min(block.first_row + BLOCK_Q, params.len_q) - 1u; }

// The keys of this part that any row of the block may see: from the start of a tile up to, not including, the last plus
// one.
fn key_range(block: Block) -> vec2<u32> {
    let part = block.part * params.part_keys;
    let begin = u32(max(first_key(block, block.first_row), 0)) / BLOCK_KV * BLOCK_KV;
    let end = u32(max(last_key(block, final_row(block)) + 1, 0));
    return vec2(max(begin, part), min(end, min(block.valid, part + params.part_keys)));
}

// Whether every row of the block sees every key of the tile, so far as positions tell.
fn is_full(block: Block, kv: u32) -> bool {
    return kv + BLOCK_KV <= block.valid
        && first_key(block, final_row(block)) <= i32(kv)
        && last_key(block, block.first_row) >= i32(kv + BLOCK_KV - 1u);
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
        if (block.first_row + row < params.len_q && dim < params.dim_qk) {
            let at = address(params.q, block.batch, block.head, block.first_row + row) + dim;
            x = load_q(at, params.dim_qk - dim);
        }
        q_tile[(to_slice * SLICE + vector) * BLOCK_Q + row] = x;
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
        if (kv + key + i < block.valid && dim < params.dim_qk) {
            let at = address(params.k, block.batch, block.kv_head, kv + key + i) + dim;
            x[i] = load_k(at, params.dim_qk - dim);
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
            let q = (q_slice * SLICE + i) * BLOCK_Q + row;
            s[0] = accumulate(k4, q_tile[q], s[0]);
            s[1] = accumulate(k4, q_tile[q + 1u], s[1]);
            s[2] = accumulate(k4, q_tile[q + 2u], s[2]);
            s[3] = accumulate(k4, q_tile[q + 3u], s[3]);
        }
    }
    return s;
}

// Which of four keys a row sees: valid ∧ band ∧ mask.
fn visible(block: Block, row: u32, keys: vec4<u32>) -> vec4<bool> {
    let i = vec4<i32>(keys);
    let in_band = (i >= vec4(first_key(block, row))) & (i <= vec4(last_key(block, row)));
    let at = address(params.mask, block.batch, block.head, min(row, params.len_q - 1u));
    return (keys < vec4(block.valid)) & in_band & attend(at, min(keys, vec4(params.len_kv - 1u)));
}

// Finds what this thread's rows see of the tile at key `kv`, by position and mask. Returns whether no thread's rows see
// anything, to the whole workgroup alike.
fn look(block: Block, thread: u32, kv: u32, seen: ptr<function, Seen>) -> bool {
    *seen = Seen(vec4(true), vec4(true), vec4(true), vec4(true));
    if (HAS_MASK || !is_full(block, kv)) {
        let row = block.first_row + thread / 8u * 4u;
        let keys = kv + thread % 8u * 4u + vec4(0u, 1u, 2u, 3u);
        // unroll
        for (var r = 0u; r < 4u; r++) { (*seen)[r] = visible(block, row + r, keys); }
    }
    return nobody_sees(thread, any((*seen)[0] | (*seen)[1] | (*seen)[2] | (*seen)[3]));
}

// The scores of the tile at key `kv`; a bias may hide more keys. Leaves kv_tile free.
fn score_tile(block: Block, thread: u32, kv: u32, seen: ptr<function, Seen>) -> mat4x4<f32> {
    let row = block.first_row + thread / 8u * 4u;
    let keys = kv + thread % 8u * 4u + vec4(0u, 1u, 2u, 3u);
    var s = products(block, thread, kv);
    // unroll
    for (var r = 0u; r < 4u; r++) {
        s[r] = shape_scores(s[r]);
        if (HAS_BIAS) {
            let at = address(params.bias, block.batch, block.head, min(row + r, params.len_q - 1u));
            let bias = load_bias(at, min(keys, vec4(params.len_kv - 1u)));
            s[r] += bias;
            (*seen)[r] &= bitcast<vec4<u32>>(bias) != vec4(0xff800000u);  // −∞ hides
        }
        s[r] = select(vec4(LOWEST), s[r], (*seen)[r]);
    }
    workgroupBarrier();  // kv_tile's last readers are done
    return s;
}

fn largest(x: vec4<f32>) -> f32 { return max(max(x.x, x.y), max(x.z, x.w)); }
fn sum(x: vec4<f32>) -> f32 { return (x.x + x.y) + (x.z + x.w); }

// A row's softmax so far: the largest score of all threads' keys; of this thread's own keys the sum of weights relative to
// it, and whether the row sees any (1 or 0), which no sum tells when numbers overflow or are NaN.
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
    let m = max(before, largest_of_row(thread, vec4(largest((*s)[0]), largest((*s)[1]), largest((*s)[2]), largest((*s)[3]))));
    // unroll
    for (var r = 0u; r < 4u; r++) {
        (*s)[r] = select(vec4(0.0), exp2(((*s)[r] - vec4(m[r])) * params.exp2_scale), seen[r]);
    }
    // A tile of which a row sees nothing leaves that row's bits alone: the factor is then 1, whatever exp2(0) is.
    let rescale = select(exp2((before - m) * params.exp2_scale), vec4(1.0), before == m);
    let sees = vec4(any(seen[0]), any(seen[1]), any(seen[2]), any(seen[3]));
    (*softmax).saw = select((*softmax).saw, vec4(1.0), sees);
    (*softmax).m = m;
    (*softmax).l = fma((*softmax).l, rescale, vec4(sum((*s)[0]), sum((*s)[1]), sum((*s)[2]), sum((*s)[3])));
    return rescale;
}
