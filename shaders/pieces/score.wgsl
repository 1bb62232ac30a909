// Scores: what a product of a query and a key becomes, and whether the query sees the key.
//
//     scale → softcap → score_mod → + bias → − ALiBi → mask           softcap_*.wgsl, score_mod_*.wgsl and so on

// Whether keys are hidden by more than their positions: by what is known before the product, and by anything at all.
const HAS_MASKS = HAS_MASK || HAS_MASK_MOD;
const HAS_HIDDEN_KEYS = HAS_MASKS || HAS_BIAS || HAS_SCORE_MOD;

// Four scores of a row, and which of them it sees. One that it does not see is LOWEST.
struct Scores {
    s: vec4<f32>,
    seen: vec4<bool>,
}

// −∞ hides a key.
fn hides(x: vec4<f32>) -> vec4<bool> { return bitcast<vec4<u32>>(x) == vec4(0xff800000u); }

// Which of four keys a row sees by position and mask.
fn sees(row: Row, keys: vec4<u32>) -> vec4<bool> {
    let j = vec4<i32>(keys);
    var seen = (j >= vec4(row.first)) & (j <= vec4(row.last));
    if (HAS_MASK) { seen &= attend(address(params.mask, row.batch, row.head, row.query), within(keys)); }
    if (HAS_MASK_MOD) { seen &= allowed(row, within(keys)); }
    return seen;
}

// The scores that four products of a row are, `seen` by position and mask.
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
