//! Mistakes planted in the shaders' text, each of which the suite must notice.
//!
//! A mutation is an edit of the WGSL that a variant compiles, and the question that should expose it. The same question
//! put to the honest text must pass, so that what is noticed is the mistake.

use wgpu_attention::{Access, Attention, Diagonal, Dtype, Family, Operand, Problem, ProblemBuilder, ScoreLayout, Shape};
use wgpu_attention::{Variant, Window};

use crate::case::{Case, everything, full};
use crate::comparator::Expected;
use crate::device::{Device, all};
use crate::inputs::{Fill, poison_hidden};

/// A planted mistake: every `from` in the text becomes `to`.
struct Mutation {
    from: &'static str,
    to: &'static str,
    exposed_by: fn() -> Case,
}

const fn mutation(from: &'static str, to: &'static str, exposed_by: fn() -> Case) -> Mutation {
    Mutation { from, to, exposed_by }
}

/// Two query blocks and two tiles of keys, two KV heads, four lanes at a time.
fn shape() -> Shape {
    Shape::new(2, 4, 35, 32).kv_heads(2).kv_len(52)
}

fn filled(problem: ProblemBuilder, fill: Fill) -> Case {
    Case::new(problem.lse(), fill, 77)
}

fn plain() -> Case {
    filled(Problem::builder(shape()), Fill::Normal)
}

fn staircase() -> Case {
    filled(Problem::builder(shape()), Fill::Staircase)
}

fn causal() -> Case {
    filled(Problem::builder(shape()).causal(Diagonal::TopLeft), Fill::Normal)
}

fn windowed() -> Case {
    let window = Window { left: Some(4), right: Some(3) };
    filled(Problem::builder(shape()).window(window), Fill::Normal)
}

/// Rows that see nothing before the window begins, and none that see everything.
fn bottom_right() -> Case {
    let lengths = Problem::builder(shape()).causal(Diagonal::BottomRight).kv_lengths();
    filled(lengths, Fill::Normal).lengths(&[40, 31])
}

fn all_features() -> Case {
    let case = Case::new(everything(shape(), Dtype::F32).causal(Diagonal::Offset(10)), Fill::Normal, 78);
    case.edited(Operand::Bias, |_, x| 4.0 * x).lengths(&[37, 52])
}

fn softcapped() -> Case {
    filled(Problem::builder(shape()).softcap(1.0).scale(0.5), Fill::Normal)
}

fn biased() -> Case {
    filled(Problem::builder(shape()).bias(Dtype::F32, full(shape())), Fill::Normal)
}

/// A bias that hides every third key with −∞, and whole rows.
fn hidden_by_bias() -> Case {
    let hide = |[_, _, i, j]: [u32; 4], x| if i % 5 == 0 || j % 3 == 0 { f32::NEG_INFINITY } else { x };
    biased().edited(Operand::Bias, hide)
}

/// The same, with NaN behind it.
fn nan_behind_bias() -> Case {
    let mut case = hidden_by_bias();
    poison_hidden(&mut case, f32::NAN);
    case
}

fn deep_bias() -> Case {
    biased().edited(Operand::Bias, |_, _| -1e30)
}

/// Rows without a key, other rows of whose block do see some.
fn empty_rows() -> Case {
    filled(Problem::builder(shape()).causal(Diagonal::Offset(-4)), Fill::Normal)
}

fn masked() -> Case {
    filled(Problem::builder(shape()).mask(full(shape())), Fill::Normal)
}

/// NaN in rows that no query of the group sees, other rows of whose tile are seen.
fn nan_behind_band() -> Case {
    let mut case = filled(Problem::builder(shape()).causal(Diagonal::Offset(-20)), Fill::Normal);
    poison_hidden(&mut case, f32::NAN);
    case
}

/// NaN past the valid keys.
fn nan_past_lengths() -> Case {
    let mut case = filled(Problem::builder(shape()).kv_lengths(), Fill::Normal).lengths(&[37, 5]);
    poison_hidden(&mut case, f32::NAN);
    case
}

fn lengths_past_the_end() -> Case {
    // Were the capacity not minded, the second head's keys would be read for the first head's.
    filled(Problem::builder(shape()).kv_lengths(), Fill::Normal).lengths(&[60, 70])
}

/// Odd rows, so that no four elements of one lie at a multiple of four.
fn odd(dtype: Dtype) -> Case {
    let shape = Shape::new(1, 2, 35, 7).kv_len(39);
    Case::new(Problem::builder(shape).dtype(dtype).lse(), Fill::Normal, 79)
}

