//! `run --backward`.

use safetensors::{Dtype, SafeTensors};

use crate::harness::{Tensor, at_root, devices, floats, folder, qkv, refused, run, values, with, write};

const GRADIENTS: [&str; 5] = ["dq", "dk", "dv", "dbias", "dsinks"];

/// The inputs of two heads of 5 rows in two batches, with the gradient of their output.
fn inputs() -> Vec<Tensor> {
    with(floats("dout", &[2, 2, 5, 8]))
}

fn and(mut tensors: Vec<Tensor>, extra: Tensor) -> Vec<Tensor> {
    tensors.retain(|Tensor(name, ..)| *name != extra.0);
    tensors.push(extra);
    tensors
}

fn integers(name: &'static str, numbers: &[i32]) -> Tensor {
    Tensor(name, Dtype::I32, vec![numbers.len()], numbers.iter().flat_map(|n| n.to_le_bytes()).collect())
}

/// Runs on these tensors, and returns the file that was written.
fn backward(tensors: &[Tensor], options: &[&str]) -> Vec<u8> {
    let folder = folder();
    write(&folder.path().join("in.safetensors"), tensors);
    run(folder.path(), "in.safetensors", &[&["--backward"], options].concat())
}

fn shape(file: &[u8], name: &str) -> Vec<usize> {
    SafeTensors::deserialize(file).expect("whole").tensor(name).expect("written").shape().to_vec()
}

fn names(file: &[u8]) -> Vec<String> {
    let mut names: Vec<String> =
        SafeTensors::deserialize(file).expect("whole").names().into_iter().map(str::to_owned).collect();
    names.sort_unstable();
    names
}

/// Fails unless two tensors differ by at most `share` of the largest value of the second.
fn assert_near(got: &[f32], wanted: &[f32], share: f32, what: &str) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    let largest = wanted.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    for (n, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        assert!(
            (got - wanted).abs() <= share * largest,
            "{what}[{n}] is {got}, not {wanted}; the largest is {largest}"
        );
    }
}

/// The options for a file of tests/data/gradients, as its metadata says.
fn settings(file: &[u8]) -> Vec<String> {
    let (_, header) = SafeTensors::read_metadata(file).expect("whole");
    let case: serde_json::Value =
        serde_json::from_str(&header.metadata().as_ref().expect("metadata")["case"]).expect("JSON");
    let settings = &case["settings"];
    let mut options: Vec<String> = Vec::new();
    for name in ["scale", "softcap"] {
        if let Some(value) = settings[name].as_f64() {
            options.push(format!("--{name}={value}"));
        }
    }
    let diagonal = settings["diagonal"].as_str().unwrap_or("top-left");
    if settings["causal"] == true {
        options.push(format!("--causal={diagonal}"));
    }
    if let Some(sides) = settings["window"].as_array() {
        let sides: Vec<i64> = sides.iter().map(|side| side.as_i64().unwrap_or(-1)).collect();
        options.extend([format!("--window={},{}", sides[0], sides[1]), format!("--diagonal={diagonal}")]);
    }
    options
}

/// The files hold the gradients that PyTorch derives in f64. The library's own tests run all of them on every device.
#[test]
fn gradients_are_those_of_pytorch() {
    let folder = folder();
    let cases = [
        "plain",
        "causal",
        "causal_bottom_right",
        "grouped",
        "mask",
        "bias",
        "key_bias",
        "softcap",
        "sinks",
        "window",
        "logsumexp",
        "lengths",
        "many_at_once",
    ];
    for case in cases {
        let path = at_root(&format!("tests/data/gradients/{case}.safetensors"));
        let wanted = std::fs::read(&path).expect("it is there");
        let options = settings(&wanted);
        for device in devices().iter().filter(|device| *device == "cpu" || ["bias", "sinks", "lengths"].contains(&case))
        {
            let options: Vec<&str> =
                options.iter().map(String::as_str).chain(["--backward", "--device", device]).collect();
            let got = run(folder.path(), &path, &options);
            let share = if device == "cpu" { f32::EPSILON } else { 1e-5 };
            for name in GRADIENTS.iter().filter(|name| names(&wanted).iter().any(|own| own == *name)) {
                assert_eq!(shape(&got, name), shape(&wanted, name));
                assert_near(&values(&got, name), &values(&wanted, name), share, &format!("{case}, {device}: {name}"));
            }
        }
    }
}

