// Calls the visitor's `mask_mod` for each (head, query, key). Its text and the declaration of `At` follow. The names here begin with `page_`, so that
// they are not the visitor's.

override page_queries: u32;
override page_keys: u32;

@group(0) @binding(0) var<storage, read_write> page_answers: array<u32>;

@compute @workgroup_size(64)
fn page_ask(@builtin(global_invocation_id) page_id: vec3u) {
    let page_pair = page_id.x;
    if page_pair < arrayLength(&page_answers) {
        let page_head = page_pair / (page_queries * page_keys);
        let page_query = page_pair / page_keys % page_queries;
        let page_key = page_pair % page_keys;
        page_answers[page_pair] = u32(mask_mod(At(0u, page_head, page_head, page_query, page_key, i32(page_query))));
    }
}
