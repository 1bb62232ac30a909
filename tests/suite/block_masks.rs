//! Block masks: what a tile means for its pairs, and what the device computes for each tile.

use std::sync::Arc;

use truth::{Case, Fill, Visibility, indices, poison_hidden};
use wgpu_attention::{
    BindError, BlockMask, Diagonal, Operand, Operands, Problem, ProblemBuilder, ScoreLayout, Shape, blocking, testing,
};

use crate::case::{drawn, full};
use crate::contents::contents;
use crate::coverage;
use crate::device::{Device, all, with_real_matrices};
use crate::matrix::{in_f16, verify_in_turn};
use crate::programs::{assert_same_bits, verify_within, with_stripes};

/// At least three blocks of rows and five tiles of keys, with grouped heads. All sizes differ.
fn shape() -> Shape {
    Shape::new(2, 6, 70, 12).kv_heads(2).kv_len(150).value_dim(8)
}

/// A case whose tiles are random: empty, full and partial.
fn case(problem: ProblemBuilder) -> Case {
    drawn(problem.lse(), Fill::Normal, 57)
}

/// The case with the block mask that follows from its masks.
fn computed(mut case: Case) -> Case {
    let mut numbers = vec![0; case.view(Operand::BlockMask).end() as usize];
    let (view, size, shape) = (case.view(Operand::BlockMask), case.problem.block_mask().unwrap(), case.problem.shape());
    let visibility = Visibility::new(&case);
    for [b, h, i, j] in indices([view.extent[0], view.extent[1], shape.len_q, shape.len_kv]) {
        let tile = view.index([b, h, i / size.rows(), j / size.keys()]) as usize;
        numbers[tile] |= if visibility.is_unmasked([b, h, i, j]) { BlockMask::SEEN } else { BlockMask::HIDDEN };
    }
    case.host.block_mask = Some(numbers);
    case
}

#[test]
fn tiles_are_hidden_shown_or_left_to_the_masks() {
    let own = BlockMask::new(24, 32).per_batch().per_head();
    let masked = || with_stripes(case(Problem::builder(shape()).mask(full(shape())).block_mask(own).weights()));
    verify_within(&masked(), |_| ());
    verify_within(&masked(), |caps| caps.dispatch_flop = 1);
    // Without a mask, shared by all heads, and together with other ways to hide keys.
    let alone = Problem::builder(shape()).block_mask(BlockMask::new(7, 64).per_batch());
    verify_within(&case(alone.clone().causal(Diagonal::Offset(60))), |_| ());
    verify_within(&case(alone.kv_lengths().sinks()).lengths(&[150, 31]), |caps| caps.dispatch_flop = 1);
    // One tile for all rows and keys.
    verify_within(&case(Problem::builder(shape()).mask(full(shape())).block_mask(own)), |_| ());
    let single = BlockMask::new(1000, 1024).per_batch().per_head();
    verify_within(&case(Problem::builder(shape()).mask(full(shape())).block_mask(single)), |_| ());
}

#[test]
fn few_rows_and_split_keys_have_tiles_too() {
    let few = Shape::new(2, 6, 2, 12).kv_heads(2).kv_len(1100).value_dim(8);
    let own = BlockMask::new(1, 32).per_batch().per_head();
    let problem = Problem::builder(few).mask(full(few)).block_mask(own);
    verify_within(&case(problem.clone()), |_| ());
    verify_within(&case(problem), |caps| caps.workgroups_to_fill = 1 << 20);
    let long = Shape { len_q: 40, ..few };
    let problem = Problem::builder(long).block_mask(BlockMask::new(16, 96));
    verify_within(&case(problem), |caps| caps.workgroups_to_fill = 1 << 20);
}

#[test]
fn hidden_tiles_may_hold_anything() {
    let own = BlockMask::new(32, 32).per_batch().per_head();
    let mut case = case(Problem::builder(shape()).block_mask(own).weights());
    // No head sees the first keys.
    let view = case.view(Operand::BlockMask);
    let numbers = case.host.block_mask.as_mut().unwrap();
    for [b, h, i, j] in indices(view.extent) {
        if j < 2 {
            numbers[view.index([b, h, i, j]) as usize] = j * BlockMask::HIDDEN;
        }
    }
    assert!(poison_hidden(&mut case, f32::NAN) >= 2 * 2 * 64);
    verify_within(&case, |_| ());
}

