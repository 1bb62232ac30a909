//! The buffers of one attention call.

/// A buffer that the caller passes to attention, or to a merge of its results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operand {
    /// Queries (B, Hq, Lq, Dqk).
    Q,
    /// Keys (B, Hkv, Lk, Dqk).
    K,
    /// Values (B, Hkv, Lk, Dv).
    V,
    /// The output (B, Hq, Lq, Dv).
    Out,
    /// Log-sum-exp of each row's scores, natural logarithm (B, Hq, Lq), f32.
    Lse,
    /// The attention weights (B, Hq, Lq, Lk), or those of [chosen heads and rows](crate::ProblemBuilder::weights_of).
    Weights,
    /// Boolean mask (B, Hq, Lq, Lk), stored in a [`MaskFormat`](crate::MaskFormat).
    Mask,
    /// Additive bias (B, Hq, Lq, Lk).
    Bias,
    /// Number of valid keys per batch (B), u32.
    KvLengths,
    /// Number of queries per batch (B), u32.
    QLengths,
    /// Where the queries of each sequence begin and the last ones end (B + 1), u32.
    CuSeqlensQ,
    /// Where the keys of each sequence begin and the last ones end (B + 1), u32.
    CuSeqlensK,
    /// The pages of each sequence (B, ⌈Lk / page size⌉), u32.
    BlockTable,
    /// Queries to rotate (B, Hq, Lq, Dqk): see [`Append`](crate::Append).
    NewQ,
    /// Keys to append (B, Hkv, Lq, Dqk).
    NewK,
    /// Values to append (B, Hkv, Lq, Dv).
    NewV,
    /// Cosines and sines of a rotary embedding (positions, rotated elements / 2, 2), f32.
    RotaryTable,
    /// `ALiBi` slopes (H) or (B, H), f32.
    AlibiSlopes,
    /// One learned logit per query head (H), f32.
    Sinks,
    /// The user's numbers that programs in the score read, f32.
    Aux,
    /// The state of the generator that dropout draws from, three u32: see [`Philox`](crate::Philox).
    RngState,
    /// One number per tile of the scores (B or 1, Hq or 1, ⌈Lq / rows⌉, ⌈Lk / keys⌉), u32: see
    /// [`BlockMask`](crate::BlockMask).
    BlockMask,
    /// The outputs that a [`Merge`](crate::Merge) reads (pairs, B, Hq, Lq, Dv).
    PairOut,
    /// The log-sum-exps that a [`Merge`](crate::Merge) reads (pairs, B, Hq, Lq), f32.
    PairLse,
    /// The gradient of the output, which the [`Gradients`](crate::Gradients) start from (B, Hq, Lq, Dv).
    Dout,
    /// The gradient of the log-sum-exp, if the [`Gradients`](crate::Gradients) take one (B, Hq, Lq), f32.
    Dlse,
    /// The gradient of the queries (B, Hq, Lq, Dqk).
    Dq,
    /// The gradient of the keys (B, Hkv, Lk, Dqk).
    Dk,
    /// The gradient of the values (B, Hkv, Lk, Dv).
    Dv,
    /// The gradient of the bias, summed over every axis that the bias broadcasts: (B, Hq, Lq, Lk), with 1 for these axes.
    Dbias,
    /// The gradient of the sinks (H), f32.
    Dsinks,
}

impl Operand {
    /// Every operand.
    pub const ALL: [Self; 31] = [
        Self::Q,
        Self::K,
        Self::V,
        Self::Out,
        Self::Lse,
        Self::Weights,
        Self::Mask,
        Self::Bias,
        Self::KvLengths,
        Self::QLengths,
        Self::CuSeqlensQ,
        Self::CuSeqlensK,
        Self::BlockTable,
        Self::NewQ,
        Self::NewK,
        Self::NewV,
        Self::RotaryTable,
        Self::AlibiSlopes,
        Self::Sinks,
        Self::Aux,
        Self::RngState,
        Self::BlockMask,
        Self::PairOut,
        Self::PairLse,
        Self::Dout,
        Self::Dlse,
        Self::Dq,
        Self::Dk,
        Self::Dv,
        Self::Dbias,
        Self::Dsinks,
    ];

