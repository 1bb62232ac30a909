//! Gradients: every input's, of everything that the forward pass takes.

use truth::{ExpectedGradients, Fill, GradientOutputs};
use wgpu_attention::{
    Diagonal, Dtype, GradientsBuilder, Inputs, Layout, MaskFormat, Operand, Operands, Problem, ScoreLayout, Shape,
    Slopes, Window, blocking, reference,
};

use crate::backward::{Backward, devices, everything, poisoned, shape, with_programs};
use crate::case::{drawn, full};

#[test]
fn gradients_of_plain_attention_are_right() {
    for (n, shape) in [Shape::new(1, 1, 1, 4), Shape::new(2, 2, 33, 24), shape(), Shape::new(1, 2, 64, 28).kv_len(97)]
        .into_iter()
        .enumerate()
    {
        Backward::new(Problem::builder(shape), Fill::Normal, n as u64).verify();
    }
    // Rows of any length, at any offset.
    Backward::new(Problem::builder(Shape::new(2, 2, 33, 23).value_dim(37)), Fill::Spike, 5).verify();
}

/// One kernel computes at most 256 columns.
#[test]
fn gradients_of_wide_heads_are_right() {
    let shape = Shape::new(1, 2, 35, 300).kv_heads(1).value_dim(272).kv_len(40);
    Backward::new(Problem::builder(shape).causal(Diagonal::BottomRight), Fill::Normal, 1).verify();
}

#[test]
fn gradients_follow_everything_that_a_score_goes_through() {
    for (fill, seed) in [(Fill::Normal, 1), (Fill::Spike, 2), (Fill::Staircase, 3), (Fill::Constant, 4)] {
        for problem in everything(shape()) {
            let everything = Backward::with(problem, fill, seed, GradientsBuilder::dlse);
            assert_eq!(everything.views().filter(|view| view.operand.is_gradient()).count(), 4);
            everything.verify();
        }
    }
    let [_, with_sinks] = everything(shape());
    // A sink may take all the weight, or none.
    let mut extreme = Backward::new(with_sinks.clone(), Fill::Normal, 5);
    extreme.case.host.sinks = Some(vec![40.0, f32::NEG_INFINITY, -40.0, 0.0]);
    extreme.case.host.kv_lengths = Some(vec![0, 3]);
    extreme.verify();
    // Both signs of the scale, and none.
    for scale in [-0.3, 0.0] {
        Backward::new(with_sinks.clone().scale(scale), Fill::Normal, 6).verify();
    }
}

#[test]
fn positions_alone_hide_pairs() {
    let window = Window { left: Some(20), right: Some(7) };
    for (n, problem) in [
        Problem::builder(shape()).causal(Diagonal::TopLeft),
        Problem::builder(shape()).window(window).diagonal(Diagonal::Offset(-9)),
        Problem::builder(shape()).window(window).diagonal(Diagonal::BottomRight),
        Problem::builder(shape()).window(Window { left: None, right: Some(0) }).diagonal(Diagonal::Offset(i32::MIN)),
        Problem::builder(shape()).window(Window { left: Some(0), right: None }).diagonal(Diagonal::Offset(i32::MAX)),
    ]
    .into_iter()
    .enumerate()
    {
        Backward::new(problem, Fill::Normal, n as u64).verify();
    }
}

#[test]
fn a_bias_gets_its_gradient_summed_over_what_it_broadcasts() {
    let Shape { batch, heads_q, len_q, len_kv, .. } = shape();
    for (n, dims) in [
        [batch, heads_q, len_q, len_kv],
        [1, heads_q, len_q, len_kv],
        [batch, 1, 1, len_kv],
        [1, 1, len_q, 1],
        [1, heads_q, 1, 1],
        [1, 1, 1, 1],
    ]
    .into_iter()
    .enumerate()
    {
        let problem = Problem::builder(shape()).bias(Dtype::F32, ScoreLayout::broadcast(dims)).sinks();
        let only = |gradients: GradientsBuilder| gradients.of([Operand::Dbias]).dlse();
        let backward = Backward::with(problem, Fill::Normal, n as u64, only);
        assert_eq!(backward.gradients.view(Operand::Dbias).unwrap().extent, dims);
        backward.verify();
    }
    // 16-bit elements, in rows that share words.
    let odd = Shape::new(1, 2, 33, 8).kv_len(35);
    let half = Problem::builder(odd).bias(Dtype::F16, ScoreLayout::broadcast([1, 2, 33, 35]));
    Backward::with(half, Fill::Normal, 9, |gradients| gradients.of([Operand::Dbias])).verify();
    // Odd heads.
    let odd = Shape::new(1, 2, 33, 7).kv_len(35);
    let single = Problem::builder(odd).bias(Dtype::F32, ScoreLayout::broadcast([1, 1, 33, 35]));
    Backward::with(single, Fill::Normal, 10, |gradients| gradients.of([Operand::Dbias])).verify();
}

