//! Programs in the score: `FlexAttention`'s `score_mod`, `mask_mod` and captured buffers, in WGSL. Documentation only.
//!
//! A problem may have a function that makes a score of a score, and one that says whether a query sees a key. Their text becomes
//! part of the kernel, so they cost what they compute and no memory:
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
//! All of it counts from the start of the problem, also where the work is cut into several dispatches or the keys are split. The
//! score is in natural units, after the scale and the softcap; the bias, ALiBi and the masks come after it.
//!
//! `aux` is a buffer of the caller's, `array<f32>`, bound as [`Operand::Aux`](crate::Operand::Aux) where the problem says
//! [`aux`](crate::ProblemBuilder::aux). What is in it may change from call to call without a new plan.
//!
//! # What a program may do
//!
//! It may declare functions, constants, types and private variables of any names, also of those that the kernels declare. The one
//! exception is names of WGSL's own that the kernels use, such as `max` or `vec4`. It binds nothing, shares no memory, and has
//! no directives, no overrides, no f16, and nothing that threads do together, such as barriers and derivatives. A program is checked
//! when the problem is built: [`ProblemError::Program`](crate::ProblemError::Program) has the line and the column in the
//! program's own text.
//!
//! It may have loops. Mesa's software drivers (llvmpipe, lavapipe) end every loop after 65 535 iterations, counted over all that one
//! invocation does, and say nothing. The kernels' own loops are cut to fit; those of a program are not known, and a program that
//! loops hundreds of times per key may lose keys of long sequences there. GPUs have no such limit.
//!
//! A `score_mod` that returns −∞ hides the key, as a bias of −∞ does. WGSL has no literal for −∞: read it from `aux`, or better, say
//! in a `mask_mod` which keys are seen. A `mask_mod` is composed with all other masks by "and". Either
//! is also called for keys that are hidden otherwise, and its result is then ignored.
//!
//! # What it costs
//!
//! Each text is a kernel of its own: the first plan compiles it, and later ones share it, as long as the
//! [`Attention`](crate::Attention) lives. So numbers that change belong in `aux`, not in the text. A `mask_mod` is asked for each pair of
//! query and key that the positions leave. Put what can be said by [`causal`](crate::ProblemBuilder::causal),
//! [`window`](crate::ProblemBuilder::window) or lengths there, since whole tiles are then skipped.
//!
//! The CPU does not run WGSL: [`reference::Programs`](crate::reference::Programs) takes the same programs as Rust functions.
