//! What each option means: one test for each row of the table of meanings.

use truth::{Case, Fill, Visibility, poison_hidden};
use wgpu_attention::{
    BlockMask, Diagonal, Dtype, MaskFormat, Operand, Problem, ProblemBuilder, ScoreLayout, Shape, Window,
};

use crate::case::{drawn, everything, full};
use crate::choice::{each_variant, verify, verify_everywhere};

/// Two batches, two heads that share a KV head, more keys than queries, neither a multiple of a tile.
fn shape() -> Shape {
    Shape::new(2, 2, 35, 32).kv_heads(1).kv_len(50)
}

fn verify_filled(problem: ProblemBuilder) {
    for (seed, fill) in Fill::ALL.into_iter().enumerate() {
        verify(&drawn(problem.clone(), fill, seed as u64));
    }
}

#[test]
fn scale_is_one_over_the_root_of_the_head_size_unless_given() {
    verify_filled(Problem::builder(shape()).lse());
    let given = Problem::builder(shape()).lse().scale(1.0 / 32.0_f32.sqrt()).build().unwrap();
    let unsaid = Problem::builder(shape()).lse().build().unwrap();
    assert_eq!(given.scale().to_bits(), unsaid.scale().to_bits());
}

#[test]
fn a_scale_may_be_anything_finite() {
    for scale in [1.0, 0.01, 0.0, -0.0, -0.3, -2.0] {
        verify_filled(Problem::builder(shape()).lse().scale(scale));
    }
}

#[test]
fn a_negative_or_zero_scale_composes_with_softcap_and_bias() {
    for scale in [0.5, 0.0, -0.5] {
        verify_filled(everything(shape(), Dtype::F32).scale(scale));
        verify_filled(Problem::builder(shape()).softcap(2.0).lse().scale(scale));
        verify_filled(Problem::builder(shape()).bias(Dtype::F32, full(shape())).lse().scale(scale));
    }
}

#[test]
fn softcap_comes_after_the_scale() {
    for cap in [0.5, 3.0, 50.0] {
        verify_filled(Problem::builder(shape()).softcap(cap).scale(2.0).lse());
    }
}

#[test]
fn bias_comes_after_the_softcap() {
    // A bias larger than the cap is not capped.
    let problem = everything(shape(), Dtype::F32).softcap(2.0);
    verify(&drawn(problem, Fill::Normal, 1).edited(Operand::Bias, |_, x| 10.0 * x));
}

#[test]
fn a_mask_comes_after_everything() {
    for dtype in Dtype::ALL {
        verify_filled(everything(shape(), dtype));
    }
}

#[test]
fn a_true_mask_attends() {
    let shape = shape();
    let masked = Problem::builder(shape).mask(full(shape)).lse();
    verify_filled(masked.clone());
    // All true is no mask; all false hides everything.
    let open = drawn(masked, Fill::Normal, 1).masked(|_, _| true);
    verify(&open);
    each_variant(&open.problem, |device, variant| {
        let closed = open.clone().masked(|_, _| false);
        assert!(device.run(&closed, &variant).out.iter().all(|&x| x == 0.0), "{variant}");
    });
}

#[test]
fn mask_and_bias_broadcast_along_any_axes() {
    let Shape { batch, heads_q, len_q, len_kv, .. } = shape();
    for axes in 0..16_u32 {
        let dims = |axes: u32| {
            let dims = [batch, heads_q, len_q, len_kv];
            std::array::from_fn(|i| if axes >> i & 1 == 1 { dims[i] } else { 1 })
        };
        let mask = ScoreLayout::broadcast(dims(axes));
        let bias = ScoreLayout::broadcast(dims(axes ^ 0b1010));
        verify(&drawn(everything(shape(), Dtype::F32).mask(mask).bias(Dtype::F32, bias), Fill::Normal, axes.into()));
    }
}

