//! Extreme problems: those without keys or rows, scores and values that are not finite, and numbers near the ends of f32's
//! range.

use truth::{Case, Expected, Fill};
use wgpu_attention::{
    Diagonal, Dtype, Inputs, Operand, PlanError, Problem, ProblemBuilder, ProblemError, Shape, Window, blocking,
    reference,
};

use crate::case::{drawn, everything, full};
use crate::choice::{each_variant, verify};
use crate::device::all;

/// Two batches, two heads that share a KV head, two tiles of keys.
fn shape() -> Shape {
    Shape::new(2, 2, 35, 32).kv_heads(1).kv_len(50)
}

#[test]
fn without_keys_every_row_is_empty() {
    let shape = shape().kv_len(0);
    let problems = [
        Problem::builder(shape).lse(),
        everything(shape, Dtype::F32).causal(Diagonal::BottomRight).weights(),
        Problem::builder(Shape { len_q: 1, ..shape }).lse(),
    ];
    for problem in problems {
        let case = drawn(problem, Fill::Normal, 1);
        let case = if case.problem.uses(Operand::KvLengths) { case.lengths(&[0, 9]) } else { case };
        let inputs = case.inputs();
        for device in all() {
            for variant in device.variants(&case.problem) {
                let _guard = device.enter();
                let got = blocking::attention_with(&device.attention, &device.queue, &case.problem, &inputs, &variant);
                let got = got.unwrap_or_else(|error| panic!("{variant} on {}: {error}", device.name));
                assert_eq!(got.out.len(), case.rows().count() * 32, "{variant}");
                assert!(got.out.iter().all(|&x| x == 0.0), "{variant} on {}", device.name);
                assert!(got.lse.unwrap().iter().all(|&x| x == f32::NEG_INFINITY), "{variant} on {}", device.name);
                assert_eq!(got.weights, case.problem.uses(Operand::Weights).then(Vec::new));
            }
        }
    }
}

#[test]
fn without_rows_there_is_nothing_to_do() {
    for shape in
        [Shape { batch: 0, ..shape() }, Shape { len_q: 0, ..shape() }, Shape { batch: 0, len_kv: 0, ..shape() }]
    {
        let case =
            drawn(everything(shape, Dtype::F32).weights(), Fill::Normal, 2).lengths(&vec![50; shape.batch as usize]);
        let exact = reference::attention(&case.problem, &case.inputs()).unwrap();
        assert_eq!((exact.out.len(), exact.lse.len(), exact.weights.len()), (0, 0, 0));
        for device in all() {
            let _guard = device.enter();
            assert_eq!(device.attention.plan(&case.problem).unwrap().dispatches(), 0);
            let got = blocking::attention(&device.attention, &device.queue, &case.problem, &case.inputs()).unwrap();
            assert_eq!((got.out, got.lse, got.weights), (vec![], Some(vec![]), Some(vec![])));
            let timed = blocking::tune(&device.attention, &device.queue, &case.problem).unwrap();
            assert!(!timed.rows().is_empty());
        }
    }
}

/// Queries that are positive, so that a key of −∞ scores −∞.
fn with_key_of_minus_infinity(problem: ProblemBuilder, key: u32) -> Case {
    drawn(problem, Fill::Normal, 3)
        .edited(Operand::Q, |_, x| x.abs() + 0.1)
        .edited(Operand::K, |[_, _, j, _], x| if j == key { f32::NEG_INFINITY } else { x })
}

#[test]
fn a_row_that_sees_only_scores_of_minus_infinity_is_nan() {
    // Row i sees key i alone, of which key 20 scores −∞.
    let itself = Window { left: Some(0), right: Some(0) };
    let case = with_key_of_minus_infinity(Problem::builder(shape()).window(itself).lse().weights(), 20);
    let exact = reference::row(&case.problem, &case.inputs(), [0, 0, 20]).unwrap();
    assert!(exact.lse.is_nan() && exact.out.iter().all(|x| x.is_nan()) && exact.weights[20].is_nan());
    let expected = Expected::of(&case);
    each_variant(&case.problem, |device, variant| {
        let got = device.run(&case, &variant);
        let name = format!("{variant} on {}", device.name);
        expected.check_rows(&got, |[_, _, i]| i != 20).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
        let (lse, weights) = (got.lse.unwrap(), got.weights.unwrap());
        for (row, _) in case.rows().enumerate().filter(|(_, [_, _, i])| *i == 20) {
            let out = &got.out[row * 32..][..32];
            assert!(out.iter().all(|x| x.is_nan()), "{name}, row {row}: {out:?}");
            assert!(lse[row].is_nan(), "{name}, row {row}: {}", lse[row]);
            let as_seen = |(j, &p): (usize, &f32)| if j == 20 { p.is_nan() } else { p == 0.0 };
            assert!(weights[row * 50..][..50].iter().enumerate().all(as_seen), "{name}, row {row}");
        }
    });
}

