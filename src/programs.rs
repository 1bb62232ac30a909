//! Programs in the score: `FlexAttention`'s `score_mod`, `mask_mod` and captured buffers, in WGSL. Documentation only.
//!
//! A problem may have a function that modifies each score, and one that decides whether a query sees a key. Their text
//! is compiled into the kernel, so they cost their own computation and no memory:
//!
//! ```
//! use wgpu_attention::{Problem, Shape};
//! # fn main() -> Result<(), wgpu_attention::ProblemError> {
//! let problem = Problem::builder(Shape::new(1, 8, 1000, 64))
//!     .score_mod("fn score_mod(score: f32, at: At) -> f32 { return 20.0 * tanh(score / 20.0); }")
//!     .mask_mod("fn mask_mod(at: At) -> bool { return u32(aux[at.query]) == u32(aux[at.key]); }")
//!     .aux(1000)
//!     .build()?;
//! # let _ = problem;
//! # Ok(()) }
//! ```
//!
//! # What a program sees
//!
//! ```wgsl
//! struct At {
//!     batch: u32,
//!     head: u32,      // query head
//!     kv_head: u32,   // the KV head that it reads
//!     query: u32,
//!     key: u32,
//!     diagonal: i32,  // the key that the query stands at
//! }
//! ```
//!
//! All of these indices count from the start of the problem, even if the work is cut into several dispatches or the
//! keys are split. The score is in natural units, after the scale and the softcap. The bias, ALiBi and the masks are
//! applied after the `score_mod`.
//!
//! `aux` is a buffer of the caller, an `array<f32>`. It is bound as [`Operand::Aux`](crate::Operand::Aux) if the
//! problem requests it by [`aux`](crate::ProblemBuilder::aux). Its contents may change from call to call without a new
//! plan.
//!
//! # What a program may do
//!
//! A program may declare functions, constants, types and private variables. Any name is allowed, including names that
//! the kernels declare. The one exception is WGSL's own names that the kernels use, such as `max` or `vec4`. A program
//! must not have bindings, workgroup variables, directives, overrides or f16, and must not use operations that several
//! threads perform together, such as barriers and derivatives. It is checked when the problem is built:
//! [`ProblemError::Program`](crate::ProblemError::Program) has the line and the column in the program's own text.
//!
//! A program may have loops. Mesa's software drivers (llvmpipe, lavapipe) silently end every loop after 65 535
//! iterations, counted over the whole invocation. The library splits the keys so that the kernels' loops fit this
//! limit, but it does not know the loops of a program: one that iterates hundreds of times per key may lose keys of
//! long sequences there. GPUs have no such limit.
//!
//! A `score_mod` that returns −∞ hides the key, as a bias of −∞ does. WGSL has no literal for −∞: read it from `aux`,
//! or better, hide the key by a `mask_mod`. A `mask_mod` is combined with all other masks by "and". Both functions are
//! also called for keys that are hidden otherwise; the result is then ignored.
//!
//! # What it costs
//!
//! Each distinct text makes a separate kernel. The first plan compiles it, and later plans share it for as long as the
//! [`Attention`](crate::Attention) lives. Numbers that change therefore belong in `aux`, not in the text. A `mask_mod`
//! is evaluated for each pair of query and key that is visible by position. If
//! [`causal`](crate::ProblemBuilder::causal), [`window`](crate::ProblemBuilder::window) or lengths can express a rule,
//! use them instead, since whole tiles are then skipped.
//!
//! # Block masks
//!
//! If a mask or a `mask_mod` hides most pairs, as a document mask does, a [`BlockMask`](crate::BlockMask) saves most of
//! the time. It works as in `FlexAttention`: one number per tile of the scores says whether the masks hide all of the
//! tile, part of it or nothing. Kernels for many rows skip hidden tiles, and do not evaluate the masks in tiles that
//! are entirely visible. (Kernels for few rows and kernels for software GPUs read the numbers too, but the former visit
//! every key, and the latter evaluate the masks in every tile that they visit.)
//!
//! ```
//! use wgpu_attention::{Attention, BlockMask, Operand, Operands, Problem, Shape};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
//! # let buffer = |bytes| device.create_buffer(&wgpu::BufferDescriptor {
//! #     label: None, size: bytes, usage: wgpu::BufferUsages::STORAGE, mapped_at_creation: false,
//! # });
//! let problem = Problem::builder(Shape::new(1, 8, 1000, 64))
//!     .mask_mod("fn mask_mod(at: At) -> bool { return aux[at.query] == aux[at.key]; }")
//!     .aux(1000)
//!     .block_mask(BlockMask::new(128, 128))
//!     .build()?;
//! let size = problem.view(Operand::BlockMask).map_or(0, |view| view.size_bytes());
//! let (aux, tiles) = (buffer(4000), buffer(size));
//!
//! // Computes the tiles in a separate pass; repeat it whenever the mask or `aux` has changed.
//! let whole = wgpu::Buffer::as_entire_buffer_binding;
//! let attention = Attention::new(&device);
//! let masks = Operands::default().with(Operand::Aux, whole(&aux)).with(Operand::BlockMask, whole(&tiles));
//! let finds = attention.plan_block_mask(&problem)?.bind(&masks)?;
//! let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
//! finds.encode(&mut encoder);
//! // … and every call of `attention.plan(&problem)?` reads them.
//! # Ok(()) }
//! ```
//!
//! A block mask does not include causal masks, windows and lengths, since kernels skip what these hide without it.
//! Batches and heads share the tiles unless [`per_batch`](crate::BlockMask::per_batch) or
//! [`per_head`](crate::BlockMask::per_head) is called. Sharing is an error if their masks may differ.
//!
//! The CPU does not run WGSL: [`reference::Programs`](crate::reference::Programs) takes the same programs as functions
//! in Rust.
