//! The command as its users meet it: what it prints, writes and exits with.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use tempfile::TempDir;

/// Runs it in `folder`.
fn command(folder: &Path, args: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_wgpu-attention");
    Command::new(program).current_dir(folder).args(args).output().expect("the command starts")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn at_root(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    root.to_str().expect("a path in UTF-8").to_owned()
}

fn bundled() -> String {
    at_root("cli/data/minilm_layer0.safetensors")
}

/// A tensor to write.
struct Tensor(&'static str, Dtype, Vec<usize>, Vec<u8>);

/// Small numbers, all different from their neighbours.
fn floats(name: &'static str, shape: &[usize]) -> Tensor {
    let count = shape.iter().product();
    let values = (0_u8..).cycle().take(count).map(|i| f32::from(i % 17) / 8.0 - 1.0);
    Tensor(name, Dtype::F32, shape.to_vec(), values.flat_map(f32::to_le_bytes).collect())
}

fn write(path: &Path, tensors: &[Tensor]) {
    let views = tensors.iter().map(|Tensor(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.clone(), bytes).expect("bytes that fit the shape"))
    });
    std::fs::write(path, serialize(views, None).expect("tensors serialize")).expect("the folder is writable");
}

fn qkv() -> Vec<Tensor> {
    ["q", "k", "v"].map(|name| floats(name, &[2, 2, 5, 8])).into()
}