    /// The name used in errors, labels and the shaders.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
            Self::Out => "out",
            Self::Lse => "lse",
            Self::Weights => "weights",
            Self::Mask => "mask",
            Self::Bias => "bias",
            Self::KvLengths => "kv_lengths",
            Self::QLengths => "q_lengths",
            Self::CuSeqlensQ => "cu_seqlens_q",
            Self::CuSeqlensK => "cu_seqlens_k",
            Self::BlockTable => "block_table",
            Self::NewQ => "new_q",
            Self::NewK => "new_k",
            Self::NewV => "new_v",
            Self::RotaryTable => "rotary_table",
            Self::AlibiSlopes => "alibi_slopes",
            Self::Sinks => "sinks",
            Self::Aux => "aux",
            Self::RngState => "rng_state",
            Self::BlockMask => "block_mask",
            Self::PairOut => "pair_out",
            Self::PairLse => "pair_lse",
            Self::Dout => "dout",
            Self::Dlse => "dlse",
            Self::Dq => "dq",
            Self::Dk => "dk",
            Self::Dv => "dv",
            Self::Dbias => "dbias",
            Self::Dsinks => "dsinks",
        }
    }

    /// Whether attention, a merge or gradients write this operand. Gradients read `out` and `lse`.
    pub const fn is_output(self) -> bool {
        matches!(self, Self::Out | Self::Lse | Self::Weights) || self.is_gradient()
    }

    /// Whether it is the gradient of an input.
    pub const fn is_gradient(self) -> bool {
        matches!(self, Self::Dq | Self::Dk | Self::Dv | Self::Dbias | Self::Dsinks)
    }

    /// Whether only plans that append use this operand.
    pub(crate) const fn is_appended(self) -> bool {
        matches!(self, Self::NewQ | Self::NewK | Self::NewV | Self::RotaryTable)
    }

    /// The shape, for the comments beside the declarations in a kernel's text.
    pub(crate) const fn shape(self) -> &'static str {
        match self {
            Self::Q => "(B, Hq, Lq, Dqk)",
            Self::K => "(B, Hkv, Lk, Dqk)",
            Self::V => "(B, Hkv, Lk, Dv)",
            Self::Out => "(B, Hq, Lq, Dv)",
            Self::Lse => "(B, Hq, Lq), natural logarithm",
            Self::Weights => "(B, Hq, Lq, Lk)",
            Self::Mask => "(B, Hq, Lq, Lk)",
            Self::Bias => "(B, Hq, Lq, Lk)",
            Self::KvLengths | Self::QLengths => "(B)",
            Self::CuSeqlensQ | Self::CuSeqlensK => "(B + 1)",
            Self::BlockTable => "(B, pages of a sequence)",
            Self::NewQ => "(B, Hq, Lq, Dqk)",
            Self::NewK => "(B, Hkv, Lq, Dqk)",
            Self::NewV => "(B, Hkv, Lq, Dv)",
            Self::RotaryTable => "(positions, rotated / 2): cosine, sine",
            Self::AlibiSlopes => "(B, Hq), broadcast by a stride of 0",
            Self::Sinks => "(Hq)",
            Self::Aux => "the user's",
            Self::RngState => "seed, offset",
            Self::BlockMask => "(B, Hq, rows of tiles, tiles): 1 where some pair is seen, plus 2 where some is hidden",
            Self::PairOut => "(pairs, B, Hq, Lq, Dv)",
            Self::PairLse => "(pairs, B, Hq, Lq), natural logarithm",
            Self::Dout => "(B, Hq, Lq, Dv)",
            Self::Dlse => "(B, Hq, Lq)",
            Self::Dq => "(B, Hq, Lq, Dqk)",
            Self::Dk => "(B, Hkv, Lk, Dqk)",
            Self::Dv => "(B, Hkv, Lk, Dv)",
            Self::Dbias => "(B, Hq, Lq, Lk), with 1 for axes that the bias broadcasts",
            Self::Dsinks => "(Hq)",
        }
    }
}

impl std::fmt::Display for Operand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
