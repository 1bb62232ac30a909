//! Errors in the description of a problem.

use crate::problem::function::Function;
use crate::problem::operand::Operand;

/// An invalid description of a problem. Returned by [`crate::ProblemBuilder::build`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProblemError {
    /// There are no heads, or a head size is 0.
    #[error("`{axis}` is 0; it must be at least 1 (only `batch`, `len_q` and `len_kv` may be 0)")]
    Empty {
        /// The name of the axis.
        axis: &'static str,
    },
    /// An axis is longer than the shaders can index.
    #[error("`{axis}` is {value}, and at most {most} is supported; split the problem along it")]
    TooLong {
        /// The name of the axis.
        axis: &'static str,
        /// Its length.
        value: u32,
        /// The largest supported length.
        most: u32,
    },
    /// The query heads do not divide evenly among the KV heads.
    #[error(
        "heads_q = {heads_q} is not a multiple of heads_kv = {heads_kv}; grouped-query attention shares one KV head among heads_q / heads_kv query heads"
    )]
    HeadsNotGrouped {
        /// Number of query heads.
        heads_q: u32,
        /// Number of KV heads.
        heads_kv: u32,
    },
    /// The scale is NaN, infinite, or too large in magnitude.
    #[error("scale = {0} must be at most 2.3e38 in magnitude; leave it out for 1/√dim_qk")]
    Scale(f32),
    /// The softcap is not positive, or too large to cap anything.
    #[error("softcap = {0} must be positive and at most 1e30; leave it out for no cap")]
    Softcap(f32),
    /// The probability of dropout is not in 0 .. 1.
    #[error("the probability of dropout, {0}, must be at least 0 and less than 1")]
    Dropout(f32),
    /// The operand does not broadcast to the scores.
    #[error("`{operand}` has {got} along `{axis}`, but the scores have {want}; it must be {want}, or 1 to broadcast")]
    NotBroadcastable {
        /// The mask or the bias.
        operand: Operand,
        /// The name of the axis along which it does not broadcast.
        axis: &'static str,
        /// The operand's length along that axis.
        got: u32,
        /// The scores' length along that axis.
        want: u32,
    },
    /// The strides of an operand reach past 2⁶⁴ bytes.
    #[error("the strides of `{operand}` reach past 2^64 bytes; check them")]
    Unaddressable {
        /// The operand with these strides.
        operand: Operand,
    },
    /// Negative strides of an operand reach before the first element of its buffer.
    #[error(
        "the strides of `{operand}` reach before its first element; start at a later element with `ScoreLayout::at`"
    )]
    BeforeFirst {
        /// The operand with these strides.
        operand: Operand,
    },
    /// The tiles of a block mask have a size that no kernel supports.
    #[error(
        "the tiles of `block_mask` are {rows} rows by {keys} keys; rows must be from 1 to {most}, and keys a multiple of {step} up to the same bound"
    )]
    BlockSize {
        /// Queries per tile.
        rows: u32,
        /// Keys per tile.
        keys: u32,
        /// The keys per tile must be a multiple of this.
        step: u32,
        /// The largest supported number of queries or of keys per tile.
        most: u32,
    },
    /// Batches or heads share the tiles of a block mask, but their masks may differ.
    #[error(
        "`block_mask` has the same tiles for every `{member}`, but {what} may depend on it; call `BlockMask::{remedy}`"
    )]
    BlockMaskShared {
        /// The mask that may differ: the mask or the `mask_mod`.
        what: &'static str,
        /// The member of `At` that it may depend on.
        member: &'static str,
        /// The method of `BlockMask` that gives each batch or head its own tiles.
        remedy: &'static str,
    },
    /// More keys are appended than the cache can hold.
    #[error("{len_q} keys are appended to a cache of len_kv = {len_kv}; append fewer at a time, or give it more room")]
    CacheTooShort {
        /// Queries, and so keys to append.
        len_q: u32,
        /// Keys that the cache can hold.
        len_kv: u32,
    },
    /// A rotary embedding does not fit the head size.
    #[error(
        "the rotary embedding rotates {dims} elements; it must be a multiple of {step}, from {step} to dim_qk = {dim_qk}"
    )]
    RotaryDims {
        /// The elements to rotate.
        dims: u32,
        /// Their number must be a multiple of this.
        step: u32,
        /// The head size of queries and keys.
        dim_qk: u32,
    },
    /// The table of a rotary embedding is too short.
    #[error("the rotary table has {positions} positions, fewer than len_kv = {len_kv}; make it that long")]
    RotaryPositions {
        /// Positions in the table.
        positions: u32,
        /// Keys that the cache can hold.
        len_kv: u32,
    },
    /// Two settings cannot be combined.
    #[error("`{one}` cannot be combined with `{other}`; {remedy}")]
    Combined {
        /// The method of the builder that asked for one of them.
        one: &'static str,
        /// The method that asked for the other.
        other: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },
    /// A program in the score is invalid.
    #[error("{function}, line {line}, column {column}: {message}")]
    Program {
        /// The program that is invalid.
        function: Function,
        /// The line, in the user's text, from 1.
        line: u32,
        /// The column, in bytes, from 1.
        column: u32,
        /// A description of the error.
        message: String,
    },
    /// Two elements of an output, or of a cache that is appended to, share an index in its buffer.
    #[error(
        "the layout of `{operand}` lets elements overlap (strides {stride:?} over extents {extent:?}); each element of an output needs its own place"
    )]
    Overlapping {
        /// The output.
        operand: Operand,
        /// Its strides along (batch, head, row, column).
        stride: [i64; 4],
        /// Its extents along the same axes.
        extent: [u32; 4],
    },
    /// Gradients are wanted of a problem that does not keep its log-sum-exp.
    #[error("gradients read the log-sum-exp of the forward pass; call `lse` on the problem")]
    GradientsNeedLse,
    /// The list of the gradients that are wanted is empty.
    #[error("no gradient is wanted; leave out `of` for all of them")]
    NoGradients,
    /// An operand is not a gradient, or is one of an input that the problem does not have.
    #[error(
        "`{operand}` is not the gradient of an input of this problem; `of` takes dq, dk, dv and, with a bias or sinks, dbias and dsinks"
    )]
    NotAGradient {
        /// The operand.
        operand: Operand,
    },
    /// A `score_mod` has no derivative, or a derivative no `score_mod`.
    #[error("{}", if *.has_score_mod {
        "the problem has a `score_mod`; give its derivative by `score_mod_grad` (return `gradient` if the `score_mod` only adds to the score)"
    } else {
        "`score_mod_grad` was given, but the problem has no `score_mod`; leave it out"
    })]
    ScoreModGrad {
        /// Whether the problem has a `score_mod`.
        has_score_mod: bool,
    },
    /// Different pairs share an element of the bias other than by a stride of 0, so its gradient has no layout.
    #[error(
        "the layout of `bias` lets elements overlap (strides {stride:?} over extents {extent:?}), so `dbias` cannot be computed; leave it out by `of`, or give each pair its own element or a stride of 0"
    )]
    BiasOverlaps {
        /// Its strides along (batch, head, query, key).
        stride: [i64; 4],
        /// Its extents along the same axes, 1 where it broadcasts.
        extent: [u32; 4],
    },
    /// The list of the heads whose weights are wanted is empty.
    #[error("`weights_of` was given no head; leave it out for no weights")]
    WeightsOfNoHead,
    /// The weights of a head are wanted that does not exist.
    #[error("the weights of head {head} are wanted, but heads are numbered from 0 and there are {heads_q}")]
    WeightsOfMissingHead {
        /// The head that does not exist.
        head: u32,
        /// Number of query heads.
        heads_q: u32,
    },
    /// The weights of a head are wanted twice.
    #[error("`weights_of` names head {head} twice; its weights are written once, so name it once and read them twice")]
    WeightsOfHeadTwice {
        /// The head that is named twice.
        head: u32,
    },
    /// The weights of rows are wanted that do not exist.
    #[error("the weights of rows {start}..{end} are wanted, which must be a range within 0..{len_q} (`len_q`)")]
    WeightsOfMissingRows {
        /// The first row.
        start: u32,
        /// One past the last row.
        end: u32,
        /// Number of query rows.
        len_q: u32,
    },
}
