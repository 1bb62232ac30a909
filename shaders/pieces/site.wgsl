// Sites: the query rows and keys of a workgroup, and which pairs of them the positions allow.

// From the schedule: GROUPED, whether a workgroup computes rows of all query heads that share a KV head. If so, row n of a
// KV head is query n / group of the group's head n mod group. If not, row n of a query head is query n.

// What a workgroup works on.
struct Site {
    batch: u32,
    head: u32,      // its query head, or the first of those that share its KV head
    kv_head: u32,
    part: u32,      // of the keys
    begin: u32,     // the first key of the part
    end: u32,       // one past its last key that is valid
    diagonal: i32,  // query i stands at key i + diagonal
}

fn site_of(workgroup: vec3<u32>) -> Site {
    let batch = workgroup.z / params.parts;
    let part = workgroup.z % params.parts;
    let kv_head = select(workgroup.y / params.group, workgroup.y, GROUPED);
    let head = select(workgroup.y, workgroup.y * params.group, GROUPED);
    let valid = valid_keys(batch);
    let begin = part * params.part_keys;
    let end = min(valid, begin + params.part_keys);
    let diagonal = i32(params.first_row) + i32(valid * params.band_from_end);
    return Site(batch, head, kv_head, part, begin, end, diagonal);
}

// The number of rows of a workgroup's head, or of its group's heads together.
fn row_count() -> u32 { return select(params.len_q, params.len_q * params.group, GROUPED); }

fn row_of(site: Site, n: u32) -> Row {
    let query = select(n, n / params.group, GROUPED);
    let head = site.head + select(0u, n % params.group, GROUPED);
    let stands_at = i32(query) + site.diagonal;
    let last = min(stands_at + params.band_last, i32(site.end) - 1);
    return Row(site.batch, head, query, site.part, stands_at + params.band_first, last, stands_at + params.diagonal_offset);
}

// The keys that some row from `first` to `final_row` may see, as a begin and an exclusive end. The begin is a multiple of
// `tile`, or the first key of the part.
fn keys_of(site: Site, first: Row, final_row: Row, tile: u32) -> vec2<u32> {
    let begin = u32(max(first.first, 0)) / tile * tile;
    return vec2(max(begin, site.begin), u32(max(final_row.last + 1, 0)));
}

// Whether every row from `first` to `final_row` sees all of `count` keys from `key` on, by position.
fn all_in_band(first: Row, final_row: Row, key: u32, count: u32) -> bool {
    return final_row.first <= i32(key) && first.last >= i32(key + count - 1u);
}

// Clamps keys to those that can be read. Keys past the end are never seen.
fn within(keys: vec4<u32>) -> vec4<u32> { return min(keys, vec4(params.len_kv - 1u)); }

// Clamps a dimension, a multiple of four, to those of a row of `dims`. What is read past the end is never used.
fn within_row(dim: u32, dims: u32) -> u32 { return min(dim, (dims - 1u) / 4u * 4u); }

fn q_address(row: Row) -> u32 { return address(params.q, row.batch, row.head, row.query); }
fn k_address(site: Site, key: u32) -> u32 { return address(params.k, site.batch, site.kv_head, key); }
fn v_address(site: Site, key: u32) -> u32 { return address(params.v, site.batch, site.kv_head, key); }