#[test]
fn mask_and_bias_have_any_strides() {
    // Keys outermost, gaps everywhere, and an offset.
    let Shape { batch, heads_q, len_q, .. } = shape();
    let (batch, heads, rows) = (i64::from(batch), i64::from(heads_q), i64::from(len_q));
    let keys_outermost = ScoreLayout::strided([1, batch, batch * heads + 1, (batch * heads + 1) * rows + 3]);
    let with_gaps = ScoreLayout::strided([0, 55 * 40, 55, 1]);
    for layout in [keys_outermost.at(7), with_gaps.at(3)] {
        for dtype in [Dtype::F32, Dtype::F16] {
            verify(&drawn(everything(shape(), dtype).mask(layout).bias(dtype, layout), Fill::Normal, 9));
        }
    }
}

#[test]
fn a_bias_is_stored_as_any_type() {
    let shape = shape();
    for (dtype, bias) in [(Dtype::F16, Dtype::F32), (Dtype::F16, Dtype::Bf16), (Dtype::Bf16, Dtype::Bf16)] {
        verify_filled(everything(shape, dtype).bias(bias, full(shape)));
    }
}

/// Queries, keys with values, and the output each have a type. All 27 combinations are compiled (`shaders`); these run.
#[test]
fn queries_and_keys_and_the_output_are_stored_as_types_of_their_own() {
    use Dtype::{Bf16, F16, F32};
    let odd = Shape { dim_qk: 31, dim_v: 27, ..shape() };
    let plain = |shape, [q, kv, out]: [Dtype; 3]| {
        drawn(Problem::builder(shape).dtype(q).kv_dtype(kv).out_dtype(out).lse(), Fill::Normal, 21)
    };
    for types in [[F32, F16, F32], [F32, Bf16, F32], [F16, F32, Bf16], [Bf16, F16, F32]] {
        verify(&plain(shape(), types));
        verify(&plain(odd, types));
        verify(&plain(Shape { len_q: 1, len_kv: 1100, ..shape() }, types));
    }
    // With everything else, the weights among it.
    let all = everything(odd, F32).kv_dtype(F16).out_dtype(Bf16);
    verify(&drawn(all.bias(F16, full(odd)), Fill::Normal, 22));
    // The types do not depend on the order in which they are given.
    let last = Problem::builder(odd).kv_dtype(F16).dtype(Bf16).build().unwrap();
    let types = [Operand::Q, Operand::K, Operand::V, Operand::Out].map(|operand| last.dtype(operand));
    assert_eq!(types, [Bf16, F16, F16, Bf16].map(Some));
    assert_eq!([Operand::Lse, Operand::Bias, Operand::Mask].map(|operand| last.dtype(operand)), [None; 3]);
}

/// A mask of bytes or of words, in which a set element attends or hides.
#[test]
fn a_mask_is_stored_in_any_format() {
    for format in MaskFormat::ALL {
        verify_filled(Problem::builder(shape()).mask_as(format, full(shape())).lse());
        let padding = ScoreLayout::broadcast([2, 1, 1, 50]);
        verify(&drawn(Problem::builder(shape()).mask_as(format, padding).weights(), Fill::Normal, 23));
    }
}

/// All operands are parts of one buffer, as in a framework that pools them.
#[test]
fn operands_may_share_a_buffer() {
    let odd = Shape { dim_qk: 31, dim_v: 27, ..shape() };
    for (shape, dtype) in [(shape(), Dtype::F32), (odd, Dtype::F16)] {
        verify(&drawn(Problem::builder(shape).dtype(dtype).lse().shared_buffers(), Fill::Normal, 24));
        verify(&drawn(everything(shape, dtype).shared_buffers(), Fill::Normal, 25));
        let few = Problem::builder(Shape { len_q: 1, len_kv: 1100, ..shape }).dtype(dtype).kv_lengths().lse();
        verify(&drawn(few.causal(Diagonal::BottomRight).shared_buffers(), Fill::Normal, 26).lengths(&[1100, 700]));
    }
    let own = BlockMask::new(16, 32).per_batch().per_head();
    let tiles = Problem::builder(shape()).mask(full(shape())).block_mask(own).shared_buffers();
    verify(&drawn(tiles, Fill::Normal, 27));
}

