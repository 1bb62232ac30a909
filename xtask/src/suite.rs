//! Runs the test program of `tests/suite` as many processes, two at a time, each with a few tests. Runs other test programs
//! along with it.
//!
//! A software driver keeps in memory what it compiled, and compiles on one thread per device. Short processes free the
//! memory, and two of them keep two cores busy. They share what they compile through the driver's cache on disk. If a
//! driver crashes, only a few tests fail with it, and their names are known.

use std::collections::VecDeque;
use std::env;
use std::process::Command;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::command::{root, run_reading_all};
use crate::coverage::Coverage;
use crate::tests::passed_tests;

/// The number of processes that run at the same time. More would take too much memory, and a software driver runs each
/// kernel on all cores anyway.
const AT_A_TIME: usize = 2;
/// The most tests per process. More tests share more of what they compile, if a driver has no cache, but take more memory.
const TESTS_AT_MOST: usize = 6;

/// How long a process may take. A kernel with an endless loop blocks its process forever, and no driver here stops it.
const LONGEST: Duration = Duration::from_mins(30);
/// How long a process may take if the tests marked as slow run too.
pub(crate) const LONGEST_OF_SLOW: Duration = Duration::from_mins(240);

/// libtest's argument to also run the tests that are marked as slow.
pub(crate) const INCLUDE_IGNORED: &str = "--include-ignored";

/// Makes the command that starts a test program.
pub(crate) type Start<'a> = &'a (dyn Fn() -> Command + Sync);

/// A program that runs along with the suite, as one process.
#[derive(Clone, Copy)]
pub(crate) enum Other<'a> {
    /// A test program.
    Tests(Start<'a>),
    /// A program that takes no arguments of libtest. Its exit status says whether it passed.
    Plain { name: &'a str, start: Start<'a> },
}

/// What one process runs.
enum Group<'a> {
    /// These tests of the suite.
    OfSuite {
        start: Start<'a>,
        tests: Vec<String>,
    },
    Other(Other<'a>),
}

impl Group<'_> {
    fn name(&self) -> String {
        match self {
            Self::OfSuite { tests, .. } => tests.join(", "),
            Self::Other(Other::Tests(_)) => "all its tests".to_owned(),
            Self::Other(Other::Plain { name, .. }) => (*name).to_owned(),
        }
    }
}

/// The result of running a group.
struct Outcome {
    lines: Vec<String>,
    error: Option<String>,
    took: Duration,
}

/// Runs the tests that libtest's `arguments` select, of the suite and of `others`, and records in `coverage` what ran
/// where. Passes each line that the processes print to `each_line`. Fails if a test failed
/// or none ran.
pub(crate) fn run(
    suite: Start<'_>,
    others: &[Other<'_>],
    arguments: &[&str],
    coverage: &Coverage,
    mut each_line: impl FnMut(&str),
) -> Result<()> {
    // The others start first, because one of them takes longer than any group of the suite.
    let mut groups: VecDeque<Group<'_>> = others.iter().copied().map(Group::Other).collect();
    groups.extend(groups_of(suite, arguments)?);
    let of = groups.len();
    let waiting = Mutex::new(groups);
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let (sender, outcomes) = mpsc::channel();
    let mut passed = 0;
    let mut failed = Vec::new();
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            let sender = sender.clone();
            scope.spawn(move || {
                while let Some(group) = next() {
                    let outcome = run_group(&group, arguments, coverage);
                    // The receiver lives as long as the scope.
                    let _ = sender.send((group, outcome));
                }
            });
        }
        drop(sender);
        for (n, (group, outcome)) in outcomes.iter().enumerate() {
            print(&outcome);
            println!("  process {} of {of}, {:.1} s", n + 1, outcome.took.as_secs_f64());
            outcome.lines.iter().for_each(|line| each_line(line));
            passed += outcome.lines.iter().map(|line| passed_tests(line)).sum::<usize>();
            if let Some(error) = outcome.error {
                failed.push(format!("{error}, running {}", group.name()));
            }
        }
    });
    println!("{passed} tests passed");
    if !failed.is_empty() {
        bail!("{}", failed.join("\n"));
    }
    if passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

