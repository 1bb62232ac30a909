// A product of matrices, C = A B or C += A B. Either factor may be stored as its transpose, so one text computes a layer and
// both of its gradients: Y = X W, dX = dY Wᵀ and dW = Xᵀ dY.
//
// A thread computes a tile of 4 × 8 in registers, two blocks of 4 × 4, as a sum of products of blocks. All sizes are multiples
// of four, and COLUMNS of eight.

override ROWS: u32;          // of A and C
override COLUMNS: u32;       // of B and C
override INNER: u32;         // the columns of A, and the rows of B
override A_IS_TRANSPOSED: bool;
override B_IS_TRANSPOSED: bool;
override ADDS: bool;

@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> c: array<vec4<f32>>;

// WGSL's matrices are lists of columns, and memory has rows. So a block that is loaded as it lies is the transpose of the
// block that is meant, and what is computed is Cᵗ = Bᵗ Aᵗ. A factor that is stored as its transpose is transposed once more.
fn block_of_a(row: u32, inner: u32) -> mat4x4<f32> {
    if (A_IS_TRANSPOSED) {
        let at = inner * ROWS + row;
        let step = ROWS / 4u;
        return transpose(mat4x4(a[at], a[at + step], a[at + 2u * step], a[at + 3u * step]));
    }
    let at = row * INNER + inner;
    let step = INNER / 4u;
    return mat4x4(a[at], a[at + step], a[at + 2u * step], a[at + 3u * step]);
}

fn block_of_b(inner: u32, column: u32) -> mat4x4<f32> {
    if (B_IS_TRANSPOSED) {
        let at = column * INNER + inner;
        let step = INNER / 4u;
        return transpose(mat4x4(b[at], b[at + step], b[at + 2u * step], b[at + 3u * step]));
    }
    let at = inner * COLUMNS + column;
    let step = COLUMNS / 4u;
    return mat4x4(b[at], b[at + step], b[at + 2u * step], b[at + 3u * step]);
}

fn store(row: u32, column: u32, block: mat4x4<f32>) {
    store_row(row * COLUMNS + column, block[0]);
    store_row(row * COLUMNS + column + COLUMNS / 4u, block[1]);
    store_row(row * COLUMNS + column + COLUMNS / 2u, block[2]);
    store_row(row * COLUMNS + column + COLUMNS / 4u * 3u, block[3]);
}

fn store_row(at: u32, sums: vec4<f32>) {
    if (ADDS) { c[at] += sums; } else { c[at] = sums; }
}

@compute @workgroup_size(64) fn matmul(@builtin(global_invocation_id) id: vec3<u32>) {
    // Rows and columns are counted in blocks.
    let row = id.x / (COLUMNS / 8u);
    let column = 2u * (id.x % (COLUMNS / 8u));
    if (row >= ROWS / 4u) { return; }
    var left = mat4x4<f32>();
    var right = mat4x4<f32>();
    for (var inner = 0u; inner < INNER / 4u; inner++) {
        let factor = block_of_a(row, inner);
        left += block_of_b(inner, column) * factor;
        right += block_of_b(inner, column + 1u) * factor;
    }
    store(row, column, left);
    store(row, column + 1u, right);
}
