//! Which operands of a problem may be parts of one buffer.

use wgpu::{Buffer, BufferBinding, BufferUsages, Device};
use wgpu_attention::{
    Attention, BindError, BlockMask, Dtype, Layout, Operand, Operands, Problem, ProblemBuilder, ScoreLayout, Shape,
};

use crate::record::{noop, without_error};

fn shape() -> Shape {
    Shape::new(2, 4, 8, 16)
}

fn buffer(device: &Device, size: u64) -> Buffer {
    let usage = BufferUsages::STORAGE;
    device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
}

/// If a problem allows it, operands are parts of one buffer, as long as what is written is apart from all others.
#[test]
fn operands_share_a_buffer_if_what_is_written_is_apart() {
    let (device, _queue) = noop();
    let device = &device;
    let problem = Problem::builder(shape()).shared_buffers().lse().build().unwrap();
    let plan = Attention::new(device).plan(&problem).unwrap();
    let pool = buffer(device, 1 << 20);
    let at = |offset| BufferBinding { buffer: &pool, offset, size: None };
    let together = || Operands::new(at(0), at(4096), at(8192), at(12288)).with(Operand::Lse, at(16384));
    let call = plan.bind(&together()).unwrap();
    // wgpu would refuse a buffer that a dispatch reads and writes.
    without_error(device, || {
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        call.encode(&mut encoder);
        encoder.finish()
    });
    plan.bind(&together().with(Operand::K, at(0))).unwrap();
    for (moved, offset, output, other) in [
        (Operand::Out, 256, Operand::Out, Operand::Q),
        (Operand::Out, 12288 - 256, Operand::Out, Operand::V),
        (Operand::Lse, 12288, Operand::Out, Operand::Lse),
        (Operand::K, 16384, Operand::Lse, Operand::K),
    ] {
        let error = plan.bind(&together().with(moved, at(offset))).unwrap_err();
        assert!(error.to_string().contains("shared_buffers"), "{error}");
        assert_eq!(error, BindError::Aliased { output, other });
    }
    // What counts is where the elements lie. The bindings may overlap, because they begin at multiples.
    let shifted = |first| {
        let (row, from) = (Layout::bhld(4, 8, 16), Problem::builder(shape()).shared_buffers());
        let problem = from.q(row.at(8)).out(row.at(first)).build().unwrap();
        let plan = Attention::new(device).plan(&problem).unwrap();
        plan.bind(&Operands::new(at(0), at(16384), at(16384), at(4096 - 256))).map(|_| ())
    };
    // q ends 8 elements after byte 4096, which is 72 elements after the binding of the output begins.
    assert_eq!(shifted(72), Ok(()));
    assert_eq!(shifted(71), Err(BindError::Aliased { output: Operand::Out, other: Operand::Q }));
    // Programs may read any element of `aux`, and not only its last.
    let score_mod = "fn score_mod(score: f32, at: At) -> f32 { return score + aux[at.key]; }";
    let with_aux = Problem::builder(shape()).shared_buffers().aux(2048).score_mod(score_mod).build().unwrap();
    let plan = Attention::new(device).plan(&with_aux).unwrap();
    let from = |out| plan.bind(&Operands::new(at(0), at(4096), at(8192), at(out)).with(Operand::Aux, at(12288)));
    assert!(from(20480).is_ok());
    assert_eq!(from(12288).unwrap_err(), BindError::Aliased { output: Operand::Out, other: Operand::Aux });
    // Elements that share a word are not apart. An f16 output begins in the word in which q ends.
    let halves = |first| {
        let row = Layout::bhld(1, 1, 1).at(first);
        let problem = Problem::builder(Shape::new(1, 1, 1, 127).value_dim(1)).dtype(Dtype::F16).shared_buffers();
        let plan = Attention::new(device).plan(&problem.out(row).build().unwrap()).unwrap();
        plan.bind(&Operands::new(at(0), at(4096), at(8192), at(0))).map(|_| ())
    };
    assert_eq!(halves(127), Err(BindError::Aliased { output: Operand::Out, other: Operand::Q }));
    assert_eq!(halves(128), Ok(()));
    let problem = Problem::builder(shape()).shared_buffers();
    for (problem, other) in [
        (problem.clone().block_mask(BlockMask::new(4, 32)), Operand::BlockMask),
        (problem.kv_lengths(), Operand::KvLengths),
    ] {
        let plan = Attention::new(device).plan(&problem.build().unwrap()).unwrap();
        let all = Operands::new(at(0), at(4096), at(8192), at(12288)).with(other, at(16384));
        let error = plan.bind(&all).unwrap_err();
        assert_eq!(error, BindError::Aliased { output: Operand::Out, other });
        // Nor may it share a buffer with an input, which is declared as writable.
        let (out, tables) = (buffer(device, 4096), buffer(device, 4096));
        let elsewhere = all.clone().with(Operand::Out, out.as_entire_buffer_binding());
        let error = plan.bind(&elsewhere).unwrap_err();
        assert_eq!(error, BindError::Aliased { output: Operand::Q, other });
        let call = plan.bind(&elsewhere.with(other, tables.as_entire_buffer_binding())).unwrap();
        without_error(device, || {
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            call.encode(&mut encoder);
            encoder.finish()
        });
    }
}

/// An output and another operand may touch, wherever in its binding that operand's first element lies.
#[test]
fn what_follows_an_output_begins_with_its_lowest_element() {
    let (device, _queue) = noop();
    let device = &device;
    let pool = buffer(device, 1 << 20);
    let at = |offset| BufferBinding { buffer: &pool, offset, size: None };
    let bind = |problem: ProblemBuilder, operand, offset| {
        let plan = Attention::new(device).plan(&problem.shared_buffers().build().unwrap()).unwrap();
        let others = Operands::new(at(32768), at(32768), at(32768), at(4096));
        plan.bind(&others.with(operand, at(offset))).map(|_| ())
    };
    let aliased = |other| Err(BindError::Aliased { output: Operand::Out, other });
    // The 4 KiB of the output end at byte 8192. A mask of bytes may begin within a word.
    let mask = |first| {
        let mask = ScoreLayout::broadcast([1, 1, 8, 8]).at(first);
        bind(Problem::builder(shape()).mask(mask), Operand::Mask, 4096)
    };
    assert_eq!((mask(4095), mask(4096)), (aliased(Operand::Mask), Ok(())));
    // A table that runs backwards begins with its last row: 7 numbers before that of row 0, and 64 or 63 after byte 7936.
    let bias = |first| {
        let bias = ScoreLayout::strided([0, 200, -1, 1]).at(first);
        bind(Problem::builder(shape()).bias(Dtype::F32, bias), Operand::Bias, 7936)
    };
    assert_eq!((bias(70), bias(71)), (aliased(Operand::Bias), Ok(())));
}
