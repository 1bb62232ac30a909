//! Runs the program of `tests/suite` as many processes, a few tests to each, two at a time; and with them other programs of tests.
//!
//! A software driver keeps in memory what it compiled, and compiles on one thread of each device. Processes give the memory back
//! and keep two cores busy; what one compiled the next finds in the driver's cache on disk. A driver that crashes takes a few
//! tests with it, and their names are known.

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

/// More would take more memory than is asked for, and a software driver runs each kernel on all cores anyway.
const AT_A_TIME: usize = 2;
/// Tests of a process. More share more of what they compile, where a driver has no cache; and take more memory.
const TESTS_AT_MOST: usize = 6;

/// Starts a program of tests.
pub(crate) type Start<'a> = &'a (dyn Fn() -> Command + Sync);

/// Tests that share a process.
struct Group<'a> {
    start: Start<'a>,
    /// All there are, where none is named.
    tests: Vec<String>,
}

/// What came of one.
struct Outcome {
    lines: Vec<String>,
    error: Option<String>,
    took: Duration,
}

/// Runs the tests that libtest's `arguments` pick, of the suite and of `others`, each of which is one process, and notes in
/// `coverage` what ran where. Fails if a test failed or none ran. `each_line` is told all that the processes print.
pub(crate) fn run(
    suite: Start<'_>,
    others: &[Start<'_>],
    arguments: &[&str],
    coverage: &Coverage,
    mut each_line: impl FnMut(&str),
) -> Result<()> {
    // The others first: one of them takes longer than any group of the suite.
    let mut groups: VecDeque<Group<'_>> = others.iter().map(|&start| Group { start, tests: Vec::new() }).collect();
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
                let tests = if group.tests.is_empty() { "all its tests".to_owned() } else { group.tests.join(", ") };
                failed.push(format!("{error}, running {tests}"));
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

/// A line a test; and all there is where one failed.
fn print(outcome: &Outcome) {
    for line in &outcome.lines {
        if outcome.error.is_some() || line.starts_with("test ") && !line.starts_with("test result") {
            println!("{line}");
        }
    }
}

/// The tests of the suite that `arguments` pick, those of a module together.
fn groups_of<'a>(start: Start<'a>, arguments: &[&str]) -> Result<Vec<Group<'a>>> {
    let mut names = Vec::new();
    let program = &mut start();
    prepare(program).args(["--list", "--format", "terse"]).args(arguments);
    let mut lines = Vec::new();
    run_reading_all(program, |line| {
        names.extend(line.strip_suffix(": test").map(str::to_owned));
        lines.push(line.to_owned());
    })
    .map_err(|error| error.context(lines.join("\n")))?;
    Ok(grouped(&names).into_iter().map(|tests| Group { start, tests: tests.to_vec() }).collect())
}

/// Names in order, cut where a module ends and where there are enough.
fn grouped(names: &[String]) -> Vec<&[String]> {
    let module = |name: &str| name.split("::").next().unwrap_or_default().to_owned();
    names
        .chunk_by(|one, other| module(one) == module(other))
        .flat_map(|tests| tests.chunks(tests.len().div_ceil(tests.len().div_ceil(TESTS_AT_MOST))))
        .collect()
}

fn run_group(group: &Group<'_>, arguments: &[&str], coverage: &Coverage) -> Outcome {
    let begin = Instant::now();
    let flags = arguments.iter().filter(|argument| argument.starts_with("--"));
    let program = &mut (group.start)();
    prepare(program).arg("--test-threads=1").args(flags);
    if !group.tests.is_empty() {
        program.arg("--exact").args(&group.tests);
    }
    let mut lines = Vec::new();
    let ran = run_reading_all(coverage.noted_by(program), |line| lines.push(line.to_owned()));
    // Its arguments are the names, which the caller says.
    let error = ran.err().map(|error| {
        let text = format!("{error:#}");
        text.rsplit_once("` ended with ").map_or(text.clone(), |(_, status)| format!("a process ended with {status}"))
    });
    Outcome { lines, error, took: begin.elapsed() }
}

/// What every process of the suite needs around it.
fn prepare(program: &mut Command) -> &mut Command {
    // Mesa's cache wants a home otherwise; and a clone that is removed leaves nothing behind.
    let target = root().join("target");
    if env::var_os("MESA_SHADER_CACHE_DIR").is_none() && target.exists() {
        program.env("MESA_SHADER_CACHE_DIR", target.join("shader-cache"));
    }
    // Mesa complains in the middle of a line where there is none.
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
