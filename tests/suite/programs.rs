//! Programs in the score, and what is related to them: `ALiBi`, sinks, and masks and biases that run backwards.

use std::fmt::Write as _;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use truth::{Case, Expected, Fill, Visibility};
use wgpu_attention::reference::At;
use wgpu_attention::{
    Diagonal, Dtype, Layout, Operand, Problem, ProblemBuilder, ScoreLayout, Shape, Slopes, Window, testing,
};

use crate::case::{drawn, full};
use crate::choice::{chosen_variants, verify_variant};
use crate::contents::{contents, elements};
use crate::device::{Device, all, with_real_matrices};
use crate::matrix::in_f16;
use crate::record::noop;

/// Two blocks of rows and two tiles of keys, with grouped heads. All sizes differ.
pub fn shape() -> Shape {
    Shape::new(2, 6, 35, 12).kv_heads(2).kv_len(41).value_dim(8)
}

fn case(problem: ProblemBuilder) -> Case {
    drawn(problem.lse(), Fill::Normal, 91)
}

/// Uses everything that a program is told, each with a different weight.
const PLACES: &str = "
fn score_mod(score: f32, at: At) -> f32 {
    let place = vec3(f32(at.batch), f32(at.head), f32(at.kv_head));
    return score + dot(place, vec3(0.5, -0.25, 0.125)) * f32(i32(at.key) - at.diagonal) * 0.0625
         + 0.03125 * f32(at.query % 7u) * f32(at.key % 5u);
}";

fn places(score: f64, at: At) -> f64 {
    let place = 0.5 * f64::from(at.batch) - 0.25 * f64::from(at.head) + 0.125 * f64::from(at.kv_head);
    score
        + place * (f64::from(at.key) - f64::from(at.diagonal)) * 0.0625
        + 0.03125 * f64::from(at.query % 7) * f64::from(at.key % 5)
}

fn with_places(mut case: Case) -> Case {
    case.problem = case.problem.to_builder().score_mod(PLACES).build().unwrap();
    case.host.programs.score_mod = Some(Arc::new(|score, at, _| places(score, at)));
    case
}

const STRIPES: &str =
    "fn mask_mod(at: At) -> bool { return (at.query + 2u * at.key + at.head + 3u * at.batch) % 3u != 0u; }";

fn stripes([batch, head, query, key]: [u32; 4]) -> bool {
    (query + 2 * key + head + 3 * batch) % 3 != 0
}

pub fn with_stripes(mut case: Case) -> Case {
    case.problem = case.problem.to_builder().mask_mod(STRIPES).build().unwrap();
    case.host.programs.mask_mod = Some(Arc::new(|at, _| stripes([at.batch, at.head, at.query, at.key])));
    case
}

/// Runs a case as the [`chosen_variants`] within limits that `tighten` sets.
pub fn verify_within(case: &Case, tighten: fn(&mut wgpu_attention::Caps)) {
    let expected = Expected::of(case);
    let devices: Vec<Device> = all().iter().map(|device| device.with_caps(tighten)).collect();
    for (device, variant) in chosen_variants(&devices, &case.problem) {
        let _guard = all().iter().find(|other| other.name == device.name).and_then(Device::enter);
        verify_variant(case, &expected, device, &variant);
    }
}

/// However the work is cut and the keys are split, the positions that a program is told count from the start.
#[test]
fn a_program_is_told_where_a_score_stands() {
    let lengths = Problem::builder(shape()).kv_lengths().causal(Diagonal::BottomRight);
    let some = with_places(with_stripes(case(lengths.clone().weights()).lengths(&[41, 23])));
    verify_within(&some, |_| ());
    verify_within(&with_places(case(lengths)).lengths(&[41, 23]), |caps| caps.dispatch_flop = 1);
    let long = Shape::new(2, 4, 3, 12).kv_heads(2).kv_len(1100).value_dim(8);
    let offset = Problem::builder(long).diagonal(Diagonal::Offset(700)).window(Window { left: Some(650), right: None });
    verify_within(&with_places(with_stripes(case(offset))), |caps| caps.workgroups_to_fill = 1 << 20);
}

#[test]
fn programs_run_on_matrix_units() {
    for device in with_real_matrices() {
        let case = with_places(with_stripes(in_f16(case(Problem::builder(shape()).sinks().alibi(Slopes::PerHead)))));
        let expected = Expected::of(&case);
        for variant in device.variants(&case.problem) {
            expected.check(&device.run(&case, &variant)).unwrap_or_else(|wrong| panic!("{variant}: {wrong}"));
        }
    }
}

