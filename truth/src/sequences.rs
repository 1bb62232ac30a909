//! Which queries and keys a sequence has, and where they lie. Written independently of the kernels and of the reference.

use wgpu_attention::Operand;

use crate::case::Case;

/// The sequences of a case.
#[derive(Clone, Copy, Debug)]
pub struct Sequences<'a> {
    case: &'a Case,
}

impl<'a> Sequences<'a> {
    /// The sequences of `case`, whose inputs must fit its problem.
    pub const fn new(case: &'a Case) -> Self {
        Self { case }
    }

    /// The number of queries of a sequence.
    pub fn queries(&self, sequence: u32) -> u32 {
        let Case { problem, host } = self.case;
        length(host.q_lengths.as_deref(), host.cu_seqlens_q.as_deref(), sequence).min(problem.shape().len_q)
    }

    /// The number of keys of a sequence.
    pub fn keys(&self, sequence: u32) -> u32 {
        let Case { problem, host } = self.case;
        length(host.kv_lengths.as_deref(), host.cu_seqlens_k.as_deref(), sequence).min(problem.shape().len_kv)
    }

    /// The first key of a sequence that a ring has not overwritten.
    pub fn oldest(&self, sequence: u32) -> u32 {
        self.case.problem.ring().map_or(0, |capacity| self.keys(sequence).saturating_sub(capacity))
    }

    /// The sequence and the query of a row of `q` and of the results, if it belongs to one.
    pub fn query_at(&self, batch: u32, row: u32) -> Option<[u32; 2]> {
        let Some(bounds) = &self.case.host.cu_seqlens_q else { return Some([batch, row]) };
        let owner = bounds.windows(2).position(|bounds| (bounds[0]..bounds[1]).contains(&row))?;
        let query = row - bounds[owner];
        (query < self.queries(owner as u32)).then_some([owner as u32, query])
    }

    /// The batch and the row of a query in `q`.
    pub fn query_place(&self, sequence: u32, query: u32) -> [u32; 2] {
        match &self.case.host.cu_seqlens_q {
            Some(bounds) => [0, bounds[sequence as usize] + query],
            None => [sequence, query],
        }
    }

    /// The batch and the row of a key in `k` and `v`.
    pub fn key_place(&self, sequence: u32, key: u32) -> [u32; 2] {
        let Case { problem, host } = self.case;
        if let Some(bounds) = &host.cu_seqlens_k {
            return [0, bounds[sequence as usize] + key];
        }
        if let Some(capacity) = problem.ring() {
            return [sequence, key % capacity];
        }
        match (problem.pages(), problem.view(Operand::BlockTable), &host.block_table) {
            (Some(pages), Some(view), Some(table)) => {
                let [page, row] = [key / pages.size, key % pages.size];
                [table[view.index([sequence, 0, 0, page]) as usize], row]
            }
            _ => [sequence, key],
        }
    }
}

/// The length of a sequence by its own number or by its bounds; without either, it has as many rows as there is room for.
fn length(lengths: Option<&[u32]>, bounds: Option<&[u32]>, sequence: u32) -> u32 {
    let n = sequence as usize;
    match (lengths, bounds) {
        (Some(lengths), _) => lengths[n],
        (None, Some(bounds)) => bounds[n + 1] - bounds[n],
        (None, None) => u32::MAX,
    }
}
