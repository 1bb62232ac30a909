//! The host's inputs: each bound, page and length that is refused, met exactly and missed by one.

use wgpu_attention::{
    Append, BindError, Inputs, Operand, Pages, Philox, Problem, Quantization, RngState, Rotary, RotaryPairs, Shape,
};

use super::build;
use crate::record::noop;

const SHAPE: Shape = Shape { batch: 3, heads_q: 2, heads_kv: 1, len_q: 5, len_kv: 7, dim_qk: 3, dim_v: 2 };

fn with_enough<T>(act: impl FnOnce(Inputs<'_>) -> T) -> T {
    let zeros = vec![0.0; 1000];
    act(Inputs { q: &zeros, k: &zeros, v: &zeros, ..Inputs::default() })
}

#[test]
fn bounds_do_not_fall_and_end_with_the_rows() {
    let ragged = build(Problem::builder(SHAPE).ragged_q(11).ragged_kv(13));
    let check = |q: &[u32], k: &[u32]| {
        with_enough(|all| Inputs { cu_seqlens_q: Some(q), cu_seqlens_k: Some(k), ..all }.check(&ragged))
    };
    let right = [0, 4, 4, 9];
    for bounds in [right, [0, 0, 0, 0], [11, 11, 11, 11]] {
        assert_eq!(check(&bounds, &right), Ok(()), "{bounds:?}");
        assert_eq!(check(&right, &bounds), Ok(()), "{bounds:?}");
    }
    // What lies past the last sequence's end is not read.
    assert_eq!(check(&[0, 4, 4, 9, 99], &[0, 4, 4, 13, 0]), Ok(()));
    let refused = |operand, at, bound, total| Err(BindError::Bound { operand, at, bound, total });
    assert_eq!(check(&[0, 4, 4, 12], &right), refused(Operand::CuSeqlensQ, 3, 12, 11));
    assert_eq!(check(&[0, 4, 3, 11], &right), refused(Operand::CuSeqlensQ, 2, 3, 11));
    assert_eq!(check(&right, &[0, 4, 4, 14]), refused(Operand::CuSeqlensK, 3, 14, 13));
    assert_eq!(check(&right, &[14, 14, 14, 14]), refused(Operand::CuSeqlensK, 0, 14, 13));
    let short = |operand| Err(BindError::TooShort { operand, need: 4, got: 3 });
    assert_eq!(check(&right[..3], &right), short(Operand::CuSeqlensQ));
    assert_eq!(check(&right, &right[..3]), short(Operand::CuSeqlensK));
}

#[test]
fn pages_exist_as_far_as_a_sequence_reaches() {
    // Seven keys in pages of two: four pages per sequence.
    let problem = |lengths| {
        let paged = Problem::builder(SHAPE).paged_kv(Pages { count: 5, size: 2 });
        build(if lengths { paged.kv_lengths() } else { paged })
    };
    let check = |table: &[u32], lengths: Option<&[u32]>| {
        let problem = problem(lengths.is_some());
        with_enough(|all| Inputs { block_table: Some(table), kv_lengths: lengths, ..all }.check(&problem))
    };
    let refused = |sequence, nth| Err(BindError::NoSuchPage { sequence, nth, page: 5, pages: 5 });
    let of = |at: usize| -> Vec<u32> { (0..12).map(|n| if n == at { 5 } else { 4 }).collect() };
    for at in 0..12 {
        let place = [at as u32 / 4, at as u32 % 4];
        assert_eq!(check(&of(at), None), refused(place[0], place[1]));
        // Five keys reach three pages, and four keys two.
        let reached = [4, 3, 2][at / 4];
        let with_lengths = check(&of(at), Some(&[9, 5, 4]));
        assert_eq!(with_lengths, if place[1] < reached { refused(place[0], place[1]) } else { Ok(()) }, "{at}");
    }
    assert_eq!(check(&of(12), None), Ok(()));
    // What lies past the last sequence's pages is not read.
    let longer: Vec<u32> = of(12).into_iter().chain([5; 4]).collect();
    assert_eq!(check(&longer, None), Ok(()));
    let paged = |len_kv| Problem::builder(SHAPE.kv_len(len_kv)).paged_kv(Pages { count: 5, size: 2 });
    with_enough(|all| {
        for block_table in [Some(&[][..]), Some(&[99])] {
            assert_eq!(Inputs { block_table, ..all }.check(&build(paged(0))), Ok(()));
            let kv_lengths = Some(&[1, 1, 1][..]);
            let inputs = Inputs { block_table, kv_lengths, ..all };
            assert_eq!(inputs.check(&build(paged(0).kv_lengths())), Ok(()));
        }
    });
}

#[test]
fn quantized_keys_and_values_are_uploaded_each() {
    // Words per row: a scale, and two of keys or one of values.
    let problem = build(Problem::builder(Shape { dim_qk: 8, ..SHAPE }).kv_quantized(Quantization::Int8));
    let [k, v] = [3 * 7 * 3, 3 * 7 * 2].map(|len| vec![0; len]);
    with_enough(|all| {
        let (device, _queue) = noop();
        let buffers =
            Inputs { k_words: Some(&k), v_words: Some(&v), ..all }.upload(&device, &problem).expect("complete");
        let size = |operand| buffers.get(operand).map(wgpu::Buffer::size);
        assert_eq!([Operand::K, Operand::V].map(size), [Some(4 * 63), Some(4 * 42)]);
    });
}

#[test]
fn what_is_not_given_is_missing() {
    let problem = build(Problem::builder(SHAPE).q_lengths().kv_lengths().dropout(0.5, RngState::Buffer));
    with_enough(|all| {
        let right = Inputs {
            q_lengths: Some(&[5, 5, 5]),
            kv_lengths: Some(&[7, 7, 7]),
            rng_state: Some(Philox::default()),
            ..all
        };
        assert_eq!(right.check(&problem), Ok(()));
        let missing = |operand| Err(BindError::Missing { operand });
        assert_eq!(Inputs { q_lengths: None, ..right }.check(&problem), missing(Operand::QLengths));
        assert_eq!(Inputs { kv_lengths: None, ..right }.check(&problem), missing(Operand::KvLengths));
        assert_eq!(Inputs { rng_state: None, ..right }.check(&problem), missing(Operand::RngState));
        let short = BindError::TooShort { operand: Operand::QLengths, need: 3, got: 2 };
        assert_eq!(Inputs { q_lengths: Some(&[5, 5]), ..right }.check(&problem), Err(short));
        let plain = build(Problem::builder(SHAPE));
        assert_eq!(all.check(&plain), Ok(()));
        let unused = |operand| Err(BindError::Unused { operand });
        assert_eq!(Inputs { rng_state: Some(Philox::default()), ..all }.check(&plain), unused(Operand::RngState));
        assert_eq!(Inputs { block_table: Some(&[0]), ..all }.check(&plain), unused(Operand::BlockTable));
        assert_eq!(Inputs { dout: Some(&[0.0]), ..all }.check(&plain), unused(Operand::Dout));
    });
}

#[test]
fn what_is_to_be_appended_may_be_left_out() {
    // Keys of 8 elements and values of 2, and tables of 8 numbers per position.
    let shape = Shape { dim_qk: 8, ..SHAPE };
    let rotary = Rotary { dims: 8, pairs: RotaryPairs::Halves, positions: 9 };
    let problem =
        build(Problem::builder(shape).kv_lengths().append(Append { rotary: Some(rotary), ..Append::default() }));
    let [q, k, v, table] = [240, 120, 30, 72].map(|len| vec![0.5; len]);
    with_enough(|all| {
        let attention = Inputs { kv_lengths: Some(&[7, 7, 7]), ..all };
        let given =
            Inputs { new_q: Some(&q), new_k: Some(&k), new_v: Some(&v), rotary_table: Some(&table), ..attention };
        assert_eq!((attention.check(&problem), given.check(&problem)), (Ok(()), Ok(())));
        let short = |operand, need| Err(BindError::TooShort { operand, need, got: need - 1 });
        assert_eq!(Inputs { new_q: Some(&q[1..]), ..given }.check(&problem), short(Operand::NewQ, 240));
        assert_eq!(Inputs { new_k: Some(&k[1..]), ..given }.check(&problem), short(Operand::NewK, 120));
        assert_eq!(Inputs { new_v: Some(&v[1..]), ..given }.check(&problem), short(Operand::NewV, 30));
        let short_table = Inputs { rotary_table: Some(&table[1..]), ..given };
        assert_eq!(short_table.check(&problem), short(Operand::RotaryTable, 72));
        let unused = Err(BindError::Unused { operand: Operand::NewK });
        assert_eq!(Inputs { new_k: Some(&k), ..all }.check(&build(Problem::builder(shape))), unused);

        let (device, _queue) = noop();
        let sizes = |inputs: &Inputs<'_>| {
            let buffers = inputs.upload(&device, &problem).unwrap();
            let size = |operand| buffers.get(operand).map(wgpu::Buffer::size);
            [Operand::NewQ, Operand::NewK, Operand::NewV, Operand::RotaryTable].map(size)
        };
        assert_eq!(sizes(&attention), [None; 4]);
        assert_eq!(sizes(&given), [Some(960), Some(480), Some(120), Some(288)]);
    });
}
