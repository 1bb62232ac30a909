//! Running other programs, always from the repository's root.

use std::env;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// The `cargo` that runs this task, with these arguments.
pub(crate) fn cargo<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// A program that the build step left in the release folder, such as `wgpu-attention` or `examples/hello`.
///
/// Running the file, where `cargo run` would choose the features of one package alone, keeps wgpu from being compiled a
/// second time.
pub(crate) fn built(name: &str) -> Result<Command> {
    let own_path = env::current_exe().context("this program's own path is unknown")?;
    let target = own_path.ancestors().nth(2).context("this program does not run from a target folder")?;
    let path = target.join("release").join(format!("{name}{}", env::consts::EXE_SUFFIX));
    if !path.exists() {
        bail!("{} is missing: the build step makes it", path.display());
    }
    let mut command = Command::new(path);
    command.current_dir(root());
    Ok(command)
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    succeeded(command, status)
}

/// Runs a command to its end and hands each line of its standard output to `each_line` as it appears.
pub(crate) fn run_reading(command: &mut Command, each_line: impl FnMut(&str)) -> Result<()> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {}", shown(command)))?;
    let stdout = child.stdout.take().context("standard output was asked for")?;
    read_lines(stdout, each_line)?;
    succeeded(command, child.wait()?)
}

/// The same with what it prints to its standard error among those lines.
pub(crate) fn run_reading_all(command: &mut Command, each_line: impl FnMut(&str)) -> Result<()> {
    let (reader, writer) = io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot start {}", shown(command)))?;
    // The command holds the writing end open, and the reading would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    read_lines(reader, each_line)?;
    succeeded(command, child.wait()?)
}

fn read_lines(from: impl Read, mut each_line: impl FnMut(&str)) -> Result<()> {
    for line in BufReader::new(from).split(b'\n') {
        each_line(String::from_utf8_lossy(&line?).trim_end_matches('\r'));
    }
    Ok(())
}

fn succeeded(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

fn shown(command: &Command) -> String {
    format!("`{}`", line_of(command))
}

/// A command as one would type it.
pub(crate) fn line_of(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words: Vec<_> = std::iter::once(name).chain(command.get_args()).map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// Whether the shell would find such a program.
pub(crate) fn on_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}