#[test]
fn every_input_has_its_gradient() {
    assert_eq!(names(&backward(&inputs(), &["--device", "cpu"])), ["dk", "dq", "dv", "output"]);
    // 16-bit tensors with a bias in f32, and everything that can be asked for.
    let half = |name| Tensor(name, Dtype::F16, vec![2, 2, 5, 8], [0x00, 0x38, 0x00, 0xb4].repeat(80));
    let mut tensors: Vec<Tensor> = ["q", "k", "v", "dout"].map(half).into();
    tensors.extend([floats("bias", &[5, 5]), floats("sinks", &[2]), floats("dlse", &[2, 2, 5])]);
    let of_device =
        |device: &str| backward(&tensors, &["--lse", "--weights", "--heatmap", "map.png", "--device", device]);
    let cpu = of_device("cpu");
    for device in devices() {
        let got = of_device(&device);
        assert_eq!(names(&got), ["dbias", "dk", "dq", "dsinks", "dv", "lse", "output", "weights"]);
        let file = SafeTensors::deserialize(&got).expect("it is whole");
        for (name, dtype, shape) in [
            ("dq", Dtype::F16, &[2, 2, 5, 8][..]),
            ("dk", Dtype::F16, &[2, 2, 5, 8]),
            ("dv", Dtype::F16, &[2, 2, 5, 8]),
            ("dbias", Dtype::F32, &[5, 5]),
            ("dsinks", Dtype::F32, &[2]),
            ("lse", Dtype::F32, &[2, 2, 5]),
        ] {
            let tensor = file.tensor(name).expect("written");
            assert_eq!((tensor.dtype(), tensor.shape()), (dtype, shape), "{name} on {device}");
            assert_near(&values(&got, name), &values(&cpu, name), 2e-3, &format!("{name} on {device}"));
        }
    }
}

/// A tensor of batch 1 gets the sum of the gradients that its copies would get.
#[test]
fn what_is_broadcast_gets_the_sum() {
    let copies = |Tensor(name, dtype, shape, bytes): &Tensor| {
        let shape = [&[2], &shape[1..]].concat();
        Tensor(name, *dtype, shape, bytes.repeat(2))
    };
    for one in [&["k", "v"][..], &["q"], &["dout"], &["dlse"]] {
        let tensors: Vec<Tensor> = and(inputs(), floats("dlse", &[2, 2, 5]))
            .iter()
            .map(|Tensor(name, dtype, shape, bytes)| {
                if one.contains(name) {
                    floats(name, &[&[1], &shape[1..]].concat())
                } else {
                    Tensor(name, *dtype, shape.clone(), bytes.clone())
                }
            })
            .collect();
        let written_out: Vec<Tensor> = tensors
            .iter()
            .map(|tensor| if one.contains(&tensor.0) { copies(tensor) } else { tensor.clone() })
            .collect();
        for device in devices() {
            let options = ["--causal", "top-left", "--device", &device];
            let (shared, apart) = (backward(&tensors, &options), backward(&written_out, &options));
            for (name, input) in [("dq", "q"), ("dk", "k"), ("dv", "v")] {
                let (got, mut wanted) = (values(&shared, name), values(&apart, name));
                if one.contains(&input) {
                    assert_eq!(shape(&shared, name), [1, 2, 5, 8]);
                    wanted = wanted[..80].iter().zip(&wanted[80..]).map(|(a, b)| a + b).collect();
                }
                assert_near(&got, &wanted, 1e-5, &format!("{one:?} on {device}: {name}"));
            }
        }
    }
}

