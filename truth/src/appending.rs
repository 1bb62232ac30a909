//! New keys and values for a cache, rotated and quantized on the way.

#![allow(clippy::unwrap_used, reason = "what is appended is made by tests, of problems that are valid")]

use std::collections::HashMap;

use wgpu_attention::{Operand, Problem, Quantization, Rotary, RotaryPairs, View};

use crate::case::{Case, epsilon, indices};
use crate::expected::{Expected, Outputs};
use crate::sequences::Sequences;

/// What is appended to the cache of a case, f32 whatever the type.
#[derive(Clone, Debug)]
pub struct New {
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
    /// Numbers for all that `problem` appends, and its table of rotations.
    pub fn of(problem: &Problem) -> Self {
        let [q, k, v] = [(Operand::NewQ, 1), (Operand::NewK, 2), (Operand::NewV, 3)]
            .map(|(operand, seed)| numbers(problem, operand, seed));
        let table = problem.appends().and_then(|append| append.rotary).map(|rotary| rotary.table(10_000.0, 1.0));
        Self { q, k, v, table: table.unwrap_or_default() }
    }

    /// The numbers of an operand.
    pub fn values(&self, operand: Operand) -> &[f32] {
        match operand {
            Operand::NewQ => &self.q,
            Operand::NewK => &self.k,
            Operand::NewV => &self.v,
            _ => &self.table,
        }
    }

    /// Checks what was appended, that nothing else changed, and that the attention read it. `total` is the number of a sequence's keys
    /// afterwards, `before` what the caches of keys and values held, and `got` the bytes of the queries, both caches and the output.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn check(
        &self,
        case: &Case,
        total: impl Fn(u32) -> u32,
        before: &[Vec<u8>; 2],
        got: &[Vec<u8>; 4],
    ) -> Result<(), String> {
        let [q, k, v, out] = got;
        let problem = &case.problem;
        let (shape, rotary) = (problem.shape(), problem.appends().and_then(|append| append.rotary));
        let places = places(case, &total);
        assert!(!places.is_empty(), "nothing is appended");
        let mut after = case.clone();
        for (operand, source, dim, before, bytes) in [
            (Operand::K, Operand::NewK, shape.dim_qk, &before[0], k),
            (Operand::V, Operand::NewV, shape.dim_v, &before[1], v),
        ] {
            let (view, from) = (problem.view(operand).unwrap(), problem.view(source).unwrap());
            let rotary = rotary.filter(|_| operand == Operand::K);
            for at @ [batch, head, row, _] in indices(view.extent).filter(|at| at[3] == 0) {
                let bytes_of = |n: u32| {
                    let start = (view.index(at) * view.element_bytes) as usize;
                    start..start + (u64::from(n) * view.element_bytes) as usize
                };
                let (got, old) = (&bytes[bytes_of(view.extent[3])], &before[bytes_of(view.extent[3])]);
                let Some(([b, n], position)) = places.get(&[batch, row]) else {
                    if got != old {
                        return Err(format!("{operand} {at:?} is not new, and was written"));
                    }
                    continue;
                };
                let new_row = row_of(&from, self.values(source), [*b, head, *n]);
                let wanted = rotated(&new_row, rotary, &self.table, *position);
                let (got, step) = match problem.quantization() {
                    None => {
                        let dtype = problem.dtype(operand).unwrap();
                        (dtype.decode(got), epsilon(dtype) * 4.0)
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
                close(&got, &wanted, step).map_err(|wrong| format!("{operand} {at:?}: {wrong}"))?;
            }
        }
        if rotary.is_some() {
            let (view, dtype) = (problem.view(Operand::Q).unwrap(), problem.dtype(Operand::Q).unwrap());
            after.host.q = dtype.decode(q);
            let (sequences, from) = (Sequences::new(case), problem.view(Operand::NewQ).unwrap());
            for b in 0..shape.batch {
                let queries = sequences.queries(b);
                for n in 0..queries {
                    let Some(position) = (total(b) + n).checked_sub(queries) else { continue };
                    // Positions past the table, and so past the cache, are not rotated as anyone would expect.
                    if position >= shape.len_kv {
                        continue;
                    }
                    let [batch, row] = sequences.query_place(b, n);
                    for head in 0..shape.heads_q {
                        let wanted =
                            rotated(&row_of(&from, &self.q, [batch, head, row]), rotary, &self.table, position);
                        let got = row_of(&view, &after.host.q, [batch, head, row]);
                        close(&got, &wanted, epsilon(dtype) * 4.0)
                            .map_err(|wrong| format!("q of {b}, {head}, {n}: {wrong}"))?;
                    }
                }
            }
        }
        match problem.quantization() {
            None => {
                let decode = |operand, bytes: &[u8]| problem.dtype(operand).unwrap().decode(bytes);
                (after.host.k, after.host.v) = (decode(Operand::K, k), decode(Operand::V, v));
            }
            Some(_) => {
                let words = |bytes: &[u8]| Some(bytemuck::pod_collect_to_vec(bytes));
                (after.host.k_words, after.host.v_words) = (words(k), words(v));
            }
        }
        let view = problem.view(Operand::Out).unwrap();
        let values = problem.dtype(Operand::Out).unwrap().decode(out);
        let out = indices(view.extent).map(|at| values[view.index(at) as usize]).collect();
        let got = Outputs { out, ..Outputs::default() }.owned(&after);
        Expected::of(&after).check(&got).map(|_| ()).map_err(|wrong| wrong.to_string())
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

/// Whether each number is within `step` of the wanted one.
fn close(got: &[f32], wanted: &[f64], step: f64) -> Result<(), String> {
    assert_eq!(got.len(), wanted.len());
    let is_close = got.iter().zip(wanted).all(|(x, wanted)| (f64::from(*x) - wanted).abs() <= step);
    if is_close { Ok(()) } else { Err(format!("{got:?}, not {wanted:?}")) }
}
