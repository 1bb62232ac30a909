//! Planning, binding and recording on wgpu's noop device: no GPU, but all of wgpu's validation.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use wgpu::{BufferUsages, Device, Queue};
use wgpu_attention::{
    Attention, BlockMask, Call, Caps, Diagonal, Dtype, Fragment, Layout, MatrixUnit, Multiplier, Operand, Operands,
    Plan, Problem, ProblemBuilder, ScoreLayout, Shape, Tiles, Variant, Window,
};

use crate::case::everything;

pub fn noop() -> (Device, Queue) {
    Device::noop(&wgpu::DeviceDescriptor::default())
}

/// A noop device with what kernels on a matrix unit need.
pub fn noop_with_matrices() -> (Device, Queue) {
    Device::noop(&wgpu::DeviceDescriptor {
        required_features: Caps::MATRIX_FEATURES,
        // SAFETY: nothing runs.
        #[expect(unsafe_code, reason = "what wgpu asks of those who want cooperative matrices")]
        experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
        ..Default::default()
    })
}

/// A buffer of the right size for each operand.
pub fn buffers(device: &Device, problem: &Problem) -> Vec<(Operand, wgpu::Buffer)> {
    let buffer = |size| {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    problem.views().map(|view| (view.operand, buffer(view.size_bytes()))).collect()
}

pub fn operands(buffers: &[(Operand, wgpu::Buffer)]) -> Operands<'_> {
    buffers.iter().map(|(operand, buffer)| (*operand, buffer.as_entire_buffer_binding())).collect()
}

/// Calls `act`, in which wgpu must find no error.
pub fn without_error<T>(device: &Device, act: impl FnOnce() -> T) -> T {
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let done = act();
    let error = pollster::block_on(scope.pop());
    assert!(error.is_none(), "{error:?}");
    done
}

fn bound(device: &Device, plan: &Plan) -> Call {
    plan.bind(&operands(&buffers(device, plan.problem()))).unwrap()
}

/// A problem for every schedule, element type, access, and head size class, and for every set of features.
fn problems() -> Vec<Problem> {
    let mut problems = Vec::new();
    for dtype in Dtype::ALL {
        for dim in [3, 32, 61, 64, 128, 255, 256] {
            problems.push(Problem::builder(Shape::new(2, 3, 33, dim)).dtype(dtype));
            problems.push(everything(Shape::new(2, 4, 33, dim).kv_heads(2).kv_len(40), dtype).weights());
        }
    }
    let shape = Shape::new(1, 2, 16, 32);
    for flags in 0..64_u32 {
        let flag = |bit: u32| flags >> bit & 1 == 1;
        let mut problem = Problem::builder(shape).dtype(Dtype::F16);
        problem = if flag(0) { problem.softcap(1.0) } else { problem };
        problem = if flag(1) { problem.mask(ScoreLayout::broadcast([1; 4])) } else { problem };
        problem = if flag(2) { problem.kv_lengths() } else { problem };
        problem = if flag(3) { problem.lse() } else { problem };
        problem = if flag(4) { problem.weights() } else { problem };
        problem = if flag(5) { problem.bias(Dtype::F32, ScoreLayout::broadcast([1, 2, 1, 16])) } else { problem };
        problems.push(problem);
    }
    problems.into_iter().map(|problem| problem.build().unwrap()).collect()
}

#[test]
fn every_variant_plans_binds_and_records() {
    let (device, queue) = noop();
    let attention = Attention::new(&device);
    let mut recorded = std::collections::HashSet::new();
    for problem in problems() {
        for variant in attention.candidates(&problem).unwrap() {
            without_error(&device, || {
                let plan = attention.plan_variant(&problem, &variant).unwrap();
                assert_eq!(plan.variant(), &variant);
                let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                bound(&device, &plan).encode(&mut encoder);
                queue.submit([encoder.finish()]);
            });
            recorded.insert(variant);
        }
    }
    assert!(recorded.len() > 60, "{}", recorded.len());
}

#[test]
fn a_call_records_between_the_callers_own_dispatches() {
    let (device, queue) = noop();
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl("@compute @workgroup_size(1) fn main() {}".into()),
    });
    let own = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some("the caller's"),
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    let problem = everything(Shape::new(2, 4, 70, 32), Dtype::Bf16).weights().build().unwrap();
    without_error(&device, || {
        let plan = Attention::new(&device).plan(&problem).unwrap();
        let call = bound(&device, &plan);
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for _ in 0..2 {
                pass.set_pipeline(&own);
                pass.dispatch_workgroups(1, 1, 1);
                call.dispatch(&mut pass);
            }
            call.dispatches().iter().rev().for_each(|dispatch| dispatch.record(&mut pass));
            pass.set_pipeline(&own);
            pass.dispatch_workgroups(1, 1, 1);
        }
        queue.submit([encoder.finish()]);
    });
}

