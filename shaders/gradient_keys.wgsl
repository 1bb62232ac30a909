// The gradient of the keys, or of the values.
//
//     dK = scale · dS′ᵀ Q    or    dV = Pᵀ dO                  gradient_tile.wgsl, pieces/gradient_dk.wgsl and gradient_dv.wgsl
//
// grid        (⌈Lk / KEYS⌉, Hkv, B), or with ragged keys (⌊T / KEYS⌋ + B, Hkv, 1)
// workgroup   that of tile.wgsl; a thread's sums are of OUTER_COUNT keys, with SUM_DOWN = ACROSS and SUM_ACROSS = DOWN
// memory      the larger of the slices of two operands, and of dS or P with STAGED rows of Q or dO
// barriers    per tile those of gradient_tile.wgsl and of gradient_sum.wgsl, and 3 more for the vote of tile.wgsl
//
//     for each query head that shares the KV head:
//         for each block of rows that may see some of the keys:
//             dK ← dK + dS′ᵀ Q                                 or dV ← dV + Pᵀ dO
//
// Two kernels compute the two gradients, though both need the weights: together their sums would not fit the registers of most
// GPUs, nor their operands the eight buffers of WebGPU. Dao et al., FlashAttention, 2022.

// Stores a thread's numbers to the tile: [row][key vector].
fn store_weights(thread: u32, w: Quads) {
    // unroll
    for (var n = 0u; n < KEY_VECTORS; n++) {
        let key = (thread % ACROSS + n * ACROSS) * 4u;
        // unroll
        for (var r = 0u; r < ROW_COUNT; r++) {
            store_weight(row_within(thread, r), key / OUTER_COUNT, key % OUTER_COUNT / 4u, w[r * KEY_VECTORS + n]);
        }
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, invocation: Invocation) {
    let thread = thread_of(invocation);
    let keys = key_block_of(workgroup);
    if (keys.first >= keys.rows) { return; }
    let sequence = sequence(keys.batch, 0u);

    var total = Sums();
    for (var n = 0u; n < params.group; n++) {
        let site = site_in(sequence, workgroup.y * params.group + n, 0u);
        let rows = rows_that_see(site, keys.first, BLOCK_KV, BLOCK_ROWS);
        for (var first = rows.x; first < rows.y; first += BLOCK_ROWS) {
            let block = block_at(site, first);
            var seen = Seen();
            if (is_hidden(block, keys.first) || skips(block, thread, keys.first, &seen)) { continue; }
            store_weights(thread, tile_gradients(block, thread, keys.first, seen));
            add_tile(block, thread, keys.first, &total);
        }
    }
    let keys_begin = keys_at(keys.batch, keys.rows);
    // unroll
    for (var r = 0u; r < OUTER_COUNT; r++) {
        let key = keys.first + thread / SUM_ACROSS * OUTER_COUNT + r;
        if (key < keys.rows) {
            store_sums(thread, r, sum_address(place_of(keys.batch, keys_begin, key), workgroup.y), &total);
        }
    }
}
