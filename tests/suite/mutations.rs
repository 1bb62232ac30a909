//! Mistakes planted in the shaders' text, each of which the suite must notice.
//!
//! A mutation is an edit of the WGSL that a variant compiles, and the question that should expose it. The same question
//! put to the honest text must pass, so that what is noticed is the mistake.

use wgpu_attention::{
    Attention, Diagonal, Dtype, Family, Layout, Operand, Problem, ProblemBuilder, ScoreLayout, Shape, Variant, Window,
};

use crate::case::{Case, everything, full};
use crate::comparator::Expected;
use crate::device::{Device, all};
use crate::inputs::{Fill, poison_hidden};
use crate::laws;

/// A planted mistake: in the text, every first of a pair becomes the second.
struct Mutation {
    edits: &'static [(&'static str, &'static str)],
    exposed_by: Question,
}

/// What is asked of the edited shader.
enum Question {
    /// The right result for this case.
    Case(fn() -> Case),
    /// The same, cut into as many dispatches as there are blocks of rows.
    Cut(fn() -> Case),
    /// That 16-bit outputs are the nearest.
    Rounding(Dtype),
}

const fn mutation(edits: &'static [(&'static str, &'static str)], exposed_by: fn() -> Case) -> Mutation {
    Mutation { edits, exposed_by: Question::Case(exposed_by) }
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

/// Nothing before the window begins, and none that see everything.
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

/// Keys past the valid ones that would outshine them.
fn huge_past_lengths() -> Case {
    let mut case = some_lengths();
    poison_hidden(&mut case, 1e30);
    case
}

fn lengths_past_the_end() -> Case {
    // Were the capacity not minded, the second head's keys would be read for the first head's.
    filled(Problem::builder(shape()).kv_lengths(), Fill::Normal).lengths(&[60, 70])
}

fn some_lengths() -> Case {
    filled(Problem::builder(shape()).kv_lengths(), Fill::Normal).lengths(&[37, 5])
}

fn left_window() -> Case {
    let window = Window { left: Some(4), right: None };
    filled(Problem::builder(shape()).window(window), Fill::Normal)
}

/// Row 0 sees all but the last key or two of the first tile.
fn nearly_full() -> Case {
    filled(Problem::builder(shape()).causal(Diagonal::Offset(29)), Fill::Normal)
}

fn large(spread: f32) -> Case {
    filled(Problem::builder(shape()).mask(full(shape())), Fill::Large(spread))
}

/// Rows in gaps that must stay as they are.
fn gappy(dtype: Dtype) -> Case {
    let shape = Shape::new(1, 2, 35, 7);
    let layout = Layout { offset: 3, batch: 0, head: 9 * 40, row: 9 };
    filled(Problem::builder(shape).dtype(dtype).q(layout).k(layout).v(layout).out(layout), Fill::Normal)
}

/// So wide that V comes eight keys at a time.
fn wide() -> Case {
    filled(Problem::builder(Shape::new(1, 1, 5, 128).kv_len(40)), Fill::Normal)
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

fn mask_keys_outermost() -> Case {
    filled(Problem::builder(shape()).mask(ScoreLayout::strided([0, 0, 1, 35])), Fill::Normal)
}

fn even_f16() -> Case {
    filled(Problem::builder(shape()).dtype(Dtype::F16), Fill::Normal)
}

fn all_weights() -> Case {
    let shape = Shape::new(2, 4, 35, 32).kv_heads(2).kv_len(72);
    let case = Case::new(everything(shape, Dtype::F32).causal(Diagonal::Offset(10)).weights(), Fill::Normal, 78);
    case.edited(Operand::Bias, |_, x| 4.0 * x).lengths(&[37, 52])
}

/// Visible scores as low as what stands for hidden ones.
fn deep_weights() -> Case {
    all_weights().edited(Operand::Bias, |_, _| f32::MIN)
}

fn weights_of_stairs() -> Case {
    filled(Problem::builder(shape()).weights(), Fill::Staircase)
}

fn weights_of_the_first() -> Case {
    filled(Problem::builder(shape()).weights().causal(Diagonal::Offset(-10)), Fill::Normal)
}

fn weights_of_the_last() -> Case {
    let window = Window { left: Some(3), right: None };
    filled(Problem::builder(shape()).weights().diagonal(Diagonal::Offset(40)).window(window), Fill::Normal)
}

fn large_q() -> Case {
    // Too wide a head for all of Q to stay.
    let shape = Shape::new(1, 1, 35, 160).kv_len(40);
    filled(Problem::builder(shape), Fill::Normal)
}

const ATTENTION: &[Mutation] = &[
    // The order: scale, softcap, bias, mask.
    mutation(&[("product * params.score_scale", "product")], softcapped),
    mutation(&[("product * params.score_scale", "product * params.score_scale * 2.0")], softcapped),
    mutation(&[("* params.exp2_scale", "* params.exp2_scale * 2.0")], plain),
    mutation(&[("* params.exp2_scale", "* params.exp2_scale * 0.5")], plain),
    mutation(&[("const SOFTCAP = true", "const SOFTCAP = false")], softcapped),
    mutation(&[("params.softcap_scale *", "1.1 *")], all_features),
    mutation(&[("sign(x) *", "")], softcapped),
    mutation(&[("+= bias;", "+= 0.0 * bias;")], biased),
    mutation(&[("+= bias;", "+= params.softcap_scale * tanh(bias / params.softcap_scale);")], all_features),
    mutation(&[("load_bias(at,", "load_bias(at + 1u,")], biased),
    // The maximum, the sum, and bringing one to another.
    mutation(&[("(*softmax).l, rescale,", "(*softmax).l, vec4(1.0),")], staircase),
    mutation(&[("*= rescale[0];", "*= 1.0;")], staircase),
    mutation(&[("*= rescale[3];", "*= rescale[2];")], staircase),
    mutation(&[("let m = max(before, ", "let m = (")], || large(1e4)),
    mutation(&[("i < 8u; i++) { largest", "i < 7u; i++) { largest")], || large(1e5)),
    mutation(&[("i < 8u; i++) { sum", "i < 7u; i++) { sum")], plain),
    mutation(&[("/ l[", "/ l[0u * ")], plain),
    mutation(&[("exp2(((*s)[", "(((*s)[")], plain),
    // Which keys are seen.
    mutation(&[(", (*seen)[", ", !(*seen)[")], causal),
    mutation(&[("i >= vec4(first_key", "i > vec4(first_key")], windowed),
    mutation(&[("i >= vec4(first_key(block, row))", "i >= vec4(first_key(block, row) - 1)")], windowed),
    mutation(&[("i <= vec4(last_key", "i < vec4(last_key")], causal),
    mutation(&[("i <= vec4(last_key(block, row))", "i <= vec4(last_key(block, row) + 1)")], causal),
    mutation(&[("params.band_last; }", "params.band_last + 1; }")], causal),
    mutation(&[("params.band_last; }", "params.band_last - 1; }")], windowed),
    mutation(&[("params.band_first; }", "params.band_first + 1; }")], windowed),
    mutation(&[("params.band_first; }", "params.band_first - 1; }")], windowed),
    mutation(&[("valid * params.band_from_end", "params.len_kv * params.band_from_end")], bottom_right),
    mutation(&[("params.band_from_end)", "0u)")], bottom_right),
    mutation(&[("keys < vec4(block.valid)", "keys <= vec4(block.valid)")], some_lengths),
    mutation(&[("!= vec4(0u);", "== vec4(0u);")], masked),
    mutation(&[("& vec4(0xffu)", "& vec4(0x1u)")], masked_by_bytes),
    mutation(&[("keys * params.mask_key", "keys")], mask_keys_outermost),
    mutation(&[("&votes) == 0u", "&votes) != 0u")], masked),
    mutation(&[("kv + BLOCK_KV <= block.valid", "true")], some_lengths),
    mutation(&[("<= i32(kv)", "<= i32(kv) + 40")], left_window),
    mutation(&[("last_key(block, block.first_row) >=", "last_key(block, block.first_row) + 3 >=")], nearly_full),
    mutation(&[("min(end, block.valid));", "min(end, block.valid) - 20u);")], plain),
    mutation(&[("/ BLOCK_KV * BLOCK_KV;", "/ BLOCK_KV * BLOCK_KV + BLOCK_KV;")], plain),
    mutation(&[(", params.len_kv); }", ", 0xffffffffu); }")], lengths_past_the_end),
    Mutation {
        edits: &[("kv_lengths[params.first_batch + batch]", "kv_lengths[batch]")],
        exposed_by: Question::Cut(some_lengths),
    },
    Mutation { edits: &[("i32(params.first_row) + ", "")], exposed_by: Question::Cut(causal) },
    // Rows that see nothing, numbers below any sentinel, and what hidden rows hold.
    mutation(&[("let saw_any = ", "let saw_any = true || ")], empty_rows),
    mutation(&[("select(params.negative_infinity, lse, saw_any)", "select(0.0, lse, saw_any)")], hidden_by_bias),
    mutation(&[("LOWEST = -3.4028234e38f", "LOWEST = -1e4f")], deep_bias),
    mutation(&[("params.exp2_scale), seen[", "params.exp2_scale), vec4(true) | seen[")], deep_weights),
    mutation(&[("!= vec4(0xff800000u)", "!= vec4(1u)")], nan_behind_bias),
    mutation(&[(", p.x > 0.0)", ", true)")], nan_behind_band),
    mutation(&[(", p.y > 0.0)", ", true)")], nan_behind_bias),
    mutation(&[(", p.z > 0.0)", ", true)")], nan_behind_bias),
    mutation(&[(", p.w > 0.0)", ", true)")], nan_behind_band),
    mutation(&[("let all_seen = ", "let all_seen = true || ")], nan_behind_band),
    mutation(&[("let all_seen = !HAS_MASK && !HAS_BIAS", "let all_seen = true")], nan_behind_bias),
    // Either of these alone is harmless: hidden keys are neither read nor, were they, let through.
    mutation(
        &[("key < block.valid && dim", "key < params.len_kv && dim"), ("let all_seen = ", "let all_seen = true || ")],
        nan_past_lengths,
    ),
    mutation(
        &[(" < block.valid && dim", " < params.len_kv && dim"), (", (*seen)[", ", vec4(true) | (*seen)[")],
        huge_past_lengths,
    ),
    // What is measured in which unit.
    mutation(&[("* params.natural_scale + log", "* params.exp2_scale + log")], plain),
    mutation(&[("+ log(l[", "+ log2(l[")], plain),
    mutation(&[("softmax.m[", "0.0 * softmax.m[")], plain),
    // Which numbers are read and written.
    mutation(&[("(params.first_head + workgroup.y) / params.group", "0u")], plain),
    mutation(&[("(params.first_head + workgroup.y) / params.group", "workgroup.y % 2u")], plain),
    mutation(&[("batch * view.y", "0u")], plain),
    mutation(&[("head * view.z", "0u")], plain),
    mutation(&[("return view.x +", "return ")], || gappy(Dtype::F32)),
    mutation(&[("workgroup.x * BLOCK_Q", "0u")], plain),
    mutation(&[("x = transpose(x);", "")], plain),
    mutation(&[("p_tile[column * BLOCK_Q + row + ", "p_tile[row / 4u * BLOCK_Q + column * 4u + ")], plain),
    mutation(&[("keys_done + i) / 4u", "i) / 4u")], wide),
    mutation(&[("kv + keys_done)", "kv)")], wide),
    mutation(&[("stage_q(block, thread, slice, 0u)", "stage_q(block, thread, 0u, 0u)")], large_q),
    mutation(&[("dim < params.dim_v)", "dim + 4u < params.dim_v)")], plain),
    mutation(&[("query < params.len_q &&", "query + 1u < params.len_q &&")], plain),
    // Elements that are not four and four, and not 32 bits wide.
    mutation(&[("select(vec4(0.0), x, LANE < vec4(count))", "x")], odd_f32),
    mutation(&[("if (count > 3u) { out[at + 3u] = x.w; }", "out[at + 3u] = x.w;")], || gappy(Dtype::F32)),
    mutation(&[("if (count > 3u) { store_half(at + 3u, x.w); }", "store_half(at + 3u, x.w);")], || gappy(Dtype::F16)),
    mutation(&[("atomicAnd(&out[at >> 1u], 0xffff0000u >> shift)", "atomicAnd(&out[at >> 1u], 0u)")], odd_f16),
    mutation(&[("atomicAnd(&out[at >> 1u], 0xffff0000u >> shift);", "")], odd_bf16),
    mutation(&[("let shift = (at & 1u) << 4u;", "let shift = 0u;")], odd_f16),
    mutation(&[("((i & vec4(1u)) << vec4(4u))", "vec4(0u)")], odd_bf16),
    mutation(
        &[("vec4(widen(q[at >> 2u].x), widen(q[at >> 2u].y))", "vec4(widen(q[at >> 2u].y), vec2(0.0))")],
        even_f16,
    ),
    // Rounding.
    Mutation { edits: &[("word & 0xffff0000u", "word")], exposed_by: Question::Rounding(Dtype::Bf16) },
    Mutation { edits: &[("0x7fffu + ", "0x7fffu + 0u * ")], exposed_by: Question::Rounding(Dtype::Bf16) },
    Mutation { edits: &[("bits + 0x7fffu", "bits")], exposed_by: Question::Rounding(Dtype::Bf16) },
    Mutation { edits: &[("0xfffu + ", "0xfffu + 0u * ")], exposed_by: Question::Rounding(Dtype::F16) },
    Mutation { edits: &[("+ 0xfffu", "")], exposed_by: Question::Rounding(Dtype::F16) },
    Mutation { edits: &[("bitcast<f32>(magnitude) + 0.5", "0.5")], exposed_by: Question::Rounding(Dtype::F16) },
    Mutation { edits: &[("let sign = ", "let sign = 0u * ")], exposed_by: Question::Rounding(Dtype::F16) },
];

/// Those of `weights.wgsl` itself, and some of what it shares, which it uses in its own way.
const WEIGHTS: &[Mutation] = &[
    mutation(&[("* params.exp2_scale", "* params.exp2_scale * 2.0")], all_weights),
    mutation(&[(" - vec4(softmax.m[", " - 0.0 * vec4(softmax.m[")], weights_of_stairs),
    mutation(&[("* params.exp2_scale) / l[", "* params.exp2_scale) / l[0u * ")], all_weights),
    mutation(&[("select(vec4(0.0), weight, seen[", "select(vec4(0.0), weight, vec4(true) | seen[")], deep_weights),
    mutation(&[("(*softmax).l, rescale,", "(*softmax).l, vec4(1.0),")], weights_of_stairs),
    mutation(&[("kv >= keys.x && ", "kv > keys.x && ")], all_weights),
    mutation(&[("kv < keys.y)", "kv + BLOCK_KV < keys.y)")], all_weights),
    mutation(&[("kv = 0u; kv < params.len_kv", "kv = keys.x; kv < params.len_kv")], weights_of_the_last),
    mutation(&[("kv = 0u; kv < params.len_kv", "kv = 0u; kv < keys.y")], weights_of_the_first),
    mutation(&[("kv + key < params.len_kv)", "kv + key + 4u < params.len_kv)")], all_weights),
    mutation(&[("let key = thread % 8u * 4u;", "let key = (7u - thread % 8u) * 4u;")], all_weights),
    mutation(&[(" + kv + key,", " + key,")], all_weights),
    mutation(&[("/ params.group", "/ params.group * 0u")], all_weights),
    mutation(&[("+= bias;", "+= 0.0 * bias;")], all_weights),
];

/// The variants that `attention` would run a case with, as pairs of the one to pin and the one to edit.
fn editable(attention: &Attention, problem: &Problem, family: Family) -> Vec<(Variant, Variant)> {
    let edited = |pinned: Variant| {
        let mut variant = pinned;
        variant.family = family;
        if family == Family::Weights {
            (variant.dim_v, variant.lse) = (0, false);
        }
        (pinned, variant)
    };
    attention.candidates(problem).unwrap().into_iter().map(edited).collect()
}

/// Asks the question of the first variant whose text the edits fit. The answer is right or it says what is not.
fn ask(device: &Device, mutation: &Mutation, family: Family, planted: bool) -> Result<(), String> {
    let mut caps = *device.attention.caps();
    let case = match mutation.exposed_by {
        Question::Case(case) => case(),
        Question::Cut(case) => {
            caps.dispatch_flop = 1;
            case()
        }
        Question::Rounding(dtype) => laws::between_neighbours(dtype, 2),
    };
    let attention = Attention::with_caps(device.attention.device(), caps);
    let fits = |&(_, edited): &(Variant, Variant)| mutation.edits.iter().all(|(from, _)| edited.wgsl().contains(from));
    let Some((pinned, edited)) = editable(&attention, &case.problem, family).into_iter().find(fits) else {
        panic!("the mutation no longer applies: {:?} is not in the text", mutation.edits);
    };
    let text = mutation.edits.iter().fold(edited.wgsl(), |text, (from, to)| text.replace(from, to));
    if planted {
        let _guard = device.enter();
        let scope = attention.device().push_error_scope(wgpu::ErrorFilter::Validation);
        attention.substitute(edited, text);
        let invalid = pollster::block_on(scope.pop());
        assert!(invalid.is_none(), "{:?} is no longer WGSL: {invalid:?}", mutation.edits);
    }
    // What is not edited need not be compiled again.
    let runner =
        if planted || matches!(mutation.exposed_by, Question::Cut(_)) { &attention } else { &device.attention };
    let (got, _) = device.run_by(runner, &case, pinned);
    match mutation.exposed_by {
        Question::Rounding(_) => laws::assert_nearest(&case, &got),
        _ => Expected::of(&case).check(&got).map(|_| ()),
    }
}

/// Plants every mistake, spread over the adapters, and lists those that nobody noticed.
fn assert_all_noticed(mutations: &[Mutation], family: Family) {
    let mut survivors = Vec::new();
    for (n, mutation) in mutations.iter().enumerate() {
        let device = &all()[n % all().len()];
        if let Err(wrong) = ask(device, mutation, family, false) {
            panic!("the honest shader fails where {:?} should: {wrong}", mutation.edits);
        }
        if ask(device, mutation, family, true).is_ok() {
            survivors.push(format!("{:?}", mutation.edits));
        }
    }
    assert!(survivors.is_empty(), "not noticed:\n{}", survivors.join("\n"));
}

#[test]
fn every_mistake_in_the_attention_kernel_is_noticed() {
    assert_all_noticed(ATTENTION, Family::Tiled);
}

#[test]
fn every_mistake_in_the_weights_kernel_is_noticed() {
    assert_all_noticed(WEIGHTS, Family::Weights);
}
