//! Laws that hold for any numbers. They need no reference, and so cannot share its mistakes.

use truth::{Case, Expected, Fill, Outputs, Visibility, epsilon, indices, stored};
use wgpu_attention::{
    Attention, Caps, Diagonal, Dtype, Operand, Problem, ProblemBuilder, ScoreLayout, Shape, Variant, Window, testing,
};

use crate::case::{drawn, full};
use crate::choice::each_variant;
use crate::device::{Device, all};

fn shape() -> Shape {
    Shape::new(2, 4, 35, 32).kv_heads(2).kv_len(50)
}

/// Every feature at once, with a key padding mask as the mask.
fn everything(shape: Shape) -> ProblemBuilder {
    crate::case::everything(shape, Dtype::F32).mask(ScoreLayout::broadcast([shape.batch, 1, 1, shape.len_kv]))
}

#[test]
fn values_of_one_give_one() {
    // Any weights that sum to 1 give 1, and every element type can store 1.
    for dtype in Dtype::ALL {
        for fill in Fill::ALL {
            let case = drawn(Problem::builder(shape()).dtype(dtype).lse(), fill, 1);
            let case = case.edited(Operand::V, |_, _| 1.0);
            // A quotient of two sums of the same weights in different orders: each addition rounds by half an ε at most.
            let tolerance = epsilon(Dtype::F32) * f64::from(case.problem.shape().len_kv) + epsilon(dtype) / 2.0;
            each_variant(&case.problem, |device, variant| {
                for (at, out) in device.run(&case, &variant).out.into_iter().enumerate() {
                    assert!((f64::from(out) - 1.0).abs() <= tolerance, "{variant}: out[{at}] = {out} for {fill:?}");
                }
            });
        }
    }
}

#[test]
fn one_hot_values_show_the_weights() {
    let shape = Shape::new(1, 2, 35, 32).kv_len(32);
    let case = drawn(Problem::builder(shape).causal(Diagonal::TopLeft).lse().weights(), Fill::Normal, 2);
    let case = case.edited(Operand::V, |[_, _, j, d], _| if j == d { 1.0 } else { 0.0 });
    let expected = Expected::of(&case);
    each_variant(&case.problem, |device, variant| {
        let got = device.run(&case, &variant);
        let shown = Outputs { out: got.out.clone(), weights: Some(got.out.clone()), ..Outputs::default() };
        expected.check(&shown).unwrap_or_else(|wrong| panic!("{variant}: {wrong}"));
        expected.check(&got).unwrap_or_else(|wrong| panic!("{variant}: {wrong}"));
    });
}

/// If all scores are 0, a row is the mean of the visible indices. These are an interval if only positions decide what is
/// visible.
fn assert_mean_of_visible(problem: ProblemBuilder) {
    let case = drawn(problem, Fill::Normal, 3).edited(Operand::K, |_, _| 0.0);
    let case = case.edited(Operand::V, |[_, _, j, _], _| j as f32);
    let (shape, visibility) = (case.problem.shape(), Visibility::new(&case));
    each_variant(&case.problem, |device, variant| {
        let got = device.run(&case, &variant);
        for (row, [b, h, i]) in case.rows().enumerate() {
            let seen: Vec<u32> = (0..shape.len_kv).filter(|&j| visibility.sees([b, h, i, j])).collect();
            let wanted = seen.iter().sum::<u32>() as f32 / seen.len().max(1) as f32;
            let out = &got.out[row * shape.dim_v as usize..][..shape.dim_v as usize];
            assert!(out.iter().all(|&x| x == wanted), "{variant}: row {row} is {out:?}, not {wanted}");
        }
    });
}

