//! Merging pairs of an output and its log-sum-exp.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use truth::pairs::{MISTAKES, Pairs, SPREAD, gappy, partly_empty, shape};
use truth::{Case, Expected, Fill, Outputs, indices};
use wgpu::BufferUsages;
use wgpu_attention::{
    Attention, BindError, Caps, Dtype, Layout, Merge, MergePlan, Operand, Operands, Problem, ProblemBuilder, Readback,
    Shape, View, reference, testing,
};

use crate::case::drawn;
use crate::choice::verify;
use crate::contents::{elements_of, strays, unwritten};
use crate::coverage;
use crate::device::{Device, all};
use crate::record::{noop, operands, without_error};

/// How pairs are merged on the devices of this machine.
trait OnDevice {
    /// Merges on a device as `attention` plans it. Also returns the number of dispatches.
    fn run_by(&self, device: &Device, attention: &Attention) -> (Outputs, usize);
    fn run(&self, device: &Device) -> Outputs;
    /// Merges on every adapter, and judges the results.
    fn verify(&self);
}

impl OnDevice for Pairs {
    fn run_by(&self, device: &Device, attention: &Attention) -> (Outputs, usize) {
        let _guard = device.enter();
        let plan = attention.plan_merge(&self.merge).unwrap();
        let upload = |operand, values: &[f32]| {
            let mut bytes = self.merge.dtype(operand).unwrap().encode(values);
            bytes.resize(bytes.len().next_multiple_of(4), 0xff);
            device.upload(&bytes)
        };
        let (outs, lses) = (upload(Operand::PairOut, &self.outs), upload(Operand::PairLse, &self.lses));
        let views: Vec<View> =
            [Operand::Out, Operand::Lse].into_iter().filter_map(|operand| self.merge.view(operand)).collect();
        let results: Vec<wgpu::Buffer> = views.iter().map(|view| device.upload(&unwritten(view))).collect();
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let mut operands = Operands::of_pairs(whole(&outs), whole(&lses), whole(&results[0]));
        if let Some(lse) = results.get(1) {
            operands = operands.with(Operand::Lse, whole(lse));
        }
        let bytes = device.finish(&plan.bind(&operands).unwrap(), results.iter());
        coverage::ran(device, std::iter::once(plan.variant()));
        let mut outputs = Outputs::default();
        for (view, bytes) in views.iter().zip(&bytes) {
            outputs.stray = outputs.stray.or_else(|| strays(view, &unwritten(view), bytes));
            let values = elements_of(view, self.merge.dtype(view.operand).unwrap(), bytes);
            match view.operand {
                Operand::Out => outputs.out = values,
                _ => outputs.lse = Some(values),
            }
        }
        (outputs, plan.dispatches())
    }

    fn run(&self, device: &Device) -> Outputs {
        self.run_by(device, &device.attention).0
    }

    fn verify(&self) {
        let expected = Expected::of(&self.as_attention());
        for device in all() {
            let verdict = expected.check(&self.run(device));
            verdict.unwrap_or_else(|wrong| panic!("{:?} on {}: {wrong}", self.merge, device.name));
        }
    }
}

#[test]
fn pairs_of_every_type_are_merged() {
    for types in 0..9 {
        let [dtype, out] = [types / 3, types % 3].map(|n| Dtype::ALL[n]);
        for dim in [5, 64] {
            let merge = Merge::builder(shape(dim), 3).dtype(dtype).out_dtype(out);
            Pairs::drawn(merge.clone(), SPREAD, 1).verify();
            Pairs::drawn(merge.lse(), SPREAD, 2).verify();
        }
    }
}

#[test]
fn pairs_lie_anywhere() {
    for dim in [1, 2, 3, 5, 8, 33] {
        for dtype in Dtype::ALL {
            for pairs in [1, 2, 7] {
                Pairs::drawn(gappy(dim, pairs).dtype(dtype), SPREAD, 3).verify();
            }
        }
    }
    // In fours, with pairs innermost.
    let layout = Layout::strided([5 * 3 * 4 * 12, 4 * 12, 3 * 4 * 12]);
    let side_by_side = Merge::builder(shape(12), 4).pair_out(layout).pair_out_stride(12).lse();
    let side_by_side = Pairs::drawn(side_by_side, SPREAD, 4);
    side_by_side.verify();
    // Larger heads than attention has.
    Pairs::drawn(Merge::builder(Shape::new(1, 2, 3, 1000), 3).lse(), SPREAD, 5).verify();
    // One pair three times.
    let thrice = Pairs::drawn(Merge::builder(shape(8), 3).pair_out_stride(0).pair_lse_stride(0).lse(), SPREAD, 6);
    thrice.verify();
}

