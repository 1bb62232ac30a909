//! The inputs that tuning makes up: every operand that a problem has, each with its length, and no other.

use wgpu::{Device, DeviceDescriptor, Limits};
use wgpu_attention::blocking::{self, RunError};
use wgpu_attention::{Attention, BlockMask, Dtype, Operand, Pages, Problem, Quantization, RngState, Shape, Slopes};

use super::build;
use crate::case::everything;
use crate::record::noop;

#[test]
fn every_operand_is_made_up_and_no_other() {
    let (device, queue) = noop();
    let attention = Attention::new(&device);
    let shape = Shape::new(2, 2, 3, 5);
    // In each problem another operand is the longest, because all take their numbers from one slice.
    let short = Shape::new(1, 64, 1, 1).kv_heads(1);
    for problem in [
        Problem::builder(Shape::new(1, 4, 3, 2).kv_heads(1)),
        Problem::builder(Shape::new(1, 1, 1, 3).kv_len(7).value_dim(1)),
        Problem::builder(Shape::new(1, 1, 1, 1).kv_len(7).value_dim(3)),
        Problem::builder(short).sinks(),
        Problem::builder(short).alibi(Slopes::PerHead),
        Problem::builder(Shape::new(1, 1, 1, 1))
            .aux(9)
            .score_mod("fn score_mod(score: f32, at: At) -> f32 { return score + aux[at.key]; }"),
        Problem::builder(shape).alibi(Slopes::PerBatchAndHead).sinks(),
        everything(shape, Dtype::F32),
        Problem::builder(shape).block_mask(BlockMask::new(2, 32).per_batch().per_head()),
        Problem::builder(shape).q_lengths(),
        Problem::builder(shape).ragged_q(5).kv_lengths(),
        Problem::builder(shape).ragged_kv(7),
        Problem::builder(shape).paged_kv(Pages { count: 3, size: 2 }).kv_lengths(),
        Problem::builder(Shape::new(1, 1, 1, 3).kv_len(7).value_dim(1)).kv_quantized(Quantization::Int8),
        Problem::builder(Shape::new(1, 1, 1, 1).kv_len(7).value_dim(9)).kv_quantized(Quantization::Int4),
        Problem::builder(shape).dropout(0.5, RngState::Buffer),
    ] {
        let tuned = blocking::tune(&attention, &queue, &build(problem.clone()));
        assert!(tuned.is_ok(), "{problem:?}: {tuned:?}");
    }
}

#[test]
fn what_no_buffer_holds_is_not_tuned() {
    let required_limits = Limits { max_buffer_size: 1 << 20, ..Limits::default() };
    let (device, queue) = Device::noop(&DeviceDescriptor { required_limits, ..Default::default() });
    let problem = build(Problem::builder(Shape::new(1, 1, 1, 64).kv_len(4097)));
    let error = blocking::tune(&Attention::new(&device), &queue, &problem).unwrap_err();
    assert_eq!(error, RunError::BufferTooLarge { operand: Operand::K, need: 4097 * 256, granted: 1 << 20 });
}
