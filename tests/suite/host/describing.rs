//! What a description says back: where each operand's elements lie, what each getter returns, and at which number each bound
//! begins to refuse.

use wgpu_attention::{
    Append, BlockMask, Diagonal, Dtype, Layout, MaskFormat, Operand, Philox, Problem, ProblemBuilder, ProblemError,
    RngState, Rotary, RotaryPairs, ScoreLayout, Shape, Slopes, View, Window,
};

use super::build;

/// No two sizes are equal, and no tile below divides the lengths.
fn shape() -> Shape {
    Shape::new(3, 10, 37, 13).kv_heads(5).kv_len(101).value_dim(17)
}

fn view(problem: ProblemBuilder, operand: Operand) -> Option<View> {
    build(problem).view(operand)
}

/// The offset, the extents and the strides of an operand, and one past its last element.
type Place = (u64, [u32; 4], [i64; 4], u64);

fn place(problem: ProblemBuilder, operand: Operand) -> Place {
    let view = view(problem, operand).unwrap();
    assert_eq!(view.operand, operand);
    (view.offset, view.extent, view.stride, view.end())
}

#[test]
fn operands_lie_one_element_after_another_unless_told_otherwise() {
    use Operand as O;
    let plain = Problem::builder(shape());
    let all = plain.clone().lse().weights().sinks().kv_lengths();
    for (operand, wanted) in [
        (O::Q, (0, [3, 10, 37, 13], [4810, 481, 13, 1], 14_430)),
        (O::K, (0, [3, 5, 101, 13], [6565, 1313, 13, 1], 19_695)),
        (O::V, (0, [3, 5, 101, 17], [8585, 1717, 17, 1], 25_755)),
        (O::Out, (0, [3, 10, 37, 17], [6290, 629, 17, 1], 18_870)),
        (O::Lse, (0, [3, 10, 37, 1], [370, 37, 1, 1], 1110)),
        (O::Weights, (0, [3, 10, 37, 101], [37_370, 3737, 101, 1], 112_110)),
        (O::Sinks, (0, [1, 10, 1, 1], [0, 1, 0, 0], 10)),
        (O::KvLengths, (0, [3, 1, 1, 1], [1, 0, 0, 0], 3)),
    ] {
        assert_eq!(place(all.clone(), operand), wanted, "{operand}");
    }
    for operand in [O::Lse, O::Weights, O::Mask, O::Bias, O::KvLengths, O::AlibiSlopes, O::Sinks, O::Aux, O::BlockMask]
    {
        assert_eq!(view(plain.clone(), operand), None, "{operand}");
        assert!(!build(plain.clone()).uses(operand));
    }
    for (slopes, stride, end) in [(Slopes::PerHead, [0, 1, 0, 0], 10), (Slopes::PerBatchAndHead, [10, 1, 0, 0], 30)] {
        let wanted = (0, [3, 10, 1, 1], stride, end);
        assert_eq!(place(plain.clone().alibi(slopes), O::AlibiSlopes), wanted, "{slopes:?}");
    }
    // The view of `aux` has one element, its last.
    for (len, offset, elements) in [(0, 0, 0), (1, 0, 1), (5, 4, 1), (1 << 40, (1 << 40) - 1, 1)] {
        assert_eq!(place(plain.clone().aux(len), O::Aux), (offset, [elements, 1, 1, 1], [0; 4], len));
        assert_eq!(view(plain.clone().aux(len), O::Aux).unwrap().size_bytes(), 4 * len);
    }
}

#[test]
fn elements_have_the_size_of_their_type() {
    let mask = ScoreLayout::broadcast([3, 10, 37, 101]);
    let problem = Problem::builder(shape()).dtype(Dtype::F16).lse().weights().mask(mask).bias(Dtype::F16, mask).sinks();
    let problem =
        problem.kv_lengths().alibi(Slopes::PerHead).aux(3).block_mask(BlockMask::new(1, 32).per_batch().per_head());
    let sizes: Vec<u64> = build(problem.clone()).views().map(|view| view.element_bytes).collect();
    assert_eq!(sizes, [2, 2, 2, 2, 4, 2, 1, 2, 4, 4, 4, 4, 4], "in the order of `Operand::ALL`");
    let wide = build(problem.bias(Dtype::F32, mask)).view(Operand::Bias).unwrap();
    assert_eq!(wide.element_bytes, 4);
    // 112 110 bytes of a mask are not a multiple of 4, which a binding must be.
    assert_eq!(view(Problem::builder(shape()).mask(mask), Operand::Mask).unwrap().size_bytes(), 112_112);
}

