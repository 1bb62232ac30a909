//! Sequences with lengths, pages and places of their own give what the same sequences give one by one, to the bit.

use truth::{Case, Fill, Host, Sequences, indices};
use wgpu_attention::{
    Attention, Caps, Diagonal, Dtype, Operand, Pages, Problem, ProblemBuilder, Quantization, ScoreLayout, Shape,
    Slopes, Window,
};

use crate::case::drawn;
use crate::choice::{chosen_variants, verify};
use crate::device::{Device, all};
use crate::programs::verify_within;
use crate::questions::with_poisoned_rest;
use crate::record::{buffers, noop, operands, without_error};

/// Runs `case` and `same`, a case of another problem that has the same queries and keys, as the [`chosen_variants`].
/// Checks that each row of `case` has the bits of the same row of `same`.
fn assert_same_bits(case: &Case, same: &Case) {
    // With keys in one part each, since the number of parts depends on the shape.
    let devices: Vec<Device> =
        all().iter().map(|device| device.with_caps(|caps| caps.workgroups_to_fill = 1)).collect();
    let (rows, width) = (same.rows().collect::<Vec<_>>(), case.problem.shape().dim_v as usize);
    for (device, variant) in chosen_variants(&devices, &case.problem) {
        let [variants, others] = [case, same].map(|case| device.attention.candidates(&case.problem).unwrap());
        assert_eq!(variants.len(), others.len());
        let other = variants.iter().zip(&others).find_map(|(one, other)| (*one == variant).then_some(other)).unwrap();
        let [got, wanted] =
            [device.run(case, &variant), device.run(same, other)].map(|got| (got.out, got.lse.unwrap()));
        let bits = |(out, lse): &(Vec<f32>, Vec<f32>), n: usize| -> Vec<u32> {
            out[n * width..(n + 1) * width].iter().chain([&lse[n]]).map(|x| x.to_bits()).collect()
        };
        for (n, at) in case.rows().enumerate() {
            let wanted = bits(&wanted, rows.iter().position(|other| *other == at).unwrap());
            assert_eq!(bits(&got, n), wanted, "{variant} on {}, row {at:?}", device.name);
        }
    }
}

/// The case with K and V laid out densely, each sequence's keys in order, for `problem`.
fn with_dense_keys(case: &Case, problem: &ProblemBuilder) -> Case {
    let problem = problem.build().unwrap();
    let sequences = Sequences::new(case);
    let gather = |operand| {
        let view = problem.view(operand).unwrap();
        let mut values = vec![f32::NAN; view.end() as usize];
        for at @ [b, head, j, d] in indices(view.extent) {
            if (sequences.oldest(b)..sequences.keys(b)).contains(&j) {
                let [batch, row] = sequences.key_place(b, j);
                values[view.index(at) as usize] = case.get(operand, [batch, head, row, d]);
            }
        }
        values
    };
    let lengths = (0..problem.shape().batch).map(|b| sequences.keys(b)).collect();
    let host = Host {
        k: gather(Operand::K),
        v: gather(Operand::V),
        kv_lengths: Some(lengths),
        block_table: None,
        cu_seqlens_k: None,
        ..case.host.clone()
    };
    Case::new(problem, host)
}

#[test]
fn a_paged_cache_equals_a_dense_one() {
    // Prefill, a chunk and a decoding step.
    for (len_q, size, dtype) in [(35, 3, Dtype::F16), (5, 1, Dtype::F32), (1, 16, Dtype::Bf16)] {
        let shape = Shape::new(3, 4, len_q, 32).kv_heads(2).kv_len(70);
        let dense = Problem::builder(shape).dtype(dtype).causal(Diagonal::BottomRight).kv_lengths().lse();
        // Fewer pages than the sequences have entries, so that they share some.
        let pages = Pages { count: 2 * shape.len_kv.div_ceil(size), size };
        let mut case = drawn(dense.clone().paged_kv(pages), Fill::Normal, len_q.into());
        case.host.kv_lengths = Some(vec![64, 70, 33]);
        let case = with_poisoned_rest(case);
        assert_same_bits(&case, &with_dense_keys(&case, &dense));
    }
}

