//! What a server does: thousands of sequences in a batch, and one call for thousands of steps whose lengths change.

use truth::{Case, Expected, Fill, Outputs};
use wgpu::{BufferUsages, PollType};
use wgpu_attention::{
    Append, Attention, Caps, Diagonal, Dtype, Layout, Operand, Pages, PlanError, Problem, Rotary, RotaryPairs, Shape,
};

use crate::case::drawn;
use crate::choice::verify_variant;
use crate::contents::{contents, elements};
use crate::device::{Device, all};
use crate::record::{noop, operands};

const SEQUENCES: u32 = 10_000;

/// Bounds of [`SEQUENCES`] sequences, of which most have one row, some none, and a few many.
fn bounds(many: u32) -> Vec<u32> {
    let length = |n: u32| match n % 1000 {
        7 => many,
        8..=200 => 0,
        _ => 1,
    };
    let mut end = 0;
    let ends = (0..SEQUENCES).map(|n| {
        end += length(n);
        end
    });
    std::iter::once(0).chain(ends).collect()
}

/// Checks the variant that each adapter prefers. All find their sequence by the same text, and many take long.
fn verify_preferred(case: &Case) {
    let expected = Expected::of(case);
    for device in all() {
        verify_variant(case, &expected, device, &device.variants(&case.problem)[0]);
    }
}

#[test]
fn a_ragged_batch_may_have_ten_thousand_sequences() {
    let (bounds_q, bounds_k) = (bounds(20), bounds(70));
    let [total_q, total_kv] = [&bounds_q, &bounds_k].map(|bounds| *bounds.last().unwrap());
    let shape = Shape::new(SEQUENCES, 2, 20, 8).kv_heads(1).kv_len(70);
    let problem = Problem::builder(shape).causal(Diagonal::BottomRight).ragged_q(total_q).ragged_kv(total_kv);
    let mut case = drawn(problem, Fill::Normal, 1);
    (case.host.cu_seqlens_q, case.host.cu_seqlens_k) = (Some(bounds_q), Some(bounds_k));
    verify_preferred(&case);
}

#[test]
fn a_step_may_decode_ten_thousand_sequences_from_pages() {
    let shape = Shape::new(SEQUENCES, 2, 1, 8).kv_heads(1).kv_len(40);
    let pages = Pages { count: 64, size: 16 };
    let mut case = drawn(Problem::builder(shape).paged_kv(pages).kv_lengths(), Fill::Normal, 2);
    // Few sequences are long, since the driver is slow.
    case.host.kv_lengths = Some((0..SEQUENCES).map(|n| if n % 97 == 0 { 40 } else { n % 3 }).collect());
    verify_preferred(&case);
}

/// A buffer that the host writes between steps.
fn writable(device: &Device, contents: &[u8]) -> wgpu::Buffer {
    let buffer = device.attention.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: contents.len() as u64,
        usage: BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    device.queue.write_buffer(&buffer, 0, contents);
    buffer
}

fn writable_operands(device: &Device, case: &Case) -> Vec<(Operand, wgpu::Buffer)> {
    case.problem.views().map(|view| (view.operand, writable(device, &contents(case, view.operand)))).collect()
}

fn buffer_of(buffers: &[(Operand, wgpu::Buffer)], wanted: Operand) -> &wgpu::Buffer {
    buffers.iter().find_map(|(operand, buffer)| (*operand == wanted).then_some(buffer)).unwrap()
}

/// One call serves all lengths: parts that had keys in an earlier step and have none now are not read.
#[test]
fn lengths_may_shrink_between_steps() {
    let shape = Shape::new(2, 4, 1, 32).kv_heads(2).kv_len(1300);
    let mut case = drawn(Problem::builder(shape).kv_lengths(), Fill::Normal, 3);
    for device in all() {
        let _guard = device.enter();
        let device = &device.with_caps(|caps| caps.workgroups_to_fill = 1 << 20);
        for variant in device.variants(&case.problem) {
            let plan = device.attention.plan_variant(&case.problem, &variant).unwrap();
            let buffers = writable_operands(device, &case);
            let call = plan.bind(&operands(&buffers)).unwrap();
            for lengths in [[1300, 1300], [20, 700], [0, 1], [1300, 0], [1, 1299]] {
                let written = buffer_of(&buffers, Operand::KvLengths);
                device.queue.write_buffer(written, 0, bytemuck::cast_slice(&lengths));
                case.host.kv_lengths = Some(lengths.to_vec());
                let out = buffer_of(&buffers, Operand::Out);
                let bytes = device.finish(&call, [out].into_iter());
                let out = elements(&case.problem, Operand::Out, &bytes[0]);
                let got = Outputs { out, ..Outputs::default() };
                Expected::of(&case).check(&got).unwrap_or_else(|wrong| {
                    panic!("{variant} on {}, {} parts, {lengths:?}: {wrong}", device.name, plan.parts())
                });
            }
        }
    }
}

