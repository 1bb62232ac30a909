// The addresses of elements.

// An operand inside its binding, in elements: offset, then strides of batch, head and row.
alias View = vec4<u32>;

fn address(view: View, batch: u32, head: u32, row: u32) -> u32 {
    return view.x + batch * view.y + head * view.z + row * view.w;
}

// A query row over one part of the keys.
struct Row {
    batch: u32,
    head: u32,
    query: u32,      // within the sequence, from the first one of the dispatch
    at: u32,         // where it lies in `q` and in the results
    is_query: bool,  // whether it is a query of its sequence; if not, it sees nothing
    part: u32,       // of the keys
    first: i32,      // by its position it sees keys first ..= last
    last: i32,
    diagonal: i32,   // the key that its query stands at
}

// Where the key of a sequence lies: the first two indices of K and V but for the head.
struct Place {
    batch: u32,
    row: u32,
}
