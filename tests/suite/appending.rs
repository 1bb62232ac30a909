//! Appending new keys and values to a cache, rotated and quantized on the way, and the attention that reads them.

use std::collections::HashMap;

use truth::appending::New;
use truth::{Case, Fill, Host};
use wgpu_attention::{
    Append, Diagonal, Dtype, Inputs, Operand, Operands, Pages, Problem, ProblemBuilder, Quantization, Rotary,
    RotaryPairs, Shape, Window,
};

use crate::case::drawn;
use crate::contents::contents;
use crate::coverage;
use crate::device::{Device, all};

/// Appends, and attends, in one pass. Returns the bytes of q, k, v and the output.
fn run(device: &Device, case: &Case, new: &New) -> [Vec<u8>; 4] {
    let _guard = device.enter();
    let problem = &case.problem;
    let attention = &device.attention;
    let (append, attend) = (attention.plan_append(problem).unwrap(), attention.plan(problem).unwrap());
    coverage::ran(device, append.variants());
    let buffers: HashMap<Operand, wgpu::Buffer> = problem
        .views()
        .map(|view| {
            let bytes = match view.operand {
                new_one @ (Operand::NewQ | Operand::NewK | Operand::NewV | Operand::RotaryTable) => {
                    let mut bytes = problem.dtype(new_one).unwrap().encode(new.values(new_one));
                    bytes.resize(bytes.len().next_multiple_of(4), 0);
                    bytes
                }
                operand => contents(case, operand),
            };
            (view.operand, device.upload(&bytes))
        })
        .collect();
    let operands: Operands<'_> =
        buffers.iter().map(|(operand, buffer)| (*operand, buffer.as_entire_buffer_binding())).collect();
    let calls = [append.bind(&operands).unwrap(), attend.bind(&operands).unwrap()];
    let read = [Operand::Q, Operand::K, Operand::V, Operand::Out].map(|operand| &buffers[&operand]);
    let bytes = device.finish_all(&calls, read.into_iter());
    bytes.try_into().unwrap()
}

/// Checks on every adapter what was appended, that nothing else changed, and that the attention read it.
fn assert_appended(problem: ProblemBuilder, adjust: impl Fn(&mut Host), total: impl Fn(&Host, u32) -> u32) {
    let mut case = drawn(problem, Fill::Normal, 3);
    adjust(&mut case.host);
    let new = New::of(&case.problem);
    let before = [Operand::K, Operand::V].map(|operand| contents(&case, operand));
    for device in all() {
        let got = run(device, &case, &new);
        if let Err(wrong) = new.check(&case, |b| total(&case.host, b), &before, &got) {
            panic!("{wrong} on {}: {:?}", device.name, case.problem);
        }
    }
}

fn rotary(dims: u32, pairs: RotaryPairs, positions: u32) -> Append {
    Append { rotary: Some(Rotary { dims, pairs, positions }), ..Append::default() }
}

fn shape(len_q: u32) -> Shape {
    Shape::new(3, 4, len_q, 32).kv_heads(2).kv_len(45)
}

fn causal(shape: Shape) -> ProblemBuilder {
    Problem::builder(shape).causal(Diagonal::BottomRight)
}

fn lengths(host: &Host, b: u32) -> u32 {
    host.kv_lengths.as_ref().unwrap()[b as usize]
}

#[test]
fn new_keys_stand_after_those_of_the_cache() {
    let rotated = rotary(32, RotaryPairs::Halves, 45);
    assert_appended(
        causal(shape(5)).kv_lengths().append(rotated),
        |host| host.kv_lengths = Some(vec![5, 45, 17]),
        lengths,
    );
    // Without lengths, they are the last keys.
    assert_appended(causal(shape(5)).append(Append::default()), |_| {}, |_, _| 45);
    // Fewer new tokens than there is room for; a cache that is shorter than they are many keeps the last ones.
    let fewer = |host: &mut Host| {
        (host.q_lengths, host.kv_lengths) = (Some(vec![5, 0, 2]), Some(vec![3, 9, 40]));
    };
    assert_appended(causal(shape(5)).q_lengths().kv_lengths().append(rotated), fewer, lengths);
}

