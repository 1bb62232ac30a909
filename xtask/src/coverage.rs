//! What ran where: reads what the processes of the suite wrote, prints it as a table, and fails if kernels were not run.
//!
//! Each line has a few fields, separated by tabs. `tests/suite/coverage.rs` writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// The environment variable that tells the suite the folder.
const FOLDER: &str = "WGPU_ATTENTION_COVERAGE";

/// The folder that processes of the suite write to.
#[derive(Debug)]
pub(crate) struct Coverage {
    folder: PathBuf,
}

impl Coverage {
    /// Creates the folder, empty.
    pub(crate) fn new(folder: PathBuf) -> Result<Self> {
        // Removes what an earlier run wrote.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// Makes a program write to the folder.
    pub(crate) fn noted_by<'a>(&self, program: &'a mut Command) -> &'a mut Command {
        program.env(FOLDER, &self.folder)
    }

    /// Reads everything that was written.
    pub(crate) fn table(&self) -> Result<Table> {
        let mut table = Table::default();
        for entry in fs::read_dir(&self.folder).with_context(|| format!("cannot list {}", self.folder.display()))? {
            fs::read_to_string(entry?.path())?.lines().for_each(|line| table.note(line));
        }
        Ok(table)
    }
}

/// A kernel and an adapter.
type Cell = (String, String);

#[derive(Debug, Default)]
pub(crate) struct Table {
    /// Where selection offers the kernel on the adapter.
    offered: BTreeSet<Cell>,
    ran: BTreeSet<Cell>,
    /// Why selection does not offer a kernel on an adapter.
    lacks: BTreeMap<Cell, String>,
    planted: BTreeSet<String>,
    /// The mistakes that are planted only with `--full`.
    left_to_full: BTreeSet<String>,
    /// The mistakes that a process could not plant, and the kernels that they belong to.
    not_planted: BTreeMap<String, String>,
}

impl Table {
    fn note(&mut self, line: &str) {
        let owned = |field: &str| field.to_owned();
        match *line.split('\t').collect::<Vec<_>>() {
            ["offers", kernel, adapter] => drop(self.offered.insert((owned(kernel), owned(adapter)))),
            ["ran", kernel, adapter] => drop(self.ran.insert((owned(kernel), owned(adapter)))),
            ["lacks", kernel, adapter, why] => drop(self.lacks.insert((owned(kernel), owned(adapter)), owned(why))),
            ["planted", mistake] => drop(self.planted.insert(owned(mistake))),
            ["left to full", mistake] => drop(self.left_to_full.insert(owned(mistake))),
            ["not planted", mistake, kernels] => drop(self.not_planted.insert(owned(mistake), owned(kernels))),
            _ => {}
        }
    }

    /// The lines to print: what ran where, what could not run and why, and which mistakes were not planted.
    pub(crate) fn lines(&self) -> Vec<String> {
        let cells = || self.offered.iter().chain(&self.ran).chain(self.lacks.keys());
        let adapters: BTreeSet<&String> = cells().map(|(_, adapter)| adapter).collect();
        let kernels: BTreeSet<&String> = cells().map(|(kernel, _)| kernel).collect();
        let mut lines =
            Vec::from_iter(adapters.iter().enumerate().map(|(n, adapter)| format!("{:>4}  {adapter}", n + 1)));
        lines.push(format!("{:<34}{}", "", (1..=adapters.len()).map(|n| format!("{n:>6}")).collect::<String>()));
        for kernel in &kernels {
            let row = adapters.iter().map(|adapter| format!("{:>6}", self.cell(kernel, adapter)));
            lines.push(format!("{kernel:<34}{}", row.collect::<String>()));
        }
        lines.push(
            "ran: a test ran it. NOT: selection offers it there and no test ran it. -: selection does not offer it."
                .into(),
        );
        lines.extend(self.ran_nowhere(&kernels, &adapters));
        lines.extend(self.mistakes());
        lines
    }

