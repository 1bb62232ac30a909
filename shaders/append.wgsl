// Appends the keys and values of new tokens to a cache, and rotates their keys and queries.
//
//     K[key], V[key] ← rotated new K[n], new V[n];  Q[n] ← rotated new Q[n]         key = (keys) − (queries) + n
//
// The lengths count the new tokens already, as attention needs them: the queries of a sequence stand at its last keys.
//
// grid        (Lq, Hq, B); the workgroup of the first head of a group also appends the row of its KV head
// workgroup   64 threads, which share the cells of eight elements of a row
// memory      256 bytes with quantized keys
// barriers    2 per quantized row
//
//     Q ← its row, rotated                                     pieces/append_queries.wgsl, rotary_*.wgsl
//     if the cache has a place for the key:                    pieces/keys_*.wgsl
//         K, V ← their rows, K rotated                         pieces/append_keys.wgsl; row_*.wgsl quantize them, or not
//
// Rotary embedding: Su et al., RoFormer, 2021.

// From the host: CELLS, the cells of a thread.
const THREADS = 64u;
const CELL = 8u;
const GROUPED = false;
const BLOCK_ROWS = 1u;
const WHOLE = true;

// Eight elements of a row.
struct Cell {
    low: vec4<f32>,
    high: vec4<f32>,
}

alias Cells = array<Cell, CELLS>;

// The first element of a thread's cell.
fn cell_at(thread: u32, c: u32) -> u32 { return (c * THREADS + thread) * CELL; }

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let site = site_of(workgroup);
    if (is_idle(site)) { return; }
    let row = row_of(site, site.first);
    if (!row.is_query) { return; }
    let queries = sequence_of(workgroup).queries;
    // More keys than any cache holds are that many.
    let position = i32(min(all_keys(site.batch), 0x3fffffffu)) - i32(queries) + i32(position_of(row).z);
    let is_kept = position >= i32(site.oldest) && position < i32(params.len_kv);
    let key = u32(clamp(position, 0, i32(params.len_kv) - 1));

    rotate_query(row, thread, key);
    if (is_kept && position_of(row).y % params.group == 0u) { append_key(site, row, thread, key); }
}