#[test]
fn without_scores_a_row_is_the_exact_mean_of_what_it_sees() {
    let shape = shape();
    let plain = Problem::builder(shape).lse();
    assert_mean_of_visible(plain.clone());
    for diagonal in [Diagonal::TopLeft, Diagonal::BottomRight, Diagonal::Offset(-3), Diagonal::Offset(40)] {
        assert_mean_of_visible(plain.clone().causal(diagonal));
        for (left, right) in [(0, 0), (1, 0), (0, 1), (5, 9), (31, 32), (100, 3)] {
            let window = Window { left: Some(left), right: Some(right) };
            assert_mean_of_visible(plain.clone().diagonal(diagonal).window(window));
        }
    }
    assert_mean_of_visible(plain.clone().mask(full(shape)));
    assert_mean_of_visible(plain.kv_lengths());
}

#[test]
fn two_halves_merged_by_their_lse_are_the_whole() {
    let shape = shape();
    let whole = drawn(Problem::builder(shape).lse(), Fill::Staircase, 4);
    let expected = Expected::of(&whole);
    let part = |keys: std::ops::Range<u32>| {
        let problem = Problem::builder(shape.kv_len(keys.end - keys.start)).lse();
        let mut part = drawn(problem, Fill::Normal, 0);
        part.edit(Operand::Q, |at, _| whole.get(Operand::Q, at));
        part.edit(Operand::K, |[b, h, j, d], _| whole.get(Operand::K, [b, h, keys.start + j, d]));
        part.edit(Operand::V, |[b, h, j, d], _| whole.get(Operand::V, [b, h, keys.start + j, d]));
        part
    };
    let (first, second) = (part(0..33), part(33..50));
    each_variant(&whole.problem, |device, variant| {
        let [a, b] = [&first, &second].map(|part| device.run(part, &variant));
        let (lse_a, lse_b) = (a.lse.unwrap(), b.lse.unwrap());
        let dim = shape.dim_v as usize;
        let share = |row: usize| 1.0 / (1.0 + f64::from(lse_b[row] - lse_a[row]).exp());
        let merged = a.out.iter().zip(&b.out).enumerate().map(|(at, (&a, &b))| {
            let share = share(at / dim);
            (f64::from(a) * share + f64::from(b) * (1.0 - share)) as f32
        });
        let lse = lse_a.iter().zip(&lse_b).map(|(&a, &b)| a.max(b) + (-(a - b).abs()).exp().ln_1p()).collect();
        let merged = Outputs { out: merged.collect(), lse: Some(lse), ..Outputs::default() };
        expected.check(&merged).unwrap_or_else(|wrong| panic!("{variant}: {wrong}"));
    });
}

#[test]
fn grouped_heads_are_repeated_heads() {
    let shape = Shape::new(2, 6, 35, 32).kv_heads(2).kv_len(50);
    let grouped = drawn(everything(shape), Fill::Normal, 5);
    let mut repeated = drawn(everything(shape.kv_heads(6)), Fill::Normal, 5);
    repeated.edit(Operand::Q, |at, _| grouped.get(Operand::Q, at));
    for operand in [Operand::K, Operand::V] {
        repeated.edit(operand, |[b, h, j, d], _| grouped.get(operand, [b, h / 3, j, d]));
    }
    (repeated.host.mask, repeated.host.bias) = (grouped.host.mask.clone(), grouped.host.bias.clone());
    repeated.host.kv_lengths = grouped.host.kv_lengths.clone();
    each_variant(&grouped.problem, |device, variant| {
        assert_eq!(device.run(&grouped, &variant).bits(), device.run(&repeated, &variant).bits(), "{variant}");
    });
}

#[test]
fn the_order_of_keys_does_not_matter() {
    let case = drawn(Problem::builder(shape()).lse(), Fill::Normal, 6);
    let expected = Expected::of(&case);
    // 7 has no factor in common with 50, so each key goes to a different place.
    let shuffled = |operand| {
        let case = case.clone();
        move |[b, h, j, d]: [u32; 4], _: f32| case.get(operand, [b, h, (7 * j + 3) % 50, d])
    };
    let permuted = case.clone().edited(Operand::K, shuffled(Operand::K)).edited(Operand::V, shuffled(Operand::V));
    each_variant(&case.problem, |device, variant| {
        expected.check(&device.run(&permuted, &variant)).unwrap_or_else(|wrong| panic!("{variant}: {wrong}"));
    });
}

