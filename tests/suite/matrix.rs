//! Kernels on matrix units: the device's own, if it has one, and emulated units of other sizes, so that the whole schedule
//! is tried even without one.

use truth::{Case, Expected, Fill};
use wgpu_attention::blocking::{NoMatrixUnit, try_matrix_unit};
use wgpu_attention::{Dtype, Multiplier, Operand, Problem, Shape, Variant};

use crate::case::drawn;
use crate::choice::verify_variant;
use crate::device::{Device, with_matrix_units, with_real_matrices};
use crate::questions::{
    all_features, biased, bottom_right, causal, deep_bias, empty_rows, filled, gappy, hidden_by_bias, huge_first,
    large, left_window, lengths_past_the_end, long, long_and_mostly_hidden, long_staircase, lowest_bias, masked,
    nan_behind_band, nan_behind_bias, nan_past_lengths, odd_f16, plain, softcapped, some_lengths, staircase, tall,
    tall_window, upside_down, wide, windowed,
};

/// The same case with f16 elements.
pub fn in_f16(case: Case) -> Case {
    let problem = case.problem.clone().to_builder().dtype(Dtype::F16).build().unwrap();
    case.with_problem(problem)
}

/// Runs a case as every variant of a device.
fn verify(device: &Device, case: &Case) {
    verify_variants(device, case, &device.variants(&case.problem));
}

/// Runs a case as the variant of a device whose turn it is.
pub fn verify_in_turn(device: &Device, case: &Case, turn: usize) {
    let variants = device.variants(&case.problem);
    let start = turn % variants.len().max(1);
    verify_variants(device, case, &variants[start..][..1]);
}

fn verify_variants(device: &Device, case: &Case, variants: &[Variant]) {
    let expected = Expected::of(case);
    assert!(!variants.is_empty(), "{} runs nothing", device.name);
    for variant in variants {
        verify_variant(case, &expected, device, variant);
    }
}

#[test]
fn units_pass_what_the_probe_asks() {
    for device in with_real_matrices() {
        let unit = device.attention.caps().matrix_unit.unwrap();
        try_matrix_unit(device.attention.device(), &device.queue, unit).unwrap();
    }
}

/// If subgroups are larger than stated, two of the kernel's subgroups share one, and the product is wrong.
#[test]
fn subgroups_that_are_larger_than_said_are_noticed() {
    for device in with_matrix_units() {
        let mut unit = device.attention.caps().matrix_unit.unwrap();
        if unit.multiplier == Multiplier::Unit {
            unit.subgroup /= 2;
            let tried = try_matrix_unit(device.attention.device(), &device.queue, unit);
            let is_noticed = matches!(tried, Err(NoMatrixUnit::Product { .. } | NoMatrixUnit::Impossible { .. }));
            assert!(is_noticed, "{tried:?} on {}", device.name);
        }
    }
}

/// Few query rows, one for each head of a group.
fn decoding() -> Case {
    filled(Problem::builder(Shape::new(1, 8, 1, 32).kv_heads(1).kv_len(77)), Fill::Spike)
}

fn is_a_unit(device: &Device) -> bool {
    device.attention.caps().matrix_unit.is_some_and(|unit| unit.multiplier == Multiplier::Unit)
}

#[test]
fn emulated_units_answer() {
    let questions: [fn() -> Case; 5] = [plain, staircase, tall, decoding, all_features];
    for device in with_matrix_units().iter().filter(|device| !is_a_unit(device)) {
        let asked = if device.has_matrices() { &questions[..] } else { &questions[..4] };
        asked.iter().for_each(|question| verify(device, &in_f16(question())));
    }
}

/// Every variant computes a few questions. The others go to one variant each, because each compiles a different text and a
/// software driver takes seconds for it.
#[test]
fn units_answer_every_question() {
    let questions: [fn() -> Case; 30] = [
        plain,
        staircase,
        tall,
        decoding,
        all_features,
        causal,
        windowed,
        bottom_right,
        left_window,
        upside_down,
        || huge_first(5),
        || huge_first(127),
        || large(1e4),
        || large(1e5),
        softcapped,
        biased,
        hidden_by_bias,
        nan_behind_bias,
        deep_bias,
        lowest_bias,
        tall_window,
        empty_rows,
        masked,
        nan_behind_band,
        nan_past_lengths,
        lengths_past_the_end,
        some_lengths,
        wide,
        odd_f16,
        || gappy(Dtype::F16),
    ];
    for device in with_matrix_units().iter().filter(|device| is_a_unit(device)) {
        let (to_all, in_turn) = questions.split_at(5);
        to_all.iter().for_each(|question| verify(device, &in_f16(question())));
        in_turn.iter().enumerate().for_each(|(turn, question)| verify_in_turn(device, &in_f16(question()), turn));
    }
}

