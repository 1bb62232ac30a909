//! Gradients on the CPU path: runs [`wgpu_attention::reference::gradients_of_rows`] on all cores.
//!
//! Everything is computed and summed in f64. Only the results are rounded.

use anyhow::Result;
use indicatif::ProgressBar;
use rayon::prelude::*;
use truth::{Case, gradient_rows};
use wgpu_attention::blocking::GradientOutputs;
use wgpu_attention::reference::ReferenceGradients;
use wgpu_attention::{Gradients, Operand, View};

use crate::cpu::{LARGEST_OUTPUT, attention, check_sizes, narrow};

/// Computes the forward pass, and then the gradients.
pub(crate) fn gradients(case: &Case, gradients: &Gradients, progress: &ProgressBar) -> Result<GradientOutputs> {
    let case = case.with_block_mask()?;
    let views: Vec<View> = Operand::ALL.into_iter().filter_map(|operand| gradients.view(operand)).collect();
    let written = views.iter().copied().filter(|view| view.operand.is_gradient());
    check_sizes(written.clone())?;
    let forward = attention(&case, progress)?;

    let rows: Vec<[u32; 3]> = case.rows().collect();
    progress.reset();
    progress.set_length(rows.len() as u64);
    progress.set_message("backward");
    let parts = parts(written.map(|view| view.size_bytes() / view.element_bytes).sum());
    let of_part = |part: usize| {
        // Every `parts`th row, because later rows see more keys if they are causal.
        let rows = rows.iter().copied().skip(part).step_by(parts);
        case.exact_gradients(gradients, rows.inspect(|_| progress.inc(1)))
    };
    let exact = (0..parts).into_par_iter().map(of_part).collect::<Result<Vec<_>, _>>()?;
    // In one order, so that each run gives the same bits.
    let none = case.exact_gradients(gradients, [])?;
    let ReferenceGradients { dq, dk, dv, dbias, dsinks } = exact.iter().fold(none, added);

    let stored = |operand, exact: &[f64]| stored(&case, gradients, operand, exact);
    Ok(GradientOutputs {
        forward,
        dq: stored(Operand::Dq, &dq),
        dk: stored(Operand::Dk, &dk),
        dv: stored(Operand::Dv, &dv),
        dbias: stored(Operand::Dbias, &dbias),
        dsinks: stored(Operand::Dsinks, &dsinks),
    })
}

/// How many parts are computed at the same time: one per thread, unless their sums, in f64, would take too much memory.
fn parts(elements: u64) -> usize {
    let most = usize::try_from(LARGEST_OUTPUT / (8 * elements.max(1))).unwrap_or(usize::MAX);
    most.clamp(1, rayon::current_num_threads())
}

fn added(mut a: ReferenceGradients, b: &ReferenceGradients) -> ReferenceGradients {
    let sums = [&mut a.dq, &mut a.dk, &mut a.dv, &mut a.dbias, &mut a.dsinks];
    for (sums, terms) in sums.into_iter().zip([&b.dq, &b.dk, &b.dv, &b.dbias, &b.dsinks]) {
        sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
    }
    a
}

/// A gradient as its buffer holds it: rounded to its element type, in its layout.
fn stored(case: &Case, gradients: &Gradients, operand: Operand, exact: &[f64]) -> Option<Vec<f32>> {
    let (view, dtype) = (gradients.view(operand)?, gradients.dtype(operand)?);
    let mut values = vec![0.0; exact.len()];
    narrow(exact, &mut values);
    let values = dtype.decode(&dtype.encode(&values));
    if matches!(operand, Operand::Dbias | Operand::Dsinks) {
        return Some(values);
    }
    let width = view.extent[3] as usize;
    let mut buffer = vec![0.0; usize::try_from(view.end()).unwrap_or(usize::MAX)];
    for (row, start) in values.chunks(width).zip(gradient_rows(case, &view)) {
        if let Some(start) = start {
            buffer[start..start + width].copy_from_slice(row);
        }
    }
    Some(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;

    #[test]
    fn gradients_come_out_as_defined_in_any_layout() {
        for (name, case, gradients, expected) in check::built_in_gradients() {
            let outputs = super::gradients(&case, &gradients, &ProgressBar::hidden()).expect("the inputs fit");
            let got = truth::GradientOutputs::of(&case, &gradients, &outputs);
            expected.check(&got).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
        }
    }
}