/// Checks that two cases give the same bits, as the [`chosen_variants`].
pub fn assert_same_bits(one: &Case, other: &Case) {
    for (device, a) in chosen_variants(all(), &one.problem) {
        let twin = device.variants(&other.problem).into_iter().find(|b| testing::kind(b) == testing::kind(&a));
        let b = twin.unwrap_or_else(|| panic!("no {} on {}", testing::kind(&a), device.name));
        let [x, y] = [device.run(one, &a), device.run(other, &b)];
        assert!(x.bits() == y.bits(), "{a} and {b} on {}", device.name);
    }
}

#[test]
fn a_program_that_does_nothing_changes_no_bit() {
    // With a scale of 1, scores are kept in natural units in both cases.
    let plain = case(Problem::builder(shape()).scale(1.0).causal(Diagonal::TopLeft));
    let mut same = plain.clone();
    same.problem = same
        .problem
        .to_builder()
        .score_mod("fn score_mod(score: f32, at: At) -> f32 { return score; }")
        .build()
        .unwrap();
    same.host.programs.score_mod = Some(Arc::new(|score, _, _| score));
    assert_same_bits(&plain, &same);
}

#[test]
fn a_program_that_adds_a_bias_is_that_bias() {
    let Shape { len_q, len_kv, heads_q, .. } = shape();
    let bias = Problem::builder(shape()).bias(Dtype::F32, ScoreLayout::broadcast([1, heads_q, len_q, len_kv]));
    let biased =
        case(bias).edited(Operand::Bias, |[_, _, i, j], x| if (i + j) % 4 == 0 { f32::NEG_INFINITY } else { x });
    let text = format!(
        "fn score_mod(score: f32, at: At) -> f32 {{
            return score + aux[(at.head * {len_q}u + at.query) * {len_kv}u + at.key];
        }}"
    );
    let problem = Problem::builder(shape()).lse().score_mod(text).aux(u64::from(heads_q * len_q * len_kv));
    let mut program = case(problem);
    (program.host.q, program.host.k, program.host.v) =
        (biased.host.q.clone(), biased.host.k.clone(), biased.host.v.clone());
    program.host.aux = biased.host.bias.clone();
    assert_same_bits(&biased, &program);
}

#[test]
fn a_program_that_masks_is_the_mask_it_describes() {
    let mask = case(Problem::builder(shape()).mask(full(shape()))).masked(|at, _| stripes(at));
    assert_same_bits(&mask, &with_stripes(case(Problem::builder(shape()))));
}

/// `aux` holds numbers that an app changes every step.
#[test]
fn numbers_of_a_program_change_without_a_new_plan() {
    let text = "fn score_mod(score: f32, at: At) -> f32 { return score * aux[at.head]; }";
    let mut case = case(Problem::builder(shape()).score_mod(text).aux(6));
    case.host.programs.score_mod = Some(Arc::new(|score, at, aux| score * f64::from(aux[at.head as usize])));
    let device = &all()[0];
    let _guard = device.enter();
    let plan = device.attention.plan(&case.problem).unwrap();
    for factor in [1.0, -2.0] {
        case.host.aux = Some((0..6).map(|head| factor * (head as f32 - 2.5)).collect());
        let buffers: Vec<_> =
            case.problem.views().map(|view| (view.operand, device.upload(&contents(&case, view.operand)))).collect();
        let call = plan.bind(&crate::record::operands(&buffers)).unwrap();
        let out = buffers.iter().find(|(operand, _)| *operand == Operand::Out).map(|(_, buffer)| buffer);
        let bytes = device.finish(&call, out.into_iter()).remove(0);
        let got = truth::Outputs { out: elements(&case.problem, Operand::Out, &bytes), ..Default::default() };
        Expected::of(&case).check(&got).unwrap_or_else(|wrong| panic!("{factor}: {wrong}"));
    }
}

/// Names that the kernels use, too, and a few that they might.
#[test]
fn a_program_may_call_its_own_things_anything() {
    let text = "
        const LOWEST = 0.5;
        const THREADS = 3u;
        alias View = vec4<f32>;
        struct Row { query: f32, sum: f32 }
        var<private> softmax: f32 = 1.0;
        fn rescale(params: f32, v: f32) -> f32 { return params * v; }
        fn address(row: Row) -> f32 { return row.query + row.sum; }
        fn main(site: f32) -> f32 {
            var o = 0.0;
            for (var k = 0u; k < THREADS; k++) { o += LOWEST * site; }
            return o;
        }
        fn store_out(q: View) -> f32 { return q.x + q.w; }
        fn score_mod(score: f32, at: At) -> f32 {
            let out = store_out(View(score, 0.0, 0.0, softmax));
            return main(rescale(out, address(Row(0.25, 0.25))));
        }";
    let mut case = case(Problem::builder(shape()).score_mod(text).weights());
    case.host.programs.score_mod = Some(Arc::new(|score, _, _| 1.5 * ((score + 1.0) * 0.5)));
    verify_within(&case, |_| ());
}