/// Exit code 2, one line on stderr that holds `words`, nothing left behind.
fn refused(folder: &Path, args: &[&str], words: &str) {
    let before = files(folder);
    let output = command(folder, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    // A driver may have its own say before ours.
    let ours: Vec<&str> = stderr.lines().filter(|line| !line.contains("XDG_RUNTIME_DIR")).collect();
    assert_eq!(ours.len(), 1, "{args:?}: {stderr}");
    assert!(ours[0].starts_with("error: ") && ours[0].contains(words), "{args:?}: wanted {words:?} in {stderr}");
    assert_eq!(files(folder), before, "{args:?} left a file behind");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("it exists").map(|entry| entry.expect("it is readable").path()).collect();
    files.sort();
    files
}

/// A named pipe that nobody writes to.
#[cfg(unix)]
fn pipe(folder: &Path, name: &str) {
    let made = Command::new("mkfifo").current_dir(folder).arg(name).status();
    assert!(made.expect("mkfifo starts").success());
}

/// Runs on a file of these tensors, which must be refused.
fn refused_tensors(tensors: &[Tensor], words: &str) {
    let folder = folder();
    write(&folder.path().join("in.safetensors"), tensors);
    refused(folder.path(), &["run", "in.safetensors", "-o", "out.safetensors", "--device", "cpu"], words);
}

fn with(extra: Tensor) -> Vec<Tensor> {
    let mut tensors = qkv();
    tensors.retain(|Tensor(name, ..)| *name != extra.0);
    tensors.push(extra);
    tensors
}

#[test]
fn bad_tensors_are_refused() {
    let lengths = |bytes: Vec<u8>| Tensor("kv_lengths", Dtype::I32, vec![bytes.len() / 4], bytes);
    let cases: Vec<(Vec<Tensor>, &str)> = vec![
        (qkv().into_iter().skip(1).collect(), "there is no tensor `q`; the file holds k, v"),
        (vec![], "there is no tensor `q`; the file holds none at all"),
        (with(floats("q", &[2, 5, 8])), "`q` has shape [2, 5, 8]"),
        (with(floats("k", &[1, 2, 2, 5, 8])), "`k` has shape [1, 2, 2, 5, 8]"),
        (with(floats("k", &[2, 2, 6, 8])), "k has shape [2, 2, 6, 8] and v [2, 2, 5, 8]"),
        (with(floats("q", &[1, 2, 5, 8])), "q has batch 1 but k and v have 2"),
        (with(floats("q", &[2, 2, 5, 4])), "q has head size 4 but k has 8"),
        (with(floats("q", &[2, 3, 5, 8])), "heads_q = 3 is not a multiple of heads_kv = 2"),
        (with(floats("q", &[2, 2, 0, 8])), "`len_q` is 0"),
        (with(floats("v", &[2, 2, 5, 0])), "`dim_v` is 0"),
        (with(Tensor("q", Dtype::F64, vec![2, 2, 5, 8], vec![0; 1280])), "`q` is stored as F64"),
        (with(Tensor("k", Dtype::F16, vec![2, 2, 5, 8], vec![0; 320])), "q is f32 but k is f16"),
        (with(floats("mask", &[5, 5])), "`mask` is stored as F32"),
        (with(Tensor("mask", Dtype::BOOL, vec![5, 4], vec![1; 20])), "`mask` has shape [1, 1, 5, 4]"),
        (with(Tensor("mask", Dtype::BOOL, vec![], vec![1])), "`mask` has shape []"),
        (with(Tensor("key_padding_mask", Dtype::U8, vec![5, 2], vec![1; 10])), "`key_padding_mask` has shape [5, 2]"),
        (with(floats("bias", &[3, 5, 5])), "`bias` has 3 along `heads_q`"),
        (with(Tensor("bias", Dtype::I64, vec![5], vec![0; 40])), "`bias` is stored as I64"),
        (with(lengths([5_i32, -1].map(i32::to_le_bytes).concat())), "`kv_lengths` is -1 for batch 1"),
        (with(lengths([6_i32, 5].map(i32::to_le_bytes).concat())), "`kv_lengths` is 6 for batch 0"),
        (with(lengths(vec![0; 12])), "`kv_lengths` has shape [3]"),
        (with(floats("kv_lengths", &[2])), "`kv_lengths` is stored as F32"),
    ];
    for (tensors, words) in cases {
        refused_tensors(&tensors, words);
    }
}

#[test]
fn bad_files_are_refused() {
    let folder = folder();
    let run = |name: &str, words: &str| {
        refused(folder.path(), &["run", name, "-o", "out.safetensors", "--device", "cpu"], words);
    };
    run("absent.safetensors", "cannot read absent.safetensors");
    let whole = std::fs::read(bundled()).expect("the bundled file is there");
    for (name, bytes) in
        [("empty", &whole[..0]), ("cut-header", &whole[..100]), ("cut", &whole[..5000]), ("text", b"q k v")]
    {
        std::fs::write(folder.path().join(name), bytes).expect("the folder is writable");
        run(name, "not a whole safetensors file");
    }
    run("absent.safetensors", "there is no such file");
    run(".", "cannot read .: it is not a regular file; name a safetensors file");
    #[cfg(unix)]
    {
        pipe(folder.path(), "pipe");
        run("pipe", "cannot read pipe: it is not a regular file; name a safetensors file");
    }
}

#[test]
fn a_broken_header_is_told_once() {
    let folder = folder();
    let told = |header: &str, words: &str| {
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 4]].concat();
        std::fs::write(folder.path().join("in"), bytes).expect("the folder is writable");
        let args = ["run", "in", "-o", "out.safetensors", "--device", "cpu"];
        refused(folder.path(), &args, words);
        let stderr = command(folder.path(), &args).stderr;
        String::from_utf8_lossy(&stderr).into_owned()
    };
    let text = told(r#"{"q": {"dtype": "F32", "data_offsets": [0, 4]}}"#, "not a whole safetensors file");
    assert_eq!(text.matches("missing field").count(), 1, "{text}");
    let text = told(r#"{"q": {"dtype": "I7", "shape": [1], "data_offsets": [0, 4]}}"#, "`q` is stored as I7");
    assert!(!text.contains("whole") && !text.contains("F8_E5M2"), "{text}");
}

#[test]
fn bad_places_for_the_output_are_refused() {
    let folder = folder();
    write(&folder.path().join("in.safetensors"), &qkv());
    let run = |output: &str, words: &str| refused(folder.path(), &["run", "in.safetensors", "-o", output], words);
    run("in.safetensors", "are the same file");
    run("./in.safetensors", "are the same file");
    run("absent/out.safetensors", "cannot write absent/out.safetensors");
    run(".", "it is a folder");
    let heatmap = |path: &str, words: &str| {
        refused(folder.path(), &["run", "in.safetensors", "-o", "out.safetensors", "--heatmap", path], words);
    };
    heatmap("map.jpg", "end in .png");
    heatmap("absent/map.png", "cannot write absent/map.png");
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt as _;

        pipe(folder.path(), "pipe.png");
        std::fs::hard_link(folder.path().join("in.safetensors"), folder.path().join("link")).expect("links work");
        run("pipe.png", "cannot write pipe.png: it is not a regular file; name one");
        heatmap("pipe.png", "cannot write pipe.png: it is not a regular file; name one");
        run("link", "are the same file");
        let left = folder.path().join("pipe.png").metadata().expect("it is still there");
        assert!(left.file_type().is_fifo(), "it was replaced");
    }
}

#[cfg(unix)]
#[test]
fn outputs_are_ordinary_files() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    write(&path("in.safetensors"), &qkv());
    let args = ["run", "in.safetensors", "-o", "out.safetensors", "--heatmap", "map.png", "--device", "cpu"];
    // Written twice: into an empty place, then over what is there.
    for _ in 0..2 {
        let output = command(folder.path(), &args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mode = |name: &str| path(name).metadata().expect("it is there").permissions().mode();
        // The test wrote the input the ordinary way.
        assert_eq!([mode("out.safetensors"), mode("map.png")], [mode("in.safetensors"); 2]);
    }
}

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

/// The largest difference between two tensors of f32s.
fn largest_difference(a: &[u8], b: &[u8]) -> f32 {
    let values = |bytes: &[u8]| -> Vec<f32> { bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect() };
    let (a, b) = (values(a), values(b));
    assert_eq!(a.len(), b.len());
    a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, |worst, x| if x <= worst { worst } else { x })
}

