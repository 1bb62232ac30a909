// The gradient of the queries, for software GPUs: gradient_lanes.wgsl, whose lanes own query rows.
//
//     dQ = scale · dS′ K

const BLOCK_ROWS = LANES * OWN;
const IN_FOURS = true;

const_assert STREAM == 1u || STREAM == 2u || STREAM == 4u;  // so that a tile of 32 keys is a whole number of iterations

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    var site = site_of(workgroup);
    // No return: these drivers would run all that follows under a mask.
    if (is_idle(site)) { site.rows = 0u; }
    let first = site.first;

    var row = array<Row, OWN>();
    var lse = array<f32, OWN>();
    var mean = array<f32, OWN>();
    var q = OwnX();
    var dout = OwnY();
    // unroll
    for (var r = 0u; r < OWN; r++) {
        let n = first + r * LANES + lane;
        row[r] = row_of(site, min(n, max(site.rows, 1u) - 1u));
        let row_sums = sums[address(params.sums, row[r].batch, row[r].head, row[r].at)];
        lse[r] = row_sums.x;
        mean[r] = row_sums.y;
        let q_at = q_address(row[r]);
        let dout_at = dout_address(row[r]);
        // unroll
        for (var d = 0u; d < X_VECTORS; d++) {
            if ((n < site.rows) & (d * 4u < params.dim_qk)) {
                q[r * X_VECTORS + d] = load_q(q_at, d * 4u, params.dim_qk - d * 4u);
            }
        }
        // unroll
        for (var d = 0u; d < Y_VECTORS; d++) {
            if ((n < site.rows) & (d * 4u < params.dim_v)) {
                dout[r * Y_VECTORS + d] = load_dout(dout_at, d * 4u, params.dim_v - d * 4u);
            }
        }
    }

    var dq = SumX();
    let head = row_of(site, first);
    let tail = row_of(site, min(first + BLOCK_ROWS, max(site.rows, 1u)) - 1u);
    var range = keys_of(site, head, tail, STREAM);
    if (site.rows == 0u) { range.y = 0u; }
    for (var kv = next_seen(head, tail, range.x, range.y); kv < range.y; kv = next_seen(head, tail, kv + STREAM, range.y)) {
        var streamed = Streamed();
        // unroll
        for (var t = 0u; t < STREAM; t++) {
            let place = staged_place(site.batch, site.keys_at, readable(site, kv + t));
            fetch(&streamed, t, address(params.staged, place.batch, site.kv_head, place.row), lane);
        }
        var s = products_x(&streamed, &q);
        let dp = products_y(&streamed, &dout);
        let keys = kv + vec4(0u, 1u, 2u, 3u) % STREAM;             // with fewer than four they repeat, and the copies are not used
        let is_finite = vec4(streamed.note[0].x, streamed.note[1u % STREAM].x, streamed.note[2u % STREAM].x,
                             streamed.note[3u % STREAM].x) == vec4(0.0);
        // unroll
        for (var r = 0u; r < OWN; r++) {
            let i = r * STREAM;
            let w = gradients_of(row[r], keys, vec4(s[i], s[i + 1u % STREAM], s[i + 2u % STREAM], s[i + 3u % STREAM]),
                                 vec4(dp[i], dp[i + 1u % STREAM], dp[i + 2u % STREAM], dp[i + 3u % STREAM]),
                                 vec4(lse[r]), vec4(mean[r]), is_finite, true)[0];
            // unroll
            for (var t = 0u; t < STREAM; t++) { s[i + t] = w[t]; }
        }
        add_x(&streamed, &s, &dq);
    }
    // unroll
    for (var r = 0u; r < OWN; r++) {
        let at = address(params.dq, row[r].batch, row[r].head, row[r].at);
        // unroll
        for (var d = 0u; d < X_VECTORS; d++) {
            let i = r * DIM_X + d * 4u;
            if ((first + r * LANES + lane < site.rows) & (d * 4u < params.dim_qk)) {
                store_dq(at + d * 4u, params.dim_qk - d * 4u, vec4(dq[i], dq[i + 1u], dq[i + 2u], dq[i + 3u]) * params.gradient_scale);
            }
        }
    }
}
