// The gradient of the queries.
//
//     dQ = scale · dS′ K                                       gradient_tile.wgsl, pieces/gradient_dq.wgsl
//
// grid        (⌈Lq / ROWS⌉, Hq, B), or with ragged queries (⌊T / ROWS⌋ + B, Hq, 1)
// workgroup   that of tile.wgsl; a thread's sums are of its rows
// memory      the larger of the slices of two operands, and of dS with STAGED rows of K
// barriers    per tile those of gradient_tile.wgsl and of gradient_sum.wgsl, and 3 more for the vote of tile.wgsl
//
//     for each tile of keys that some row may see:
//         dQ ← dQ + dS′ K
//
// Dao et al., FlashAttention, 2022.

// Stores a thread's gradients to the tile: [key][row vector].
fn store_weights(thread: u32, w: Quads) {
    // unroll
    for (var n = 0u; n < KEY_VECTORS; n++) {
        // unroll
        for (var j = 0u; j < 4u; j++) {
            let key = (thread % ACROSS + n * ACROSS) * 4u + j;
            // unroll
            for (var a = 0u; a < ROW_VECTORS; a++) {
                let r = a * 4u;
                store_weight(key, thread / ACROSS, a,
                             vec4(w[r * KEY_VECTORS + n][j], w[(r + 1u) * KEY_VECTORS + n][j],
                                  w[(r + 2u) * KEY_VECTORS + n][j], w[(r + 3u) * KEY_VECTORS + n][j]));
            }
        }
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, invocation: Invocation) {
    let thread = thread_of(invocation);
    let block = block_of(site_of(workgroup));
    if (is_idle(block.site)) { return; }

    var total = Sums();
    let keys = key_range(block);
    for (var kv = next_tile(block, keys.x, keys.y); kv < keys.y; kv = next_tile(block, kv + BLOCK_KV, keys.y)) {
        var seen = Seen();
        if (skips(block, thread, kv, &seen)) { continue; }
        store_weights(thread, tile_gradients(block, thread, kv, seen));
        add_tile(block, thread, kv, &total);
    }
    // unroll
    for (var r = 0u; r < ROW_COUNT; r++) {
        let n = row_within(thread, r);
        let row = block_row(block, n);
        if (block.first + n <= block.final_row) {
            store_sums(thread, r, address(params.dq, row.batch, row.head, row.at), &total);
        }
    }
}
