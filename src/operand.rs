//! The buffers of one attention call, and the slot each has in the shaders.

/// A buffer the caller hands in.
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
    /// The attention weights (B, Hq, Lq, Lk).
    Weights,
    /// Boolean mask, one byte an element, non-zero = attend.
    Mask,
    /// Additive bias.
    Bias,
    /// Number of valid keys per batch (B), u32.
    KvLengths,
}

/// Slot 0 holds the parameters, a uniform.
pub(crate) const PARAMS_BINDING: u32 = 0;

impl Operand {
    /// Every operand.
    pub const ALL: [Self; 9] =
        [Self::Q, Self::K, Self::V, Self::Out, Self::Lse, Self::Weights, Self::Mask, Self::Bias, Self::KvLengths];

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
        }
    }

    /// Whether a kernel writes it.
    pub const fn is_output(self) -> bool {
        matches!(self, Self::Out | Self::Lse | Self::Weights)
    }

    /// The `@binding` in group 0. A kernel writes one tensor in the elements' type, so the output and the weights,
    /// which different kernels write, share a slot.
    pub(crate) const fn binding(self) -> u32 {
        match self {
            Self::Q => 1,
            Self::K => 2,
            Self::V => 3,
            Self::Out | Self::Weights => 4,
            Self::Lse => 5,
            Self::Mask => 6,
            Self::Bias => 7,
            Self::KvLengths => 8,
        }
    }
}

impl std::fmt::Display for Operand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
