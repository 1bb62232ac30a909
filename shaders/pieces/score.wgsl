// Scores: what a product of a query and a key becomes, and whether the query sees the key.
//
//     scale → softcap → + bias → mask                             softcap_*.wgsl, bias_*.wgsl, mask_*.wgsl

// Four scores of a row, and which of them it sees. One that it does not see is LOWEST.
struct Scores {
    s: vec4<f32>,
    seen: vec4<bool>,
}

// Which of four keys a row sees by position and mask.
fn sees(row: Row, keys: vec4<u32>) -> vec4<bool> {
    let j = vec4<i32>(keys);
    var seen = (j >= vec4(row.first)) & (j <= vec4(row.last));
    if (HAS_MASK) { seen &= attend(address(params.mask, row.batch, row.head, row.query), within(keys)); }
    return seen;
}

// The scores that four products of a row are, `seen` by position and mask. A bias of −∞ hides its key.
fn score(row: Row, keys: vec4<u32>, products: vec4<f32>, seen: vec4<bool>) -> Scores {
    var scores = Scores(shape_scores(products), seen);
    if (HAS_BIAS) {
        let bias = load_bias(address(params.bias, row.batch, row.head, row.query), within(keys));
        scores.s += bias;
        scores.seen &= bitcast<vec4<u32>>(bias) != vec4(0xff800000u);
    }
    scores.s = select(vec4(LOWEST), scores.s, scores.seen);
    return scores;
}
