// ALiBi: scores fall with the distance, by one slope per head. Press et al., Train Short, Test Long, 2021.
const HAS_ALIBI = true;

fn alibi_slope(row: Row) -> f32 { return alibi_slopes[address(params.alibi, row.batch, row.head, 0u)]; }
