//! Translates the operator's inputs and attributes into a problem of this library.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use safetensors::Dtype as Stored;
use truth::{Case, Host};
use wgpu_attention::{Append, Diagonal, Dtype, Layout, Problem, ProblemBuilder, ScoreLayout, Shape, Window};

use super::cache::Cache;
use super::manifest::{Attributes, CaseSpec};
use super::{Attention, Expectation, Question, outputs};
use crate::tensors::{Tensor, TensorFile, element};

/// Reads the operator's inputs as a case, and its outputs as the results to expect.
pub(super) fn read(spec: &CaseSpec, file: &TensorFile<'_>) -> Result<Question> {
    let attributes = &spec.attributes;
    let (q, k, v) = (file.need("in.Q")?, file.need("in.K")?, file.need("in.V")?);
    let past = Past::read(file)?;
    let (shape, fresh) = shape(attributes, [&q, &k, &v], past.as_ref())?;

    let mut host = Host { q: q.numbers()?, ..Host::default() };
    let mut problem =
        Problem::builder(shape).dtype(element(q.stored).unwrap_or_default()).kv_dtype(common_type([&k, &v]));
    if q.shape.len() == 3 {
        problem = problem.q(Layout::blhd(shape.heads_q, shape.len_q, shape.dim_qk));
        problem = problem.out(Layout::blhd(shape.heads_q, shape.len_q, shape.dim_v));
    }
    let [layout_k, layout_v] = [shape.dim_qk, shape.dim_v].map(|dim| fresh.layout(dim));
    (host.k, host.v) = (k.numbers()?, v.numbers()?);
    let mut appended = None;
    if let Some(past) = &past {
        let new = [&host.k, &host.v].map(Vec::clone);
        if past.len < shape.len_kv {
            appended = Some(past.with_room(new, [layout_k, layout_v], common_type([&k, &v]), shape)?);
        }
        host.k = past.extended(&past.key, &host.k, layout_k, shape.dim_qk, &shape);
        host.v = past.extended(&past.value, &host.v, layout_v, shape.dim_v, &shape);
    } else {
        problem = problem.k(layout_k).v(layout_v);
    }

    if let Some(mask) = file.find("in.attn_mask")? {
        problem = read_mask(problem, &mask, shape.len_kv, &mut host)?;
    }
    if let Some(lengths) = file.find("in.nonpad_kv_seqlen")? {
        ensure!(past.is_none(), "nonpad_kv_seqlen and past_key exclude each other");
        host.kv_lengths = Some(valid_keys(&lengths, &shape)?);
        problem = problem.kv_lengths();
    }
    problem = positions(problem, attributes, past.as_ref(), host.kv_lengths.is_some())?;
    problem = match attributes.softcap {
        0.0 => problem,
        cap => problem.softcap(cap),
    };
    if let Some(scale) = attributes.scale {
        problem = problem.scale(scale);
    }
    let wants_weights = attributes.qk_matmul_output_mode == 3 && file.find("out.qk_matmul_output")?.is_some();
    problem = if wants_weights { problem.weights() } else { problem };
    let wants_lse = file.find("out.lse")?.is_some();
    let problem = if wants_lse { problem.lse() } else { problem }.build()?;
    host.inputs().check(&problem)?;
    let case = Case::new(problem, host);
    let expected = Expectation::Tensors(outputs::read(spec, file, &case)?);
    Ok(Question::Attention(Box::new(Attention { case, cache: appended, expected })))
}

/// `past_key` and `past_value`, (B, Hkv, Lpast, D).
struct Past {
    len: u32,
    key: Vec<f32>,
    value: Vec<f32>,
    shapes: [[u32; 4]; 2],
}

impl Past {
    fn read(file: &TensorFile<'_>) -> Result<Option<Self>> {
        let (key, value) = (file.find("in.past_key")?, file.find("in.past_value")?);
        let (key, value) = match (key, value) {
            (None, None) => return Ok(None),
            (Some(key), Some(value)) => (key, value),
            _ => bail!("past_key and past_value go together, and one is missing"),
        };
        let shapes = [key.rank4()?, value.rank4()?];
        ensure!(shapes[0][..3] == shapes[1][..3], "past_key is {:?} but past_value {:?}", shapes[0], shapes[1]);
        Ok(Some(Self { len: shapes[0][2], key: key.numbers()?, value: value.numbers()?, shapes }))
    }

