//! Exact fused scaled dot-product attention for any program that has a [`wgpu::Device`].
//!
//! ```text
//! O = softmax(scale · Q Kᵀ → softcap → score_mod → + bias → − ALiBi → mask) V
//! ```
//!
//! Attention runs as one fused kernel, without an Lq × Lk matrix in memory, and is recorded into your own command
//! encoder. It runs on Vulkan, Metal, DX12, GL and WebGPU. There are four steps: describe, plan, bind, record.
//!
//! ```
//! use wgpu_attention::{Attention, Diagonal, Dtype, Operands, Problem, Readback, Shape};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # // A device without a GPU, which does everything except the arithmetic.
//! # let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
//! # let buffer = |elements: u64| device.create_buffer(&wgpu::BufferDescriptor {
//! #     label: None,
//! #     size: elements * 4,
//! #     usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
//! #     mapped_at_creation: false,
//! # });
//! # let (q, k, v, out) = (buffer(8 * 100 * 64), buffer(2 * 300 * 64), buffer(2 * 300 * 64), buffer(8 * 100 * 64));
//! // What: 8 query heads share 2 KV heads; 100 new tokens at the end of 300.
//! let shape = Shape::new(1, 8, 100, 64).kv_heads(2).kv_len(300);
//! let problem = Problem::builder(shape).causal(Diagonal::BottomRight).build()?;
//!
//! // Compiled and sized, once.
//! let attention = Attention::new(&device);
//! let plan = attention.plan(&problem)?;
//!
//! // Bound to your buffers, once.
//! let whole = wgpu::Buffer::as_entire_buffer_binding;
//! let call = plan.bind(&Operands::new(whole(&q), whole(&k), whole(&v), whole(&out)))?;
//!
//! // Recorded among your own commands, every frame.
//! let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
//! {
//!     let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
//!     // … your dispatches
//!     call.dispatch(&mut pass);
//!     // … and more of yours
//! }
//! let readback = Readback::record(&device, &mut encoder, whole(&out))?;
//! queue.submit([encoder.finish()]);
//! # device.poll(wgpu::PollType::wait_indefinitely())?;
//! // In a browser: `readback.values(Dtype::F32).await?`. Blocking would hang the tab, as the result arrives by its event loop.
//! let values: Vec<f32> = pollster::block_on(readback.values(Dtype::F32))?;
//! # assert_eq!(values.len(), 8 * 100 * 64);
//! # Ok(()) }
//! ```
//!
//! The library does not submit, poll, spawn or write to a queue. The exceptions are the functions in [`submitting`],
//! which submit and are awaited, and in `blocking`, which submit and poll and are not there in a browser. They take host slices and
//! return host vectors, for programs without their own encoder. [`reference`](mod@reference) is the definition in f64 on the CPU; check
//! your integration against it.
//!
//! # Semantics
//!
//! | question | answer |
//! |---|---|
//! | scale | `1/√dim_qk` unless given; at most 2.3e38 in magnitude, and drivers may treat a magnitude below 1.2e-38 as 0 |
//! | order | scale → softcap `c·tanh(s/c)` → `score_mod` → + bias → − ALiBi slope · distance → mask → softmax |
//! | mask | boolean, non-zero byte = attend, or another [`MaskFormat`]; separate from the additive bias; both broadcast and may have any strides, including negative ones |
//! | a program in the score | your WGSL functions, compiled into the kernel: [`programs`] |
//! | a block mask | part of the mask: an empty tile hides every pair; in a full tile the mask and the `mask_mod` are ignored; in a partial tile they decide for each pair |
//! | ALiBi | `− slope[h] · \|i + offset − j\|`, measured from the [`Diagonal`] |
//! | a sink | one extra logit per head in the softmax, without a value; the LSE includes it, and it is the LSE of a row that sees no key |
//! | dropout | after the softmax: each weight becomes 0, even in a row that is NaN, or is multiplied by `1 / (1 − p)`; the LSE is that without dropout, and a sink is not dropped; a NaN in the value of a dropped weight may still reach the output |
//! | lengths | a number above `len_kv` or `len_q` means that many; [`Diagonal::BottomRight`] is measured from each sequence's own lengths |
//! | rows past a sequence's queries | output 0; LSE −∞, even with a sink; weights 0 |
//! | rows of no sequence, in a ragged batch | not written |
//! | pages, rows and table entries past a sequence's keys | never read |
//! | a ring | keys from `length − capacity` on can be seen |
//! | causal, window | measured from the [`Diagonal`]; combined with the mask, `mask_mod` and the lengths by "and" |
//! | window | inclusive: row `i`, standing at key `d`, sees `d − left ..= d + right` |
//! | a row that sees no key | output exactly 0; LSE −∞, or the sink if there is one; weights 0 |
//! | no keys (`len_kv` = 0) | no row sees a key |
//! | no rows (`batch` or `len_q` = 0) | nothing is computed; this is not an error |
//! | a bias of −∞, or a `score_mod` that returns it | hides the key; any finite bias or score, however low, does not |
//! | NaN or ∞ at a masked position or past the length | never reaches the output |
//! | NaN or ∞ in a visible key or query | makes the output and the LSE of rows that see it NaN, unless the key scores −∞; other rows are not affected |
//! | NaN or ∞ in a visible value | makes the outputs that see it NaN or ∞, unless its weight is 0; other rows and all LSEs are not affected |
//! | a score of −∞ | has weight 0 if the row has other scores; if it has none, its output, LSE and weights are NaN |
//! | scores | must fit f32: a dot product past 3.4e38 overflows to ±∞ |
//! | values | are summed in f32 and then divided by the sum of the weights: safe up to 2e37 / `len_kv` in magnitude |
//! | LSE | natural logarithm, f32 |
//! | grouped queries | query head `h` reads KV head `h / (heads_q / heads_kv)` |
//! | head sizes | 1 to 576; values may have a different size than keys |
//! | quantized keys and values | the numbers times the row's scale, in f32: see [`Quantization`] |
//! | element types | f32, f16, bf16 storage, none of which needs a device feature; queries, keys with values, the output and a bias each have their own; softmax and accumulation in f32 |
//! | determinism | the same inputs, shape and adapter give the same bits; a row's bits do not depend on the contents of other rows and batches |
//! | size | a problem that exceeds the device's binding size, 65 535 workgroups or the driver's time limit is split into several dispatches, or fails with an error that says why it cannot be |
//!
//! # Serving
//!
//! Sequences of a batch may have their own lengths on the device ([`ProblemBuilder::kv_lengths`],
//! [`q_lengths`](ProblemBuilder::q_lengths)), follow one another without padding
//! ([`ragged_q`](ProblemBuilder::ragged_q), [`ragged_kv`](ProblemBuilder::ragged_kv)), and keep their keys in pages
//! ([`paged_kv`](ProblemBuilder::paged_kv)), in rings ([`ring_kv`](ProblemBuilder::ring_kv)), in another type
//! ([`kv_dtype`](ProblemBuilder::kv_dtype)) or quantized ([`kv_quantized`](ProblemBuilder::kv_quantized)).
//! [`Attention::plan_append`] writes new keys and values into such a cache, rotated by their positions. One plan and one
//! bound call serve all steps, whose lengths the device reads.
//!
//! # Merging
//!
//! A [`Merge`] combines results over different keys, pairs of an output and its LSE, into the result over all of them: for
//! a prefix that a batch shares, for keys that arrive or fit only in chunks, for several caches. Its page says what holds for
//! rows that saw nothing and for numbers that are not finite.
//!
//! # Training
//!
//! [`Problem::gradients`] describes the gradients of a problem's inputs, and [`Attention::plan_gradients`] plans them: see
//! [`Gradients`]. Memory beyond the operands is 16 bytes per row, and on software GPUs a copy of the inputs in textures.
//!
//! # Matrix units
//!
//! f16 attention runs on tensor cores, matrix cores and simdgroup matrices if the app opts in: see the example at
//! [`submitting::matrix_unit`]. Weights are then rounded to f16 before they are multiplied by the values, as is usual on
//! such units; scores, softmax and sums stay in f32. All of `q`, `k`, `v` and the output must be f16.
//!
//! # In a framework
//!
//! Other libraries measure causal masks from different corners, and some store masks the other way round:
//!
//! | library | causal | its boolean mask |
//! |---|---|---|
//! | PyTorch `scaled_dot_product_attention` | [`Diagonal::TopLeft`] | `true` attends: [`MaskFormat::BytesAttend`] |
//! | ONNX `Attention`, without past keys | [`Diagonal::TopLeft`] | `true` attends |
//! | flash-attention 2.1 and later | [`Diagonal::BottomRight`] | none |
//! | burn | [`Diagonal::BottomRight`] | `true` hides, as u32 on the GPU: [`MaskFormat::WordsHide`] |
//!
//! - [`Problem`] is `Eq + Hash` (by the bits of its numbers), so it can be the key of a map of plans.
//! - If tensors are parts of one large buffer, [`ProblemBuilder::shared_buffers`] allows an output in the buffer of its
//!   inputs, and [`Attention::binding_at`] finds the binding and the layout of what begins anywhere in it.
//! - When a cache grows, [`Plan::resized`] plans other lengths by the same pipelines, and [`Call::rebound`] binds another
//!   buffer.
//!
//! The host needs about 2 µs to bind one kernel, 2 µs to record it and 6 µs to plan a problem whose kernel is compiled,
//! besides the driver (one CPU core, wgpu's noop device: `cargo bench --bench host`). So binding in each call costs
//! about as much as recording, and keeping calls saves half.
//!
//! # Cost
//!
//! Time grows with `B · Hq · Lq · Lk · (Dqk + Dv)`, counting only the tiles that some row may see. Memory beyond the
//! operands is a few hundred bytes of parameters, plus [`Plan::scratch_bytes`] if the keys are split or staged. Scratch
//! grows with the lengths, never with their product. The first plan of a [`Variant`] compiles a pipeline; later plans
//! share it.

