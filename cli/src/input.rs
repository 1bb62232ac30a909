//! Turns the tensors of a file into a problem and its inputs.

use anyhow::{Result, bail, ensure};
use truth::Host;
use wgpu_attention::{Dtype, Layout, Problem, ProblemBuilder, Quantization, ScoreLayout, Shape, Slopes};

use crate::masks::{self, Operands, Scores};
use crate::names::Pass;
use crate::sequences::{Sequences, Sizes};
use crate::tensors::{Tensor, TensorFile};
use crate::{names, quantized};

/// What a file describes, before the options of the command line are applied.
pub(crate) struct Input {
    /// Shape, masks, bias and lengths. `output` is the only output so far.
    pub(crate) problem: ProblemBuilder,
    pub(crate) host: Host,
    pub(crate) shape: Shape,
    /// The element type of q in the file, in which the outputs are written.
    pub(crate) element: Dtype,
}

/// Reads q, k, v and the optional operands. `dtype` is the element type to compute on, by default the stored ones. Gradients
/// that come in are not read, but a backward pass may have them.
pub(crate) fn read(file: &TensorFile<'_>, dtype: Option<Dtype>, pass: Pass) -> Result<Input> {
    names::check(file, pass)?;
    let (q, k, v) = (file.need("q")?, file.need("k")?, file.need("v")?);
    let element = q.element()?;
    let quantization = quantized::common(file, &k, &v)?;
    let sequences = Sequences::read(file)?;
    let mut sizes = [sequences.queries(&q)?, sequences.keys("k", &k)?, sequences.keys("v", &v)?];
    if quantization == Some(Quantization::Int4) {
        // Two per byte; an odd head size of k leaves half a byte.
        sizes[1].dim = if sizes[1].dim == sizes[0].dim.div_ceil(2) { sizes[0].dim } else { 2 * sizes[1].dim };
        sizes[2].dim *= 2;
    }
    let shape = shape(sizes)?;
    // The operands below depend on the shape, so it is checked first.
    let mut host = Host { q: q.floats()?, ..Host::default() };
    let stored = Problem::builder(shape).dtype(dtype.unwrap_or(element));
    let stored = match quantization {
        Some(quantization) => {
            host.k_words = Some(quantized::words(file, "k", &k, quantization, shape.dim_qk)?);
            host.v_words = Some(quantized::words(file, "v", &v, quantization, shape.dim_v)?);
            for Sizes { dim, .. } in &mut sizes[1..] {
                *dim = quantization.row_words(*dim);
            }
            stored.kv_quantized(quantization)
        }
        None => {
            let (of_k, of_v) = (k.element()?, v.element()?);
            ensure!(of_k == of_v, "k is {of_k} but v is {of_v}; store k and v in the same type");
            (host.k, host.v) = (k.floats()?, v.floats()?);
            stored.kv_dtype(dtype.unwrap_or(of_k))
        }
    };
    let mut problem = batches(stored, &shape, sizes);
    problem.build()?;

    let bias = bias(file, &shape)?;
    let bias_element = bias.as_ref().map(|(element, _)| *element).unwrap_or_default();
    let Operands { mask, bias } =
        masks::operands(mask(file, &shape)?, padding(file, &shape)?, bias.map(|(_, bias)| bias));
    if let Some(Scores { dims, values }) = mask {
        problem = problem.mask(ScoreLayout::broadcast(dims));
        host.mask = Some(values);
    }
    if let Some(Scores { dims, values }) = bias {
        problem = problem.bias(bias_element, ScoreLayout::broadcast(dims));
        host.bias = Some(values);
    }
    if let Some(lengths) = file.find("kv_lengths")? {
        problem = problem.kv_lengths();
        host.kv_lengths = Some(numbers("kv_lengths", "keys", &lengths, shape.batch, shape.len_kv)?);
    }
    if let Some(lengths) = file.find("q_lengths")? {
        ensure!(
            file.find("cu_seqlens_q")?.is_none(),
            "`cu_seqlens_q` already says how many queries there are; leave out `q_lengths`"
        );
        problem = problem.q_lengths();
        host.q_lengths = Some(numbers("q_lengths", "queries", &lengths, shape.batch, shape.len_q)?);
    }
    problem = sequences.add(problem, &mut host, &shape, [&q, &k, &v])?;
    if let Some(tensor) = file.find("alibi_slopes")? {
        let (slopes, values) = alibi_slopes(&tensor, &shape)?;
        problem = problem.alibi(slopes);
        host.alibi_slopes = Some(values);
    }
    if let Some(tensor) = file.find("sinks")? {
        let heads = shape.heads_q;
        ensure!(tensor.shape == [heads], "`sinks` has shape {:?}; it must be [{heads}], one per head", tensor.shape);
        problem = problem.sinks();
        host.sinks = Some(tensor.floats()?);
    }
    if let Some(tensor) = file.find("aux")? {
        let values = tensor.floats()?;
        problem = problem.aux(values.len() as u64);
        host.aux = Some(values);
    }
    problem.build()?;
    Ok(Input { problem, host, shape, element })
}

