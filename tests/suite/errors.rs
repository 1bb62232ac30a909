//! Produces every error there is, and recovers from it. The text of an error names the value, the bound and the remedy.

use std::collections::BTreeSet;
use std::fmt::{Debug, Display};
use std::sync::Mutex;

use wgpu::{BufferBinding, BufferUsages, Device, Queue};
use wgpu_attention::blocking::{self, RunError};
use wgpu_attention::{
    Append, Attention, BindError, BlockMask, Caps, Dtype, Function, Gradients, GradientsBuilder, Inputs, Layout, Merge,
    MergeBuilder, Operand, Operands, Pages, PlanError, Problem, ProblemBuilder, ProblemError, Quantization, Readback,
    ReadbackError, ResizeError, RngState, Rotary, RotaryPairs, ScoreLayout, Shape, reference, testing,
};

use crate::record::{buffers, noop, operands};

/// The variants whose text a test here has checked, as `Enum::Variant`.
static PRODUCED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn assert_says<E: Display + Debug>(error: &E, words: &[&str]) {
    let ty = std::any::type_name::<E>().rsplit("::").next().unwrap();
    let debug = format!("{error:?}");
    let variant = debug.split(|c: char| !c.is_alphanumeric()).next().unwrap();
    PRODUCED.lock().unwrap().insert(format!("{ty}::{variant}"));
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} should say {word:?}");
    }
}

fn shape() -> Shape {
    Shape::new(2, 4, 8, 16)
}

fn refused(problem: ProblemBuilder, wanted: impl Fn(&ProblemError) -> bool, words: &[&str]) {
    let error = problem.build().unwrap_err();
    assert!(wanted(&error), "{error:?}");
    assert_says(&error, words);
}