/// Prints one line per test, or the whole output if a test failed.
fn print(outcome: &Outcome) {
    for line in &outcome.lines {
        if outcome.error.is_some() || line.starts_with("test ") && !line.starts_with("test result") {
            println!("{line}");
        }
    }
}

/// The tests of the suite that `arguments` select, in groups of one module each.
fn groups_of<'a>(start: Start<'a>, arguments: &[&str]) -> Result<Vec<Group<'a>>> {
    let mut names = Vec::new();
    let program = &mut start();
    prepare(program).args(["--list", "--format", "terse"]).args(arguments);
    let mut lines = Vec::new();
    run_reading_all(program, LONGEST, |line| {
        names.extend(line.strip_suffix(": test").map(str::to_owned));
        lines.push(line.to_owned());
    })
    .map_err(|error| error.context(lines.join("\n")))?;
    Ok(grouped(&names).into_iter().map(|tests| Group::OfSuite { start, tests: tests.to_vec() }).collect())
}

/// Splits the names at the ends of modules, and into groups of at most [`TESTS_AT_MOST`].
fn grouped(names: &[String]) -> Vec<&[String]> {
    let module = |name: &str| name.split("::").next().unwrap_or_default().to_owned();
    names
        .chunk_by(|one, other| module(one) == module(other))
        .flat_map(|tests| tests.chunks(tests.len().div_ceil(tests.len().div_ceil(TESTS_AT_MOST))))
        .collect()
}

fn run_group(group: &Group<'_>, arguments: &[&str], coverage: &Coverage) -> Outcome {
    let begin = Instant::now();
    let limit = if arguments.contains(&INCLUDE_IGNORED) { LONGEST_OF_SLOW } else { LONGEST };
    let flags = arguments.iter().filter(|argument| argument.starts_with("--"));
    let program = &mut match group {
        Group::OfSuite { start, .. } | Group::Other(Other::Tests(start) | Other::Plain { start, .. }) => start(),
    };
    prepare(program);
    // Without LLVM's optimization, a software GPU compiles in a seventh less time. Tests run most kernels for milliseconds only.
    if !arguments.contains(&INCLUDE_IGNORED) && env::var_os("GALLIVM_PERF").is_none() {
        program.env("GALLIVM_PERF", "nopt");
    }
    match group {
        Group::OfSuite { tests, .. } => program.arg("--test-threads=1").args(flags).arg("--exact").args(tests),
        Group::Other(Other::Tests(_)) => program.arg("--test-threads=1").args(flags),
        Group::Other(Other::Plain { .. }) => program,
    };
    let mut lines = Vec::new();
    let ran = run_reading_all(coverage.noted_by(program), limit, |line| lines.push(line.to_owned()));
    // The message starts with the command and the names of all its tests, which the caller prints anyway. Keep only its
    // end.
    let error = ran.err().map(|error| {
        let text = format!("{error:#}");
        text.rsplit_once("` ").map_or(text.clone(), |(_, end)| format!("a process {end}"))
    });
    Outcome { lines, error, took: begin.elapsed() }
}

/// Sets the environment that every process of the suite needs.
fn prepare(program: &mut Command) -> &mut Command {
    // By default Mesa's cache needs a home folder. In `target`, it is removed together with the clone.
    let target = root().join("target");
    if env::var_os("MESA_SHADER_CACHE_DIR").is_none() && target.exists() {
        program.env("MESA_SHADER_CACHE_DIR", target.join("shader-cache"));
    }
    // Without this variable Mesa prints a complaint in the middle of a line.
    if env::var_os("XDG_RUNTIME_DIR").is_none() {
        program.env("XDG_RUNTIME_DIR", env::temp_dir());
    }
    program
}

#[cfg(test)]
mod test {
    use super::grouped;

    #[test]
    fn a_process_runs_tests_of_one_module_and_not_too_many() {
        let names = |module: &str, tests: usize| (0..tests).map(|n| format!("{module}::t{n}")).collect::<Vec<_>>();
        let all = [names("edges", 7), names("laws", 1), names("tune", 13)].concat();
        let sizes: Vec<usize> = grouped(&all).iter().map(|tests| tests.len()).collect();
        assert_eq!(sizes, [4, 3, 1, 5, 5, 3]);
    }
}
