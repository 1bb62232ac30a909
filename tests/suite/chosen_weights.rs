//! The weights of chosen heads and rows: the same bits as among the weights of all, wherever they are stored.

use std::ops::Range;

use truth::{Case, Expected, Fill, Outputs, naive};
use wgpu_attention::{
    BlockMask, Diagonal, Dtype, Operand, Problem, ProblemError, ResizeError, Shape, Window, blocking, reference,
};

use crate::case::{drawn, everything, full};
use crate::choice::{each_variant, verify};
use crate::device::{Device, all};
use crate::record::noop;

/// The same case with the weights of some heads and rows only.
fn choosing(case: &Case, heads: &[u32], rows: Range<u32>) -> Case {
    let chosen = case.problem.clone().to_builder().weights_of(heads, rows).build().unwrap();
    case.clone().with_problem(chosen)
}

/// Of all weights, those that `chosen` writes, in its order.
fn picked(whole: &Case, weights: &[f32], heads: &[u32], rows: &Range<u32>) -> Vec<f32> {
    let Shape { batch, len_kv, .. } = whole.problem.shape();
    let mut picked = Vec::new();
    for batch in 0..batch {
        for &head in heads {
            for row in rows.clone() {
                let start = whole.problem.weights_at([batch, head, row]).unwrap() as usize;
                picked.extend_from_slice(&weights[start..start + len_kv as usize]);
            }
        }
    }
    picked
}

fn bits(weights: &[f32]) -> Vec<u32> {
    weights.iter().map(|weight| weight.to_bits()).collect()
}

/// Eight query heads share two KV heads. Blocks of rows begin anywhere, and so do runs of heads.
fn cases() -> Vec<Case> {
    let shape = Shape::new(2, 8, 45, 32).kv_heads(2).kv_len(72);
    let odd = Shape::new(2, 8, 45, 21).kv_heads(2).kv_len(71);
    let with_tiles =
        Problem::builder(shape).mask(full(shape)).block_mask(BlockMask::new(12, 32).per_batch().per_head());
    let window = Window { left: Some(20), right: Some(3) };
    vec![
        drawn(everything(shape, Dtype::F32).causal(Diagonal::BottomRight).weights(), Fill::Normal, 91)
            .lengths(&[37, 52]),
        drawn(with_tiles.weights(), Fill::Normal, 92),
        drawn(Problem::builder(odd).dtype(Dtype::F16).window(window).sinks().weights(), Fill::Normal, 93),
    ]
}

const CHOICES: [(&[u32], Range<u32>); 5] = [
    (&[0, 1, 2, 3, 4, 5, 6, 7], 0..45),
    (&[3], 0..1),
    (&[6, 1, 7], 44..45),
    // A run that begins within a group and ends within the next.
    (&[2, 3, 4, 5], 7..40),
    (&[7, 6, 5], 3..45),
];

#[test]
fn chosen_weights_have_the_bits_they_have_among_all() {
    for whole in cases() {
        each_variant(&whole.problem, |device, variant| {
            let all = device.run(&whole, &variant);
            for (heads, rows) in CHOICES {
                let chosen = choosing(&whole, heads, rows.clone());
                let got = device.run(&chosen, &variant);
                let wanted = picked(&whole, all.weights.as_ref().unwrap(), heads, &rows);
                assert_eq!(got.stray, None);
                assert_eq!(bits(got.weights.as_ref().unwrap()), bits(&wanted), "{heads:?} {rows:?}, {variant}");
                assert_eq!((got.bits()[0].clone(), got.lse), (all.bits()[0].clone(), all.lse.clone()));
            }
        });
    }
}

/// Few rows, for which the output is computed by another kernel than for many.
#[test]
fn chosen_weights_are_right() {
    let token = Problem::builder(Shape::new(2, 6, 1, 64).kv_heads(3).kv_len(150)).causal(Diagonal::BottomRight);
    verify(&drawn(token.kv_lengths().weights_of([1, 4, 5], 0..1), Fill::Normal, 94).lengths(&[150, 97]));
    verify(&choosing(&cases()[0], &[6, 1, 2, 7], 5..31));
}

