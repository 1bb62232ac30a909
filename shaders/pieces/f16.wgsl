// binary16, two per word.
fn widen(word: u32) -> vec2<f32> { return unpack2x16float(word); }

// Rounds to nearest even, past the largest finite value to ∞; NaN stays NaN. (pack2x16float leaves the rounding, and
// everything out of range, to the driver.)
fn narrow(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let sign = (bits >> 16u) & 0x8000u;
    let magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) { return sign | 0x7e00u; }
    if (magnitude >= 0x477ff000u) { return sign | 0x7c00u; }
    if (magnitude < 0x38800000u) {
        // Below 2⁻¹⁴ results are multiples of 2⁻²⁴, the last place of 0.5 in f32: adding 0.5 rounds to them.
        return sign | (bitcast<u32>(bitcast<f32>(magnitude) + 0.5) - 0x3f000000u);
    }
    return sign | ((magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13u) & 1u)) >> 13u);
}
