//! What is written where, and what is left behind.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{command, files, floats, folder, pipe, qkv, refused, values, write};

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
    // Written twice: first to a new path, then over the existing file.
    for _ in 0..2 {
        let output = command(folder.path(), &args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mode = |name: &str| path(name).metadata().expect("it is there").permissions().mode();
        // The test wrote the input the ordinary way.
        assert_eq!([mode("out.safetensors"), mode("map.png")], [mode("in.safetensors"); 2]);
    }
}

#[cfg(unix)]
#[test]
fn a_symbolic_link_is_followed() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let link = |name: &str, to: &str| std::os::unix::fs::symlink(to, path(name)).expect("links work");
    let is_link = |name: &str| path(name).symlink_metadata().expect("it is there").is_symlink();
    write(&path("in.safetensors"), &qkv());
    std::fs::create_dir(path("elsewhere")).expect("the folder is writable");
    // Links to an existing file, to a missing one, and to another link.
    std::fs::write(path("elsewhere/old"), "old").expect("the folder is writable");
    link("to-old", "elsewhere/old");
    link("to-new", "elsewhere/new");
    link("to-link", "to-third");
    link("to-third", "elsewhere/third");
    for (name, target) in [("to-old", "elsewhere/old"), ("to-new", "elsewhere/new"), ("to-link", "elsewhere/third")] {
        let output = command(folder.path(), &["run", "in.safetensors", "-o", name, "--device", "cpu"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(is_link(name), "{name} was replaced");
        let written = std::fs::read(path(target)).expect("it was written");
        assert_eq!(values(&written, "output").len(), 160);
        assert!(!path(target).symlink_metadata().expect("it is there").is_symlink());
    }
    assert_eq!(files(&path("elsewhere")).len(), 3, "nothing else is left");

    link("to-input", "in.safetensors");
    link("round", "round");
    let run = |name: &str, words: &str| refused(folder.path(), &["run", "in.safetensors", "-o", name], words);
    run("to-input", "are the same file");
    run("round", "cannot write round");
    link("to-the-map", "map.png");
    let args = ["run", "in.safetensors", "-o", "to-the-map", "--heatmap", "map.png"];
    refused(folder.path(), &args, "the output and map.png are the same file");
}

/// The limit on file sizes is smaller than the picture.
#[cfg(unix)]
#[test]
fn a_full_disk_names_the_users_path() {
    let folder = folder();
    write(&folder.path().join("in.safetensors"), &qkv());
    let script =
        r#"trap '' XFSZ; ulimit -f 4; exec "$0" run in.safetensors -o out.safetensors --heatmap map.png --device cpu"#;
    let program = env!("CARGO_BIN_EXE_wgpu-attention");
    let output = Command::new("sh").current_dir(folder.path()).args(["-c", script, program]).output();
    let output = output.expect("sh starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("cannot write map.png: ") && !stderr.contains(".wgpu-attention-"), "{stderr}");
    assert_eq!(files(folder.path()).len(), 1, "it left a file behind");
}

#[cfg(unix)]
#[test]
fn a_signal_leaves_nothing_behind() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let folder = folder();
        // Large enough that the program still runs when the signal arrives.
        let long = ["q", "k", "v"].map(|name| floats(name, &[1, 1, 30_000, 64]));
        write(&folder.path().join("in.safetensors"), &long);
        let args = ["run", "in.safetensors", "-o", "out.safetensors", "--device", "cpu"];
        let mut child = Command::new(env!("CARGO_BIN_EXE_wgpu-attention"))
            .current_dir(folder.path())
            .args(args)
            .spawn()
            .expect("the command starts");
        let begun = Instant::now();
        while files(folder.path()).len() < 2 {
            assert!(begun.elapsed() < Duration::from_secs(60), "no temporary file came");
            std::thread::sleep(Duration::from_millis(5));
        }
        // `kill` is built into the shell, and need not exist as a program.
        let killed = Command::new("sh").args(["-c", "kill -s $0 $1", signal, &child.id().to_string()]).status();
        assert!(killed.expect("kill starts").success());
        assert_eq!(child.wait().expect("it ends").code(), Some(code));
        assert_eq!(files(folder.path()), [folder.path().join("in.safetensors")]);
    }
}
