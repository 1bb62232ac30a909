//! The host's time for a problem whose kernel is compiled, on wgpu's noop device, whose driver costs nothing.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use wgpu_attention::{Attention, Operand, Operands, Problem, Shape};

fn host(criterion: &mut Criterion) {
    let (device, _queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
    let shape = Shape::new(1, 32, 1, 128).kv_heads(8).kv_len(4096);
    let problem = Problem::builder(shape).build().expect("a problem");
    let buffer = |elements: u32| {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 4 * u64::from(elements),
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        })
    };
    let [q, k, v, out] = [32 * 128, 8 * 4096 * 128, 8 * 4096 * 128, 32 * 128].map(buffer);
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let operands = Operands::new(whole(&q), whole(&k), whole(&v), whole(&out));

    let attention = Attention::new(&device);
    let plan = attention.plan(&problem).expect("a plan");
    let scratch = plan.scratch();
    let call = plan.bind_in(&operands, &scratch).expect("a call");

    // First, because wgpu's encoders take longer once there were many buffers, and each plan has one until the next submit.
    criterion.bench_function("record a call", |bencher| {
        bencher.iter(|| {
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            call.encode(&mut encoder);
            encoder.finish()
        });
    });
    criterion.bench_function("plan a known variant", |bencher| bencher.iter(|| attention.plan(black_box(&problem))));
    criterion.bench_function("bind", |bencher| bencher.iter(|| plan.bind_in(black_box(&operands), &scratch)));
    let longer = plan.resized(1, 4095).expect("a plan");
    assert_eq!(longer.variant(), plan.variant(), "no compilation");
    criterion.bench_function("resize a plan", |bencher| bencher.iter(|| plan.resized(1, black_box(4095))));
    criterion.bench_function("rebind an operand of a call", |bencher| {
        bencher.iter(|| call.rebound(Operand::K, black_box(whole(&v))));
    });
}

criterion_group!(benches, host);
criterion_main!(benches);