/// The memory of this process, in KiB, on Linux, which says it in a file.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Checks that 10 000 steps take no more memory than the first ones did.
fn assert_no_growth(step: impl Fn(u32)) {
    (0..2000).for_each(&step);
    let before = resident();
    (0..10_000).for_each(&step);
    let grown = before.zip(resident()).map_or(0, |(before, after)| after.saturating_sub(before));
    assert!(grown < 1024, "10 000 steps took {grown} KiB");
}

/// Runs a test in a process of its own, since other tests take memory too. Returns whether this is that process.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "WGPU_ATTENTION_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test]).env(ALONE, "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    false
}

/// Appends and attends 10 000 times by the same two calls, through a cache that is filled again and again.
#[test]
fn ten_thousand_steps_take_no_more_memory() {
    if !is_alone("serving::ten_thousand_steps_take_no_more_memory") {
        return;
    }
    const CAPACITY: u32 = 64;
    let shape = Shape::new(1, 2, 1, 16).kv_heads(1).kv_len(CAPACITY);
    let rotary = Rotary { dims: 16, pairs: RotaryPairs::Halves, positions: CAPACITY };
    let append = Append { rotary: Some(rotary), ..Append::default() };
    let problem = Problem::builder(shape).dtype(Dtype::F16).kv_lengths().append(append).build().unwrap();
    // One adapter is enough: what could grow is the host's.
    let device = &all()[0];
    let _guard = device.enter();
    let buffers: Vec<_> =
        problem.views().map(|view| (view.operand, writable(device, &vec![0; view.size_bytes() as usize]))).collect();
    let calls = [device.attention.plan_append(&problem).unwrap(), device.attention.plan(&problem).unwrap()]
        .map(|plan| plan.bind(&operands(&buffers)).unwrap());
    assert_no_growth(|n| {
        let length = n % CAPACITY + 1;
        device.queue.write_buffer(buffer_of(&buffers, Operand::KvLengths), 0, bytemuck::bytes_of(&length));
        let gpu = device.attention.device();
        let mut encoder = gpu.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        calls.iter().for_each(|call| call.encode(&mut encoder));
        device.queue.submit([encoder.finish()]);
        gpu.poll(PollType::wait_indefinitely()).unwrap();
    });
}

/// The library records a step from what it made once: binding again and again leaves nothing behind either.
#[test]
fn ten_thousand_binds_take_no_more_memory() {
    if !is_alone("serving::ten_thousand_binds_take_no_more_memory") {
        return;
    }
    let (device, queue) = noop();
    let attention = Attention::new(&device);
    let plan = attention.plan(&Problem::builder(Shape::new(1, 8, 1, 64).kv_len(4096)).build().unwrap()).unwrap();
    let buffers = crate::record::buffers(&device, plan.problem());
    let scratch = plan.scratch();
    assert_no_growth(|_| {
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        plan.bind_in(&operands(&buffers), &scratch).unwrap().encode(&mut encoder);
        queue.submit([encoder.finish()]);
        device.poll(PollType::wait_indefinitely()).unwrap();
    });
}

/// Keys whose heads, batches or rows are 2^31 elements apart. A dispatch indexes 2^32 of them at most, however much a device
/// binds at once, and no shader has an index for rows that far apart.
#[test]
fn strides_of_two_to_the_31_are_cut_or_refused() {
    let (device, _queue) = noop();
    let mut caps = Caps::of(&device);
    (caps.binding_bytes, caps.buffer_bytes) = (u64::MAX, u64::MAX);
    let attention = Attention::with_caps(&device, caps);
    let far = 1 << 31;
    let dispatches = |batch, head, row| {
        let layout = Layout { offset: 0, batch, head, row };
        let problem = Problem::builder(Shape::new(3, 3, 2, 8).kv_len(2)).k(layout).v(layout).build().unwrap();
        attention.plan(&problem).map(|plan| plan.dispatches())
    };
    assert_eq!(dispatches(48, 16, 8), Ok(1));
    assert!(dispatches(48, far, 8).is_ok_and(|cut| cut > 1));
    assert!(dispatches(far, 16, 8).is_ok_and(|cut| cut > 1));
    let refused = dispatches(48, 16, far).unwrap_err();
    assert!(matches!(refused, PlanError::TooLarge { operand: Operand::K, .. }), "{refused:?}");
}