#[test]
fn a_score_of_minus_infinity_beside_others_has_no_weight() {
    // Many rows, split keys, and few rows.
    for shape in [shape(), shape().kv_len(1100), Shape { len_q: 1, ..shape() }] {
        verify(&with_key_of_minus_infinity(Problem::builder(shape).lse(), 20));
    }
}

#[test]
fn a_value_that_is_not_finite_leaves_the_lse_alone() {
    let clean = drawn(Problem::builder(shape()).causal(Diagonal::TopLeft).lse(), Fill::Normal, 4);
    let expected = Expected::of(&clean);
    // In a value's first element and in a later one.
    for (column, poison) in [(0, f32::NAN), (29, f32::INFINITY), (29, f32::NEG_INFINITY)] {
        let spoil = |[_, _, j, d]: [u32; 4], x| if j == 20 && d == column { poison } else { x };
        let non_finite = clean.clone().edited(Operand::V, spoil);
        each_variant(&non_finite.problem, |device, variant| {
            let mut got = device.run(&non_finite, &variant);
            let name = format!("{variant} on {}", device.name);
            for (row, at) in non_finite.rows().enumerate().filter(|(_, [_, _, i])| *i >= 20) {
                let out = &mut got.out[row * 32..][..32];
                let seen = out[column as usize];
                assert!(!seen.is_finite(), "{name}: row {row} saw {poison} and has {seen}");
                // With the row's output set right, its LSE is judged, and all other rows.
                let exact = reference::row(&clean.problem, &clean.inputs(), at).unwrap().out;
                out.iter_mut().zip(exact).for_each(|(out, exact)| *out = exact as f32);
            }
            expected.check(&got).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
        });
    }
}

#[test]
fn scales_reach_both_ends_of_their_range() {
    let largest = f32::MAX / std::f32::consts::LOG2_E;
    for scale in [f32::MIN_POSITIVE, -f32::MIN_POSITIVE, 1e-30, 1e30, largest, -largest] {
        // Queries that make scores of ordinary size, as far as f32 holds them.
        let by = (1.0 / scale.abs()).clamp(1e-36, 1e36);
        for problem in [
            Problem::builder(shape()),
            Problem::builder(shape()).softcap(3.0),
            Problem::builder(shape()).bias(Dtype::F32, full(shape())),
        ] {
            verify(&drawn(problem.scale(scale).lse(), Fill::Normal, 5).edited(Operand::Q, |_, x| x * by));
        }
    }
    for scale in [f32::NAN, f32::INFINITY, 2.4e38, f32::MAX] {
        for scale in [scale, -scale] {
            let refused = Problem::builder(shape()).scale(scale).build();
            assert!(matches!(refused, Err(ProblemError::Scale(_))), "{scale}");
        }
    }
}

/// Weighted values are summed before they are divided by the sum of the weights, and the largest weight may be 16.
#[test]
fn values_may_be_as_large_as_their_sum_allows() {
    for shape in [shape(), Shape { len_q: 1, ..shape() }] {
        for (dtype, fill) in [(Dtype::F32, Fill::Constant), (Dtype::F32, Fill::Normal), (Dtype::Bf16, Fill::Constant)] {
            let most = 2e37 / shape.len_kv as f32;
            let case = drawn(Problem::builder(shape).dtype(dtype).lse(), fill, 6);
            verify(&case.edited(Operand::V, |[_, _, _, d], _| if d % 2 == 0 { most } else { -most }));
        }
    }
}

#[test]
fn inputs_without_elements_are_given_as_empty_slices() {
    let problem = Problem::builder(shape().kv_len(0)).build().unwrap();
    let q = vec![1.0; 2 * 2 * 35 * 32];
    let row = reference::row(&problem, &Inputs { q: &q, ..Inputs::default() }, [0, 0, 0]).unwrap();
    assert_eq!((row.out, row.lse, row.weights), (vec![0.0; 32], f64::NEG_INFINITY, vec![]));
}

/// Heads wider than a kernel has room for: their values are computed some columns at a time.
#[test]
fn wide_heads_are_computed_some_columns_at_a_time() {
    // Multi-head latent attention in fours, for many rows and with the keys in parts; and an odd head whose last columns are few.
    let latent = (Shape { dim_qk: 576, dim_v: 512, ..shape() }, Dtype::F16);
    let odd = (Shape { dim_qk: 33, dim_v: 259, ..shape() }, Dtype::F32);
    for ((shape, dtype), len_q, len_kv) in [(latent, 40, 50), (latent, 2, 1100), (odd, 2, 1100)] {
        let problem =
            Problem::builder(Shape { len_q, len_kv, ..shape }).dtype(dtype).causal(Diagonal::BottomRight).lse();
        verify(&drawn(problem, Fill::Normal, 7));
    }
    let too_wide = Problem::builder(Shape { dim_v: 577, ..shape() }).build().unwrap();
    for device in all() {
        let refused = device.attention.plan(&too_wide).map(|_| ());
        assert!(matches!(refused, Err(PlanError::HeadSize { axis: "dim_v", dim: 577, most: 576 })), "{refused:?}");
    }
}
