//! The tests, as one program: the drivers' compilers are slow, so every test shares one set of pipelines.
//!
//! In reading order: what a [`case`] is and where its numbers come from ([`inputs`]); how a result is judged
//! ([`comparator`]); how it is made on every adapter of this machine ([`device`]); and then the tests.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes here are far below any bound")]
#![allow(unreachable_pub, reason = "modules of a program are public to each other")]

mod case;
mod comparator;
mod device;
mod inputs;

mod edges;
mod errors;
mod fuzz;
mod laws;
mod mutations;
mod real_input;
mod record;
mod semantics;
mod shaders;