/// Only on drivers that have matrices: others take long to compile the kernel.
#[test]
fn tiles_are_read_by_matrix_units() {
    for device in with_real_matrices() {
        let sizes = [BlockMask::new(24, 32).per_batch().per_head(), BlockMask::new(16, 64)];
        for (turn, size) in sizes.into_iter().enumerate() {
            let mask = ScoreLayout::broadcast([1, 1, 70, 150]);
            let case = in_f16(case(Problem::builder(shape()).mask(mask).block_mask(size)));
            verify_in_turn(device, &case, turn);
        }
    }
}

/// A block mask saves time and changes no bit.
#[test]
fn what_the_masks_say_of_tiles_changes_no_bit() {
    let band = |[b, h, i, j]: [u32; 4]| (i + 3 * h + 40 * b) / 32 == j / 32 || j % 7 == 0 && j > 100;
    let masked = case(Problem::builder(shape()).mask(full(shape()))).masked(|at, _| band(at));
    let mut tiled = masked.clone();
    let own = BlockMask::new(32, 32).per_batch().per_head();
    tiled.problem = masked.problem.clone().to_builder().block_mask(own).build().unwrap();
    let tiled = computed(tiled);
    for number in 1..=3 {
        assert!(tiled.host.block_mask.as_ref().unwrap().contains(&number), "no tile is {number}");
    }
    assert_same_bits(&masked, &tiled);
}

/// Computes the block mask of a case on a device.
fn found(device: &Device, case: &Case) -> Vec<u32> {
    let _guard = device.enter();
    let plan = device.attention.plan_block_mask(&case.problem).unwrap();
    let made = device.upload(&vec![0xee; case.view(Operand::BlockMask).size_bytes() as usize]);
    let others =
        [Operand::Mask, Operand::Aux, Operand::KvLengths].into_iter().filter(|operand| case.problem.uses(*operand));
    let others: Vec<_> = others.map(|operand| (operand, device.upload(&contents(case, operand)))).collect();
    let mut operands = Operands::default().with(Operand::BlockMask, made.as_entire_buffer_binding());
    for (operand, buffer) in &others {
        operands = operands.with(*operand, buffer.as_entire_buffer_binding());
    }
    let bytes = device.finish(&plan.bind(&operands).unwrap(), std::iter::once(&made)).remove(0);
    coverage::ran(device, plan.variants());
    bytemuck::pod_collect_to_vec(&bytes)
}

