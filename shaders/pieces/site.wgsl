// Sites: the query rows and keys of a workgroup, where they lie, and which pairs of them the positions allow.

// From the schedule: GROUPED, whether a workgroup computes rows of all query heads that share a KV head. If so, row n of a
// KV head is query n / group of the group's head n mod group. If not, row n of a query head is query n. BLOCK_ROWS, the rows
// of a workgroup.
//
// The grid along x counts the blocks of a sequence; with ragged queries those of all sequences, ⌊T / BLOCK_ROWS⌋ + B, and there
// are no batches along z.
//
// queries_*.wgsl say which queries a sequence has, lengths_*.wgsl how many keys, and keys_*.wgsl where the keys lie.

// What a workgroup works on.
struct Site {
    batch: u32,
    head: u32,      // its query head, or the first of those that share its KV head
    kv_head: u32,
    first: u32,     // the first row of its block
    rows: u32,      // the rows of its head, or of its group's heads together, that have results
    queries: u32,   // the queries of this dispatch
    at: u32,        // the row of `q` where they begin
    part: u32,      // of the keys
    parts: u32,     // how many parts have keys
    begin: u32,     // the first key of the part
    end: u32,       // one past its last key
    oldest: u32,    // the first key that is kept
    keys_at: u32,   // where its keys begin: see keys_*.wgsl
    diagonal: i32,  // query i stands at key i + diagonal
}

// Positions, without `diagonal_offset`, which `band_first` and `band_last` include: query i of a sequence stands at key
// `diagonal_of` + i.
fn diagonal_of(sequence: Sequence, valid: u32) -> i32 {
    return (i32(valid) - i32(sequence.queries)) * i32(params.band_from_end);
}

// The first and the last key that a query at this position may see. Not all of these keys need exist.
fn first_in_sight(at: i32) -> i32 { return at + params.band_first; }
fn last_in_sight(at: i32) -> i32 { return at + params.band_last; }

// The same, solved for the position: where the first and the last query stand that may see a key.
fn first_that_sees(key: i32) -> i32 { return key - params.band_last; }
fn last_that_sees(key: i32) -> i32 { return key - params.band_first; }

fn site_of(workgroup: vec3<u32>) -> Site {
    return site_at(vec3(workgroup.x, workgroup.y, workgroup.z / params.parts), workgroup.z % params.parts);
}

// The site of one part of the keys, for a workgroup whose number along z is its batch.
fn site_at(workgroup: vec3<u32>, part: u32) -> Site {
    return site_in(sequence_of(workgroup), workgroup.y, part);
}

// The site of one part of the keys of a sequence, for a query head, or for a KV head if GROUPED.
fn site_in(sequence: Sequence, n: u32, part: u32) -> Site {
    let kv_head = select(n / params.group, n, GROUPED);
    let head = select(n, n * params.group, GROUPED);
    let rows = sequence.rows * select(1u, params.group, GROUPED);
    let queries = min(max(sequence.queries, params.first_row) - params.first_row, sequence.rows);
    let valid = valid_keys(sequence.batch);
    let span = span_of(sequence, valid);
    let begin = span.begin + part * span.part;
    let end = min(span.end, begin + span.part);
    let parts = (span.end - span.begin + span.part - 1u) / span.part;
    let diagonal = i32(params.first_row) + diagonal_of(sequence, valid);
    return Site(sequence.batch, head, kv_head, sequence.block * BLOCK_ROWS, rows, queries, sequence.at,
                part, parts, begin, end, oldest_key(valid), keys_at(sequence.batch, valid), diagonal);
}

// The keys that all queries of a sequence together may see by position, from the first to the last. Each part has ⌈steps / parts⌉
// steps of them, so that a short sequence keeps as many workgroups busy as it can. This does not depend on the dispatch, which
// may have only some of the queries.
struct Span {
    begin: u32,     // a multiple of the step
    end: u32,
    part: u32,      // the number of keys of a part
}

fn span_of(sequence: Sequence, valid: u32) -> Span {
    let diagonal = diagonal_of(sequence, valid);
    let first = u32(clamp(max(first_in_sight(diagonal), i32(oldest_key(valid))), 0, i32(valid)));
    let end = u32(clamp(last_in_sight(diagonal + i32(sequence.queries) - 1) + 1, 0, i32(valid)));
    let begin = first / params.part_step * params.part_step;
    let keys = select(0u, end - begin, end > first);
    let steps = (keys + params.part_step - 1u) / params.part_step;
    return Span(begin, begin + keys, max((steps + params.parts - 1u) / params.parts, 1u) * params.part_step);
}

