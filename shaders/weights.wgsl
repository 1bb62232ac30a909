// The attention weights.
//
//     P = softmax(S),   S = score(Q Kᵀ)                        pieces/score.wgsl; pieces/dropout_*.wgsl drops weights
//
// grid        (⌈Lq / ROWS⌉, Hq, B)
// workgroup   DOWN × ACROSS threads, as in tile.wgsl
// memory      that of tile.wgsl
// barriers    per tile those of tile.wgsl in each of the two loops, and 1 more in the first; 2 between the loops
//
//     for each tile of keys that some row may see:
//         m′ ← max(m, rowmax S);  l ← l·exp(m − m′) + rowsum exp(S − m′)
//     for each tile of keys:
//         P ← exp(S − m) / l                                  0 if the row does not see the key
//
// S is computed twice, so that no memory beyond P is needed. The maximum and the sum are computed here rather than taken
// from the LSE: exp(s − lse) would lose digits where the LSE is large.

const WHOLE = true;

// P of the tile at key `kv`.
fn weights_of(block: Block, thread: u32, kv: u32, softmax: Softmax) -> Quads {
    var p = Quads();
    var seen = Seen();
    if (!skips(block, thread, kv, &seen)) {
        let s = score_tile(block, thread, kv, &seen);
        // unroll
        for (var r = 0u; r < ROW_COUNT; r++) {
            let m = softmax.m[r / 4u][r % 4u];
            let row = block_row(block, row_within(thread, r));
            let total = total_of(row, m, softmax.l[r / 4u][r % 4u], true);
            // unroll
            for (var n = 0u; n < KEY_VECTORS; n++) {
                let i = r * KEY_VECTORS + n;
                let all = normalized(weigh(s[i], seen[i], m) * total.factor, total.l);
                p[i] = select(vec4(0.0), compensated(kept(row, keys_within(thread, kv, n), all)), seen[i]);
            }
        }
    }
    return p;
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, invocation: Invocation) {
    let thread = thread_of(invocation);
    let block = block_of(site_of(workgroup));
    if (Q_RESIDENT) {
        for (var slice = 0u; slice < QK_SLICES; slice++) { stage_q(block, thread, slice, slice); }
    }

    var softmax = nothing_yet();
    let keys = key_range(block);
    for (var kv = next_tile(block, keys.x, keys.y); kv < keys.y; kv = next_tile(block, kv + BLOCK_KV, keys.y)) {
        var seen = Seen();
        if (skips(block, thread, kv, &seen)) { continue; }
        var s = score_tile(block, thread, kv, &seen);
        take_in(&softmax, &s, seen, thread);
    }
    workgroupBarrier();  // the tile's last readers are done
    softmax.l = sum_of_row(thread, softmax.l);

    for (var kv = 0u; kv < params.len_kv; kv += BLOCK_KV) {
        var p = Quads();
        if (kv >= keys.x && kv < keys.y && kv == next_tile(block, kv, keys.y)) { p = weights_of(block, thread, kv, softmax); }
        // unroll
        for (var r = 0u; r < ROW_COUNT; r++) {
            let n = row_within(thread, r);
            let row = block_row(block, n);
            let at = address(params.out, row.batch, row.head, row.at);
            // unroll
            for (var i = 0u; i < KEY_VECTORS; i++) {
                let key = keys_within(thread, kv, i).x;
                if (block.first + n <= block.final_row && key < params.len_kv) {
                    store_out(at + key, params.len_kv - key, p[r * KEY_VECTORS + i]);
                }
            }
        }
    }
}