/// A mask of rows and a padding of keys are joined with the bias, which is larger then.
#[test]
fn a_bias_keeps_its_shape_whatever_it_is_joined_with() {
    let bytes = |name, shape: &[usize], bytes: Vec<u8>| Tensor(name, Dtype::BOOL, shape.to_vec(), bytes);
    let (rows, keys) = ([1, 1, 0, 1, 1], [[1, 1, 1, 0, 1], [1, 0, 1, 1, 1]]);
    let of_bias = |tensors: Vec<Tensor>| backward(&and(tensors, floats("bias", &[2, 1, 5])), &["--device", "cpu"]);
    let padding = || bytes("key_padding_mask", &[2, 5], keys.concat());
    let mask = || bytes("mask", &[5, 1], rows.to_vec());
    let joined = of_bias(and(and(inputs(), mask()), padding()));
    let both = keys.iter().flat_map(|keys| rows.iter().flat_map(move |row| keys.map(|key| row & key))).collect();
    let plain = of_bias(and(inputs(), bytes("mask", &[2, 1, 5, 5], both)));
    assert_eq!(shape(&joined, "dbias"), [2, 1, 5]);
    for name in ["dq", "dk", "dv", "dbias"] {
        assert_near(&values(&joined, name), &values(&plain, name), 1e-6, name);
    }
    // Without a bias, the padding becomes one, which has no gradient.
    let without = backward(&and(and(inputs(), mask()), padding()), &["--device", "cpu"]);
    assert_eq!(names(&without), ["dk", "dq", "dv", "output"]);
}

#[test]
fn ragged_gradients_lie_as_their_tensors() {
    let ragged = |name| floats(name, &[9, 2, 8]);
    let mut tensors: Vec<Tensor> = ["q", "k", "v", "dout"].map(ragged).into();
    tensors.extend([
        integers("cu_seqlens_q", &[0, 3, 3, 7]),
        integers("cu_seqlens_k", &[0, 5, 6, 9]),
        floats("dlse", &[2, 9]),
    ]);
    let of_device = |device: &str| backward(&tensors, &["--causal", "bottom-right", "--device", device]);
    let cpu = of_device("cpu");
    for device in devices() {
        let got = of_device(&device);
        for name in ["dq", "dk", "dv"] {
            assert_eq!(shape(&got, name), [9, 2, 8]);
            assert_near(&values(&got, name), &values(&cpu, name), 1e-5, &format!("{name} on {device}"));
        }
        // Rows of no sequence.
        assert!(values(&got, "dq")[7 * 16..].iter().all(|&x| x == 0.0));
        // The one key of a sequence without queries.
        assert!(values(&got, "dk")[5 * 16..6 * 16].iter().all(|&x| x == 0.0));
    }
}

#[test]
fn a_program_passes_gradients_back_by_its_derivative() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    write(&at("in.safetensors"), &inputs());
    let score_mod = "fn score_mod(score: f32, at: At) -> f32 { return 2.0 * score; }";
    let both = format!(
        "{score_mod}\nfn score_mod_grad(score: f32, at: At, gradient: f32) -> f32 {{ return 2.0 * gradient; }}"
    );
    std::fs::write(at("both.wgsl"), both).expect("the folder is writable");
    std::fs::write(at("one.wgsl"), score_mod).expect("the folder is writable");
    let scale = (2.0 / 8.0_f64.sqrt()).to_string();
    let wanted = run(folder.path(), "in.safetensors", &["--backward", "--scale", &scale, "--device", "cpu"]);
    let programs = ["--backward", "--score-mod", "both.wgsl", "--score-mod-grad", "both.wgsl", "--device"];
    for device in devices().iter().filter(|device| *device != "cpu") {
        let got = run(folder.path(), "in.safetensors", &[&programs[..], &[device]].concat());
        for name in ["dq", "dk", "dv"] {
            assert_near(&values(&got, name), &values(&wanted, name), 1e-5, &format!("{name} on {device}"));
        }
    }
    std::fs::remove_file(at("out.safetensors")).expect("it was written");
    let refused = |options: &[&str], words: &str| {
        refused(folder.path(), &[&["run", "in.safetensors", "-o", "out.safetensors"], options].concat(), words);
    };
    refused(&["--backward", "--score-mod", "one.wgsl"], "give --score-mod-grad FILE.wgsl");
    refused(&["--backward", "--score-mod", "one.wgsl", "--score-mod-grad", "one.wgsl"], "one.wgsl: ");
    refused(&["--backward", "--score-mod-grad", "both.wgsl"], "--score-mod");
    refused(&["--score-mod", "one.wgsl", "--score-mod-grad", "both.wgsl"], "--backward");
    refused(&[&programs[..], &["cpu"]].concat(), "which --device cpu does not run");
}