fn alibi_slopes(tensor: &Tensor<'_>, shape: &Shape) -> Result<(Slopes, Vec<f32>)> {
    let (batch, heads) = (shape.batch, shape.heads_q);
    let slopes = if tensor.shape == [heads] {
        Slopes::PerHead
    } else {
        ensure!(
            tensor.shape == [batch, heads],
            "`alibi_slopes` has shape {:?}; it must be [{heads}] or [{batch}, {heads}]",
            tensor.shape
        );
        Slopes::PerBatchAndHead
    };
    Ok((slopes, tensor.floats()?))
}

/// The sizes. A tensor of batch 1 is broadcast over the batch of the others.
fn shape([q, k, v]: [Sizes; 3]) -> Result<Shape> {
    ensure!(
        [k.heads, k.len] == [v.heads, v.len],
        "k has {} heads of length {} and v {} of length {}; they must agree",
        k.heads,
        k.len,
        v.heads,
        v.len
    );
    ensure!(k.dim == q.dim, "q has head size {} but k has {}; they must agree", q.dim, k.dim);
    let sizes = [q, k, v].map(|tensor| tensor.batch.unwrap_or(1));
    let batch = sizes.into_iter().find(|&size| size != 1).unwrap_or(1);
    ensure!(
        sizes.iter().all(|&size| size == 1 || size == batch),
        "q has batch {}, k {} and v {}; they must agree, or be 1",
        sizes[0],
        sizes[1],
        sizes[2]
    );
    Ok(Shape { batch, heads_q: q.heads, heads_kv: k.heads, len_q: q.len, len_kv: k.len, dim_qk: q.dim, dim_v: v.dim })
}

/// Sets the layouts of those of q, k and v whose batch of 1 is broadcast, with a stride of 0.
fn batches(mut problem: ProblemBuilder, shape: &Shape, sizes: [Sizes; 3]) -> ProblemBuilder {
    let set = [ProblemBuilder::q, ProblemBuilder::k, ProblemBuilder::v];
    for (Sizes { batch, heads, len, dim }, set) in sizes.into_iter().zip(set) {
        if batch.is_some_and(|batch| batch != shape.batch) {
            problem = set(problem, Layout { batch: 0, ..Layout::bhld(heads, len, dim) });
        }
    }
    problem
}

fn mask(file: &TensorFile<'_>, shape: &Shape) -> Result<Option<Scores<bool>>> {
    let Some(mask) = file.find("mask")? else { return Ok(None) };
    let scores = Scores { dims: mask.aligned()?, values: mask.booleans()? };
    check_broadcast("mask", &scores, shape)?;
    Ok(Some(scores))
}

fn padding(file: &TensorFile<'_>, shape: &Shape) -> Result<Option<Scores<bool>>> {
    let Some(padding) = file.find("key_padding_mask")? else { return Ok(None) };
    let (batch, keys) = (shape.batch, shape.len_kv);
    ensure!(
        padding.shape == [batch, keys] || padding.shape == [batch, 1, 1, keys],
        "`key_padding_mask` has shape {:?}; it must be [{batch}, {keys}] or [{batch}, 1, 1, {keys}]",
        padding.shape
    );
    Ok(Some(Scores { dims: [batch, 1, 1, keys], values: padding.booleans()? }))
}

/// The bias, and its element type in the file.
fn bias(file: &TensorFile<'_>, shape: &Shape) -> Result<Option<(Dtype, Scores<f32>)>> {
    let Some(bias) = file.find("bias")? else { return Ok(None) };
    let scores = Scores { dims: bias.aligned()?, values: bias.floats()? };
    check_broadcast("bias", &scores, shape)?;
    Ok(Some((bias.element()?, scores)))
}

fn check_broadcast<T>(name: &str, tensor: &Scores<T>, shape: &Shape) -> Result<()> {
    let Shape { batch, heads_q, len_q, len_kv, .. } = shape;
    ensure!(
        tensor.broadcasts(shape),
        "`{name}` has shape {:?}, which does not broadcast to the scores' [{batch}, {heads_q}, {len_q}, {len_kv}]; each axis \
         must match or be 1",
        tensor.dims
    );
    Ok(())
}

/// One length per batch, of at most `most` keys or queries.
fn numbers(name: &str, what: &str, lengths: &Tensor<'_>, batch: u32, most: u32) -> Result<Vec<u32>> {
    ensure!(
        lengths.shape == [batch],
        "`{name}` has shape {:?}; it must be [{batch}], one length per batch",
        lengths.shape
    );
    let checked = lengths.integers()?.into_iter().enumerate().map(|(batch, length)| match u32::try_from(length) {
        Ok(length) if length <= most => Ok(length),
        _ => bail!("`{name}` is {length} for batch {batch}; it must be from 0 to {most}, the number of {what}"),
    });
    checked.collect()
}
