// Exact attention in one pass over K and V, for any WebGPU device.
//
//     O = softmax(S) V,   S = score(Q Kᵀ)                      pieces/score.wgsl; pieces/dropout_*.wgsl drops weights
//
// grid        (⌈Lq / ROWS⌉, Hq, B · parts of the keys)
// workgroup   DOWN × ACROSS threads: thread (y, x) owns a block of S as in tile.wgsl, and of the same rows of O the vectors of
//             four columns x, x + ACROSS, …; O and the running maximum and sum never leave its registers
// memory      the larger of the slices of Q and K, and of P with V_KEYS rows of V; or all of Q's rows, and the larger of a slice
//             of K and of P with V
// barriers    per tile 2 per slice of K, 2 per V_KEYS keys, 1 (rows_subgroup.wgsl) or 2 (rows_workgroup.wgsl), and
//             3 more for the vote of tile.wgsl; at the end 2 or 4
//
//     for each tile of keys that some row may see:
//         S ← Q Kᵀ, scaled, capped, biased, masked            tile.wgsl; full tiles run no mask code
//         m′ ← max(m, rowmax S);  P ← exp(S − m′);  l ← l·exp(m − m′) + rowsum P
//         O ← O·exp(m − m′) + P V
//     O ← O / l;  lse ← m + ln l                              a row that sees no key: 0 and −∞
//
// Online softmax: Milakov & Gimelshein 2018; tiling: Dao et al., FlashAttention, 2022.

// From the host: V_COLUMNS, the vectors of four columns of O that a thread holds per row; O_ARRAY, those of all its rows;
// V_KEYS, the keys whose values are staged together; V_GROUP, the keys per group of `tile`; V_STEP, the keys of one loop
// iteration; V_LOADS, the keys of which a thread copies its columns; P_AT and V_AT, where the parts of `tile` begin.
const P_KEYS = GROUP / ROW_VECTORS;                            // keys per group

const_assert O_ARRAY == ROW_COUNT * V_COLUMNS && V_GROUP * V_COLUMNS <= GROUP;
const_assert BLOCK_KV % V_KEYS == 0u && V_KEYS % V_STEP == 0u && V_STEP % P_KEYS == 0u && V_STEP % V_GROUP == 0u;
const_assert V_LOADS * DOWN == V_KEYS;

// A thread's share of O: [row][column vector], four columns.
alias Output = array<vec4<f32>, O_ARRAY>;

// Copies a thread's weights to the tile: [key][row vector].
fn store_weights(thread: u32, p: Quads) {
    // unroll
    for (var n = 0u; n < KEY_VECTORS; n++) {
        let key = (thread % ACROSS + n * ACROSS) * 4u;
        let group = P_AT + key / P_KEYS * DOWN + thread / ACROSS;
        let place = key % P_KEYS * ROW_VECTORS;
        // unroll
        for (var j = 0u; j < 4u; j++) {
            // unroll
            for (var a = 0u; a < ROW_VECTORS; a++) {
                let r = a * 4u;
                tile[group][place + j * ROW_VECTORS + a] =
                    vec4(p[r * KEY_VECTORS + n][j], p[(r + 1u) * KEY_VECTORS + n][j],
                         p[(r + 2u) * KEY_VECTORS + n][j], p[(r + 3u) * KEY_VECTORS + n][j]);
            }
        }
    }
}

// Copies the values of V_KEYS keys to the tile: [key][column vector]. Those past the valid keys, and columns past the end, may
// be anything: the weights of such keys are 0, and such columns are not stored.
fn stage_v(block: Block, thread: u32, kv: u32) {
    // unroll
    for (var step = 0u; step < V_LOADS; step++) {
        let i = step * DOWN + thread / ACROSS;
        let at = v_address(block.site, kv + i);
        let group = V_AT + i / V_GROUP * ACROSS + thread % ACROSS;
        // unroll
        for (var c = 0u; c < V_COLUMNS; c++) {
            let d = within_row((c * ACROSS + thread % ACROSS) * 4u, params.dim_v);
            tile[group][i % V_GROUP * V_COLUMNS + c] = load_v(at, d, params.dim_v - d);
        }
    }
}