#[test]
fn each_storage_type_has_gradients_of_its_own() {
    for (n, [q, kv, out]) in [
        [Dtype::F16, Dtype::F16, Dtype::F16],
        [Dtype::Bf16, Dtype::F32, Dtype::F16],
        [Dtype::F32, Dtype::Bf16, Dtype::Bf16],
    ]
    .into_iter()
    .enumerate()
    {
        // Odd heads, so that rows share words.
        let shape = if n == 0 { shape() } else { Shape::new(2, 2, 37, 7).kv_heads(1).kv_len(41).value_dim(9) };
        let problem = Problem::builder(shape).dtype(q).kv_dtype(kv).out_dtype(out).causal(Diagonal::TopLeft);
        Backward::new(problem, Fill::Normal, n as u64).verify();
    }
}

#[test]
fn layouts_of_gradients_are_their_own() {
    let shape = shape();
    let Shape { heads_q, heads_kv, len_q, len_kv, dim_qk, .. } = shape;
    let (queries, keys) = (Layout::blhd(heads_q, len_q, dim_qk), Layout::blhd(heads_kv, len_kv, dim_qk));
    let problem = Problem::builder(shape).q(queries).k(keys.at(8)).v(keys).out(queries);
    let gapped = Layout::bhld(heads_kv, len_kv, dim_qk + 4).at(12);
    Backward::with(problem, Fill::Normal, 1, |gradients| {
        gradients.dout(queries.at(4)).dq(queries).dk(gapped).dv(keys.at(20))
    })
    .verify();
}

#[test]
fn sequences_have_gradients_of_their_own_lengths() {
    let shape = Shape::new(4, 4, 45, 24).kv_heads(2).kv_len(70);
    for (n, problem) in [
        Problem::builder(shape).q_lengths().kv_lengths(),
        Problem::builder(shape).ragged_q(130).ragged_kv(200),
        Problem::builder(shape).ragged_q(130).kv_lengths(),
        Problem::builder(shape).q_lengths().ragged_kv(200),
    ]
    .into_iter()
    .enumerate()
    {
        for seed in 0..3 {
            let problem = problem.clone().causal(Diagonal::BottomRight).sinks();
            Backward::new(problem, Fill::Normal, 10 * n as u64 + seed).verify();
        }
    }
    let biased = Problem::builder(shape).ragged_q(130).kv_lengths();
    let biased = biased.bias(Dtype::F32, ScoreLayout::broadcast([1, 4, 45, 70]));
    Backward::with(biased, Fill::Normal, 50, |gradients| gradients.of([Operand::Dbias])).verify();
}

#[test]
fn programs_and_block_masks_take_part() {
    with_programs().verify();
}

/// What no row sees may hold anything, and so may the rows past the lengths.
#[test]
fn what_is_hidden_never_reaches_a_gradient() {
    let problem = Problem::builder(shape()).mask_as(MaskFormat::WordsHide, full(shape())).kv_lengths();
    for (problem, queries) in [(problem.clone().q_lengths(), [20, 45]), (problem.sinks(), [45, 45])] {
        for poison in [f32::NAN, f32::INFINITY] {
            let (backward, expected) = poisoned(problem.clone(), queries, poison);
            for device in devices() {
                let got = backward.run(device);
                expected.check(&got).unwrap_or_else(|wrong| panic!("{}: {wrong}", device.name));
                let row = |values: &[f32], [b, h, n]: [usize; 3], [heads, len]: [usize; 2]| {
                    values[((b * heads + h) * len + n) * 24..][..24].to_vec()
                };
                for i in queries[0]..45 {
                    assert_eq!(row(&got.dq, [0, 1, i as usize], [4, 45]), [0.0; 24], "past the queries");
                }
                assert_eq!(row(&got.dq, [1, 3, 7], [4, 45]), [0.0; 24], "sees nothing");
                assert_eq!(row(&got.dk, [0, 1, 5], [2, 70]), [0.0; 24], "seen by none");
                assert_eq!(row(&got.dv, [1, 0, 33], [2, 70]), [0.0; 24], "past the keys");
            }
        }
    }
}

