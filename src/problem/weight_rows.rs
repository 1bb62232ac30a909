//! The rows whose attention weights are written, if not all of them.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::problem::error::ProblemError;
use crate::problem::shape::Shape;

/// Some query heads, in the order in which their weights are stored, and a range of query rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WeightRows {
    /// No head twice.
    pub(crate) heads: Arc<[u32]>,
    pub(crate) rows: Range<u32>,
}

impl WeightRows {
    pub(super) fn check(&self, shape: Shape) -> Result<(), ProblemError> {
        let Shape { heads_q, len_q, .. } = shape;
        if self.heads.is_empty() {
            return Err(ProblemError::WeightsOfNoHead);
        }
        let mut seen = HashSet::new();
        for &head in &*self.heads {
            if head >= heads_q {
                return Err(ProblemError::WeightsOfMissingHead { head, heads_q });
            }
            if !seen.insert(head) {
                return Err(ProblemError::WeightsOfHeadTwice { head });
            }
        }
        let Range { start, end } = self.rows;
        if start > end || end > len_q {
            return Err(ProblemError::WeightsOfMissingRows { start, end, len_q });
        }
        Ok(())
    }

    /// The number of heads, which is no larger than that of the problem.
    pub(super) fn heads(&self) -> u32 {
        u32::try_from(self.heads.len()).unwrap_or(u32::MAX)
    }

    pub(super) const fn len(&self) -> u32 {
        self.rows.end.saturating_sub(self.rows.start)
    }

    /// The heads as ranges that one dispatch can compute. A range that does not begin with a group of heads ends with
    /// it, because the shader derives the KV heads of a dispatch from its first head.
    pub(crate) fn runs(&self, group: u32) -> Vec<Range<u32>> {
        let mut runs: Vec<Range<u32>> = Vec::new();
        for &head in &*self.heads {
            let is_next =
                |run: &Range<u32>| run.end == head && (run.start.is_multiple_of(group) || !head.is_multiple_of(group));
            match runs.last_mut().filter(|run| is_next(run)) {
                Some(run) => run.end += 1,
                None => runs.push(head..head + 1),
            }
        }
        runs
    }

    /// Where the weights of `heads`, a part of a run, and of `rows` are stored, along the heads and the rows.
    pub(crate) fn places(&self, heads: &Range<u32>, rows: &Range<u32>) -> [Range<u32>; 2] {
        let first = self.place(heads.start).unwrap_or_default();
        [first..first + (heads.end - heads.start), rows.start - self.rows.start..rows.end - self.rows.start]
    }

    /// The place of a head's weights among the heads.
    pub(super) fn place(&self, head: u32) -> Option<u32> {
        (0..).zip(&*self.heads).find_map(|(place, &other)| (other == head).then_some(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_consecutive_heads_and_begin_or_end_with_a_group() {
        let runs = |heads: &[u32], group| WeightRows { heads: heads.into(), rows: 0..1 }.runs(group);
        assert_eq!(runs(&[3, 17, 18], 1), [3..4, 17..19]);
        assert_eq!(runs(&[2, 1, 0], 1), [2..3, 1..2, 0..1]);
        assert_eq!(runs(&[0, 1, 2, 3, 4, 7], 2), [0..5, 7..8]);
        assert_eq!(runs(&[1, 2, 3, 4, 5], 2), [1..2, 2..6]);
        assert_eq!(runs(&[5, 6, 7, 0], 4), [5..8, 0..1]);
        assert_eq!(runs(&[5, 6, 7, 8, 9], 4), [5..8, 8..10]);
    }

    #[test]
    fn a_part_of_a_run_lies_where_its_heads_and_rows_are_stored() {
        let chosen = WeightRows { heads: [9, 4, 5, 6].into(), rows: 10..30 };
        assert_eq!(chosen.places(&(5..7), &(12..30)), [2..4, 2..20]);
        assert_eq!(chosen.places(&(9..10), &(10..11)), [0..1, 0..1]);
        assert_eq!([9, 6, 7].map(|head| chosen.place(head)), [Some(0), Some(3), None]);
        let [start, end] = [30, 10];
        assert_eq!((chosen.len(), WeightRows { rows: start..end, ..chosen }.len()), (20, 0));
    }
}