#[test]
fn many_pairs_are_merged() {
    for dtype in Dtype::ALL {
        Pairs::drawn(Merge::builder(shape(20), 1000).dtype(dtype).lse(), SPREAD, 7).verify();
    }
}

/// A driver that ends long loops loses no pair of the most that are accepted.
#[test]
fn the_most_pairs_are_all_merged() {
    let shape = Shape::new(1, 1, 1, 4);
    for device in all() {
        let loops = device.attention.caps().loop_iterations;
        if loops == u32::MAX {
            continue;
        }
        let pairs = (1..loops).rev().map(|n| Merge::builder(shape, n).lse().build().unwrap());
        let most = pairs.into_iter().find(|merge| testing::merge(merge, device.attention.caps()).is_ok()).unwrap();
        assert!(most.pairs() > 30_000, "{}", most.pairs());
        let n = most.pairs() as f32;
        // Each has the same weight, and only the last is not 0.
        let pairs = Pairs::drawn(most.to_builder(), 0.0, 8);
        let pairs = pairs.edited(Operand::PairOut, |pair, _, _| if pair + 1 == n as u32 { n } else { 0.0 });
        Expected::of(&pairs.as_attention()).check(&pairs.run(device)).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

#[test]
fn log_sum_exps_of_any_size_are_merged() {
    for (spread, offset) in [(0.0, 0.0), (3.0, 1e4), (3.0, -1e4), (1e4, 0.0), (3e38, 0.0), (1e-30, -3e38), (80.0, 0.0)]
    {
        let pairs = Pairs::drawn(Merge::builder(shape(12), 6).lse(), spread, 9);
        pairs.edited(Operand::PairLse, |_, _, lse| lse + offset).verify();
    }
}

#[test]
fn pairs_that_saw_nothing_contribute_nothing() {
    for dtype in Dtype::ALL {
        for merge in [Merge::builder(shape(8), 4).lse(), gappy(5, 4)] {
            let clean = partly_empty(merge.clone().dtype(dtype), 0.0);
            clean.verify();
            for unseen in [f32::NAN, f32::INFINITY, 60_000.0] {
                let poisoned = partly_empty(merge.clone().dtype(dtype), unseen);
                for device in all() {
                    let (clean, poisoned) = (clean.run(device), poisoned.run(device));
                    assert_eq!(clean.bits(), poisoned.bits(), "{unseen} on {}", device.name);
                    let (outs, lses) = (clean.out.chunks(clean.out.len() / 30), clean.lse.unwrap());
                    for (row, (out, lse)) in outs.zip(lses).enumerate().filter(|(row, _)| row % 5 == 4) {
                        let is_empty = out.iter().all(|x| x.to_bits() == 0) && lse == f32::NEG_INFINITY;
                        assert!(is_empty, "row {row} saw nothing: {out:?}, {lse}");
                    }
                }
            }
        }
    }
}

/// A pair that is alone, or whose others contribute nothing, keeps its bits.
#[test]
fn one_pair_stays_as_it_is() {
    for dtype in Dtype::ALL {
        for others in [f32::NEG_INFINITY, -1e30] {
            let merge = Merge::builder(shape(12), 3).dtype(dtype).lse();
            let pairs = Pairs::drawn(merge, SPREAD, 11);
            let pairs = pairs.edited(Operand::PairLse, |pair, _, lse| if pair == 1 { lse } else { others });
            let alone = Pairs::drawn(Merge::builder(shape(12), 1).dtype(dtype).lse(), SPREAD, 11);
            for (pairs, n) in [(pairs, 1), (alone, 0)] {
                let [outs, lses] = [Operand::PairOut, Operand::PairLse].map(|operand| {
                    let extent = pairs.merge.view(operand).unwrap().extent;
                    indices(extent).map(|at| pairs.get(operand, n, at)).collect::<Vec<f32>>()
                });
                let same = Outputs { out: outs, lse: Some(lses), ..Outputs::default() };
                for device in all() {
                    assert_eq!(pairs.run(device).bits(), same.bits(), "{dtype} on {}", device.name);
                }
            }
        }
    }
}

#[test]
fn what_is_not_a_number_stays_in_its_row() {
    let merge = || Merge::builder(shape(6), 4).lse();
    let clean = Pairs::drawn(merge(), SPREAD, 12);
    let is_struck = |[batch, head, row, _]: [u32; 4]| (batch * 15 + head * 5 + row) % 4 == 1;
    for bad in [f32::NAN, f32::INFINITY] {
        for all_pairs in [0..1, 3..4, 0..4] {
            let struck = clean.clone().edited(Operand::PairLse, |pair, at, lse| {
                if is_struck(at) && all_pairs.contains(&pair) { bad } else { lse }
            });
            for device in all() {
                let (clean, struck) = (clean.run(device), struck.run(device));
                let outs = clean.out.chunks(6).zip(struck.out.chunks(6));
                let lses = clean.lse.unwrap().into_iter().zip(struck.lse.unwrap());
                for (at, ((before, after), (lse_before, lse_after))) in indices([2, 3, 5, 1]).zip(outs.zip(lses)) {
                    let is_nan = after.iter().all(|x| x.is_nan()) && lse_after.is_nan();
                    let same = before == after && lse_before == lse_after;
                    assert!(if is_struck(at) { is_nan } else { same }, "{bad} at {at:?} on {}", device.name);
                }
            }
        }
    }
    // In an output, it reaches only the elements that it is in.
    let struck = clean
        .clone()
        .edited(Operand::PairOut, |pair, at, x| if is_struck(at) && pair == 2 && at[3] == 3 { f32::NAN } else { x });
    for device in all() {
        let (clean, struck) = (clean.run(device), struck.run(device));
        assert_eq!(clean.lse, struck.lse);
        for (at, (before, after)) in indices([2, 3, 5, 6]).zip(clean.out.iter().zip(&struck.out)) {
            let wanted = if is_struck(at) && at[3] == 3 { after.is_nan() } else { before == after };
            assert!(wanted, "{before} became {after} at {at:?}");
        }
    }
}

#[test]
fn cutting_a_merge_changes_no_bit() {
    for merge in [gappy(9, 3), gappy(8, 3).dtype(Dtype::F16), Merge::builder(Shape::new(1, 1, 1, 90), 3).lse()] {
        let pairs = Pairs::drawn(merge, SPREAD, 13);
        for device in all() {
            let (whole, dispatches) = pairs.run_by(device, &device.attention);
            assert_eq!(dispatches, 1);
            type Tighten = fn(&mut Caps);
            let tighten: [(Tighten, usize); 4] = [
                (|caps| caps.binding_bytes = 1300, 2),
                (|caps| caps.workgroups = 1, 1),
                (|caps| caps.dispatch_flop = 1, 20),
                (|caps| caps.dispatch_flop = 40, 8),
            ];
            for (tighten, least) in tighten {
                let mut caps = *device.attention.caps();
                tighten(&mut caps);
                let tight = Attention::with_caps(device.attention.device(), caps);
                let (cut, dispatches) = pairs.run_by(device, &tight);
                assert!(dispatches >= least, "{dispatches} dispatches within {caps:?}");
                assert_eq!(cut.bits(), whole.bits(), "{dispatches} dispatches within {caps:?}");
            }
        }
    }
}

#[test]
fn nothing_is_merged_where_there_are_no_rows() {
    for shape in [Shape { batch: 0, ..shape(4) }, Shape { len_q: 0, ..shape(4) }] {
        let merge = Merge::builder(shape, 3).lse().build().unwrap();
        let plan = all()[0].attention.plan_merge(&merge).unwrap();
        assert_eq!((plan.dispatches(), merge.size_bytes(Operand::PairOut)), (0, Some(0)));
        let merged = reference::merge(&merge, &[], &[]).unwrap();
        assert!(merged.out.is_empty() && merged.lse.is_empty());
    }
}

/// Sizes and strides at the edges of their types are an error or a plan, and what a plan asks for can be bound.
#[test]
fn no_description_of_a_merge_panics() {
    let (device, _queue) = noop();
    let attention = Attention::new(&device);
    let mut rng = StdRng::seed_from_u64(20);
    let (mut planned, mut refused) = (0, 0);
    for _ in 0..2000 {
        let sizes = [0, 1, 2, 7, 64, 70_000, 1 << 24, 1 << 29, u32::MAX];
        let strides = [0, 1, 8, 64, 1000, 1 << 32, 1 << 62, 1 << 63, u64::MAX];
        let mut few = || sizes[rng.random_range(0..6)];
        let mut shape = Shape { batch: few(), len_q: few(), dim_v: few(), ..Shape::new(1, few(), 1, 1) };
        let mut pairs = few();
        let any = sizes[rng.random_range(0..sizes.len())];
        match rng.random_range(0..8) {
            0 => shape.batch = any,
            1 => shape.heads_q = any,
            2 => shape.len_q = any,
            3 => shape.dim_v = any,
            4 => pairs = any,
            _ => {}
        }
        let mut merge = Merge::builder(shape, pairs).dtype(Dtype::ALL[rng.random_range(0..3)]);
        let mut stride = || strides[rng.random_range(0..strides.len())];
        let layout = Layout::strided([stride(), stride(), stride()]).at(stride());
        merge = match rng.random_range(0..8) {
            0 => merge.pair_out(layout),
            1 => merge.pair_lse(layout),
            2 => merge.out(layout),
            3 => merge.lse_in(layout),
            4 => merge.pair_out_stride(layout.row).lse(),
            5 => merge.pair_lse_stride(layout.row),
            _ => merge,
        };
        let Ok(merge) = merge.build() else {
            refused += 1;
            continue;
        };
        let Ok(plan) = attention.plan_merge(&merge) else {
            refused += 1;
            continue;
        };
        planned += 1;
        if Operand::ALL.iter().filter_map(|&operand| merge.size_bytes(operand)).max() < Some(1 << 20) {
            without_error(&device, || bind_all(&device, &plan));
        }
    }
    assert!(planned > 200 && refused > 200, "{planned} planned, {refused} refused");
}

#[test]
fn what_a_merge_binds_is_checked() {
    let (device, _queue) = noop();
    let merge = Merge::builder(shape(8), 3).dtype(Dtype::F16).lse().build().unwrap();
    let plan = Attention::new(&device).plan_merge(&merge).unwrap();
    let buffer = |size| {
        let usage = BufferUsages::STORAGE;
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    // 30 rows: a pair's output takes 480 bytes of 512, its log-sum-exp 120 of 256.
    let sizes = [(Operand::PairOut, 1504), (Operand::PairLse, 632), (Operand::Out, 480), (Operand::Lse, 120)];
    let right = sizes.map(|(operand, size)| {
        assert_eq!(merge.size_bytes(operand), Some(size));
        (operand, buffer(size))
    });
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let call = plan.bind(&operands(&right)).unwrap();
    for (operand, need) in sizes {
        let short = buffer(need - 4);
        let too_small = Err(BindError::TooSmall { operand, need, got: need - 4 });
        assert_eq!(plan.bind(&operands(&right).with(operand, whole(&short))).map(drop), too_small);
        assert_eq!(call.rebound(operand, whole(&short)).map(drop), too_small);
        call.rebound(operand, whole(&buffer(need))).unwrap();
        let others: Vec<_> = right.iter().filter(|(other, _)| *other != operand).cloned().collect();
        assert_eq!(plan.bind(&operands(&others)).map(drop), Err(BindError::Missing { operand }));
    }
    let unused = plan.bind(&operands(&right).with(Operand::Q, whole(&right[0].1))).map(drop);
    assert_eq!(unused, Err(BindError::Unused { operand: Operand::Q }));
    let (output, other) = (Operand::Out, Operand::PairOut);
    let shared = plan.bind(&operands(&right).with(output, whole(&right[0].1))).map(drop);
    assert_eq!(shared, Err(BindError::Aliased { output, other }));
    // Results may share a buffer where they are apart.
    let both = buffer(1024);
    let at = |offset| wgpu::BufferBinding { buffer: &both, offset, size: None };
    plan.bind(&operands(&right).with(Operand::Out, at(0)).with(Operand::Lse, at(512))).unwrap();
    let overlapping = plan.bind(&operands(&right).with(Operand::Out, at(0)).with(Operand::Lse, at(256))).map(drop);
    assert_eq!(overlapping, Err(BindError::Aliased { output: Operand::Out, other: Operand::Lse }));
    // The places of pairs.
    for (operand, offset, size) in [(Operand::PairOut, 1024, 480), (Operand::PairLse, 512, 120)] {
        let binding = merge.pair(operand, 2, &both).unwrap();
        assert_eq!((binding.offset, binding.size.map(u64::from)), (offset, Some(size)));
    }
}

fn bind_all(device: &wgpu::Device, plan: &MergePlan) {
    let used = Operand::ALL.into_iter().filter_map(|operand| Some((operand, plan.merge().size_bytes(operand)?)));
    let buffers = used.map(|(operand, size)| {
        let descriptor =
            wgpu::BufferDescriptor { label: None, size, usage: BufferUsages::STORAGE, mapped_at_creation: false };
        (operand, device.create_buffer(&descriptor))
    });
    plan.bind(&operands(&buffers.collect::<Vec<_>>())).unwrap();
}

#[test]
fn the_reference_is_attention_over_pairs() {
    for pairs in [
        Pairs::drawn(gappy(5, 7), SPREAD, 14),
        Pairs::drawn(Merge::builder(shape(8), 3).dtype(Dtype::F16).out_dtype(Dtype::F32), 1e4, 15),
        partly_empty(gappy(4, 4), f32::NAN),
    ] {
        let merged = reference::merge(&pairs.merge, &pairs.outs, &pairs.lses).unwrap();
        let [out, lse] = [merged.out, merged.lse].map(|values| values.into_iter().map(|x| x as f32).collect());
        let outputs = Outputs { out, lse: Some(lse), ..Outputs::default() };
        Expected::of(&pairs.as_attention()).check(&outputs).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
    let merge = Merge::builder(shape(4), 3).build().unwrap();
    let (outs, lses) = (vec![0.0; 2 * 128 + 120], vec![0.0; 2 * 64 + 30]);
    reference::merge(&merge, &outs, &lses).unwrap();
    for (outs, lses) in [(&outs[1..], &lses[..]), (&outs[..], &lses[1..])] {
        assert!(reference::merge(&merge, outs, lses).is_err());
    }
}

/// Attention over each of these keys of a case, written straight to its place among the pairs, and then merged.
fn split_and_merged(device: &Device, whole: &Case, chunks: u32, merge: &Merge, chunk: &ProblemBuilder) -> Outputs {
    let _guard = device.enter();
    let attention = &device.attention;
    let buffer = |bytes: u64| {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
        let size = bytes.next_multiple_of(4);
        let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        attention.device().create_buffer(&descriptor)
    };
    let size = |operand| merge.size_bytes(operand).unwrap();
    let (outs, lses) = (buffer(size(Operand::PairOut)), buffer(size(Operand::PairLse)));
    let (out, lse) = (buffer(size(Operand::Out)), buffer(size(Operand::Lse)));
    let problem = chunk.clone().build().unwrap();
    let plan = attention.plan(&problem).unwrap();
    let merging = attention.plan_merge(merge).unwrap();
    coverage::ran(device, plan.variants().chain([merging.variant()]));
    let whole_buffer = wgpu::Buffer::as_entire_buffer_binding;
    let mut encoder = attention.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        let len = whole.problem.shape().len_kv / chunks;
        for n in 0..chunks {
            let part = drawn(chunk.clone(), Fill::Normal, 0);
            let part = part.edited(Operand::Q, |at, _| whole.get(Operand::Q, at));
            let part = part.edited(Operand::K, |[b, h, j, d], _| whole.get(Operand::K, [b, h, n * len + j, d]));
            let part = part.edited(Operand::V, |[b, h, j, d], _| whole.get(Operand::V, [b, h, n * len + j, d]));
            let upload = |operand, values: &[f32]| device.upload(&problem.dtype(operand).unwrap().encode(values));
            let (q, k) = (upload(Operand::Q, &part.host.q), upload(Operand::K, &part.host.k));
            let v = upload(Operand::V, &part.host.v);
            let out = merge.pair(Operand::PairOut, n, &outs).unwrap();
            let operands = Operands::new(whole_buffer(&q), whole_buffer(&k), whole_buffer(&v), out);
            let lse = merge.pair(Operand::PairLse, n, &lses).unwrap();
            plan.bind(&operands.with(Operand::Lse, lse)).unwrap().dispatch(&mut pass);
        }
        let operands = Operands::of_pairs(whole_buffer(&outs), whole_buffer(&lses), whole_buffer(&out));
        merging.bind(&operands.with(Operand::Lse, whole_buffer(&lse))).unwrap().dispatch(&mut pass);
    }
    let mut read = |buffer: &wgpu::Buffer| {
        Readback::record(attention.device(), &mut encoder, buffer.as_entire_buffer_binding()).unwrap()
    };
    let (out, lse) = (read(&out), read(&lse));
    device.queue.submit([encoder.finish()]);
    attention.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let values = |operand, readback: Readback| {
        let bytes = pollster::block_on(readback.bytes()).unwrap();
        elements_of(&merge.view(operand).unwrap(), merge.dtype(operand).unwrap(), &bytes)
    };
    Outputs { out: values(Operand::Out, out), lse: Some(values(Operand::Lse, lse)), ..Outputs::default() }
}

#[test]
fn attention_over_chunks_merged_is_attention_over_all_keys() {
    let shape = Shape::new(2, 4, 9, 24).kv_heads(2).kv_len(105);
    for dtype in Dtype::ALL {
        // Chunks in f32 lose nothing before the merge; in the output's type they round once more.
        for pair in [Dtype::F32, dtype] {
            for fill in [Fill::Normal, Fill::Staircase, Fill::Spike] {
                let whole = drawn(Problem::builder(shape).dtype(dtype).lse(), fill, 16);
                let expected = Expected::of(&whole);
                for chunks in [1, 3, 5] {
                    let chunk = Problem::builder(shape.kv_len(105 / chunks)).dtype(dtype).out_dtype(pair);
                    let merge = Merge::builder(shape, chunks).dtype(pair).out_dtype(dtype).lse();
                    // Everything in (B, L, H, ·).
                    let (rows, ones) = (Layout::blhd(4, 9, 24), Layout::blhd(4, 9, 1));
                    let (chunk, merge) = match chunks {
                        3 => (chunk.out(rows).lse_in(ones), merge.pair_out(rows).pair_lse(ones)),
                        _ => (chunk.lse(), merge),
                    };
                    for device in all() {
                        let got = split_and_merged(device, &whole, chunks, &merge.clone().build().unwrap(), &chunk);
                        let verdict = expected.check(&got);
                        verdict.unwrap_or_else(|wrong| panic!("{chunks} × {dtype} on {}: {wrong}", device.name));
                    }
                }
            }
        }
    }
}

#[test]
fn log_sum_exps_of_attention_lie_where_they_are_wanted() {
    for (len_q, layout) in
        [(9, Layout::blhd(4, 9, 3).at(5)), (1, Layout::strided([7, 1, 0])), (40, Layout::blhd(4, 40, 1))]
    {
        let problem = Problem::builder(Shape::new(2, 4, len_q, 32).kv_heads(2).kv_len(70));
        verify(&drawn(problem.lse_in(layout), Fill::Normal, 17));
    }
}

#[test]
fn every_mistake_in_the_kernel_that_merges_pairs_is_noticed() {
    let device = &all()[0];
    for (from, to, pairs) in MISTAKES {
        let pairs = pairs();
        let expected = Expected::of(&pairs.as_attention());
        let planted = Attention::with_caps(device.attention.device(), *device.attention.caps());
        expected.check(&pairs.run_by(device, &planted).0).unwrap_or_else(|wrong| panic!("unchanged: {wrong}"));
        let variant = testing::merge(&pairs.merge, planted.caps()).unwrap();
        let text = variant.wgsl();
        assert!(text.contains(from), "{from:?} is not in the text");
        {
            let _guard = device.enter();
            testing::substitute(&planted, &variant, text.replace(from, to));
        }
        assert!(expected.check(&pairs.run_by(device, &planted).0).is_err(), "{to:?} for {from:?} was not noticed");
        coverage::planted(&format!("Combine: {to:?} for {from:?}"));
    }
}
