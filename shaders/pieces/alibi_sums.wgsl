// ALiBi: the sums of a row carry the slope of its head: see row_sums.wgsl.
const HAS_ALIBI = true;

fn alibi_slope(row: Row) -> f32 { return sums[address(params.sums, row.batch, row.head, row.at)].z; }
