//! Which keys a query row sees: a range by position, and what mask and bias leave of it.

use std::ops::Range;

use wgpu_attention::{Diagonal, Inputs, Operand, Problem, View};

/// The masks of one problem.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visibility<'a> {
    problem: &'a Problem,
    mask: Option<(View, &'a [bool])>,
    bias: Option<(View, &'a [f32])>,
    kv_lengths: Option<&'a [u32]>,
}

impl<'a> Visibility<'a> {
    pub(crate) fn new(problem: &'a Problem, inputs: &Inputs<'a>) -> Self {
        Self {
            problem,
            mask: problem.view(Operand::Mask).zip(inputs.mask),
            bias: problem.view(Operand::Bias).zip(inputs.bias),
            kv_lengths: inputs.kv_lengths,
        }
    }

    /// How many keys of `batch` are valid.
    fn valid(&self, batch: u32) -> u32 {
        let len_kv = self.problem.shape().len_kv;
        self.kv_lengths.map_or(len_kv, |lengths| lengths[batch as usize].min(len_kv))
    }

    /// The key that query `row` of `batch` stands at.
    pub(crate) fn diagonal(&self, batch: u32, row: u32) -> i64 {
        i64::from(row)
            + match self.problem.diagonal() {
                Diagonal::TopLeft => 0,
                Diagonal::BottomRight => i64::from(self.valid(batch)) - i64::from(self.problem.shape().len_q),
                Diagonal::Offset(offset) => i64::from(offset),
            }
    }

    /// The keys that length, diagonal and window leave to query `row` of `batch`.
    pub(crate) fn range(&self, batch: u32, row: u32) -> Range<u32> {
        let (valid, at) = (self.valid(batch), self.diagonal(batch, row));
        let window = self.problem.window();
        let right = if self.problem.is_causal() { Some(0) } else { window.right };
        let first = window.left.map_or(0, |left| at - i64::from(left));
        let end = right.map_or(i64::MAX, |right| at + i64::from(right) + 1);
        // Both edges are clamped to the valid keys, so they fit.
        let clamp = |edge: i64| u32::try_from(edge.clamp(0, i64::from(valid))).unwrap_or(valid);
        clamp(first)..clamp(end)
    }

    /// Whether mask and bias let the query at (batch, head, row) attend to the key. A bias of −∞ hides it.
    pub(crate) fn unmasked(&self, at: [u32; 4]) -> bool {
        self.mask.is_none_or(|(view, mask)| mask[place(&view, at)])
            && self.bias.is_none_or(|(view, bias)| bias[place(&view, at)] != f32::NEG_INFINITY)
    }
}

/// An index into a host slice that was checked to hold the view.
pub(crate) fn place(view: &View, at: [u32; 4]) -> usize {
    usize::try_from(view.index(at)).unwrap_or(usize::MAX)
}
