//! Why buffers do not fit a plan, and why a result did not come back.

use crate::plan::scratch::ScratchSize;
use crate::problem::function::Function;
use crate::problem::operand::Operand;

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
    /// The problem has a program in its score, which the reference takes as a Rust function.
    #[error(
        "the problem has a `{function}`, and the CPU does not run its WGSL; give it as a Rust function in `reference::Programs`"
    )]
    MissingProgram {
        /// Which program.
        function: Function,
    },
    /// A Rust function was given for a program that the problem does not have.
    #[error("a function was given for `{function}`, which the problem does not have")]
    UnusedProgram {
        /// Which program.
        function: Function,
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
