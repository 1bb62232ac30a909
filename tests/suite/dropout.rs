//! Dropout, forwards and backwards.

use truth::{Expected, Fill};
use wgpu_attention::{
    BlockMask, Diagonal, Dtype, Inputs, Operand, Pages, Philox, Problem, ProblemBuilder, RngState, Shape, Slopes,
    Window, blocking,
};

use crate::backward::{Backward, devices, shape};
use crate::case::{drawn, full};
use crate::choice::{verify, verify_variant};
use crate::device::{all, with_real_matrices};
use crate::matrix::{in_f16, verify_in_turn};
use crate::questions::{dropped, dropped_in_parts};
use crate::record::operands;

const STATE: Philox = Philox::new(0x0123_4567_89ab_cdef, 7);
const FIXED: RngState = RngState::Fixed(STATE);

/// Sums and positions of every kind, at sizes that end within blocks.
fn problems() -> Vec<ProblemBuilder> {
    let shape = Shape::new(2, 4, 45, 24).kv_heads(2).kv_len(70).value_dim(20);
    let plain = || Problem::builder(shape).lse();
    let window = Window { left: Some(13), right: Some(6) };
    vec![
        plain().dropout(0.4, FIXED).softcap(5.0).mask(full(shape)).bias(Dtype::F32, full(shape)).kv_lengths(),
        plain().dropout(0.9, RngState::Buffer).window(window).diagonal(Diagonal::Offset(9)).sinks(),
        plain().dropout(0.1, RngState::Buffer).dtype(Dtype::F16).q_lengths().alibi(Slopes::PerHead),
        plain().dropout(0.5, RngState::Buffer).ragged_q(80).ragged_kv(130).causal(Diagonal::BottomRight),
        Problem::builder(Shape::new(1, 3, 9, 7).kv_len(33)).dropout(0.5, FIXED).weights().lse(),
        // Keys in pages, in a ring, and in tiles of which some are skipped.
        plain().dropout(0.5, FIXED).paged_kv(Pages { count: 40, size: 5 }).kv_lengths(),
        Problem::builder(Shape::new(2, 4, 6, 24).kv_heads(2).kv_len(500))
            .dropout(0.5, FIXED)
            .window(Window { left: Some(20), right: Some(0) })
            .diagonal(Diagonal::BottomRight)
            .ring_kv(32),
        plain().dropout(0.5, FIXED).block_mask(BlockMask::new(16, 32).per_head()).shared_buffers(),
    ]
}

#[test]
fn kernels_drop_the_weights_that_the_reference_drops() {
    verify(&dropped());
    verify(&dropped_in_parts());
    for (n, problem) in problems().into_iter().enumerate() {
        verify(&drawn(problem, Fill::Normal, n as u64));
    }
}

/// Only on drivers that have matrices: others take long to compile the kernel.
#[test]
fn matrix_units_drop_the_same_weights() {
    let case = in_f16(dropped());
    for (turn, device) in with_real_matrices().enumerate() {
        verify_in_turn(device, &case, turn);
    }
}

/// Pieces of a problem draw the numbers of the whole.
#[test]
fn cutting_drops_the_same_weights() {
    for case in [dropped(), dropped_in_parts()] {
        let expected = Expected::of(&case);
        for device in all() {
            let cut = device.with_caps(|caps| caps.dispatch_flop = 1);
            // The pieces are the same for all.
            for variant in cut.variants(&case.problem).into_iter().take(1) {
                verify_variant(&case, &expected, &cut, &variant);
            }
        }
    }
}

#[test]
fn gradients_are_those_of_what_was_kept() {
    let plain = || Problem::builder(shape());
    for (n, problem) in [
        plain().dropout(0.4, FIXED).causal(Diagonal::TopLeft).sinks(),
        plain().dropout(0.4, RngState::Buffer).softcap(3.0).kv_lengths(),
        plain().dropout(0.2, FIXED).bias(Dtype::F32, full(shape())),
        Problem::builder(Shape::new(4, 4, 45, 24).kv_heads(2).kv_len(70))
            .ragged_q(130)
            .ragged_kv(200)
            .dropout(0.3, FIXED)
            .window(Window { left: Some(20), right: Some(3) }),
    ]
    .into_iter()
    .enumerate()
    {
        Backward::with(problem, Fill::Normal, n as u64, |gradients| gradients.dlse()).verify();
    }
}

/// Each piece of a gradient that is cut draws the numbers of the whole.
#[test]
fn cutting_gradients_drops_the_same_weights() {
    let problem = Problem::builder(shape()).dropout(0.4, FIXED).causal(Diagonal::TopLeft);
    let backward = Backward::new(problem, Fill::Normal, 3);
    for device in devices() {
        let cut = device.with_caps(|caps| caps.dispatch_flop = 1);
        assert_eq!(backward.run(&cut), backward.run(device), "{}", device.name);
    }
    backward.verify();
}

/// Problems that differ only in the state share kernels, but not parameters.
#[test]
fn states_of_problems_share_kernels() {
    let problem = |state| Problem::builder(shape()).dropout(0.5, RngState::Fixed(state)).build().unwrap();
    let states = [STATE, Philox { offset: 8, ..STATE }];
    for device in all() {
        let plans = states.map(|state| device.attention.plan(&problem(state)).unwrap());
        assert!(plans[0].variants().eq(plans[1].variants()));
        let resized = plans[0].resized(9, 50).unwrap();
        assert_eq!(resized.problem().rng_state(), Some(FIXED));
    }
    for state in states {
        verify(&drawn(problem(state).to_builder(), Fill::Normal, 1));
    }
}

