//! The command as its users see it: what it prints and writes, and its exit code.

mod harness;

mod backward;
mod bench;
mod check;
mod devices;
mod input;
mod options;
mod output;
mod programs;
mod run;
mod sequences;
