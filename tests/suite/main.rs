//! The tests, as one program. `cargo xtask test` runs it as many processes, a few tests to each.
//!
//! In reading order: what a [`case`] is and where its numbers come from ([`inputs`]); how a result is judged
//! ([`comparator`]) and what that [`rejects`]; how it is made on every adapter of this machine ([`device`]).
//!
//! Then the tests: the table of meanings ([`semantics`]), [`laws`], [`edges`] and random problems ([`fuzz`]); the
//! [`mutants`] that all of these must notice, by the [`questions`] that expose them ([`mutations`]); kernels on [`matrix`] units; what [`tune`]
//! chooses by trying; what ran where ([`coverage`]); and, without a GPU, the [`shaders`] as text, the [`facts`] of other adapters,
//! what we [`record`], and every one of the [`errors`].

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes here are far below any bound")]
#![allow(clippy::needless_pass_by_value, reason = "problems are made where they are used")]
#![allow(unreachable_pub, reason = "modules of a program are public to each other")]

mod case;
mod comparator;
mod coverage;
mod device;
mod facts;
mod inputs;
mod rejects;

mod blocking;
mod cuts;
mod edges;
mod errors;
mod extremes;
mod fuzz;
mod host;
mod house;
mod laws;
mod matrix;
mod mutants;
mod mutations;
mod programs;
mod questions;
mod real_input;
mod record;
mod refused;
mod semantics;
mod shaders;
mod tune;
mod wrong_programs;
