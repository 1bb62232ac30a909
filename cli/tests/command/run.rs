//! What `run` computes from an input file.

use safetensors::{Dtype, SafeTensors};

use crate::harness::{
    Tensor, at_root, bundled, command, devices, files, floats, folder, largest_difference, refused, run, values, with,
    write,
};

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

/// f32 queries on a cache in f16: the output is f32, and is that of the same cache in f32.
#[test]
fn keys_and_values_may_be_of_another_type_than_queries() {
    let cache = |name, dtype, element: &[u8]| Tensor(name, dtype, vec![1, 2, 6, 16], element.repeat(192));
    let wide = |name| cache(name, Dtype::F32, &0.5_f32.to_le_bytes());
    let narrow = |name| cache(name, Dtype::F16, &0x3800_u16.to_le_bytes());
    for device in devices() {
        let folder = folder();
        let [with_f16, with_f32] = [[narrow("k"), narrow("v")], [wide("k"), wide("v")]].map(|[k, v]| {
            write(&folder.path().join("in.safetensors"), &[floats("q", &[1, 2, 3, 16]), k, v]);
            run(folder.path(), "in.safetensors", &["--device", &device])
        });
        let out = SafeTensors::deserialize(&with_f16).expect("it is whole");
        assert_eq!(out.tensor("output").expect("written").dtype(), Dtype::F32);
        assert_eq!(values(&with_f16, "output"), values(&with_f32, "output"), "{device}");
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
    // An LSE is always f32.
    assert_eq!(out.tensor("lse").expect("asked for").dtype(), Dtype::F32);
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

/// Every case of tests/cases/run, as its manifest says.
#[test]
fn the_cases_come_out_as_expected() {
    let folder = folder();
    let cases = at_root("tests/cases/run");
    let manifest = std::fs::read_to_string(format!("{cases}/manifest.json")).expect("it is there");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    for case in manifest["cases"].as_array().expect("a list") {
        let text = |key: &str| case[key].as_str();
        let input = format!("{cases}/{}", text("file").expect("a file"));
        let options = case["run"].as_array().expect("a list").iter().map(|option| option.as_str().expect("a string"));
        let options: Vec<&str> = options.collect();
        for device in devices() {
            let options = [&options[..], &["--device", &device]].concat();
            let wanted = std::fs::read(&input).expect("it is there");
            let got = run(folder.path(), &input, &options);
            for name in ["output", "lse"] {
                let (got, wanted) = (values(&got, name), values(&wanted, &format!("expected_{name}")));
                assert_eq!(got.len(), wanted.len());
                for (index, (got, wanted)) in got.iter().zip(wanted).enumerate() {
                    let near = (got - wanted).abs() <= 1e-6 + 1e-3 * wanted.abs();
                    assert!(near || *got == wanted, "{input}: {name}[{index}] is {got}, not {wanted}");
                }
            }
            std::fs::remove_file(folder.path().join("out.safetensors")).expect("it was written");
        }
    }
}

/// A batch of one gives the same result as that batch, repeated for every batch of the others.
#[test]
fn a_batch_of_one_goes_with_every_batch() {
    let folder = folder();
    for one in [&["q"][..], &["k"], &["v"], &["k", "v"], &["q", "k"]] {
        let file = |copies: usize| -> Vec<Tensor> {
            let tensor = |name| {
                if !one.contains(&name) {
                    return floats(name, &[3, 2, 5, 8]);
                }
                let Tensor(name, dtype, _, bytes) = floats(name, &[1, 2, 5, 8]);
                Tensor(name, dtype, vec![copies, 2, 5, 8], bytes.repeat(copies))
            };
            ["q", "k", "v"].map(tensor).into()
        };
        for device in devices() {
            let output = |copies| {
                write(&folder.path().join("in.safetensors"), &file(copies));
                run(folder.path(), "in.safetensors", &["--device", &device])
            };
            let (shared, written_out) = (output(1), output(3));
            let shape =
                |file| SafeTensors::deserialize(file).expect("whole").tensor("output").expect("one").shape().to_vec();
            assert_eq!(shape(&shared), [3, 2, 5, 8]);
            let difference = largest_difference(&bytes(&shared), &bytes(&written_out));
            assert!(difference <= 1e-6, "{one:?} on {device}: {difference}");
        }
    }
}

fn bytes(file: &[u8]) -> Vec<u8> {
    values(file, "output").into_iter().flat_map(f32::to_le_bytes).collect()
}

#[test]
fn a_mask_of_rows_and_a_padding_of_keys_take_no_more_than_they_are() {
    // Joined, they would have 2^36 elements.
    const LONG: usize = 1 << 18;
    let folder = folder();
    let one = |name, len: usize, dim: usize| floats(name, &[1, 1, len, dim]);
    let mask = Tensor("mask", Dtype::U8, vec![1, 1, LONG, 1], vec![0; LONG]);
    let padding = Tensor("key_padding_mask", Dtype::U8, vec![1, LONG], vec![1; LONG]);
    let tensors = [one("q", LONG, 1), one("k", LONG, 1), one("v", LONG, 1), mask, padding];
    write(&folder.path().join("in.safetensors"), &tensors);
    // The output is refused after the masks were read and joined, and before so many rows are computed.
    let args = ["run", "in.safetensors", "-o", "absent/out.safetensors", "--device", "cpu"];
    refused(folder.path(), &args, "cannot write absent/out.safetensors");
}

#[test]
fn nothing_in_is_nothing_out() {
    for device in devices() {
        let folder = folder();
        let output = |tensors: &[Tensor]| {
            write(&folder.path().join("in.safetensors"), tensors);
            let bytes = run(folder.path(), "in.safetensors", &["--lse", "--device", &device]);
            (values(&bytes, "output"), values(&bytes, "lse"))
        };
        let no_keys = [floats("q", &[2, 2, 5, 8]), floats("k", &[2, 2, 0, 8]), floats("v", &[2, 2, 0, 8])];
        assert_eq!(output(&no_keys), (vec![0.0; 160], vec![f32::NEG_INFINITY; 20]));
        assert_eq!(output(&with(floats("q", &[2, 2, 0, 8]))), (vec![], vec![]));
        assert_eq!(output(&["q", "k", "v"].map(|name| floats(name, &[0, 2, 5, 8]))), (vec![], vec![]));
        assert_eq!(output(&with(Tensor("kv_lengths", Dtype::I32, vec![2], vec![0; 8]))).0, vec![0.0; 160]);
        let args = ["run", "in.safetensors", "-o", "out.safetensors", "--heatmap", "map.png", "--device", &device];
        write(&folder.path().join("in.safetensors"), &no_keys);
        refused(folder.path(), &args, "--heatmap has nothing to draw: there are 0 keys");
    }
}
