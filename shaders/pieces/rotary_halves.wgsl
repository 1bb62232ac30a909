// Rotary embedding of pairs that are half of the rotated elements apart: element i, in the first half, with i + half.
// The first of the four partners of the elements from `dim` on.
fn partner_of(dim: u32) -> u32 {
    let half = params.rotary_dims / 2u;
    return select(dim - half, dim + half, dim < half);
}

// Four elements, rotated with their partners by the angles of a position.
fn rotated(x: vec4<f32>, partner: vec4<f32>, dim: u32, position: u32) -> vec4<f32> {
    let half = params.rotary_dims / 2u;
    let at = position * half + select(dim - half, dim, dim < half);
    let first = rotary_table[at];                                    // cos, sin
    let second = rotary_table[at + 1u];
    let third = rotary_table[at + 2u];
    let fourth = rotary_table[at + 3u];
    let cosines = vec4(first.x, second.x, third.x, fourth.x);
    let sines = vec4(first.y, second.y, third.y, fourth.y);
    return x * cosines + select(partner, -partner, dim < half) * sines;
}
