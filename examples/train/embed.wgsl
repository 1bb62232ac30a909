// The embedding: row n of x is the row of E that belongs to token n. Its gradient: row v of dE is the sum of the rows of dx
// whose token is v.
//
// A thread computes four columns of a row. The sums of the gradient have one order, and no atomic additions.

override ROWS: u32;          // the tokens of all sequences
override LENGTH: u32;        // the tokens of a sequence
override VECTORS: u32;       // a row, in vectors of four

// Each sequence has one token more than the model reads: the last one is only predicted.
@group(0) @binding(0) var<storage, read> tokens: array<u32>;
@group(0) @binding(1) var<storage, read> embedding: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> x: array<vec4<f32>>;

@group(0) @binding(1) var<storage, read> dx: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> d_embedding: array<vec4<f32>>;

fn token_of(row: u32) -> u32 { return tokens[row / LENGTH * (LENGTH + 1u) + row % LENGTH]; }

@compute @workgroup_size(64) fn embed(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x / VECTORS;
    if (row >= ROWS) { return; }
    x[id.x] = embedding[token_of(row) * VECTORS + id.x % VECTORS];
}

@compute @workgroup_size(64) fn embed_gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let token = id.x / VECTORS;
    if (id.x >= arrayLength(&d_embedding)) { return; }
    var sum = vec4<f32>();
    for (var row = 0u; row < ROWS; row++) {
        if (token_of(row) == token) { sum += dx[row * VECTORS + id.x % VECTORS]; }
    }
    d_embedding[id.x] = sum;
}