#[test]
fn the_bundled_layer_comes_out_as_the_model_has_it() {
    let input = std::fs::read(bundled()).expect("the bundled file is there");
    let input = SafeTensors::deserialize(&input).expect("it is whole");
    let expected = |name| input.tensor(name).expect("it has one").data().to_vec();
    for device in [&[][..], &["--device", "cpu"]] {
        let folder = folder();
        let args = ["run", &bundled(), "-o", "out.safetensors", "--weights", "--lse", "--json", "--heatmap", "map.png"];
        let output = command(folder.path(), &[&args[..], device].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert!(report["variant"].is_string() && report["device"].is_string());

        let bytes = std::fs::read(folder.path().join("out.safetensors")).expect("it was written");
        let out = SafeTensors::deserialize(&bytes).expect("it is whole");
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("it is whole");
        assert_eq!(header.metadata().as_ref().expect("copied through")["layer"], "0");
        // Four units of f32 at the largest value, for each of two computations.
        let unit = 8.0 * f32::EPSILON;
        assert!(largest_difference(out.tensor("output").expect("written").data(), &expected("output")) < 4.0 * unit);
        assert!(largest_difference(out.tensor("weights").expect("asked for").data(), &expected("weights")) < unit);
        assert_eq!(out.tensor("lse").expect("asked for").shape(), [4, 12, 25]);
        assert!(std::fs::read(folder.path().join("map.png")).expect("written").starts_with(b"\x89PNG"));
        assert_eq!(files(folder.path()).len(), 2, "nothing else is left");
    }
}

#[test]
fn outputs_keep_the_input_type() {
    let folder = folder();
    let half = |name| Tensor(name, Dtype::BF16, vec![1, 2, 6, 16], [0x80, 0x3f].repeat(192));
    write(&folder.path().join("in.safetensors"), &["q", "k", "v"].map(half));
    let args = ["run", "in.safetensors", "-o", "out.safetensors", "--dtype", "f32", "--lse", "--window", "2,-1"];
    let output = command(folder.path(), &args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bytes = std::fs::read(folder.path().join("out.safetensors")).expect("it was written");
    let out = SafeTensors::deserialize(&bytes).expect("it is whole");
    let mut names = out.names();
    names.sort_unstable();
    assert_eq!(names, ["lse", "output"]);
    // Every value is one, so every mean of them is.
    assert_eq!(out.tensor("output").expect("written").data(), [0x80, 0x3f].repeat(192));
    assert_eq!(out.tensor("lse").expect("asked for").dtype(), Dtype::BF16);
}

#[test]
fn the_default_command_checks_the_bundled_layer() {
    let folder = folder();
    for device in [&[][..], &["--device", "cpu"]] {
        let output = command(folder.path(), device);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        assert!(text.contains("all-MiniLM-L6-v2") && text.contains("[CLS]") && text.contains("variant"), "{text}");
    }
    assert!(files(folder.path()).is_empty(), "it writes nothing unasked");
}

#[test]
fn check_passes_every_case_of_the_conformance_folder() {
    let cases = at_root("tests/conformance");
    for device in [&[][..], &["--device", "cpu"]] {
        let output = command(Path::new("."), &[&["check", "--cases", &cases], device].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        let last = text.lines().last().expect("it says something");
        assert!(last.ends_with(" passed, 0 failed"), "{last}");
        assert!(text.lines().filter(|line| line.starts_with("ok ")).count() > 100, "{text}");
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
        // Before any case runs, though the bad one comes last.
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

#[test]
fn bench_writes_a_row_for_each_shape_and_a_plot() {
    let folder = folder();
    let files = ["--json", "rows.json", "--plot", "roof.svg"];
    let shapes = ["--shape", "1,4,2,64,64,32,causal", "--shape", "2,2,2,1,96,32,mask"];
    let args: Vec<&str> = ["bench", "--dtype", "f16"].into_iter().chain(shapes).chain(files).collect();
    let output = command(folder.path(), &args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let rows = std::fs::read_to_string(folder.path().join("rows.json")).expect("rows");
    let rows: Vec<serde_json::Value> = serde_json::from_str(&rows).expect("an array");
    assert_eq!(rows.len(), 2);
    for row in &rows {
        for figure in
            ["median_ms", "tflops", "gbps", "share_of_fma", "share_of_read", "wall_ms", "plan_us", "record_us"]
        {
            assert!(row[figure].as_f64().is_some_and(|value| value > 0.0), "{figure} of {row}");
        }
        assert_eq!(row["dtype"], "f16");
    }
    assert!(rows[0]["cold_ms"].is_null() && rows[1]["cold_ms"].is_f64());
    assert!(std::fs::read_to_string(folder.path().join("roof.svg")).expect("a plot").ends_with("</svg>\n"));
}

#[test]
fn bench_refuses_what_it_cannot_measure() {
    let folder = folder();
    refused(folder.path(), &["bench", "--device", "cpu"], "measures kernels");
    refused(folder.path(), &["bench", "--shape", "1,8,8,512,64"], "six whole numbers");
    refused(folder.path(), &["bench", "--plot", "roof.png"], "SVG");
    refused(folder.path(), &["--json", "bench"], "--json FILE after");
}