// O ← O + P V for the keys of one loop iteration, from key `first` of the tile, which is `staged` within the staged ones. With
// `full`, every row sees every key.
fn accumulate(thread: u32, first: u32, staged: u32, full: bool, o: ptr<function, Output>) {
    let p_group = P_AT + first / P_KEYS * DOWN + thread / ACROSS;
    let v_group = V_AT + staged / V_GROUP * ACROSS + thread % ACROSS;
    // unroll
    for (var j = 0u; j < V_STEP; j++) {
        var p = PerRow();
        // unroll
        for (var a = 0u; a < ROW_VECTORS; a++) { p[a] = tile[p_group + j / P_KEYS * DOWN][j % P_KEYS * ROW_VECTORS + a]; }
        // unroll
        for (var c = 0u; c < V_COLUMNS; c++) {
            let v = tile[v_group + j / V_GROUP * ACROSS][j % V_GROUP * V_COLUMNS + c];
            // unroll
            for (var r = 0u; r < ROW_COUNT; r++) {
                let weight = p[r / 4u][r % 4u];
                let i = r * V_COLUMNS + c;
                if (full) {
                    (*o)[i] = fma(v, vec4(weight), (*o)[i]);
                } else {
                    (*o)[i] = fma(seen_value(v, weight), vec4(weight), (*o)[i]);
                }
            }
        }
    }
}

// O ← O + P V.
fn accumulate_values(block: Block, thread: u32, kv: u32, o: ptr<function, Output>) {
    let full = !HAS_HIDING_SCORES && is_full(block, kv);
    for (var done = 0u; done < BLOCK_KV; done += V_KEYS) {
        workgroupBarrier();  // the values' last readers are done
        stage_v(block, thread, kv + done);
        workgroupBarrier();
        for (var step = 0u; step < V_KEYS; step += V_STEP) {
            if (full) {
                accumulate(thread, done + step, step, true, o);
            } else {
                accumulate(thread, done + step, step, false, o);
            }
        }
    }
}

// Drops some of a tile's weights. Their sums count in l.
fn drop_out(block: Block, thread: u32, kv: u32, p: ptr<function, Quads>) {
    // unroll
    for (var r = 0u; r < ROW_COUNT; r++) {
        let row = block_row(block, row_within(thread, r));
        // unroll
        for (var n = 0u; n < KEY_VECTORS; n++) {
            (*p)[r * KEY_VECTORS + n] = kept(row, keys_within(thread, kv, n), (*p)[r * KEY_VECTORS + n]);
        }
    }
}

// Stores O / l and the statistics of a thread's rows.
fn finish(block: Block, thread: u32, softmax: Softmax, o: ptr<function, Output>) {
    workgroupBarrier();  // the tile's last readers are done
    let l = sum_of_row(thread, softmax.l);
    workgroupBarrier();
    let saw = largest_of_row(thread, softmax.saw);
    // unroll
    for (var r = 0u; r < ROW_COUNT; r++) {
        let n = row_within(thread, r);
        let is_real = block.first + n <= block.final_row;
        let saw_any = saw[r / 4u][r % 4u] > 0.0;
        let row = block_row(block, n);
        let m = softmax.m[r / 4u][r % 4u];
        // unroll
        for (var c = 0u; c < V_COLUMNS; c++) {
            let dim = (c * ACROSS + thread % ACROSS) * 4u;
            if (is_real && dim < params.dim_v) { store_columns(row, dim, (*o)[r * V_COLUMNS + c], m, l[r / 4u][r % 4u], saw_any); }
        }
        if (is_real && thread % ACROSS == 0u) { store_statistics(row, m, l[r / 4u][r % 4u], saw_any); }
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, invocation: Invocation) {
    let thread = thread_of(invocation);
    let block = block_of(site_of(workgroup));
    if (is_idle(block.site)) { return; }
    if (Q_RESIDENT) {
        for (var slice = 0u; slice < QK_SLICES; slice++) { stage_q(block, thread, slice, slice); }
    }

    var softmax = nothing_yet();
    var o = Output();
    let keys = key_range(block);
    for (var kv = next_tile(block, keys.x, keys.y); kv < keys.y; kv = next_tile(block, kv + BLOCK_KV, keys.y)) {
        var seen = Seen();
        if (skips(block, thread, kv, &seen)) { continue; }

        var p = score_tile(block, thread, kv, &seen);
        let factor = take_in(&softmax, &p, seen, thread);
        drop_out(block, thread, kv, &p);
        store_weights(thread, p);
        // unroll
        for (var r = 0u; r < ROW_COUNT; r++) {
            // unroll
            for (var c = 0u; c < V_COLUMNS; c++) { o[r * V_COLUMNS + c] *= factor[r / 4u][r % 4u]; }
        }
        accumulate_values(block, thread, kv, &o);
    }
    finish(block, thread, softmax, &o);
}
