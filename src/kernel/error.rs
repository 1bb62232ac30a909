//! Why a device cannot run a problem.

use crate::kernel::variant::Variant;
use crate::problem::operand::Operand;

/// This device cannot run it. From [`crate::Attention::plan`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A head size no kernel covers.
    #[error("{axis} = {dim}, but the kernels cover 1 to {most}; compute larger heads on the host")]
    HeadSize {
        /// `dim_qk` or `dim_v`.
        axis: &'static str,
        /// The size asked for.
        dim: u32,
        /// The largest supported.
        most: u32,
    },
    /// The device was created with too small a limit.
    #[error(
        "{variant} needs `{limit}` of at least {need}, but the device grants {granted}; request it in `DeviceDescriptor::required_limits`"
    )]
    Limit {
        /// Which kernel.
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
        /// Which operand.
        operand: Operand,
        /// The smallest slice, in bytes.
        need: u64,
        /// The device's limit, in bytes.
        granted: u64,
    },
    /// The driver would end the kernel's loops early, and the result would be wrong.
    #[error(
        "len_kv = {len_kv}, but this software driver ends loops early: {variant} is right up to {most} keys; split the keys and merge by LSE, or use another driver"
    )]
    TooManyKeys {
        /// Which kernel.
        variant: Variant,
        /// Keys asked for.
        len_kv: u32,
        /// Keys it reaches.
        most: u32,
    },
    /// The device gave no buffer for the parameters.
    #[error("the device gave no buffer: it is lost, destroyed or out of memory; create another")]
    DeviceLost,
    /// The description asks for an absurd amount of work.
    #[error("this would take more than {most} dispatches; check the shape, or plan parts of it")]
    TooManyDispatches {
        /// The bound.
        most: usize,
    },
    /// The pinned variant does not fit the problem.
    #[error("{variant} cannot run this problem, but {selected} can; pin one of `Attention::candidates`")]
    VariantMismatch {
        /// The variant asked for.
        variant: Variant,
        /// The one selection would take.
        selected: Variant,
    },
    /// The stored name is no candidate's.
    #[error(
        "no candidate for this problem is named {name:?}: the device, its driver or this library has changed since it was stored; tune again, or take {selected}, as selection would"
    )]
    UnknownVariant {
        /// The name asked for.
        name: String,
        /// The one selection would take.
        selected: Variant,
    },
}
