// Rotary embedding of neighbours: element 2i with 2i + 1.
fn partner_of(dim: u32) -> u32 { return dim; }

// Four elements, two pairs, rotated by the angles of a position.
fn rotated(x: vec4<f32>, partner: vec4<f32>, dim: u32, position: u32) -> vec4<f32> {
    let at = (position * params.rotary_dims + dim) / 2u;
    let first = rotary_table[at];                                    // cos, sin
    let second = rotary_table[at + 1u];
    return x * vec4(first.x, first.x, second.x, second.x) + vec4(-x.y, x.x, -x.w, x.z) * vec4(first.y, first.y, second.y, second.y);
}
