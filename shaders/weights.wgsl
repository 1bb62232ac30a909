// The attention weights, P = softmax(S), for those who want to look at them.
//
// grid        (⌈Lq / 32⌉, Hq, B)
// workgroup   64 threads, as in tiled.wgsl
// memory      q_tile and kv_tile, at most 12 KiB
// barriers    as for S in tile.wgsl, twice over
//
//     for each tile of keys that some row may see:
//         m′ ← max(m, rowmax S);  l ← l·exp(m − m′) + rowsum exp(S − m′)
//     for each tile of keys:
//         P ← exp(S − m) / l                                  0 where the row does not see the key
//
// S is computed twice rather than kept, so the memory beyond P is none. The maximum and the sum are found here, not taken
// from an LSE: exp(s − lse) would lose the digits that a large lse has no room for.

// P of the tile at key `kv`.
fn weights_of(block: Block, thread: u32, kv: u32, softmax: Softmax) -> mat4x4<f32> {
    var p = mat4x4<f32>();
    var seen = Seen();
    if (!skips(block, thread, kv, &seen)) {
        let s = score_tile(block, thread, kv, &seen);
        // unroll
        for (var r = 0u; r < 4u; r++) {
            let m = softmax.m[r];
            let total = total_of(block_row(block, thread / 8u * 4u + r), m, softmax.l[r], true);
            p[r] = select(vec4(0.0), share_of(weigh(s[r], seen[r], m) * total.factor, total.l), seen[r]);
        }
    }
    return p;
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, invocation: Invocation) {
    let thread = thread_of(invocation);
    let block = block_of(workgroup);
    if (Q_RESIDENT) {
        for (var slice = 0u; slice < QK_SLICES; slice++) { stage_q(block, thread, slice, slice); }
    }

    var softmax = nothing_yet();
    let keys = key_range(block);
    for (var kv = keys.x; kv < keys.y; kv += BLOCK_KV) {
        var seen = Seen();
        if (skips(block, thread, kv, &seen)) { continue; }
        var s = score_tile(block, thread, kv, &seen);
        take_in(&softmax, &s, seen, thread);
    }
    workgroupBarrier();  // kv_tile's last readers are done
    softmax.l = sum_of_row(thread, softmax.l);

    for (var kv = 0u; kv < params.len_kv; kv += BLOCK_KV) {
        var p = mat4x4<f32>();
        if (kv >= keys.x && kv < keys.y) { p = weights_of(block, thread, kv, softmax); }
        let key = kv + thread % 8u * 4u;
        // unroll
        for (var r = 0u; r < 4u; r++) {
            let n = thread / 8u * 4u + r;
            if (block.first + n <= block.final_row && key < params.len_kv) {
                let row = block_row(block, n);
                let at = address(params.out, row.batch, row.head, row.query);
                store_out(at + key, params.len_kv - key, p[r]);
            }
        }
    }
}