/// NaN in one row reaches the keys that this row sees, and its own gradient; no other row's.
#[test]
fn what_is_not_a_number_stays_where_it_is_seen() {
    let problem = Problem::builder(Shape::new(2, 2, 40, 8)).causal(Diagonal::TopLeft);
    let clean = Backward::new(problem.clone(), Fill::Normal, 4);
    let mut struck = Backward::new(problem.clone(), Fill::Normal, 4);
    struck.case.edit(Operand::Q, |at, x| if at == [0, 1, 9, 3] { f32::NAN } else { x });
    let mut with_dout = Backward::new(problem, Fill::Normal, 4);
    with_dout.case.host.dout.as_mut().unwrap()[(40 + 9) * 8 + 3] = f32::INFINITY;
    for device in devices() {
        let (clean, struck, with_dout) = (clean.run(device), struck.run(device), with_dout.run(device));
        for (n, (clean, struck)) in clean.dv.chunks(8).zip(with_dout.dv.chunks(8)).enumerate() {
            let sees = (40..=40 + 9).contains(&n);
            assert_eq!(struck.iter().any(|x| !x.is_finite()), sees, "dv, key {n}");
            assert!(sees || clean == struck, "dv, key {n}");
        }
        for (n, (clean, struck)) in clean.dq.chunks(8).zip(struck.dq.chunks(8)).enumerate() {
            assert_eq!(struck[0].is_nan(), n == 40 + 9, "dq, row {n}");
            assert!(n == 40 + 9 || clean == struck, "dq, row {n}");
        }
        for (n, (clean, struck)) in clean.dk.chunks(8).zip(struck.dk.chunks(8)).enumerate() {
            let sees = (40..=40 + 9).contains(&n);
            assert_eq!(struck[0].is_nan(), sees, "dk, key {n}");
            assert!(sees || clean == struck, "dk, key {n}");
        }
    }
}

#[test]
fn the_same_inputs_give_the_same_bits_however_the_work_is_cut() {
    let [masked, with_sinks] = everything(shape());
    let masked = Backward::with(masked, Fill::Normal, 8, GradientsBuilder::dlse);
    let with_sinks = Backward::with(with_sinks, Fill::Normal, 8, GradientsBuilder::dlse);
    let ragged = Problem::builder(Shape::new(4, 4, 45, 24).kv_heads(2).kv_len(70)).ragged_q(130).ragged_kv(200);
    for backward in [masked, with_sinks, Backward::new(ragged, Fill::Normal, 9)] {
        for device in devices() {
            let whole = backward.run(device).bits();
            assert!(whole == backward.run(device).bits(), "{}: twice", device.name);
            for cut in [
                device.with_caps(|caps| caps.dispatch_flop = 1),
                device.with_caps(|caps| caps.dispatch_flop = 200_000),
                device.with_caps(|caps| caps.workgroups = 3),
            ] {
                let pieces = cut.attention.plan_gradients(&backward.gradients).unwrap().dispatches();
                assert!(pieces > 6, "{pieces}");
                assert!(whole == backward.run(&cut).bits(), "{}: in {pieces} dispatches", device.name);
            }
        }
    }
}

/// The gradients of a row, and of a key, do not depend on what other batches and heads hold.
#[test]
fn neighbours_do_not_change_bits() {
    let problem = Problem::builder(Shape::new(2, 4, 40, 8).kv_heads(2)).causal(Diagonal::TopLeft);
    let one = Backward::new(problem.clone(), Fill::Normal, 4);
    let mut other = Backward::new(problem, Fill::Normal, 4);
    for operand in [Operand::Q, Operand::K, Operand::V] {
        other.case.edit(operand, |[b, ..], x| if b == 1 { 3.0 * x } else { x });
    }
    for device in devices() {
        let (one, other) = (one.run(device), other.run(device));
        for (one, other) in [(&one.dq, &other.dq), (&one.dk, &other.dk), (&one.dv, &other.dv)] {
            let half = one.len() / 2;
            assert!(one[..half] == other[..half] && one[half..] != other[half..]);
        }
    }
}

