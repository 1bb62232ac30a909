//! Gradients by the blocks that GPUs get: what they compute does not depend on registers and workgroup memory.

use truth::{ExpectedGradients, Fill};
use wgpu_attention::{Attention, BlockMask, Diagonal, Dtype, GradientsBuilder, Problem, RngState, Shape, Window};

use crate::backward::{Backward, as_gpu, devices, everything, poisoned, shape};
use crate::case::full;

/// Runs a case by the kernels for GPUs with so many registers and so much workgroup memory, on one adapter.
fn verify_as_gpus(gpus: &[[u32; 2]], backward: &Backward) {
    let expected = ExpectedGradients::new(&backward.case, &backward.gradients).unwrap();
    let device = devices().next().unwrap();
    for &[registers, kilobytes] in gpus {
        let got = backward.run_by(device, &as_gpu(device, registers, kilobytes << 10));
        let verdict = got.and_then(|got| expected.check(&got).map_err(|wrong| wrong.to_string()));
        verdict.unwrap_or_else(|wrong| panic!("{registers} registers, {kilobytes} KiB: {wrong}"));
    }
}

/// Registers, and KiB of workgroup memory.
const LARGEST: [[u32; 2]; 2] = [[255, 32], [255, 16]];

#[test]
fn larger_blocks_follow_everything_that_a_score_goes_through() {
    let tall = Shape::new(2, 4, 75, 24).kv_heads(2).kv_len(170);
    for (n, problem) in everything(tall).into_iter().enumerate() {
        verify_as_gpus(&LARGEST, &Backward::with(problem, Fill::Normal, n as u64, GradientsBuilder::dlse));
    }
    let tiles = BlockMask::new(16, 64).per_batch().per_head();
    let blocks = Backward::new(Problem::builder(tall).mask(full(tall)).block_mask(tiles), Fill::Spike, 3);
    verify_as_gpus(&LARGEST[..1], &blocks);
    let (poisoned, _) = poisoned(Problem::builder(shape()).mask(full(shape())).kv_lengths(), [45, 45], f32::NAN);
    verify_as_gpus(&LARGEST, &poisoned);
}

/// The wider the heads, the more threads share a row, as registers ask for it.
#[test]
fn larger_blocks_are_right_for_wide_heads() {
    let window = Window { left: Some(60), right: Some(0) };
    let wide = Problem::builder(Shape::new(1, 2, 70, 128).kv_heads(1).value_dim(100).kv_len(90)).window(window);
    verify_as_gpus(&[[255, 32], [255, 16], [192, 32], [128, 16]], &Backward::new(wide, Fill::Normal, 1));
    let wider = Problem::builder(Shape::new(3, 1, 40, 256).value_dim(160).kv_len(150)).ragged_q(70).ragged_kv(160);
    verify_as_gpus(&[[255, 32], [192, 32], [128, 32], [128, 16]], &Backward::new(wider, Fill::Normal, 2));
}

#[test]
fn larger_blocks_move_elements_of_any_type() {
    // Rows at any offset, and rows that share words.
    let odd = Shape::new(1, 2, 67, 23).value_dim(37);
    verify_as_gpus(&[[192, 32]], &Backward::new(Problem::builder(odd), Fill::Spike, 5));
    verify_as_gpus(&[[255, 32]], &Backward::new(Problem::builder(odd).dtype(Dtype::F16), Fill::Normal, 6));
}

#[test]
fn larger_blocks_give_the_same_bits_however_the_work_is_cut() {
    let problem = Problem::builder(Shape::new(2, 4, 75, 24).kv_heads(2).kv_len(170)).causal(Diagonal::BottomRight);
    let backward = Backward::new(problem.dropout(0.3, RngState::Buffer), Fill::Normal, 7);
    let device = devices().next().unwrap();
    let whole = as_gpu(device, 255, 32 << 10);
    let mut caps = *whole.caps();
    caps.dispatch_flop = 1;
    let cut = Attention::with_caps(whole.device(), caps);
    let dispatches = |attention: &Attention| attention.plan_gradients(&backward.gradients).unwrap().dispatches();
    assert!(dispatches(&cut) > dispatches(&whole));
    let bits = |attention| backward.run_by(device, attention).unwrap().bits();
    assert!(bits(&whole) == bits(&cut));
}
