//! How the modules of the library depend on each other: in one direction, without cycles.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The modules of `src`, by their paths in the crate, with their text.
fn modules() -> BTreeMap<String, String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules = BTreeMap::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let relative = path.strip_prefix(&src).unwrap().with_extension("");
            let names: Vec<_> = relative.iter().map(|name| name.to_string_lossy().into_owned()).collect();
            let names = names.strip_suffix(&["mod".to_owned()]).unwrap_or(&names);
            // Code for tests may import from anywhere.
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
            modules.insert(names.join("::"), text);
        }
    }
    modules
}

/// The module that a path leads into: the longest start of the path that is a module.
fn module<'a>(path: &str, modules: &'a BTreeMap<String, String>) -> Option<&'a str> {
    let names: Vec<&str> = path.split("::").collect();
    (1..=names.len()).rev().find_map(|n| modules.get_key_value(&names[..n].join("::")).map(|(name, _)| name.as_str()))
}

/// The modules that each module imports from. The crate's root, which names them all for users, is left out.
fn imports(modules: &BTreeMap<String, String>) -> BTreeMap<&str, BTreeSet<&str>> {
    let of = |name: &str, text: &str| -> BTreeSet<&str> {
        let lines = text.lines().filter_map(|line| {
            let line = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            line.strip_prefix("use ").map(str::to_owned)
        });
        let paths = lines.flat_map(|line| {
            let line = line.trim_end_matches(';').to_owned();
            let (path, names) = line.split_once("::{").unwrap_or((&line, ""));
            let path = match path.strip_prefix("crate::") {
                Some(path) => path.to_owned(),
                // A module names its submodules by relative paths.
                None => format!("{name}::{path}"),
            };
            let names: Vec<String> =
                names.trim_end_matches('}').split(", ").map(|name| format!("{path}::{name}")).collect();
            names
        });
        paths.filter_map(|path| module(&path, modules)).filter(|other| *other != name).collect()
    };
    let inner = modules.iter().filter(|(name, _)| *name != "lib");
    inner.map(|(name, text)| (name.as_str(), of(name, text))).collect()
}

#[test]
fn imports_make_no_circle() {
    let modules = modules();
    let mut waiting = imports(&modules);
    assert!(waiting.len() > 40, "{:?}", waiting.keys());
    assert!(waiting["plan::cut"].contains("problem"), "{:?}", waiting["plan::cut"]);
    while !waiting.is_empty() {
        // A module that imports nothing that is still waiting is not in a cycle.
        let free: Vec<&str> = waiting
            .iter()
            .filter(|(_, imports)| imports.iter().all(|name| !waiting.contains_key(name)))
            .map(|(name, _)| *name)
            .collect();
        assert!(!free.is_empty(), "a circle among {waiting:#?}");
        waiting.retain(|name, _| !free.contains(name));
    }
}

/// No folder imports from one that comes after it in reading order.
#[test]
fn imports_run_one_way() {
    let order = ["problem", "device", "kernel", "plan", "record", "host", "testing"];
    let place = |name: &str| order.iter().position(|folder| name.split("::").next() == Some(folder)).unwrap();
    let modules = modules();
    for (name, others) in imports(&modules) {
        for other in others {
            assert!(place(other) <= place(name), "{name} imports from {other}");
        }
    }
}

/// Only `src/kernel` depends on which schedule a kernel has.
#[test]
fn schedules_are_named_nowhere_else() {
    for (name, text) in modules() {
        if name.starts_with("kernel") || name == "lib" {
            continue;
        }
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        for line in code {
            for schedule in ["tiled", "decode", "streams", "lanes", "matrix::", "stage::", "merge::", "Schedule"] {
                let names = line.contains(&format!("{schedule}::")) || line.contains(&format!("\"{schedule}"));
                assert!(!names, "{name}: {line}");
            }
        }
    }
}
