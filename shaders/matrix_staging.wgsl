// Loads the operands of matrix.wgsl, in vectors of four. K and V are loaded into registers, and stored in workgroup memory
// once the previous contents have been read. Q goes directly to k_tile.

// Copies the rows of Q from `first` on to k_tile, BLOCK_KV of them; rows and dimensions past the end are zero. Plain scores
// get the sign of the scale here, where it costs least and is exact.
fn stage_q(block: Block, thread: u32, first: u32) {
    // unroll
    for (var i = 0u; i < K_MOVES; i++) {
        let cell = i * THREADS + thread;
        let row = first + cell / QK_QUADS;
        let dim = cell % QK_QUADS * 4u;
        var x = vec4<f16>();
        if (row < ROWS && block.first + row <= block.final_row && dim < params.dim_qk) {
            x = load_q(q_address(block_row(block, row)), dim, params.dim_qk - dim);
            if (PLAIN) { x *= f16(params.score_scale); }
        }
        if (cell < K_CELLS) { set_k(cell / QK_QUADS * K_STRIDE + cell % QK_QUADS, x); }
    }
}

// The vectors of a tile that a thread moves. Keys from `end` on are zero, since memory may hold anything there.
alias Keys = array<vec4<f16>, K_MOVES>;
alias Values = array<vec4<f16>, V_MOVES>;

fn fetch_k(block: Block, thread: u32, kv: u32, end: u32) -> Keys {
    var keys = Keys();
    // unroll
    for (var i = 0u; i < K_MOVES; i++) {
        let cell = i * THREADS + thread;
        let key = kv + cell / QK_QUADS;
        let dim = cell % QK_QUADS * 4u;
        if (cell < K_CELLS && key < end && dim < params.dim_qk) {
            keys[i] = load_k(k_address(block.site, key), dim, params.dim_qk - dim);
        }
    }
    return keys;
}

fn fetch_v(block: Block, thread: u32, kv: u32, end: u32) -> Values {
    var values = Values();
    // unroll
    for (var i = 0u; i < V_MOVES; i++) {
        let cell = i * THREADS + thread;
        let key = kv + cell / V_QUADS;
        let dim = cell % V_QUADS * 4u;
        if (cell < V_CELLS && key < end && dim < params.dim_v) {
            values[i] = load_v(v_address(block.site, key), dim, params.dim_v - dim);
        }
    }
    return values;
}

fn stage_k(thread: u32, keys: Keys) {
    // unroll
    for (var i = 0u; i < K_MOVES; i++) {
        let cell = i * THREADS + thread;
        if (cell < K_CELLS) { set_k(cell / QK_QUADS * K_STRIDE + cell % QK_QUADS, keys[i]); }
    }
}

fn stage_v(thread: u32, values: Values) {
    // unroll
    for (var i = 0u; i < V_MOVES; i++) {
        let cell = i * THREADS + thread;
        if (cell < V_CELLS) { set_v(cell / V_QUADS * V_STRIDE + cell % V_QUADS, values[i]); }
    }
}

// The same for a tile that is not full. A vector that is not finite is stored as zero, because 0 · NaN would reach rows
// that do not see the key. The key is marked for the rows that do.
fn stage_v_marking(thread: u32, values: Values, tile: u32) {
    var finite = values;
    // unroll
    for (var i = 0u; i < V_MOVES; i++) {
        let bits = bitcast<vec4<u32>>(vec4<f32>(values[i]));
        if (any((bits & vec4(0x7f800000u)) == vec4(0x7f800000u))) {
            finite[i] = vec4<f16>();
            atomicStore(&marks[NON_FINITE_KEYS + (i * THREADS + thread) / V_QUADS], tile);
            atomicStore(&marks[NON_FINITE], tile);
        }
    }
    stage_v(thread, finite);
}
