// What the gradients need of each row: its LSE, and how much the gradients of its weights weigh on average.
//
//     sums ← (LSE, rowsum(dO ∘ O) − dLSE, ALiBi slope, valid keys)
//
// grid        (⌈Lq / 64⌉, Hq, B)
// workgroup   64 threads, one row per thread
// memory      none
// barriers    none
//
// With dP = dO Vᵀ, rowsum(dO ∘ O) is the mean of dP by the weights. The gradient of a score is P · (dP − that mean + dLSE).
//
// The slope of the head and the number of valid keys (pieces/counts.wgsl) are here so that the other kernels need no buffers for
// them: with dO and the gradient they bind one more than attention does.

const THREADS = 64u;
const GROUPED = false;
const BLOCK_ROWS = THREADS;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let sequence = sequence_of(workgroup);
    let n = sequence.block * BLOCK_ROWS + thread;
    if (n >= sequence.rows) { return; }
    // No pair is asked for, so it sees keys 0 to −1.
    let row = Row(sequence.batch, workgroup.y, n, sequence.at + n, n < sequence.queries, 0u, 0, -1, 0);
    let out_at = address(params.out, row.batch, row.head, row.at);
    let dout_at = dout_address(row);
    var products = vec4(0.0);
    for (var d = 0u; d < params.dim_v; d += 4u) {
        // A row that sees nothing has an output of 0, and its dO may be anything.
        let x = load_out(out_at, d, params.dim_v - d);
        products += select(vec4(0.0), x * load_dout(dout_at, d, params.dim_v - d), x != vec4(0.0));
    }
    let sum = (products.x + products.y) + (products.z + products.w);
    let log_sum = lse[address(params.lse, row.batch, row.head, row.at)];
    sums[address(params.sums, row.batch, row.head, row.at)] =
        vec4(log_sum, sum - lse_gradient(row), alibi_slope(row), stored_count(valid_keys(row.batch)));
}
