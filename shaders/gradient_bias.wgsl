// The gradient of the bias.
//
//     dbias ← Σ dS                                             gradient_tile.wgsl; over the axes that the bias broadcasts
//
// grid        (⌈Lq / ROWS⌉ · ⌈Lk / KEYS⌉, Hq, B), with 1 for each axis that the bias broadcasts
// workgroup   that of tile.wgsl
// memory      the larger of the slices of two operands, and of a tile of scores
// barriers    per tile those of gradient_tile.wgsl, and 3 more for the vote of tile.wgsl; at the end 1, and 1 per axis of the tile
//             that the bias broadcasts
//
//     for each batch, head, block of rows and tile of keys that share the elements of the bias:
//         A ← A + dS
//     dbias ← A, summed over rows or keys if the bias broadcasts them

const WANTED = OF_SCORES;
const TILE_VECTORS = ACROSS * KEY_VECTORS;                     // vectors of four keys per row

// Four numbers of the finished tile.
fn place_of_vector(row: u32, vector: u32) -> vec2<u32> {
    let n = row * TILE_VECTORS + vector;
    return vec2(n / GROUP, n % GROUP);
}
fn read_vector(row: u32, vector: u32) -> vec4<f32> {
    let at = place_of_vector(row, vector);
    return tile[at.x][at.y];
}
fn write_vector(row: u32, vector: u32, x: vec4<f32>) {
    let at = place_of_vector(row, vector);
    tile[at.x][at.y] = x;
}

// Sums the tile over its rows into row 0.
fn sum_rows(thread: u32) {
    if (thread < TILE_VECTORS) {
        var sum = vec4(0.0);
        for (var row = 0u; row < BLOCK_ROWS; row++) { sum += read_vector(row, thread); }
        write_vector(0u, thread, sum);
    }
    workgroupBarrier();
}

// Sums each row of the tile into its first number.
fn sum_keys(thread: u32) {
    for (var row = thread; row < BLOCK_ROWS; row += THREADS) {
        var row_sum = 0.0;
        for (var vector = 0u; vector < TILE_VECTORS; vector++) { row_sum += sum(read_vector(row, vector)); }
        write_vector(row, 0u, vec4(row_sum, 0.0, 0.0, 0.0));
    }
    workgroupBarrier();
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, invocation: Invocation) {
    let thread = thread_of(invocation);
    let row_tile = workgroup.x / params.key_tiles;
    let key_tile = workgroup.x % params.key_tiles;
    let first_row = params.gradient_begin + row_tile * BLOCK_ROWS;
    let first_key = key_tile * BLOCK_KV;

    var total = Quads();
    for (var b = 0u; b < params.shared_by.x; b++) {
        let sequence = sequence(workgroup.z + b, 0u);
        for (var h = 0u; h < params.shared_by.y; h++) {
            let site = site_in(sequence, workgroup.y + h, 0u);
            for (var i = 0u; i < params.shared_by.z; i++) {
                let first = first_row + i * BLOCK_ROWS;
                if (first >= min(site.queries, site.rows)) { continue; }
                let block = block_at(site, first);
                let keys = key_range(block);
                for (var j = 0u; j < params.shared_by.w; j++) {
                    let kv = first_key + j * BLOCK_KV;
                    if (kv + BLOCK_KV <= keys.x || kv >= keys.y) { continue; }
                    var seen = Seen();
                    if (is_hidden(block, kv) || skips(block, thread, kv, &seen)) { continue; }
                    let ds = tile_gradients(block, thread, kv, seen);
                    // unroll
                    for (var n = 0u; n < SCORES; n++) { total[n] += ds[n]; }
                }
            }
        }
    }

    // The tile's last readers are done: tile_gradients ends with a barrier.
    // unroll
    for (var r = 0u; r < ROW_COUNT; r++) {
        // unroll
        for (var n = 0u; n < KEY_VECTORS; n++) {
            write_vector(row_within(thread, r), thread % ACROSS + n * ACROSS, total[r * KEY_VECTORS + n]);
        }
    }
    workgroupBarrier();
    // An axis that the bias broadcasts has stride 0.
    let has_rows = params.dbias.w != 0u;
    let has_keys = params.dbias_key != 0u;
    if (!has_rows) { sum_rows(thread); }
    if (!has_keys) { sum_keys(thread); }
    let rows = select(1u, min(params.all_queries - min(first_row, params.all_queries), BLOCK_ROWS), has_rows);
    let keys = select(1u, min(params.len_kv - min(first_key, params.len_kv), BLOCK_KV), has_keys);
    for (var n = thread; n < rows * keys; n += THREADS) {
        let at = address(params.dbias, workgroup.z, workgroup.y, first_row + n / keys);
        let key = n % keys;
        store_dbias(at + (first_key + key) * params.dbias_key, 1u, vec4(read_vector(n / keys, key / 4u)[key % 4u], 0.0, 0.0, 0.0));
    }
}