#[test]
fn alibi_lowers_scores_by_distance() {
    for (slopes, problem) in [
        (Slopes::PerHead, Problem::builder(shape()).causal(Diagonal::BottomRight)),
        (Slopes::PerBatchAndHead, Problem::builder(shape()).diagonal(Diagonal::Offset(5)).softcap(2.0)),
    ] {
        let with_slopes = case(problem.clone().alibi(slopes));
        verify_within(&with_slopes, |_| ());
        // A bias can express the same.
        let mut biased = case(problem.bias(Dtype::F32, full(shape())));
        let view = with_slopes.view(Operand::AlibiSlopes);
        let visibility = Visibility::new(&with_slopes);
        let all_slopes = with_slopes.host.alibi_slopes.clone().unwrap();
        biased.edit(Operand::Bias, |[b, h, i, j], _| {
            let distance = (visibility.stands_at(b, i) - i64::from(j)).abs();
            -all_slopes[view.index([b, h, 0, 0]) as usize] * distance as f32
        });
        let device = &all()[0];
        let variant = |case: &Case| device.variants(&case.problem).remove(0);
        let got = device.run(&with_slopes, &variant(&with_slopes));
        Expected::of(&biased).check(&got).unwrap_or_else(|wrong| panic!("{slopes:?}: {wrong}"));
    }
    verify_within(&case(Problem::builder(shape()).alibi(Slopes::PerBatchAndHead)), |caps| caps.dispatch_flop = 1);
}

#[test]
fn a_sink_takes_part_in_the_softmax() {
    // Some of the rows see no key.
    let problem = Problem::builder(shape()).sinks().causal(Diagonal::Offset(-3));
    let some = case(problem.clone().weights());
    verify_within(&some, |_| ());
    // A sink that outweighs all keys, and one that is not there.
    let mut extremes = case(problem);
    extremes.host.sinks = Some(vec![200.0, f32::NEG_INFINITY, -200.0, 0.0, 30.0, f32::NEG_INFINITY]);
    verify_within(&extremes, |_| ());
    verify_within(&case(Problem::builder(shape()).sinks().scale(0.0)), |_| ());
    verify_within(&case(Problem::builder(shape()).sinks().softcap(3.0).alibi(Slopes::PerHead)), |_| ());
    let long = Shape::new(2, 4, 3, 12).kv_heads(2).kv_len(1100).value_dim(8);
    verify_within(&case(Problem::builder(long).sinks()), |caps| caps.workgroups_to_fill = 1 << 20);
    verify_within(&case(Problem::builder(shape()).sinks()), |caps| caps.dispatch_flop = 1);
}

/// A row whose scores are all −∞ has no weights, and a sink of −∞ does not change that. A finite sink takes the whole
/// weight.
#[test]
fn a_row_of_minus_infinity_is_its_sinks() {
    let problem = Problem::builder(Shape::new(1, 2, 3, 8).kv_len(5)).sinks();
    let mut case = case(problem).edited(Operand::Q, |_, _| 1e30).edited(Operand::K, |_, _| -1e30);
    case.host.sinks = Some(vec![f32::NEG_INFINITY, 1.5]);
    for (device, variant) in chosen_variants(all(), &case.problem) {
        let got = device.run(&case, &variant);
        let (nan, taken) = got.out.split_at(24);
        assert!(nan.iter().all(|x| x.is_nan()) && taken.iter().all(|&x| x == 0.0), "{variant}: {got:?}");
        let lse = got.lse.unwrap();
        assert!(lse[..3].iter().all(|x| x.is_nan()) && lse[3..].iter().all(|&x| x == 1.5), "{variant}: {lse:?}");
    }
}

/// A table of 2L − 1 numbers per head, read along diagonals; and a mask whose rows run backwards.
#[test]
fn masks_and_biases_may_run_backwards() {
    let shape = Shape::new(2, 4, 35, 12).kv_heads(2).value_dim(8);
    let len = i64::from(shape.len_q);
    let relative = ScoreLayout::strided([0, 2 * len - 1, -1, 1]).at(len as u64 - 1);
    verify_within(&case(Problem::builder(shape).bias(Dtype::F32, relative)), |_| ());
    let backwards = ScoreLayout::strided([len * len, 0, len, -1]).at(len as u64 - 1);
    let masked = Problem::builder(shape).mask(backwards).bias(Dtype::F32, relative);
    verify_within(&case(masked), |caps| caps.dispatch_flop = 1);
}

/// An expression over a score and its place.
#[derive(Clone, Debug)]
enum Expression {
    Score,
    Number(i8),
    Place(u8),
    Add(Box<(Self, Self)>),
    Multiply(Box<(Self, Self)>),
    Min(Box<(Self, Self)>),
    /// The second expression if the query's number is divisible by a divisor, otherwise the first.
    Select(u8, Box<(Self, Self)>),
}

