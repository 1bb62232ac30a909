// State: the algebra of (m, l, O), a row's softmax so far. m is what weights are measured from, the largest score but for a lag;
// l the sum of the weights; O the sum of the values by weight; and whether the row sees any key at all, which no sum tells.
//
// Two such states of a row are brought to one m, and then added: from tile to tile, from thread to thread, and from part to part.
//
// Online softmax: Milakov & Gimelshein 2018.

// From the schedule: LAG, how far a score may exceed m before m follows, as a power of two; and RAISE, the power of two that weights
// are multiplied by, so that a narrow type has its whole range below the largest.

const LOWEST = -3.4028234e38f;                                 // below every score; never a sign of anything

// What weights are measured from once `top` is among the scores. Where weights are raised, their type is narrow, and m follows the
// first score at once: a scale may be so small that none is a leap above LOWEST.
fn follow(m: f32, top: f32) -> f32 {
    if (LAG == 0.0) { return max(m, top); }
    let leaps = (top - m) * params.exp2_scale > LAG;
    if (RAISE == 0.0) { return select(m, top, leaps); }
    return select(m, top, top > m && (m == LOWEST || leaps));
}

// The factor that brings what was measured from `before` to m. Scores of which a row sees none leave its bits alone: it is then
// exactly 1, whatever exp2(0) is.
fn rescale(before: f32, m: f32) -> f32 {
    return select(exp2((before - m) * params.exp2_scale), 1.0, before == m);
}

// The weights of four scores. What a row does not see has none, however low the scores that it sees.
fn weigh(s: vec4<f32>, seen: vec4<bool>, m: f32) -> vec4<f32> {
    let below = s - vec4(m);
    if (RAISE == 0.0) { return select(vec4(0.0), exp2(below * params.exp2_scale), seen); }
    return select(vec4(0.0), exp2(fma(below, vec4(params.exp2_scale), vec4(RAISE))), seen);
}

fn largest(x: vec4<f32>) -> f32 { return max(max(x.x, x.y), max(x.z, x.w)); }
fn sum(x: vec4<f32>) -> f32 { return (x.x + x.y) + (x.z + x.w); }
