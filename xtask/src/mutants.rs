//! `cargo xtask mutants`: plants mistakes in the library's host code, one at a time, and checks that a test notices each.
//!
//! `tests/suite/mutations.rs` does the same for the shaders. Here a copy of the workspace is compiled once with all
//! mistakes in it. Each has a number, and an environment variable of the tests selects the one to make.

mod equivalent;
mod plant;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::command::{cargo, root, run_reading};
use plant::{Mutant, PLANTED, plant};

/// The files in which mistakes are planted: those that check, choose, cut, bind and record.
const FILES: &[&str] = &[
    "src/device/caps.rs",
    "src/device/matrix_unit.rs",
    "src/host/inputs.rs",
    "src/host/run.rs",
    "src/host/stopwatch.rs",
    "src/host/tune.rs",
    "src/kernel/append.rs",
    "src/kernel/check.rs",
    "src/kernel/choices.rs",
    "src/kernel/combine.rs",
    "src/kernel/decode.rs",
    "src/kernel/gradient.rs",
    "src/kernel/gradient_lanes.rs",
    "src/kernel/lanes.rs",
    "src/kernel/matrix.rs",
    "src/kernel/merge.rs",
    "src/kernel/record.rs",
    "src/kernel/schedule.rs",
    "src/kernel/select.rs",
    "src/kernel/select_gradients.rs",
    "src/kernel/slots.rs",
    "src/kernel/stage.rs",
    "src/kernel/streams.rs",
    "src/kernel/tiled.rs",
    "src/kernel/variant.rs",
    "src/plan/cut.rs",
    "src/plan/merge.rs",
    "src/plan/mod.rs",
    "src/plan/params.rs",
    "src/plan/piece.rs",
    "src/plan/scratch.rs",
    "src/plan/slices.rs",
    "src/plan/split.rs",
    "src/plan/stand_ins.rs",
    "src/plan/upload.rs",
    "src/problem/append.rs",
    "src/problem/builder.rs",
    "src/problem/check.rs",
    "src/problem/dropout.rs",
    "src/problem/dtype.rs",
    "src/problem/gradients.rs",
    "src/problem/layout.rs",
    "src/problem/mask.rs",
    "src/problem/merge.rs",
    "src/problem/mod.rs",
    "src/problem/operand.rs",
    "src/problem/positions.rs",
    "src/problem/quantization.rs",
    "src/problem/sequences.rs",
    "src/problem/shape.rs",
    "src/problem/wanted.rs",
    "src/problem/weight_rows.rs",
    "src/record/bind.rs",
    "src/record/call.rs",
    "src/record/operands.rs",
    "src/record/readback.rs",
];

/// The tests that should notice a mistake, in the order in which they run: the quick ones first.
const STAGES: &[Stage] = &[
    Stage { program: Program::Unit, tests: &[], of: "" },
    Stage {
        program: Program::Suite,
        tests: &["errors::", "host::", "chosen_weights::rows", "facts::a_page_knows_its_adapter"],
        of: "",
    },
    Stage {
        program: Program::Suite,
        // What is skipped takes longer.
        tests: &[
            "record::",
            "growing::",
            "--skip=nothing_anyone",
            "--skip=a_resized_plan_is",
            "--skip=a_rebound_call_uses",
        ],
        of: "",
    },
    // These run kernels, and take longer.
    Stage {
        program: Program::Suite,
        tests: &[
            "blocking::",
            "submitting::",
            "tune::",
            "refused::",
            "block_masks::the_host_may",
            "block_masks::empty_problems",
            "gradients::host_slices",
        ],
        of: "src/host/",
    },
    Stage { program: Program::Suite, tests: &["cuts::tiled", "merging::", "blocking::"], of: "src/record/" },
    Stage {
        program: Program::Suite,
        tests: &[
            "gradients::gradients_of_wide",
            "gradients::layouts",
            "gradients::sequences",
            "gradients::only_what",
            "gradients_of_gpus::larger_blocks_are_right",
        ],
        of: "src/kernel/gradient",
    },
    Stage { program: Program::Suite, tests: &["appending::"], of: "src/kernel/append.rs" },
    Stage { program: Program::Suite, tests: &["merging::"], of: "src/plan/merge.rs" },
    Stage { program: Program::Suite, tests: &["merging::"], of: "src/problem/merge.rs" },
    Stage { program: Program::Suite, tests: &["cuts::"], of: "src/plan/" },
    Stage {
        program: Program::Suite,
        tests: &["gradients::the_same_inputs", "gradients::sequences", "gradients::operands"],
        of: "src/plan/",
    },
];

