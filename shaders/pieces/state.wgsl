// State: the algebra of (m, l, O), a row's softmax so far. m is the running maximum of the scores, or lags behind it; l is
// the sum of the weights exp(S − m); O is the sum of the values by weight. Whether the row sees any key is kept besides,
// since no sum tells it.
//
// To combine two states of a row, both are rescaled to one m and then added: from tile to tile, thread to thread and part
// to part.
//
// Online softmax: Milakov & Gimelshein 2018.

// From the schedule: LAG, such that m follows once a weight exceeds 2^LAG; RAISE, such that weights are stored multiplied
// by 2^RAISE, so that a narrow type represents smaller ones.

const LOWEST = -3.4028234e38f;                                 // below every score; it does not mark a key as hidden

// The new m once `top` is among the scores. Raised weights have a narrow type, so there m follows the first score at once:
// the scale may be so small that no score exceeds LOWEST by the lag.
fn follow(m: f32, top: f32) -> f32 {
    if (LAG == 0.0) { return max(m, top); }
    let leaps = (top - m) * params.exp2_scale > LAG;
    if (RAISE == 0.0) { return select(m, top, leaps); }
    return select(m, top, top > m && (m == LOWEST || leaps));
}

// The factor that rescales sums from the m `before` to m. If m has not moved it is exactly 1, whatever exp2(0) is, so a
// tile of which a row sees nothing does not change the row's bits.
fn rescale(before: f32, m: f32) -> f32 {
    return select(exp2((before - m) * params.exp2_scale), 1.0, before == m);
}

// The weights of four scores. A hidden key has weight 0, however low the scores of the other keys are.
fn weigh(s: vec4<f32>, seen: vec4<bool>, m: f32) -> vec4<f32> {
    let below = s - vec4(m);
    if (RAISE == 0.0) { return select(vec4(0.0), exp2(below * params.exp2_scale), seen); }
    return select(vec4(0.0), exp2(fma(below, vec4(params.exp2_scale), vec4(RAISE))), seen);
}

fn largest(x: vec4<f32>) -> f32 { return max(max(x.x, x.y), max(x.z, x.w)); }
fn sum(x: vec4<f32>) -> f32 { return (x.x + x.y) + (x.z + x.w); }

// A value, or 0 if its weight is 0: the row may not see it, and it may be NaN.
fn seen_value(v: vec4<f32>, weight: f32) -> vec4<f32> { return select(vec4(0.0), v, weight > 0.0); }