#[test]
fn inputs_are_uploaded_as_they_are_appended() {
    let problem = causal(shape(5)).dtype(Dtype::Bf16).append(rotary(32, RotaryPairs::Halves, 45));
    let case = drawn(problem, Fill::Normal, 3);
    let new = New::of(&case.problem);
    let operands = [Operand::NewQ, Operand::NewK, Operand::NewV, Operand::RotaryTable];
    let [new_q, new_k, new_v, rotary_table] = operands.map(|operand| Some(new.values(operand)));
    let inputs = Inputs { new_q, new_k, new_v, rotary_table, ..case.inputs() };
    for device in all() {
        let _guard = device.enter();
        let uploaded = inputs.upload(device.attention.device(), &case.problem).unwrap();
        let held = device.finish_all(&[], operands.iter().map(|&operand| uploaded.get(operand).unwrap()));
        for (operand, held) in operands.into_iter().zip(held) {
            assert_eq!(held, case.problem.dtype(operand).unwrap().encode(new.values(operand)), "{operand}");
        }
    }
}

#[test]
fn what_has_no_place_in_a_cache_is_not_written() {
    let rotated = rotary(16, RotaryPairs::Neighbours, 45);
    let over = |host: &mut Host| host.kv_lengths = Some(vec![46, 48, 45]);
    assert_appended(causal(shape(3)).kv_lengths().append(rotated).dtype(Dtype::F16), over, lengths);
}

#[test]
fn new_keys_go_to_pages_and_rings() {
    let pages = Pages { count: 50, size: 3 };
    let rotated = rotary(24, RotaryPairs::Halves, 45);
    let own_pages = |host: &mut Host| {
        host.block_table = Some((0..45).map(|n| n * 7 % 50).collect());
        host.kv_lengths = Some(vec![5, 45, 16]);
    };
    let paged = causal(shape(4)).paged_kv(pages).kv_lengths().kv_dtype(Dtype::F16).append(rotated);
    assert_appended(paged, own_pages, lengths);
    let window = Window { left: Some(9), right: None };
    let ring = Problem::builder(shape(12).kv_len(300)).causal(Diagonal::BottomRight).window(window).ring_kv(8);
    let over = |host: &mut Host| host.kv_lengths = Some(vec![12, 211, 300]);
    assert_appended(ring.append(rotary(32, RotaryPairs::Halves, 300)), over, lengths);
}

#[test]
fn ragged_tokens_are_appended() {
    let bounds = |host: &mut Host| {
        host.cu_seqlens_q = Some(vec![1, 6, 6, 9]);
        host.kv_lengths = Some(vec![20, 7, 3]);
    };
    let problem = causal(shape(5)).ragged_q(11).kv_lengths().append(rotary(8, RotaryPairs::Neighbours, 45));
    assert_appended(problem, bounds, lengths);
}

#[test]
fn new_keys_are_quantized() {
    for quantization in Quantization::ALL {
        let problem = causal(shape(5)).kv_lengths().kv_quantized(quantization);
        let some = |host: &mut Host| host.kv_lengths = Some(vec![5, 45, 17]);
        assert_appended(problem.append(rotary(32, RotaryPairs::Halves, 45)), some, lengths);
    }
    // Rows that do not fill their words.
    let odd = Problem::builder(Shape::new(1, 2, 2, 13).kv_len(9).value_dim(7)).kv_quantized(Quantization::Int4);
    assert_appended(odd.append(Append::default()), |_| {}, |_, _| 9);
}

#[test]
fn rows_of_any_length_are_appended() {
    let odd = Problem::builder(Shape::new(2, 2, 3, 13).kv_len(9).value_dim(7));
    for dtype in Dtype::ALL {
        assert_appended(odd.clone().dtype(dtype).append(rotary(8, RotaryPairs::Halves, 9)), |_| {}, |_, _| 9);
    }
    let wide = Problem::builder(Shape::new(1, 2, 2, 576).kv_len(5).value_dim(516));
    assert_appended(wide.append(rotary(64, RotaryPairs::Halves, 9)), |_| {}, |_, _| 5);
}
