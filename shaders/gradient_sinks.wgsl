// The gradient of the sinks.
//
//     dsink ← −Σ exp(sink − LSE) · (rowsum(dO ∘ O) − dLSE)     over the rows of all sequences
//
// grid        (1, Hq, 1)
// workgroup   64 threads, each of which adds up every 64th row of each sequence
// memory      256 bytes
// barriers    1
//
// A sink has no value, so the gradient of its weight is 0.

const THREADS = 64u;
const GROUPED = false;
const BLOCK_ROWS = THREADS;

var<workgroup> shares: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let head = workgroup.y;
    let sink = sinks[address(params.sinks, 0u, head, 0u)];
    var share = 0.0;
    for (var batch = 0u; batch < params.sequences; batch++) {
        let sequence = sequence(batch, 0u);
        for (var i = thread; i < min(sequence.queries, sequence.rows); i += THREADS) {
            let row = sums[address(params.sums, batch, head, sequence.at + i)];
            // A sink of −∞ has no weight, even in a row that sees nothing.
            share -= select(exp(sink - row.x) * row.y, 0.0, sink == params.negative_infinity);
        }
    }
    shares[thread] = share;
    workgroupBarrier();
    if (thread == 0u) {
        var total = 0.0;
        for (var i = 0u; i < THREADS; i++) { total += shares[i]; }
        dsinks[address(params.dsinks, 0u, head, 0u)] = total;
    }
}
