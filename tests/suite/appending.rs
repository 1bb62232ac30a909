//! Appending new keys and values to a cache, rotated and quantized on the way, and the attention that reads them.

use std::collections::HashMap;

use truth::{Case, Expected, Fill, Host, Outputs, Sequences, indices};
use wgpu_attention::{
    Append, Diagonal, Dtype, Operand, Operands, Pages, Problem, ProblemBuilder, Quantization, Rotary, RotaryPairs,
    Shape, View, Window,
};

use crate::case::drawn;
use crate::coverage;
use crate::device::{Device, all, contents, elements};

/// What is appended to the cache of a case, f32 whatever the type.
struct New {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    table: Vec<f32>,
}

/// Numbers that look random and fit every type.
fn numbers(problem: &Problem, operand: Operand, seed: usize) -> Vec<f32> {
    let len = problem.view(operand).map_or(0, |view| view.end() as usize);
    let number = |n: usize| ((n * 37 + seed * 11) % 101) as f32 / 32.0 - 1.5;
    let dtype = problem.dtype(operand).unwrap_or_default();
    dtype.decode(&dtype.encode(&(0..len).map(number).collect::<Vec<_>>()))
}

impl New {
    fn of(problem: &Problem) -> Self {
        let [q, k, v] = [(Operand::NewQ, 1), (Operand::NewK, 2), (Operand::NewV, 3)]
            .map(|(operand, seed)| numbers(problem, operand, seed));
        let table = problem.appends().and_then(|append| append.rotary).map(|rotary| rotary.table(10_000.0, 1.0));
        Self { q, k, v, table: table.unwrap_or_default() }
    }

    fn values(&self, operand: Operand) -> &[f32] {
        match operand {
            Operand::NewQ => &self.q,
            Operand::NewK => &self.k,
            Operand::NewV => &self.v,
            _ => &self.table,
        }
    }
}

/// A row rotated in f64.
fn rotated(row: &[f32], rotary: Option<Rotary>, table: &[f32], position: u32) -> Vec<f64> {
    let mut out: Vec<f64> = row.iter().map(|&x| x.into()).collect();
    let Some(Rotary { dims, pairs, .. }) = rotary else { return out };
    let half = (dims / 2) as usize;
    for i in 0..half {
        let (a, b) = match pairs {
            RotaryPairs::Halves => (i, i + half),
            RotaryPairs::Neighbours => (2 * i, 2 * i + 1),
        };
        let at = (position as usize * half + i) * 2;
        let [cos, sin] = [table[at], table[at + 1]].map(f64::from);
        (out[a], out[b]) =
            (f64::from(row[a]) * cos - f64::from(row[b]) * sin, f64::from(row[b]) * cos + f64::from(row[a]) * sin);
    }
    out
}

fn row_of(view: &View, values: &[f32], [batch, head, row]: [u32; 3]) -> Vec<f32> {
    (0..view.extent[3]).map(|d| values[view.index([batch, head, row, d]) as usize]).collect()
}

/// The rows of K and V that new tokens have, and their source: (place, (batch, row) of the new row, position).
fn places(case: &Case, total: impl Fn(u32) -> u32) -> HashMap<[u32; 2], ([u32; 2], u32)> {
    let (problem, sequences) = (&case.problem, Sequences::new(case));
    let mut places = HashMap::new();
    for b in 0..problem.shape().batch {
        let queries = sequences.queries(b);
        for n in 0..queries {
            let Some(position) = (total(b) + n).checked_sub(queries) else { continue };
            if position < problem.shape().len_kv && position >= sequences.oldest(b) {
                places.insert(sequences.key_place(b, position), (sequences.query_place(b, n), position));
            }
        }
    }
    places
}

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
    let operands = buffers
        .iter()
        .fold(Operands::default(), |all, (operand, buffer)| all.with(*operand, buffer.as_entire_buffer_binding()));
    let calls = [append.bind(&operands).unwrap(), attend.bind(&operands).unwrap()];
    let read = [Operand::Q, Operand::K, Operand::V, Operand::Out].map(|operand| &buffers[&operand]);
    let bytes = device.finish_all(&calls, read.into_iter());
    bytes.try_into().unwrap()
}