#[test]
fn layouts_have_the_strides_of_their_order() {
    let blhd = Problem::builder(shape()).q(Layout::blhd(10, 37, 13));
    assert_eq!(place(blhd, Operand::Q), (0, [3, 10, 37, 13], [4810, 13, 130, 1], 14_430));
    let tokens = shape().kv_len(37);
    let [q, k, v] = Layout::packed_qkv(&tokens);
    let packed = Problem::builder(tokens).q(q).k(k).v(v);
    // A token has 10 · 13 numbers of Q, 5 · 13 of K and 5 · 17 of V.
    for (operand, offset, heads, dim) in [(Operand::Q, 0, 10, 13), (Operand::K, 130, 5, 13), (Operand::V, 195, 5, 17)] {
        let end = 280 * (3 * 37 - 1) + offset + u64::from(heads * dim);
        let wanted = (offset, [3, heads, 37, dim], [280 * 37, dim.into(), 280, 1], end);
        assert_eq!(place(packed.clone(), operand), wanted, "{operand}");
    }
    // A stride past 64 bits is as long as a stride can be.
    let most = u32::MAX;
    let square = u64::from(most).pow(2);
    assert_eq!(Layout::bhld(most, most, most), Layout { offset: 0, batch: u64::MAX, head: square, row: most.into() });
    assert_eq!(Layout::blhd(most, most, most), Layout { offset: 0, batch: u64::MAX, head: most.into(), row: square });
    let absurd = Layout { offset: 0, batch: u64::MAX, head: most.into(), row: u64::MAX };
    assert_eq!(Layout::packed_qkv(&Shape::new(1, most, most, most)), [absurd, absurd.at(square), absurd.at(u64::MAX)]);
}

#[test]
fn masks_and_biases_are_broadcast_or_strided() {
    let plain = Problem::builder(shape());
    for (dims, stride, end) in [
        ([3, 10, 37, 101], [37_370, 3737, 101, 1], 112_110),
        ([3, 1, 1, 101], [101, 0, 0, 1], 303),
        ([1, 10, 37, 1], [0, 37, 1, 0], 370),
        ([1; 4], [0; 4], 1),
    ] {
        let wanted = (0, [3, 10, 37, 101], stride, end);
        assert_eq!(place(plain.clone().mask(ScoreLayout::broadcast(dims)), Operand::Mask), wanted);
        assert_eq!(place(plain.clone().bias(Dtype::F32, ScoreLayout::broadcast(dims)), Operand::Bias), wanted);
    }
    // Row i begins at 36 − i, and so the first is the one that ends last. Read from its end, key j is at 100 − j.
    let backwards = |stride, at| place(plain.clone().mask(ScoreLayout::strided(stride).at(at)), Operand::Mask);
    assert_eq!(backwards([0, 137, -1, 1], 36), (36, [3, 10, 37, 101], [0, 137, -1, 1], 36 + 9 * 137 + 101));
    assert_eq!(backwards([0, 0, 101, -1], 100), (100, [3, 10, 37, 101], [0, 0, 101, -1], 101 * 37));
    let before = plain.clone().mask(ScoreLayout::strided([0, 137, -1, 1]).at(35)).build();
    assert_eq!(before, Err(ProblemError::BeforeFirst { operand: Operand::Mask }));
    // Where there are no scores, there is nothing before the first.
    for empty in [Shape { batch: 0, ..shape() }, shape().kv_len(0)] {
        let problem = Problem::builder(empty).mask(ScoreLayout::strided([1, 1, -1, 1]));
        assert_eq!(view(problem, Operand::Mask).unwrap().size_bytes(), 0, "{empty:?}");
    }
}