/// The noop device has matrix units, because it has every feature.
#[test]
fn every_variant_on_a_matrix_unit_plans_binds_and_records() {
    let (device, queue) = noop_with_matrices();
    let mut recorded = std::collections::HashSet::new();
    for (fragment, subgroup, tiles) in [(Fragment::Side16, 32, Tiles::Vectors), (Fragment::Side8, 32, Tiles::Scalars)] {
        let mut caps = Caps::of(&device);
        caps.matrix_unit = Some(MatrixUnit { fragment, subgroup, tiles, multiplier: Multiplier::Unit });
        let attention = Attention::with_caps(&device, caps);
        for problem in problems().iter().filter(|problem| problem.dtype(Operand::Q) == Some(Dtype::F16)) {
            let variants = attention.candidates(problem).unwrap();
            for variant in variants.into_iter().filter(Variant::is_on_matrix_unit) {
                without_error(&device, || {
                    let plan = attention.plan_variant(problem, &variant).unwrap();
                    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                    bound(&device, &plan).encode(&mut encoder);
                    queue.submit([encoder.finish()]);
                });
                recorded.insert(variant);
            }
        }
    }
    assert!(recorded.len() > 100, "{}", recorded.len());
}

/// A unit that the device was not created for, or that is not possible, is ignored.
#[test]
fn a_unit_that_cannot_run_is_left_alone() {
    let problem = Problem::builder(Shape::new(1, 2, 64, 32)).dtype(Dtype::F16).build().unwrap();
    let takes_it = |(device, _): (Device, Queue), fragment, subgroup, multiplier| {
        let mut caps = Caps::of(&device);
        caps.matrix_unit = Some(MatrixUnit { fragment, subgroup, tiles: Tiles::Vectors, multiplier });
        without_error(&device, || {
            Attention::with_caps(&device, caps).plan(&problem).unwrap().variant().is_on_matrix_unit()
        })
    };
    for multiplier in [Multiplier::Unit, Multiplier::Emulated] {
        assert!(!takes_it(noop(), Fragment::Side16, 32, multiplier), "no feature");
        for (fragment, subgroup) in [(Fragment::Side16, 8), (Fragment::Side8, 0), (Fragment::Side8, 24)] {
            assert!(!takes_it(noop_with_matrices(), fragment, subgroup, multiplier), "{subgroup}");
        }
        for (fragment, subgroup) in [(Fragment::Side8, 8), (Fragment::Side8, 64), (Fragment::Side16, 128)] {
            assert!(takes_it(noop_with_matrices(), fragment, subgroup, multiplier), "{subgroup}");
        }
    }
}

#[test]
fn what_is_cut_is_still_valid() {
    let (device, queue) = noop();
    let problem = everything(Shape::new(3, 6, 130, 64).kv_heads(2), Dtype::F16).weights().build().unwrap();
    let tighten: [fn(&mut Caps); 3] =
        [|caps| caps.workgroups = 1, |caps| caps.dispatch_flop = 1, |caps| caps.binding_bytes = 70_000];
    for tighten in tighten {
        let mut caps = Caps::of(&device);
        tighten(&mut caps);
        without_error(&device, || {
            let plan = Attention::with_caps(&device, caps).plan(&problem).unwrap();
            let call = bound(&device, &plan);
            assert!(plan.dispatches() > 2);
            assert_eq!(call.dispatches().len(), plan.dispatches());
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            call.encode(&mut encoder);
            queue.submit([encoder.finish()]);
        });
    }
}

#[test]
fn plans_and_calls_go_where_an_app_needs_them() {
    fn sendable<T: Clone + Send + Sync + 'static>() {}
    sendable::<Attention>();
    sendable::<Plan>();
    sendable::<Call>();
    sendable::<Problem>();
}

/// Small numbers mostly, and those at the edges of the type.
fn wild_u32() -> impl Strategy<Value = u32> {
    prop_oneof![6 => 0..40_u32, 1 => Just(u32::MAX), 1 => any::<u32>(), 1 => (0..32_u32).prop_map(|bit| 1 << bit)]
}

fn wild_u64() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..300_u64, 1 => Just(u64::MAX), 1 => any::<u64>(), 1 => (0..64_u32).prop_map(|bit| 1 << bit)]
}

fn wild_i64() -> impl Strategy<Value = i64> {
    prop_oneof![4 => -300..300_i64, 1 => Just(i64::MIN), 1 => any::<i64>(), 1 => (0..63_u32).prop_map(|bit| 1 << bit)]
}

fn wild_f32() -> impl Strategy<Value = Option<f32>> {
    prop::option::of(prop_oneof![any::<f32>(), prop::num::f32::ANY])
}

prop_compose! {
    fn wild_shape()(batch in wild_u32(), heads_kv in wild_u32(), group in wild_u32(), len_q in wild_u32(),
                    len_kv in wild_u32(), dim_qk in wild_u32(), dim_v in wild_u32()) -> Shape {
        Shape { batch, heads_q: heads_kv.wrapping_mul(group), heads_kv, len_q, len_kv, dim_qk, dim_v }
    }
}

