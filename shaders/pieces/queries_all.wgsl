// Every sequence has the same number of queries.
const RAGGED = false;
const PADDED = false;

fn sequence_of(workgroup: vec3<u32>) -> Sequence { return sequence(workgroup.z, workgroup.x); }

fn sequence(batch: u32, block: u32) -> Sequence {
    return Sequence(batch, block, params.all_queries, params.len_q, 0u);
}
