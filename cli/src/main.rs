//! Fused attention from the command line: on a file, on the bundled input, and checked against the reference.
//!
//! The data flows through the modules in this order: `args` (with its `programs` and `values`), `device`, the inputs
//! (`tensors`, `names`, `masks`, `input`, `backward`), what computes (`cpu`, `cpu_gradients`, or the library), the commands
//! (`bundled` and its `timing`, `run`, `check`, `devices`, `dump`, `bench`), and what they print and write (`results`,
//! `output`, `unfinished`, `heatmap`, `figure`, `lettering`, `terminal`, `progress`, `text`).

mod args;
mod device;
mod programs;
mod values;

mod backward;
mod input;
mod masks;
mod names;
mod sequences;
mod tensors;

mod cpu;
mod cpu_gradients;

mod bench;
mod bundled;
mod check;
mod devices;
mod dump;
mod run;
mod timing;

mod figure;
mod heatmap;
mod lettering;
mod output;
mod progress;
mod quantized;
mod results;
mod terminal;
mod text;
mod unfinished;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser as _;

use crate::args::{Cli, Command};

/// The exit code for bad usage, bad input, or a device that failed.
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are not errors. Any other usage error is printed on one line.
        Err(help) if !help.use_stderr() => help.exit(),
        Err(mistake) => return refuse(&first_paragraph(&mistake.to_string())),
    };
    match dispatch(&cli, &mut std::io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // The reader of our output closed the pipe, which is not an error.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => refuse(&format!("error: {error:#}")),
    }
}

/// Runs the command. Returns whether everything that it checked passed.
fn dispatch(cli: &Cli, stdout: &mut dyn Write) -> Result<bool> {
    let (device, json) = (cli.device.as_deref(), cli.format.json);
    ensure!(
        cli.command.is_none() || cli.heatmap.heatmap.is_none(),
        "--heatmap before the command is for the bundled input; write it after `run`"
    );
    match &cli.command {
        None => return bundled::run(&cli.heatmap, device, json, stdout),
        Some(Command::Run(args)) => run::run(args, device, json || args.format.json, stdout)?,
        Some(Command::Check(args)) => return check::run(args, device, json || args.format.json, stdout),
        Some(Command::Devices(format)) => devices::run(device, json || format.json, stdout)?,
        Some(Command::Dump(args)) => dump::run(args, device, json || args.format.json, stdout)?,
        Some(Command::Bench(options)) => {
            ensure!(
                !json,
                "`bench` writes its rows to a file: give --json FILE after `bench`, or - for the standard output"
            );
            bench::run(options, device, stdout)?;
        }
    }
    Ok(true)
}

fn refuse(message: &str) -> ExitCode {
    // A driver's message may have line breaks, and a tensor's name any character. A log needs one line of plain text.
    eprintln!("{}", text::one_line(message));
    ExitCode::from(REFUSED)
}

/// The text of a usage error without the usage itself, but with the tip if there is one.
fn first_paragraph(message: &str) -> String {
    let wanted = message.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let text = wanted.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    if text.starts_with("error:") { text } else { format!("error: {text}; see --help") }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut io = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