#[test]
fn describing() {
    use ProblemError as E;
    let problem = Problem::builder(shape());
    let zero = [
        Shape { heads_q: 0, ..shape() },
        Shape { heads_kv: 0, ..shape() },
        Shape { dim_qk: 0, ..shape() },
        Shape { dim_v: 0, ..shape() },
    ];
    for (shape, axis) in zero.into_iter().zip(["heads_q", "heads_kv", "dim_qk", "dim_v"]) {
        let named = |error: &E| matches!(error, E::Empty { axis: named } if *named == axis);
        refused(Problem::builder(shape), named, &[axis, "is 0", "at least 1"]);
    }
    // The longest that is supported, and one more.
    Problem::builder(Shape { len_q: 1 << 29, ..shape() }.kv_len(1 << 29)).build().unwrap();
    let long = Problem::builder(shape().kv_len((1 << 29) + 1));
    refused(long, |e| matches!(e, E::TooLong { .. }), &["len_kv", "536870913", "536870912", "split"]);
    let long = Problem::builder(Shape { len_q: (1 << 29) + 1, ..shape() });
    refused(long, |e| matches!(e, E::TooLong { .. }), &["len_q", "536870913", "536870912", "split"]);
    let heads = Problem::builder(shape().kv_heads(3));
    refused(heads, |e| matches!(e, E::HeadsNotGrouped { .. }), &["heads_q = 4", "heads_kv = 3", "multiple"]);
    for scale in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 2.4e38, -2.4e38] {
        refused(problem.clone().scale(scale), |e| matches!(e, E::Scale(_)), &["2.3e38", "leave it out"]);
    }
    for scale in [0.0, f32::MIN_POSITIVE, -f32::MIN_POSITIVE, 2.3e38, -2.3e38] {
        assert_eq!(problem.clone().scale(scale).build().unwrap().scale(), scale);
    }
    for cap in [1e30, f32::MIN_POSITIVE.next_down()] {
        assert_eq!(problem.clone().softcap(cap).build().unwrap().softcap(), Some(cap));
    }
    for cap in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e30_f32.next_up()] {
        refused(
            problem.clone().softcap(cap),
            |e| matches!(e, E::Softcap(_)),
            &[&cap.to_string(), "positive", "leave it out"],
        );
    }
    for p in [1.0, -1e-9, f32::NAN] {
        refused(
            problem.clone().dropout(p, RngState::Buffer),
            |e| matches!(e, E::Dropout(_)),
            &[&p.to_string(), "at least 0 and less than 1"],
        );
    }
    let mask = problem.clone().mask(ScoreLayout::broadcast([2, 3, 1, 1]));
    refused(mask, |e| matches!(e, E::NotBroadcastable { .. }), &["mask", "heads_q", "3", "4", "1 to broadcast"]);
    for bias in Dtype::ALL {
        problem.clone().dtype(Dtype::F16).bias(bias, ScoreLayout::broadcast([2, 1, 8, 1])).build().unwrap();
    }
    let far = problem.clone().v(Layout { offset: u64::MAX, ..Layout::bhld(4, 8, 16) });
    refused(far, |e| matches!(e, E::Unaddressable { .. }), &["`v`", "2^64"]);
    for operand in [ProblemBuilder::mask, |problem: ProblemBuilder, at| problem.bias(Dtype::F32, at)] {
        let far = operand(problem.clone(), ScoreLayout::strided([i64::MAX, i64::MAX, 0, 0]));
        refused(far.lse().weights(), |e| matches!(e, E::Unaddressable { .. }), &["2^64"]);
        let backwards = operand(problem.clone(), ScoreLayout::strided([0, 0, -1, 1]).at(6));
        refused(backwards, |e| matches!(e, E::BeforeFirst { .. }), &["before its first", "ScoreLayout::at"]);
        let narrow = operand(problem.clone(), ScoreLayout::broadcast([2, 1, 8, 7]));
        refused(narrow, |e| matches!(e, E::NotBroadcastable { .. }), &["len_kv", "7", "8"]);
    }
    let unfinished = problem.clone().score_mod("fn score_mod(score: f32, at: At) -> f32 {\n    return score");
    refused(unfinished, |e| matches!(e, E::Program { .. }), &["score_mod", "line ", "column "]);
    for (rows, keys) in [(0, 64), (64, 0), (64, 48), (65_537, 64), (64, 65_568), (u32::MAX, u32::MAX)] {
        let tiles = problem.clone().block_mask(BlockMask::new(rows, keys));
        let words = [&*format!("{rows} rows by {keys} keys"), "multiple of 32"];
        refused(tiles, |e| matches!(e, E::BlockSize { .. }), &words);
    }
    problem.clone().block_mask(BlockMask::new(65_536, 65_536)).build().unwrap();
    let shared = |problem: &ProblemBuilder| problem.clone().block_mask(BlockMask::new(64, 64));
    let of_heads = problem.clone().mask(ScoreLayout::broadcast([1, 4, 8, 8]));
    let is_shared = |e: &E| matches!(e, E::BlockMaskShared { .. });
    refused(shared(&of_heads), is_shared, &["the mask", "`head`", "BlockMask::per_head"]);
    let of_batches = problem.clone().mask_mod("fn mask_mod(at: At) -> bool { return at.batch > 0u; }");
    refused(shared(&of_batches), is_shared, &["`mask_mod`", "`batch`", "BlockMask::per_batch"]);
    of_batches.block_mask(BlockMask::new(64, 64).per_batch()).build().unwrap();
    let commented = problem.clone().mask_mod("fn mask_mod(at: At) -> bool { return at.key > 0u; } // not the head");
    shared(&commented).build().unwrap();
    let weights_of = |heads: &[u32], rows| problem.clone().weights_of(heads, rows);
    refused(weights_of(&[], 0..8), |e| matches!(e, E::WeightsOfNoHead), &["no head", "leave it out"]);
    let missing = |e: &E| matches!(e, E::WeightsOfMissingHead { head: 4, heads_q: 4 });
    refused(weights_of(&[3, 4], 0..8), missing, &["head 4", "from 0", "there are 4"]);
    refused(weights_of(&[3, 0, 3], 0..8), |e| matches!(e, E::WeightsOfHeadTwice { head: 3 }), &["head 3", "once"]);
    for (start, end) in [(0, 9), (8, 9), (9, 9), (3, 2)] {
        let missing = |e: &E| matches!(e, E::WeightsOfMissingRows { .. });
        refused(weights_of(&[3], start..end), missing, &[&format!("{start}..{end}"), "0..8", "len_q"]);
    }
    weights_of(&[3, 0, 1, 2], 0..8).build().unwrap();
    weights_of(&[3], 8..8).build().unwrap();
    let merge_refused = |merge: MergeBuilder, wanted: fn(&E) -> bool, words: &[&str]| {
        let error = merge.build().unwrap_err();
        assert!(wanted(&error), "{error:?}");
        assert_says(&error, words);
    };
    let is_empty = |error: &E| matches!(error, E::Empty { .. });
    let zero = [(Shape { heads_q: 0, ..shape() }, 2), (Shape { dim_v: 0, ..shape() }, 2), (shape(), 0)];
    for ((shape, pairs), axis) in zero.into_iter().zip(["heads_q", "dim_v", "pairs"]) {
        merge_refused(Merge::builder(shape, pairs), is_empty, &[axis, "is 0"]);
    }
    let is_long = |error: &E| matches!(error, E::TooLong { .. });
    Merge::builder(Shape { len_q: 1 << 29, ..shape() }, 1 << 29).pair_out_stride(0).build().unwrap();
    merge_refused(Merge::builder(Shape { len_q: (1 << 29) + 1, ..shape() }, 1), is_long, &["len_q", "536870912"]);
    merge_refused(Merge::builder(shape(), (1 << 29) + 1), is_long, &["pairs", "536870913"]);
    let is_far = |error: &E| matches!(error, E::Unaddressable { .. });
    merge_refused(Merge::builder(shape(), 3).pair_out_stride(1 << 63), is_far, &["`pair_out`", "2^64"]);
    merge_refused(Merge::builder(shape(), 2).pair_lse_stride(1 << 62), is_far, &["`pair_lse`", "2^64"]);
    Merge::builder(shape(), 2).pair_lse_stride((1 << 62) - 65).build().unwrap();
    let narrow = Merge::builder(shape(), 2).lse_in(Layout::strided([8, 2, 1]));
    merge_refused(narrow, |error| matches!(error, E::Overlapping { .. }), &["`lse`", "overlap", "[8, 2, 1, 1]"]);
    sequences(&problem);
    appending(&problem);
    let overlapping = problem.out(Layout { row: 8, ..Layout::bhld(4, 8, 16) });
    refused(
        overlapping,
        |e| matches!(e, E::Overlapping { .. }),
        &["`out`", "overlap", "[512, 128, 8, 1]", "[2, 4, 8, 16]"],
    );
}

