//! Reads quantized keys and values: integers or floats of 8 bits, or two 4-bit numbers per byte, with a scale per row.

use anyhow::{Result, bail, ensure};
use safetensors::Dtype as Stored;
use wgpu_attention::Quantization;

use crate::tensors::{Tensor, TensorFile};

/// How a tensor is quantized, if its type says so.
pub(crate) fn quantization(tensor: &Tensor<'_>) -> Option<Quantization> {
    match tensor.stored {
        Stored::I8 => Some(Quantization::Int8),
        Stored::U8 => Some(Quantization::Int4),
        Stored::F8_E4M3 => Some(Quantization::Fp8E4m3),
        _ => None,
    }
}

/// The quantization of k and v, if they are quantized.
pub(crate) fn common(file: &TensorFile<'_>, k: &Tensor<'_>, v: &Tensor<'_>) -> Result<Option<Quantization>> {
    let [of_k, of_v] = [quantization(k), quantization(v)];
    ensure!(of_k == of_v, "k is stored as {:?} but v as {:?}; quantize both alike, or neither", k.stored, v.stored);
    for name in ["k_scale", "v_scale"] {
        let is_given = file.find(name)?.is_some();
        ensure!(
            is_given || of_k.is_none(),
            "k and v are stored as {:?}, but there is no `{name}`: quantized rows need an f32 scale each",
            k.stored
        );
        ensure!(
            !is_given || of_k.is_some(),
            "`{name}` is for keys and values of I8, U8 (two 4-bit numbers) or F8_E4M3, but they are stored as {:?}",
            k.stored
        );
    }
    Ok(of_k)
}

/// The words of a tensor of rows of `dim` elements, in the tensor's order.
pub(crate) fn words(
    file: &TensorFile<'_>,
    name: &str,
    tensor: &Tensor<'_>,
    quantization: Quantization,
    dim: u32,
) -> Result<Vec<u32>> {
    let scale = file.need(&format!("{name}_scale"))?;
    let Some((&stored, rows)) = tensor.shape.split_last() else {
        bail!("`{name}` is a single number; it must be (batch, heads, length, head size)")
    };
    ensure!(
        scale.shape == rows,
        "`{name}_scale` has shape {:?}; `{name}` has rows of shape {rows:?}, and each needs a scale",
        scale.shape
    );
    let per_byte = 8 / quantization.bits();
    ensure!(
        stored == dim.div_ceil(per_byte),
        "`{name}` has {stored} bytes per row; {dim} elements of {} bits take {}",
        quantization.bits(),
        dim.div_ceil(per_byte)
    );
    let scales = scale.floats()?;
    let mut words = Vec::with_capacity(scales.len() * quantization.row_words(dim) as usize);
    for (row, scale) in tensor.bytes.chunks(stored.max(1) as usize).zip(scales) {
        let numbers = row.iter().flat_map(|&byte| match quantization {
            Quantization::Int4 => vec![u32::from(byte) & 15, u32::from(byte) >> 4],
            _ => vec![byte.into()],
        });
        words.extend(quantization.pack(scale, &numbers.take(dim as usize).collect::<Vec<_>>()));
    }
    Ok(words)
}