#[test]
fn weights_sum_to_one_and_times_v_are_the_output() {
    let shape = shape();
    for fill in Fill::ALL {
        let case = drawn(Problem::builder(shape).lse().weights(), fill, 7);
        let expected = Expected::of(&case);
        each_variant(&case.problem, |device, variant| {
            let weights = device.run(&case, &variant).weights.unwrap();
            let mut out = Vec::new();
            for ([b, h, _], p) in case.rows().zip(weights.chunks(shape.len_kv as usize)) {
                let sum: f64 = p.iter().map(|&p| f64::from(p)).sum();
                // Every weight is rounded once, and so is the sum they are divided by.
                let tolerance = epsilon(Dtype::F32) * f64::from(shape.len_kv);
                assert!((sum - 1.0).abs() <= tolerance, "{variant}: weights sum to {sum} for {fill:?}");
                for d in 0..shape.dim_v {
                    let v = |j: usize| f64::from(case.get(Operand::V, [b, h / 2, j as u32, d]));
                    out.push(p.iter().enumerate().map(|(j, &p)| f64::from(p) * v(j)).sum::<f64>() as f32);
                }
            }
            let made = Outputs { out, ..Outputs::default() };
            expected.check(&made).unwrap_or_else(|wrong| panic!("{variant}: {wrong}"));
        });
    }
}

#[test]
fn the_same_question_gives_the_same_bits() {
    let case = drawn(everything(shape()).weights(), Fill::Normal, 8);
    each_variant(&case.problem, |device, variant| {
        let first = device.run(&case, &variant).bits();
        for _ in 0..3 {
            assert_eq!(first, device.run(&case, &variant).bits(), "{variant}");
        }
    });
}

/// The part of a case with one batch, one query head and some rows, at their original positions.
fn alone(case: &Case, b: u32, h: u32, rows: std::ops::Range<u32>) -> Case {
    let shape = case.problem.shape();
    let few = Shape::new(1, 1, rows.end - rows.start, shape.dim_qk).kv_len(shape.len_kv);
    let mut part = drawn(everything(few).causal(Diagonal::Offset(rows.start as i32 + 10)), Fill::Normal, 0);
    let start = rows.start;
    part.edit(Operand::Q, |[_, _, i, d], _| case.get(Operand::Q, [b, h, start + i, d]));
    part.edit(Operand::K, |[_, _, j, d], _| case.get(Operand::K, [b, h / shape.group(), j, d]));
    part.edit(Operand::V, |[_, _, j, d], _| case.get(Operand::V, [b, h / shape.group(), j, d]));
    part.edit(Operand::Bias, |[_, _, i, j], _| case.get(Operand::Bias, [b, h, start + i, j]));
    let mask = case.host.mask.as_ref().unwrap();
    part.edit_mask(|[_, _, _, j], _| mask[(b * shape.len_kv + j) as usize]);
    part.lengths(&[case.host.kv_lengths.as_ref().unwrap()[b as usize]])
}

/// The variant that runs a problem of other sizes as `variant` does, though a workgroup may take fewer rows.
fn twin(device: &Device, problem: &Problem, variant: &Variant) -> Variant {
    let exchanges_in_subgroups = |variant: &Variant| testing::kind(variant).contains("-sub");
    let kind =
        |variant: &Variant| (testing::schedule(variant), testing::access(variant), exchanges_in_subgroups(variant));
    let able = device.variants(problem);
    able.into_iter().find(|other| kind(other) == kind(variant)).unwrap()
}

#[test]
fn a_row_a_head_or_a_batch_alone_has_the_bits_it_has_among_others() {
    let case = drawn(everything(shape()).causal(Diagonal::Offset(10)), Fill::Normal, 9).lengths(&[50, 39]);
    let (rows, dim) = (35, 32);
    each_variant(&case.problem, |device, variant| {
        let whole = device.run(&case, &variant);
        for (b, h, some) in [(0, 0, 0..35), (1, 3, 0..35), (0, 1, 5..6), (1, 2, 34..35), (1, 0, 30..34)] {
            let alone = alone(&case, b, h, some.clone());
            let part = device.run(&alone, &twin(device, &alone.problem, &variant));
            let first = ((b * 4 + h) * rows + some.start) as usize;
            let wanted = Outputs {
                out: whole.out[first * dim..][..some.len() * dim].to_vec(),
                lse: whole.lse.as_ref().map(|lse| lse[first..][..some.len()].to_vec()),
                ..Outputs::default()
            };
            assert_eq!(part.bits(), wanted.bits(), "{variant}: batch {b}, head {h}, rows {some:?}");
        }
    });
}