    /// The cache before the new rows are appended, with NaN in their places.
    fn with_room(&self, new: [Vec<f32>; 2], layouts: [Layout; 2], dtype: Dtype, shape: Shape) -> Result<Cache> {
        let none = new.each_ref().map(|new| vec![f32::NAN; new.len()]);
        let before = [
            self.extended(&self.key, &none[0], layouts[0], shape.dim_qk, &shape),
            self.extended(&self.value, &none[1], layouts[1], shape.dim_v, &shape),
        ];
        let append = Append { k: Some(layouts[0]), v: Some(layouts[1]), ..Append::default() };
        let shape = Shape { len_q: shape.len_kv - self.len, ..shape };
        Ok(Cache { problem: Problem::builder(shape).dtype(dtype).append(append).build()?, before, new })
    }

    /// The past rows of each head, then its new ones, in (B, H, L, D).
    fn extended(&self, past: &[f32], new: &[f32], layout: Layout, dim: u32, shape: &Shape) -> Vec<f32> {
        let (dim, past_rows) = (dim as usize, self.len as usize);
        let mut joined = Vec::with_capacity(past.len() + new.len());
        for batch in 0..shape.batch {
            for head in 0..shape.heads_kv {
                let of_head = (batch * shape.heads_kv + head) as usize * past_rows * dim;
                joined.extend_from_slice(&past[of_head..of_head + past_rows * dim]);
                joined.extend(rows(new, layout, batch, head, shape.len_kv - self.len, dim));
            }
        }
        joined
    }
}

/// The elements of one head, row by row, in any layout.
fn rows(values: &[f32], layout: Layout, batch: u32, head: u32, len: u32, dim: usize) -> impl Iterator<Item = f32> {
    let start = move |row: u32| {
        let Layout { offset, batch: b, head: h, row: r } = layout;
        let index = offset + u64::from(batch) * b + u64::from(head) * h + u64::from(row) * r;
        usize::try_from(index).unwrap_or(usize::MAX)
    };
    (0..len).flat_map(move |row| values[start(row)..start(row) + dim].iter().copied())
}

/// The layout of K and V in their tensors, before a cache is put in front of them.
struct Fresh {
    packed: bool,
    heads: u32,
    len: u32,
}

impl Fresh {
    fn layout(&self, dim: u32) -> Layout {
        if self.packed { Layout::blhd(self.heads, self.len, dim) } else { Layout::bhld(self.heads, self.len, dim) }
    }
}

