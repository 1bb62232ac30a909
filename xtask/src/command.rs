//! Runs other programs, always from the repository's root.

use std::env;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use shared_child::SharedChild;

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
/// Running the file avoids compiling wgpu a second time: `cargo run` would use the features of one package alone.
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

/// Like [`run_reading`], but reads the lines of standard error as well, and kills the command after `limit`.
pub(crate) fn run_reading_all(command: &mut Command, limit: Duration, each_line: impl FnMut(&str)) -> Result<()> {
    let (reader, writer) = io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let child = SharedChild::spawn(command).with_context(|| format!("cannot start {}", shown(command)))?;
    // Otherwise `command` holds the writing end open, and reading never ends.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let ended = thread::scope(|scope| {
        let ended = scope.spawn(|| {
            let ended = child.wait_timeout(limit)?;
            if ended.is_none() {
                child.kill()?;
                child.wait()?;
            }
            io::Result::Ok(ended)
        });
        read_lines(reader, each_line)?;
        ended.join().map_err(|_| anyhow!("the thread that waits for {} panicked", shown(command)))?.map_err(Error::from)
    })?;
    match ended {
        Some(status) => succeeded(command, status),
        None => bail!("{} took more than {} minutes and was killed", shown(command), limit.as_secs() / 60),
    }
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

/// Whether the shell would find a program of this name.
pub(crate) fn on_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> (Result<()>, Vec<String>) {
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        let ended = run_reading_all(command.args(["-c", script]), limit, |line| lines.push(line.to_owned()));
        (ended, lines)
    }

    #[test]
    fn a_command_is_read_to_its_end_and_killed_at_the_limit() {
        let (ended, lines) = shell("echo out; echo err >&2", Duration::from_secs(60));
        assert!(ended.is_ok() && lines == ["out", "err"], "{ended:?} {lines:?}");
        let (ended, lines) = shell("echo begun; exec sleep 600", Duration::from_millis(300));
        assert!(ended.expect_err("killed").to_string().contains("was killed"));
        assert_eq!(lines, ["begun"]);
    }
}
