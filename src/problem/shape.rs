//! The sizes of a problem.

/// The sizes of an attention problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// B: the number of batches. If it is 0, nothing is computed.
    pub batch: u32,
    /// Hq: query heads, a multiple of `heads_kv`. Query head `h` reads KV head `h / (heads_q / heads_kv)`.
    pub heads_q: u32,
    /// Hkv: KV heads.
    pub heads_kv: u32,
    /// Lq: query rows per head. If it is 0, nothing is computed.
    pub len_q: u32,
    /// Lk: keys per head. With `kv_lengths`, it is the capacity, and the lengths say how many keys are valid. If it is
    /// 0, no row sees a key.
    pub len_kv: u32,
    /// Dqk: size of a query or key vector.
    pub dim_qk: u32,
    /// Dv: size of a value or output vector.
    pub dim_v: u32,
}

impl Shape {
    /// Multi-head self-attention: as many KV heads as query heads, as many keys as queries, one head size.
    pub const fn new(batch: u32, heads: u32, len: u32, dim: u32) -> Self {
        Self { batch, heads_q: heads, heads_kv: heads, len_q: len, len_kv: len, dim_qk: dim, dim_v: dim }
    }

    /// Grouped-query attention: the query heads share `heads_kv` KV heads.
    #[must_use]
    pub const fn kv_heads(self, heads_kv: u32) -> Self {
        Self { heads_kv, ..self }
    }

    /// Cross-attention or a KV cache: `len_kv` keys.
    #[must_use]
    pub const fn kv_len(self, len_kv: u32) -> Self {
        Self { len_kv, ..self }
    }

    /// Values with a different size than keys.
    #[must_use]
    pub const fn value_dim(self, dim_v: u32) -> Self {
        Self { dim_v, ..self }
    }

    /// Query heads per KV head; 0 if there are no KV heads, which [`build`](crate::ProblemBuilder::build) refuses.
    pub const fn group(&self) -> u32 {
        match self.heads_q.checked_div(self.heads_kv) {
            Some(group) => group,
            None => 0,
        }
    }

    /// The KV head that query head `head` reads.
    pub const fn kv_head(&self, head: u32) -> u32 {
        match head.checked_div(self.group()) {
            Some(kv_head) => kv_head,
            None => 0,
        }
    }

    /// The extents of the score tensor.
    pub(crate) const fn scores(&self) -> [u32; 4] {
        [self.batch, self.heads_q, self.len_q, self.len_kv]
    }
}