#[test]
fn a_block_mask_has_a_number_for_every_tile_that_is_not_shared() {
    // 37 rows are 6 tiles of 7, and 101 keys are 4 tiles of 32.
    let tiles = BlockMask::new(7, 32);
    let own = tiles.per_batch().per_head();
    let of = |shape, tiles| place(Problem::builder(shape).block_mask(tiles), Operand::BlockMask);
    for (tiles, extent, stride, end) in [
        (tiles, [1, 1, 6, 4], [0, 0, 4, 1], 24),
        (tiles.per_batch(), [3, 1, 6, 4], [24, 0, 4, 1], 72),
        (tiles.per_head(), [1, 10, 6, 4], [0, 24, 4, 1], 240),
        (own, [3, 10, 6, 4], [240, 24, 4, 1], 720),
    ] {
        assert_eq!(of(shape(), tiles), (0, extent, stride, end), "{tiles:?}");
    }
    assert_eq!(of(Shape { batch: 0, ..shape() }, tiles), (0, [0, 1, 6, 4], [0, 0, 4, 1], 0), "no batch needs it");
    assert_eq!(of(shape().kv_len(0), own), (0, [3, 10, 6, 0], [0, 0, 0, 1], 0));
    assert_eq!((own.rows(), own.keys()), (7, 32));
    assert_eq!(build(Problem::builder(shape()).block_mask(own)).block_mask(), Some(own));
}

#[test]
fn getters_return_what_was_set() {
    let plain = build(Problem::builder(shape()));
    assert_eq!((plain.shape(), plain.scale()), (shape(), 13_f32.sqrt().recip()));
    assert_eq!((plain.softcap(), plain.mask_format(), plain.block_mask()), (None, None, None));
    assert!(!plain.shares_buffers());
    assert_eq!((plain.is_causal(), plain.diagonal()), (false, Diagonal::TopLeft));
    assert_eq!(plain.window(), Window { left: None, right: None });

    let window = Window { left: Some(5), right: Some(7) };
    let mask = ScoreLayout::broadcast([1; 4]);
    let set =
        Problem::builder(shape()).dtype(Dtype::Bf16).scale(0.5).softcap(3.0).bias(Dtype::F32, mask).window(window);
    let set = build(set.causal(Diagonal::Offset(-3)));
    assert_eq!((set.scale(), set.softcap()), (0.5, Some(3.0)));
    assert_eq!((set.is_causal(), set.diagonal(), set.window()), (true, Diagonal::Offset(-3), window));
    let moved = build(set.to_builder().diagonal(Diagonal::BottomRight));
    assert_eq!((moved.is_causal(), moved.diagonal()), (true, Diagonal::BottomRight), "the last call decides");
}

#[test]
fn each_operand_has_its_type_and_a_mask_its_format() {
    use Dtype::{Bf16, F16, F32};
    let mask = ScoreLayout::broadcast([1; 4]);
    let floats = [Operand::Q, Operand::K, Operand::V, Operand::Out, Operand::Weights, Operand::Bias, Operand::Lse];
    let all = Problem::builder(shape()).weights().lse().kv_lengths().bias(F16, mask);
    for (problem, types) in [
        (all.clone(), [F32, F32, F32, F32, F32, F16, F32]),
        (all.clone().dtype(Bf16), [Bf16, Bf16, Bf16, Bf16, Bf16, F16, F32]),
        (all.clone().kv_dtype(F16), [F32, F16, F16, F32, F32, F16, F32]),
        (all.clone().out_dtype(Bf16).dtype(F16), [F16, F16, F16, Bf16, Bf16, F16, F32]),
    ] {
        let problem = build(problem);
        assert_eq!(floats.map(|operand| problem.dtype(operand)), types.map(Some));
        let sizes = floats.map(|operand| problem.view(operand).unwrap().element_bytes);
        assert_eq!(sizes, types.map(Dtype::size_bytes));
        assert_eq!(problem.dtype(Operand::KvLengths), None);
    }
    let plain = build(Problem::builder(shape()));
    let unused = [Operand::Weights, Operand::Lse, Operand::AlibiSlopes, Operand::Sinks, Operand::Aux, Operand::Bias];
    assert_eq!(unused.map(|operand| plain.dtype(operand)), [None; 6]);
    for (format, size, hides) in [
        (MaskFormat::BytesAttend, 1, false),
        (MaskFormat::BytesHide, 1, true),
        (MaskFormat::WordsAttend, 4, false),
        (MaskFormat::WordsHide, 4, true),
    ] {
        let problem = build(Problem::builder(shape()).mask_as(format, mask).shared_buffers());
        assert_eq!((problem.mask_format(), problem.shares_buffers()), (Some(format), true));
        assert_eq!((problem.view(Operand::Mask).unwrap().element_bytes, format.hides()), (size, hides));
        let set = |is_set: bool| (0..size).map(move |byte| u8::from(is_set && byte == 0));
        let wanted: Vec<u8> = [true, false].into_iter().flat_map(|attend| set(attend != hides)).collect();
        assert_eq!(format.encode(&[true, false]), wanted);
    }
}