/// More keys than queries, fewer, and as many.
fn lopsided() -> [Shape; 3] {
    [(35, 50), (50, 35), (64, 64)].map(|(len_q, len_kv)| Shape { len_q, len_kv, ..shape() })
}

#[test]
fn causal_is_aligned_as_said() {
    for shape in lopsided() {
        let alignments = [-40, -1, 1, 31, 33, i32::MIN, i32::MAX].map(Diagonal::Offset);
        for diagonal in [Diagonal::TopLeft, Diagonal::BottomRight].into_iter().chain(alignments) {
            verify_everywhere(&drawn(Problem::builder(shape).causal(diagonal).lse(), Fill::Normal, 2));
        }
        verify_filled(Problem::builder(shape).causal(Diagonal::BottomRight).lse());
    }
}

#[test]
fn bottom_right_is_measured_from_the_valid_keys() {
    for shape in lopsided() {
        for lengths in [[0, 1], [5, shape.len_kv], [shape.len_kv + 9, 33], [u32::MAX, 34]] {
            let problem = Problem::builder(shape).causal(Diagonal::BottomRight).kv_lengths().lse();
            verify_everywhere(&drawn(problem, Fill::Normal, 3).lengths(&lengths));
        }
    }
}

#[test]
fn a_window_is_inclusive_on_both_sides() {
    let sides = [None, Some(0), Some(7), Some(u32::MAX)];
    for shape in lopsided() {
        for (left, right) in sides.into_iter().flat_map(|left| sides.map(|right| (left, right))) {
            for diagonal in [Diagonal::TopLeft, Diagonal::BottomRight] {
                let problem = Problem::builder(shape).diagonal(diagonal).window(Window { left, right }).lse();
                verify_everywhere(&drawn(problem, Fill::Normal, 4));
            }
        }
    }
}

#[test]
fn masks_compose() {
    for shape in lopsided() {
        for diagonal in [Diagonal::TopLeft, Diagonal::BottomRight, Diagonal::Offset(3)] {
            let window = Window { left: Some(20), right: Some(4) };
            let windowed = everything(shape, Dtype::F32).diagonal(diagonal).window(window);
            verify_filled(windowed.clone());
            verify_filled(windowed.causal(diagonal));
        }
    }
}

/// Four cases for one kernel. In each, another way to hide keys hides every key from some rows, and some keys from all
/// rows.
fn hiding(dtype: Dtype) -> [Case; 4] {
    let problem = everything(shape(), dtype).weights();
    let case = |problem| drawn(problem, Fill::Normal, 5).masked(|_, _| true).lengths(&[50, 50]);
    [
        case(problem.clone()).masked(|[_, _, i, j], _| i % 3 > 0 && j % 4 > 0),
        case(problem.clone().causal(Diagonal::Offset(-4)).window(Window { left: Some(6), right: None })),
        case(problem.clone()).lengths(&[0, 41]),
        case(problem)
            .edited(Operand::Bias, |[_, _, i, j], x| if i % 3 == 0 || j % 5 == 0 { f32::NEG_INFINITY } else { x }),
    ]
}

#[test]
fn a_row_with_no_visible_key_is_zero_with_lse_minus_infinity_and_no_weights() {
    for dtype in Dtype::ALL {
        for case in hiding(dtype) {
            verify(&case);
            let (shape, visibility) = (case.problem.shape(), Visibility::new(&case));
            let is_empty = |&[b, h, i]: &[u32; 3]| !(0..shape.len_kv).any(|j| visibility.sees([b, h, i, j]));
            let empty: Vec<usize> = (case.rows().enumerate()).filter(|(_, at)| is_empty(at)).map(|(n, _)| n).collect();
            assert!(!empty.is_empty());
            each_variant(&case.problem, |device, variant| {
                let got = device.run(&case, &variant);
                for &row in &empty {
                    let (dim, keys) = (shape.dim_v as usize, shape.len_kv as usize);
                    assert!(got.out[row * dim..][..dim].iter().all(|&x| x == 0.0), "{variant} row {row}");
                    assert!(got.weights.as_ref().unwrap()[row * keys..][..keys].iter().all(|&p| p == 0.0));
                    assert_eq!(got.lse.as_ref().unwrap()[row], f32::NEG_INFINITY);
                }
            });
        }
    }
}

