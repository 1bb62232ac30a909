//! `devices` and `dump`.

use std::path::Path;

use crate::harness::{command, folder, refused};

#[test]
fn devices_and_dump_agree_on_the_variant() {
    let output = command(Path::new("."), &["devices", "--json"]);
    assert!(output.status.success());
    let adapters: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let Some(first) = adapters.as_array().expect("a list").first() else { return };
    assert_eq!(first["index"], 0);
    let variant = first["variant"].as_str().expect("it gets one");

    let list = command(Path::new("."), &["dump", "--device", "0"]);
    assert_eq!(String::from_utf8_lossy(&list.stdout).lines().next(), Some(variant));
    let wgsl = command(Path::new("."), &["dump", "--device", "0", variant]);
    assert!(String::from_utf8_lossy(&wgsl.stdout).contains("@compute"));
    refused(folder().path(), &["dump", "nothing.like.it"], "nothing.like.it");
    let on_matrices = ["dump", "--device", "cpu", "--dtype", "f16", "--matrix-unit", "vulkan"];
    let list = command(Path::new("."), &on_matrices).stdout;
    let list = String::from_utf8_lossy(&list).into_owned();
    let variant = list.lines().find(|variant| variant.starts_with("matrix16")).expect("one on matrices");
    let wgsl = command(Path::new("."), &[&on_matrices[..], &[variant]].concat()).stdout;
    assert!(String::from_utf8_lossy(&wgsl).contains("coop_mat16x16"), "{variant}");
    // The text needs no device; the kernels that every device can run are among those of this one.
    let list = command(Path::new("."), &["dump", "--device", "cpu"]).stdout;
    let common = String::from_utf8_lossy(&list).lines().next().expect("one at least").to_owned();
    let [anywhere, here] =
        ["cpu", "0"].map(|device| command(Path::new("."), &["dump", "--device", device, &common]).stdout);
    assert!(!anywhere.is_empty());
    assert!(anywhere == here, "{common} differs");
}