/// Sequences that do not fit each other or the rest of a problem.
fn sequences(problem: &ProblemBuilder) {
    use ProblemError as E;
    let combined = |problem: ProblemBuilder, one: &str, other: &str, words: &[&str]| {
        let is_named = |e: &E| matches!(e, E::Combined { one: a, other: b, .. } if *a == one && *b == other);
        refused(problem, is_named, &[&[one, other], words].concat());
    };
    let plain = || problem.clone();
    combined(plain().ragged_q(9).weights(), "weights", "ragged_q", &["q_lengths"]);
    combined(plain().ragged_q(9).block_mask(BlockMask::new(32, 32)), "block_mask", "ragged_q", &["q_lengths"]);
    combined(plain().ragged_kv(9).kv_lengths(), "kv_lengths", "ragged_kv", &["cu_seqlens_k"]);
    combined(plain().ring_kv(9).weights(), "weights", "ring_kv", &["keeps every key"]);
    combined(plain().ring_kv(9).block_mask(BlockMask::new(32, 32)), "block_mask", "ring_kv", &["keeps every key"]);
    let is_long = |e: &E| matches!(e, E::TooLong { .. });
    let long = (1 << 29) + 1;
    refused(plain().ragged_q(long), is_long, &["total of the ragged queries", "536870913", "536870912"]);
    refused(plain().ragged_kv(long), is_long, &["total of the ragged keys", "536870913"]);
    refused(plain().ring_kv(long), is_long, &["capacity of the ring", "536870913"]);
    let grouped = Problem::builder(Shape::new(4, 64, 1, 16).kv_heads(1)).ragged_q((1 << 26) + 1);
    refused(grouped, is_long, &["total of the ragged queries", "67108865", "67108863"]);
    let is_empty = |e: &E| matches!(e, E::Empty { .. });
    refused(plain().paged_kv(Pages { count: 3, size: 0 }), is_empty, &["size of the pages"]);
    refused(plain().ring_kv(0), is_empty, &["capacity of the ring"]);
    for fits in [plain().ragged_q(1 << 29), plain().ragged_kv(1 << 29), plain().ring_kv(1 << 29)] {
        fits.build().unwrap();
    }
}

/// Caches that are too short, and rotary embeddings that do not fit.
fn appending(problem: &ProblemBuilder) {
    use ProblemError as E;
    let with = |rotary| problem.clone().append(Append { rotary, ..Append::default() });
    let short = with(None).lengths(9, 8);
    refused(short, |e| matches!(e, E::CacheTooShort { len_q: 9, len_kv: 8 }), &["9 keys", "len_kv = 8", "room"]);
    let halves = Rotary { dims: 16, pairs: RotaryPairs::Halves, positions: 8 };
    for dims in [0, 4, 12, 24] {
        let is_wide = |e: &E| matches!(e, E::RotaryDims { step: 8, dim_qk: 16, .. });
        refused(with(Some(Rotary { dims, ..halves })), is_wide, &[&dims.to_string(), "multiple of 8", "dim_qk = 16"]);
    }
    let neighbours = Rotary { dims: 12, pairs: RotaryPairs::Neighbours, positions: 8 };
    let few = |e: &E| matches!(e, E::RotaryPositions { positions: 7, len_kv: 8 });
    refused(with(Some(Rotary { positions: 7, ..neighbours })), few, &["7 positions", "len_kv = 8"]);
    for rotary in [None, Some(halves), Some(neighbours)] {
        with(rotary).build().unwrap();
    }
    // What is written must not overlap, though it may be read so.
    let one_head = Layout { head: 0, ..Layout::bhld(4, 8, 16) };
    problem.clone().q(one_head).k(one_head).build().unwrap();
    with(None).q(one_head).build().unwrap();
    let overlaps = |e: &E| matches!(e, E::Overlapping { .. });
    refused(with(None).k(one_head), overlaps, &["`k`", "overlap"]);
    refused(with(Some(halves)).q(one_head), overlaps, &["`q`", "overlap"]);
}

