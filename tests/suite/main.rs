//! The tests, as one program. `cargo xtask test` runs it as many processes, each with a few tests.
//!
//! In reading order: shared problems ([`case`]), whose inputs and expected results come from `truth`; which wrong results
//! `truth` rejects ([`rejects`]); how a case runs on every adapter of this machine ([`device`], [`contents`]), as which variants
//! ([`choice`]), also with gradients ([`backward`]).
//!
//! Then the tests: the table of meanings ([`semantics`]), [`laws`], [`edges`], [`sequences`], [`serving`], [`chosen_weights`], what changes
//! as a cache grows ([`growing`]), random problems ([`fuzz`]), [`merging`] results, and [`gradients`] with [`gradient_mistakes`] and those
//! of GPUs' blocks ([`gradients_of_gpus`]) and of PyTorch ([`gradients_of_pytorch`]); the
//! [`mutants`] that all of these must notice, by the [`questions`] that expose them ([`mutations`]); kernels on [`matrix`]
//! units; tuning ([`tune`]) and what is awaited while an app runs ([`submitting`]); what ran where ([`coverage`]); and, without a GPU, the [`shaders`] as text, the [`facts`] of
//! other adapters, recording ([`record`]), and every one of the [`errors`].

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes here are far below any bound")]
#![allow(clippy::needless_pass_by_value, reason = "problems are made where they are used")]
#![allow(unreachable_pub, reason = "modules of a program are public to each other")]

mod backward;
mod case;
mod choice;
mod contents;
mod coverage;
mod device;
mod facts;
mod rejects;

mod appending;
mod block_masks;
mod blocking;
mod chosen_weights;
mod cuts;
mod dropout;
mod edges;
mod errors;
mod extremes;
mod fuzz;
mod gradient_mistakes;
mod gradients;
mod gradients_of_gpus;
mod gradients_of_pytorch;
mod growing;
mod host;
mod house;
mod laws;
mod matrix;
mod merging;
mod mutants;
mod mutations;
mod programs;
mod questions;
mod real_input;
mod record;
mod refused;
mod semantics;
mod sequences;
mod serving;
mod shaders;
mod submitting;
mod tune;
mod wrong_programs;
