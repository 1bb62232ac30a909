//! Block masks: whether the masks hide all, some or none of each tile of the scores.

/// The tiles of a block mask, as in `FlexAttention`'s `BlockMask`. Each tile covers `rows` queries by `keys` keys, and
/// has one u32 in [`Operand::BlockMask`](crate::Operand::BlockMask).
///
/// A tile's number is the sum of [`SEEN`](Self::SEEN), if some query of the tile may see some key of it, and
/// [`HIDDEN`](Self::HIDDEN), if some query may not see some key:
///
/// | number | the tile is | |
/// |---|---|---|
/// | 0 or 2 | empty | all its pairs are hidden, and kernels for many rows skip it |
/// | 1 | full | the mask and the `mask_mod` are not evaluated, and hide nothing |
/// | 3 | partial | the mask and the `mask_mod` decide for each pair |
///
/// [`Attention::plan_block_mask`](crate::Attention::plan_block_mask) computes the numbers from the mask and the
/// `mask_mod`. A caller may also write them. Without a mask and a `mask_mod`, a partial tile hides nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockMask {
    pub(crate) rows: u32,
    pub(crate) keys: u32,
    pub(crate) per_batch: bool,
    pub(crate) per_head: bool,
}

impl BlockMask {
    /// The part of a tile's number that is set if some query of the tile may see some key of it.
    pub const SEEN: u32 = 1;
    /// The part of a tile's number that is set if some query of the tile may not see some key of it.
    pub const HIDDEN: u32 = 2;

    /// Tiles of `rows` queries by `keys` keys, shared by all batches and heads. `keys` must be a multiple of 32, and
    /// both must be from 1 to 65536.
    pub const fn new(rows: u32, keys: u32) -> Self {
        Self { rows, keys, per_batch: false, per_head: false }
    }

    /// Queries per tile.
    pub const fn rows(self) -> u32 {
        self.rows
    }

    /// Keys per tile.
    pub const fn keys(self) -> u32 {
        self.keys
    }

    /// Gives each batch its own tiles.
    #[must_use]
    pub const fn per_batch(self) -> Self {
        Self { per_batch: true, ..self }
    }

    /// Gives each query head its own tiles.
    #[must_use]
    pub const fn per_head(self) -> Self {
        Self { per_head: true, ..self }
    }
}