#[test]
fn only_what_is_wanted_is_computed() {
    let problem = Problem::builder(shape()).bias(Dtype::F32, full(shape())).sinks().lse().build().unwrap();
    let caps = wgpu_attention::Caps::from_limits(&wgpu::Limits::default());
    let names = |of: &[Operand]| -> Vec<&str> {
        let gradients = problem.gradients().of(of.iter().copied()).build().unwrap();
        let variants = wgpu_attention::testing::gradients(&gradients, &caps).unwrap();
        variants.iter().map(wgpu_attention::testing::schedule).collect()
    };
    assert_eq!(names(&[Operand::Dk, Operand::Dk]), ["row_sums", "gradient_keys"]);
    assert_eq!(names(&[Operand::Dv, Operand::Dq]), ["row_sums", "gradient_queries", "gradient_values"]);
    assert_eq!(names(&[Operand::Dsinks, Operand::Dbias]), ["row_sums", "gradient_bias", "gradient_sinks"]);
}

#[test]
fn a_gradient_alone_has_the_bits_that_it_has_among_all() {
    let problem = Problem::builder(shape()).causal(Diagonal::TopLeft);
    let all = Backward::new(problem.clone(), Fill::Normal, 7);
    for device in devices() {
        let all = all.run(device);
        for (of, wanted) in [(Operand::Dq, &all.dq), (Operand::Dk, &all.dk), (Operand::Dv, &all.dv)] {
            let one = Backward::with(problem.clone(), Fill::Normal, 7, |gradients| gradients.of([of])).run(device);
            let got = [one.dq, one.dk, one.dv].concat();
            assert!(got == *wanted, "{}: {of}", device.name);
        }
    }
}

#[test]
fn problems_without_rows_or_keys_have_gradients() {
    for shape in [Shape::new(2, 2, 5, 8).kv_len(0), Shape::new(2, 2, 0, 8).kv_len(5), Shape::new(0, 2, 5, 8)] {
        let backward = Backward::new(Problem::builder(shape), Fill::Normal, 1);
        for device in devices() {
            let got = backward.run(device);
            assert!(got.dq.iter().chain(&got.dk).chain(&got.dv).all(|&x| x == 0.0), "{shape:?}");
            let plan = device.attention.plan_gradients(&backward.gradients).unwrap();
            assert_eq!(plan.dispatches() == 0, shape.batch == 0, "{shape:?}");
        }
    }
}

#[test]
fn operands_may_share_a_buffer() {
    let problem = Problem::builder(Shape::new(1, 2, 40, 8)).shared_buffers();
    let backward = Backward::new(problem, Fill::Normal, 2);
    backward.verify();
    for device in devices() {
        let plan = device.attention.plan_gradients(&backward.gradients).unwrap();
        let all = backward.views().map(|view| (view.operand, view.size_bytes().next_multiple_of(256)));
        let all: Vec<(Operand, u64)> = all.collect();
        let pool = device.attention.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: all.iter().map(|(_, size)| size).sum(),
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        });
        let (mut operands, mut offset) = (Operands::default(), 0);
        for (operand, size) in all {
            let size_bytes = backward.gradients.view(operand).unwrap().size_bytes();
            let range = wgpu::BufferBinding { buffer: &pool, offset, size: wgpu::BufferSize::new(size_bytes) };
            (operands, offset) = (operands.with(operand, range), offset + size);
        }
        // wgpu checks when a pass is recorded whether one dispatch may read and write the buffer.
        device.finish(&plan.bind(&operands).unwrap(), std::iter::empty());
    }
}

