//! The CPU path, for machines without a GPU driver: runs [`wgpu_attention::reference`] on all cores.
//!
//! Inputs and outputs are rounded to the element types of the tensors. Everything in between is computed in f64.

use anyhow::{Result, ensure};
use indicatif::{ParallelProgressIterator as _, ProgressBar};
use rayon::prelude::*;
use truth::Case;
use wgpu_attention::blocking::Outputs;
use wgpu_attention::{Operand, Problem, View};

/// The largest size of an output, in bytes. A larger one is more likely a typing error than intended.
pub(crate) const LARGEST_OUTPUT: u64 = 1 << 31;

/// Where a row's results go. Every row has weights, but they are kept only where the problem asks for them.
struct Target<'a> {
    out: &'a mut [f32],
    lse: &'a mut f32,
    weights: Option<&'a mut [f32]>,
}

/// Computes every row.
pub(crate) fn attention(case: &Case, progress: &ProgressBar) -> Result<Outputs> {
    let case = case.with_block_mask()?;
    let problem = &case.problem;
    case.forward_inputs().check(problem)?;
    check_sizes(problem.views().filter(|view| view.operand.is_output()))?;

    let shape = problem.shape();
    let [dim_v, len_kv] = [shape.dim_v, shape.len_kv].map(|size| size as usize);
    let positions = case.stored_rows();
    let rows = positions.len();
    let mut out = vec![0.0; rows * dim_v];
    let mut lse = vec![0.0; rows];
    let written = problem.view(Operand::Weights).map(|view| usize::try_from(view.end()).unwrap_or(usize::MAX));
    let mut weights = written.map(|count| vec![0.0; count]);

    progress.set_length(rows as u64);
    let mut weight_rows: Vec<Option<&mut [f32]>> =
        weights.iter_mut().flat_map(|weights| weights.chunks_mut(len_kv.max(1))).map(Some).collect();
    let mut weights_of = |position: &Option<[u32; 3]>| {
        let place = usize::try_from(problem.weights_at((*position)?)?).ok()?;
        weight_rows.get_mut(place / len_kv.max(1))?.take()
    };
    let targets: Vec<Target<'_>> = (out.chunks_mut(dim_v.max(1)).zip(&mut lse).zip(&positions))
        .map(|((out, lse), position)| Target { out, lse, weights: weights_of(position) })
        .collect();
    targets.into_par_iter().zip(&positions).progress_with(progress.clone()).try_for_each(|(target, position)| {
        // A row of no sequence has no result.
        let Some(position) = position else { return Ok(()) };
        let row = case.exact(*position)?;
        narrow(&row.out, target.out);
        narrow(&[row.lse], std::slice::from_mut(target.lse));
        if let Some(weights) = target.weights {
            narrow(&row.weights, weights);
        }
        anyhow::Ok(())
    })?;

    Ok(Outputs {
        out: laid_out(problem, stored(problem, &out)),
        lse: problem.uses(Operand::Lse).then_some(lse),
        weights: weights.map(|weights| stored(problem, &weights)),
    })
}

/// Refuses outputs that are too large.
pub(crate) fn check_sizes(outputs: impl Iterator<Item = View>) -> Result<()> {
    for view in outputs {
        let (operand, need) = (view.operand, view.size_bytes());
        ensure!(
            need <= LARGEST_OUTPUT,
            "`{operand}` would take {need} bytes, and the CPU path writes at most {LARGEST_OUTPUT}; run fewer heads or \
             batches at a time"
        );
    }
    Ok(())
}

/// Moves contiguous rows to the output layout of the problem.
fn laid_out(problem: &Problem, rows: Vec<f32>) -> Vec<f32> {
    let Some(view) = problem.view(Operand::Out) else { return rows };
    if view.end() == rows.len() as u64 && view.stride.is_sorted_by(|a, b| a >= b) {
        return rows;
    }
    let mut out = vec![0.0; usize::try_from(view.end()).unwrap_or(usize::MAX)];
    let dim = view.extent[3] as usize;
    for (index, row) in rows.chunks(dim).enumerate() {
        let start = usize::try_from(view.index(position(&view, index))).unwrap_or(usize::MAX);
        out[start..start + dim].copy_from_slice(row);
    }
    out
}

/// The place of the first element of a view's `index`th row.
fn position(view: &View, index: usize) -> [u32; 4] {
    let [_, heads, rows, _] = view.extent.map(|size| size as usize);
    // Each is below an extent that is a u32.
    [index / rows / heads, index / rows % heads, index % rows, 0].map(|i| u32::try_from(i).unwrap_or(u32::MAX))
}

/// Rounds each value to the nearest one of the output's element type.
fn stored(problem: &Problem, values: &[f32]) -> Vec<f32> {
    let dtype = problem.dtype(Operand::Out).unwrap_or_default();
    dtype.decode(&dtype.encode(values))
}

pub(crate) fn narrow(wide: &[f64], narrow: &mut [f32]) {
    #[expect(clippy::cast_possible_truncation, reason = "the nearest f32 is what is wanted")]
    narrow.iter_mut().zip(wide).for_each(|(narrow, &wide)| *narrow = wide as f32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;

    #[test]
    fn every_result_is_the_definitions_rounded_and_laid_out() {
        for (name, case) in check::built_in_cases() {
            let problem = &case.problem;
            let outputs = attention(&case, &ProgressBar::hidden()).expect("the inputs fit");
            let case = case.with_block_mask().expect("the inputs fit");
            let rows: Vec<_> = case.rows().map(|at| case.exact(at).expect("there is such a row")).collect();
            let narrowed = |values: &mut dyn Iterator<Item = &f64>| {
                let values: Vec<f64> = values.copied().collect();
                let mut narrowed = vec![0.0; values.len()];
                narrow(&values, &mut narrowed);
                narrowed
            };
            let rounded = |values: &mut dyn Iterator<Item = &f64>| stored(problem, &narrowed(values));
            let got = truth::Outputs::of(&case, &outputs);
            assert_eq!(got.out, rounded(&mut rows.iter().flat_map(|row| &row.out)), "{name}");
            // Only chosen rows may have weights, in an order of their own.
            let mut order: Vec<_> =
                case.rows().zip(&rows).filter_map(|(at, row)| Some((problem.weights_at(at)?, row))).collect();
            order.sort_by_key(|&(place, _)| place);
            let weights = rounded(&mut order.iter().flat_map(|(_, row)| &row.weights));
            assert_eq!(got.weights, problem.uses(Operand::Weights).then_some(weights), "{name}");
            let lse = narrowed(&mut rows.iter().map(|row| &row.lse));
            assert_eq!(got.lse, problem.uses(Operand::Lse).then_some(lse), "{name}");
        }
    }
}
