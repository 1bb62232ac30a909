// A buffer holds the number of queries of each batch. Rows past them have results too: 0, and an LSE of −∞.
const RAGGED = false;
const PADDED = true;

fn sequence_of(workgroup: vec3<u32>) -> Sequence { return sequence(workgroup.z, workgroup.x); }

fn sequence(batch: u32, block: u32) -> Sequence {
    let queries = min(q_lengths[params.first_batch + batch], params.all_queries);
    return Sequence(batch, block, queries, params.len_q, 0u);
}