#[test]
fn a_ring_equals_a_cache_of_all_keys() {
    for (len_q, dtype) in [(12, Dtype::F32), (3, Dtype::F16), (1, Dtype::F32)] {
        let shape = Shape::new(3, 4, len_q, 32).kv_heads(2).kv_len(300);
        let window = Window { left: Some(40), right: None };
        let all = Problem::builder(shape).dtype(dtype).causal(Diagonal::BottomRight).window(window).kv_lengths().lse();
        let mut case = drawn(all.clone().ring_kv(40 + len_q), Fill::Normal, len_q.into());
        // Not full yet, full more than once, and as long as it may be.
        case.host.kv_lengths = Some(vec![30, 217, 300]);
        assert_same_bits(&case, &with_dense_keys(&case, &all));
    }
}

#[test]
fn ragged_sequences_equal_padded_ones() {
    for (len_q, bounds_q, bounds_k) in
        [(40, vec![1, 1, 41, 42, 75], vec![2, 2, 72, 80, 113]), (1, vec![0, 1, 2, 2, 3], vec![0, 70, 71, 71, 100])]
    {
        let shape = Shape::new(4, 4, len_q, 32).kv_heads(2).kv_len(70);
        let common = Problem::builder(shape).causal(Diagonal::BottomRight).lse();
        let [total_q, total_kv] = [&bounds_q, &bounds_k].map(|bounds| bounds.last().unwrap() + 3);
        let mut case = drawn(common.clone().ragged_q(total_q).ragged_kv(total_kv), Fill::Normal, 5);
        case.host.cu_seqlens_q = Some(bounds_q);
        case.host.cu_seqlens_k = Some(bounds_k);

        let padded = common.q_lengths().kv_lengths();
        let same = with_dense_keys(&case, &padded);
        let sequences = Sequences::new(&case);
        let view = same.view(Operand::Q);
        let mut q = vec![f32::NAN; view.end() as usize];
        for at @ [b, head, i, d] in indices(view.extent).filter(|at| at[2] < sequences.queries(at[0])) {
            let [batch, row] = sequences.query_place(b, i);
            q[view.index(at) as usize] = case.get(Operand::Q, [batch, head, row, d]);
        }
        let lengths = (0..shape.batch).map(|b| sequences.queries(b)).collect();
        let host = Host { q, q_lengths: Some(lengths), cu_seqlens_q: None, ..same.host.clone() };
        assert_same_bits(&case, &Case::new(same.problem, host));
    }
}

/// Some of each: queries of all kinds beside keys of all kinds.
fn mixed() -> Vec<ProblemBuilder> {
    let shape = Shape::new(3, 4, 20, 16).kv_heads(2).kv_len(45).value_dim(12);
    let pages = Pages { count: 9, size: 8 };
    let bare = || Problem::builder(shape).causal(Diagonal::BottomRight);
    let plain = || bare().lse();
    let window = Window { left: Some(9), right: Some(2) };
    let scores = ScoreLayout::broadcast([3, 4, 20, 45]);
    vec![
        plain().q_lengths().kv_lengths().sinks(),
        plain().q_lengths().mask(scores),
        // Eight buffers, as many as every device binds. So are those of the ragged, paged one.
        bare().q_lengths().paged_kv(pages).kv_lengths().bias(Dtype::F32, scores),
        plain().q_lengths().ragged_kv(80),
        plain().q_lengths().ring_kv(30).window(window),
        plain().ragged_q(40).kv_lengths().alibi(Slopes::PerBatchAndHead),
        bare().ragged_q(40).paged_kv(pages).kv_lengths().sinks(),
        plain().ragged_q(40).ring_kv(30).window(window),
        plain().ragged_q(40).ragged_kv(80).mask(scores),
        plain().paged_kv(pages),
        plain().ragged_kv(80).dtype(Dtype::F16),
    ]
}

#[test]
fn all_kinds_of_sequences_are_right_together() {
    for problem in mixed() {
        for seed in 0..3 {
            verify(&drawn(problem.clone(), Fill::Normal, seed));
        }
    }
}

#[test]
fn weights_of_rows_past_the_queries_are_zero() {
    let shape = Shape::new(2, 2, 20, 16).kv_len(45);
    let problem = Problem::builder(shape).q_lengths().kv_lengths().weights();
    let mut case = drawn(problem, Fill::Normal, 9);
    case.host.q_lengths = Some(vec![13, 0]);
    verify(&case);
}