fn wild_layout() -> impl Strategy<Value = Option<Layout>> {
    let layout = (wild_u64(), wild_u64(), wild_u64(), wild_u64());
    prop::option::weighted(0.3, layout.prop_map(|(offset, batch, head, row)| Layout { offset, batch, head, row }))
}

fn wild_scores() -> impl Strategy<Value = Option<ScoreLayout>> {
    let strided = (prop::array::uniform4(wild_i64()), wild_u64()).prop_map(|(s, at)| ScoreLayout::strided(s).at(at));
    let broadcast = prop::array::uniform4(wild_u32()).prop_map(ScoreLayout::broadcast);
    prop::option::of(prop_oneof![strided, broadcast, Just(ScoreLayout::broadcast([1; 4]))])
}

fn wild_problem() -> impl Strategy<Value = ProblemBuilder> {
    let layouts = prop::array::uniform4(wild_layout());
    let numbers = (wild_f32(), wild_f32(), any::<i32>(), any::<[bool; 5]>());
    let scores = (wild_scores(), wild_scores(), 0..3_usize, 0..3_usize);
    let window = (prop::option::of(any::<u32>()), prop::option::of(any::<u32>()));
    // Few sizes, because each needs another kernel.
    let tile = (prop::sample::select(&[1, 65_536][..]), prop::sample::select(&[31, 32, 65_536][..]));
    let weighed = (prop::collection::vec(wild_u32(), 0..4), wild_u32(), wild_u32());
    let described = (window, prop::option::weighted(0.2, tile), prop::option::weighted(0.2, weighed));
    (wild_shape(), layouts, numbers, scores, described).prop_map(|(shape, layouts, numbers, scores, described)| {
        let ((left, right), tile, weighed) = described;
        let [q, k, v, out] = layouts;
        let (scale, softcap, offset, [causal, from_end, kv_lengths, lse, weights]) = numbers;
        let (mask, bias, dtype, bias_dtype) = scores;
        let diagonal = if from_end { Diagonal::BottomRight } else { Diagonal::Offset(offset) };
        let mut problem = Problem::builder(shape).dtype(Dtype::ALL[dtype]).window(Window { left, right });
        problem = if causal { problem.causal(diagonal) } else { problem.diagonal(diagonal) };
        problem = q.map_or(problem.clone(), |layout| problem.q(layout));
        problem = k.map_or(problem.clone(), |layout| problem.k(layout));
        problem = v.map_or(problem.clone(), |layout| problem.v(layout));
        problem = out.map_or(problem.clone(), |layout| problem.out(layout));
        problem = scale.map_or(problem.clone(), |scale| problem.scale(scale));
        problem = softcap.map_or(problem.clone(), |cap| problem.softcap(cap));
        problem = mask.map_or(problem.clone(), |layout| problem.mask(layout));
        problem = bias.map_or(problem.clone(), |layout| problem.bias(Dtype::ALL[bias_dtype], layout));
        problem = if kv_lengths { problem.kv_lengths() } else { problem };
        problem = if lse { problem.lse() } else { problem };
        problem = if weights { problem.weights() } else { problem };
        problem = weighed.map_or(problem.clone(), |(heads, start, end)| problem.weights_of(heads, start..end));
        tile.map_or(problem.clone(), |(rows, keys)| {
            problem.block_mask(BlockMask::new(rows, keys).per_batch().per_head())
        })
    })
}

#[test]
fn nothing_anyone_can_describe_makes_the_library_panic() {
    let (device, _queue) = noop_with_matrices();
    let mut caps = Caps::of(&device);
    let (fragment, tiles, multiplier) = (Fragment::Side16, Tiles::Vectors, Multiplier::Unit);
    caps.matrix_unit = Some(MatrixUnit { fragment, subgroup: 32, tiles, multiplier });
    let attention = Attention::with_caps(&device, caps);
    let (mut built, mut planned) = (0, 0);
    let config = Config { cases: 20_000, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let counts = std::cell::RefCell::new((&mut built, &mut planned));
    let ran = runner.run(&wild_problem(), |problem| {
        let Ok(problem) = problem.build() else { return Ok(()) };
        *counts.borrow_mut().0 += 1;
        let _sizes: Vec<u64> = problem.views().map(|view| view.size_bytes()).collect();
        // It does not matter here which kernel is compiled, so only the few with small heads are.
        let small = problem.shape().dim_qk <= 32 && problem.shape().dim_v <= 32;
        if small || attention.candidates(&problem).is_err() {
            // A problem without a block mask has none to compute.
            let _of_tiles = attention.plan_block_mask(&problem);
            let planned = attention.plan(&problem).is_ok();
            *counts.borrow_mut().1 += u32::from(planned);
        }
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{error}"));
    assert!(built > 300 && planned > 100, "too few were possible to mean much: {built} built, {planned} planned");
}