#[test]
fn cutting_the_work_changes_no_bit() {
    let case = drawn(everything(shape()).causal(Diagonal::BottomRight).weights(), Fill::Normal, 10).lengths(&[50, 31]);
    for device in all() {
        for variant in device.variants(&case.problem) {
            let (whole, dispatches) = device.run_by(&device.attention, &case, &variant);
            let kernels = {
                let _guard = device.enter();
                device.attention.plan_variant(&case.problem, &variant).unwrap().variants().count()
            };
            assert_eq!(dispatches, kernels, "{variant}: one for each kernel");
            let mut by_limit = Vec::new();
            let tighten: [fn(&mut Caps); 4] = [
                |caps| caps.binding_bytes = 12_800,
                |caps| caps.workgroups = 1,
                |caps| caps.dispatch_flop = 1,
                |caps| (caps.workgroups, caps.dispatch_flop) = (3, 200_000),
            ];
            for tighten in tighten {
                let mut caps = *device.attention.caps();
                tighten(&mut caps);
                let tight = Attention::with_caps(device.attention.device(), caps);
                let (cut, dispatches) = device.run_by(&tight, &case, &variant);
                assert_eq!(cut.bits(), whole.bits(), "{variant} in {dispatches} dispatches within {caps:?}");
                by_limit.push(dispatches);
            }
            assert!(by_limit.iter().all(|&dispatches| dispatches > kernels), "{by_limit:?} dispatches");
        }
    }
}

/// For every 16-bit value, four values of equal weight: `uppers` of them are its upper neighbour, the others are the value
/// itself.
pub fn between_neighbours(dtype: Dtype, uppers: u32) -> Case {
    // Left out: values so large that f32 cannot sum four of them, and values that a driver may take for zero.
    let normal = f32::MIN_POSITIVE..f32::MAX / 8.0;
    let of_bits = |bits: u32| {
        let value = dtype.decode(&(bits as u16).to_le_bytes())[0];
        if normal.contains(&value.abs()) { value } else { 0.0 }
    };
    let shape = Shape::new(1, 2048, 1, 32).kv_len(4);
    let case = drawn(Problem::builder(shape).dtype(dtype).lse(), Fill::Constant, 0);
    case.edited(Operand::V, |[_, h, j, d], _| of_bits(h * 32 + d + u32::from(j < uppers)))
}

/// Whether every output is the stored value nearest to the mean of its four values, or the even one if two are equally
/// near.
pub fn assert_nearest(case: &Case, got: &Outputs) -> Result<(), String> {
    for (at, &got) in indices(case.view(Operand::Out).extent).zip(&got.out) {
        let sum: f64 = (0..4).map(|j| f64::from(case.get(Operand::V, [0, at[1], j, at[3]]))).sum();
        let wanted = stored(case.dtype(Operand::Out), (sum / 4.0) as f32);
        if got != wanted {
            return Err(format!("{got} instead of {wanted} after {:#x}", at[1] * 32 + at[3]));
        }
    }
    Ok(())
}

#[test]
fn narrow_outputs_are_the_nearest_and_ties_go_to_even() {
    for dtype in [Dtype::F16, Dtype::Bf16] {
        for uppers in 1..4 {
            let case = between_neighbours(dtype, uppers);
            each_variant(&case.problem, |device, variant| {
                let verdict = assert_nearest(&case, &device.run(&case, &variant));
                verdict.unwrap_or_else(|wrong| panic!("{variant} on {}: {wrong}", device.name));
            });
        }
    }
}
