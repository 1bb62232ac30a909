//! Errors in binding buffers to a plan and in reading results back.

use crate::plan::scratch::ScratchSize;
use crate::problem::function::Function;
use crate::problem::operand::Operand;

/// The buffers do not fit the operands. Returned by [`crate::Plan::bind`] and [`crate::MergePlan::bind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The problem uses an operand that was not given.
    #[error("the problem uses `{operand}`, but no buffer was given for it")]
    Missing {
        /// The missing operand.
        operand: Operand,
    },
    /// An operand was given that the problem does not use.
    #[error(
        "a buffer was given for `{operand}`, which the problem does not mention; add it to the problem, or leave it out"
    )]
    Unused {
        /// The unused operand.
        operand: Operand,
    },
    /// The bound range is too small.
    #[error("`{operand}` needs {need} bytes, but the binding holds {got}")]
    TooSmall {
        /// The operand whose binding is too small.
        operand: Operand,
        /// Bytes the layout reaches, rounded up to four.
        need: u64,
        /// Bytes from the binding's offset to its end.
        got: u64,
    },
    /// A host slice is too short.
    #[error("`{operand}` needs {need} elements, but the slice holds {got}")]
    TooShort {
        /// The operand whose slice is too short.
        operand: Operand,
        /// Elements the layout reaches.
        need: u64,
        /// Elements in the slice.
        got: u64,
    },
    /// The bounds of ragged sequences do not ascend, or end past the rows there are.
    #[error(
        "`{operand}` is {bound} at [{at}]; it must be at least the number before it and at most {total}, the rows there are"
    )]
    Bound {
        /// The bounds of queries or of keys.
        operand: Operand,
        /// The index of the bound.
        at: u32,
        /// The bound.
        bound: u32,
        /// The rows of the queries or of the keys.
        total: u32,
    },
    /// A block table lists a page that does not exist, within the keys of a sequence.
    #[error(
        "`block_table` is {page} at [{sequence}, {nth}], within the keys of the sequence, but there are {pages} pages"
    )]
    NoSuchPage {
        /// The sequence.
        sequence: u32,
        /// The index in its row of the table.
        nth: u32,
        /// The page.
        page: u32,
        /// How many pages there are.
        pages: u32,
    },
    /// The problem's keys and values are quantized, but were not given as words.
    #[error("`{operand}` is quantized: give `{operand}_words`, rows as `Quantization` describes them")]
    MissingWords {
        /// The keys or the values.
        operand: Operand,
    },
    /// Words were given for keys or values that the problem does not quantize.
    #[error("`{operand}_words` was given, but `{operand}` is not quantized; call `kv_quantized`, or give `{operand}`")]
    UnusedWords {
        /// The keys or the values.
        operand: Operand,
    },
    /// The problem has a program in its score, which the reference needs as a Rust function.
    #[error(
        "the problem has a `{function}`, but the CPU does not run its WGSL; pass it as a Rust function in `reference::Programs`"
    )]
    MissingProgram {
        /// The missing program.
        function: Function,
    },
    /// A Rust function was given for a program that the problem does not have.
    #[error("a function was given for `{function}`, which the problem does not have")]
    UnusedProgram {
        /// The program that the problem does not have.
        function: Function,
    },
    /// The requested row does not exist in the problem.
    #[error("there is no row {at:?}: (batch, head, query) must be below {extent:?}")]
    NoSuchRow {
        /// Batch, head and query of the requested row.
        at: [u32; 3],
        /// Number of batches, heads and queries.
        extent: [u32; 3],
    },
    /// The requested pair does not exist in the merge.
    #[error("there is no pair {n}: the merge has {pairs}, counted from 0")]
    NoSuchPair {
        /// The requested pair.
        n: u32,
        /// Number of pairs.
        pairs: u32,
    },
    /// The device could not create or bind a buffer.
    #[error(
        "the device could not create or bind a buffer for `{operand}`: it is lost, destroyed or out of memory; create another device"
    )]
    DeviceLost {
        /// The operand that the buffer is for.
        operand: Operand,
    },
    /// The scratch was made for a smaller plan, or for a plan that needs another kind of scratch.
    #[error("the plan needs scratch of {need}, but the given scratch has {got}; create it with `Plan::scratch`")]
    Scratch {
        /// What the plan needs.
        need: ScratchSize,
        /// What the scratch has.
        got: ScratchSize,
    },
    /// The offset of a binding is not a multiple of what the device requires.
    #[error(
        "`{operand}` is bound at byte {offset}, but this device requires a multiple of {alignment}; bind at an earlier multiple and add the rest to the layout's offset"
    )]
    Misaligned {
        /// The misaligned operand.
        operand: Operand,
        /// The binding's offset, in bytes.
        offset: u64,
        /// `min_storage_buffer_offset_alignment`.
        alignment: u64,
    },
    /// A tensor does not begin with an element.
    #[error("byte {byte} is not a multiple of the {element_bytes} bytes of an element")]
    PartOfElement {
        /// The byte at which it begins.
        byte: u64,
        /// Bytes per element.
        element_bytes: u64,
    },
    /// The buffer was created without a required usage.
    #[error("the buffer for `{operand}` was created without {missing:?}; add it to `BufferDescriptor::usage`")]
    Usage {
        /// The operand that the buffer is for.
        operand: Operand,
        /// The missing usages.
        missing: wgpu::BufferUsages,
    },
    /// An output shares its buffer with an input, or its bytes with another operand; or, in a problem with shared buffers,
    /// an operand shares its buffer with the lengths or the block mask.
    #[error(
        "`{output}` and `{other}` are bound to the same buffer; an output must not share a buffer with an input, or bytes with another output. With `ProblemBuilder::shared_buffers` operands may share a buffer if outputs are apart from all others, but the lengths and the block mask need buffers of their own"
    )]
    Aliased {
        /// The output, or the operand that is declared as writable.
        output: Operand,
        /// The other operand.
        other: Operand,
    },
}

/// A result could not be read back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadbackError {
    /// The encoder was dropped, or the device lost, before the copy ran.
    #[error("the readback was recorded but never ran: submit its encoder's command buffer, and keep the device")]
    NeverSubmitted,
    /// The encoder's command buffer was submitted, but wgpu refused it.
    #[error(
        "the commands were submitted but never ran: the encoder, or another command buffer of that submission, was invalid, or a buffer in it was destroyed; the device's uncaptured-error handler has the reason"
    )]
    NeverRan,
    /// The device could not create a buffer for the copy.
    #[error("the device could not create a buffer: it is lost, destroyed or out of memory; create another device")]
    DeviceLost,
    /// wgpu could not map the staging buffer.
    #[error("mapping the staging buffer failed: {0}")]
    Map(String),
    /// The buffer to read was created without a required usage.
    #[error("the buffer to read was created without {0:?}; add it to `BufferDescriptor::usage`")]
    Usage(wgpu::BufferUsages),
    /// The range to read is not valid for a copy.
    #[error(
        "cannot read {size} bytes at byte {offset}: both must be multiples of 4, the size not 0, and the buffer holds {buffer}"
    )]
    Range {
        /// Offset of the range, in bytes.
        offset: u64,
        /// Size of the range, in bytes.
        size: u64,
        /// Size of the buffer, in bytes.
        buffer: u64,
    },
}
