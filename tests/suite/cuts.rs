//! Work that is cut into pieces gives the right results: each kernel, cut in every way there is, against the reference.
//!
//! The place of a piece is a sum of offsets and strides, each of which may be wrong. So all sizes here differ, the heads
//! divide into groups of two but half of them does not, and every operand has different strides. The shapes are small,
//! because compiling takes most of the time.

use truth::{Case, Expected, Fill, Outputs};
use wgpu_attention::{
    Attention, BindError, Caps, Diagonal, Dtype, Layout, Operand, Operands, Plan, Problem, ProblemBuilder, ScoreLayout,
    Scratch, Shape, Variant, Window, testing,
};

use crate::case::drawn;
use crate::contents::{contents, elements};
use crate::device::{Device, all};
use crate::record::operands;

/// The kernels that `is_meant` selects, each on the first device that runs it. All devices cut the work in the same way.
fn each_kernel(problem: &Problem, is_meant: fn(&Variant) -> bool) -> Vec<(&'static Device, Variant)> {
    let mut chosen: Vec<(&Device, Variant)> = Vec::new();
    let kind = testing::schedule;
    for device in all() {
        for variant in device.variants(problem).into_iter().filter(is_meant) {
            if chosen.iter().all(|(_, other)| kind(other) != kind(&variant)) {
                chosen.push((device, variant));
            }
        }
    }
    chosen
}

/// Rows of a tensor with a gap after each row, head and batch, tokens outermost.
fn gappy(heads: u32, len: u32, dim: u32, gap: u64) -> Layout {
    let head = u64::from(dim) + gap;
    let row = head * u64::from(heads) + gap;
    Layout { offset: 3 * gap, batch: row * u64::from(len) + gap, head, row }
}

/// A problem with a different layout for each operand.
fn scattered(shape: Shape, gap: u64) -> ProblemBuilder {
    let Shape { batch, heads_q, heads_kv, len_q, len_kv, dim_qk, dim_v } = shape;
    let problem = Problem::builder(shape).lse().weights().kv_lengths();
    let problem = problem.q(gappy(heads_q, len_q, dim_qk, gap)).k(gappy(heads_kv, len_kv, dim_qk, 2 * gap));
    let problem = problem.v(Layout::bhld(heads_kv, len_kv, dim_v)).out(gappy(heads_q, len_q, dim_v, 3 * gap));
    // Keys outermost in one, batches innermost in the other.
    let [b, h, i, j] = [batch, heads_q, len_q, len_kv].map(i64::from);
    let mask = ScoreLayout::strided([i, b * i, 1, b * h * i]).at(5);
    problem.mask(mask).bias(Dtype::F32, ScoreLayout::strided([1, b * i * j, b * j, b]).at(3))
}

/// Runs a case as each kernel that `is_meant` selects, within each of the limits. Each limit must cut the work further than
/// the one before it.
fn verify_cut(case: &Case, is_meant: fn(&Variant) -> bool, limits: &[fn(&mut Caps)]) {
    let expected = Expected::of(case);
    for (device, variant) in each_kernel(&case.problem, is_meant) {
        let mut uncut = 3;
        for limit in limits {
            let mut caps = *device.attention.caps();
            limit(&mut caps);
            let attention = Attention::with_caps(device.attention.device(), caps);
            let (got, dispatches) = device.run_by(&attention, case, &variant);
            let within = format!("{variant} on {} in {dispatches} dispatches within {caps:?}", device.name);
            assert!(dispatches > uncut, "{within}: no further cut");
            expected.check(&got).unwrap_or_else(|wrong| panic!("{within}: {wrong}"));
            uncut = dispatches;
        }
    }
}

/// Limits that cut in the middle of a group's heads, and then to single heads and blocks of rows.
const BOTH_WAYS: &[fn(&mut Caps)] = &[
    |caps| caps.dispatch_flop = 500_000,
    |caps| (caps.dispatch_flop, caps.workgroups, caps.binding_bytes) = (60_000, 2, 100_000),
];

/// 3 batches, 6 heads in groups of 2, whose halves are 3.
fn even() -> Case {
    let shape = Shape::new(3, 6, 37, 12).kv_heads(3).kv_len(41).value_dim(20);
    let problem = scattered(shape, 4).causal(Diagonal::BottomRight).window(Window { left: Some(29), right: None });
    drawn(problem, Fill::Normal, 1).lengths(&[41, 23, 38])
}

/// 10 heads in groups of 2, whose halves are 5, and elements one at a time.
fn odd() -> Case {
    let shape = Shape::new(1, 10, 67, 7).kv_heads(5).kv_len(37).value_dim(5);
    let problem = scattered(shape, 3).dtype(Dtype::F16).diagonal(Diagonal::Offset(-11));
    drawn(problem.window(Window { left: Some(23), right: Some(3) }), Fill::Normal, 2).lengths(&[35])
}

