// A sum over the tiles that a workgroup visits, which stays in registers: gradient_queries.wgsl and gradient_keys.wgsl.
//
//     A ← A + Wᵀ X
//
// W are the weights of a tile, or the gradients of its scores: (INNER, outer). X are INNER rows of K, Q or dO. Threads are numbered
// anew: thread y · SUM_ACROSS + x holds OUTER_COUNT rows of A from y · OUTER_COUNT on, and of these the vectors of four columns x,
// x + SUM_ACROSS, …
//
// barriers    2 per STAGED rows of X

// From the host: SUM_DOWN, the threads with the same columns; SUM_ACROSS, those with the same rows of A; INNER; OUTER_VECTORS, the
// vectors of four rows of A that a thread holds, and OUTER_COUNT, these rows; COLUMN_VECTORS per row; SUMS, the vectors of all of
// them; STAGED, the rows of X that are staged together; X_GROUP, those per group of `tile`; X_STEP, those of one loop iteration;
// X_LOADS, those of which a thread copies its columns; P_AT and V_AT, where W and X begin in `tile`.
const W_GROUP = GROUP / OUTER_VECTORS;                         // inner rows of W per group

const_assert SUMS == OUTER_COUNT * COLUMN_VECTORS && OUTER_COUNT == OUTER_VECTORS * 4u && X_GROUP * COLUMN_VECTORS <= GROUP;
const_assert INNER % STAGED == 0u && STAGED % X_STEP == 0u && X_STEP % W_GROUP == 0u && X_STEP % X_GROUP == 0u;
const_assert X_LOADS * SUM_DOWN == STAGED;

// A thread's share of A: [row][column vector], four columns.
alias Sums = array<vec4<f32>, SUMS>;
// An inner row of W, for the rows of A of one thread.
alias Weights = array<vec4<f32>, OUTER_VECTORS>;

// Stores four numbers of W: of one inner row, for four rows of A of the threads `y`.
fn store_weight(inner: u32, y: u32, vector: u32, w: vec4<f32>) {
    tile[P_AT + inner / W_GROUP * SUM_DOWN + y][inner % W_GROUP * OUTER_VECTORS + vector] = w;
}

// The column of a thread's column vector `c`, counted within the dispatch.
fn column_within(thread: u32, c: u32) -> u32 { return (c * SUM_ACROSS + thread % SUM_ACROSS) * 4u; }

// Copies X from its row `done` on to the tile: [inner][column vector]. Rows past the end may be anything: their weights are 0.
fn stage_x(block: Block, thread: u32, kv: u32, done: u32) {
    // unroll
    for (var step = 0u; step < X_LOADS; step++) {
        let i = step * SUM_DOWN + thread / SUM_ACROSS;
        let at = x_address(block, kv, done + i);
        let group = V_AT + i / X_GROUP * SUM_ACROSS + thread % SUM_ACROSS;
        // unroll
        for (var c = 0u; c < COLUMN_VECTORS; c++) {
            let d = within_row(params.first_column + column_within(thread, c), x_dim());
            tile[group][i % X_GROUP * COLUMN_VECTORS + c] = load_x(at, d, x_dim() - d);
        }
    }
}

// A ← A + Wᵀ X for the rows of X of one loop iteration, from row `first` of the tile, which is `staged` within the staged ones.
// With `full`, no weight is 0 because its pair is hidden.
fn accumulate(thread: u32, first: u32, staged: u32, full: bool, a: ptr<function, Sums>) {
    let w_group = P_AT + first / W_GROUP * SUM_DOWN + thread / SUM_ACROSS;
    let x_group = V_AT + staged / X_GROUP * SUM_ACROSS + thread % SUM_ACROSS;
    // unroll
    for (var j = 0u; j < X_STEP; j++) {
        var w = Weights();
        // unroll
        for (var b = 0u; b < OUTER_VECTORS; b++) {
            w[b] = tile[w_group + j / W_GROUP * SUM_DOWN][j % W_GROUP * OUTER_VECTORS + b];
        }
        // unroll
        for (var c = 0u; c < COLUMN_VECTORS; c++) {
            let x = tile[x_group + j / X_GROUP * SUM_ACROSS][j % X_GROUP * COLUMN_VECTORS + c];
            // unroll
            for (var r = 0u; r < OUTER_COUNT; r++) {
                let i = r * COLUMN_VECTORS + c;
                let weight = w[r / 4u][r % 4u];
                if (full) {
                    (*a)[i] = fma(x, vec4(weight), (*a)[i]);
                } else {
                    // What a hidden pair reads may be NaN.
                    (*a)[i] = fma(select(vec4(0.0), x, weight != 0.0), vec4(weight), (*a)[i]);
                }
            }
        }
    }
}

// A ← A + Wᵀ X for the tile at key `kv`, whose weights are stored.
fn add_tile(block: Block, thread: u32, kv: u32, a: ptr<function, Sums>) {
    let full = !HAS_HIDING_SCORES && is_full(block, kv);
    for (var done = 0u; done < INNER; done += STAGED) {
        workgroupBarrier();  // X's last readers are done
        stage_x(block, thread, kv, done);
        workgroupBarrier();
        for (var step = 0u; step < STAGED; step += X_STEP) {
            if (full) {
                accumulate(thread, done + step, step, true, a);
            } else {
                accumulate(thread, done + step, step, false, a);
            }
        }
    }
}

// Stores row `r` of a thread's share of A, which begins at an address.
fn store_sums(thread: u32, r: u32, at: u32, a: ptr<function, Sums>) {
    // unroll
    for (var c = 0u; c < COLUMN_VECTORS; c++) {
        let dim = column_within(thread, c);
        if (dim < params.columns) {
            store_sum(at + params.first_column + dim, params.columns - dim, (*a)[r * COLUMN_VECTORS + c]);
        }
    }
}