    /// The kernels that no adapter here ran, grouped by the reasons.
    fn ran_nowhere(&self, kernels: &BTreeSet<&String>, adapters: &BTreeSet<&String>) -> Vec<String> {
        let ran_somewhere = |kernel: &str| self.ran.iter().any(|(ran, _)| ran == kernel);
        let mut by_reasons = BTreeMap::<_, Vec<&str>>::new();
        for kernel in kernels.iter().filter(|kernel| !ran_somewhere(kernel)) {
            let mut reasons = BTreeMap::<_, Vec<_>>::new();
            for (n, adapter) in adapters.iter().enumerate() {
                if let Some(why) = self.lacks.get(&((*kernel).clone(), (*adapter).clone())) {
                    reasons.entry(why).or_default().push((n + 1).to_string());
                }
            }
            let reasons: Vec<String> = reasons.iter().map(|(why, on)| format!("{} {why}", on.join(", "))).collect();
            by_reasons.entry(reasons.join("; ")).or_default().push(kernel);
        }
        by_reasons.iter().map(|(why, kernels)| format!("ran nowhere: {}: {why}", kernels.join(", "))).collect()
    }

    fn cell(&self, kernel: &str, adapter: &str) -> &'static str {
        let cell = (kernel.to_owned(), adapter.to_owned());
        match (self.ran.contains(&cell), self.offered.contains(&cell)) {
            (true, _) => "ran",
            (false, true) => "NOT",
            (false, false) => "-",
        }
    }

    fn mistakes(&self) -> Vec<String> {
        let mut by_kernels = BTreeMap::<_, Vec<_>>::new();
        for (mistake, kernels) in self.not_planted.iter().filter(|(mistake, _)| !self.planted.contains(*mistake)) {
            by_kernels.entry(kernels).or_default().push(mistake);
        }
        let left_out: usize = by_kernels.values().map(Vec::len).sum();
        let to_full = self.left_to_full.difference(&self.planted).count();
        let mut lines =
            vec![format!("{} mistakes planted, {left_out} left out, {to_full} left to --full", self.planted.len())];
        for (kernels, mistakes) in by_kernels {
            lines.push(format!("{} left out, for no adapter here runs {kernels}:", mistakes.len()));
            lines.extend(mistakes.iter().map(|mistake| format!("    {mistake}")));
        }
        lines
    }

    /// Fails in CI on Linux, where all adapters are known, if a kernel could have run on one of them and did not.
    pub(crate) fn judge(&self) -> Result<()> {
        ensure!(!self.ran.is_empty(), "no kernel ran");
        let missing: Vec<String> =
            self.offered.difference(&self.ran).map(|(kernel, adapter)| format!("{kernel} on {adapter}")).collect();
        if !missing.is_empty() && is_ci_on_linux() {
            bail!("selection offers these kernels, but no test ran them:\n{}", missing.join("\n"));
        }
        Ok(())
    }
}

/// Whether gaps in coverage are failures.
pub(crate) fn is_ci_on_linux() -> bool {
    cfg!(target_os = "linux") && env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

#[cfg(test)]
mod test {
    use super::Table;

    fn table(lines: &[&str]) -> Table {
        let mut table = Table::default();
        lines.iter().for_each(|line| table.note(line));
        table
    }

    #[test]
    fn what_ran_what_did_not_and_why_are_told_by_name() {
        let table = table(&[
            "offers\ttiled x4\tlavapipe",
            "ran\ttiled x4\tlavapipe",
            "offers\tmerge x4\tGL",
            "lacks\tlanes8 x4\tGL\thas no subgroups",
            "not planted\tLanes: a for b\tlanes8 x4",
            "not planted\tTiled: c for d\ttiled-sub x4",
            "planted\tTiled: c for d",
            "left to full\tLanes: e for f",
        ]);
        let lines = table.lines();
        let has =
            |wanted: &str| lines.iter().any(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") == wanted);
        for wanted in [
            "1 GL",
            "2 lavapipe",
            "tiled x4 - ran",
            "merge x4 NOT -",
            "ran nowhere: lanes8 x4: 1 has no subgroups",
            "1 mistakes planted, 1 left out, 1 left to --full",
            "1 left out, for no adapter here runs lanes8 x4:",
            "Lanes: a for b",
        ] {
            assert!(has(wanted), "{wanted:?} is not in {lines:#?}");
        }
        assert!(!has("Tiled: c for d"), "it was planted by another process");
    }

    #[test]
    fn an_empty_table_is_a_failure() {
        assert!(table(&[]).judge().is_err());
        assert!(table(&["ran\ttiled x4\tlavapipe", "offers\ttiled x4\tlavapipe"]).judge().is_ok());
    }
}
