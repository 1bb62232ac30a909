//! Which queries and keys the sequences of a batch have, and where they lie.

/// Where the queries of the sequences lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Queries {
    /// Each sequence has `len_q` queries.
    #[default]
    All,
    /// Each sequence has room for `len_q` queries, and a buffer says how many it has.
    Lengths,
    /// The queries of all sequences follow one another, `total` of them.
    Ragged {
        /// Rows of `q`.
        total: u32,
    },
}

/// Where the keys and values of the sequences lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Keys {
    /// Each sequence has room for `len_kv` keys.
    #[default]
    Dense,
    /// The keys of all sequences follow one another, `total` of them.
    Ragged {
        /// Rows of `k` and `v`.
        total: u32,
    },
    /// Keys lie in pages, and a table lists the pages of each sequence.
    Paged(Pages),
    /// Each sequence keeps its last `capacity` keys.
    Ring {
        /// Rows of `k` and `v` per sequence.
        capacity: u32,
    },
}

/// The pages of a paged cache: `k` and `v` are (count, size, Hkv, D) unless they are given other layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pages {
    /// The number of pages that the buffers hold.
    pub count: u32,
    /// Keys per page, at least 1.
    pub size: u32,
}

impl Keys {
    /// The number of sequences that K and V have along their first axis, and of the rows along their third.
    pub(crate) const fn extent(self, batch: u32, len_kv: u32) -> [u32; 2] {
        match self {
            Self::Dense => [batch, len_kv],
            Self::Ragged { total } => [if batch == 0 { 0 } else { 1 }, total],
            Self::Paged(Pages { count, size }) => [count, size],
            Self::Ring { capacity } => [batch, capacity],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ragged_keys_lie_in_one_batch_if_there_is_a_sequence() {
        let ragged = Keys::Ragged { total: 9 };
        assert_eq!([0, 1, 3].map(|batch| ragged.extent(batch, 5)), [[0, 9], [1, 9], [1, 9]]);
    }
}
