// Fragments on a matrix unit. The threads of a subgroup hold a fragment together and call these functions together. `at` is
// a place in a tile, in vectors of four.
fn begin(thread: u32) {}

fn zero() -> Sum { return Sum(); }
fn multiply_add(a: Left, b: Right, c: Sum) -> Sum { return coopMultiplyAdd(a, b, c); }

fn q_fragment(at: u32) -> Left {                               // [row][dim]
    let stride = K_STRIDE * PER_QUAD;
    return coopLoadT<Left>(&k_tile[at * PER_QUAD], stride);
}
fn k_fragment(at: u32) -> Right {                              // [dim][key]: the transpose of k_tile
    let stride = K_STRIDE * PER_QUAD;
    return coopLoad<Right>(&k_tile[at * PER_QUAD], stride);
}
fn p_fragment(at: u32) -> Left {                               // [row][key]
    let stride = P_STRIDE * PER_QUAD;
    return coopLoadT<Left>(&p_tile[at * PER_QUAD], stride);
}
fn v_fragment(at: u32) -> Right {                              // [key][dim]
    let stride = V_STRIDE * PER_QUAD;
    return coopLoadT<Right>(&v_tile[at * PER_QUAD], stride);
}
fn sum_fragment(at: u32) -> Sum {                              // [row][column]
    let stride = S_STRIDE * PER_QUAD;
    return coopLoadT<Sum>(&s_tile[at * PER_QUAD], stride);
}
fn store_fragment(x: Sum, at: u32) {                           // [row][column]
    let first = at * PER_QUAD;                                 // a variable: naga's SPIR-V writer loses the expression
    let stride = S_STRIDE * PER_QUAD;
    coopStoreT(x, &s_tile[first], stride);
}
