//! The command as its users meet it: what it prints, writes and exits with.

mod harness;

mod bench;
mod check;
mod devices;
mod input;
mod options;
mod output;
mod programs;
mod run;