#[test]
fn the_last_word_counts() {
    let plain = Problem::builder(shape());
    let lse = Layout::blhd(10, 37, 1);
    assert_eq!(view(plain.clone().lse_in(lse), Operand::Lse).unwrap().stride, [370, 1, 10, 1]);
    let chosen = plain.clone().weights_of([3, 1], 5..9);
    assert_eq!(view(chosen.clone(), Operand::Weights).unwrap().extent, [3, 2, 4, 101]);
    assert_eq!(view(chosen.weights(), Operand::Weights).unwrap().extent, [3, 10, 37, 101]);
    let dropped = plain.clone().dropout(0.5, RngState::Buffer);
    assert_eq!(view(dropped.clone(), Operand::RngState).unwrap().extent, [3, 1, 1, 1]);
    let state = Philox::new(5, 6);
    assert_eq!(view(plain.clone().dropout(0.5, RngState::Fixed(state)), Operand::RngState), None);
    let half = build(dropped.clone());
    let kept = (0..101).filter(|&key| half.keeps(state, [2, 9, 36, key])).count();
    assert!((30..70).contains(&kept), "{kept} of 101");
    assert!(build(plain.clone()).keeps(state, [0; 4]));
    assert_eq!(build(dropped.dropout(0.0, RngState::Buffer)), build(plain));
}

#[test]
fn weights_that_are_written_have_a_place() {
    let all = build(Problem::builder(shape()).weights());
    assert_eq!(all.weights_at([2, 9, 36]), Some(((2 * 10 + 9) * 37 + 36) * 101));
    let chosen = build(Problem::builder(shape()).weights_of([3, 1], 5..9));
    assert_eq!(chosen.weights_at([2, 1, 8]), Some(((2 * 2 + 1) * 4 + 3) * 101));
    for at in [[3, 0, 0], [0, 10, 0], [0, 0, 37]] {
        assert_eq!(all.weights_at(at), None, "{at:?}");
    }
    for at in [[3, 1, 5], [0, 2, 5], [0, 1, 9], [0, 1, 4]] {
        assert_eq!(chosen.weights_at(at), None, "{at:?}");
    }
}

#[test]
fn rings_have_lengths_and_no_sequences_have_no_rows() {
    let causal = Problem::builder(shape()).causal(Diagonal::BottomRight).window(Window { left: Some(3), right: None });
    assert_eq!(view(causal.clone().ring_kv(40), Operand::KvLengths).unwrap().extent[0], 3);
    assert_eq!(view(causal, Operand::KvLengths), None);
    let ragged = |batch| Problem::builder(Shape { batch, ..shape() }).ragged_q(50);
    assert_eq!([0, 2].map(|batch| view(ragged(batch), Operand::Out).unwrap().extent[0]), [0, 1]);
}

#[test]
fn gradients_lie_where_they_are_told_to() {
    let problem = build(Problem::builder(shape()).lse());
    let [q, k, v] = [Layout::blhd(10, 37, 13), Layout::blhd(5, 101, 13), Layout::blhd(5, 101, 17)];
    let out = Layout::blhd(10, 37, 17);
    let gradients = problem.gradients().dout(out).dq(q).dk(k).dv(v).build().unwrap();
    let stride = |operand| gradients.view(operand).unwrap().stride;
    assert_eq!(stride(Operand::Dout), [6290, 17, 170, 1]);
    assert_eq!(stride(Operand::Dq), [4810, 13, 130, 1]);
    assert_eq!(stride(Operand::Dk), [6565, 13, 65, 1]);
    assert_eq!(stride(Operand::Dv), [8585, 17, 85, 1]);
    let of = |operands: &[Operand]| problem.gradients().of(operands.iter().copied()).build().unwrap();
    assert_eq!(of(&[Operand::Dq, Operand::Dq]), of(&[Operand::Dq]));
    assert_ne!(of(&[Operand::Dq]), of(&[Operand::Dk]));
}

