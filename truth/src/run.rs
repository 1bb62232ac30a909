//! Results of the library's functions that run attention by themselves.

use wgpu_attention::{Gradients, Operand, submitting};

use crate::case::{Case, indices};
use crate::expected::Outputs;
use crate::gradients::GradientOutputs;

impl Outputs {
    /// Converts what such a function returned from the layout of a case's problem. Missing values are NaN.
    pub fn of(case: &Case, outputs: &submitting::Outputs) -> Self {
        let view = case.problem.view(Operand::Out);
        let out = view.into_iter().flat_map(|view| {
            indices(view.extent).map(move |at| outputs.out.get(view.index(at) as usize).copied().unwrap_or(f32::NAN))
        });
        let (lse, weights) = (outputs.lse.clone(), outputs.weights.clone());
        Self { out: out.collect(), lse, weights, stray: None }.owned(case)
    }
}

impl GradientOutputs {
    /// Converts what such a function returned from the layouts of the gradients.
    pub fn of(case: &Case, gradients: &Gradients, outputs: &submitting::GradientOutputs) -> Self {
        let submitting::GradientOutputs { dq, dk, dv, dbias, dsinks, .. } = outputs;
        Self::gathered(case, gradients, |operand| match operand {
            Operand::Dq => dq.clone(),
            Operand::Dk => dk.clone(),
            Operand::Dv => dv.clone(),
            Operand::Dbias => dbias.clone(),
            Operand::Dsinks => dsinks.clone(),
            _ => None,
        })
    }
}
