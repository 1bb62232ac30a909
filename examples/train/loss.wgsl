// Cross-entropy: with p = softmax(logits), a row's loss is −ln p[target], and the gradient of the mean loss is
// (p − (1 at target)) / ROWS. A row's target is the token after its own.

override ROWS: u32;
override LENGTH: u32;        // the tokens of a sequence
override VOCABULARY: u32;

@group(0) @binding(0) var<storage, read_write> row_losses: array<f32>;

@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(2) var<storage, read> logits: array<f32>;
@group(0) @binding(3) var<storage, read_write> d_logits: array<f32>;

struct Step { number: u32, rate: f32 }

@group(0) @binding(1) var<storage, read> step: Step;
@group(0) @binding(2) var<storage, read_write> losses: array<f32>;       // of all steps

// A thread computes a row.
@compute @workgroup_size(64) fn cross_entropy(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= ROWS) { return; }
    let first = row * VOCABULARY;
    var largest = logits[first];
    for (var v = 1u; v < VOCABULARY; v++) { largest = max(largest, logits[first + v]); }
    var sum = 0.0;
    for (var v = 0u; v < VOCABULARY; v++) { sum += exp(logits[first + v] - largest); }
    for (var v = 0u; v < VOCABULARY; v++) {
        d_logits[first + v] = exp(logits[first + v] - largest) / sum / f32(ROWS);
    }
    let target_token = tokens[row / LENGTH * (LENGTH + 1u) + row % LENGTH + 1u];
    d_logits[first + target_token] -= 1.0 / f32(ROWS);
    row_losses[row] = largest + log(sum) - logits[first + target_token];
}

// One thread adds up the rows, in their order.
@compute @workgroup_size(1) fn mean_loss() {
    var sum = 0.0;
    for (var row = 0u; row < ROWS; row++) { sum += row_losses[row]; }
    losses[step.number] = sum / f32(ROWS);
}
