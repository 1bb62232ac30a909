//! `run` on ragged batches, paged caches and quantized keys.

use safetensors::{Dtype, SafeTensors};

use crate::harness::{Tensor, devices, floats, folder, output_of, refused_tensors, run, values, write};

fn integers(name: &'static str, shape: &[usize], numbers: &[i32]) -> Tensor {
    Tensor(name, Dtype::I32, shape.to_vec(), numbers.iter().flat_map(|n| n.to_le_bytes()).collect())
}

/// Some of the rows of a tensor of f32 of which the last `width` numbers are a row.
fn rows(Tensor(name, _, _, bytes): &Tensor, shape: &[usize], rows: impl IntoIterator<Item = usize>) -> Tensor {
    let width = shape[shape.len() - 1] * 4;
    let bytes = rows.into_iter().flat_map(|row| bytes[row * width..(row + 1) * width].to_vec()).collect();
    Tensor(name, Dtype::F32, shape.to_vec(), bytes)
}

#[test]
fn ragged_sequences_come_out_as_each_alone() {
    let (q, k, v) = (floats("q", &[7, 2, 8]), floats("k", &[9, 2, 8]), floats("v", &[9, 2, 8]));
    let bounds = [integers("cu_seqlens_q", &[4], &[0, 3, 3, 7]), integers("cu_seqlens_k", &[4], &[0, 5, 6, 9])];
    // Head h of token t is row 2 t + h of a file (T, H, D).
    let alone = |tensor: &Tensor, tokens: std::ops::Range<usize>| {
        let order = (0..2).flat_map(|head| tokens.clone().map(move |token| 2 * token + head));
        rows(tensor, &[1, 2, tokens.len(), 8], order)
    };
    let options = ["--causal", "bottom-right", "--lse"];
    for device in devices() {
        let folder = folder();
        let [bound_q, bound_k] = &bounds;
        let copy = |Tensor(name, dtype, shape, bytes): &Tensor| Tensor(name, *dtype, shape.clone(), bytes.clone());
        write(&folder.path().join("in.safetensors"), &[&q, &k, &v, bound_q, bound_k].map(copy));
        let bytes = run(folder.path(), "in.safetensors", &[&options[..], &["--device", &device]].concat());
        let file = SafeTensors::deserialize(&bytes).expect("it is whole");
        assert_eq!(file.tensor("output").expect("written").shape(), [7, 2, 8]);
        assert_eq!(file.tensor("lse").expect("asked for").shape(), [2, 7]);
        let got = values(&bytes, "output");
        for (of_q, of_k) in [(0..3, 0..5), (3..7, 6..9)] {
            let wanted = output_of(
                &[alone(&q, of_q.clone()), alone(&k, of_k.clone()), alone(&v, of_k)],
                &["--causal", "bottom-right"],
            );
            for head in 0..2 {
                for (n, token) in of_q.clone().enumerate() {
                    let (got, wanted) = (&got[(2 * token + head) * 8..], &wanted[(head * of_q.len() + n) * 8..]);
                    for (a, b) in got[..8].iter().zip(&wanted[..8]) {
                        assert!((a - b).abs() < 1e-5, "{device}: {a} and {b} at token {token}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_paged_cache_comes_out_as_its_keys_in_order() {
    // Pages of two keys; the second sequence has three keys, and its last entry is never read.
    let (k, v) = (floats("k", &[4, 2, 1, 8]), floats("v", &[4, 2, 1, 8]));
    let table = || integers("block_table", &[2, 2], &[2, 0, 3, -1]);
    let lengths = || integers("kv_lengths", &[2], &[4, 2]);
    let copy = |Tensor(name, dtype, shape, bytes): &Tensor| Tensor(name, *dtype, shape.clone(), bytes.clone());
    let dense = |tensor: &Tensor| rows(tensor, &[2, 1, 4, 8], [4, 5, 0, 1, 6, 7, 0, 0]);
    let q = || floats("q", &[2, 2, 3, 8]);
    let wanted = output_of(&[q(), dense(&k), dense(&v), lengths()], &[]);
    for device in devices() {
        let folder = folder();
        write(&folder.path().join("in.safetensors"), &[q(), copy(&k), copy(&v), table(), lengths()]);
        let got = values(&run(folder.path(), "in.safetensors", &["--device", &device]), "output");
        assert!(got.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{device}: {got:?} and {wanted:?}");
    }
    let bad = integers("block_table", &[2, 2], &[2, 0, 4, -1]);
    refused_tensors(&[q(), copy(&k), copy(&v), bad, lengths()], "`block_table` is 4 at [1, 0]");
    refused_tensors(&[q(), copy(&k), copy(&v), table()], "`block_table` needs `kv_lengths`");
}

#[test]
fn quantized_keys_are_their_numbers_times_the_scale() {
    // Numbers from −8 to 7 that all three types hold, in rows of four with a scale of ½.
    let numbers: Vec<i8> = (0..24).map(|n| n % 16 - 8).collect();
    let wide = |name| {
        let bytes = numbers.iter().flat_map(|&n| (f32::from(n) * 0.5).to_le_bytes()).collect();
        Tensor(name, Dtype::F32, vec![1, 2, 3, 4], bytes)
    };
    let fp8 = |n: i8| {
        let size = f32::from(n).abs();
        let magnitude = if size == 0.0 { 0 } else { (size.to_bits() - (120 << 23)) >> 20 };
        magnitude.to_le_bytes()[0] | if n < 0 { 0x80 } else { 0 }
    };
    let stored = |name, dtype| {
        let (shape, bytes) = match dtype {
            Dtype::I8 => (vec![1, 2, 3, 4], numbers.iter().map(|&n| n.to_le_bytes()[0]).collect()),
            Dtype::U8 => {
                let pairs =
                    numbers.chunks(2).map(|pair| (pair[0] + 8).cast_unsigned() | (pair[1] + 8).cast_unsigned() << 4);
                (vec![1, 2, 3, 2], pairs.collect())
            }
            _ => (vec![1, 2, 3, 4], numbers.iter().map(|&n| fp8(n)).collect::<Vec<u8>>()),
        };
        Tensor(name, dtype, shape, bytes)
    };
    let scale = |name| Tensor(name, Dtype::F32, vec![1, 2, 3], 0.5_f32.to_le_bytes().repeat(6));
    let q = || floats("q", &[1, 4, 2, 4]);
    let wanted = output_of(&[q(), wide("k"), wide("v")], &[]);
    for device in devices() {
        for dtype in [Dtype::I8, Dtype::U8, Dtype::F8_E4M3] {
            let folder = folder();
            let tensors = [q(), stored("k", dtype), stored("v", dtype), scale("k_scale"), scale("v_scale")];
            write(&folder.path().join("in.safetensors"), &tensors);
            let got = values(&run(folder.path(), "in.safetensors", &["--device", &device]), "output");
            assert!(got.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{dtype:?} on {device}");
        }
    }
    let without = [q(), stored("k", Dtype::I8), stored("v", Dtype::I8), scale("k_scale")];
    refused_tensors(&without, "there is no `v_scale`");
    let mixed = [q(), stored("k", Dtype::I8), wide("v"), scale("k_scale"), scale("v_scale")];
    refused_tensors(&mixed, "quantize both alike");
    refused_tensors(&[q(), wide("k"), wide("v"), scale("k_scale")], "`k_scale` is for keys and values of I8");
}

#[test]
fn bounds_and_lengths_that_do_not_fit_are_refused() {
    let qkv = || vec![floats("q", &[7, 2, 8]), floats("k", &[1, 2, 9, 8]), floats("v", &[1, 2, 9, 8])];
    let with = |tensors: Vec<Tensor>| qkv().into_iter().chain(tensors).collect::<Vec<_>>();
    let bounds = |numbers: &[i32]| vec![integers("cu_seqlens_q", &[numbers.len()], numbers)];
    refused_tensors(&with(bounds(&[0, 4, 3])), "`cu_seqlens_q` falls from 4 to 3 at [2]");
    refused_tensors(&with(bounds(&[0, 8])), "`cu_seqlens_q` ends at 8, but `q` has 7 rows");
    refused_tensors(&with(bounds(&[-1, 3])), "`cu_seqlens_q` is -1 at [0]");
    refused_tensors(&qkv(), "`q` has shape [7, 2, 8]");
    let lengths = |numbers: &[i32]| integers("q_lengths", &[numbers.len()], numbers);
    let dense = |extra| vec![floats("q", &[2, 2, 5, 8]), floats("k", &[2, 2, 5, 8]), floats("v", &[2, 2, 5, 8]), extra];
    refused_tensors(
        &dense(lengths(&[5, 6])),
        "`q_lengths` is 6 for batch 1; it must be from 0 to 5, the number of queries",
    );
}
