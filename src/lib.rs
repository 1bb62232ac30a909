//! Exact fused scaled dot-product attention for anything that holds a [`wgpu::Device`].
//!
//! ```text
//! O = softmax(scale · Q Kᵀ → softcap → + bias → mask) V
//! ```
//!
//! One kernel, no Lq × Lk matrix in memory, recorded into your own command encoder, on Vulkan, Metal, DX12, GL and
//! WebGPU. A [`Problem`] says what is asked, [`Attention::plan`] compiles and sizes it, [`Plan::bind`] checks the buffers,
//! and [`Call::dispatch`] records into a pass you opened. Nothing here submits, polls, spawns or writes a queue, but for the
//! functions in [`blocking`].

mod dtype;
mod layout;
mod mask;
mod operand;
mod problem;

mod caps;
mod family;
mod select;
mod variant;

mod bindings;
mod call;
mod cut;
mod params;
mod plan;
mod readback;
mod wgsl;

pub mod blocking;
mod inputs;
pub mod reference;

mod error;

pub use bindings::Operands;
pub use call::{Call, Part};
pub use caps::Caps;
pub use dtype::Dtype;
pub use error::{BindError, PlanError, ProblemError, ReadbackError};
pub use inputs::Inputs;
pub use layout::{Layout, ScoreLayout, View};
pub use mask::{Diagonal, Window};
pub use operand::Operand;
pub use plan::{Attention, Plan};
pub use problem::{Problem, ProblemBuilder, Shape};
pub use readback::Readback;
pub use variant::{Access, Family, Variant};