/// Checks what was appended, that nothing else changed, and that the attention read it.
fn assert_appended(problem: ProblemBuilder, adjust: impl Fn(&mut Host), total: impl Fn(&Host, u32) -> u32) {
    let mut case = drawn(problem, Fill::Normal, 3);
    adjust(&mut case.host);
    let (problem, new) = (case.problem.clone(), New::of(&case.problem));
    let (shape, rotary) = (problem.shape(), problem.appends().unwrap().rotary);
    let places = places(&case, |b| total(&case.host, b));
    assert!(!places.is_empty());
    for device in all() {
        let [q, k, v, out] = run(device, &case, &new);
        let mut after = case.clone();
        for (operand, source, dim, bytes) in
            [(Operand::K, Operand::NewK, shape.dim_qk, &k), (Operand::V, Operand::NewV, shape.dim_v, &v)]
        {
            let (view, from) = (problem.view(operand).unwrap(), problem.view(source).unwrap());
            let before = contents(&case, operand);
            let rotary = rotary.filter(|_| operand == Operand::K);
            for at @ [batch, head, row, _] in indices(view.extent).filter(|at| at[3] == 0) {
                let bytes_of = |n: u32| {
                    let start = (view.index(at) * view.element_bytes) as usize;
                    start..start + (u64::from(n) * view.element_bytes) as usize
                };
                let (got, old) = (&bytes[bytes_of(view.extent[3])], &before[bytes_of(view.extent[3])]);
                let Some(([b, n], position)) = places.get(&[batch, row]) else {
                    assert_eq!(got, old, "{operand} {at:?} on {}", device.name);
                    continue;
                };
                let new_row = row_of(&from, new.values(source), [*b, head, *n]);
                let wanted = rotated(&new_row, rotary, &new.table, *position);
                let (got, step) = match problem.quantization() {
                    None => {
                        let dtype = problem.dtype(operand).unwrap();
                        (dtype.decode(got), truth::epsilon(dtype) * 4.0)
                    }
                    Some(quantization) => {
                        let words: Vec<u32> = bytemuck::pod_collect_to_vec(got);
                        // The scale is that of the largest element; an element is off by half of a number at most.
                        let largest = wanted.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
                        let numbers = match quantization {
                            Quantization::Int8 => 127.0,
                            Quantization::Int4 | Quantization::Fp8E4m3 => 7.0,
                        };
                        (quantization.decode(&words, dim), largest / numbers * 0.51)
                    }
                };
                assert_eq!(got.len(), wanted.len());
                for (x, wanted) in got.iter().zip(wanted) {
                    assert!(
                        (f64::from(*x) - wanted).abs() <= step,
                        "{operand} {at:?}: {x}, not {wanted}; {}",
                        device.name
                    );
                }
            }
        }
        if rotary.is_some() {
            let (view, dtype) = (problem.view(Operand::Q).unwrap(), problem.dtype(Operand::Q).unwrap());
            after.host.q = dtype.decode(&q);
            let (sequences, from) = (Sequences::new(&case), problem.view(Operand::NewQ).unwrap());
            for b in 0..shape.batch {
                let queries = sequences.queries(b);
                for n in 0..queries {
                    let Some(position) = (total(&case.host, b) + n).checked_sub(queries) else { continue };
                    // Positions past the table, and so past the cache, are not rotated as anyone would expect.
                    if position >= shape.len_kv {
                        continue;
                    }
                    let [batch, row] = sequences.query_place(b, n);
                    for head in 0..shape.heads_q {
                        let wanted = rotated(&row_of(&from, &new.q, [batch, head, row]), rotary, &new.table, position);
                        for (x, wanted) in row_of(&view, &after.host.q, [batch, head, row]).iter().zip(wanted) {
                            let step = truth::epsilon(dtype) * 4.0;
                            assert!((f64::from(*x) - wanted).abs() <= step, "q of {b}, {head}, {n}: {x}, not {wanted}");
                        }
                    }
                }
            }
        }
        match problem.quantization() {
            None => {
                let decode = |operand, bytes: &[u8]| problem.dtype(operand).unwrap().decode(bytes);
                (after.host.k, after.host.v) = (decode(Operand::K, &k), decode(Operand::V, &v));
            }
            Some(_) => {
                let words = |bytes: &[u8]| Some(bytemuck::pod_collect_to_vec(bytes));
                (after.host.k_words, after.host.v_words) = (words(&k), words(&v));
            }
        }
        let got = Outputs { out: elements(&problem, Operand::Out, &out), ..Outputs::default() }.owned(&after);
        Expected::of(&after).check(&got).unwrap_or_else(|wrong| panic!("{wrong} on {}: {problem:?}", device.name));
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