/// What is judged is what is written: weights of another head or row are wrong.
#[test]
fn weights_of_others_are_wrong() {
    let chosen = choosing(&cases()[0], &[6, 1], 5..31);
    let expected = Expected::of(&chosen);
    let honest = naive(&chosen);
    expected.check(&honest).unwrap();
    for (heads, rows) in [([1, 6], 5..31), ([6, 2], 5..31), ([6, 1], 4..30)] {
        let other = Outputs { weights: naive(&choosing(&chosen, &heads, rows)).weights, ..honest.clone() };
        expected.check(&other).unwrap_err();
    }
    let fewer = Outputs { weights: naive(&choosing(&chosen, &[6, 1], 5..30)).weights, ..honest };
    expected.check(&fewer).unwrap_err();
}

#[test]
fn each_run_of_heads_is_a_dispatch_and_may_be_cut() {
    let whole = &cases()[0];
    let weights_of = |device: &Device, case: &Case| {
        let variant = device.attention.candidates(&case.problem).unwrap()[0].clone();
        let (outputs, dispatches) = device.run_by(&device.attention, case, &variant);
        (bits(&outputs.weights.unwrap()), dispatches)
    };
    for device in all() {
        let plain = drawn(whole.problem.clone().to_builder(), Fill::Normal, 95);
        let (_, of_all) = weights_of(device, &plain);
        // 2, 3 end a group; then 4, 5; then 0.
        let chosen = choosing(&plain, &[2, 3, 4, 5, 0], 7..40);
        let (wanted, of_runs) = weights_of(device, &chosen);
        assert_eq!(of_runs, of_all + 2, "{}", device.name);
        for cut in [1, 200_000] {
            let hasty = device.with_caps(|caps| caps.dispatch_flop = cut);
            let _guard = device.enter();
            let (got, dispatches) = weights_of(&hasty, &chosen);
            assert!(dispatches > of_runs);
            assert_eq!(got, wanted, "{}", device.name);
        }
    }
}

#[test]
fn chosen_weights_may_share_the_buffer_of_their_inputs() {
    let shape = Shape::new(2, 4, 33, 32).kv_heads(2).kv_len(40);
    let problem = Problem::builder(shape).mask(full(shape)).shared_buffers().weights_of([3, 0], 10..30);
    verify(&drawn(problem, Fill::Normal, 96));
}

/// The buffer is as large as what is chosen, in `blocking` and in the reference too.
#[test]
fn nothing_else_is_stored() {
    let whole = &cases()[0];
    let exact = |case: &Case| reference::attention(&case.problem, &case.inputs()).unwrap();
    let all_exact = exact(whole).weights;
    let device = &all()[0];
    let _guard = device.enter();
    for (heads, rows) in CHOICES.into_iter().chain([(&[0, 2, 3][..], 9..9)]) {
        let chosen = choosing(whole, heads, rows.clone());
        let count = 2 * heads.len() * rows.len() * 72;
        assert_eq!(chosen.view(Operand::Weights).end() as usize, count);
        let ran = blocking::attention(&device.attention, &device.queue, &chosen.problem, &chosen.inputs()).unwrap();
        assert_eq!(ran.weights.as_ref().map(Vec::len), Some(count));
        let all_exact: Vec<f32> = all_exact.iter().map(|&weight| weight as f32).collect();
        let got: Vec<f32> = exact(&chosen).weights.iter().map(|&weight| weight as f32).collect();
        assert_eq!(got, picked(whole, &all_exact, heads, &rows));
    }
    let chosen = choosing(whole, &[6, 1], 5..31).problem;
    assert_eq!(chosen.weights_at([1, 1, 6]), Some((3 * 26 + 1) * 72));
    for missing in [[2, 6, 6], [0, 2, 6], [0, 6, 4], [0, 6, 31]] {
        assert_eq!(chosen.weights_at(missing), None);
    }
    assert_eq!(chosen.clone().to_builder().weights().build().unwrap(), whole.problem, "the last call counts");
    assert_eq!(Problem::builder(chosen.shape()).build().unwrap().weights_at([0; 3]), None);
}

#[test]
fn rows_must_still_exist_after_resizing() {
    let (device, _queue) = noop();
    let problem = Problem::builder(Shape::new(1, 4, 8, 32)).weights_of([2], 3..8).build().unwrap();
    let plan = wgpu_attention::Attention::new(&device).plan(&problem).unwrap();
    let longer = plan.resized(9, 20).unwrap();
    assert_eq!(longer.problem().view(Operand::Weights).unwrap().extent, [1, 1, 5, 20]);
    let error = plan.resized(7, 20).unwrap_err();
    assert_eq!(error, ResizeError::Problem(ProblemError::WeightsOfMissingRows { start: 3, end: 8, len_q: 7 }));
}
