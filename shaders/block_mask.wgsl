// Computes a block mask: what the mask and the user's mask_mod do in each tile of MASK_ROWS queries × MASK_KEYS keys.
//
//     tile = (1 if some pair is seen) + (2 if some pair is hidden)            pieces/seen.wgsl decides for each pair
//
// grid        (⌈Lq / MASK_ROWS⌉, heads, batches), where heads or batches that share tiles count once
// workgroup   64 threads; each evaluates four keys of a row at a time
// memory      4 bytes
// barriers    3 per tile
//
//     for each tile of the row of tiles:
//         found ← 0
//         found ← found | the bits of this thread's pairs          an atomic or
//         tile ← found
//
// FlexAttention's BlockMask: Dong et al. 2024.

const THREADS = 64u;
const GROUPED = false;
const BLOCK_ROWS = MASK_ROWS;
const WHOLE = true;
const QUADS = MASK_KEYS / 4u;

var<workgroup> found: atomic<u32>;

// The bits of a row's pairs with four keys. Keys past the last one add none.
fn found_in(row: Row, keys: vec4<u32>) -> u32 {
    let seen = unmasked(row, keys, vec4(SOME_SEEN | SOME_HIDDEN));
    let numbers = select(vec4(0u), select(vec4(SOME_HIDDEN), vec4(SOME_SEEN), seen), keys < vec4(params.len_kv));
    return numbers.x | numbers.y | numbers.z | numbers.w;
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let site = site_of(workgroup);
    let first = workgroup.x * MASK_ROWS;
    let rows = min(MASK_ROWS, params.len_q - first);
    for (var kv = 0u; kv < params.len_kv; kv += MASK_KEYS) {
        if (thread == 0u) { atomicStore(&found, 0u); }
        workgroupBarrier();
        var mine = 0u;
        for (var i = thread; i < rows * QUADS; i += THREADS) {
            let keys = kv + i % QUADS * 4u + vec4(0u, 1u, 2u, 3u);
            mine |= found_in(row_of(site, first + i / QUADS), keys);
        }
        atomicOr(&found, mine);
        let tile = workgroupUniformLoad(&found);
        if (thread == 0u) {
            let row = (params.first_row + first) / MASK_ROWS;
            block_mask[address(params.block_mask, params.first_batch + site.batch, params.first_head + site.head, row) + kv / MASK_KEYS] = tile;
        }
    }
}
