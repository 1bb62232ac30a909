//! Every error there is, produced and recovered from: its text names the value, the bound and the remedy.

use wgpu::{BufferBinding, BufferUsages, Device, Queue};
use wgpu_attention::{
    Attention, BindError, Caps, Dtype, Inputs, Layout, Operand, Operands, PlanError, Problem, ProblemBuilder,
    ProblemError, Readback, ReadbackError, ScoreLayout, Shape, blocking,
};

use crate::record::{buffers, noop, operands};

fn assert_says(error: &impl std::fmt::Display, words: &[&str]) {
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
        Shape { batch: 0, ..shape() },
        Shape { heads_q: 0, ..shape() },
        Shape { heads_kv: 0, ..shape() },
        Shape { len_q: 0, ..shape() },
        Shape { len_kv: 0, ..shape() },
        Shape { dim_qk: 0, ..shape() },
        Shape { dim_v: 0, ..shape() },
    ];
    for (shape, axis) in zero.into_iter().zip(["batch", "heads_q", "heads_kv", "len_q", "len_kv", "dim_qk", "dim_v"]) {
        let named = |error: &E| matches!(error, E::Empty { axis: named } if *named == axis);
        refused(Problem::builder(shape), named, &[axis, "is 0", "at least 1"]);
    }
    let long = Problem::builder(shape().kv_len(u32::MAX));
    refused(long, |e| matches!(e, E::TooLong { .. }), &["len_kv", "4294967295", "536870912", "split"]);
    let heads = Problem::builder(shape().kv_heads(3));
    refused(heads, |e| matches!(e, E::HeadsNotGrouped { .. }), &["heads_q = 4", "heads_kv = 3", "multiple"]);
    for scale in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        refused(problem.scale(scale), |e| matches!(e, E::Scale(_)), &[&scale.to_string(), "finite", "leave it out"]);
    }
    for cap in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        refused(problem.softcap(cap), |e| matches!(e, E::Softcap(_)), &[&cap.to_string(), "positive", "leave it out"]);
    }
    let mask = problem.mask(ScoreLayout::broadcast([2, 3, 1, 1]));
    refused(mask, |e| matches!(e, E::NotBroadcastable { .. }), &["mask", "heads_q", "3", "4", "1 to broadcast"]);
    let bias = problem.dtype(Dtype::F16).bias(Dtype::Bf16, ScoreLayout::broadcast([1; 4]));
    refused(bias, |e| matches!(e, E::BiasDtype { .. }), &["bf16", "f16", "store it as f32"]);
    let far = problem.v(Layout { offset: u64::MAX, ..Layout::bhld(4, 8, 16) });
    refused(far, |e| matches!(e, E::Unaddressable { .. }), &["`v`", "2^64"]);
    let overlapping = problem.out(Layout { row: 8, ..Layout::bhld(4, 8, 16) });
    refused(
        overlapping,
        |e| matches!(e, E::Overlapping { .. }),
        &["`out`", "overlap", "[512, 128, 8, 1]", "[2, 4, 8, 16]"],
    );
}

#[test]
fn planning() {
    let (device, _queue) = noop();
    let caps = Caps::of(&device);
    let plan =
        |problem: ProblemBuilder, caps: Caps| Attention::with_caps(&device, caps).plan(&problem.build().unwrap());
    let problem = Problem::builder(shape());

    let error = plan(Problem::builder(Shape::new(1, 1, 8, 257)), caps).unwrap_err();
    assert!(matches!(error, PlanError::HeadSize { .. }));
    assert_says(&error, &["dim_qk = 257", "1 to 256"]);

    type Lower = fn(&mut Caps);
    let limits: [(&str, Lower); 3] = [
        ("max_storage_buffers_per_shader_stage", |caps| caps.storage_buffers = 3),
        ("max_compute_workgroup_storage_size", |caps| caps.workgroup_bytes = 1000),
        ("max_compute_invocations_per_workgroup", |caps| caps.invocations = 32),
    ];
    for (limit, lower) in limits {
        let mut low = caps;
        lower(&mut low);
        let error = plan(problem, low).unwrap_err();
        assert!(matches!(error, PlanError::Limit { .. }), "{error:?}");
        assert_says(&error, &[limit, "needs", "grants", "required_limits"]);
    }

    let mut small = caps;
    small.binding_bytes = 255;
    let error = plan(problem, small).unwrap_err();
    assert!(matches!(error, PlanError::TooLarge { .. }));
    assert_says(&error, &["255", "max_storage_buffer_binding_size"]);

    let mut hasty = caps;
    hasty.dispatch_flop = 1;
    let error = plan(Problem::builder(Shape::new(1 << 17, 1, 1, 1)), hasty).unwrap_err();
    assert!(matches!(error, PlanError::TooManyDispatches { .. }));
    assert_says(&error, &["65536", "plan parts"]);

    let attention = Attention::new(&device);
    let even = attention.candidates(&problem.build().unwrap()).unwrap()[0];
    let odd = Problem::builder(Shape::new(1, 1, 8, 15)).build().unwrap();
    let error = attention.plan_variant(&odd, even).unwrap_err();
    assert!(matches!(error, PlanError::VariantMismatch { .. }));
    assert_says(&error, &[&even.to_string(), "candidates"]);
    let error = attention.named(&odd, &even.to_string()).unwrap_err();
    let selected = attention.candidates(&odd).unwrap()[0];
    assert_eq!(error, PlanError::UnknownVariant { name: even.to_string(), selected });
    assert_says(&error, &[&even.to_string(), &selected.to_string(), "tune again"]);
    attention.plan(&odd).unwrap();
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
}

#[test]
fn host_slices() {
    let problem = Problem::builder(shape()).build().unwrap();
    let (long, short) = (vec![0.0; 1024], vec![0.0; 1023]);
    let right = Inputs { q: &long, k: &long, v: &long, ..Inputs::default() };
    right.check(&problem).unwrap();
    let error = Inputs { v: &short, ..right }.check(&problem).unwrap_err();
    assert_eq!(error, BindError::TooShort { operand: Operand::V, need: 1024, got: 1023 });
    assert_says(&error, &["`v`", "1024", "1023"]);
    let error = Inputs { mask: Some(&[true]), ..right }.check(&problem).unwrap_err();
    assert_eq!(error, BindError::Unused { operand: Operand::Mask });
    assert!(wgpu_attention::reference::attention(&problem, &Inputs { q: &short, ..right }).is_err());

    let (device, queue) = noop();
    let attention = Attention::new(&device);
    let error = blocking::attention(&attention, &queue, &problem, &Inputs { q: &short, ..right }).unwrap_err();
    assert_says(&error, &["`q`", "1024", "1023"]);
    let huge = Problem::builder(Shape::new(1, 1, 1, 1)).q(Layout { offset: 1 << 40, ..Layout::bhld(1, 1, 1) });
    let error = blocking::attention(&attention, &queue, &huge.build().unwrap(), &right).unwrap_err();
    assert_says(&error, &["`q`"]);
}

fn record(device: &Device, source: BufferBinding<'_>) -> Result<Readback, ReadbackError> {
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    Readback::record(device, &mut encoder, source)
}

#[test]
fn reading_back() {
    let (device, _queue): (Device, Queue) = noop();
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
    assert!(matches!(error, ReadbackError::NeverSubmitted | ReadbackError::Map(_)), "{error:?}");
    assert_says(&error, &["submit"]);
}