#[test]
fn planning() {
    let (device, _queue) = noop();
    let caps = Caps::of(&device);
    let plan =
        |problem: ProblemBuilder, caps: Caps| Attention::with_caps(&device, caps).plan(&problem.build().unwrap());
    let problem = Problem::builder(shape());

    let error = plan(Problem::builder(Shape::new(1, 1, 8, 577)), caps).unwrap_err();
    assert!(matches!(error, PlanError::HeadSize { .. }));
    let plain = Problem::builder(shape()).build().unwrap();
    let no_tiles = Attention::new(&device).plan_block_mask(&plain).unwrap_err();
    assert_eq!(no_tiles, PlanError::NoBlockMask);
    let attention = Attention::new(&device);
    let variant = &attention.candidates(&plain).unwrap()[0];
    testing::substitute(&attention, variant, "no WGSL".to_owned());
    let refused = attention.plan(&plain).unwrap_err();
    assert!(matches!(&refused, PlanError::Refused { variant: named, .. } if named == variant), "{refused:?}");
    assert_says(&refused, &[&variant.to_string(), "global item", "plan again", "another driver"]);
    // The next plan compiles it again.
    attention.plan(&plain).unwrap();
    let nothing_new = Attention::new(&device).plan_append(&plain).unwrap_err();
    assert_eq!(nothing_new, PlanError::NoAppend);
    let wide = Problem::builder(Shape::new(1, 1, 1, 577)).append(Append::default()).build().unwrap();
    let too_wide = PlanError::HeadSize { axis: "dim_qk", dim: 577, most: 576 };
    assert_eq!(Attention::new(&device).plan_append(&wide).unwrap_err(), too_wide);
    let wide = Problem::builder(Shape::new(1, 1, 1, 577)).lse().build().unwrap().gradients().build().unwrap();
    assert_eq!(Attention::new(&device).plan_gradients(&wide).unwrap_err(), too_wide);
    assert_says(&nothing_new, &["appends nothing", "ProblemBuilder::append"]);
    assert_says(&no_tiles, &["no block mask", "ProblemBuilder::block_mask"]);
    assert_says(&error, &["dim_qk = 577", "1 to 576"]);

    type Lower = fn(&mut Caps);
    let limits: [(&str, Lower); 3] = [
        ("max_storage_buffers_per_shader_stage", |caps| caps.storage_buffers = 3),
        ("max_compute_workgroup_storage_size", |caps| caps.workgroup_bytes = 1000),
        ("max_compute_invocations_per_workgroup", |caps| caps.invocations = 32),
    ];
    for (limit, lower) in limits {
        let mut low = caps;
        lower(&mut low);
        let error = plan(problem.clone(), low).unwrap_err();
        assert!(matches!(error, PlanError::Limit { .. }), "{error:?}");
        assert_says(&error, &[limit, "needs", "grants", "required_limits"]);
    }

    let mut brief = caps;
    brief.loop_iterations = 1000;
    let error = plan(Problem::builder(Shape::new(1, 1, 1, 16).kv_len(100_000)).weights(), brief).unwrap_err();
    assert!(matches!(error, PlanError::TooManyKeys { .. }), "{error:?}");
    assert_says(&error, &["len_kv = 100000", "up to", "merge by LSE"]);

    let mut small = caps;
    small.binding_bytes = 255;
    let error = plan(problem.clone(), small).unwrap_err();
    assert!(matches!(error, PlanError::TooLarge { .. }));
    assert_says(&error, &["255", "max_storage_buffer_binding_size"]);

    // A slice begins at a multiple of 256 bytes: two rows of 16 numbers, 2048 bytes apart.
    let attention = |bytes| {
        let mut tight = caps;
        tight.binding_bytes = bytes;
        Attention::with_caps(&device, tight)
    };
    let merge = Merge::builder(shape(), 3).build().unwrap();
    attention(2 * 4096 + 256).plan_merge(&merge).unwrap();
    let error = attention(2 * 4096 + 63).plan_merge(&merge).unwrap_err();
    let (operand, need, granted) = (Operand::PairOut, 2 * 4096 + 64, 2 * 4096 + 63);
    assert_eq!(error, PlanError::StackTooLarge { operand, pairs: 3, need, granted });
    assert_says(&error, &["3 pairs in `pair_out`", "8256", "8255", "fewer pairs at a time", "side by side"]);
    let alone = Merge::builder(shape(), 1).build().unwrap();
    let error = attention(15).plan_merge(&alone).unwrap_err();
    assert_eq!(error, PlanError::TooLarge { operand: Operand::PairOut, need: 16, granted: 15 });
    let error = Attention::with_caps(&device, brief).plan_merge(&Merge::builder(shape(), 497).build().unwrap());
    let error = error.unwrap_err();
    assert!(matches!(error, PlanError::TooManyPairs { pairs: 497, most: 496, .. }), "{error:?}");
    assert_says(&error, &["497 pairs", "up to 496", "fewer pairs at a time"]);
    Attention::with_caps(&device, brief).plan_merge(&Merge::builder(shape(), 496).build().unwrap()).unwrap();
    let mut few = caps;
    few.storage_buffers = 2;
    let error = Attention::with_caps(&device, few).plan_merge(&alone).unwrap_err();
    assert!(matches!(error, PlanError::Limit { limit: "max_storage_buffers_per_shader_stage", .. }), "{error:?}");

    let mut hasty = caps;
    hasty.dispatch_flop = 1;
    let error = plan(Problem::builder(Shape::new(1 << 17, 1, 1, 1)), hasty).unwrap_err();
    assert!(matches!(error, PlanError::TooManyDispatches { .. }));
    assert_says(&error, &["65536", "plan parts"]);

    let attention = Attention::new(&device);
    let even = attention.candidates(&problem.build().unwrap()).unwrap()[0].clone();
    let odd = Problem::builder(Shape::new(1, 1, 8, 15)).build().unwrap();
    let error = attention.plan_variant(&odd, &even).unwrap_err();
    assert!(matches!(error, PlanError::VariantMismatch { .. }));
    assert_says(&error, &[&even.to_string(), "candidates"]);
    let error = attention.named(&odd, &even.to_string()).unwrap_err();
    let selected = attention.candidates(&odd).unwrap()[0].clone();
    assert_eq!(error, PlanError::UnknownVariant { name: even.to_string(), selected: selected.clone() });
    assert_says(&error, &[&even.to_string(), &selected.to_string(), "tune again"]);
    assert_eq!(attention.named(&odd, &selected.to_string()), Ok(selected));
    attention.plan(&odd).unwrap();

    device.destroy();
    let error = attention.plan(&odd).unwrap_err();
    assert_eq!(error, PlanError::DeviceLost);
    assert_says(&error, &["lost", "create another"]);
}

#[test]
fn resizing() {
    let (device, _queue) = noop();
    let plan = Attention::new(&device).plan(&Problem::builder(shape()).build().unwrap()).unwrap();
    let error = plan.resized(8, u32::MAX).unwrap_err();
    assert_says(&error, &["len_kv", "536870912"]);
    assert!(matches!(error, ResizeError::Problem(_)));
    // As many rows as a problem may have are more than can be cut into dispatches of one flop.
    let mut caps = Caps::of(&device);
    caps.dispatch_flop = 1;
    let plan = Attention::with_caps(&device, caps).plan(plan.problem()).unwrap();
    let error = plan.resized(1 << 29, 1).unwrap_err();
    assert_says(&error, &["dispatches"]);
    assert!(matches!(error, ResizeError::Plan(_)));
    // The elements of this bias overlap as soon as there are two queries.
    let bias = ScoreLayout::strided([0, 15, -1, 1]).at(7);
    let problem = Problem::builder(Shape::new(1, 4, 1, 16).kv_len(8)).bias(Dtype::F32, bias).lse().build().unwrap();
    let gradients = problem.gradients().build().unwrap();
    let error = Attention::new(&device).plan_gradients(&gradients).unwrap().resized(2, 8).unwrap_err();
    assert!(matches!(error, ResizeError::Problem(ProblemError::BiasOverlaps { .. })), "{error:?}");
}

fn buffer(device: &Device, size: u64, usage: BufferUsages) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
}

