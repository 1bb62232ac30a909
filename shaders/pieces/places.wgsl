// Elements one at a time, for rows of any length anywhere.
const LANE = vec4<u32>(0u, 1u, 2u, 3u);

// Where four elements from `at` lie; those past `count` repeat the first, so that no read leaves the row.
fn places(at: u32, count: u32) -> vec4<u32> { return at + select(vec4(0u), LANE, LANE < vec4(count)); }