// Whether a workgroup has nothing to do: no rows, or no queries or keys whose results the merge would read.
fn is_idle(site: Site) -> bool {
    return (RAGGED && site.first >= site.rows)
        || (PADDED && !WHOLE && site.first >= site.queries * select(1u, params.group, GROUPED))
        || (HAS_LENGTHS && !WHOLE && site.begin >= site.end);
}

// The number of parts that have results of a row to merge. Without lengths, parts without keys have results too.
fn parts_of(site: Site, row: Row) -> u32 {
    return select(0u, select(params.parts, site.parts, HAS_LENGTHS), row.is_query);
}

fn row_of(site: Site, n: u32) -> Row {
    let query = select(n, n / params.group, GROUPED);
    let head = site.head + select(0u, n % params.group, GROUPED);
    let stands_at = i32(query) + site.diagonal;
    let is_query = !PADDED || query < site.queries;
    let first = max(first_in_sight(stands_at), i32(site.oldest));
    let last = select(-1, last_key(site, query), is_query);
    return Row(site.batch, head, query, site.at + query, is_query, site.part, first, last, stands_at + params.diagonal_offset);
}

// The batch, the query head and the query of a row, counted from the start of the problem, however the work is cut.
fn position_of(row: Row) -> vec3<u32> {
    return vec3(params.first_batch + row.batch, params.first_head + row.head, params.first_row + row.query);
}

// The last key that a query may see in the site's part.
fn last_key(site: Site, query: u32) -> i32 {
    return min(last_in_sight(i32(query) + site.diagonal), i32(site.end) - 1);
}

// The keys that some row from `first` to `final_row` may see, as a begin and an exclusive end. The begin is a multiple of
// `tile`, or the first key of the part.
fn keys_of(site: Site, first: Row, final_row: Row, tile: u32) -> vec2<u32> {
    if (PADDED && !first.is_query) { return vec2(0u); }
    let begin = u32(max(first.first, 0)) / tile * tile;
    let last = last_key(site, select(final_row.query, min(final_row.query, site.queries - 1u), PADDED));
    return vec2(max(begin, site.begin), u32(max(last + 1, 0)));
}

// The rows that may see some of `count` keys from `key` on, as a begin and an exclusive end. The begin is a multiple of `block`.
fn rows_that_see(site: Site, key: u32, count: u32, block: u32) -> vec2<u32> {
    if (key >= site.end) { return vec2(0u); }
    let final_key = min(key + count, site.end) - 1u;
    let lowest = first_that_sees(i32(key)) - site.diagonal;
    let highest = last_that_sees(i32(final_key)) - site.diagonal;
    if (highest < 0) { return vec2(0u); }
    return vec2(u32(max(lowest, 0)) / block * block, min(u32(highest) + 1u, min(site.queries, site.rows)));
}

// Clamps keys to those that masks and biases have. Keys past the end are never seen.
fn within(keys: vec4<u32>) -> vec4<u32> { return min(keys, vec4(params.len_kv - 1u)); }

// Clamps a key to those that the site's part has, so that nothing else is read.
fn readable(site: Site, key: u32) -> u32 { return min(max(key, site.oldest), max(site.end, 1u) - 1u); }

// Clamps a dimension, a multiple of four, to those of a row of `dims`. What is read past the end is never used.
fn within_row(dim: u32, dims: u32) -> u32 { return min(dim, (dims - 1u) / 4u * 4u); }

fn q_address(row: Row) -> u32 { return address(params.q, row.batch, row.head, row.at); }

// Where a key lies, or a readable one in its place.
fn place_at(site: Site, key: u32) -> Place { return place_of(site.batch, site.keys_at, readable(site, key)); }

fn k_address(site: Site, key: u32) -> u32 {
    let place = place_at(site, key);
    return address(params.k, place.batch, site.kv_head, place.row);
}
fn v_address(site: Site, key: u32) -> u32 {
    let place = place_at(site, key);
    return address(params.v, place.batch, site.kv_head, place.row);
}
