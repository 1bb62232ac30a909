// Access to single elements, for rows of any length at any offset.
const COMPONENTS = vec4<u32>(0u, 1u, 2u, 3u);

// The places of four elements from `at`. Those past `count` repeat the first, so that no read leaves the row.
fn places(at: u32, count: u32) -> vec4<u32> { return at + select(vec4(0u), COMPONENTS, COMPONENTS < vec4(count)); }
