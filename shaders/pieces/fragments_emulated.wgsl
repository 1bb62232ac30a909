// Emulates fragments_unit.wgsl by threads, to test matrix.wgsl without a matrix unit. Slow. A thread holds SUM_WIDTH
// neighbouring elements of a row of a sum, that row of the left factor, and those columns of the right one.
const SUM_WIDTH = max(SIDE * SIDE / SUBGROUP, 4u);
const THREADS_OF_ROW = SIDE / SUM_WIDTH;
alias Left = array<f32, SIDE>;                                 // [k]
alias Right = array<f32, SIDE * SUM_WIDTH>;                    // [k][column]
alias Sum = array<vec4<f32>, SUM_WIDTH / 4u>;                  // [column / 4]

var<private> own_row: u32;
var<private> own_column: u32;

fn begin(thread: u32) {
    own_row = thread % SUBGROUP / THREADS_OF_ROW % SIDE;      // with more threads than elements to hold, some hold the same
    own_column = thread % THREADS_OF_ROW * SUM_WIDTH;
}

fn zero() -> Sum { return Sum(); }
fn multiply_add(a: Left, b: Right, c: Sum) -> Sum {
    var left = a;
    var right = b;
    var sum = c;
    for (var k = 0u; k < SIDE; k++) {
        for (var i = 0u; i < SUM_WIDTH; i++) { sum[i / 4u][i % 4u] += left[k] * right[k * SUM_WIDTH + i]; }
    }
    return sum;
}

fn q_fragment(at: u32) -> Left {
    var left = Left();
    for (var k = 0u; k < SIDE; k++) { left[k] = k_element((at + own_row * K_STRIDE) * 4u + k); }
    return left;
}
fn k_fragment(at: u32) -> Right {
    var right = Right();
    for (var k = 0u; k < SIDE; k++) {
        for (var i = 0u; i < SUM_WIDTH; i++) {
            right[k * SUM_WIDTH + i] = k_element((at + (own_column + i) * K_STRIDE) * 4u + k);
        }
    }
    return right;
}
fn p_fragment(at: u32) -> Left {
    var left = Left();
    for (var k = 0u; k < SIDE; k++) { left[k] = p_element((at + own_row * P_STRIDE) * 4u + k); }
    return left;
}
fn v_fragment(at: u32) -> Right {
    var right = Right();
    for (var k = 0u; k < SIDE; k++) {
        for (var i = 0u; i < SUM_WIDTH; i++) {
            right[k * SUM_WIDTH + i] = v_element((at + k * V_STRIDE) * 4u + own_column + i);
        }
    }
    return right;
}
fn sum_fragment(at: u32) -> Sum {
    var sum = Sum();
    for (var i = 0u; i < SUM_WIDTH / 4u; i++) { sum[i] = scores(at + own_row * S_STRIDE + own_column / 4u + i); }
    return sum;
}
fn store_fragment(x: Sum, at: u32) {
    var sum = x;
    for (var i = 0u; i < SUM_WIDTH / 4u; i++) { set_scores(at + own_row * S_STRIDE + own_column / 4u + i, sum[i]); }
}
