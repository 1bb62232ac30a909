//! Why a description makes no sense.

use crate::problem::dtype::Dtype;
use crate::problem::function::Function;
use crate::problem::operand::Operand;

/// The description makes no sense. From [`crate::ProblemBuilder::build`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProblemError {
    /// There are no heads, or a head size is 0.
    #[error("`{axis}` is 0; it must be at least 1 (only `batch`, `len_q` and `len_kv` may be 0)")]
    Empty {
        /// The axis.
        axis: &'static str,
    },
    /// An axis is past what the shaders index.
    #[error("`{axis}` is {value}, and at most {most} is supported; split the problem along it")]
    TooLong {
        /// The axis.
        axis: &'static str,
        /// Its length.
        value: u32,
        /// The bound.
        most: u32,
    },
    /// Query heads do not divide into groups.
    #[error(
        "heads_q = {heads_q} is not a multiple of heads_kv = {heads_kv}; grouped-query attention shares one KV head among heads_q / heads_kv query heads"
    )]
    HeadsNotGrouped {
        /// Query heads.
        heads_q: u32,
        /// KV heads.
        heads_kv: u32,
    },
    /// The scale is NaN, infinite, or too near to the end of f32's range.
    #[error("scale = {0} must be at most 2.3e38 in magnitude; leave it out for 1/√dim_qk")]
    Scale(f32),
    /// The softcap is not positive, or too large to cap anything.
    #[error("softcap = {0} must be positive and at most 1e30; leave it out for no cap")]
    Softcap(f32),
    /// The operand does not broadcast to the scores.
    #[error("`{operand}` has {got} along `{axis}`, but the scores have {want}; it must be {want}, or 1 to broadcast")]
    NotBroadcastable {
        /// Which operand.
        operand: Operand,
        /// Along which axis.
        axis: &'static str,
        /// Its length there.
        got: u32,
        /// The scores' length there.
        want: u32,
    },
    /// The bias is stored in a third type.
    #[error("bias is stored as {bias} but the elements are {elements}; store it as f32 or as {elements}")]
    BiasDtype {
        /// The bias's type.
        bias: Dtype,
        /// The elements' type.
        elements: Dtype,
    },
    /// Strides reach past 2⁶⁴.
    #[error("the strides of `{operand}` reach past 2^64 bytes; check them")]
    Unaddressable {
        /// Which operand.
        operand: Operand,
    },
    /// Negative strides reach before the first element.
    #[error("the strides of `{operand}` reach before its first element; begin later, with `ScoreLayout::at`")]
    BeforeFirst {
        /// Which operand.
        operand: Operand,
    },
    /// A program in the score is wrong.
    #[error("{function}, line {line}, column {column}: {message}")]
    Program {
        /// Which program.
        function: Function,
        /// The line, in the user's text, from 1.
        line: u32,
        /// The column, in bytes, from 1.
        column: u32,
        /// What is wrong.
        message: String,
    },
    /// Two elements of an output share a place.
    #[error(
        "the layout of `{operand}` lets elements overlap (strides {stride:?} over extents {extent:?}); an output needs a place for each"
    )]
    Overlapping {
        /// Which operand.
        operand: Operand,
        /// Its strides along (batch, head, row, column).
        stride: [i64; 4],
        /// Its extents.
        extent: [u32; 4],
    },
}
