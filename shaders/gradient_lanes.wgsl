// Gradients for software GPUs: lavapipe, SwiftShader, WARP. gradient_lanes_rows.wgsl and gradient_lanes_keys.wgsl share this file.
//
// Each lane owns OWN pairs and holds them in registers: queries with the gradients of their outputs, or keys with their values. The
// other side passes by from textures, which stage_pairs.wgsl fills, STREAM pairs per iteration:
//
//     S ← X Aᵀ,  dP ← Y Bᵀ                                     shuffles broadcast X and Y
//     W, P                                                     the gradients of the products, and the weights; pieces/dropout_*.wgsl
//     dA ← dA + W X,  dB ← dB + P Y                            dB only if the lanes own keys
//
// grid        (⌈L / (LANES · OWN)⌉, H, B), or blocks of ragged rows or keys along x
// workgroup   one subgroup of LANES; lane i owns pairs i, i + LANES, … of the block
// memory      none
// barriers    none
//
// See lanes.wgsl for what is fast on these drivers: straight-line loops whose text fits the first-level instruction cache.

// From the host: LANES, OWN, STREAM; DIM_X and DIM_Y; X_VECTORS and Y_VECTORS, the vectors of four of a pair; X_TEXELS and Y_TEXELS,
// how many of a pair's texels a lane reads; X_PER_ROW and Y_PER_ROW, the pairs per row of the textures.
const GROUPED = false;
const WHOLE = true;
const LAG = 0.0;
const RAISE = 0.0;

const PAIRS = OWN * STREAM;
const A_ARRAY = OWN * X_VECTORS;
const B_ARRAY = OWN * Y_VECTORS;
const DA_ARRAY = OWN * DIM_X;
const DB_ARRAY = OWN * DIM_Y;
const X_ARRAY = STREAM * X_TEXELS;
const Y_ARRAY = STREAM * Y_TEXELS;

const_assert X_TEXELS * LANES == X_VECTORS && Y_TEXELS * LANES == Y_VECTORS;

alias OwnX = array<vec4<f32>, A_ARRAY>;                        // [own][dim / 4]
alias OwnY = array<vec4<f32>, B_ARRAY>;
alias SumX = array<f32, DA_ARRAY>;                             // [own][dim]
alias SumY = array<f32, DB_ARRAY>;
alias Numbers = array<f32, PAIRS>;                             // [own][streamed]

// A lane's share of the pairs of an iteration, and what is known of each pair.
struct Streamed {
    x: array<vec4<f32>, X_ARRAY>,                              // [streamed][texel / LANES]
    y: array<vec4<f32>, Y_ARRAY>,
    note: array<vec4<f32>, STREAM>,
}

// Reads the `t`-th pair of an iteration from its place in the textures.
fn fetch(streamed: ptr<function, Streamed>, t: u32, place: u32, lane: u32) {
    let x_texel = vec2(place % X_PER_ROW * X_VECTORS + lane, place / X_PER_ROW);
    let y_texel = vec2(place % Y_PER_ROW * (Y_VECTORS + 1u), place / Y_PER_ROW);
    // unroll
    for (var c = 0u; c < X_TEXELS; c++) {
        (*streamed).x[t * X_TEXELS + c] = textureLoad(staged_x, x_texel + vec2(c * LANES, 0u));
    }
    // unroll
    for (var c = 0u; c < Y_TEXELS; c++) {
        (*streamed).y[t * Y_TEXELS + c] = textureLoad(staged_y, y_texel + vec2(c * LANES + lane, 0u));
    }
    (*streamed).note[t] = textureLoad(staged_y, y_texel + vec2(Y_VECTORS, 0u));
}

// What goes into dA and dB for four pairs: the gradients of their products, and their weights. `lse` and `mean` are those of each pair's
// row.
fn gradients_of(
    row: Row, keys: vec4<u32>, product: vec4<f32>, dp: vec4<f32>, lse: vec4<f32>, mean: vec4<f32>, is_finite: vec4<bool>, is_real: bool,
) -> array<vec4<f32>, 2> {
    let scores = score(row, keys, product, sees(row, keys));
    let is_seen = scores.seen & vec4(is_real);
    let p = select(vec4(params.nan), weights_by_lse(scores.s, lse), is_finite);
    // What is dropped has no value, so V gets no gradient from it, and it gets none from O.
    let is_kept = keeps(row, keys);
    let w = product_gradients(row, keys, product, score_gradients(p, select(vec4(0.0), compensated(dp), is_kept), mean));
    return array(select(vec4(0.0), w, is_seen), select(vec4(0.0), compensated(p), is_seen & is_kept));
}
