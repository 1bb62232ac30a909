// Tests a matrix unit: multiplies known matrices by the fragment functions that matrix.wgsl uses.
//
//     subgroup n:  S ← Aₙ Bᵀ;  R ← S + Aₙ B
//
// grid        (1, 1, 1)
// workgroup   SUBGROUPS subgroups
// memory      bytes: k_tile and v_tile 2 · SIDE · (SIDE + 8) each, p_tile 2 · ROWS · (SIDE + 8), s_tile 4 · ROWS · (SIDE + 4)
// barriers    2 per subgroup, and 4
//
// No factor is symmetric, so a layout that is taken for its transpose changes the result. Each subgroup has a different
// left factor, so two of them in one larger subgroup change it too. If subgroups are smaller than SUBGROUP, several do the
// same work, which is correct.

// From the host: SIDE, SUBGROUP, SUBGROUPS.
const THREADS = SUBGROUPS * SUBGROUP;
const ROWS = SUBGROUPS * SIDE;
const BLOCK_KV = SIDE;
const SIDE_QUADS = SIDE / 4u;
const K_STRIDE = SIDE_QUADS + 2u;
const V_STRIDE = SIDE_QUADS + 2u;
const P_STRIDE = SIDE_QUADS + 2u;
const S_STRIDE = SIDE_QUADS + 1u;

@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;              // (SUBGROUPS · SIDE, SIDE)
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;              // (SIDE, SIDE)
@group(0) @binding(2) var<storage, read_write> result: array<vec4<f32>>;   // (SUBGROUPS · SIDE, SIDE)

@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) thread: u32) {
    let subgroup = thread / SUBGROUP;
    begin(thread);
    var left = Left();
    for (var n = 0u; n < SUBGROUPS; n++) {
        for (var i = thread; i < SIDE * SIDE_QUADS; i += THREADS) {
            set_k(i / SIDE_QUADS * K_STRIDE + i % SIDE_QUADS, vec4<f16>(a[n * SIDE * SIDE_QUADS + i]));
        }
        workgroupBarrier();
        if (subgroup == n) { left = q_fragment(0u); }
        workgroupBarrier();
    }
    for (var i = thread; i < SIDE * SIDE_QUADS; i += THREADS) {
        set_k(i / SIDE_QUADS * K_STRIDE + i % SIDE_QUADS, vec4<f16>(b[i]));
        set_v(i / SIDE_QUADS * V_STRIDE + i % SIDE_QUADS, vec4<f16>(b[i]));
    }
    for (var i = thread; i < ROWS * SIDE_QUADS; i += THREADS) {
        set_p(i / SIDE_QUADS * P_STRIDE + i % SIDE_QUADS, vec4<f16>(a[i]));
    }
    workgroupBarrier();
    let rows = subgroup * SIDE;
    store_fragment(multiply_add(left, k_fragment(0u), zero()), rows * S_STRIDE);
    workgroupBarrier();
    let sum = sum_fragment(rows * S_STRIDE);
    workgroupBarrier();
    store_fragment(multiply_add(p_fragment(rows * P_STRIDE), v_fragment(0u), sum), rows * S_STRIDE);
    workgroupBarrier();
    for (var i = thread; i < ROWS * SIDE_QUADS; i += THREADS) {
        result[i] = scores(i / SIDE_QUADS * S_STRIDE + i % SIDE_QUADS);
    }
}
