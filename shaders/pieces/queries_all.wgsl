// Every sequence has the same number of queries.
const RAGGED = false;
const PADDED = false;

fn sequence_of(workgroup: vec3<u32>) -> Sequence {
    return Sequence(workgroup.z, workgroup.x, params.all_queries, params.len_q, 0u);
}