#[test]
fn binding() {
    let (device, _queue) = noop();
    let problem = Problem::builder(shape()).build().unwrap();
    let plan = Attention::new(&device).plan(&problem).unwrap();
    let right = buffers(&device, &problem);
    let refused = |operands: Operands<'_>, words: &[&str]| {
        let error = plan.bind(&operands).unwrap_err();
        assert_says(&error, words);
        error
    };
    let complete = || operands(&right);
    plan.bind(&complete()).unwrap();

    let error = refused(operands(&right[..3]), &["`out`", "no buffer"]);
    assert_eq!(error, BindError::Missing { operand: Operand::Out });

    let lse = buffer(&device, 256, BufferUsages::STORAGE);
    let error = refused(complete().with(Operand::Lse, lse.as_entire_buffer_binding()), &["`lse`", "does not mention"]);
    assert_eq!(error, BindError::Unused { operand: Operand::Lse });

    let short = buffer(&device, 4092, BufferUsages::STORAGE);
    let error = refused(complete().with(Operand::K, short.as_entire_buffer_binding()), &["`k`", "4096", "4092"]);
    assert_eq!(error, BindError::TooSmall { operand: Operand::K, need: 4096, got: 4092 });

    let long = buffer(&device, 8192, BufferUsages::STORAGE);
    let at = |offset| BufferBinding { buffer: &long, offset, size: None };
    let error = refused(complete().with(Operand::V, at(4)), &["`v`", "byte 4", "256", "layout's offset"]);
    assert!(matches!(error, BindError::Misaligned { .. }));
    refused(complete().with(Operand::V, at(256 * 17)), &["`v`", "4096", "3840"]);
    refused(complete().with(Operand::V, at(256 * 1000)), &["`v`", "4096", "holds 0"]);
    plan.bind(&complete().with(Operand::V, at(4096))).unwrap();

    let uniform = buffer(&device, 4096, BufferUsages::UNIFORM);
    let error = refused(complete().with(Operand::Q, uniform.as_entire_buffer_binding()), &["`q`", "STORAGE", "usage"]);
    assert!(matches!(error, BindError::Usage { .. }));

    let (_, q) = &right[0];
    let error = refused(complete().with(Operand::Out, q.as_entire_buffer_binding()), &["`out`", "`q`", "same buffer"]);
    assert_eq!(error, BindError::Aliased { output: Operand::Out, other: Operand::Q });
    plan.bind(&complete()).unwrap();

    let merge = Merge::builder(shape(), 3).build().unwrap();
    let error = merge.pair(Operand::PairOut, 3, q).unwrap_err();
    assert_eq!(error, BindError::NoSuchPair { n: 3, pairs: 3 });
    assert_says(&error, &["no pair 3", "has 3"]);
    assert_eq!(merge.pair(Operand::Out, 0, q).unwrap_err(), BindError::Unused { operand: Operand::Out });

    let attention = Attention::new(&device);
    let (binding, first) = attention.binding_at(q, 1000, 4).unwrap();
    assert_eq!((binding.offset, binding.size, first), (768, None, 58));
    assert_eq!(attention.binding_at(q, 768, 2).unwrap().1, 0);
    for (byte, element_bytes) in [(1002, 4), (3, 2), (8, 0), (768, 0), (264, 12)] {
        let error = attention.binding_at(q, byte, element_bytes).unwrap_err();
        assert_says(&error, &[&format!("byte {byte}"), &format!("{element_bytes} bytes")]);
    }

    let mut caps = Caps::of(&device);
    caps.workgroups_to_fill = 1 << 20;
    let long = Problem::builder(Shape::new(1, 1, 1, 16).kv_len(2048)).build().unwrap();
    let in_parts = Attention::with_caps(&device, caps).plan(&long).unwrap();
    let error = in_parts.bind_in(&operands(&buffers(&device, &long)), &plan.scratch()).unwrap_err();
    assert_eq!(error, BindError::Scratch { need: in_parts.scratch().size(), got: plan.scratch().size() });
    assert_says(&error, &[&in_parts.scratch_bytes().to_string(), "has 0 bytes", "Plan::scratch"]);
}

