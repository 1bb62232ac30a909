//! Plans and calls that change as a cache grows: other lengths, other buffers, the same pipelines.

use std::collections::HashMap;

use truth::{Case, Expected, Fill, Outputs};
use wgpu_attention::{
    Attention, BlockMask, Call, Diagonal, Layout, Operand, Operands, Plan, Problem, ProblemBuilder, ProblemError,
    ResizeError, ScoreLayout, Shape,
};

use crate::case::drawn;
use crate::contents::{contents, elements};
use crate::device::{Device, all};
use crate::record::{buffers, noop, operands, without_error};

/// A token that attends to a cache of (L, H, D), whose strides do not depend on its length.
fn problem(len_q: u32, len_kv: u32) -> ProblemBuilder {
    let cache = Layout::blhd(2, 1 << 20, 32);
    let shape = Shape::new(1, 4, len_q, 32).kv_heads(2).kv_len(len_kv);
    Problem::builder(shape).k(cache).v(cache).causal(Diagonal::BottomRight)
}

fn out_of(device: &Device, case: &Case, call: &Call, out: &wgpu::Buffer) -> Outputs {
    let bytes = device.finish(call, [out].into_iter());
    Outputs { out: elements(&case.problem, Operand::Out, &bytes[0]), lse: None, weights: None, stray: None }
}

/// A plan that grew gives the same bits as one that was made for the length, whether or not its keys are now split.
#[test]
fn a_resized_plan_is_the_plan_of_those_lengths() {
    for device in all() {
        let _guard = device.enter();
        let device = &device.with_caps(|caps| caps.workgroups_to_fill = 1 << 20);
        let first = device.attention.plan(&problem(1, 40).build().unwrap()).unwrap();
        assert_eq!(first.parts(), 1);
        for (len_q, len_kv) in [(1, 41), (1, 1100), (3, 1100), (1, 17)] {
            let case = drawn(problem(len_q, len_kv), Fill::Normal, len_kv.into());
            let resized = first.resized(len_q, len_kv).unwrap();
            let anew = device.attention.plan_variant(&case.problem, resized.variant()).unwrap();
            assert_eq!(resized.problem(), &case.problem);
            assert!(len_q != 1 || resized.variant() == first.variant());
            assert!(len_q == 1 || resized.variant() == device.attention.plan(&case.problem).unwrap().variant());
            assert!(resized.variants().eq(anew.variants()));
            assert_eq!((resized.parts(), resized.scratch_bytes()), (anew.parts(), anew.scratch_bytes()));
            let [got, wanted] = [&resized, &anew].map(|plan| {
                let buffers = Buffers::of(device, &case);
                out_of(device, &case, &plan.bind(&buffers.operands()).unwrap(), &buffers.out)
            });
            assert_eq!(got.bits(), wanted.bits(), "{} on {}", resized.variant(), device.name);
            Expected::of(&case).check(&got).unwrap();
        }
    }
}

struct Buffers {
    inputs: [wgpu::Buffer; 3],
    out: wgpu::Buffer,
}

impl Buffers {
    fn of(device: &Device, case: &Case) -> Self {
        let upload = |operand| device.upload(&contents(case, operand));
        Self { inputs: [Operand::Q, Operand::K, Operand::V].map(upload), out: upload(Operand::Out) }
    }

    fn operands(&self) -> Operands<'_> {
        let [q, k, v] = self.inputs.each_ref().map(wgpu::Buffer::as_entire_buffer_binding);
        Operands::new(q, k, v, self.out.as_entire_buffer_binding())
    }
}

/// Each operand in turn moves to another buffer. The others stay, and so does the first call.
#[test]
fn a_rebound_call_uses_the_other_buffer_for_one_operand() {
    for device in all() {
        let _guard = device.enter();
        let (one, other) = (drawn(problem(1, 40), Fill::Normal, 1), drawn(problem(1, 40), Fill::Normal, 2));
        let plan = device.attention.plan(&one.problem).unwrap();
        let (of_one, of_other) = (Buffers::of(device, &one), Buffers::of(device, &other));
        let first = plan.bind(&of_one.operands()).unwrap();
        let mut call = first.clone();
        let mut case = one.clone();
        for (n, operand) in [Operand::Q, Operand::K, Operand::V].into_iter().enumerate() {
            call = call.rebound(operand, of_other.inputs[n].as_entire_buffer_binding()).unwrap();
            let from = match operand {
                Operand::Q => (&mut case.host.q, &other.host.q),
                Operand::K => (&mut case.host.k, &other.host.k),
                _ => (&mut case.host.v, &other.host.v),
            };
            from.0.clone_from(from.1);
            Expected::of(&case).check(&out_of(device, &case, &call, &of_one.out)).unwrap();
        }
        let elsewhere = call.rebound(Operand::Out, of_other.out.as_entire_buffer_binding()).unwrap();
        Expected::of(&other).check(&out_of(device, &other, &elsewhere, &of_other.out)).unwrap();
        Expected::of(&one).check(&out_of(device, &one, &first, &of_one.out)).unwrap();
    }
}

