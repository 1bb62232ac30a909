//! The repository's automation. `cargo xtask --help` lists what it does.

mod adapter;
mod browser;
mod bundle;
mod command;
mod compilers;
mod coverage;
mod debian;
mod integrations;
mod matrix;
mod mesa;
mod mutants;
mod report;
mod steps;
mod suite;
mod tests;
mod tint;
mod validation;

use std::process::ExitCode;

use clap::Parser;

/// Checks, tests, packs and measures this workspace
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Run format, lints, docs, tests, conformance cases and examples; installs a software GPU driver if there
    /// is no GPU
    Test {
        /// Also run the tests marked `#[ignore]`, which are slow or need a large GPU; try every variant and plant every mistake
        #[arg(long)]
        full: bool,
    },
    /// Run chosen kernels in Chromium on its software driver and judge every row; installs what it needs (Debian, root)
    Browser {
        /// Measure instead how much an app in a browser downloads for this crate
        #[arg(long)]
        size: bool,
        /// Use only the public page
        #[arg(long, conflicts_with = "size")]
        page: bool,
    },
    /// Build the public page into `target/page`
    Page {
        /// Then serve it to browsers on this machine
        #[arg(long)]
        serve: bool,
    },
    /// Run only the tests of `tests/suite`, and print which kernels ran on which adapters
    Suite {
        /// Also run the tests marked `#[ignore]`; try every variant and plant every mistake
        #[arg(long)]
        full: bool,
        /// Run only tests whose names contain one of these
        names: Vec<String>,
    },
    /// Check and test the crates in `integrations`, which adapt this one to frameworks; the first build takes half an hour
    Integrations,
    /// Compile every shader with Tint, as Chrome does; needs Node.js and npm
    Tint,
    /// Pack the tests, benchmarks and conformance cases for a Linux machine with nothing but a GPU driver
    Bundle,
    /// Test, check and measure in an unpacked bundle, and write a report; its `run` script calls this
    #[command(override_usage = "./run [OPTIONS] [REPORT.json] [-- BENCH ARGUMENTS]")]
    Report(report::Options),
    /// Run the tests of matrix units on a software driver that has them (Debian, root); unpacks a newer Mesa next to the
    /// system's
    Matrix {
        /// Run the whole suite on that driver
        #[arg(long)]
        full: bool,
    },
    /// Show what four GPU makers' compilers make of the kernels, without their GPUs: registers, spills, and what the loop over
    /// keys issues (Debian, root); unpacks a newer Mesa next to the system's
    Compilers(compilers::Options),
    /// Plant mistakes in the library's host code, one at a time, and check that a test notices each
    Mutants {
        /// Plant only mistakes whose description contains this
        only: Option<String>,
    },
    /// Run the tests under the Vulkan validation layer and fail if it prints anything (Linux)
    Validate,
}

fn main() -> ExitCode {
    let outcome = match Task::parse() {
        Task::Test { full } => tests::everything(full),
        Task::Browser { size: true, .. } => browser::measure(),
        Task::Browser { page: true, .. } => browser::test(browser::Setup::use_page),
        Task::Browser { .. } => browser::test(browser::Setup::run),
        Task::Page { serve: false } => browser::site::publish(),
        Task::Page { serve: true } => browser::site::publish().and_then(|()| browser::site::serve()),
        Task::Suite { full, names } => tests::suite_alone(full, &names),
        Task::Bundle => bundle::pack(),
        Task::Report(options) => report::run(&options),
        Task::Matrix { full } => matrix::test(if full { &[] } else { &[matrix::TESTS] }),
        Task::Compilers(options) => compilers::ask(&options),
        Task::Mutants { only } => mutants::plant_and_test(only.as_deref()),
        Task::Integrations => integrations::test(),
        Task::Tint => tint::compile_all(),
        Task::Validate => validation::validate(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
