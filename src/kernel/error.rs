//! Errors in planning: why a device cannot run a problem.

use crate::kernel::variant::Variant;
use crate::problem::operand::Operand;

/// The device cannot run the problem. Returned by [`crate::Attention::plan`] and [`crate::Attention::plan_merge`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A head size that no kernel supports.
    #[error("{axis} = {dim}, but the kernels support 1 to {most}; compute larger heads on the host")]
    HeadSize {
        /// `dim_qk` or `dim_v`.
        axis: &'static str,
        /// The requested size.
        dim: u32,
        /// The largest supported.
        most: u32,
    },
    /// The device was created with too small a limit.
    #[error(
        "{variant} needs `{limit}` of at least {need}, but the device grants {granted}; request it in `DeviceDescriptor::required_limits`"
    )]
    Limit {
        /// The kernel that needs more.
        variant: Variant,
        /// The name of the limit in `wgpu::Limits`.
        limit: &'static str,
        /// What the kernel needs.
        need: u64,
        /// What the device grants.
        granted: u64,
    },
    /// An operand cannot be sliced small enough to bind.
    #[error(
        "`{operand}` needs {need} bytes in one binding even for a single head's rows, but the device binds at most {granted}; request a larger `max_storage_buffer_binding_size`, or if it is a tensor, lay it out as (B, H, L, D)"
    )]
    TooLarge {
        /// The operand that is too large.
        operand: Operand,
        /// The smallest slice, in bytes.
        need: u64,
        /// The device's limit, in bytes.
        granted: u64,
    },
    /// The driver would end the kernel's loops early, and the result would be wrong.
    #[error(
        "len_kv = {len_kv}, but this software driver ends loops early: {variant} is correct up to {most} keys; split the keys and merge by LSE (`Attention::plan_merge`), or use another driver"
    )]
    TooManyKeys {
        /// The kernel.
        variant: Variant,
        /// Keys per head of the problem.
        len_kv: u32,
        /// The most keys that the kernel can process.
        most: u32,
    },
    /// The driver would end the loops of a gradient's kernel early, and the result would be wrong.
    #[error(
        "a workgroup of {variant} visits {rows} rows, but this software driver ends loops early: it is correct up to {most}; use shorter sequences or smaller batches, or another driver"
    )]
    TooManyRows {
        /// The kernel.
        variant: Variant,
        /// Rows that one workgroup visits.
        rows: u64,
        /// The most rows that one can visit.
        most: u32,
    },
    /// The pairs of a merge cannot be sliced small enough to bind.
    #[error(
        "the {pairs} pairs in `{operand}` need {need} bytes in one binding even for a single row, but the device binds at most {granted}; request a larger `max_storage_buffer_binding_size`, merge fewer pairs at a time and then their results, or lay the pairs of a row side by side"
    )]
    StackTooLarge {
        /// The operand that is too large.
        operand: Operand,
        /// The number of pairs.
        pairs: u32,
        /// The smallest slice, in bytes.
        need: u64,
        /// The device's limit, in bytes.
        granted: u64,
    },
    /// The driver would end the loop over the pairs early, and the result would be wrong.
    #[error(
        "{pairs} pairs are to be merged, but this software driver ends loops early: {variant} is correct up to {most}; merge fewer pairs at a time and then their results, or use another driver"
    )]
    TooManyPairs {
        /// The kernel.
        variant: Variant,
        /// The number of pairs.
        pairs: u32,
        /// The most pairs that the kernel can merge.
        most: u32,
    },
    /// wgpu, the compiler or the driver refused a kernel.
    #[error(
        "the device refused {variant}: {reason}; plan again if memory ran out, else pin another of `Attention::candidates` or use another driver"
    )]
    Refused {
        /// The kernel that was refused.
        variant: Variant,
        /// What wgpu or the compiler says.
        reason: String,
    },
    /// The device could not create a buffer for the parameters, or it was lost while it compiled.
    #[error("the device is lost, destroyed or out of memory; create another device")]
    DeviceLost,
    /// The problem needs more dispatches than are allowed.
    #[error("this would take more than {most} dispatches; check the shape, or plan parts of it")]
    TooManyDispatches {
        /// The largest number of dispatches.
        most: usize,
    },
    /// The problem appends nothing.
    #[error("the problem appends nothing to its cache; call `ProblemBuilder::append`")]
    NoAppend,
    /// The problem has no block mask to compute.
    #[error("the problem has no block mask; add one with `ProblemBuilder::block_mask`")]
    NoBlockMask,
    /// The pinned variant does not fit the problem.
    #[error("{variant} cannot run this problem, but {selected} can; pin one of `Attention::candidates`")]
    VariantMismatch {
        /// The requested variant.
        variant: Variant,
        /// The variant that selection would choose.
        selected: Variant,
    },
    /// No candidate has the stored name.
    #[error(
        "no candidate for this problem is named {name:?}: the device, its driver or this library has changed since it was stored; tune again, or use {selected}, which selection would choose"
    )]
    UnknownVariant {
        /// The requested name.
        name: String,
        /// The variant that selection would choose.
        selected: Variant,
    },
}