impl Expression {
    fn wgsl(&self, text: &mut String) {
        let two = |text: &mut String, begin: &str, between: &str, (a, b): &(Self, Self)| {
            *text += begin;
            a.wgsl(text);
            *text += between;
            b.wgsl(text);
            text.push(')');
        };
        match self {
            Self::Score => *text += "score",
            Self::Number(n) => write!(text, "({:?})", f32::from(*n) / 16.0).unwrap(),
            Self::Place(n) => write!(text, "(f32({}) / 64.0)", PLACE_NAMES[usize::from(n % 6)]).unwrap(),
            Self::Add(parts) => two(text, "(", " + ", parts),
            Self::Multiply(parts) => two(text, "(", " * ", parts),
            Self::Min(parts) => two(text, "min(", ", ", parts),
            Self::Select(n, parts) => {
                two(text, "select(", ", ", parts);
                text.pop();
                write!(text, ", at.query % {}u == 0u)", n % 5 + 1).unwrap();
            }
        }
    }

    fn value(&self, score: f64, at: At) -> f64 {
        let two = |(a, b): &(Self, Self)| (a.value(score, at), b.value(score, at));
        match self {
            Self::Score => score,
            Self::Number(n) => f64::from(*n) / 16.0,
            Self::Place(n) => {
                let unsigned = [at.batch, at.head, at.kv_head, at.query, at.key].map(f64::from);
                unsigned.get(usize::from(n % 6)).copied().unwrap_or(at.diagonal.into()) / 64.0
            }
            Self::Add(parts) => two(parts).0 + two(parts).1,
            Self::Multiply(parts) => two(parts).0 * two(parts).1,
            Self::Min(parts) => two(parts).0.min(two(parts).1),
            Self::Select(n, parts) => {
                let (a, b) = two(parts);
                if at.query.is_multiple_of(u32::from(n % 5 + 1)) { b } else { a }
            }
        }
    }
}

const PLACE_NAMES: [&str; 6] = ["at.batch", "at.head", "at.kv_head", "at.query", "at.key", "at.diagonal"];

fn expression() -> impl Strategy<Value = Expression> {
    let leaf = prop_oneof![
        2 => Just(Expression::Score),
        1 => any::<i8>().prop_map(Expression::Number),
        2 => any::<u8>().prop_map(Expression::Place)
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        let two = (inner.clone(), inner).prop_map(Box::new);
        prop_oneof![
            two.clone().prop_map(Expression::Add),
            two.clone().prop_map(Expression::Multiply),
            two.clone().prop_map(Expression::Min),
            (any::<u8>(), two).prop_map(|(n, two)| Expression::Select(n, two)),
        ]
    })
}

/// Random programs, as the [`chosen_variants`].
fn fuzz(cases: u32) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 20, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
    let ran = runner.run(&(expression(), 1..20_u32), |(expression, len_q)| {
        let mut text = "fn score_mod(score: f32, at: At) -> f32 { return ".to_owned();
        expression.wgsl(&mut text);
        text += " + 0.5 * score; }";
        let shape = Shape::new(2, 4, len_q, 8).kv_heads(2).kv_len(37);
        let problem = Problem::builder(shape).diagonal(Diagonal::Offset(3)).score_mod(text.clone());
        let problem = problem.q(Layout::blhd(4, len_q, 8));
        let mut case = case(problem);
        case.host.programs.score_mod = Some(Arc::new(move |score, at, _| expression.value(score, at) + 0.5 * score));
        let expected = Expected::of(&case);
        for (device, variant) in chosen_variants(all(), &case.problem) {
            let verdict = expected.check(&device.run(&case, &variant));
            verdict.map_err(|wrong| TestCaseError::fail(format!("{variant} on {}: {wrong}\n{text}", device.name)))?;
        }
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn random_programs() {
    fuzz(4);
}

#[test]
#[ignore = "minutes; cargo xtask test --full"]
fn many_random_programs() {
    fuzz(60);
}

/// A program is part of the text that is compiled.
#[test]
fn a_program_is_in_the_text_of_every_kernel_that_scores() {
    let (device, _queue) = noop();
    let attention = wgpu_attention::Attention::new(&device);
    let problem = Problem::builder(shape()).weights().mask_mod(STRIPES).build().unwrap();
    for variant in attention.candidates(&problem).unwrap() {
        for kernel in testing::kernels(&problem, &variant, attention.caps()).unwrap() {
            let scores = !matches!(testing::schedule(&kernel), "merge" | "stage");
            assert_eq!(kernel.wgsl().contains(STRIPES), scores, "{kernel}");
        }
    }
}
