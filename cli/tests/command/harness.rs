//! Runs the command, and makes files for it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use tempfile::TempDir;

/// Runs the command in `folder`.
pub(crate) fn command(folder: &Path, args: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_wgpu-attention");
    Command::new(program).current_dir(folder).args(args).output().expect("the command starts")
}

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

pub(crate) fn at_root(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    root.to_str().expect("a path in UTF-8").to_owned()
}

pub(crate) fn bundled() -> String {
    at_root("cli/data/minilm_layer0.safetensors")
}

/// A tensor to write.
#[derive(Clone)]
pub(crate) struct Tensor(pub(crate) &'static str, pub(crate) Dtype, pub(crate) Vec<usize>, pub(crate) Vec<u8>);

/// Small numbers, all different from their neighbours.
pub(crate) fn floats(name: &'static str, shape: &[usize]) -> Tensor {
    let count = shape.iter().product();
    let values = (0..=u8::MAX).cycle().take(count).map(|i| f32::from(i % 17) / 8.0 - 1.0);
    Tensor(name, Dtype::F32, shape.to_vec(), values.flat_map(f32::to_le_bytes).collect())
}

pub(crate) fn write(path: &Path, tensors: &[Tensor]) {
    let views = tensors.iter().map(|Tensor(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.clone(), bytes).expect("bytes that fit the shape"))
    });
    std::fs::write(path, serialize(views, None).expect("tensors serialize")).expect("the folder is writable");
}

pub(crate) fn qkv() -> Vec<Tensor> {
    ["q", "k", "v"].map(|name| floats(name, &[2, 2, 5, 8])).into()
}

/// Exit code 2, one line on stderr that holds `words`, nothing left behind.
pub(crate) fn refused(folder: &Path, args: &[&str], words: &str) {
    let before = files(folder);
    let output = command(folder, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    // A driver may print a line of its own first.
    let ours: Vec<&str> = stderr.lines().filter(|line| !line.contains("XDG_RUNTIME_DIR")).collect();
    assert_eq!(ours.len(), 1, "{args:?}: {stderr}");
    assert!(ours[0].starts_with("error: ") && ours[0].contains(words), "{args:?}: wanted {words:?} in {stderr}");
    assert_eq!(files(folder), before, "{args:?} left a file behind");
}

pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("it exists").map(|entry| entry.expect("it is readable").path()).collect();
    files.sort();
    files
}

/// A named pipe without a writer.
#[cfg(unix)]
pub(crate) fn pipe(folder: &Path, name: &str) {
    let made = Command::new("mkfifo").current_dir(folder).arg(name).status();
    assert!(made.expect("mkfifo starts").success());
}

/// Runs on a file of these tensors, which must be refused.
pub(crate) fn refused_tensors(tensors: &[Tensor], words: &str) {
    let folder = folder();
    write(&folder.path().join("in.safetensors"), tensors);
    refused(folder.path(), &["run", "in.safetensors", "-o", "out.safetensors", "--device", "cpu"], words);
}

pub(crate) fn with(extra: Tensor) -> Vec<Tensor> {
    let mut tensors = qkv();
    tensors.retain(|Tensor(name, ..)| *name != extra.0);
    tensors.push(extra);
    tensors
}

/// The largest difference between two tensors of f32s.
pub(crate) fn largest_difference(a: &[u8], b: &[u8]) -> f32 {
    let values = |bytes: &[u8]| -> Vec<f32> { bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect() };
    let (a, b) = (values(a), values(b));
    assert_eq!(a.len(), b.len());
    a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, |worst, x| if x <= worst { worst } else { x })
}

/// Every device there is, as `--device` takes it.
pub(crate) fn devices() -> Vec<String> {
    let output = command(Path::new("."), &["devices", "--json"]);
    let adapters: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let indices = adapters.as_array().expect("a list").iter().map(|adapter| adapter["index"].to_string());
    indices.chain(["cpu".into()]).collect()
}

/// Runs on a file, which must work, and returns what it wrote.
pub(crate) fn run(folder: &Path, input: &str, options: &[&str]) -> Vec<u8> {
    let output = command(folder, &[&["run", input, "-o", "out.safetensors"], options].concat());
    assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(folder.join("out.safetensors")).expect("it was written")
}

/// Runs on a file of these tensors on the CPU, and returns the output.
pub(crate) fn output_of(tensors: &[Tensor], options: &[&str]) -> Vec<f32> {
    let folder = folder();
    write(&folder.path().join("in.safetensors"), tensors);
    let bytes = run(folder.path(), "in.safetensors", &[&["--device", "cpu"], options].concat());
    values(&bytes, "output")
}

/// A tensor of a file, as f32.
pub(crate) fn values(file: &[u8], name: &str) -> Vec<f32> {
    let file = SafeTensors::deserialize(file).expect("it is whole");
    let tensor = file.tensor(name).expect("it has one");
    let element = match tensor.dtype() {
        Dtype::F32 => wgpu_attention::Dtype::F32,
        Dtype::F16 => wgpu_attention::Dtype::F16,
        Dtype::BF16 => wgpu_attention::Dtype::Bf16,
        other => panic!("`{name}` is {other:?}"),
    };
    element.decode(tensor.data())
}