#[test]
fn lengths_that_a_problem_cannot_have_are_refused() {
    let (device, _queue) = noop();
    let attention = Attention::new(&device);
    let plan = |problem: ProblemBuilder| attention.plan(&problem.build().unwrap()).unwrap();
    let error = plan(problem(1, 40)).resized(1, u32::MAX).unwrap_err();
    assert!(matches!(error, ResizeError::Problem(ProblemError::TooLong { axis: "len_kv", .. })), "{error}");
    // A mask whose shape was given has one length.
    let masked = plan(problem(1, 40).mask(ScoreLayout::broadcast([1, 1, 1, 40])));
    let error = masked.resized(1, 41).unwrap_err();
    assert!(matches!(error, ResizeError::Problem(ProblemError::NotBroadcastable { got: 40, want: 41, .. })), "{error}");
    assert!(masked.resized(2, 40).is_ok());
}

/// A plan that computes a block mask stays one.
#[test]
fn the_plan_of_a_block_mask_grows_too() {
    let (device, _queue) = noop();
    let attention = Attention::new(&device);
    let tiled = problem(40, 40).block_mask(BlockMask::new(16, 32)).build().unwrap();
    let plan = attention.plan_block_mask(&tiled).unwrap();
    let grown = plan.resized(40, 80).unwrap();
    assert!(grown.variants().eq(plan.variants()));
    let numbers = |plan: &Plan| plan.problem().view(Operand::BlockMask).unwrap().end();
    assert_eq!((numbers(&plan), numbers(&grown)), (6, 9));
    // And one that reads it still computes attention.
    let plan = attention.plan(&tiled).unwrap();
    assert_eq!(plan.resized(40, 80).unwrap().variant(), plan.variant());
}

/// A pinned variant stays while the number of keys changes. For another number of queries, the best one is planned.
#[test]
fn a_plan_keeps_its_variant_for_as_many_queries() {
    let (device, _queue) = noop();
    let attention = Attention::new(&device);
    let token = problem(1, 40).build().unwrap();
    let able = attention.candidates(&token).unwrap();
    assert!(able.len() > 1, "{able:?}");
    for variant in &able {
        let plan = attention.plan_variant(&token, variant).unwrap();
        let longer = plan.resized(1, 41).unwrap();
        assert_eq!((longer.variant(), longer.problem()), (variant, &problem(1, 41).build().unwrap()));
        let wider = plan.resized(3, 41).unwrap();
        let preferred = attention.candidates(wider.problem()).unwrap();
        assert!(preferred.contains(variant), "it could go on with {variant}");
        assert_eq!(wider.variant(), &preferred[0]);
    }
}

/// Without keys, nothing of K, V and the tables is bound but stand-ins. Some are read-only, and so are the lengths, which
/// are not empty.
#[test]
fn a_cache_may_be_empty() {
    let (device, _queue) = noop();
    let attention = Attention::new(&device);
    let scores = ScoreLayout::strided([0, 0, 100, 1]);
    let tiled = problem(40, 40).block_mask(BlockMask::new(16, 32)).mask(scores).kv_lengths().shared_buffers();
    let tiled = tiled.build().unwrap();
    for plan in [attention.plan(&tiled).unwrap(), attention.plan_block_mask(&tiled).unwrap()] {
        for len_kv in [0, 40] {
            let plan = plan.resized(40, len_kv).unwrap();
            let buffers = buffers(&device, plan.problem());
            let operands = operands(&buffers);
            without_error(&device, || {
                let call = plan.bind(&operands).unwrap();
                let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                call.encode(&mut encoder);
                encoder.finish()
            });
        }
    }
}

/// An app keeps its plans in a map. Numbers are compared by their bits.
#[test]
fn problems_are_keys_of_a_map() {
    let named = |problem: ProblemBuilder, name| (problem.build().unwrap(), name);
    let program = || problem(1, 40).score_mod("fn score_mod(score: f32, at: At) -> f32 { return score; }");
    let plans = HashMap::from([
        named(problem(1, 40), "plain"),
        named(problem(1, 41), "longer"),
        named(problem(1, 40).scale(0.0), "scale 0"),
        named(problem(1, 40).scale(-0.0), "scale -0"),
        named(problem(1, 40).softcap(2.0), "capped"),
        named(program(), "program"),
        named(problem(1, 40).shared_buffers(), "shared"),
    ]);
    assert_eq!(plans.len(), 7);
    assert_eq!(plans[&problem(1, 40).scale(-0.0).build().unwrap()], "scale -0");
    assert_eq!(plans[&program().build().unwrap()], "program");
}