/// Enough keys for 2 parts of at least 512.
fn long() -> Case {
    let shape = Shape::new(2, 6, 5, 12).kv_heads(3).kv_len(1031).value_dim(20);
    let problem = Problem::builder(shape).lse().kv_lengths().k(gappy(3, 1031, 12, 8)).out(gappy(6, 5, 20, 12));
    drawn(problem, Fill::Normal, 3).lengths(&[1031, 600])
}

/// Limits that split the keys into parts, and then cut so far that the kernel that merges the parts is cut, too.
const IN_PARTS: &[fn(&mut Caps)] = &[
    |caps| (caps.workgroups_to_fill, caps.dispatch_flop) = (1 << 20, 500_000),
    |caps| (caps.workgroups_to_fill, caps.dispatch_flop) = (1 << 20, 300),
];

fn is_tiled(variant: &Variant) -> bool {
    testing::schedule(variant) == "tiled"
}

fn is_for_few_rows(variant: &Variant) -> bool {
    matches!(testing::schedule(variant), "decode" | "streams")
}

fn is_staged(variant: &Variant) -> bool {
    testing::schedule(variant) == "lanes"
}

#[test]
fn tiled() {
    verify_cut(&even(), is_tiled, BOTH_WAYS);
    verify_cut(&odd(), is_tiled, BOTH_WAYS);
}

#[test]
fn tiled_in_parts() {
    verify_cut(&long(), is_tiled, IN_PARTS);
}

#[test]
fn few_rows() {
    verify_cut(&even(), is_for_few_rows, BOTH_WAYS);
    verify_cut(&long(), is_for_few_rows, IN_PARTS);
}

#[test]
fn staged() {
    verify_cut(&even(), is_staged, BOTH_WAYS);
    verify_cut(&long(), is_staged, IN_PARTS);
}

/// Two plans share the scratch of the larger one, whose textures are higher and whose buffer is longer than the other plan
/// needs.
#[test]
fn calls_of_two_plans_share_scratch() {
    let case = |len_kv, seed| {
        let problem = Problem::builder(Shape::new(1, 2, 37, 12).kv_len(len_kv).value_dim(20)).lse();
        drawn(problem, Fill::Normal, seed)
    };
    let (small, large) = (case(1031, 4), case(1733, 5));
    let kernels = each_kernel(&small.problem, |variant| is_staged(variant) || is_tiled(variant));
    for (device, variant) in kernels {
        let _guard = device.enter();
        let mut caps = *device.attention.caps();
        // Parts for one kernel, textures for the other.
        caps.workgroups_to_fill = if is_staged(&variant) { 1 } else { 1 << 20 };
        let attention = Attention::with_caps(device.attention.device(), caps);
        let plan = |case: &Case| {
            let able = attention.candidates(&case.problem).unwrap();
            let same = able.into_iter().find(|other| testing::schedule(other) == testing::schedule(&variant)).unwrap();
            attention.plan_variant(&case.problem, &same).unwrap()
        };
        let (small_plan, large_plan) = (plan(&small), plan(&large));
        let scratch = large_plan.scratch();
        assert!(scratch.size_bytes() > small_plan.scratch_bytes() && small_plan.scratch_bytes() > 0);
        let refused = operands_of(device, &large, |operands| large_plan.bind_in(operands, &small_plan.scratch()).err());
        let (need, got) = (scratch.size(), small_plan.scratch().size());
        assert_eq!(refused, Some(BindError::Scratch { need, got }));
        // The large one runs first, so that what it leaves behind could disturb the small one.
        for (case, plan) in [(&large, &large_plan), (&small, &small_plan), (&large, &large_plan)] {
            let out = run_in(device, case, plan, &scratch);
            let got = Outputs { out, ..Outputs::default() };
            Expected::of(case).check(&got).unwrap_or_else(|wrong| panic!("{variant} on {}: {wrong}", device.name));
        }
    }
}

fn upload(device: &Device, case: &Case) -> Vec<(Operand, wgpu::Buffer)> {
    case.problem.views().map(|view| (view.operand, device.upload(&contents(case, view.operand)))).collect()
}

fn operands_of<T>(device: &Device, case: &Case, act: impl FnOnce(&Operands<'_>) -> T) -> T {
    act(&operands(&upload(device, case)))
}

/// The output of a case that runs in the given scratch.
fn run_in(device: &Device, case: &Case, plan: &Plan, scratch: &Scratch) -> Vec<f32> {
    let buffers = upload(device, case);
    let call = plan.bind_in(&operands(&buffers), scratch).unwrap();
    let out = buffers.iter().find_map(|(operand, buffer)| (*operand == Operand::Out).then_some(buffer)).unwrap();
    elements(&case.problem, Operand::Out, &device.finish(&call, [out].into_iter())[0])
}
