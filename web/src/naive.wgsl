// Attention as a tutorial writes it, in three kernels: all scores to memory, their softmax in place, then the weighted sums. A
// thread computes one number. Tensors are (head, row, column).

struct Sizes {
    len: u32,
    dim: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> q: array<f32>;
@group(0) @binding(2) var<storage, read> k: array<f32>;
@group(0) @binding(3) var<storage, read> v: array<f32>;
@group(0) @binding(4) var<storage, read_write> scores: array<f32>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(8, 8)
fn multiply_keys(@builtin(global_invocation_id) at: vec3u) {
    let key = at.x;
    let query = at.y;
    let head = at.z;
    if key < sizes.len && query < sizes.len {
        let row_of_q = (head * sizes.len + query) * sizes.dim;
        let row_of_k = (head * sizes.len + key) * sizes.dim;
        var sum = 0.0;
        for (var d = 0u; d < sizes.dim; d++) {
            sum += q[row_of_q + d] * k[row_of_k + d];
        }
        scores[(head * sizes.len + query) * sizes.len + key] = sum * sizes.scale;
    }
}

const THREADS = 64u;
var<workgroup> shared_numbers: array<f32, THREADS>;

// A workgroup has one row.
@compute @workgroup_size(THREADS)
fn softmax(@builtin(workgroup_id) at: vec3u, @builtin(local_invocation_index) thread: u32) {
    let row = (at.y * sizes.len + at.x) * sizes.len;
    var largest = scores[row];
    for (var key = thread; key < sizes.len; key += THREADS) {
        largest = max(largest, scores[row + key]);
    }
    shared_numbers[thread] = largest;
    workgroupBarrier();
    for (var n = 0u; n < THREADS; n++) {
        largest = max(largest, shared_numbers[n]);
    }
    workgroupBarrier();

    var sum = 0.0;
    for (var key = thread; key < sizes.len; key += THREADS) {
        let weight = exp(scores[row + key] - largest);
        scores[row + key] = weight;
        sum += weight;
    }
    shared_numbers[thread] = sum;
    workgroupBarrier();
    var total = 0.0;
    for (var n = 0u; n < THREADS; n++) {
        total += shared_numbers[n];
    }
    for (var key = thread; key < sizes.len; key += THREADS) {
        scores[row + key] /= total;
    }
}

@compute @workgroup_size(8, 8)
fn multiply_values(@builtin(global_invocation_id) at: vec3u) {
    let column = at.x;
    let query = at.y;
    let head = at.z;
    if column < sizes.dim && query < sizes.len {
        let row = (head * sizes.len + query) * sizes.len;
        var sum = 0.0;
        for (var key = 0u; key < sizes.len; key++) {
            sum += scores[row + key] * v[(head * sizes.len + key) * sizes.dim + column];
        }
        out[(head * sizes.len + query) * sizes.dim + column] = sum;
    }
}