/// The sizes, from (B, H, L, D) or from (B, L, H·D) and the head counts.
fn shape(attributes: &Attributes, tensors: [&Tensor<'_>; 3], past: Option<&Past>) -> Result<(Shape, Fresh)> {
    let packed = tensors[0].shape.len() == 3;
    let [q, k, v] = match (attributes.q_num_heads, attributes.kv_num_heads) {
        (Some(q), Some(kv)) if packed => {
            [unpack("Q", tensors[0], q)?, unpack("K", tensors[1], kv)?, unpack("V", tensors[2], kv)?]
        }
        _ if packed => bail!("3-D inputs need q_num_heads and kv_num_heads"),
        _ => [tensors[0].rank4()?, tensors[1].rank4()?, tensors[2].rank4()?],
    };
    ensure!(
        k[..3] == v[..3] && q[0] == k[0] && q[3] == k[3],
        "Q is {q:?}, K {k:?} and V {v:?}; these shapes do not fit together"
    );
    let past_len = past.map_or(0, |past| past.len);
    if let Some(Past { shapes, .. }) = past {
        let wanted = [[k[0], k[1], past_len, k[3]], [v[0], v[1], past_len, v[3]]];
        ensure!(*shapes == wanted, "past_key and past_value are {shapes:?}, but K and V are {k:?} and {v:?}");
    }
    let len_kv = past_len.checked_add(k[2]).context("there are more than 2^32 keys")?;
    let shape = Shape { batch: q[0], heads_q: q[1], heads_kv: k[1], len_q: q[2], len_kv, dim_qk: q[3], dim_v: v[3] };
    Problem::builder(shape).build()?;
    Ok((shape, Fresh { packed, heads: k[1], len: k[2] }))
}

fn unpack(name: &str, tensor: &Tensor<'_>, heads: u32) -> Result<[u32; 4]> {
    let &[batch, len, hidden] = tensor.shape.as_slice() else {
        bail!("Q is 3-D but {name} has shape {:?}", tensor.shape);
    };
    ensure!(heads > 0 && hidden % heads == 0, "{name} has {hidden} features, which is not a multiple of {heads} heads");
    Ok([batch, heads, len, hidden / heads])
}

/// The element type that both share, or else f32, which holds the values of the others.
fn common_type(tensors: [&Tensor<'_>; 2]) -> Dtype {
    let [k, v] = tensors.map(|tensor| element(tensor.stored));
    k.filter(|_| k == v).unwrap_or_default()
}

/// Adds a boolean or an additive mask, padded with hidden keys up to `len_kv`.
fn read_mask(problem: ProblemBuilder, tensor: &Tensor<'_>, len_kv: u32, host: &mut Host) -> Result<ProblemBuilder> {
    let mut dims = tensor.aligned()?;
    let given = std::mem::replace(&mut dims[3], len_kv);
    ensure!(given <= len_kv, "attn_mask is {given} long, but there are {len_kv} keys");
    let layout = ScoreLayout::broadcast(dims);
    if tensor.stored == Stored::BOOL {
        host.mask = Some(padded(&tensor.booleans()?, given, len_kv, false));
        return Ok(problem.mask(layout));
    }
    host.bias = Some(padded(&tensor.numbers()?, given, len_kv, f32::NEG_INFINITY));
    Ok(problem.bias(element(tensor.stored).unwrap_or_default(), layout))
}

/// Pads rows of `given` elements to rows of `wanted`.
fn padded<T: Copy>(values: &[T], given: u32, wanted: u32, filler: T) -> Vec<T> {
    let filling = std::iter::repeat_n(filler, (wanted - given) as usize);
    let rows = values.chunks(given.max(1) as usize);
    rows.flat_map(|row| row.iter().copied().chain(filling.clone())).collect()
}

fn valid_keys(lengths: &Tensor<'_>, shape: &Shape) -> Result<Vec<u32>> {
    ensure!(lengths.shape == [shape.batch], "nonpad_kv_seqlen has shape {:?}, not [{}]", lengths.shape, shape.batch);
    let checked = lengths.integers()?.into_iter().map(|length| match u32::try_from(length) {
        Ok(length) if length <= shape.len_kv => Ok(length),
        _ => bail!("nonpad_kv_seqlen is {length}, but there are {} keys", shape.len_kv),
    });
    checked.collect()
}

/// Sets causality and the window, both relative to the position that the operator gives row 0.
fn positions(
    problem: ProblemBuilder,
    attributes: &Attributes,
    past: Option<&Past>,
    has_lengths: bool,
) -> Result<ProblemBuilder> {
    let diagonal = match past {
        _ if has_lengths => Diagonal::BottomRight,
        Some(past) => Diagonal::Offset(i32::try_from(past.len).context("the cache is longer than 2^31")?),
        None => Diagonal::TopLeft,
    };
    let side = |name, size: Option<i64>| match size.unwrap_or(-1) {
        -1 => Ok(None),
        size => u32::try_from(size).map(Some).map_err(|_| anyhow!("{name} is {size}; it must be -1 or from 0 to 2^32")),
    };
    let left = side("left_window_size", attributes.left_window_size)?;
    let right = side("right_window_size", attributes.right_window_size)?;
    let problem = problem.diagonal(diagonal).window(Window { left, right });
    Ok(if attributes.is_causal == 0 { problem } else { problem.causal(diagonal) })
}
