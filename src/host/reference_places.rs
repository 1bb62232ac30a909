//! Which queries and keys a sequence has, and where they lie, for the reference.

use crate::host::inputs::Inputs;
use crate::problem::Problem;
use crate::problem::layout::View;
use crate::problem::operand::Operand;
use crate::problem::positions::Diagonal;
use crate::problem::sequences::{Keys, Queries};

/// The number of valid keys of a batch.
pub(super) fn valid_keys(problem: &Problem, inputs: &Inputs<'_>, batch: u32) -> u32 {
    let len_kv = problem.shape().len_kv;
    match inputs.cu_seqlens_k {
        Some(bounds) => between(bounds, batch).min(len_kv),
        None => inputs.kv_lengths.map_or(len_kv, |lengths| lengths[batch as usize].min(len_kv)),
    }
}

/// The number of queries of a batch.
pub(super) fn queries(problem: &Problem, inputs: &Inputs<'_>, batch: u32) -> u32 {
    let len_q = problem.shape().len_q;
    match (inputs.q_lengths, inputs.cu_seqlens_q) {
        (Some(lengths), _) => lengths[batch as usize].min(len_q),
        (None, Some(bounds)) => between(bounds, batch).min(len_q),
        (None, None) => len_q,
    }
}

/// The length of a sequence between two neighbouring bounds.
pub(super) fn between(bounds: &[u32], sequence: u32) -> u32 {
    bounds[sequence as usize + 1].saturating_sub(bounds[sequence as usize])
}

/// The first key of a batch that a ring still holds.
pub(super) fn oldest_key(problem: &Problem, inputs: &Inputs<'_>, batch: u32) -> u32 {
    match problem.keys() {
        Keys::Ring { capacity } => valid_keys(problem, inputs, batch).saturating_sub(capacity),
        Keys::Dense | Keys::Ragged { .. } | Keys::Paged(_) => 0,
    }
}

/// The batch and the row of `q` where query `i` of a sequence lies. For a row past its queries, there may be none.
pub(super) fn query_place(problem: &Problem, inputs: &Inputs<'_>, batch: u32, i: u32) -> [u32; 2] {
    match (problem.queries(), inputs.cu_seqlens_q) {
        (Queries::Ragged { total }, Some(bounds)) => {
            [0, bounds[batch as usize].saturating_add(i).min(total.saturating_sub(1))]
        }
        _ => [batch, i],
    }
}

/// The batch and the row of `k` and `v` where key `j` of a sequence lies.
pub(super) fn key_place(problem: &Problem, inputs: &Inputs<'_>, batch: u32, j: u32) -> [u32; 2] {
    match (problem.keys(), inputs.cu_seqlens_k, inputs.block_table) {
        (Keys::Ragged { .. }, Some(bounds), _) => [0, bounds[batch as usize] + j],
        (Keys::Paged(pages), _, Some(table)) => {
            let row = batch as usize * problem.table_row() as usize;
            [table[row + (j / pages.size) as usize], j % pages.size]
        }
        (Keys::Ring { capacity }, ..) => [batch, j % capacity],
        _ => [batch, j],
    }
}

/// The key that row 0 stands at.
pub(super) fn diagonal_offset(problem: &Problem, inputs: &Inputs<'_>, batch: u32) -> i64 {
    match problem.diagonal() {
        Diagonal::TopLeft => 0,
        Diagonal::BottomRight => {
            i64::from(valid_keys(problem, inputs, batch)) - i64::from(queries(problem, inputs, batch))
        }
        Diagonal::Offset(offset) => i64::from(offset),
    }
}

/// A row of `k` or `v`, which may be quantized.
pub(super) fn key_vector(
    problem: &Problem,
    inputs: &Inputs<'_>,
    operand: Operand,
    at @ [batch, head, row]: [u32; 3],
) -> Vec<f64> {
    let shape = problem.shape();
    let (values, words, dim) = if operand == Operand::K {
        (inputs.k, inputs.k_words, shape.dim_qk)
    } else {
        (inputs.v, inputs.v_words, shape.dim_v)
    };
    match (problem.quantization(), problem.view(operand), words) {
        (Some(quantization), Some(view), Some(words)) => {
            let row = &words[place(&view, [batch, head, row, 0])..];
            quantization.decode(row, dim).into_iter().map(f64::from).collect()
        }
        _ => vector(problem, operand, values, at),
    }
}

pub(super) fn vector(problem: &Problem, operand: Operand, values: &[f32], [batch, head, row]: [u32; 3]) -> Vec<f64> {
    let Some(view) = problem.view(operand) else { return Vec::new() };
    (0..view.extent[3]).map(|d| f64::from(values[place(&view, [batch, head, row, d])])).collect()
}

pub(super) fn place(view: &View, at: [u32; 4]) -> usize {
    usize::try_from(view.index(at)).expect("a slice that was long enough holds it")
}
