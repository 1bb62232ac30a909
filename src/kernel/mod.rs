//! The kernels, and their selection. A kernel is a value ([`record`]) that one function in the file of its schedule
//! creates. Code outside this folder does not depend on the schedule.
//!
//! In reading order: the resources that a kernel binds ([`slots`]), its properties ([`record`]) and its parameters
//! ([`params`]); how a [`shader`]'s file is embedded and a kernel's [`text`] is assembled; the [`choices`] that a problem makes and the [`pieces`] of text for
//! each; the schedules, one per file, and the list of them ([`schedule`]); a [`variant`], which is a schedule with its
//! choices; and the selection of variants for a problem and a device ([`select`]).

#[macro_use]
pub(crate) mod shader;

pub(crate) mod choices;
mod pieces;
pub(crate) mod params;
pub(crate) mod record;
pub(crate) mod slots;
pub(crate) mod text;

mod append;
mod block_mask;
mod combine;
mod decode;
mod gradient;
mod gradient_lanes;
mod lanes;
mod matrix;
mod merge;
pub(crate) mod probe;
mod stage;
mod streams;
mod tiled;

mod schedule;

pub(crate) mod error;
mod check;
pub(crate) mod select;
pub(crate) mod select_gradients;
pub(crate) mod variant;

/// Whether the app runs in a browser. wgpu 30 has no subgroups and no matrix units there, so the app need not download the kernels
/// for them.
const IN_BROWSER: bool = cfg!(target_arch = "wasm32");
/// Head sizes are rounded up to a multiple of this, for fewer pipelines and whole vectors everywhere.
const DIM_STEP: u32 = 32;
/// The largest head size.
const MAX_DIM: u32 = 576;
/// The largest head size of queries and keys for kernels that keep whole rows of them in limited space.
const DIM_QK_KEPT: u32 = 256;