#[test]
fn host_slices() {
    let masked = Problem::builder(shape()).mask_mod("fn mask_mod(at: At) -> bool { return true; }");
    let (masked, plain, zeros) = (masked.build().unwrap(), Problem::builder(shape()).build().unwrap(), vec![0.0; 1024]);
    let inputs = Inputs { q: &zeros, k: &zeros, v: &zeros, ..Inputs::default() };
    let error = reference::attention(&masked, &inputs).unwrap_err();
    assert_eq!(error, BindError::MissingProgram { function: Function::MaskMod });
    assert_says(&error, &["`mask_mod`", "reference::Programs"]);
    let programs = reference::Programs { score_mod: Some(&|score, _| score), ..Default::default() };
    let error = reference::attention_with(&plain, &inputs, &programs).unwrap_err();
    assert_eq!(error, BindError::UnusedProgram { function: Function::ScoreMod });
    assert_says(&error, &["`score_mod`", "does not have"]);

    let problem = Problem::builder(shape()).build().unwrap();
    let (long, short) = (vec![0.0; 1024], vec![0.0; 1023]);
    let right = Inputs { q: &long, k: &long, v: &long, ..Inputs::default() };
    right.check(&problem).unwrap();
    let error = Inputs { v: &short, ..right }.check(&problem).unwrap_err();
    assert_eq!(error, BindError::TooShort { operand: Operand::V, need: 1024, got: 1023 });
    assert_says(&error, &["`v`", "1024", "1023"]);
    let error = Inputs { mask: Some(&[true]), ..right }.check(&problem).unwrap_err();
    assert_eq!(error, BindError::Unused { operand: Operand::Mask });
    assert!(reference::attention(&problem, &Inputs { q: &short, ..right }).is_err());
    let ragged = Problem::builder(shape()).ragged_q(16).ragged_kv(16).build().unwrap();
    let bounds =
        |q: &'static [u32], k: &'static [u32]| Inputs { cu_seqlens_q: Some(q), cu_seqlens_k: Some(k), ..right };
    bounds(&[0, 8, 16], &[3, 3, 16]).check(&ragged).unwrap();
    let error = bounds(&[0, 8, 17], &[0, 8, 16]).check(&ragged).unwrap_err();
    assert_eq!(error, BindError::Bound { operand: Operand::CuSeqlensQ, at: 2, bound: 17, total: 16 });
    assert_says(&error, &["`cu_seqlens_q`", "17 at [2]", "at most 16"]);
    let error = bounds(&[0, 8, 16], &[1, 0, 16]).check(&ragged).unwrap_err();
    assert_eq!(error, BindError::Bound { operand: Operand::CuSeqlensK, at: 1, bound: 0, total: 16 });
    let paged = Problem::builder(shape()).paged_kv(Pages { count: 4, size: 4 }).kv_lengths().build().unwrap();
    let table = |table: &'static [u32]| Inputs { block_table: Some(table), kv_lengths: Some(&[8, 4]), ..right };
    table(&[3, 0, 1, 9]).check(&paged).unwrap();
    let error = table(&[3, 4, 1, 9]).check(&paged).unwrap_err();
    assert_eq!(error, BindError::NoSuchPage { sequence: 0, nth: 1, page: 4, pages: 4 });
    assert_says(&error, &["`block_table` is 4 at [0, 1]", "4 pages"]);
    let words = vec![0; 1024];
    let error = Inputs { k_words: Some(&words), ..right }.check(&problem).unwrap_err();
    assert_eq!(error, BindError::UnusedWords { operand: Operand::K });
    assert_says(&error, &["`k_words`", "kv_quantized"]);
    let quantized = Problem::builder(shape()).kv_quantized(Quantization::Int8).build().unwrap();
    let error = Inputs { k_words: Some(&words), ..right }.check(&quantized).unwrap_err();
    assert_eq!(error, BindError::MissingWords { operand: Operand::V });
    assert_says(&error, &["`v_words`", "Quantization"]);
    Inputs { k_words: Some(&words), v_words: Some(&words), ..right }.check(&quantized).unwrap();
    for at in [[2, 0, 0], [0, 4, 0], [0, 0, 8]] {
        let error = reference::row(&problem, &right, at).unwrap_err();
        assert_eq!(error, BindError::NoSuchRow { at, extent: [2, 4, 8] });
        assert_says(&error, &[&format!("{at:?}"), "[2, 4, 8]"]);
    }
    reference::row(&problem, &right, [1, 3, 7]).unwrap();

    let (device, _queue) = noop();
    let buffers = right.upload(&device, &problem).unwrap();
    assert_eq!(buffers.get(Operand::Out).unwrap().size(), 4096);
    device.destroy();
    let error = right.upload(&device, &problem).unwrap_err();
    assert_eq!(error, BindError::DeviceLost { operand: Operand::Q });
    assert_says(&error, &["`q`", "lost", "create another"]);
}

#[test]
fn running() {
    let (device, queue) = noop();
    let attention = Attention::new(&device);
    let problem = Problem::builder(shape()).build().unwrap();
    let (long, short) = (vec![0.0; 1024], vec![0.0; 1023]);
    let right = Inputs { q: &long, k: &long, v: &long, ..Inputs::default() };
    let run = |problem: &Problem, inputs| blocking::attention(&attention, &queue, problem, &inputs);
    run(&problem, right).unwrap();

    let error = run(&problem, Inputs { q: &short, ..right }).unwrap_err();
    assert!(matches!(error, RunError::Bind(_)), "{error:?}");
    assert_says(&error, &["`q`", "1024", "1023"]);

    let wide = Problem::builder(Shape::new(1, 1, 1, 577)).build().unwrap();
    let error = run(&wide, right).unwrap_err();
    assert!(matches!(error, RunError::Plan(_)), "{error:?}");
    assert_says(&error, &["dim_qk = 577"]);
    // Nothing is planned for inputs that are too short.
    let variant = &attention.candidates(&problem).unwrap()[0];
    let few = Inputs { q: &short[..1], ..right };
    let error = blocking::attention_with(&attention, &queue, &wide, &few, variant).unwrap_err();
    assert!(matches!(error, RunError::Bind(_)), "{error:?}");

    // The largest output that a buffer holds, and one element more.
    // A size is a multiple of four, a limit need not be.
    for granted in [1 << 20, (1 << 20) + 3] {
        let (small, small_queue) = Device::noop(&wgpu::DeviceDescriptor {
            required_limits: wgpu::Limits { max_buffer_size: granted, ..wgpu::Limits::default() },
            ..Default::default()
        });
        let small = Attention::new(&small);
        let run_small = |problem: &Problem| blocking::attention(&small, &small_queue, problem, &right);
        let at = |offset| Problem::builder(Shape::new(1, 1, 1, 1)).out(Layout { offset, ..Layout::bhld(1, 1, 1) });
        let largest = at(granted / 4 - 1).build().unwrap();
        assert_eq!(run_small(&largest).unwrap().out.len() as u64, granted / 4);
        let error = run_small(&at(granted / 4).build().unwrap()).unwrap_err();
        assert_eq!(error, RunError::BufferTooLarge { operand: Operand::Out, need: (1 << 20) + 4, granted });
        assert_says(&error, &["`out`", &granted.to_string(), "fewer heads or batches"]);
    }

    // Gradients likewise: nothing is planned for inputs that are wrong, and nothing uploaded that no buffer holds.
    let gradients = |problem: ProblemBuilder| problem.lse().build().unwrap().gradients().build().unwrap();
    let with_dout = Inputs { dout: Some(&long), ..right };
    let wide = gradients(Problem::builder(Shape::new(1, 1, 1, 577)));
    let few = Inputs { q: &short[..1], ..with_dout };
    let error = blocking::gradients(&attention, &queue, &wide, &few).unwrap_err();
    assert!(matches!(error, RunError::Bind(_)), "{error:?}");
    let (small, small_queue) = Device::noop(&wgpu::DeviceDescriptor {
        required_limits: wgpu::Limits { max_buffer_size: 1 << 20, ..wgpu::Limits::default() },
        ..Default::default()
    });
    let far = Layout { offset: 1 << 18, ..Layout::bhld(1, 1, 1) };
    let far = gradients(Problem::builder(Shape::new(1, 1, 1, 1)).out(far));
    let error = blocking::gradients(&Attention::new(&small), &small_queue, &far, &with_dout).unwrap_err();
    let need = (1 << 20) + 4;
    assert_eq!(error, RunError::BufferTooLarge { operand: Operand::Out, need, granted: 1 << 20 });

    // A shader without an entry point.
    assert!(testing::substitute(&attention, variant, "fn main() {}".to_owned()).is_some());
    let error = run(&problem, right).unwrap_err();
    assert!(matches!(error, RunError::Refused(_)), "{error:?}");
    assert_says(&error, &["refused", "another variant"]);

    // No device here stops answering between a submission and its end, so these two are made by hand.
    assert_says(&RunError::from(ReadbackError::NeverRan), &["never ran"]);
    assert_says(&RunError::Poll("why".to_owned()), &["stopped answering", "why"]);
}