/// Keys split over workgroups, whose anchors differ.
#[test]
fn parts_on_matrix_units_merge() {
    for device in with_matrix_units().iter().filter(|device| is_a_unit(device)) {
        for case in [long, long_staircase, long_and_mostly_hidden] {
            let case = in_f16(case());
            let split = device.with_caps(|caps| caps.workgroups_to_fill = 1 << 20);
            let expected = Expected::of(&case);
            for variant in split.variants(&case.problem) {
                let plan = split.attention.plan_variant(&case.problem, &variant).unwrap();
                assert!(plan.parts() > 1, "{variant}");
                expected.check(&split.run(&case, &variant)).unwrap_or_else(|wrong| panic!("{variant}: {wrong}"));
            }
        }
    }
}

/// Some drivers end long loops early, and an emulated unit has long loops. Every key must still count.
#[test]
fn long_sequences_lose_no_key() {
    let shape = Shape::new(1, 1, 16, 16).kv_len(30_000);
    let case = drawn(Problem::builder(shape).dtype(Dtype::F16).scale(0.0).lse(), Fill::Normal, 80);
    for device in with_matrix_units() {
        let undivided = device.with_caps(|caps| caps.workgroups_to_fill = 1);
        verify(&undivided, &case);
    }
}

/// The smallest scales, at which no power of two tells a score from the lowest number.
#[test]
fn subnormal_scales_keep_the_log_sum_exp() {
    for device in with_matrix_units().iter().filter(|device| is_a_unit(device)) {
        for scale in [9e-39, 1e-38, 1.1e-38, 2e-38, 1e-45] {
            let problem = Problem::builder(Shape::new(1, 2, 35, 32).kv_len(52)).dtype(Dtype::F16).scale(scale).lse();
            verify(device, &drawn(problem, Fill::Normal, 81));
        }
    }
}

/// One key's value is infinite: the rows that see it are not finite, the others must not change.
#[test]
fn a_value_that_is_not_finite_touches_only_the_rows_that_see_it() {
    let case = in_f16(causal()).edited(Operand::V, |[_, _, j, d], x| if j == 20 && d == 3 { f32::INFINITY } else { x });
    let rows = case.problem.shape().len_q;
    let dim = case.problem.shape().dim_v as usize;
    for device in with_matrix_units().iter().filter(|device| is_a_unit(device)) {
        let plain = in_f16(causal());
        for variant in device.variants(&case.problem) {
            let (got, honest) = (device.run(&case, &variant).out, device.run(&plain, &variant).out);
            for (n, (got, honest)) in got.chunks(dim).zip(honest.chunks(dim)).enumerate() {
                let sees = n as u32 % rows >= 20;
                assert!(if sees { !got[3].is_finite() } else { got == honest }, "{variant}, row {n}: {got:?}");
            }
        }
    }
}

/// Whether a row's anchor moves decides how O is kept for all rows of the workgroup, which must not change the other rows.
#[test]
fn a_row_has_the_same_bits_whatever_its_neighbours_hold() {
    let calm = in_f16(plain());
    let wild = calm.clone().edited(Operand::Q, |[_, _, i, _], x| if i == 7 { x } else { 40.0 * x + 3.0 });
    let rows = calm.problem.shape().len_q;
    let dim = calm.problem.shape().dim_v as usize;
    for device in with_matrix_units() {
        let mut variants = device.variants(&calm.problem);
        // Shapes of workgroups differ in nothing that an emulated unit could show and a unit could not.
        variants.truncate(if is_a_unit(device) { usize::MAX } else { 1 });
        for variant in variants {
            let [a, b, again] = [&calm, &wild, &calm].map(|case| device.run(case, &variant));
            assert_eq!(a.bits(), again.bits(), "{variant}: the same bits from run to run");
            for (n, (a, b)) in a.out.chunks(dim).zip(b.out.chunks(dim)).enumerate() {
                assert!(n as u32 % rows != 7 || a == b, "{variant}, row {n}");
            }
        }
    }
}

/// Selection takes the matrix unit for f16 on a GPU that has one, and for nothing else.
#[test]
fn selection_prefers_a_unit_where_it_can() {
    for device in with_matrix_units() {
        let gpu = device.with_caps(|caps| caps.is_software = false);
        let best = |dtype| {
            let problem = Problem::builder(Shape::new(1, 8, 512, 64)).dtype(dtype).build().unwrap();
            gpu.attention.candidates(&problem).unwrap()[0].is_on_matrix_unit()
        };
        assert_eq!([Dtype::F16, Dtype::F32, Dtype::Bf16].map(best), [true, false, false]);
    }
}
