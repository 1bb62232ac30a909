//! Runs steps one after another, each under a heading. The later steps run even if one fails.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The steps that have run so far.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<Step>,
}

#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    /// Why it failed, if it did.
    pub(crate) error: Option<String>,
    pub(crate) took: Duration,
}

impl Steps {
    /// Runs `work` under the heading `name`.
    pub(crate) fn run(&mut self, name: impl Into<String>, work: impl FnOnce() -> Result<()>) -> &Step {
        let name = name.into();
        println!("\n==== {name} ====");
        let start = Instant::now();
        let outcome = work();
        let took = start.elapsed();
        match &outcome {
            Ok(()) => println!("==== {name}: ok, {} ====", seconds(took)),
            Err(error) => println!("==== {name}: FAILED, {} ====\n{error:#}", seconds(took)),
        }
        self.done.push_mut(Step { name, error: outcome.err().map(|error| format!("{error:#}")), took })
    }

    /// Prints one line per step, and fails if one of them failed.
    pub(crate) fn finish(self) -> Result<()> {
        println!("\n==== summary ====");
        for Step { name, error, took } in &self.done {
            println!("{:>6} {:>8}  {name}", if error.is_none() { "ok" } else { "FAILED" }, seconds(*took));
        }
        let total = self.done.iter().map(|step| step.took).sum();
        println!("{:>6} {:>8}  total", "", seconds(total));

        let failed: Vec<&str> =
            self.done.iter().filter(|step| step.error.is_some()).map(|step| step.name.as_str()).collect();
        if !failed.is_empty() {
            bail!("failed: {}; the reasons are above, under each heading", failed.join(", "));
        }
        Ok(())
    }
}

pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
