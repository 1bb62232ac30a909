//! What can go wrong, by moment: describing, planning, binding, reading back. Recording cannot fail.

use crate::{Dtype, Operand, ScratchSize};

/// The description makes no sense. From [`crate::ProblemBuilder::build`].
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProblemError {
    /// There are no heads, or a head size is 0.
    #[error("`{axis}` is 0; it must be at least 1 (only `batch`, `len_q` and `len_kv` may be 0)")]
    Empty {
        /// Which.
        axis: &'static str,
    },
    /// An axis is past what the shaders index.
    #[error("`{axis}` is {value}, and at most {most} is supported; split the problem along it")]
    TooLong {
        /// Which.
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
    /// Two elements of an output share a place.
    #[error(
        "the layout of `{operand}` lets elements overlap (strides {stride:?} over extents {extent:?}); an output needs a place for each"
    )]
    Overlapping {
        /// Which operand.
        operand: Operand,
        /// Its strides along (batch, head, row, column).
        stride: [u64; 4],
        /// Its extents.
        extent: [u32; 4],
    },
}

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
        variant: crate::Variant,
        /// The name of the limit in `wgpu::Limits`.
        limit: &'static str,
        /// What the kernel needs.
        need: u64,
        /// What the device grants.
        granted: u64,
    },
    /// An operand cannot be sliced small enough to bind.
    #[error(
        "`{operand}` needs {need} bytes in one binding even for a single head's rows, but the device binds at most {granted}; request a larger `max_storage_buffer_binding_size`, or lay it out as (B, H, L, D)"
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
        variant: crate::Variant,
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
        variant: crate::Variant,
        /// The one selection would take.
        selected: crate::Variant,
    },
    /// The stored name is no candidate's.
    #[error(
        "no candidate for this problem is named {name:?}: the device, its driver or this library has changed since it was stored; tune again, or take {selected}, as selection would"
    )]
    UnknownVariant {
        /// The name asked for.
        name: String,
        /// The one selection would take.
        selected: crate::Variant,
    },
}

/// A buffer does not fit its operand. From [`crate::Plan::bind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The problem uses an operand that was not given.
    #[error("the problem uses `{operand}`, but no buffer was given for it")]
    Missing {
        /// Which operand.
        operand: Operand,
    },
    /// An operand was given that the problem does not use.
    #[error(
        "a buffer was given for `{operand}`, which the problem does not mention; say so in the problem, or leave it out"
    )]
    Unused {
        /// Which operand.
        operand: Operand,
    },
    /// The bound range is too small.
    #[error("`{operand}` needs {need} bytes, but the binding holds {got}")]
    TooSmall {
        /// Which operand.
        operand: Operand,
        /// Bytes the layout reaches, rounded up to four.
        need: u64,
        /// Bytes from the binding's offset to its end.
        got: u64,
    },
    /// A host slice is too short.
    #[error("`{operand}` needs {need} elements, but the slice holds {got}")]
    TooShort {
        /// Which operand.
        operand: Operand,
        /// Elements the layout reaches.
        need: u64,
        /// Elements in the slice.
        got: u64,
    },
    /// A row was asked for that the problem does not have.
    #[error("there is no row {at:?}: (batch, head, query) go up to, not including, {extent:?}")]
    NoSuchRow {
        /// Batch, head and query.
        at: [u32; 3],
        /// How many of each there are.
        extent: [u32; 3],
    },
    /// The device gave no buffer.
    #[error("the device gave no buffer for `{operand}`: it is lost, destroyed or out of memory; create another")]
    DeviceLost {
        /// Which operand.
        operand: Operand,
    },
    /// Scratch made for a smaller plan, or one of another kind.
    #[error("the plan needs scratch of {need}, but this one has {got}; make it with `Plan::scratch`")]
    Scratch {
        /// What the plan needs.
        need: ScratchSize,
        /// What the scratch has.
        got: ScratchSize,
    },
    /// The binding starts where the device cannot bind.
    #[error(
        "`{operand}` is bound at byte {offset}, but this device binds at multiples of {alignment}; bind an earlier multiple and put the rest in the layout's offset"
    )]
    Misaligned {
        /// Which operand.
        operand: Operand,
        /// The binding's offset.
        offset: u64,
        /// `min_storage_buffer_offset_alignment`.
        alignment: u64,
    },
    /// The buffer was created without a usage.
    #[error("the buffer for `{operand}` was created without {missing:?}; add it to `BufferDescriptor::usage`")]
    Usage {
        /// Which operand.
        operand: Operand,
        /// What is missing.
        missing: wgpu::BufferUsages,
    },
    /// An output shares its buffer with an input, or its bytes with another output.
    #[error(
        "`{output}` and `{other}` are bound to the same buffer; an output needs a buffer that no input is in, and bytes of its own"
    )]
    Aliased {
        /// The output.
        output: Operand,
        /// The other operand.
        other: Operand,
    },
}

/// The result did not come back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadbackError {
    /// The encoder was dropped, or the device lost, before the copy ran.
    #[error("the readback was recorded but never ran: submit its encoder's command buffer, and keep the device")]
    NeverSubmitted,
    /// The encoder's command buffer was submitted, and wgpu refused it.
    #[error(
        "the commands were submitted but never ran: the encoder, or another command buffer of that submission, was invalid, or a buffer in it was destroyed; the device's uncaptured-error handler has the reason"
    )]
    NeverRan,
    /// The device gave no buffer for the copy.
    #[error("the device gave no buffer: it is lost, destroyed or out of memory; create another")]
    DeviceLost,
    /// wgpu could not map the staging buffer.
    #[error("mapping the staging buffer failed: {0}")]
    Map(String),
    /// The source cannot be copied from.
    #[error("the buffer to read was created without {0:?}; add it to `BufferDescriptor::usage`")]
    Usage(wgpu::BufferUsages),
    /// The range to read is not one a copy accepts.
    #[error(
        "cannot read {size} bytes at byte {offset}: both must be multiples of 4, the size not 0, and the buffer holds {buffer}"
    )]
    Range {
        /// First byte.
        offset: u64,
        /// Length.
        size: u64,
        /// The buffer's size.
        buffer: u64,
    },
}
