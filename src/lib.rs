//! Exact fused scaled dot-product attention for anything that holds a [`wgpu::Device`].
//!
//! ```text
//! O = softmax(scale · Q Kᵀ → softcap → score_mod → + bias → − ALiBi → mask) V
//! ```
//!
//! One kernel, no Lq × Lk matrix in memory, recorded into your own command encoder, on Vulkan, Metal, DX12, GL and
//! WebGPU. Describe, plan, bind, record:
//!
//! ```
//! use wgpu_attention::{Attention, Diagonal, Operands, Problem, Readback, Shape};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # // A device without a GPU: everything but the arithmetic.
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
//! let values: Vec<f32> = pollster::block_on(readback.values(problem.dtype()))?;
//! # assert_eq!(values.len(), 8 * 100 * 64);
//! # Ok(()) }
//! ```
//!
//! Nothing here submits, polls, spawns or writes to a queue, except the functions in [`blocking`], for those without an
//! encoder: host slices in, host vectors out. [`reference`](mod@reference) is the definition in f64 on the CPU; check your
//! own integration against it.
//!
//! # What it means
//!
//! | question | answer |
//! |---|---|
//! | scale | `1/√dim_qk` unless given; at most 2.3e38 in magnitude, and drivers may take one below 1.2e-38 for 0 |
//! | order | scale → softcap `c·tanh(s/c)` → `score_mod` → + bias → − ALiBi slope · distance → mask → softmax |
//! | mask | boolean, non-zero byte = attend; separate from the additive bias; both broadcast, with any strides, negative ones too |
//! | a program in the score | WGSL of yours that becomes part of the kernel: [`programs`] |
//! | ALiBi | `− slope[h] · \|i + offset − j\|`, measured from the [`Diagonal`] |
//! | a sink | one more logit a head in the softmax, without a value; it is in the LSE, and is the LSE of a row that sees no key |
//! | causal, window | measured from the [`Diagonal`]; composed with the mask, `mask_mod` and the lengths by "and" |
//! | window | inclusive: row `i`, standing at key `d`, sees `d − left ..= d + right` |
//! | a row that sees no key | output exactly 0, LSE −∞ (its sink, where there is one), weights 0 |
//! | no keys (`len_kv` = 0) | no row sees a key |
//! | no rows (`batch` or `len_q` = 0) | nothing to do, and no error |
//! | a bias of −∞, or a `score_mod` that returns it | hides the key; any finite bias or score, however low, does not |
//! | NaN or ∞ behind the mask or past the length | never reaches the output |
//! | NaN or ∞ in a visible key or query | makes the rows that see it NaN, their LSE too, but for a key that scores −∞; never touches another row |
//! | NaN or ∞ in a visible value | makes the outputs that see it NaN or ∞, unless its weight is 0; never touches another row, nor any LSE |
//! | a score of −∞ | has weight 0 beside other scores; a row that sees nothing else is NaN, its LSE and weights too |
//! | scores | must fit f32: a dot product past 3.4e38 overflows to ±∞ |
//! | values | are summed before they are divided by the sum of the weights, in f32: safe up to 2e37 / `len_kv` in magnitude |
//! | LSE | natural logarithm, f32 |
//! | grouped queries | query head `h` reads KV head `h / (heads_q / heads_kv)` |
//! | head sizes | 1 to 576, values' own |
//! | element types | f32, f16, bf16 storage, none of which needs a device feature; softmax and accumulation in f32 |
//! | determinism | same inputs, shape and adapter, same bits; a row's bits do not depend on what the rows and batches around it hold |
//! | size | a problem past the device's binding size, 65 535 workgroups or a driver's patience becomes several dispatches, or an error that says why not |
//!
//! # Matrix units
//!
//! f16 attention runs on tensor cores, matrix cores and simdgroup matrices where the app opts in to them:
//! [`blocking::matrix_unit`] has the lines. Weights are then rounded to f16 before they meet the values, as everywhere
//! that such units are used; scores, softmax and sums stay in f32.
//!
//! # Cost
//!
//! Time grows with `B · Hq · Lq · Lk · (Dqk + Dv)` over the tiles that some row may see. Memory beyond the operands is a few
//! hundred bytes of parameters, and [`Plan::scratch_bytes`] where the keys are split or staged: it grows with the lengths, never
//! with their product. The first plan of a [`Variant`] compiles a pipeline; later ones share it.

#![forbid(unsafe_code)]

// What is asked.
mod problem;
// Where it runs.
mod device;
// Which code runs it.
mod kernel;
// How it is split, cut and compiled.
mod plan;
// How it is bound and recorded.
mod record;
// For those on the host.
mod host;
pub mod programs;
#[doc(hidden)]
pub mod testing;

pub use wgpu;

pub use device::caps::Caps;
pub use device::matrix_unit::{Fragment, MatrixUnit, Multiplier, Tiles};
#[cfg(not(target_arch = "wasm32"))]
pub use host::blocking;
pub use host::inputs::{Buffers, Inputs};
pub use host::reference;
pub use kernel::error::PlanError;
pub use kernel::select::candidates;
pub use kernel::variant::Variant;
pub use plan::scratch::{Scratch, ScratchSize};
pub use plan::{Attention, Plan};
pub use problem::Problem;
pub use problem::builder::{ProblemBuilder, Slopes};
pub use problem::dtype::Dtype;
pub use problem::error::ProblemError;
pub use problem::function::Function;
pub use problem::layout::{Layout, ScoreLayout, View};
pub use problem::operand::Operand;
pub use problem::positions::{Diagonal, Window};
pub use problem::shape::Shape;
pub use record::call::{Call, Dispatch};
pub use record::error::{BindError, ReadbackError};
pub use record::operands::Operands;
pub use record::readback::Readback;
