// Exact attention in one pass over K and V, for any WebGPU device.
//
//     O = softmax(S) V,   S = score(Q Kᵀ)                      pieces/score.wgsl
//
// grid        (⌈Lq / 32⌉, Hq, B · parts of the keys)
// workgroup   64 threads, 8 × 8: thread (ty, tx) owns rows 4ty.. of the query block; of S keys 4tx.., of O the
//             vectors of four columns tx, tx + 8, …; O and the running maximum and sum never leave its registers
// memory      q_tile 4 KiB (up to 8 KiB where all of Q's rows fit), kv_tile 4 KiB, p_tile 4 KiB: at most 16 KiB
// barriers    a tile: 2 for each 32 dims of K, 1 or 2 (rows_*.wgsl), 2 for each 4 KiB of V; 3 more with a boolean mask
//
//     for each tile of keys that some row may see:
//         S ← Q Kᵀ, scaled, capped, biased, masked            tile.wgsl
//         m′ ← max(m, rowmax S);  P ← exp(S − m′);  l ← l·exp(m − m′) + rowsum P
//         O ← O·exp(m − m′) + P V
//     O ← O / l;  lse ← m + ln l                              a row that saw no key: 0 and −∞
//
// Online softmax: Milakov & Gimelshein 2018; tiling: Dao et al., FlashAttention, 2022.

// From the host: V_COLUMNS, the vectors of a row of O that a thread holds; V_QUADS, how many times four keys' values are
// staged together.
const V_KEYS = V_QUADS * 4u;
const DIM_V_VECTORS = V_COLUMNS * 8u;

const_assert V_COLUMNS > 0u && V_KEYS > 0u && BLOCK_KV % V_KEYS == 0u;
const_assert V_KEYS * DIM_V_VECTORS <= 256u;

var<workgroup> p_tile: array<vec4<f32>, 256>;            // [key / 4][row], four keys of a row together

// Values past the valid keys are zero: they may hold anything.
fn stage_v(block: Block, thread: u32, kv: u32) {
    // unroll
    for (var step = 0u; step < 4u; step++) {
        let i = step * THREADS + thread;
        let key = kv + i / DIM_V_VECTORS;
        let dim = i % DIM_V_VECTORS * 4u;
        var x = vec4(0.0);
        if (i < V_KEYS * DIM_V_VECTORS && key < block.site.end && dim < params.dim_v) {
            x = load_v(v_address(block.site, key) + dim, params.dim_v - dim);
        }
        kv_tile[i] = x;
    }
}

// accumulate() for values that a row does not see, and which may hold anything: they are not touched.
fn accumulate_seen(m: mat4x4<f32>, p: vec4<f32>, sum: vec4<f32>) -> vec4<f32> {
    let none = vec4(0.0);
    return accumulate(mat4x4(select(none, m[0], p.x > 0.0), select(none, m[1], p.y > 0.0),
                             select(none, m[2], p.z > 0.0), select(none, m[3], p.w > 0.0)), p, sum);
}

// A thread's share of O for its four rows.
alias Output = array<mat4x4<f32>, V_COLUMNS>;                  // [column vector][row], four columns

// O ← O + P V: four keys at a time, whose values are staged as they are needed.
fn accumulate_values(block: Block, thread: u32, kv: u32, o: ptr<function, Output>) {
    let row = thread / 8u * 4u;
    let column = thread % 8u;
    let all_seen = !HAS_HIDDEN_KEYS && is_full(block, kv);
    for (var keys_done = 0u; keys_done < BLOCK_KV; keys_done += V_KEYS) {
        workgroupBarrier();  // kv_tile's last readers are done
        stage_v(block, thread, kv + keys_done);
        workgroupBarrier();
        // unroll
        for (var i = 0u; i < V_QUADS; i++) {
            let p = (keys_done / 4u + i) * ROWS + row;
            let p0 = p_tile[p];
            let p1 = p_tile[p + 1u];
            let p2 = p_tile[p + 2u];
            let p3 = p_tile[p + 3u];
            // unroll
            for (var c = 0u; c < V_COLUMNS; c++) {
                let at = i * 4u * DIM_V_VECTORS + c * 8u + column;
                let v4 = mat4x4(kv_tile[at], kv_tile[at + DIM_V_VECTORS],
                                kv_tile[at + 2u * DIM_V_VECTORS], kv_tile[at + 3u * DIM_V_VECTORS]);
                if (all_seen) {
                    (*o)[c][0] = accumulate(v4, p0, (*o)[c][0]);
                    (*o)[c][1] = accumulate(v4, p1, (*o)[c][1]);
                    (*o)[c][2] = accumulate(v4, p2, (*o)[c][2]);
                    (*o)[c][3] = accumulate(v4, p3, (*o)[c][3]);
                } else {
                    (*o)[c][0] = accumulate_seen(v4, p0, (*o)[c][0]);
                    (*o)[c][1] = accumulate_seen(v4, p1, (*o)[c][1]);
                    (*o)[c][2] = accumulate_seen(v4, p2, (*o)[c][2]);
                    (*o)[c][3] = accumulate_seen(v4, p3, (*o)[c][3]);
                }
            }
        }
    }
}

// O / l and the statistics of a thread's rows.
fn finish(block: Block, thread: u32, softmax: Softmax, o: ptr<function, Output>) {
    workgroupBarrier();  // kv_tile's last readers are done
    let l = sum_of_row(thread, softmax.l);
    workgroupBarrier();
    let saw = largest_of_row(thread, softmax.saw);
    // unroll
    for (var r = 0u; r < 4u; r++) {
        let n = thread / 8u * 4u + r;
        let is_real = block.first + n <= block.final_row;
        let saw_any = saw[r] > 0.0;
        let row = block_row(block, n);
        // unroll
        for (var c = 0u; c < V_COLUMNS; c++) {
            let dim = (c * 8u + thread % 8u) * 4u;
            if (is_real && dim < params.dim_v) { store_columns(row, dim, (*o)[c][r], softmax.m[r], l[r], saw_any); }
        }
        if (is_real && thread % 8u == 0u) { store_statistics(row, softmax.m[r], l[r], saw_any); }
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, invocation: Invocation) {
    let thread = thread_of(invocation);
    let block = block_of(workgroup);
    if (Q_RESIDENT) {
        for (var slice = 0u; slice < QK_SLICES; slice++) { stage_q(block, thread, slice, slice); }
    }

    var softmax = nothing_yet();
    var o = Output();
    let keys = key_range(block);
    for (var kv = keys.x; kv < keys.y; kv += BLOCK_KV) {
        var seen = Seen();
        if (skips(block, thread, kv, &seen)) { continue; }

        var p = score_tile(block, thread, kv, &seen);
        let factor = take_in(&softmax, &p, seen, thread);
        // unroll
        for (var r = 0u; r < 4u; r++) { p_tile[thread % 8u * ROWS + thread / 8u * 4u + r] = p[r]; }
        // unroll
        for (var c = 0u; c < V_COLUMNS; c++) {
            o[c][0] *= factor[0];
            o[c][1] *= factor[1];
            o[c][2] *= factor[2];
            o[c][3] *= factor[3];
        }
        accumulate_values(block, thread, kv, &o);
    }
    finish(block, thread, softmax, &o);
}
