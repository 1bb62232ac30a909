// No ALiBi.
const HAS_ALIBI = false;

fn alibi_slope(row: Row) -> f32 { return 0.0; }
