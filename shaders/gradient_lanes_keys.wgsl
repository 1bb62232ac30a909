// The gradients of keys and values, for software GPUs: gradient_lanes.wgsl, whose lanes own keys.
//
//     dK = scale · dS′ᵀ Q,  dV = Pᵀ dO
//
// The rows that pass by are those of all query heads that share the KV head, one head after another.

const BLOCK_KV = LANES * OWN;
const BLOCK_ROWS = STREAM;
const IN_FOURS = false;

const_assert OWN <= 4u;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let block = key_block_of(workgroup);
    let sequence = sequence(block.batch, 0u);
    let first_head = workgroup.y * params.group;
    let own_site = site_in(sequence, first_head, 0u);

    var k = OwnX();
    var v = OwnY();
    // unroll
    for (var r = 0u; r < OWN; r++) {
        let key = block.first + r * LANES + lane;
        let k_at = k_address(own_site, key);
        let v_at = v_address(own_site, key);
        // unroll
        for (var d = 0u; d < X_VECTORS; d++) {
            if ((key < own_site.end) & (d * 4u < params.dim_qk)) { k[r * X_VECTORS + d] = load_k(k_at, d * 4u, params.dim_qk - d * 4u); }
        }
        // unroll
        for (var d = 0u; d < Y_VECTORS; d++) {
            if ((key < own_site.end) & (d * 4u < params.dim_v)) { v[r * Y_VECTORS + d] = load_v(v_at, d * 4u, params.dim_v - d * 4u); }
        }
    }
    // With fewer than four they repeat, and the copies are not used.
    let keys = block.first + vec4(0u, 1u, 2u, 3u) % OWN * LANES + lane;

    var dk = SumX();
    var dv = SumY();
    for (var head = first_head; head < first_head + params.group; head++) {
        let site = site_in(sequence, head, 0u);
        let rows = rows_that_see(site, block.first, BLOCK_KV, BLOCK_ROWS);
        for (var i = rows.x; i < rows.y; i += STREAM) {
            var streamed = Streamed();
            // unroll
            for (var t = 0u; t < STREAM; t++) {
                let row = row_of(site, min(i + t, rows.y - 1u));
                fetch(&streamed, t, address(params.staged_rows, row.batch, row.head, row.at), lane);
            }
            let s = products_x(&streamed, &k);
            let dp = products_y(&streamed, &v);
            var w = Numbers();
            var p = Numbers();
            // unroll
            for (var t = 0u; t < STREAM; t++) {
                let row = row_of(site, min(i + t, rows.y - 1u));
                let note = streamed.note[t];
                let both = gradients_of(row, keys, vec4(s[t], s[1u % OWN * STREAM + t], s[2u % OWN * STREAM + t], s[3u % OWN * STREAM + t]),
                                        vec4(dp[t], dp[1u % OWN * STREAM + t], dp[2u % OWN * STREAM + t], dp[3u % OWN * STREAM + t]),
                                        vec4(note.y), vec4(note.z), vec4(note.x == 0.0), i + t < rows.y);
                // unroll
                for (var r = 0u; r < OWN; r++) {
                    w[r * STREAM + t] = both[0][r];
                    p[r * STREAM + t] = both[1][r];
                }
            }
            if (HAS_DK) { add_x(&streamed, &w, &dk); }
            if (HAS_DV) { add_y(&streamed, &p, &dv); }
        }
    }
    let keys_begin = keys_at(block.batch, block.rows);
    // unroll
    for (var r = 0u; r < OWN; r++) {
        let key = block.first + r * LANES + lane;
        let place = place_of(block.batch, keys_begin, key);
        if (HAS_DK) {
            // unroll
            for (var d = 0u; d < X_VECTORS; d++) {
                let i = r * DIM_X + d * 4u;
                if ((key < block.rows) & (d * 4u < params.dim_qk)) {
                    keep_dk(place, workgroup.y, d * 4u, vec4(dk[i], dk[i + 1u], dk[i + 2u], dk[i + 3u]));
                }
            }
        }
        if (HAS_DV) {
            // unroll
            for (var d = 0u; d < Y_VECTORS; d++) {
                let i = r * DIM_Y + d * 4u;
                if ((key < block.rows) & (d * 4u < params.dim_v)) {
                    keep_dv(place, workgroup.y, d * 4u, vec4(dv[i], dv[i + 1u], dv[i + 2u], dv[i + 3u]));
                }
            }
        }
    }
}
