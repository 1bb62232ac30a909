// The weights of a tile, and the gradients of its scores. gradient_queries.wgsl, gradient_keys.wgsl and gradient_bias.wgsl share
// this file.
//
//     S ← Q Kᵀ, scaled, capped, biased, masked                 tile.wgsl
//     dP ← dO Vᵀ                                               products.wgsl, for dO and V
//     P, dS ← of S and dP                                      pieces/slopes.wgsl; without what pieces/dropout_*.wgsl drops
//
// workgroup   that of tile.wgsl
// barriers    2 per slice of Q and K, 2 per slice of dO and V, and 1
//
// Rows that the block does not have, and pairs that are hidden, have weights and gradients of exactly 0.

// From the host: DIM_V; WANTED, which of the following a kernel wants.
const WEIGHTS = 0u;                                            // P, as O used it
const OF_SCORES = 1u;                                          // dS
const OF_PRODUCTS = 2u;                                        // dS times the slopes of what a score makes of a product

const WHOLE = true;
const DOUT_RESIDENT = false;
const VALUE_SLICES = DIM_V / SLICE;

const_assert DIM_V % SLICE == 0u;

// What the kernel wants of the tile at key `kv`. `seen` says which pairs are visible by position and by the masks. The tile may be
// written afterwards.
fn tile_gradients(block: Block, thread: u32, kv: u32, seen: Seen) -> Quads {
    var s = products(block, thread, kv);
    var dp = Quads();
    if (WANTED != WEIGHTS) { dp = value_products(block, thread, kv); }
    // unroll
    for (var r = 0u; r < ROW_COUNT; r++) {
        let n = row_within(thread, r);
        let row = block_row(block, n);
        let is_real = block.first + n <= block.final_row;
        let row_sums = sums[address(params.sums, row.batch, row.head, row.at)];
        // unroll
        for (var i = 0u; i < KEY_VECTORS; i++) {
            let keys = keys_within(thread, kv, i);
            let products = s[r * KEY_VECTORS + i];
            let scores = score(row, keys, products, seen[r * KEY_VECTORS + i]);
            let is_seen = scores.seen & vec4(is_real);
            var x = weights_by_lse(scores.s, vec4(row_sums.x));
            // What is dropped has no value, so V gets no gradient from it, and it gets none from O.
            if (WANTED == WEIGHTS) {
                x = compensated(kept(row, keys, x));
            } else {
                x = score_gradients(x, compensated(kept(row, keys, dp[r * KEY_VECTORS + i])), vec4(row_sums.y));
            }
            if (WANTED == OF_PRODUCTS) { x = product_gradients(row, keys, products, x); }
            s[r * KEY_VECTORS + i] = select(vec4(0.0), x, is_seen);
        }
    }
    workgroupBarrier();  // the tile's last readers are done
    return s;
}

// Whether a block mask hides every pair of the tile at key `kv`.
fn is_hidden(block: Block, kv: u32) -> bool {
    return next_tile(block, kv, kv + 1u) != kv;
}
