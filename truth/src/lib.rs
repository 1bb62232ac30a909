//! What results are checked against, in one place for the tests, `check`, the benchmarks and the command's CPU path.
//!
//! In reading order: a [`Case`] is a problem and its inputs ([`Host`]), which [`Fill`] can draw. [`Sequences`] says which
//! queries and keys there are, and [`Visibility`] which keys a row sees. The naive computation is the formula in plain f32. [`Expected`] holds the exact results of a case and
//! their tolerances. It checks [`Outputs`] and returns a [`Verdict`], or what is [`Wrong`].
//!
//! The exact results come from [`wgpu_attention::reference`]. It shares nothing with this crate, so that each can find the
//! other's mistakes.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "indices of problems that fit the memory")]

pub mod appending;
mod case;
mod dropout;
mod expected;
mod fill;
mod gradients;
mod host;
mod naive;
pub mod pairs;
mod run;
mod sequences;
mod visibility;

pub use case::{Case, distinct, epsilon, indices, stored};
pub use expected::{Expected, Outputs, Verdict, Wrong};
pub use fill::{Fill, poison_hidden};
pub use gradients::{ExpectedGradients, GradientOutputs, gradient_rows};
pub use host::{Host, MaskMod, Programs, ScoreMod, ScoreModGrad};
pub use naive::naive;
pub use sequences::Sequences;
pub use visibility::Visibility;
