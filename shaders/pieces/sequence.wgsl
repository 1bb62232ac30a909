// The sequence of a workgroup, and which block of its rows the workgroup computes. queries_*.wgsl say which queries it has.
struct Sequence {
    batch: u32,
    block: u32,
    queries: u32,   // its queries; later rows see nothing
    rows: u32,      // the queries and later rows of this dispatch that have results
    at: u32,        // the row of `q` where its queries begin
}
