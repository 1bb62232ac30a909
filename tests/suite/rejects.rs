//! The tolerance itself: what it must reject, in every element type, and the naive result that it must accept.

use truth::{Case, Expected, Fill, Outputs, naive};
use wgpu_attention::{Diagonal, Dtype, Operand, Problem, Shape, Window};

use crate::case::drawn;

const TILE: u32 = 32;

fn shape() -> Shape {
    Shape::new(1, 4, 40, 16).kv_heads(2).kv_len(3 * TILE)
}

/// A wrong result must be rejected for every element type and for all `fills`, which are those in which it can show.
fn assert_rejected(fills: &[Fill], right: fn(Dtype) -> Unfilled, wrong: impl Fn(&Case) -> Outputs) {
    for dtype in Dtype::ALL {
        for &fill in fills {
            let case = right(dtype).filled(fill);
            let expected = Expected::of(&case);
            expected.check(&naive(&case)).expect("the naive result is right");
            let verdict = expected.check(&wrong(&case));
            assert!(verdict.is_err(), "accepted for {dtype} {fill:?}: {verdict:?}");
        }
    }
}

/// A problem still to be filled.
struct Unfilled(wgpu_attention::ProblemBuilder);

impl Unfilled {
    fn filled(self, fill: Fill) -> Case {
        drawn(self.0, fill, 11)
    }
}

fn plain(dtype: Dtype) -> Unfilled {
    Unfilled(Problem::builder(shape()).dtype(dtype))
}

fn causal(dtype: Dtype) -> Unfilled {
    Unfilled(Problem::builder(shape()).dtype(dtype).causal(Diagonal::TopLeft))
}

const TELLING: [Fill; 3] = [Fill::Normal, Fill::Spike, Fill::Staircase];

#[test]
fn all_zeros() {
    assert_rejected(&TELLING, plain, |case| {
        let mut got = naive(case);
        got.out.fill(0.0);
        got
    });
}

#[test]
fn one_nan() {
    assert_rejected(&Fill::ALL, plain, |case| {
        let mut got = naive(case);
        got.out[100] = f32::NAN;
        got
    });
}

#[test]
fn a_missing_row() {
    assert_rejected(&[Fill::Normal, Fill::Spike, Fill::Constant], plain, |case| {
        let mut got = naive(case);
        got.out[16 * 7..16 * 8].fill(0.0);
        got
    });
}

#[test]
fn mean_of_v() {
    assert_rejected(&TELLING, plain, |case| naive(&case.clone().edited(Operand::Q, |_, _| 0.0)));
}

#[test]
fn scale_doubled_or_halved() {
    for factor in [2.0, 0.5] {
        assert_rejected(&[Fill::Normal], plain, |case| {
            let scale = case.problem.scale() * factor;
            naive(
                &case.with_problem(
                    Problem::builder(shape()).dtype(case.dtype(Operand::Q)).scale(scale).build().unwrap(),
                ),
            )
        });
    }
}

#[test]
fn mask_off_by_one_either_way() {
    for offset in [-1, 1] {
        assert_rejected(&TELLING, causal, |case| {
            let problem = Problem::builder(shape()).dtype(case.dtype(Operand::Q)).causal(Diagonal::Offset(offset));
            naive(&case.with_problem(problem.build().unwrap()))
        });
    }
}

#[test]
fn wrong_alignment() {
    assert_rejected(&TELLING, causal, |case| {
        let problem = Problem::builder(shape()).dtype(case.dtype(Operand::Q)).causal(Diagonal::BottomRight);
        naive(&case.with_problem(problem.build().unwrap()))
    });
}

#[test]
fn wrong_kv_head() {
    assert_rejected(&[Fill::Normal, Fill::Spike], plain, |case| {
        let of_other = |operand: Operand| {
            let case = case.clone();
            move |[b, h, i, d]: [u32; 4], _: f32| case.get(operand, [b, 1 - h, i, d])
        };
        naive(&case.clone().edited(Operand::K, of_other(Operand::K)).edited(Operand::V, of_other(Operand::V)))
    });
}

#[test]
fn a_dropped_last_tile() {
    assert_rejected(&[Fill::Normal, Fill::Staircase], plain, |case| {
        let last = case.problem.shape().len_kv - TILE - 1;
        // With row 0 standing at key 0, a window right of it ends at the last key of the last tile but one for row 0.
        let window = Window { left: None, right: Some(last) };
        naive(
            &case.with_problem(Problem::builder(shape()).dtype(case.dtype(Operand::Q)).window(window).build().unwrap()),
        )
    });
}

#[test]
fn a_maximum_that_is_not_rescaled() {
    assert_rejected(&[Fill::Normal, Fill::Staircase], plain, without_rescale);
}

/// Online softmax over tiles that forgets to rescale earlier results to the new maximum.
fn without_rescale(case: &Case) -> Outputs {
    let shape = case.problem.shape();
    let mut out = Vec::new();
    for [b, h, i] in case.rows() {
        let kv_head = h / shape.group();
        let score = |j: u32| {
            let [q, k] = [case.row(Operand::Q, [b, h, i]), case.row(Operand::K, [b, kv_head, j])];
            q.iter().zip(k.iter()).map(|(q, k)| q * k).sum::<f32>() * case.problem.scale()
        };
        let (mut m, mut l, mut o) = (f32::NEG_INFINITY, 0.0, vec![0.0; shape.dim_v as usize]);
        for tile in (0..shape.len_kv).step_by(TILE as usize) {
            m = (tile..tile + TILE).map(score).fold(m, f32::max);
            for j in tile..tile + TILE {
                let p = (score(j) - m).exp();
                l += p;
                o.iter_mut().zip(case.row(Operand::V, [b, kv_head, j]).iter()).for_each(|(o, v)| *o += p * v);
            }
        }
        out.extend(o.iter().map(|o| o / l));
    }
    Outputs { out, ..Outputs::default() }
}

#[test]
fn a_wrong_lse_and_wrong_weights() {
    fn all(dtype: Dtype) -> Unfilled {
        Unfilled(Problem::builder(shape()).dtype(dtype).lse().weights())
    }
    assert_rejected(&TELLING, all, |case| {
        let mut got = naive(case);
        got.lse.as_mut().unwrap().iter_mut().for_each(|lse| *lse *= std::f32::consts::LOG2_E);
        got
    });
    assert_rejected(&TELLING, all, |case| {
        let mut got = naive(case);
        got.weights.as_mut().unwrap().fill(0.0);
        got
    });
    assert_rejected(&TELLING, all, |case| {
        let mut got = naive(case);
        got.weights.as_mut().unwrap().rotate_right(1);
        got
    });
}

#[test]
fn anything_but_zero_and_minus_infinity_where_no_key_is_seen() {
    let problem = Problem::builder(shape()).causal(Diagonal::Offset(-5)).lse();
    let case = drawn(problem, Fill::Normal, 1);
    let expected = Expected::of(&case);
    let right = naive(&case);
    expected.check(&right).unwrap();
    for (out, lse) in [(f32::MIN_POSITIVE, f32::NEG_INFINITY), (0.0, f32::MIN), (0.0, f32::NAN), (0.0, 0.0)] {
        let mut wrong = right.clone();
        wrong.out[0] = out;
        wrong.lse.as_mut().unwrap()[0] = lse;
        assert!(expected.check(&wrong).is_err(), "accepted {out}, {lse}");
    }
}