fn record(device: &Device, source: BufferBinding<'_>) -> Result<Readback, ReadbackError> {
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    Readback::record(device, &mut encoder, source)
}

#[test]
fn reading_back() {
    let (device, queue): (Device, Queue) = noop();
    let hidden = buffer(&device, 64, BufferUsages::STORAGE);
    let error = record(&device, hidden.as_entire_buffer_binding()).unwrap_err();
    assert_eq!(error, ReadbackError::Usage(BufferUsages::COPY_SRC));
    assert_says(&error, &["COPY_SRC", "usage"]);

    let open = buffer(&device, 64, BufferUsages::COPY_SRC);
    for (offset, size) in [(2, None), (0, Some(6)), (64, None), (0, Some(68)), (u64::MAX - 3, Some(8))] {
        let size = size.and_then(wgpu::BufferSize::new);
        let error = record(&device, BufferBinding { buffer: &open, offset, size }).unwrap_err();
        assert!(matches!(error, ReadbackError::Range { .. }), "{error:?}");
        assert_says(&error, &[&offset.to_string(), "multiples of 4", "64"]);
    }

    // The encoder is gone before it was submitted.
    let readback = record(&device, open.as_entire_buffer_binding()).unwrap();
    let error = pollster::block_on(readback.bytes()).unwrap_err();
    assert_eq!(error, ReadbackError::NeverSubmitted);
    assert_says(&error, &["submit"]);

    let submitted = |spoil: &dyn Fn(&mut wgpu::CommandEncoder)| {
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let readback = Readback::record(&device, &mut encoder, open.as_entire_buffer_binding()).unwrap();
        spoil(&mut encoder);
        queue.submit([encoder.finish()]);
        let _ = device.poll(wgpu::PollType::wait_indefinitely());
        let _ = pollster::block_on(scope.pop());
        pollster::block_on(readback.bytes())
    };
    assert_eq!(submitted(&|_| ()).unwrap().len(), 64);
    // A dispatch without a pipeline makes the encoder invalid.
    let error = submitted(&|encoder| encoder.begin_compute_pass(&Default::default()).dispatch_workgroups(1, 1, 1));
    assert_eq!(error, Err(ReadbackError::NeverRan));
    assert_says(&error.unwrap_err(), &["never ran", "invalid"]);

    let error = submitted(&|_| device.destroy()).unwrap_err();
    let why = wgpu::BufferAsyncError.to_string();
    assert_eq!(error, ReadbackError::Map(why.clone()));
    assert_says(&error, &["mapping", &why]);

    let error = record(&device, open.as_entire_buffer_binding()).unwrap_err();
    assert_eq!(error, ReadbackError::DeviceLost);
    assert_says(&error, &["lost", "create another"]);
}

/// The variants of every enum in a source file, as `Enum::Variant`.
fn declared(source: &str) -> BTreeSet<String> {
    let mut variants = BTreeSet::new();
    let mut enclosing = None;
    for line in source.lines() {
        if let Some(name) = line.strip_prefix("pub enum ") {
            enclosing = name.strip_suffix(" {");
        } else if line == "}" {
            enclosing = None;
        } else if let (Some(name), Some(variant)) = (enclosing, line.strip_prefix("    "))
            && variant.starts_with(|c: char| c.is_ascii_uppercase())
        {
            let end = variant.find(|c: char| !c.is_alphanumeric()).unwrap_or(variant.len());
            variants.insert(format!("{name}::{}", &variant[..end]));
        }
    }
    variants
}

