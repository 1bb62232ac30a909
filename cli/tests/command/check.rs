//! `check`.

use std::path::Path;

use safetensors::Dtype;

use crate::harness::{Tensor, at_root, command, devices, floats, folder, refused, write};

/// On a GPU this takes minutes, so it is a separate step of `cargo xtask test`.
#[test]
fn every_case_passes_on_the_cpu() {
    let folders = ["tests/conformance", "tests/cases"].map(at_root);
    let args = ["check", "--device", "cpu", "--cases", &folders[0], "--cases", &folders[1]];
    let output = command(Path::new("."), &args);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let last = text.lines().last().expect("it says something");
    assert!(last.ends_with(" passed, 0 failed"), "{last}");
    assert!(text.lines().filter(|line| line.starts_with("ok ")).count() > 100, "{text}");
}

#[test]
fn cases_of_our_own_pass_on_every_device() {
    let cases = at_root("tests/cases");
    for device in devices() {
        let output = command(Path::new("."), &["check", "--no-built-in", "--cases", &cases, "--device", &device]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{device}: {text}");
        for name in ["stale_cells_behind_a_bias", "nan_query_row_hidden_by_a_bias", "head_512", "latent_576_512"] {
            assert!(
                text.lines().any(|line| line.starts_with("ok ") && line.contains(name)),
                "{device}: {name}: {text}"
            );
        }
    }
}

#[test]
fn check_fails_on_a_broken_case() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    write(&path("right.safetensors"), &["in.Q", "in.K", "in.V", "out.Y"].map(|name| floats(name, &[1, 1, 1, 4])));
    write(&path("wrong.safetensors"), &["in.Q", "in.K", "in.V", "out.Y"].map(|name| floats(name, &[1, 2, 3, 4])));
    let manifest = r#"{"cases": [
        {"name": "right", "file": "right.safetensors"},
        {"name": "wrong", "file": "wrong.safetensors"},
        {"name": "absent", "file": "absent.safetensors"},
        {"name": "unknown-attribute", "file": "right.safetensors", "attributes": {"is_casual": 1}},
        {"nonsense": true}
    ]}"#;
    std::fs::write(path("manifest.json"), manifest).expect("the folder is writable");
    let output = command(folder.path(), &["check", "--device", "cpu", "--json", "--cases", "."]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["failed"], 4, "{report}");
    let cases = report["cases"].as_array().expect("a list");
    assert!(cases.iter().any(|case| case["name"] == "right" && case["ok"] == true), "{report}");
    let absent = cases.iter().find(|case| case["name"] == "absent").expect("it is listed");
    assert_eq!(absent["detail"], "cannot read ./absent.safetensors: there is no such file; name a safetensors file");
}

#[test]
fn check_refuses_a_folder_without_a_manifest() {
    let folder = folder();
    let good = at_root("tests/conformance");
    let check = |bad: &str, words: &str| {
        // The bad folder is refused before any case runs, although it comes last.
        let args = ["check", "--device", "cpu", "--cases", &good, "--cases", bad];
        refused(folder.path(), &args, words);
        assert!(command(folder.path(), &args).stdout.is_empty());
    };
    check("absent", "cannot read absent/manifest.json: there is no such file");
    check(".", "cannot read ./manifest.json: there is no such file");
    let manifests = [
        ("", "is not a manifest (EOF"),
        ("{", "is not a manifest"),
        ("[1]", "is not a manifest"),
        ("\u{0}", "is not a"),
    ];
    for (text, words) in manifests.into_iter().chain([("{}", "missing field"), (r#"{"cases": []}"#, "lists no cases")])
    {
        std::fs::write(folder.path().join("manifest.json"), text).expect("the folder is writable");
        check(".", "./manifest.json");
        check(".", words);
    }
}

#[test]
fn a_name_is_printed_and_not_obeyed() {
    let folder = folder();
    let manifest = r#"{"cases": [{"name": "two\nlines\u001b[2J", "file": "no\nsuch\u0007file"}]}"#;
    std::fs::write(folder.path().join("manifest.json"), manifest).expect("the folder is writable");
    let output = command(folder.path(), &["check", "--device", "cpu", "--no-built-in", "--cases", "."]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("FAILED two lines\\u{1b}[2J - "), "{text}");
    assert!(text.contains("no such\\u{7}file"), "{text}");
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(!text.contains(['\u{1b}', '\u{7}']), "{text}");
}

#[test]
fn an_lse_that_is_off_fails() {
    let folder = folder();
    let q = || ["in.Q", "in.K", "in.V"].map(|name| floats(name, &[1, 1, 1, 4]));
    let lse = |value: f32| Tensor("out.lse", Dtype::F32, vec![1, 1, 1], value.to_le_bytes().to_vec());
    let manifest = r#"{"cases": [{"name": "lse", "file": "lse.safetensors"}]}"#;
    std::fs::write(folder.path().join("manifest.json"), manifest).expect("the folder is writable");
    // One key: the LSE is its score, (1 + 0.875² + 0.75² + 0.625²) / √4.
    for (value, code) in [(1.359_375, 0), (1.37, 1)] {
        let tensors: Vec<Tensor> = q().into_iter().chain([lse(value)]).collect();
        write(&folder.path().join("lse.safetensors"), &tensors);
        let output = command(folder.path(), &["check", "--device", "cpu", "--no-built-in", "--cases", "."]);
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn new_rows_are_appended_to_past_ones() {
    let folder = folder();
    let new = |name| floats(name, &[1, 1, 2, 4]);
    let past = |name| floats(name, &[1, 1, 3, 4]);
    let present = |name| {
        let bytes = [past(name).3, new(name).3].concat();
        Tensor(name, Dtype::F32, vec![1, 1, 5, 4], bytes)
    };
    let mut tensors: Vec<Tensor> = ["in.K", "in.V"].map(new).into();
    tensors.extend(["in.past_key", "in.past_value"].map(past));
    tensors.extend(["out.present_key", "out.present_value"].map(present));
    tensors.push(floats("in.Q", &[1, 1, 1, 4]));
    write(&folder.path().join("past.safetensors"), &tensors);
    let manifest = r#"{"cases": [{"name": "past", "file": "past.safetensors"}]}"#;
    std::fs::write(folder.path().join("manifest.json"), manifest).expect("the folder is writable");
    for device in devices() {
        let args = ["check", "--no-built-in", "--selected", "--cases", ".", "--device", &device];
        let output = command(folder.path(), &args);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{device}: {text}");
        let appended = text.lines().any(|line| line.starts_with("ok     past append."));
        assert!(appended || device == "cpu", "{device}: {text}");
    }
}
