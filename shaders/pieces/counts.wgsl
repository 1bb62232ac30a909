// Counts, as the bits of an f32 in a buffer of vec4<f32>. A GPU may replace a subnormal number by 0, and the bits of a small count
// are those of one. So a count, which is at most 2²⁹, is stored as the bits of a number from 2 on.
const COUNT_OFFSET = 0x40000000u;

fn stored_count(n: u32) -> f32 { return bitcast<f32>(n + COUNT_OFFSET); }
fn loaded_count(x: f32) -> u32 { return bitcast<u32>(x) - COUNT_OFFSET; }
