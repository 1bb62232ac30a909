// Stores a row's state over a part of the keys, for merge.wgsl: (m, l, saw, 0), then O in vectors of four. m and l are
// separate, because a large log-sum-exp has no room for the digits of a small one.

const WHOLE = false;

fn part_at(row: Row) -> u32 {
    return (address(params.part, row.batch, row.head, row.at) >> 2u) + row.part * (1u + (params.dim_v + 3u) / 4u);
}

fn store_columns(row: Row, dim: u32, o: vec4<f32>, m: f32, l: f32, saw_any: bool) {
    parts[part_at(row) + 1u + dim / 4u] = select(vec4(0.0), o, saw_any);
}

fn store_statistics(row: Row, m: f32, l: f32, saw_any: bool) {
    parts[part_at(row)] = vec4(m, l, select(0.0, 1.0, saw_any), 0.0);
}