fn odd_f32() -> Case {
    odd(Dtype::F32)
}
fn odd_f16() -> Case {
    odd(Dtype::F16)
}
fn odd_bf16() -> Case {
    odd(Dtype::Bf16)
}

fn masked_by_bytes() -> Case {
    let mask = ScoreLayout::broadcast([2, 1, 1, 52]);
    filled(Problem::builder(shape()).mask(mask), Fill::Normal)
}

fn large_q() -> Case {
    // Too wide a head for all of Q to stay.
    let shape = Shape::new(1, 1, 35, 160).kv_len(40);
    filled(Problem::builder(shape), Fill::Normal)
}

const ATTENTION: &[Mutation] = &[
    // The order: scale, softcap, bias, mask.
    mutation("product * params.score_scale", "product", softcapped),
    mutation("product * params.score_scale", "product * params.score_scale * 2.0", softcapped),
    mutation("* params.exp2_scale", "* params.exp2_scale * 2.0", plain),
    mutation("* params.exp2_scale", "* params.exp2_scale * 0.5", plain),
    mutation("const SOFTCAP = true", "const SOFTCAP = false", softcapped),
    mutation("params.softcap_scale *", "1.1 *", all_features),
    mutation("+= bias;", "+= 0.0 * bias;", biased),
    mutation("+= bias;", "= shape_scores(s[0] + bias);", all_features),
    mutation("load_bias(at,", "load_bias(at + 1u,", biased),
    // The maximum, the sum, and bringing one to another.
    mutation("(*softmax).l, rescale,", "(*softmax).l, vec4(1.0),", staircase),
    mutation("*= rescale[0];", "*= 1.0;", staircase),
    mutation("*= rescale[3];", "*= rescale[2];", staircase),
    mutation("let m = max(before, ", "let m = (", || {
        filled(Problem::builder(shape()).mask(full(shape())), Fill::Large(1e4))
    }),
    mutation("i < 8u; i++) { largest", "i < 7u; i++) { largest", || {
        filled(Problem::builder(shape()), Fill::Large(1e5))
    }),
    mutation("i < 8u; i++) { sum", "i < 7u; i++) { sum", plain),
    mutation("/ l[r]", "/ l[0]", plain),
    // Which keys are seen.
    mutation("i >= vec4(first_key", "i > vec4(first_key", windowed),
    mutation("i >= vec4(first_key(block, row))", "i >= vec4(first_key(block, row) - 1)", windowed),
    mutation("i <= vec4(last_key", "i < vec4(last_key", causal),
    mutation("i <= vec4(last_key(block, row))", "i <= vec4(last_key(block, row) + 1)", causal),
    mutation("params.band_last; }", "params.band_last + 1; }", causal),
    mutation("params.band_last; }", "params.band_last - 1; }", windowed),
    mutation("params.band_first; }", "params.band_first + 1; }", windowed),
    mutation("params.band_first; }", "params.band_first - 1; }", windowed),
    mutation("valid * params.band_from_end", "params.len_kv * params.band_from_end", bottom_right),
    mutation("params.band_from_end)", "0u)", bottom_right),
    mutation("keys < vec4(block.valid)", "keys <= vec4(block.valid)", bottom_right),
    mutation("!= vec4(0u);", "== vec4(0u);", masked),
    mutation("<< vec4(3u)) & vec4(0xffu)", "<< vec4(3u)) & vec4(0x1u)", masked_by_bytes),
    mutation("keys * params.mask_key", "keys", || {
        filled(Problem::builder(shape()).mask(ScoreLayout::strided([0, 0, 1, 35])), Fill::Normal)
    }),
    mutation("== 0u;", "!= 0u;", masked),
    mutation("kv + BLOCK_KV <= block.valid", "true", bottom_right),
    mutation("<= i32(kv)", "<= i32(kv) + 40", windowed),
    mutation("last_key(block, block.first_row) >=", "last_key(block, block.first_row) + 3 >=", || {
        filled(Problem::builder(shape()).causal(Diagonal::Offset(29)), Fill::Normal)
    }),
    mutation("return vec2(begin, min(end, block.valid));", "return vec2(begin, min(end, block.valid) - 20u);", plain),
    mutation("/ BLOCK_KV * BLOCK_KV;", "/ BLOCK_KV * BLOCK_KV + BLOCK_KV;", plain),
    mutation("min(kv_lengths[params.first_batch + batch], params.len_kv)", "kv_lengths[batch]", lengths_past_the_end),
    // Rows that see nothing, numbers below any sentinel, and what hidden rows hold.
    mutation("let saw_any = l[r] > 0.0;", "let saw_any = true;", empty_rows),
    mutation("select(params.negative_infinity, lse, saw_any)", "lse", hidden_by_bias),
    mutation("LOWEST = -3.4028234e38f", "LOWEST = -1e4f", deep_bias),
    mutation("!= vec4(0xff800000u)", "!= vec4(0u)", hidden_by_bias),
    mutation(", p.x > 0.0)", ", true)", nan_behind_band),
    mutation(", p.w > 0.0)", ", true)", nan_behind_band),
    mutation(", p.y > 0.0)", ", true)", nan_behind_bias),
    mutation("let all_seen = ", "let all_seen = true || ", nan_behind_band),
    mutation("let all_seen = !HAS_MASK && !HAS_BIAS", "let all_seen = true", nan_behind_bias),
    mutation("exp2(((*s)[", "(((*s)[", plain),
    mutation(", (*seen)[", ", !(*seen)[", causal),
    mutation(" + i < block.valid && dim", " + i < params.len_kv && dim", sum_past_lengths),
    mutation("key < block.valid && dim", "key < params.len_kv && dim", nan_past_lengths),
    // What is measured in which unit.
    mutation("* params.natural_scale + log", "* params.exp2_scale + log", plain),
    mutation("* params.natural_scale + log", "* params.natural_scale + log2", plain),
    mutation("softmax.m[", "0.0 * softmax.m[", plain),
    // Which numbers are read and written.
    mutation("(params.first_head + workgroup.y) / params.group", "0u", plain),
    mutation("(params.first_head + workgroup.y) / params.group", "workgroup.y % 2u", plain),
    mutation("batch * view.y", "0u", plain),
    mutation("head * view.z", "0u", plain),
    mutation("workgroup.x * BLOCK_Q", "0u", plain),
    mutation("return view.x +", "return ", || offset(Dtype::F32)),
    mutation("x = transpose(x);", "", plain),
    mutation("p_tile[column * BLOCK_Q + row + ", "p_tile[row / 4u * BLOCK_Q + column * 4u + ", plain),
    mutation("keys_done + i) / 4u", "i) / 4u", || {
        let shape = Shape::new(1, 1, 5, 128).kv_len(40);
        filled(Problem::builder(shape), Fill::Normal)
    }),
    mutation("kv + keys_done)", "kv)", || {
        let shape = Shape::new(1, 1, 5, 128).kv_len(40);
        filled(Problem::builder(shape), Fill::Normal)
    }),
    mutation("stage_q(block, thread, slice, 0u)", "stage_q(block, thread, 0u, 0u)", large_q),
    mutation("dim < params.dim_v)", "dim + 4u < params.dim_v)", plain),
    mutation("query < params.len_q &&", "query + 1u < params.len_q &&", plain),
    // Elements that are not four and four, and not 32 bits wide.
    mutation("select(vec4(0.0), x, LANE < vec4(count))", "x", odd_f32),
    mutation("if (count > 3u) { out[at + 3u] = x.w; }", "out[at + 3u] = x.w;", || offset(Dtype::F32)),
    mutation("if (count > 3u) { store_half(at + 3u, x.w); }", "store_half(at + 3u, x.w);", || offset(Dtype::F16)),
    mutation("atomicAnd(&out[at >> 1u], 0xffff0000u >> shift)", "atomicAnd(&out[at >> 1u], 0u)", odd_f16),
    mutation("atomicAnd(&out[at >> 1u], 0xffff0000u >> shift);", "", odd_bf16),
    mutation("let shift = (at & 1u) << 4u;", "let shift = 0u;", odd_f16),
    mutation("((i & vec4(1u)) << vec4(4u))", "vec4(0u)", odd_bf16),
    mutation("word & 0xffff0000u", "word", rounded_bf16),
    mutation("+ (bits >> 16u & 1u)", "", rounded_bf16),
    mutation("(bits + 0x7fffu + (bits >> 16u & 1u)) >> 16u", "bits >> 16u", rounded_bf16),
    mutation("+ 0xfffu + (magnitude >> 13u & 1u)", "", rounded_f16),
    mutation("+ (magnitude >> 13u & 1u)", "", rounded_f16),
    mutation("(bitcast<u32>(bitcast<f32>(magnitude) + 0.5) - 0x3f000000u)", "0u", rounded_f16),
    mutation("vec4(widen(q[at >> 2u].x), widen(q[at >> 2u].y))", "vec4(widen(q[at >> 2u].y), widen(q[at >> 2u].x))", || {
        filled(Problem::builder(shape()).dtype(Dtype::F16), Fill::Normal)
    }),
];
