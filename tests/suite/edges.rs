//! Edge cases of sizes, strides and addresses.

use truth::{Case, Expected, Fill, Outputs};
use wgpu_attention::{
    Diagonal, Dtype, Inputs, Layout, Operand, Operands, Philox, PlanError, Problem, ProblemBuilder, RngState,
    ScoreLayout, Shape, blocking, testing,
};

use crate::case::{drawn, everything};
use crate::choice::{chosen_variants, each_variant, verify, verify_everywhere, verify_variant};
use crate::contents::{contents, elements};
use crate::device::{Device, all};

/// Rows and keys of the baseline's tile.
const TILE: u32 = 32;

#[test]
fn lengths_around_the_tile() {
    let lengths = [1, 2, 3, 17, TILE - 1, TILE, TILE + 1, 61, 2 * TILE - 1, 2 * TILE + 1, 127];
    for (n, &len_q) in lengths.iter().enumerate() {
        // Each length meets three others, both ways round.
        for step in [0, 4, 7] {
            let len_kv = lengths[(n + step) % lengths.len()];
            let shape = Shape::new(1, 2, len_q, 32).kv_len(len_kv);
            verify_everywhere(&drawn(Problem::builder(shape).lse(), Fill::Staircase, n as u64));
            verify_everywhere(&drawn(
                Problem::builder(shape).causal(Diagonal::BottomRight).lse(),
                Fill::Normal,
                n as u64,
            ));
        }
    }
}

/// Every schedule rounds head sizes up to a multiple of 32, and changes its shape at 32, 64, 96, 128 and beyond. Large
/// sizes test whether a kernel counts its vectors, registers and slices correctly, and take seconds each to compile. So only the
/// sizes where these change are tried.
#[test]
fn head_sizes_of_every_class() {
    for (n, dim) in [1, 2, 3, 4, 5, 7, 8, 16, 31, 32, 33, 60].into_iter().enumerate() {
        verify(&sized(dim, dim, Fill::ALL[n % 4]));
    }
    // One element at a time, with part of a vector at the end; then in fours, up to the largest size.
    let large = [(93, "x1"), (97, "x1"), (128, "x4"), (256, "x4")];
    for (n, (dim, access)) in large.into_iter().enumerate() {
        verify_access(&sized(dim, dim, Fill::ALL[n % 4]), access);
    }
}

#[test]
fn values_of_another_size_than_keys() {
    for (dim_qk, dim_v) in [(1, 255), (255, 1), (32, 33), (33, 32)] {
        verify_access(&sized(dim_qk, dim_v, Fill::Normal), "x1");
    }
    verify_access(&sized(192, 128, Fill::Normal), "x4");
}

fn sized(dim_qk: u32, dim_v: u32, fill: Fill) -> Case {
    let shape = Shape::new(1, 1, 5, dim_qk).kv_len(TILE + 3).value_dim(dim_v);
    drawn(Problem::builder(shape).lse(), fill, dim_v.into())
}

/// Runs a case as those of the [`chosen_variants`] with this access.
fn verify_access(case: &Case, access: &str) {
    let expected = Expected::of(case);
    for (device, variant) in chosen_variants(all(), &case.problem) {
        if testing::access(&variant).starts_with(access) {
            verify_variant(case, &expected, device, &variant);
        }
    }
}

/// Layouts with a gap after each row, head and batch, from element `offset`.
fn gappy(heads: u32, len: u32, dim: u32, gap: u64, offset: u64) -> Layout {
    let row = u64::from(dim) + gap;
    let head = row * u64::from(len) + gap;
    Layout { offset, batch: head * u64::from(heads) + gap, head, row }
}

#[test]
fn offsets_and_gaps_are_honoured_and_left_alone() {
    // A gap of 1 makes 16-bit rows share words; gaps of 4 keep vectors of four possible.
    for dtype in Dtype::ALL {
        for (dim, gap, offset) in
            [(8, 4, 4), (8, 4, 12), (7, 0, 0), (7, 1, 3), (5, 0, 1), (6, 1, 1), (1, 0, 1), (3, 2, 5)]
        {
            let shape = Shape::new(2, 3, TILE + 3, dim).kv_heads(1).kv_len(19);
            let layout = |heads, len| gappy(heads, len, dim, gap, offset);
            let problem = Problem::builder(shape).dtype(dtype).q(layout(3, shape.len_q)).out(layout(3, shape.len_q));
            let problem = problem.k(layout(1, 19)).v(layout(1, 19)).lse().weights();
            verify(&drawn(problem, Fill::Normal, dim.into()));
        }
    }
}