#[test]
fn the_device_finds_what_the_masks_say() {
    let shape = shape();
    let both = |size| {
        let problem = Problem::builder(shape).mask(full(shape)).block_mask(size);
        let mut case =
            with_stripes(case(problem).masked(|[_, _, i, j], seen| j / 40 != i / 20 && (seen || j / 40 > i / 20)));
        // The block mask does not depend on a program that changes scores.
        case.problem =
            case.problem.to_builder().score_mod("fn score_mod(s: f32, at: At) -> f32 { return s; }").build().unwrap();
        case
    };
    let own = |size: BlockMask| size.per_batch().per_head();
    let documents = "fn mask_mod(at: At) -> bool { return aux[at.query] == aux[at.key]; } // whatever the head";
    let mut of_documents =
        case(Problem::builder(shape).mask_mod(documents).aux(150).block_mask(BlockMask::new(16, 32)));
    of_documents.host.aux = Some((0..150).map(|token| (token / 40) as f32).collect());
    of_documents.host.programs.mask_mod = Some(Arc::new(|at, aux| aux[at.query as usize] == aux[at.key as usize]));
    let shared = ScoreLayout::broadcast([2, 1, 70, 150]);
    let of_batches = Problem::builder(shape).mask(shared).block_mask(BlockMask::new(9, 32).per_batch());
    let plain = Problem::builder(shape).block_mask(BlockMask::new(16, 32));
    let behind = "fn mask_mod(at: At) -> bool { return i32(at.key) + 20 > at.diagonal; }";
    let lengths = Problem::builder(shape).mask_mod(behind).kv_lengths().diagonal(Diagonal::BottomRight);
    let mut of_lengths = case(lengths.block_mask(BlockMask::new(16, 32).per_batch())).lengths(&[150, 90]);
    of_lengths.host.programs.mask_mod = Some(Arc::new(|at, _| i64::from(at.key) + 20 > i64::from(at.diagonal)));
    let mut without_lengths = of_lengths.clone();
    (without_lengths.host.kv_lengths, without_lengths.host.block_mask) = (None, None);
    let missing = Err(BindError::Missing { operand: Operand::KvLengths });
    assert_eq!(without_lengths.with_block_mask().map(drop), missing, "the diagonal is measured from them");
    let cases = [
        of_lengths,
        both(own(BlockMask::new(7, 32))),
        both(own(BlockMask::new(64, 96))),
        both(own(BlockMask::new(200, 256))),
        of_documents,
        case(of_batches).masked(|[b, _, i, j], _| i / 9 == j / 32 + b),
        case(plain),
    ];
    for case in cases {
        let wanted = computed(case.clone()).host.block_mask.unwrap();
        let mut by_reference = case.clone();
        by_reference.host.block_mask = None;
        assert_eq!(by_reference.with_block_mask().unwrap().host.block_mask.as_ref().unwrap(), &wanted);
        for device in all() {
            assert_eq!(found(device, &case), wanted, "{:?} on {}", case.problem, device.name);
            let cut = device.with_caps(|caps| caps.dispatch_flop = 1);
            let pieces = cut.attention.plan_block_mask(&case.problem).unwrap().dispatches();
            let rows = case.view(Operand::BlockMask).extent[..3].iter().product::<u32>();
            assert_eq!(pieces as u32, rows, "one for each row of tiles");
            let _guard = device.enter();
            assert_eq!(found(&cut, &case), wanted, "{:?}, cut, on {}", case.problem, device.name);
        }
    }
}

#[test]
fn the_host_may_have_it_made() {
    let case =
        case(Problem::builder(shape()).mask(full(shape())).block_mask(BlockMask::new(32, 32).per_batch().per_head()));
    let wanted = computed(case.clone()).host.block_mask.unwrap();
    let device = &all()[0];
    let _guard = device.enter();
    let inputs = wgpu_attention::Inputs { mask: case.host.mask.as_deref(), ..Default::default() };
    let made = blocking::block_mask(&device.attention, &device.queue, &case.problem, &inputs).unwrap();
    assert_eq!(made, wanted);
}

/// A problem with nothing in it has a block mask with nothing in it.
#[test]
fn empty_problems_have_empty_block_masks() {
    for shape in [Shape::new(2, 2, 0, 8).kv_len(40), Shape::new(2, 2, 40, 8).kv_len(0), Shape::new(0, 2, 40, 8)] {
        let size = BlockMask::new(16, 32).per_batch();
        let problem = Problem::builder(shape).block_mask(size).build().unwrap();
        let device = &all()[0];
        let _guard = device.enter();
        let inputs = wgpu_attention::Inputs::default();
        let made = blocking::block_mask(&device.attention, &device.queue, &problem, &inputs).unwrap();
        assert_eq!(made, [0; 0], "{shape:?}");
        let ones = [1.0; 1280];
        let no_tiles = wgpu_attention::Inputs { block_mask: Some(&[]), q: &ones, k: &ones, v: &ones, ..inputs };
        let out = blocking::attention(&device.attention, &device.queue, &problem, &no_tiles).unwrap().out;
        assert!(out.iter().all(|&x| x == 0.0), "{shape:?}");
    }
}

#[test]
fn a_block_mask_is_in_the_name_of_what_reads_it() {
    let problem = Problem::builder(shape()).block_mask(BlockMask::new(48, 64)).build().unwrap();
    for device in all() {
        for variant in device.variants(&problem) {
            assert!(variant.to_string().contains(".tiles48x64"), "{variant}");
            let binds = testing::bindings(&variant).into_iter().any(|binding| binding.name == "block_mask");
            assert!(binds, "{variant}");
        }
        let plan = device.attention.plan_block_mask(&problem).unwrap();
        assert_eq!(plan.variant().to_string(), "block_mask.f32x4.d0.tiles48x64");
        assert_eq!(plan.scratch_bytes(), 0);
    }
}
