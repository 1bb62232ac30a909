// The products of a block of rows with a tile of keys, slice by slice of their dimensions.
//
//     for each slice of the dimensions:
//         tile ← Q and K                                       Q only once if Q_RESIDENT
//         S ← S + Q Kᵀ                                         as outer products: per dimension, a vector of four per four
//                                                              rows and per four keys is read
//
// barriers    2 per slice
//
// Gradients have a copy of this file for dO and V, with other names.

// Copies slice `from_slice` of Q to slice `to_slice` of the tile. A thread transposes four dimensions of four rows. Dimensions
// past the end are zero. Rows past the end repeat the last one, and their results are not stored.
fn stage_q(block: Block, thread: u32, from_slice: u32, to_slice: u32) {
    // unroll
    for (var step = 0u; step < Q_LOADS; step++) {
        let i = step * THREADS + thread;
        let vector = i % (ROWS / 4u);
        let within_slice = i / (ROWS / 4u) * 4u;
        let dim = from_slice * SLICE + within_slice;
        let d = within_row(dim, params.dim_qk);
        var x = mat4x4<f32>();
        // unroll
        for (var r = 0u; r < 4u; r++) {
            x[r] = load_q(q_address(block_row(block, vector * 4u + r)), d, params.dim_qk - d);
        }
        x = transpose(x);
        let group = Q_AT + (to_slice * SLICE + within_slice) / Q_DIMS * DOWN + vector / ROW_VECTORS;
        let place = within_slice % Q_DIMS * ROW_VECTORS + vector % ROW_VECTORS;
        if (within_slice < SLICE) {
            // unroll
            for (var e = 0u; e < 4u; e++) {
                tile[group][place + e * ROW_VECTORS] = select(vec4(0.0), x[e], dim < params.dim_qk);
            }
        }
    }
}

// Copies a slice of K to the tile likewise. Keys past the valid ones may be anything: their scores are hidden.
fn stage_k(block: Block, thread: u32, kv: u32, slice: u32) {
    // unroll
    for (var step = 0u; step < K_LOADS; step++) {
        let i = step * THREADS + thread;
        let vector = i % (BLOCK_KV / 4u);
        let within_slice = i / (BLOCK_KV / 4u) * 4u;
        let dim = slice * SLICE + within_slice;
        let d = within_row(dim, params.dim_qk);
        let key = kv + vector * 4u;
        var x = mat4x4<f32>();
        // unroll
        for (var j = 0u; j < 4u; j++) { x[j] = load_k(k_address(block.site, key + j), d, params.dim_qk - d); }
        x = transpose(x);
        let group = K_AT + within_slice / K_DIMS * ACROSS + vector % ACROSS;
        let place = within_slice % K_DIMS * KEY_VECTORS + vector / ACROSS;
        if (within_slice < SLICE) {
            // unroll
            for (var e = 0u; e < 4u; e++) {
                tile[group][place + e * KEY_VECTORS] = select(vec4(0.0), x[e], dim < params.dim_qk);
            }
        }
    }
}

// Q Kᵀ of the tile.
fn products(block: Block, thread: u32, kv: u32) -> Quads {
    var s = Quads();
    for (var slice = 0u; slice < QK_SLICES; slice++) {
        workgroupBarrier();  // the tile's last readers are done
        let q_slice = select(0u, slice, Q_RESIDENT);
        if (!Q_RESIDENT) { stage_q(block, thread, slice, 0u); }
        stage_k(block, thread, kv, slice);
        workgroupBarrier();
        for (var step = 0u; step < SLICE / STEP; step++) {
            let q_group = Q_AT + (q_slice * SLICE + step * STEP) / Q_DIMS * DOWN + thread / ACROSS;
            let k_group = K_AT + step * STEP / K_DIMS * ACROSS + thread % ACROSS;
            // unroll
            for (var d = 0u; d < STEP; d++) {
                var q = PerRow();
                // unroll
                for (var a = 0u; a < ROW_VECTORS; a++) {
                    q[a] = tile[q_group + d / Q_DIMS * DOWN][d % Q_DIMS * ROW_VECTORS + a];
                }
                // unroll
                for (var n = 0u; n < KEY_VECTORS; n++) {
                    let k = tile[k_group + d / K_DIMS * ACROSS][d % K_DIMS * KEY_VECTORS + n];
                    // unroll
                    for (var r = 0u; r < ROW_COUNT; r++) {
                        s[r * KEY_VECTORS + n] = fma(k, vec4(q[r / 4u][r % 4u]), s[r * KEY_VECTORS + n]);
                    }
                }
            }
        }
    }
    return s;
}