/// A test program and which of its tests run: all of them if `tests` is empty.
struct Stage {
    program: Program,
    tests: &'static [&'static str],
    /// The stage runs only for mistakes in files whose paths start with this.
    of: &'static str,
}

impl Stage {
    fn is_for(&self, file: &str) -> bool {
        file.starts_with(self.of)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Program {
    /// The library's unit tests.
    Unit,
    /// `tests/suite`.
    Suite,
}

/// The paths of the two test programs.
struct Programs {
    unit: PathBuf,
    suite: PathBuf,
}

/// Whether a test noticed a mistake.
enum Fate {
    Noticed,
    Survived,
}

/// A run that takes this many times as long as the one without a mistake counts as hanging, and so as noticed.
const PATIENCE: u32 = 4;
const LEAST_PATIENCE: Duration = Duration::from_secs(20);
/// The number of runs at the same time.
const THREADS: usize = 2;

/// Plants every mistake and fails if one survives. `only` selects those whose description contains it.
pub(crate) fn plant_and_test(only: Option<&str>) -> Result<()> {
    let copy = target()?.join("mutants");
    let mutants = write_copy(&copy)?;
    let chosen = choose(&mutants, only)?;
    let programs = build(&copy)?;
    let stages: Vec<&Stage> =
        STAGES.iter().filter(|stage| chosen.iter().any(|&n| stage.is_for(&mutants[n].file))).collect();
    let patience = run_unmodified(&programs, &copy, &stages)?;
    let stages: Vec<_> = stages.into_iter().zip(patience).collect();
    println!("{} mistakes planted, {} run", mutants.len(), chosen.len());

    let next = AtomicUsize::new(0);
    let survivors = Mutex::new(Vec::new());
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(&number) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Fate::Survived = fate(&programs, &copy, (number, &mutants[number].file), &stages) {
                        println!("survived: {}", mutants[number]);
                        survivors.lock().expect("no thread panics").push(number);
                    }
                }
            });
        }
    });
    println!("{} mistakes in {:.0} s", chosen.len(), start.elapsed().as_secs_f64());
    let survivors = survivors.into_inner().expect("no thread panics");
    ensure!(survivors.is_empty(), "no test noticed {} mistakes; each is named above", survivors.len());
    Ok(())
}

/// The numbers of the mistakes to make: all but those that are known to change nothing.
fn choose(mutants: &[Mutant], only: Option<&str>) -> Result<Vec<usize>> {
    let excluded = equivalent::check(mutants)?;
    let wanted = |mutant: &Mutant| only.is_none_or(|only| mutant.to_string().contains(only));
    let numbers = (0..mutants.len()).filter(|number| !excluded.contains(number) && wanted(&mutants[*number]));
    Ok(numbers.collect())
}

/// The folder that holds what cargo builds.
fn target() -> Result<PathBuf> {
    let own_path = std::env::current_exe().context("this program's own path is unknown")?;
    own_path.ancestors().nth(2).map(Path::to_owned).context("this program does not run from a target folder")
}

/// Writes a copy of the workspace with the mistakes in it. Unchanged files keep their time, so that cargo does not compile
/// them again.
fn write_copy(copy: &Path) -> Result<Vec<Mutant>> {
    let mut mutants = Vec::new();
    let mut planted = 0;
    for path in workspace_files()? {
        let source = root().join(&path);
        let mut contents = fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
        let name = path.to_string_lossy().replace('\\', "/");
        if FILES.contains(&name.as_str()) {
            planted += 1;
            contents = plant(&name, std::str::from_utf8(&contents)?, &mut mutants)?.into_bytes();
        } else if name == "src/lib.rs" {
            let text = String::from_utf8(contents)?;
            contents = format!("#![allow(warnings)]\n{text}\n{PLANTED}").into_bytes();
        } else if name == "Cargo.toml" {
            // Without another version, cargo confuses the copy with the workspace itself, and recompiles one after building
            // the other.
            let text = String::from_utf8(contents)?;
            contents = text.replacen("version = \"", "version = \"9", 1).into_bytes();
        }
        write_if_new(&copy.join(&path), &contents)?;
    }
    ensure!(planted == FILES.len(), "a file that xtask/src/mutants.rs lists does not exist: {FILES:?}");
    Ok(mutants)
}