/// The bits of one run depend on the state, which a buffer may change from run to run.
#[test]
fn each_state_drops_other_weights_and_the_same_one_the_same() {
    let case = dropped();
    for device in all() {
        let out = |state| {
            let mut case = case.clone();
            case.host.rng_state = Some(state);
            let variant = device.variants(&case.problem).remove(0);
            device.run(&case, &variant).bits()
        };
        let [seed, offset] = [Philox::new(0x1123_4567_89ab_cdef, 7), Philox { offset: 8, ..STATE }];
        assert_eq!(out(STATE), out(STATE));
        for other in [seed, offset] {
            assert_ne!(out(STATE)[0], out(other)[0]);
            // The log-sum-exp is that without dropout.
            assert_eq!(out(STATE)[1], out(other)[1]);
        }
    }
}

/// As many are kept as the probability says, in all directions, and without a trend.
#[test]
fn shares_of_what_is_kept_are_as_said() {
    let problem = Problem::builder(Shape::new(4, 4, 64, 8)).dropout(0.3, FIXED).build().unwrap();
    let deviation = |pairs: &mut dyn Iterator<Item = [u32; 4]>| {
        let kept: Vec<bool> = pairs.map(|pair| problem.keeps(STATE, pair)).collect();
        (kept.iter().filter(|kept| **kept).count() as f64 - 0.7 * kept.len() as f64) / (0.21 * kept.len() as f64).sqrt()
    };
    // Deviations of single rows, keys, heads and batches, in standard deviations.
    for n in 0..4 {
        let all = || truth::indices([4, 4, 64, 64]);
        for axis in 0..4 {
            let deviation = deviation(&mut all().filter(|at| at[axis] == n));
            assert!(deviation.abs() < 4.0, "{deviation} where index {axis} is {n}");
        }
    }
    assert!(deviation(&mut truth::indices([4, 4, 64, 64])).abs() < 4.0);
}

#[test]
fn no_dropout_is_the_same_problem() {
    let plain = Problem::builder(shape());
    assert_eq!(plain.clone().dropout(0.0, FIXED).build(), plain.build());
    assert!(plain.build().unwrap().keeps(STATE, [0; 4]));
}

/// With every weight kept or dropped as the caller computes it, the sum over the values is the output.
#[test]
fn the_callers_own_sum_is_the_output() {
    let case = drawn(Problem::builder(Shape::new(1, 2, 5, 8).kv_len(40)).dropout(0.5, FIXED), Fill::Normal, 1);
    let without = Problem::builder(Shape::new(1, 2, 5, 8).kv_len(40)).weights().build().unwrap();
    for device in all() {
        let run = |problem: &Problem| {
            let _guard = device.enter();
            blocking::attention(&device.attention, &device.queue, problem, &case.inputs()).unwrap()
        };
        let (dropped, weights) = (run(&case.problem).out, run(&without).weights.unwrap());
        for ([_, h, i, d], got) in truth::indices([1, 2, 5, 8]).zip(dropped) {
            let terms = (0..40)
                .filter(|&j| case.problem.keeps(STATE, [0, h, i, j]))
                .map(|j| 2.0 * weights[((h * 5 + i) * 40 + j) as usize] * case.host.v[((h * 40 + j) * 8 + d) as usize]);
            let sum: f32 = terms.sum();
            assert!((sum - got).abs() < 1e-5, "{sum} {got} on {}", device.name);
        }
    }
}

/// The state is an input like any other.
#[test]
fn the_state_is_given_if_it_is_asked_for() {
    use wgpu_attention::BindError as E;
    let case = dropped();
    let device = &all()[0];
    let _guard = device.enter();
    let call = |inputs: &Inputs<'_>, problem: &Problem| {
        let error = blocking::attention(&device.attention, &device.queue, problem, inputs).unwrap_err();
        error.to_string()
    };
    let missing = call(&Inputs { rng_state: None, ..case.inputs() }, &case.problem);
    assert!(missing.contains("rng_state"), "{missing}");
    let fixed = case.problem.clone().to_builder().dropout(0.5, FIXED).build().unwrap();
    assert!(call(&case.inputs(), &fixed).contains("rng_state"));
    let plan = device.attention.plan(&case.problem).unwrap();
    let short = device.upload(&[0; 8]);
    let buffers: Vec<_> = case
        .problem
        .views()
        .map(|view| (view.operand, device.upload(&vec![0; view.size_bytes().next_multiple_of(4) as usize])))
        .collect();
    let error = plan.bind(&operands(&buffers).with(Operand::RngState, short.as_entire_buffer_binding())).unwrap_err();
    assert!(matches!(error, E::TooSmall { operand: Operand::RngState, .. }), "{error:?}");
}

/// Gradients and attention have the same operand for it.
#[test]
fn both_directions_have_the_state() {
    let problem = Problem::builder(shape()).dropout(0.5, RngState::Buffer).lse().build().unwrap();
    let gradients = problem.gradients().build().unwrap();
    for view in [problem.view(Operand::RngState), gradients.view(Operand::RngState)] {
        assert_eq!(view.unwrap().size_bytes(), 12);
    }
}
