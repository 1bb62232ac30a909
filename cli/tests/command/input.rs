//! What a file may hold, and how a mistake in it is reported.

use safetensors::Dtype;

use crate::harness::{
    Tensor, bundled, command, floats, folder, output_of, pipe, qkv, refused, refused_tensors, with, write,
};

#[test]
fn bad_tensors_are_refused() {
    let lengths = |bytes: Vec<u8>| Tensor("kv_lengths", Dtype::I32, vec![bytes.len() / 4], bytes);
    let cases: Vec<(Vec<Tensor>, &str)> = vec![
        (qkv().into_iter().skip(1).collect(), "there is no tensor `q`; the file holds k, v"),
        (vec![], "there is no tensor `q`; the file holds none at all"),
        (with(floats("q", &[2, 5, 8])), "`q` has shape [2, 5, 8]"),
        (with(floats("k", &[1, 2, 2, 5, 8])), "`k` has shape [1, 2, 2, 5, 8]"),
        (with(floats("k", &[2, 2, 6, 8])), "k has 2 heads of length 6 and v 2 of length 5"),
        (with(floats("q", &[3, 2, 5, 8])), "q has batch 3, k 2 and v 2; they must agree, or be 1"),
        (with(floats("q", &[2, 2, 5, 4])), "q has head size 4 but k has 8"),
        (with(floats("q", &[2, 3, 5, 8])), "heads_q = 3 is not a multiple of heads_kv = 2"),
        (with(floats("v", &[2, 2, 5, 0])), "`dim_v` is 0"),
        (with(Tensor("q", Dtype::F64, vec![2, 2, 5, 8], vec![0; 1280])), "`q` is stored as F64"),
        (
            with(Tensor("k", Dtype::F16, vec![2, 2, 5, 8], vec![0; 320])),
            "k is f16 but v is f32; store k and v in the same type",
        ),
        (with(floats("mask", &[5, 5])), "`mask` is stored as F32"),
        (with(Tensor("mask", Dtype::BOOL, vec![5, 4], vec![1; 20])), "`mask` has shape [1, 1, 5, 4]"),
        (with(Tensor("mask", Dtype::BOOL, vec![], vec![1])), "`mask` has shape []"),
        (with(Tensor("key_padding_mask", Dtype::U8, vec![5, 2], vec![1; 10])), "`key_padding_mask` has shape [5, 2]"),
        (
            with(floats("bias", &[3, 5, 5])),
            "`bias` has shape [1, 3, 5, 5], which does not broadcast to the scores' [2, 2, 5, 5]",
        ),
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
fn tensors_of_other_names_are_refused() {
    let bytes = |name, dtype: Dtype, shape: &[usize]| {
        let count: usize = shape.iter().product();
        Tensor(name, dtype, shape.to_vec(), vec![1; count * dtype.bitsize() / 8])
    };
    let cases = [
        (floats("attn_mask", &[5, 5]), "`attn_mask` is F32, and so is called `bias`"),
        (bytes("attn_mask", Dtype::BOOL, &[5, 5]), "`attn_mask` is BOOL, and so is called `mask`"),
        (bytes("attention_mask", Dtype::I64, &[2, 5]), "`key_padding_mask`"),
        (floats("attn_bias", &[5, 5]), "`attn_bias` is called `bias` here"),
        (bytes("Mask", Dtype::BOOL, &[5, 5]), "`Mask` is called `mask` here"),
        (bytes("kv_length", Dtype::I32, &[2]), "`kv_length` is called `kv_lengths` here"),
        (bytes("kv_lenghts", Dtype::I32, &[2]), "the nearest is `kv_lengths`"),
        (floats("learned_sinks", &[2]), "`learned_sinks` is called `sinks` here"),
        (floats("alibi", &[2]), "`alibi` is called `alibi_slopes` here"),
        (floats("past_key", &[2, 2, 5, 8]), "`past_key` is not read: a cache is not read apart"),
        (bytes("cu_seqlens", Dtype::I32, &[3]), "ragged queries are bounded by `cu_seqlens_q` here"),
        (bytes("block_tables", Dtype::I32, &[2, 1]), "`block_tables` is called `block_table` here"),
        (bytes("is_causal", Dtype::BOOL, &[]), "it is the option --causal here"),
        (floats("out_proj.weight", &[4]), "which are q, k, v, mask, key_padding_mask, bias, kv_lengths"),
        (floats("Q", &[2, 2, 5, 8]), "`Q` is called `q` here; rename it or leave it out, or give --ignore Q"),
    ];
    for (tensor, words) in cases {
        refused_tensors(&with(tensor), words);
    }
    // A wrong name is reported before the tensor that is missing because of it.
    refused_tensors(&["query", "k", "v"].map(|name| floats(name, &[2, 2, 5, 8])), "`query` is called `q` here");
    refused_tensors(&with(floats("\u{1b}[31m", &[1])), "\\u{1b}[31m");
}

#[test]
fn tensors_can_be_ignored_by_name() {
    let plain = output_of(&qkv(), &[]);
    let mask = Tensor("mask", Dtype::BOOL, vec![5, 5], [1, 0, 0, 0, 0].repeat(5));
    assert_ne!(output_of(&with(mask), &[]), plain);
    let mask = Tensor("mask", Dtype::BOOL, vec![5, 5], [1, 0, 0, 0, 0].repeat(5));
    let mut tensors = with(mask);
    tensors.push(floats("attn_mask", &[5, 5]));
    assert_eq!(output_of(&tensors, &["--ignore", "mask", "--ignore", "attn_mask"]), plain);
    // Results, and results to compare with, are never read.
    let mut tensors = qkv();
    tensors.extend(["output", "lse", "weights", "expected_output"].map(|name| floats(name, &[3])));
    assert_eq!(output_of(&tensors, &[]), plain);

    let folder = folder();
    write(&folder.path().join("in.safetensors"), &qkv());
    let ignoring = |name: &str, words: &str| {
        refused(folder.path(), &["run", "in.safetensors", "-o", "out.safetensors", "--ignore", name], words);
    };
    ignoring("maks", "--ignore maks: there is no such tensor; the file holds k, q, v");
    ignoring("q", "there is no attention without `q`");
}