#[test]
fn scores_far_below_any_sentinel_are_exact() {
    let shape = shape();
    for bias in [-1e4, -1e5, -1e30, -3.4e38, f32::MIN, 1e5, 1e30] {
        let problem = Problem::builder(shape).bias(Dtype::F32, full(shape)).lse().weights();
        let same = drawn(problem, Fill::Normal, 6).edited(Operand::Bias, |_, _| bias);
        verify(&same);
        let mixed = same.edited(Operand::Bias, |[_, _, i, j], _| if (i + j) % 7 == 0 { 0.0 } else { bias });
        verify(&mixed);
        // The same, with rows that see nothing else.
        verify(&mixed.edited(Operand::Bias, |[_, _, i, _], x| if i % 2 == 0 { bias } else { x }));
    }
}

#[test]
fn nan_and_infinity_behind_any_mask_do_not_leak() {
    for dtype in Dtype::ALL {
        for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for mut case in hiding(dtype) {
                assert!(poison_hidden(&mut case, poison) > 0);
                verify_everywhere(&case);
            }
        }
    }
}

#[test]
fn nan_in_a_visible_row_stays_with_the_queries_that_see_it() {
    let problem = Problem::builder(shape()).causal(Diagonal::TopLeft).lse().weights();
    let poisoned_key = 20;
    for (operand, poison) in [(Operand::K, f32::NAN), (Operand::V, f32::NAN), (Operand::V, f32::INFINITY)] {
        let clean = drawn(problem.clone(), Fill::Normal, 7);
        let expected = truth::Expected::of(&clean);
        let poisoned = clean.edited(operand, |[_, _, j, _], x| if j == poisoned_key { poison } else { x });
        each_variant(&poisoned.problem, |device, variant| {
            let got = device.run(&poisoned, &variant);
            expected
                .check_rows(&got, |[_, _, i]| i < poisoned_key)
                .unwrap_or_else(|wrong| panic!("{variant}: {wrong}"));
        });
    }
    // A query of NaN affects only its own row.
    let clean = drawn(problem, Fill::Normal, 8);
    let expected = truth::Expected::of(&clean);
    let poisoned = clean.edited(Operand::Q, |[_, _, i, _], x| if i == poisoned_key { f32::NAN } else { x });
    each_variant(&poisoned.problem, |device, variant| {
        let got = device.run(&poisoned, &variant);
        expected.check_rows(&got, |[_, _, i]| i != poisoned_key).unwrap_or_else(|wrong| panic!("{variant}: {wrong}"));
        // And it is not mistaken for a query that sees nothing.
        let lse = got.lse.unwrap()[poisoned_key as usize];
        assert!(lse.is_nan(), "{variant}: the LSE of a query of NaN is {lse}");
    });
}

#[test]
fn lse_is_natural() {
    // n equal scores of s: lse = s + ln n.
    let case = drawn(Problem::builder(Shape::new(1, 1, 3, 4).kv_len(50)).lse(), Fill::Constant, 0);
    verify(&case);
    each_variant(&case.problem, |device, variant| {
        let score: f64 = 0.75 * -0.5 * 4.0 / 2.0;
        let lse = device.run(&case, &variant).lse.unwrap()[0];
        let wanted = score + 50.0_f64.ln();
        assert!((f64::from(lse) - wanted).abs() <= 4.0 * f64::from(f32::EPSILON) * wanted.abs(), "{lse} {wanted}");
    });
}

#[test]
fn query_heads_share_kv_heads_in_contiguous_groups_of_any_size() {
    for (heads_q, heads_kv) in [(1, 1), (2, 1), (6, 2), (6, 3), (7, 1), (15, 5), (12, 12)] {
        let shape = Shape { heads_q, heads_kv, ..shape() };
        verify_everywhere(&drawn(Problem::builder(shape).lse(), Fill::Normal, 8));
    }
}