#[test]
fn quantized_keys_are_right_in_every_kernel() {
    for (n, quantization) in Quantization::ALL.into_iter().enumerate() {
        // Head sizes that fill their words and that do not; groups of queries; values of several dispatches.
        for (shape, with_lengths) in [
            (Shape::new(2, 4, 35, 32).kv_heads(2).kv_len(50), true),
            (Shape::new(1, 4, 1, 36).kv_heads(1).kv_len(70).value_dim(20), false),
            (Shape::new(1, 2, 3, 27).kv_len(33).value_dim(13), false),
        ] {
            let problem = Problem::builder(shape).kv_quantized(quantization).lse();
            let problem = if with_lengths { problem.causal(Diagonal::BottomRight).kv_lengths() } else { problem };
            verify(&drawn(problem, Fill::Normal, n as u64));
        }
    }
    let wide = Problem::builder(Shape::new(1, 2, 2, 40).kv_len(33).value_dim(300));
    verify(&drawn(wide.kv_quantized(Quantization::Int4).dtype(Dtype::F16), Fill::Normal, 9));
    let pages = Pages { count: 12, size: 8 };
    let paged = Problem::builder(Shape::new(2, 4, 9, 32).kv_heads(2).kv_len(45)).paged_kv(pages).kv_lengths();
    verify(&drawn(paged.kv_quantized(Quantization::Int8), Fill::Normal, 10));
}

/// The keys that a sequence's queries see are divided evenly, wherever they begin.
#[test]
fn keys_in_sight_are_split_evenly() {
    let windows =
        [(Some(1500), Some(0)), (Some(600), Some(700)), (None, Some(0))].map(|(left, right)| Window { left, right });
    let shape = Shape::new(3, 4, 5, 16).kv_heads(2).kv_len(6000);
    let lengths = |case: Case| case.lengths(&[6000, 1700, 3]);
    for window in windows {
        for diagonal in [Diagonal::BottomRight, Diagonal::Offset(900)] {
            let problem = Problem::builder(shape).window(window).diagonal(diagonal).kv_lengths().lse();
            verify_within(&lengths(drawn(problem, Fill::Normal, 6)), |caps| caps.workgroups_to_fill = 1 << 20);
        }
    }
    let ring = Problem::builder(shape).window(windows[0]).diagonal(Diagonal::BottomRight).ring_kv(1600).q_lengths();
    let mut case = lengths(drawn(ring, Fill::Normal, 7));
    case.host.q_lengths = Some(vec![5, 2, 0]);
    verify_within(&case, |caps| caps.workgroups_to_fill = 1 << 20);
}

/// The keys at which the queries stand may have left the ring. Then nothing is read, and rows that see nothing are zero.
#[test]
fn a_ring_may_have_lost_what_its_queries_see() {
    let shape = Shape::new(2, 4, 8, 16).kv_heads(2).kv_len(400);
    for diagonal in [Diagonal::TopLeft, Diagonal::Offset(90)] {
        let problem = Problem::builder(shape).causal(diagonal).ring_kv(100).lse();
        // The oldest keys are 100 and 7, the last ones that are seen 7 or 97.
        let mut case = drawn(problem, Fill::Normal, 8).lengths(&[200, 107]);
        for operand in [Operand::K, Operand::V] {
            case = case.edited(operand, |[sequence, ..], x| if sequence == 0 { f32::NAN } else { x });
        }
        verify(&case);
    }
}

/// A step in which no sequence has a token, on a device that splits keys. There is no scratch for it.
#[test]
fn a_ragged_step_may_be_empty() {
    let (device, _queue) = noop();
    let mut caps = Caps::of(&device);
    caps.workgroups_to_fill = 1 << 20;
    for problem in [0, 1].map(|total| Problem::builder(Shape::new(2, 8, 1, 64).kv_len(8192)).ragged_q(total)) {
        let plan = Attention::with_caps(&device, caps).plan(&problem.build().unwrap()).unwrap();
        let buffers = buffers(&device, plan.problem());
        without_error(&device, || {
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            plan.bind(&operands(&buffers)).unwrap().encode(&mut encoder);
            encoder.finish()
        });
        assert_eq!(plan.dispatches() > 0, plan.problem().ragged_queries() == Some(1));
    }
}

/// A ring never needs more parts than a grid counts.
#[test]
fn the_parts_of_a_ring_fit_the_grid() {
    let (device, _queue) = noop();
    let mut caps = Caps::of(&device);
    caps.workgroups_to_fill = 1 << 20;
    for (workgroups, parts) in [(1, 1), (2, 2), (4, 4)] {
        caps.workgroups = workgroups;
        let problem = Problem::builder(Shape::new(1, 1, 1, 32).kv_len(1 << 20)).ring_kv(100_000).build().unwrap();
        let plan = Attention::with_caps(&device, caps).plan(&problem).unwrap();
        assert_eq!(plan.parts(), parts, "{workgroups}");
    }
}