#[test]
fn tokens_outermost_and_heads_outermost_mix() {
    for dtype in Dtype::ALL {
        let shape = Shape::new(2, 4, 34, 12).kv_heads(2).kv_len(21);
        let problem = Problem::builder(shape).dtype(dtype).lse();
        let problem = problem.q(Layout::blhd(4, 34, 12)).k(Layout::blhd(2, 21, 12));
        verify(&drawn(problem.clone(), Fill::Normal, 1));
        verify(&drawn(problem.clone().v(Layout::blhd(2, 21, 12)).out(Layout::blhd(4, 34, 12)), Fill::Normal, 2));
        // The output's rows in an unusual order: heads innermost, batches between.
        let odd = Layout { offset: 2, batch: 12 * 4, head: 12, row: 12 * 4 * 2 };
        verify(&drawn(problem.out(odd), Fill::Normal, 3));
    }
}

#[test]
fn keys_and_values_may_be_one_for_all_rows() {
    // Inputs, unlike outputs, may overlap: with a stride of 0 every row is the same.
    let shape = Shape::new(2, 2, 33, 8).kv_len(40);
    let same = Layout { offset: 0, batch: 0, head: 0, row: 8 };
    verify(&drawn(Problem::builder(shape).lse().k(same).v(same).q(Layout { row: 0, ..same }), Fill::Normal, 4));
}

#[test]
fn packed_qkv_is_one_buffer_bound_three_times() {
    for (dtype, dim) in [(Dtype::F32, 8), (Dtype::F16, 5), (Dtype::Bf16, 8)] {
        let shape = Shape::new(2, 4, 35, dim).kv_heads(2);
        let [q, k, v] = Layout::packed_qkv(&shape);
        let case = drawn(Problem::builder(shape).dtype(dtype).q(q).k(k).v(v).lse(), Fill::Normal, 5);
        // The three vectors are parts of one, each NaN where the others are not.
        let longest = case.host.v.len();
        let part = |values: &[f32], i: usize| values.get(i).copied().filter(|x| !x.is_nan());
        let packed: Vec<f32> = (0..longest)
            .map(|i| part(&case.host.q, i).or(part(&case.host.k, i)).or(part(&case.host.v, i)).unwrap())
            .collect();
        let expected = Expected::of(&case);
        each_variant(&case.problem, |device, variant| {
            let _guard = device.enter();
            let mut bytes = dtype.encode(&packed);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            let (qkv, out) = (device.upload(&bytes), device.upload(&contents(&case, Operand::Out)));
            let [q, k, v, o] = [&qkv, &qkv, &qkv, &out].map(wgpu::Buffer::as_entire_buffer_binding);
            let plan = device.attention.plan_variant(&case.problem, &variant).unwrap();
            let lse = device.upload(&contents(&case, Operand::Lse));
            let operands = Operands::new(q, k, v, o).with(Operand::Lse, lse.as_entire_buffer_binding());
            let bytes = device.finish(&plan.bind(&operands).unwrap(), [&out].into_iter()).remove(0);
            let out = elements(&case.problem, Operand::Out, &bytes);
            let got = Outputs { out, ..Outputs::default() };
            expected.check(&got).unwrap_or_else(|wrong| panic!("{variant} on {}: {wrong}", device.name));
        });
    }
}

#[test]
fn a_binding_may_start_and_end_inside_its_buffer() {
    // All operands in two buffers, at the offsets a device can bind.
    let case = drawn(Problem::builder(Shape::new(1, 2, 33, 8)).lse(), Fill::Normal, 6);
    let expected = Expected::of(&case);
    for device in all() {
        let _guard = device.enter();
        let alignment = device.attention.caps().binding_alignment as usize;
        let place = |bytes: &mut Vec<u8>, operand| {
            bytes.resize(bytes.len().next_multiple_of(alignment) + alignment, 0xff);
            let offset = bytes.len() as u64;
            bytes.extend(contents(&case, operand));
            (offset, wgpu::BufferSize::new(bytes.len() as u64 - offset))
        };
        let mut inputs = Vec::new();
        let placed = [Operand::Q, Operand::K, Operand::V].map(|operand| place(&mut inputs, operand));
        inputs.extend([0xff; 64]);
        let inputs = device.upload(&inputs);
        let mut bytes = Vec::new();
        let out_at = place(&mut bytes, Operand::Out);
        bytes.extend([0xa5; 64]);
        let (out, lse) = (device.upload(&bytes), device.upload(&contents(&case, Operand::Lse)));
        let bind = |buffer, (offset, size)| wgpu::BufferBinding { buffer, offset, size };
        let [q, k, v] = placed.map(|placed| bind(&inputs, placed));
        let operands = Operands::new(q, k, v, bind(&out, out_at)).with(Operand::Lse, lse.as_entire_buffer_binding());
        let call = device.attention.plan(&case.problem).unwrap().bind(&operands).unwrap();
        let read = device.finish(&call, [&out, &lse].into_iter());
        let (start, end) = (out_at.0 as usize, out_at.0 as usize + out_at.1.unwrap().get() as usize);
        let got = Outputs {
            out: elements(&case.problem, Operand::Out, &read[0][start..end]),
            lse: Some(elements(&case.problem, Operand::Lse, &read[1])),
            ..Outputs::default()
        };
        expected.check(&got).unwrap();
        assert_eq!((&read[0][..start], &read[0][end..]), (&bytes[..start], &bytes[end..]), "outside the binding");
    }
}

