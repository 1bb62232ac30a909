//! Mistakes on the command line.

use crate::harness::{floats, folder, output_of, qkv, refused, write};

#[test]
fn bad_options_are_refused() {
    let folder = folder();
    write(&folder.path().join("in.safetensors"), &qkv());
    let cases: &[(&[&str], &str)] = &[
        (&["--scale", "NaN"], "NaN"),
        (&["--scale", "inf"], "finite"),
        (&["--scale", "1e39"], "finite"),
        (&["--softcap", "0"], "above 0"),
        (&["--softcap", "-2"], "above 0"),
        (&["--window", "5"], "two numbers"),
        (&["--window", "1,2,3"], "two numbers"),
        (&["--window", "-2,0"], "-2"),
        (&["--window", "0,2147483648"], "2147483648"),
        (&["--window", "99999999999999999999,0"], "99999999999999999999"),
        (&["--window", "a,b"], "a"),
        (&["--causal", "middle"], "middle"),
        (&["--diagonal", "middle", "--window", "1,1"], "top-left, bottom-right, or a whole number"),
        (&["--diagonal", "2147483648", "--window", "1,1"], "2147483647"),
        (&["--diagonal", "bottom-right"], "--diagonal changes nothing without --window"),
        (&["--causal", "top-left", "--diagonal", "bottom-right"], "name different diagonals"),
        (&["--dtype", "f8"], "f8"),
        (&["--heatmap-batch", "1"], "--heatmap"),
        (&["--heatmap", "map.png", "--heatmap-batch", "2"], "must be below the 2 batches"),
        (&["--device", "no such device"], "cpu"),
        (&["--device", "99"], "--device \"99\" matches nothing"),
        (&["--frobnicate"], "--frobnicate"),
    ];
    for (options, words) in cases {
        let args = [&["run", "in.safetensors", "-o", "out.safetensors"], *options].concat();
        refused(folder.path(), &args, words);
    }
    write(&folder.path().join("one.safetensors"), &["q", "k", "v"].map(|name| floats(name, &[1, 2, 5, 8])));
    let args = ["run", "one.safetensors", "-o", "out.safetensors", "--heatmap", "map.png", "--heatmap-batch", "9"];
    refused(folder.path(), &args, "--heatmap-batch is 9; it must be 0, the only batch there is");
    refused(folder.path(), &["run", "in.safetensors"], "--output");
    refused(folder.path(), &["runn"], "runn");
}

#[test]
fn a_window_goes_along_any_diagonal() {
    // Three rows of seven keys, so that the diagonals differ.
    let tensors = [floats("q", &[1, 2, 3, 8]), floats("k", &[1, 2, 7, 8]), floats("v", &[1, 2, 7, 8])];
    let along = |options: &[&str]| output_of(&tensors, &[&["--window", "2,1"], options].concat());
    let (top, bottom) = (along(&[]), along(&["--diagonal", "bottom-right"]));
    assert_ne!(top, bottom);
    assert_eq!(along(&["--diagonal", "top-left"]), top);
    assert_eq!(along(&["--diagonal", "0"]), top);
    assert_eq!(along(&["--diagonal", "4"]), bottom);
    assert!(![&top, &bottom].contains(&&along(&["--diagonal", "-1"])));
    let causal = along(&["--causal", "bottom-right"]);
    assert_ne!(causal, bottom);
    for same in [&["--causal", "4"][..], &["--causal", "bottom-right", "--diagonal", "bottom-right"]] {
        assert_eq!(along(same), causal);
    }
}