#[test]
fn of_gradients() {
    use ProblemError as E;
    let refused = |problem: ProblemBuilder, change: &dyn Fn(GradientsBuilder) -> GradientsBuilder, words: &[&str]| {
        let error = change(problem.build().unwrap().gradients()).build().unwrap_err();
        assert_says(&error, words);
        error
    };
    let plain = || Problem::builder(shape()).lse();
    let as_is = |gradients: GradientsBuilder| gradients;
    let program = "fn score_mod(score: f32, at: At) -> f32 { return score; }";
    let grad = "fn score_mod_grad(score: f32, at: At, gradient: f32) -> f32 { return gradient; }";
    assert_eq!(refused(Problem::builder(shape()), &as_is, &["log-sum-exp", "call `lse`"]), E::GradientsNeedLse);
    assert_eq!(refused(plain(), &|gradients| gradients.of([]), &["leave out `of`"]), E::NoGradients);
    for operand in [Operand::Dbias, Operand::Dsinks, Operand::Q, Operand::Out] {
        let error = refused(plain(), &|gradients| gradients.of([operand]), &[operand.name(), "dq, dk, dv"]);
        assert_eq!(error, E::NotAGradient { operand });
    }
    let error = refused(plain().score_mod(program), &as_is, &["`score_mod_grad`", "return `gradient`"]);
    assert_eq!(error, E::ScoreModGrad { has_score_mod: true });
    let error = refused(plain(), &|gradients| gradients.score_mod_grad(grad), &["no `score_mod`", "leave it out"]);
    assert_eq!(error, E::ScoreModGrad { has_score_mod: false });
    let wrong = |gradients: GradientsBuilder| gradients.score_mod_grad(program);
    let error = refused(plain().score_mod(program), &wrong, &["score_mod_grad", "gradient: f32"]);
    assert!(matches!(error, E::Program { function: Function::ScoreModGrad, line: 1, .. }), "{error:?}");
    // Both texts declare a name.
    let twice = format!("const a = 1.0;\n{program}");
    let wrong = |gradients: GradientsBuilder| gradients.score_mod_grad(format!("{grad}\nconst a = 2.0;"));
    let error = refused(plain().score_mod(twice), &wrong, &["score_mod_grad, line 2", "a"]);
    assert!(matches!(error, E::Program { function: Function::ScoreModGrad, line: 2, .. }), "{error:?}");
    let relative = ScoreLayout::strided([0, 15, -1, 1]).at(7);
    let error =
        refused(plain().bias(Dtype::F32, relative), &as_is, &["`bias`", "[0, 15, -1, 1]", "leave it out by `of`"]);
    assert!(matches!(error, E::BiasOverlaps { extent: [1, 4, 8, 8], .. }), "{error:?}");
    let one = |gradients: GradientsBuilder| gradients.of([Operand::Dq]);
    one(plain().bias(Dtype::F32, relative).build().unwrap().gradients()).build().unwrap();
    for (problem, other) in [
        (plain().paged_kv(Pages { count: 4, size: 4 }), "paged_kv"),
        (plain().ring_kv(4), "ring_kv"),
        (plain().kv_quantized(Quantization::Int8), "kv_quantized"),
    ] {
        let error = refused(problem, &as_is, &["gradients", other]);
        assert!(matches!(error, E::Combined { one: "gradients", .. }), "{error:?}");
    }
    let overlapping = |gradients: GradientsBuilder| gradients.dk(Layout { row: 15, ..Layout::bhld(4, 8, 16) });
    let error = refused(plain(), &overlapping, &["`dk`", "overlap"]);
    assert!(matches!(error, E::Overlapping { operand: Operand::Dk, .. }), "{error:?}");

    // A driver that ends loops, and one that binds too little.
    let (device, _queue) = noop();
    let plan = |gradients: Gradients, change: &dyn Fn(&mut Caps)| {
        let mut caps = Caps::of(&device);
        change(&mut caps);
        Attention::with_caps(&device, caps).plan_gradients(&gradients).map(|plan| plan.dispatches())
    };
    let long = Problem::builder(Shape::new(1, 4, 70_000, 16).kv_heads(1).kv_len(8)).lse().sinks().build().unwrap();
    let only = |of| long.gradients().of([of]).build().unwrap();
    let ends_loops = |caps: &mut Caps| caps.loop_iterations = 65_535;
    for (of, rows) in [(Operand::Dv, "280064"), (Operand::Dk, "280064")] {
        let error = plan(only(of), &ends_loops).unwrap_err();
        assert!(matches!(error, PlanError::TooManyRows { .. }), "{error:?}");
        assert_says(&error, &[rows, "shorter sequences"]);
    }
    assert_eq!(plan(only(Operand::Dsinks), &ends_loops), Ok(2));
    // Tiles of 128 rows, of which 16 rows fill one per head as 128 do.
    let fewest_iterations = |len_q| {
        let shape = Shape::new(1, 64, len_q, 256).kv_heads(1).kv_len(8);
        let keys = Problem::builder(shape).lse().build().unwrap().gradients().of([Operand::Dk]).build().unwrap();
        let plans = |iterations| {
            plan(keys.clone(), &|caps| {
                (caps.is_software, caps.thread_registers, caps.workgroup_bytes) = (false, 128, 28 << 10);
                caps.loop_iterations = iterations;
            })
        };
        (1..1 << 16).find(|&iterations| plans(iterations).is_ok()).unwrap()
    };
    assert_eq!(fewest_iterations(16), fewest_iterations(128));
    assert!(fewest_iterations(129) > fewest_iterations(128));
    let few = Problem::builder(shape()).lse().build().unwrap().gradients().build().unwrap();
    let error = plan(few, &|caps| caps.storage_buffers = 5).unwrap_err();
    assert_says(&error, &["gradient_queries", "max_storage_buffers_per_shader_stage", "6", "5"]);
    // 16 bytes per row of scratch.
    let rows = || Problem::builder(shape()).lse().build().unwrap().gradients().build().unwrap();
    let error = plan(rows(), &|caps| caps.buffer_bytes = 2 * 4 * 8 * 16 - 1).unwrap_err();
    assert_says(&error, &["row_sums", "max_buffer_size", "1024", "1023"]);
}

#[test]
fn every_error_there_is() {
    describing();
    of_gradients();
    planning();
    resizing();
    binding();
    host_slices();
    running();
    reading_back();
    let sources = [
        include_str!("../../src/problem/error.rs"),
        include_str!("../../src/kernel/error.rs"),
        include_str!("../../src/plan/error.rs"),
        include_str!("../../src/record/error.rs"),
        include_str!("../../src/host/run.rs"),
    ];
    let mut declared: BTreeSet<String> = sources.into_iter().flat_map(declared).collect();
    assert!(declared.len() > 30, "{declared:?}");
    let produced = PRODUCED.lock().unwrap();
    declared.retain(|variant| !produced.contains(variant));
    assert!(declared.is_empty(), "no test here produces {declared:?}");
}
