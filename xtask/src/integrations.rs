//! Checks and tests the crates in `integrations`, which adapt this one to frameworks. Each is a workspace of its own, because
//! a framework takes long to compile.

use std::process::Command;

use anyhow::Result;

use crate::adapter;
use crate::command::{cargo, root, run};
use crate::steps::Steps;

const NAMES: [&str; 1] = ["burn"];

const BUILD: &str = "build --release --workspace --bin wgpu-attention";
// With the tests and the examples, so that the lints and the tests share one set of features: the framework is checked once
// and compiled once.
const LINTS: &str = "clippy --release --all-targets -- -D warnings";
const DOCS: &str = "test --release --doc";
const TESTS: &str = "test --release --all-targets";

/// Fails at the end if one of the checks failed.
pub(crate) fn test() -> Result<()> {
    let mut steps = Steps::default();
    // The command lists the adapters.
    steps.run("build", || run(&mut cargo(BUILD.split(' '))));
    steps.run("adapter", adapter::ensure);
    for name in NAMES {
        for (step, command) in [("format", "fmt --check"), ("lints", LINTS), ("tests", TESTS), ("doc tests", DOCS)] {
            steps.run(format!("{name}: {step}"), || run(&mut in_folder(name, command)));
        }
    }
    steps.finish()
}

fn in_folder(name: &str, command: &str) -> Command {
    let mut command = cargo(command.split(' '));
    command.current_dir(root().join("integrations").join(name));
    command
}