/// More heads or batches than a dispatch has workgroups.
const MANY: u32 = 65_536 + 3;
/// One in this many of them has work to do. The others see no key, which is quick on a software driver.
const BUSY: u32 = 97;

#[test]
fn more_heads_than_workgroups() {
    let shape = Shape::new(1, MANY, 1, 4).kv_heads(1).kv_len(2);
    let (mask, bias) = (ScoreLayout::broadcast([1, MANY, 1, 1]), ScoreLayout::broadcast([1; 4]));
    let case = drawn(everything(shape, Dtype::F32).mask(mask).bias(Dtype::F32, bias), Fill::Normal, 7);
    verify(&case.masked(|[_, h, _, _], _| h % BUSY == 0 || h + 2 > MANY).lengths(&[2]));
}

#[test]
fn more_batches_than_workgroups() {
    let shape = Shape::new(MANY, 1, 1, 4).kv_len(2);
    let (mask, bias) = (ScoreLayout::broadcast([MANY, 1, 1, 2]), ScoreLayout::broadcast([1; 4]));
    let case = drawn(everything(shape, Dtype::F32).mask(mask).bias(Dtype::F32, bias), Fill::Normal, 8);
    let lengths: Vec<u32> = (0..MANY).map(|b| if b % BUSY == 0 || b + 2 > MANY { 2 } else { 0 }).collect();
    verify(&case.lengths(&lengths));
}

/// The longest sequence, of `len_kv` keys or fewer, that a device plans for.
fn longest(device: &Device, mut len_kv: u32, problem: impl Fn(u32) -> Problem) -> Problem {
    loop {
        match device.attention.plan(&problem(len_kv)) {
            Ok(plan) => return plan.problem().clone(),
            Err(PlanError::TooManyKeys { most, .. }) if (20_000..len_kv).contains(&most) => len_kv = most,
            Err(PlanError::TooLarge { need, granted, .. }) => len_kv = (u64::from(len_kv) * granted / need) as u32,
            Err(error) => panic!("{}: {error}", device.name),
        }
    }
}

type Change = fn(ProblemBuilder) -> ProblemBuilder;

/// Software drivers end long loops early without an error. Up to the last key that a plan accepts, every key must count.
#[test]
fn every_key_of_the_longest_sequence_counts() {
    let is_decode = |variant: &_| testing::schedule(variant) == "decode";
    for opened in all() {
        // A workgroup gets as many keys as it can process before the driver ends its loops.
        let device = &opened.with_caps(|caps| caps.workgroups_to_fill = 1);
        let cases: [(_, _, Change); 5] = [
            (4, 1_500_000, |problem| problem),
            (4, 450_000, ProblemBuilder::weights),
            (4, 450_000, |problem| problem.dropout(0.5, RngState::Fixed(Philox::new(1, 2)))),
            (64, 450_000, |problem| problem),
            (256, 450_000, |problem| problem),
        ];
        for (dim, len_kv, change) in cases {
            let problem = longest(device, len_kv, |len_kv| {
                change(Problem::builder(Shape::new(1, 1, 1, dim).kv_len(len_kv)).lse()).build().unwrap()
            });
            let keys = problem.shape().len_kv;
            let (q, ones) = (vec![0.0; dim as usize], vec![1.0; (keys * dim) as usize]);
            let inputs = Inputs { q: &q, k: &ones, v: &ones, ..Inputs::default() };
            let _guard = opened.enter();
            let mut variants = device.variants(&problem);
            // Only `decode` has so few iterations that it reaches more keys.
            variants.retain(|variant| testing::access(variant) != "x1" && (keys <= 450_000 || is_decode(variant)));
            for variant in variants {
                let ran = blocking::attention_with(&device.attention, &device.queue, &problem, &inputs, &variant);
                let got = ran.unwrap();
                // All scores are 0: the LSE is ln Lk, which a lost tile of 32 would move by 32 / Lk.
                let lost = f64::from(keys) - f64::from(got.lse.unwrap()[0]).exp();
                assert!(lost.abs() < 16.0, "{variant} on {}: {lost} of {keys} keys are lost", device.name);
                assert!(got.weights.is_none_or(|p| p.iter().all(|&p| p > 0.0)), "{variant} on {}", device.name);
            }
        }
    }
}
