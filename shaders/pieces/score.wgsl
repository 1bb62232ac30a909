// Scores: turns the product of a query and a key into a score, which may hide the key.
//
//     scale → softcap → score_mod → + bias → − ALiBi → mask           softcap_*.wgsl, score_mod_*.wgsl and so on; seen.wgsl

// Whether a score may hide its key.
const HAS_HIDING_SCORES = HAS_BIAS || HAS_SCORE_MOD;

// Four scores of a row, and which of their keys it sees. The score of a hidden key is LOWEST.
struct Scores {
    s: vec4<f32>,
    seen: vec4<bool>,
}

// −∞ hides a key.
fn hides(x: vec4<f32>) -> vec4<bool> { return bitcast<vec4<u32>>(x) == vec4(0xff800000u); }

// The scores of four products of a row. `seen` says which keys it sees by position and by the masks.
fn score(row: Row, keys: vec4<u32>, products: vec4<f32>, seen: vec4<bool>) -> Scores {
    var scores = Scores(shape_scores(products), seen);
    if (HAS_SCORE_MOD) {
        scores.s = modified(row, within(keys), scores.s);
        scores.seen &= !hides(scores.s);
    }
    if (HAS_BIAS) {
        let bias = load_bias(address(params.bias, row.batch, row.head, row.query), within(keys));
        scores.s += bias;
        scores.seen &= !hides(bias);
    }
    if (HAS_ALIBI) { scores.s -= alibi_slope(row) * abs(vec4<f32>(vec4(row.diagonal) - vec4<i32>(keys))); }
    scores.s = select(vec4(LOWEST), scores.s, scores.seen);
    return scores;
}