#[test]
fn bad_gradients_are_refused() {
    let told = |tensors: &[Tensor], options: &[&str], words: &str| {
        let folder = folder();
        write(&folder.path().join("in.safetensors"), tensors);
        let args = ["run", "in.safetensors", "-o", "out.safetensors", "--device", "cpu"];
        refused(folder.path(), &[&args[..], options].concat(), words);
    };
    let refused_backward = |tensors: &[Tensor], words: &str| told(tensors, &["--backward"], words);
    refused_backward(&qkv(), "--backward needs the tensor `dout`, the gradient of `output`; the file holds k, q, v");
    told(&inputs(), &["--backward", "--ignore", "dout"], "--backward needs the tensor `dout`");
    for shape in [&[2, 2, 5, 4][..], &[3, 2, 5, 8], &[2, 1, 5, 8], &[2, 5, 8], &[1, 2, 5], &[]] {
        refused_backward(&with(floats("dout", shape)), &format!("`dout` has shape {shape:?}; it must be [2, 2, 5, 8]"));
    }
    refused_backward(&with(Tensor("dout", Dtype::F64, vec![2, 2, 5, 8], vec![0; 1280])), "`dout` is stored as F64");
    refused_backward(
        &and(inputs(), floats("dlse", &[2, 2, 5, 1])),
        "`dlse` has shape [2, 2, 5, 1]; it must be [2, 2, 5]",
    );
    let ragged = ["q", "dout"].map(|name| floats(name, &[7, 2, 8]));
    let one = |Tensor(name, dtype, _, bytes): Tensor| Tensor(name, dtype, vec![1, 2, 8], bytes[..64].to_vec());
    let [q, dout] = ragged;
    let tensors =
        [q, one(dout), floats("k", &[1, 2, 9, 8]), floats("v", &[1, 2, 9, 8]), integers("cu_seqlens_q", &[0, 7])];
    refused_backward(&tensors, "`dout` has shape [1, 2, 8]; it must be [7, 2, 8]");

    // Without --backward, nothing reads them. Gradients that go out are results.
    told(&inputs(), &[], "which only the backward pass reads; give --backward, or --ignore dout");
    told(&with(floats("dlse", &[2, 2, 5])), &[], "give --backward, or --ignore dlse");
    told(
        &with(floats("grad_output", &[2, 2, 5, 8])),
        &[],
        "`grad_output` is called `dout` here, and only --backward reads it",
    );
    refused_backward(&with(floats("grad_output", &[2, 2, 5, 8])), "`grad_output` is called `dout` here; rename it");
    refused_backward(&with(floats("dO", &[2, 2, 5, 8])), "`dO` is called `dout` here");
    refused_backward(&with(floats("doutt", &[2, 2, 5, 8])), "the nearest is `dout`");
    refused_backward(&and(inputs(), floats("softmax_lse", &[2, 2, 5])), "`softmax_lse` is not read: it is a result");
    let results: Vec<Tensor> = inputs().into_iter().chain(GRADIENTS.map(|name| floats(name, &[3]))).collect();
    assert_eq!(backward(&results, &["--device", "cpu"]), backward(&inputs(), &["--device", "cpu"]));

    // What serves, and is not trained on.
    let (k, v) = (floats("k", &[4, 2, 2, 8]), floats("v", &[4, 2, 2, 8]));
    let table = Tensor("block_table", Dtype::I32, vec![2, 2], vec![0; 16]);
    let paged = [k, v, table, integers("kv_lengths", &[3, 2])].into_iter().fold(inputs(), and);
    refused_backward(&paged, "--backward: `gradients` cannot be combined with `paged_kv`");
    let bytes = |name| Tensor(name, Dtype::I8, vec![2, 2, 5, 8], vec![1; 160]);
    let scale = |name| floats(name, &[2, 2, 5]);
    let quantized = [bytes("k"), bytes("v"), scale("k_scale"), scale("v_scale")].into_iter().fold(inputs(), and);
    refused_backward(&quantized, "--backward: `gradients` cannot be combined with `kv_quantized`");
}