/// Shaders count the rows of a group's heads, and a block more per sequence, with 32 bits.
#[test]
fn ragged_rows_are_as_many_as_shaders_count() {
    let ragged = |total| Problem::builder(Shape::new(17, 16, 1, 1).kv_heads(1)).ragged_q(total);
    let most = (u32::MAX - 17) / 16;
    assert_eq!(refusal(&ragged(most)), None);
    let axis = "the total of the ragged queries";
    assert_eq!(refusal(&ragged(most + 1)), Some(ProblemError::TooLong { axis, value: most + 1, most }));
    assert!(refusal(&Problem::builder(Shape::new(1, 1, 1, 1).kv_heads(2)).ragged_q(1)).is_some());
}

#[test]
fn a_rotary_embedding_rotates_no_more_than_there_is() {
    let rotated = |dim_qk, dims| {
        let rotary = Rotary { dims, pairs: RotaryPairs::Neighbours, positions: 101 };
        let shape = Shape { dim_qk, ..shape() };
        refusal(&Problem::builder(shape).append(Append { rotary: Some(rotary), ..Append::default() }))
    };
    assert_eq!(rotated(12, 12), None);
    assert_eq!(rotated(11, 12), Some(ProblemError::RotaryDims { dims: 12, step: 4, dim_qk: 11 }));
}

fn refusal(problem: &ProblemBuilder) -> Option<ProblemError> {
    problem.build().err()
}

#[test]
fn numbers_are_refused_from_just_past_their_bounds() {
    let plain = Problem::builder(shape());
    let largest = f32::MAX / std::f32::consts::LOG2_E;
    for scale in [largest, -largest] {
        assert_eq!(refusal(&plain.clone().scale(scale)), None);
        let past = scale.signum() * scale.abs().next_up();
        assert_eq!(refusal(&plain.clone().scale(past)), Some(ProblemError::Scale(past)));
    }
    assert_eq!(refusal(&plain.clone().softcap(0_f32.next_up())), None, "the smallest number above 0");
    assert_eq!(refusal(&plain.clone().softcap(0.0)), Some(ProblemError::Softcap(0.0)));
    assert_eq!(refusal(&plain.clone().block_mask(BlockMask::new(1, 32))), None, "the smallest tile");
}

/// An offset that only bounds the visible keys may be any. If something computes with it, it must fit the shaders' integers.
#[test]
fn a_diagonal_is_bounded_where_it_is_a_number() {
    let plain = Problem::builder(shape());
    let computing = [
        plain.clone().alibi(Slopes::PerHead),
        plain.clone().score_mod("fn score_mod(score: f32, at: At) -> f32 { return score; }"),
        plain.clone().mask_mod("fn mask_mod(at: At) -> bool { return true; }"),
    ];
    for offset in [-(1_i32 << 29), 1 << 29] {
        let past = offset + offset.signum();
        let refused = ProblemError::TooLong { axis: "diagonal", value: (1 << 29) + 1, most: 1 << 29 };
        for problem in &computing {
            assert_eq!(refusal(&problem.clone().diagonal(Diagonal::Offset(offset))), None, "{problem:?}");
            assert_eq!(refusal(&problem.clone().causal(Diagonal::Offset(past))), Some(refused.clone()), "{problem:?}");
        }
        assert_eq!(refusal(&plain.clone().causal(Diagonal::Offset(past))), None);
    }
}

