//! Computing a block mask: what it asks of the host's inputs and of the device, and what it returns.

use wgpu::{Device, DeviceDescriptor, Limits};
use wgpu_attention::blocking::{self, RunError};
use wgpu_attention::{
    Attention, BindError, BlockMask, Inputs, Operand, PlanError, Problem, ScoreLayout, Shape, testing,
};

use super::{Kind, build};
use crate::record::noop;

fn computed(problem: &Problem, inputs: &Inputs<'_>) -> Result<usize, RunError> {
    let (device, queue) = noop();
    blocking::block_mask(&Attention::new(&device), &queue, problem, inputs).map(|tiles| tiles.len())
}

/// 2 batches of 3 heads, of 40 queries and 70 keys.
fn masked(tiles: BlockMask) -> Problem {
    let shape = Shape::new(2, 3, 40, 8).kv_len(70);
    build(Problem::builder(shape).mask(ScoreLayout::broadcast([2, 1, 40, 70])).sinks().block_mask(tiles))
}

#[test]
fn it_has_a_number_for_every_tile() {
    let mask = [true; 2 * 40 * 70];
    let inputs = Inputs { mask: Some(&mask), ..Inputs::default() };
    let tiles = BlockMask::new(16, 32).per_batch();
    assert_eq!(computed(&masked(tiles), &inputs), Ok(2 * 3 * 3));
    assert_eq!(computed(&masked(tiles.per_head()), &inputs), Ok(2 * 3 * 3 * 3));
    let empty = build(Problem::builder(Shape::new(2, 3, 0, 8)).block_mask(tiles));
    assert_eq!(computed(&empty, &Inputs::default()), Ok(0), "though a buffer has at least one word");
}

#[test]
fn it_needs_the_masks_and_nothing_else() {
    let problem = masked(BlockMask::new(16, 32).per_batch());
    let with = |mask| Inputs { mask, ..Inputs::default() };
    let missing = BindError::Missing { operand: Operand::Mask };
    assert_eq!(computed(&problem, &with(None)), Err(missing.into()));
    let short = BindError::TooShort { operand: Operand::Mask, need: 5600, got: 5599 };
    assert_eq!(computed(&problem, &with(Some(&[true; 5599]))), Err(short.into()));
    // Sinks are not needed, and may be given; the problem has no lengths. The old tiles are ignored.
    let mask = [true; 5600];
    let given = Inputs { sinks: Some(&[0.0; 3]), block_mask: Some(&[]), ..with(Some(&mask)) };
    assert_eq!(computed(&problem, &given), Ok(18));
    let unused = BindError::Unused { operand: Operand::KvLengths };
    assert_eq!(computed(&problem, &Inputs { kv_lengths: Some(&[1, 2]), ..given }), Err(unused.into()));
    let plain = build(Problem::builder(Shape::new(2, 3, 40, 8)));
    assert_eq!(computed(&plain, &Inputs::default()), Err(PlanError::NoBlockMask.into()));
}

#[test]
fn no_operand_may_be_larger_than_a_buffer() {
    let required_limits = Limits { max_buffer_size: 1 << 20, ..Limits::default() };
    let (device, queue) = Device::noop(&DeviceDescriptor { required_limits, ..Default::default() });
    let found = |len_kv| {
        let mask = ScoreLayout::broadcast([1, 1, 1024, len_kv]);
        let problem = build(
            Problem::builder(Shape::new(1, 1, 1024, 1).kv_len(len_kv)).mask(mask).block_mask(BlockMask::new(64, 64)),
        );
        let mask = vec![true; 1024 * len_kv as usize];
        let inputs = Inputs { mask: Some(&mask), ..Inputs::default() };
        blocking::block_mask(&Attention::new(&device), &queue, &problem, &inputs).map(|tiles| tiles.len())
    };
    assert_eq!(found(1024), Ok(16 * 16));
    let granted = 1 << 20;
    assert_eq!(found(1025), Err(RunError::BufferTooLarge { operand: Operand::Mask, need: granted + 1024, granted }));
}

/// 16 operations for the masks of each pair, and a row of tiles cannot be cut.
#[test]
fn a_block_mask_costs_what_its_masks_cost() {
    let (device, _queue) = noop();
    let problem =
        build(Problem::builder(Shape::new(3, 10, 37, 13).kv_len(41)).block_mask(BlockMask::new(16, 32).per_head()));
    let within = |dispatch_flop| {
        let mut caps = Kind::Plain.caps(&device);
        caps.dispatch_flop = dispatch_flop;
        Attention::with_caps(&device, caps).plan_block_mask(&problem).map(|plan| plan.dispatches())
    };
    let all = 10 * 37 * 41 * 16;
    assert_eq!((within(all), within(all - 1), within(1)), (Ok(1), Ok(2), Ok(10 * 3)));
    // The vote of a workgroup takes 4 bytes.
    let mut small = Kind::Plain.caps(&device);
    small.workgroup_bytes = 4;
    assert!(testing::block_mask(&problem, &small).is_ok());
    small.workgroup_bytes = 3;
    let refused = testing::block_mask(&problem, &small);
    assert!(matches!(refused, Err(PlanError::Limit { need: 4, granted: 3, .. })), "{refused:?}");
}
