// Half of what gradient_lanes.wgsl does with a pair: with X, the keys or queries. Its copy does the same with Y.

// X Aᵀ. Each element of X is broadcast to all lanes and used for all that they own.
fn products_x(streamed: ptr<function, Streamed>, own: ptr<function, OwnX>) -> Numbers {
    var s = Numbers();
    // unroll
    for (var d = 0u; d < DIM_X; d++) {
        var element = array<f32, STREAM>();
        // unroll
        for (var t = 0u; t < STREAM; t++) {
            element[t] = subgroupShuffle((*streamed).x[t * X_TEXELS + d / 4u / LANES][d % 4u], d / 4u % LANES);
        }
        // unroll
        for (var r = 0u; r < OWN; r++) {
            // unroll
            for (var t = 0u; t < STREAM; t++) {
                s[r * STREAM + t] = fma(element[t], (*own)[r * X_VECTORS + d / 4u][d % 4u], s[r * STREAM + t]);
            }
        }
    }
    return s;
}

// dA ← dA + W X.
fn add_x(streamed: ptr<function, Streamed>, w: ptr<function, Numbers>, sums: ptr<function, SumX>) {
    // unroll
    for (var d = 0u; d < DIM_X; d++) {
        var element = array<f32, STREAM>();
        // unroll
        for (var t = 0u; t < STREAM; t++) {
            element[t] = subgroupShuffle((*streamed).x[t * X_TEXELS + d / 4u / LANES][d % 4u], d / 4u % LANES);
        }
        // unroll
        for (var r = 0u; r < OWN; r++) {
            var sum = (*sums)[r * DIM_X + d];
            // unroll
            for (var t = 0u; t < STREAM; t++) { sum = fma(element[t], (*w)[r * STREAM + t], sum); }
            (*sums)[r * DIM_X + d] = sum;
        }
    }
}
