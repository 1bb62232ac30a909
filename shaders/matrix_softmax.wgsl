// The softmax of matrix.wgsl, which runs between the two products. LANES threads share a row. Each reads all scores of the
// row for the maximum, and computes the weights of every LANES-th vector of four keys.

// A row's softmax so far. m is the anchor, the same in all threads of the row. The others are over this thread's keys: l is
// the sum of the weights relative to m; saw and sees_spoilt say whether the row sees any key, and any whose value is not
// finite.
struct Softmax {
    m: f32,
    l: f32,
    saw: bool,
    sees_spoilt: bool,
}

const ALL = 0xffffffffu;

// What marks a tile in `marks`, which begin as 0.
fn mark_of(kv: u32) -> u32 { return kv / BLOCK_KV + 1u; }

fn keys_of_quad(kv: u32, quad: u32) -> vec4<u32> { return kv + quad * 4u + vec4(0u, 1u, 2u, 3u); }

// Caps, biases and masks this thread's scores of the tile, in place. Returns one bit per score: whether the row sees its key.
fn score_rows(block: Block, thread: u32, kv: u32) -> u32 {
    let row = block_row(block, thread / LANES);
    var seen = 0u;
    // unroll
    for (var i = 0u; i < LANE_QUADS; i++) {
        let quad = i * LANES + thread % LANES;
        let keys = keys_of_quad(kv, quad);
        let at = thread / LANES * S_STRIDE + quad;
        // score() applies score_scale. Plain products have that factor already, from Q; it is ±1 or 0, and a second one
        // cancels it.
        let product = scores(at) * select(1.0, params.score_scale, PLAIN);
        let scored = score(row, keys, product, sees(row, keys));
        set_scores(at, scored.s);
        let bits = select(vec4(0u), vec4(1u, 2u, 4u, 8u), scored.seen);
        seen |= (bits.x | bits.y | bits.z | bits.w) << (i * 4u);
    }
    return seen;
}

// Stores the weights of a tile's scores in p_tile, and updates the state. Returns the factor that rescales sums under the
// old anchor to the new one.
fn take_in(softmax: ptr<function, Softmax>, block: Block, thread: u32, kv: u32, seen: u32, full: bool) -> f32 {
    let row = thread / LANES;
    let tile = mark_of(kv);
    let owner = block_row(block, row);
    var tops = vec4(LOWEST);
    // unroll
    for (var i = 0u; i < ROW_QUADS; i++) { tops = max(tops, scores(row * S_STRIDE + i)); }

    let before = (*softmax).m;
    let m = follow(before, largest(tops));
    let factor = rescale(before, m);
    if (m != before && (*softmax).l > 0.0) { atomicStore(&marks[MOVED], tile); }

    var sums = vec4(0.0);
    if (full) {
        // unroll
        for (var i = 0u; i < LANE_QUADS; i++) {
            let quad = i * LANES + thread % LANES;
            let p = weigh(scores(row * S_STRIDE + quad), vec4(true), m);
            set_p(row * P_STRIDE + quad, vec4<f16>(kept(owner, keys_of_quad(kv, quad), p)));
            sums += p;
        }
    } else {
        // unroll
        for (var i = 0u; i < LANE_QUADS; i++) {
            let quad = i * LANES + thread % LANES;
            let sees = (vec4(seen >> (i * 4u)) & vec4(1u, 2u, 4u, 8u)) != vec4(0u);
            let p = weigh(scores(row * S_STRIDE + quad), sees, m);
            set_p(row * P_STRIDE + quad, vec4<f16>(kept(owner, keys_of_quad(kv, quad), p)));
            sums += p;
        }
    }
    (*softmax).m = m;
    (*softmax).l = fma((*softmax).l, factor, sum(sums));
    (*softmax).saw |= seen != 0u;
    return factor;
}

// Whether this thread's row sees a key of this tile whose value is not finite.
fn sees_spoilt(thread: u32, seen: u32, tile: u32) -> bool {
    var found = false;
    if (atomicLoad(&marks[NON_FINITE]) == tile) {
        for (var i = 0u; i < LANE_QUADS * 4u; i++) {
            let key = (i / 4u * LANES + thread % LANES) * 4u + i % 4u;
            found |= ((seen >> i) & 1u) == 1u && atomicLoad(&marks[NON_FINITE_KEYS + key]) == tile;
        }
    }
    return found;
}