/// The reference's gradients against differences of its results.
#[test]
fn the_reference_agrees_with_central_differences() {
    let shape = Shape::new(1, 4, 5, 3).kv_heads(2).kv_len(6).value_dim(2);
    let bias = ScoreLayout::broadcast([1, 4, 1, 6]);
    let mask = ScoreLayout::broadcast([1, 1, 5, 6]);
    let problem = Problem::builder(shape).softcap(2.0).mask(mask).bias(Dtype::F32, bias).sinks();
    let problem = problem.alibi(Slopes::PerHead).window(Window { left: Some(4), right: None });
    let score_mod = "fn score_mod(s: f32, at: At) -> f32 { return s * s; }";
    let case = drawn(problem.score_mod(score_mod).lse(), Fill::Normal, 3);
    let grad = "fn score_mod_grad(s: f32, at: At, gradient: f32) -> f32 { return 2.0 * s * gradient; }";
    let gradients = case.problem.gradients().score_mod_grad(grad).dlse().build().unwrap();
    let Backward { case, .. } = Backward::of(case, gradients.clone(), 3);
    let square = |score: f64, _: reference::At| score * score;
    let slope = |score: f64, _: reference::At, gradient: f64| 2.0 * score * gradient;
    let programs = reference::Programs { score_mod: Some(&square), ..Default::default() };
    let with_slope = reference::Programs { score_mod_grad: Some(&slope), ..programs };
    let exact = reference::gradients(&gradients, &case.inputs(), &with_slope).unwrap();

    let loss = |host: &truth::Host| -> f64 {
        let inputs = wgpu_attention::Inputs { dout: None, dlse: None, ..host.inputs() };
        let results = reference::attention_with(&case.problem, &inputs, &programs).unwrap();
        let weighted = |values: &[f64], by: &Option<Vec<f32>>| -> f64 {
            values.iter().zip(by.as_ref().unwrap()).filter(|(x, _)| x.is_finite()).map(|(x, w)| x * f64::from(*w)).sum()
        };
        weighted(&results.out, &host.dout) + weighted(&results.lse, &host.dlse)
    };
    let step = 1e-2_f32;
    let mut tried = 0;
    for (name, exact, of) in [
        ("dq", &exact.dq, (|host: &mut truth::Host| host.q.as_mut_slice()) as fn(&mut truth::Host) -> &mut [f32]),
        ("dk", &exact.dk, |host| host.k.as_mut_slice()),
        ("dv", &exact.dv, |host| host.v.as_mut_slice()),
        ("dbias", &exact.dbias, |host| host.bias.as_mut().unwrap().as_mut_slice()),
        ("dsinks", &exact.dsinks, |host| host.sinks.as_mut().unwrap().as_mut_slice()),
    ] {
        for (n, &exact) in exact.iter().enumerate() {
            // Richardson's extrapolation of central differences; the steps that f32 makes of an input are measured.
            let difference = |step: f32| {
                let [mut more, mut less] = [case.host.clone(), case.host.clone()];
                of(&mut more)[n] += step;
                of(&mut less)[n] -= step;
                let width = f64::from(of(&mut more)[n]) - f64::from(of(&mut less)[n]);
                (loss(&more) - loss(&less)) / width
            };
            let wanted = (4.0 * difference(step) - difference(2.0 * step)) / 3.0;
            assert!((exact - wanted).abs() < 1e-4 * (1.0 + wanted.abs()), "{name}[{n}]: {exact}, not {wanted}");
            tried += 1;
        }
    }
    assert_eq!(tried, 60 + 36 + 24 + 24 + 4);
}

#[test]
fn host_slices_have_gradients_too() {
    for problem in everything(shape()) {
        let Backward { case, gradients } = Backward::with(problem, Fill::Normal, 12, GradientsBuilder::dlse);
        let expected = ExpectedGradients::new(&case, &gradients).unwrap();
        for device in devices() {
            let _guard = device.enter();
            let got = blocking::gradients(&device.attention, &device.queue, &gradients, &case.inputs()).unwrap();
            truth::Expected::of(&case).check(&truth::Outputs::of(&case, &got.forward)).unwrap();
            expected.check(&GradientOutputs::of(&case, &gradients, &got)).unwrap();
            let missing = Inputs { dout: None, ..case.inputs() };
            let error = blocking::gradients(&device.attention, &device.queue, &gradients, &missing).unwrap_err();
            assert!(error.to_string().contains("`dout`"), "{error}");
        }
    }
}
