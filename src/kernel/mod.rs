//! Which code runs a problem. A kernel is a value ([`record`]), made by one function in the file of its schedule; nothing outside
//! this folder asks which schedule it is.
//!
//! In reading order: what a kernel binds ([`slots`]), what it tells of itself ([`record`]) and the numbers it is given ([`params`]);
//! how its [`text`] is put together; the [`choices`] a problem makes and the [`pieces`] of text that stand for each; the
//! schedules, one to a file, and the list of them ([`schedule`]); a [`variant`], which is a schedule with its choices; and
//! which variants suit a problem and a device ([`select`]).

pub(crate) mod choices;
mod pieces;
pub(crate) mod params;
pub(crate) mod record;
pub(crate) mod slots;
pub(crate) mod text;

mod decode;
mod lanes;
mod matrix;
mod merge;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod probe;
mod stage;
mod streams;
mod tiled;

mod schedule;

pub(crate) mod error;
pub(crate) mod select;
pub(crate) mod variant;

/// Head sizes are rounded up to a multiple of this: fewer pipelines, and whole vectors everywhere.
const DIM_STEP: u32 = 32;
/// The largest head size.
const DIM_MOST: u32 = 576;
/// The largest head size of queries and keys for kernels that keep whole rows of them where there is little room.
const DIM_QK_KEPT: u32 = 256;