#![forbid(unsafe_code)]

// The description of a problem.
mod problem;
// The capabilities of a device.
mod device;
// The kernels, and their selection.
mod kernel;
// Splitting, cutting and compiling a problem for a device.
mod plan;
// Binding buffers and recording commands.
mod record;
// The host-side interface and the reference.
mod host;
pub mod programs;
#[doc(hidden)]
pub mod testing;

/// The definition: attention and its gradients in f64, as the formulas say, one row at a time. It uses no tiling and no online
/// softmax, and shares nothing with the kernels. It is slow by design; check your integration against it.
pub mod reference {
    pub use crate::host::reference::{
        At, Merged, Programs, Reference, Row, attention, attention_with, block_mask, merge, row, row_with,
    };
    pub use crate::host::reference_gradients::{ReferenceGradients, gradients, gradients_of_rows};
}

pub use wgpu;

pub use device::caps::Caps;
pub use device::matrix_unit::{Fragment, MatrixUnit, Multiplier, Tiles};
#[cfg(not(target_arch = "wasm32"))]
pub use host::blocking;
pub use host::inputs::{Buffers, Inputs};
pub use host::submitting;
pub use kernel::error::PlanError;
pub use kernel::select::candidates;
pub use kernel::variant::Variant;
pub use plan::error::ResizeError;
pub use plan::merge::MergePlan;
pub use plan::scratch::{Scratch, ScratchSize};
pub use plan::{Attention, Plan};
pub use problem::Problem;
pub use problem::append::{Append, Rotary, RotaryPairs};
pub use problem::block_mask::BlockMask;
pub use problem::builder::{ProblemBuilder, Slopes};
pub use problem::dropout::{Philox, RngState};
pub use problem::dtype::Dtype;
pub use problem::error::ProblemError;
pub use problem::function::Function;
pub use problem::gradients::{Gradients, GradientsBuilder};
pub use problem::layout::{Layout, ScoreLayout, View};
pub use problem::mask::MaskFormat;
pub use problem::merge::{Merge, MergeBuilder};
pub use problem::operand::Operand;
pub use problem::positions::{Diagonal, Window};
pub use problem::quantization::Quantization;
pub use problem::sequences::Pages;
pub use problem::shape::Shape;
pub use record::call::{Call, Dispatch};
pub use record::error::{BindError, ReadbackError};
pub use record::operands::Operands;
pub use record::readback::Readback;
