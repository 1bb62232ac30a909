// Root mean square normalization without weights: y = s x with s = 1 / √(mean(x²) + ε). Its gradient:
// dx = s (dy − y mean(dy ∘ y)), or dx += the same. It needs y and s only, so x may change meanwhile.
//
// A thread computes a row.

override ROWS: u32;
override VECTORS: u32;       // a row, in vectors of four
override ADDS: bool;         // of the gradient: dx += …

const EPSILON = 1e-6;

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> s: array<f32>;

@group(0) @binding(0) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> dx: array<vec4<f32>>;

@compute @workgroup_size(64) fn norm(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= ROWS) { return; }
    var squares = 0.0;
    for (var at = row * VECTORS; at < (row + 1u) * VECTORS; at++) { squares += dot(x[at], x[at]); }
    s[row] = inverseSqrt(squares / f32(4u * VECTORS) + EPSILON);
    for (var at = row * VECTORS; at < (row + 1u) * VECTORS; at++) { y[at] = s[row] * x[at]; }
}

@compute @workgroup_size(64) fn norm_gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= ROWS) { return; }
    var products = 0.0;
    for (var at = row * VECTORS; at < (row + 1u) * VECTORS; at++) { products += dot(dy[at], y[at]); }
    let mean = products / f32(4u * VECTORS);
    for (var at = row * VECTORS; at < (row + 1u) * VECTORS; at++) {
        let gradient = s[row] * (dy[at] - y[at] * mean);
        if (ADDS) { dx[at] += gradient; } else { dx[at] = gradient; }
    }
}