/// Tiles are shared only by batches and heads that certainly have the same masks.
#[test]
fn tiles_are_shared_by_what_has_the_same_masks() {
    let tiles = BlockMask::new(7, 32);
    let full = |dims| Problem::builder(shape()).mask(ScoreLayout::broadcast(dims));
    let program = |member: &str| {
        Problem::builder(shape()).mask_mod(format!("fn mask_mod(at: At) -> bool {{ return i32(at.{member}) > 0; }}"))
    };
    let lengths = program("diagonal").kv_lengths();
    let of_batch = |what| Some((what, "batch", "per_batch"));
    let of_head = |what, member| Some((what, member, "per_head"));
    let (mask, mask_mod) = ("the mask", "the `mask_mod`");
    for (problem, tiles, wanted) in [
        (full([1, 1, 37, 101]), tiles, None),
        (full([3, 1, 1, 1]), tiles, of_batch(mask)),
        (full([3, 1, 1, 1]), tiles.per_head(), of_batch(mask)),
        (full([3, 1, 1, 1]), tiles.per_batch(), None),
        (full([1, 10, 1, 1]), tiles, of_head(mask, "head")),
        (full([1, 10, 1, 1]), tiles.per_batch(), of_head(mask, "head")),
        (full([1, 10, 1, 1]), tiles.per_head(), None),
        (program("key"), tiles, None),
        (program("batch"), tiles.per_head(), of_batch(mask_mod)),
        (program("batch"), tiles.per_batch(), None),
        (program("head"), tiles.per_batch(), of_head(mask_mod, "head")),
        (program("head"), tiles.per_head(), None),
        (program("kv_head"), tiles.per_batch(), of_head(mask_mod, "kv_head")),
        // The diagonal may be measured from the valid keys, whose number differs by batch and not by head.
        (program("diagonal"), tiles, None),
        (program("key").kv_lengths(), tiles, None),
        (lengths.clone(), tiles.per_head(), of_batch(mask_mod)),
        (program("diagonal").q_lengths(), tiles.per_head(), of_batch(mask_mod)),
        (program("diagonal").ragged_kv(300), tiles.per_head(), of_batch(mask_mod)),
        (lengths, tiles.per_batch(), None),
    ] {
        let refused = wanted.map(|(what, member, remedy)| ProblemError::BlockMaskShared { what, member, remedy });
        assert_eq!(refusal(&problem.clone().block_mask(tiles)), refused, "{tiles:?}, {problem:?}");
    }
    // A single batch or head shares with no other.
    let single = Shape::new(1, 1, 37, 13).kv_len(101);
    let mask = Problem::builder(single).mask(ScoreLayout::strided([5, 5, 0, 0])).block_mask(tiles);
    assert_eq!(refusal(&mask), None);
}

#[test]
fn outputs_have_a_place_for_every_element() {
    let out = |shape: Shape, batch, head, row| {
        let layout = Layout { offset: 0, batch, head, row };
        refusal(&Problem::builder(shape).out(layout)).map(|error| matches!(error, ProblemError::Overlapping { .. }))
    };
    let pairs = Shape::new(2, 2, 2, 3);
    assert_eq!(out(pairs, 12, 6, 3), None);
    for (batch, head, row) in [(0, 6, 3), (11, 6, 3), (12, 5, 3), (12, 0, 3), (12, 6, 2), (12, 6, 0)] {
        assert_eq!(out(pairs, batch, head, row), Some(true), "{batch} {head} {row}");
    }
    // The stride along an axis of one element, or of none, does not matter.
    assert_eq!(out(Shape::new(1, 1, 1, 3), 0, 0, 0), None);
    assert_eq!(out(Shape::new(0, 2, 2, 3), 0, 0, 0), None);
    assert_eq!(out(Shape::new(1, 2, 1, 1), 0, 1, 0), None);
}

#[test]
fn what_reaches_past_64_bits_is_refused_and_does_not_wrap() {
    let unaddressable = |operand| Some(ProblemError::Unaddressable { operand });
    let at = |offset| Problem::builder(shape()).mask(ScoreLayout::strided([0; 4]).at(offset));
    for offset in [u64::MAX, u64::MAX - 1, u64::MAX - 3] {
        assert_eq!(refusal(&at(offset)), unaddressable(Operand::Mask), "{offset}");
    }
    // The buffer's size is a multiple of 4 that 64 bits hold.
    assert_eq!(refusal(&at(u64::MAX - 4)), None);
    assert_eq!(view(at(u64::MAX - 4), Operand::Mask).unwrap().size_bytes(), u64::MAX - 3);
    // A batch has 2⁶³ scores, and the next would begin at an index that wraps around to a negative one.
    let long = Shape::new(2, 32, 1 << 29, 1);
    let mask = Problem::builder(long).mask(ScoreLayout::broadcast([2, 32, 1 << 29, 1 << 29]));
    assert_eq!(refusal(&mask), unaddressable(Operand::Mask));
    let tiles = Problem::builder(Shape { heads_q: 1 << 10, heads_kv: 1, ..long });
    let tiles = tiles.block_mask(BlockMask::new(1, 32).per_batch().per_head());
    assert_eq!(refusal(&tiles), unaddressable(Operand::BlockMask));
    // Views that no problem has.
    let view = View { operand: Operand::Q, offset: u64::MAX, extent: [1; 4], stride: [0; 4], element_bytes: 4 };
    assert_eq!((view.checked_end(), view.end(), view.size_bytes()), (None, u64::MAX, u64::MAX));
    assert_eq!(View { offset: 1, stride: [0, 0, 0, -2], ..view }.index([0, 0, 0, 1]), u64::MAX, "before the first");
}
