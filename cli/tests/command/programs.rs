//! Programs in the score, sinks and ALiBi, from files.

use safetensors::Dtype;

use crate::harness::{
    Tensor, command, devices, floats, folder, largest_difference, output_of, refused, refused_tensors, run, values,
    with, write,
};

fn numbers(name: &'static str, values: &[f32]) -> Tensor {
    Tensor(name, Dtype::F32, vec![values.len()], values.iter().flat_map(|x| x.to_le_bytes()).collect())
}

/// q, k and v of two heads of 5 rows.
fn inputs() -> Vec<Tensor> {
    ["q", "k", "v"].map(|name| floats(name, &[1, 2, 5, 8])).into()
}

#[test]
fn a_program_of_a_file_computes_what_it_says() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let slopes = [0.5, 0.25];
    write(&at("aux.safetensors"), &[inputs(), vec![numbers("aux", &slopes)]].concat());
    write(&at("alibi.safetensors"), &[inputs(), vec![numbers("alibi_slopes", &slopes)]].concat());
    std::fs::write(
        at("alibi.wgsl"),
        "fn score_mod(score: f32, at: At) -> f32 {
            return score - aux[at.head] * f32(abs(at.diagonal - i32(at.key)));
        }",
    )
    .expect("the folder is writable");
    std::fs::write(at("causal.wgsl"), "fn mask_mod(at: At) -> bool { return at.key <= at.query; }").expect("writable");

    let cpu = run(folder.path(), "alibi.safetensors", &["--device", "cpu", "--causal", "top-left"]);
    for device in devices().iter().filter(|device| *device != "cpu") {
        let programs = ["--score-mod", "alibi.wgsl", "--mask-mod", "causal.wgsl", "--device", device];
        let by_programs = run(folder.path(), "aux.safetensors", &programs);
        let bytes = |file: &[u8]| values(file, "output").iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
        assert!(largest_difference(&bytes(&cpu), &bytes(&by_programs)) < 1e-5, "on device {device}");
        let by_tiles = run(folder.path(), "aux.safetensors", &[&programs[..], &["--block-mask", "2x32"]].concat());
        assert!(largest_difference(&bytes(&cpu), &bytes(&by_tiles)) < 1e-5, "by tiles on device {device}");
    }
}

#[test]
fn a_sink_takes_its_share() {
    // All scores are 0, as the sink of head 0 is; that of head 1 takes nothing.
    let zeros = |name| Tensor(name, Dtype::F32, vec![1, 2, 3, 4], vec![0; 96]);
    let ones = Tensor("v", Dtype::F32, vec![1, 2, 3, 4], 1_f32.to_le_bytes().repeat(24));
    let out = output_of(&[zeros("q"), zeros("k"), ones, numbers("sinks", &[0.0, f32::NEG_INFINITY])], &[]);
    assert_eq!(out, [[0.75; 12], [1.0; 12]].concat());
}

#[test]
fn wrong_programs_are_refused() {
    let folder = folder();
    write(&folder.path().join("in.safetensors"), &inputs());
    write(&folder.path().join("aux.safetensors"), &[inputs(), vec![numbers("aux", &[1.0])]].concat());
    let program = |text: &str| std::fs::write(folder.path().join("p.wgsl"), text).expect("the folder is writable");
    let args = |file| ["run", file, "-o", "out.safetensors", "--score-mod", "p.wgsl", "--device", "cpu"];

    program("fn score_mod(score: f32, at: At) -> f32 {\n    return scor;\n}");
    refused(folder.path(), &args("in.safetensors"), "p.wgsl: score_mod, line 2, column 12");
    program("fn score_mod(score: f32, at: At) -> f32 { return aux[0]; }");
    refused(folder.path(), &args("in.safetensors"), "aux");
    program("fn score_mod(score: f32, at: At) -> f32 { return score; }");
    refused(folder.path(), &args("in.safetensors"), "which --device cpu does not run");
    refused(folder.path(), &["run", "in.safetensors", "-o", "o.safetensors", "--mask-mod", "none.wgsl"], "none.wgsl");
    let unread = ["run", "aux.safetensors", "-o", "out.safetensors", "--device", "cpu"];
    refused(folder.path(), &unread, "`aux` is for programs in the score");
    refused_tensors(&with(numbers("sinks", &[0.0; 3])), "`sinks` has shape [3]; it must be [2]");
    refused_tensors(&with(numbers("alibi_slopes", &[0.0; 3])), "`alibi_slopes` has shape [3]");
}

#[test]
fn the_text_that_is_dumped_has_the_program_in_it() {
    let folder = folder();
    let text = "fn mask_mod(at: At) -> bool { return at.key % 2u == 0u; }";
    std::fs::write(folder.path().join("p.wgsl"), text).expect("the folder is writable");
    let dump = |extra: &[&str]| {
        let output = command(folder.path(), &[&["dump", "--device", "cpu", "--mask-mod", "p.wgsl"], extra].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let name = dump(&[]).lines().next().expect("a variant").to_owned();
    assert!(dump(&[&name]).contains(text), "{name}");
    let tiles = dump(&["--block-mask", "64x64"]);
    let finds = tiles.lines().last().expect("the last kernel finds the tiles");
    assert!(finds.starts_with("block_mask"), "{tiles}");
    assert!(dump(&["--block-mask", "64x64", finds]).contains(text), "{finds}");
    for wrong in ["64", "64x", "64x48", "0x64"] {
        let args = ["dump", "--device", "cpu", "--block-mask", wrong];
        refused(
            folder.path(),
            &args,
            if wrong.contains("48") || wrong.starts_with('0') { "multiple of 32" } else { "128x128" },
        );
    }
}
