// The softmax of matrix.wgsl: what threads do with a tile's scores between the two products. LANES threads to a row: each sees all
// of its scores for the maximum, and makes weights of its own share, every LANES-th vector of four.

// A row's softmax so far: its anchor, the same in all of its threads; the sum of weights of this thread's keys relative to it; and
// whether it sees any of them, and any with a value that is not finite.
struct Softmax {
    m: f32,
    l: f32,
    saw: bool,
    sees_spoilt: bool,
}

const ALL = 0xffffffffu;

// Caps, biases and masks this thread's scores of the tile where they lie. Returns which of them its row sees, a bit each.
fn shape(block: Block, thread: u32, kv: u32) -> u32 {
    let row = row_of(block, min(block.first_row + thread / LANES, block.rows - 1u));
    var seen = 0u;
    // unroll
    for (var i = 0u; i < LANE_QUADS; i++) {
        let quad = i * LANES + thread % LANES;
        let keys = kv + quad * 4u + vec4(0u, 1u, 2u, 3u);
        let within = min(keys, vec4(params.len_kv - 1u));
        let j = vec4<i32>(keys);
        var sees = (j >= vec4(first_key(block, row.query))) & (j <= vec4(last_key(block, row.query)));
        sees &= keys < vec4(block.valid);
        sees &= attend(address(params.mask, row.batch, row.head, row.query), within);
        var s = scores(thread / LANES * S_STRIDE + quad);
        if (!PLAIN) { s = shape_scores(s); }
        if (HAS_BIAS) {
            let bias = load_bias(address(params.bias, row.batch, row.head, row.query), within);
            s += bias;
            sees &= bitcast<vec4<u32>>(bias) != vec4(0xff800000u);  // −∞ hides
        }
        set_scores(thread / LANES * S_STRIDE + quad, select(vec4(LOWEST), s, sees));
        let bits = select(vec4(0u), vec4(1u, 2u, 4u, 8u), sees);
        seen |= (bits.x | bits.y | bits.z | bits.w) << (i * 4u);
    }
    return seen;
}

// Of scores, under an anchor.
fn weights(s: vec4<f32>, m: f32) -> vec4<f32> {
    return exp2(fma(s - vec4(m), vec4(params.exp2_scale), vec4(RAISE)));
}

// Takes a tile's scores in and leaves their weights in p_tile. Returns the factor that brings what was accumulated under the
// old anchor to the new one.
fn take_in(softmax: ptr<function, Softmax>, thread: u32, seen: u32, full: bool, tile: u32) -> f32 {
    let row = thread / LANES;
    var tops = vec4(LOWEST);
    // unroll
    for (var i = 0u; i < ROW_QUADS; i++) { tops = max(tops, scores(row * S_STRIDE + i)); }
    let top = max(max(tops.x, tops.y), max(tops.z, tops.w));

    let before = (*softmax).m;
    let moves = top > before && (before == LOWEST || (top - before) * params.exp2_scale > SLACK);
    let m = select(before, top, moves);
    let factor = select(1.0, exp2((before - m) * params.exp2_scale), moves);
    if (moves && (*softmax).l > 0.0) { atomicStore(&marks[MOVED], tile); }

    var sums = vec4(0.0);
    if (full) {
        // unroll
        for (var i = 0u; i < LANE_QUADS; i++) {
            let quad = i * LANES + thread % LANES;
            let p = weights(scores(row * S_STRIDE + quad), m);
            set_p(row * P_STRIDE + quad, vec4<f16>(p));
            sums += p;
        }
    } else {
        // unroll
        for (var i = 0u; i < LANE_QUADS; i++) {
            let quad = i * LANES + thread % LANES;
            let sees = (vec4(seen >> (i * 4u)) & vec4(1u, 2u, 4u, 8u)) != vec4(0u);
            let p = select(vec4(0.0), weights(scores(row * S_STRIDE + quad), m), sees);
            set_p(row * P_STRIDE + quad, vec4<f16>(p));
            sums += p;
        }
    }
    (*softmax).m = m;
    (*softmax).l = fma((*softmax).l, factor, (sums.x + sums.y) + (sums.z + sums.w));
    (*softmax).saw |= seen != 0u;
    return factor;
}

// Whether this thread's row sees a key of this tile whose value is not finite.
fn sees_spoilt(thread: u32, seen: u32, tile: u32) -> bool {
    var found = false;
    if (atomicLoad(&marks[SPOILT]) == tile) {
        for (var i = 0u; i < LANE_QUADS * 4u; i++) {
            let key = (i / 4u * LANES + thread % LANES) * 4u + i % 4u;
            found |= ((seen >> i) & 1u) == 1u && atomicLoad(&marks[SPOILT_KEYS + key]) == tile;
        }
    }
    return found;
}
