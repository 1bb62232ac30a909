//! From the tensors of a file to a problem and its inputs.

use anyhow::{Result, bail, ensure};
use wgpu_attention::{Dtype, Problem, ProblemBuilder, ScoreLayout, Shape};

use crate::host::HostInputs;
use crate::tensors::{Tensor, TensorFile};

/// What a file asks for, before the command line has its say.
pub(crate) struct Input {
    /// Shape, masks, bias and lengths; no outputs but `output` yet.
    pub(crate) problem: ProblemBuilder,
    pub(crate) host: HostInputs,
    pub(crate) shape: Shape,
    /// How the file stores q, and so what the outputs are written as.
    pub(crate) element: Dtype,
}

/// Reads q, k, v and the optional operands. They are computed on as `dtype`, or as stored.
pub(crate) fn read(file: &TensorFile<'_>, dtype: Option<Dtype>) -> Result<Input> {
    let (q, k, v) = (file.need("q")?, file.need("k")?, file.need("v")?);
    let element = q.element()?;
    for (name, other) in [("k", k.element()?), ("v", v.element()?)] {
        ensure!(other == element, "q is {element} but {name} is {other}; store q, k and v alike");
    }
    let shape = shape(&q, &k, &v)?;
    let dtype = dtype.unwrap_or(element);
    // The library checks this too, but the operands below are worked out from it.
    let mut problem = Problem::builder(shape).dtype(dtype);
    problem.build()?;

    let mut host = HostInputs { q: q.floats()?, k: k.floats()?, v: v.floats()?, ..HostInputs::default() };
    if let Some((dims, mask)) = mask(file, &shape)? {
        problem = problem.mask(ScoreLayout::broadcast(dims));
        host.mask = Some(mask);
    }
    if let Some(bias) = file.find("bias")? {
        // Anything but the elements' own type is exact in f32.
        let stored = if bias.element()? == dtype { dtype } else { Dtype::F32 };
        problem = problem.bias(stored, ScoreLayout::broadcast(bias.aligned()?));
        host.bias = Some(bias.floats()?);
    }
    if let Some(lengths) = file.find("kv_lengths")? {
        problem = problem.kv_lengths();
        host.kv_lengths = Some(kv_lengths(&lengths, &shape)?);
    }
    problem.build()?;
    Ok(Input { problem, host, shape, element })
}

fn shape(q: &Tensor<'_>, k: &Tensor<'_>, v: &Tensor<'_>) -> Result<Shape> {
    let ([batch, heads_q, len_q, dim_qk], k_shape, v_shape) = (q.rank4()?, k.rank4()?, v.rank4()?);
    let [k_batch, heads_kv, len_kv, k_dim] = k_shape;
    let dim_v = v_shape[3];
    ensure!(
        k_shape[..3] == v_shape[..3],
        "k has shape {k_shape:?} and v {v_shape:?}; they must agree in batch, heads and length"
    );
    ensure!(k_batch == batch, "q has batch {batch} but k and v have {k_batch}; they must agree");
    ensure!(k_dim == dim_qk, "q has head size {dim_qk} but k has {k_dim}; they must agree");
    Ok(Shape { batch, heads_q, heads_kv, len_q, len_kv, dim_qk, dim_v })
}

/// `mask` and `key_padding_mask`, either or both, as one.
fn mask(file: &TensorFile<'_>, shape: &Shape) -> Result<Option<([u32; 4], Vec<bool>)>> {
    let mut masks = Vec::new();
    if let Some(mask) = file.find("mask")? {
        masks.push(("mask", mask.aligned()?, mask.booleans()?));
    }
    if let Some(padding) = file.find("key_padding_mask")? {
        let (batch, keys) = (shape.batch, shape.len_kv);
        ensure!(
            padding.shape == [batch, keys] || padding.shape == [batch, 1, 1, keys],
            "`key_padding_mask` has shape {:?}; it must be [{batch}, {keys}] or [{batch}, 1, 1, {keys}]",
            padding.shape
        );
        masks.push(("key_padding_mask", [batch, 1, 1, keys], padding.booleans()?));
    }
    for (name, dims, _) in &masks {
        let scores = [shape.batch, shape.heads_q, shape.len_q, shape.len_kv];
        ensure!(
            dims.iter().zip(scores).all(|(&size, want)| size == 1 || size == want),
            "`{name}` has shape {dims:?}, which does not broadcast to the scores' {scores:?}; each axis must match or be 1"
        );
    }
    Ok(masks.into_iter().map(|(_, dims, mask)| (dims, mask)).reduce(|a, b| both(&a, &b)))
}

/// Attends where both masks do.
fn both((a_dims, a): &([u32; 4], Vec<bool>), (b_dims, b): &([u32; 4], Vec<bool>)) -> ([u32; 4], Vec<bool>) {
    let dims: [u32; 4] = std::array::from_fn(|axis| a_dims[axis].max(b_dims[axis]));
    let place = |own: &[u32; 4], at: [u32; 4]| {
        let axes = own.iter().zip(at);
        axes.fold(0, |index, (&size, i)| index * size as usize + if size == 1 { 0 } else { i as usize })
    };
    let mut joined = Vec::new();
    for batch in 0..dims[0] {
        for head in 0..dims[1] {
            for row in 0..dims[2] {
                let keys = (0..dims[3]).map(|key| [batch, head, row, key]);
                joined.extend(keys.map(|at| a[place(a_dims, at)] && b[place(b_dims, at)]));
            }
        }
    }
    (dims, joined)
}

fn kv_lengths(lengths: &Tensor<'_>, shape: &Shape) -> Result<Vec<u32>> {
    ensure!(
        lengths.shape == [shape.batch],
        "`kv_lengths` has shape {:?}; it must be [{}], one length a batch",
        lengths.shape,
        shape.batch
    );
    let checked = lengths.integers()?.into_iter().enumerate().map(|(batch, length)| match u32::try_from(length) {
        Ok(length) if length <= shape.len_kv => Ok(length),
        _ => bail!(
            "`kv_lengths` is {length} for batch {batch}; it must be from 0 to the {} keys there are",
            shape.len_kv
        ),
    });
    checked.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_join_across_broadcast_axes() {
        let causal = ([1, 1, 2, 3], vec![true, false, false, true, true, false]);
        let padding = ([2, 1, 1, 3], vec![true, true, true, false, true, true]);
        let (dims, joined) = both(&causal, &padding);
        assert_eq!(dims, [2, 1, 2, 3]);
        let wanted = [1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0].map(|attend| attend == 1);
        assert_eq!(joined, wanted);
    }
}