fn write_if_new(path: &Path, contents: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == contents) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, contents).with_context(|| format!("cannot write {}", path.display()))
}

/// Every file that cargo may need, relative to the root.
fn workspace_files() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut waiting: Vec<PathBuf> = [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "src",
        "shaders",
        "tests",
        "examples",
        "benches",
        "browser",
        "cli",
        "compilers",
        "truth",
        "web",
        "xtask",
    ]
    .map(PathBuf::from)
    .into();
    while let Some(path) = waiting.pop() {
        let full = root().join(&path);
        if !full.is_dir() {
            files.push(path);
        } else if !path.ends_with("peers") {
            for entry in fs::read_dir(&full).with_context(|| format!("cannot list {}", full.display()))? {
                waiting.push(path.join(entry?.file_name()));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Compiles the two test programs. Reuses the dependencies that the workspace's own build compiled.
fn build(copy: &Path) -> Result<Programs> {
    let mut command = cargo(
        "test --release --workspace --lib --test suite --no-run --message-format=json-render-diagnostics".split(' '),
    );
    command.current_dir(copy).env("CARGO_TARGET_DIR", target()?);
    let (mut unit, mut suite) = (None, None);
    run_reading(&mut command, |line| {
        let message: Value = serde_json::from_str(line).unwrap_or_default();
        let Some(program) = message["executable"].as_str().map(PathBuf::from) else { return };
        match message["target"]["name"].as_str() {
            Some("suite") => suite = Some(program),
            Some("wgpu_attention") => unit = Some(program),
            _ => {}
        }
    })?;
    Ok(Programs { unit: unit.context("cargo built no unit tests")?, suite: suite.context("cargo built no `suite`")? })
}

/// Runs each stage without a mistake. Returns how long a run with a mistake may take.
fn run_unmodified(programs: &Programs, copy: &Path, stages: &[&Stage]) -> Result<Vec<Duration>> {
    let mut patience = Vec::new();
    for stage in stages {
        let start = Instant::now();
        let status =
            command(programs, copy, stage).stdout(Stdio::null()).status().context("cannot start a test program")?;
        ensure!(status.success(), "the tests {:?} fail without a mistake", stage.tests);
        println!("without a mistake, {:?}: {:.1} s", stage.tests, start.elapsed().as_secs_f64());
        patience.push((start.elapsed() * PATIENCE).max(LEAST_PATIENCE));
    }
    Ok(patience)
}

fn command(programs: &Programs, copy: &Path, stage: &Stage) -> Command {
    let program = if stage.program == Program::Unit { &programs.unit } else { &programs.suite };
    let mut command = Command::new(program);
    command.args(stage.tests).arg("--test-threads=1").current_dir(copy);
    command
}

/// Makes one mistake and runs one stage after another until one notices it.
fn fate(programs: &Programs, copy: &Path, (number, file): (usize, &str), stages: &[(&Stage, Duration)]) -> Fate {
    for (stage, patience) in stages.iter().filter(|(stage, _)| stage.is_for(file)) {
        let mut command = command(programs, copy, stage);
        command.env("PLANTED", number.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
        let passed = command.spawn().is_ok_and(|child| passes(child, *patience));
        if !passed {
            return Fate::Noticed;
        }
    }
    Fate::Survived
}

/// Whether a run succeeds in time.
fn passes(mut child: std::process::Child, patience: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < patience {
        if let Ok(Some(status)) = child.try_wait() {
            return status.success();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // Fails if the run has just ended by itself.
    let _ = child.kill();
    let _ = child.wait();
    false
}
