// ALiBi: one slope per head.
fn slope_of(batch: u32, head: u32) -> f32 { return alibi_slopes[address(params.alibi, batch, head, 0u)]; }
