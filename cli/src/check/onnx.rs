//! Case files of the ONNX `Attention` operator, opsets 23 to 25: a manifest.json and a safetensors file a case.
//!
//! The library computes `Y`, and the weights where `qk_matmul_output_mode` is 3. The scores of modes 0 to 2 are what fused
//! attention never writes down, so they are computed here, in f64, from the case as it was read: comparing them checks
//! that scale, softcap, masks and bias were understood as the operator means them. `present_key` and `present_value` are
//! compared to the last bit with what was handed to the library.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use safetensors::Dtype as Stored;
use serde::Deserialize;
use wgpu_attention::blocking::Outputs;
use wgpu_attention::{Diagonal, Dtype, Inputs, Layout, Operand, Problem, ProblemBuilder, ScoreLayout, Shape, Window};

use super::{Case, Entry, Expectation};
use crate::host::HostInputs;
use crate::tensors::{Tensor, TensorFile, element};
use crate::visibility::{Visibility, place};

#[derive(Deserialize)]
struct Manifest {
    /// Parsed one by one, so that a broken one fails alone.
    cases: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct CaseSpec {
    name: String,
    file: String,
    #[serde(default)]
    attributes: Attributes,
    /// ONNX's own bounds unless the manifest says otherwise.
    #[serde(default = "default_rtol")]
    rtol: f64,
    #[serde(default = "default_atol")]
    atol: f64,
}

fn default_rtol() -> f64 {
    1e-3
}

fn default_atol() -> f64 {
    1e-7
}

/// As the operator spells them. One that is not listed would change the meaning, so it fails the case.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Attributes {
    is_causal: i64,
    kv_num_heads: Option<u32>,
    q_num_heads: Option<u32>,
    left_window_size: Option<i64>,
    right_window_size: Option<i64>,
    qk_matmul_output_mode: i64,
    scale: Option<f32>,
    softcap: f32,
    softmax_precision: Option<i64>,
}

/// An output tensor of the case.
pub(super) struct Expected {
    name: &'static str,
    values: Vec<f32>,
    source: Source,
    tolerance: Tolerance,
}

/// Where the values to compare come from.
enum Source {
    Library(Operand),
    Checker(Vec<f32>),
}

#[derive(Clone, Copy)]
enum Tolerance {
    Exact,
    /// `|a − b| ≤ atol + rtol·|b|`
    Relative {
        rtol: f64,
        atol: f64,
    },
    Absolute(f64),
}

/// Every case of `folder`, or one that fails where there is no readable manifest.
pub(super) fn entries(folder: &Path) -> Vec<Entry> {
    match manifest(folder) {
        Ok(cases) => cases.into_iter().enumerate().map(|(index, case)| entry(folder, index, case)).collect(),
        Err(error) => vec![(folder.display().to_string(), Box::new(move || Err(error)))],
    }
}

fn manifest(folder: &Path) -> Result<Vec<serde_json::Value>> {
    let path = folder.join("manifest.json");
    let shown = path.display();
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {shown}"))?;
    let manifest: Manifest = serde_json::from_str(&text).with_context(|| format!("{shown} is not a manifest"))?;
    ensure!(!manifest.cases.is_empty(), "{shown} lists no cases");
    Ok(manifest.cases)
}

fn entry(folder: &Path, index: usize, case: serde_json::Value) -> Entry {
    let name = case.get("name").and_then(|name| name.as_str()).map_or_else(|| format!("case-{index}"), str::to_owned);
    let folder = folder.to_owned();
    let load = move || {
        let spec: CaseSpec = serde_json::from_value(case).context("the manifest's entry does not parse")?;
        let path = folder.join(&spec.file);
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let file = TensorFile::parse(&bytes).with_context(|| path.display().to_string())?;
        read(&spec, &file).with_context(|| spec.name.clone())
    };
    (name, Box::new(load))
}

/// The operator's inputs, as problem and host data, and its outputs.
fn read(spec: &CaseSpec, file: &TensorFile<'_>) -> Result<Case> {
    let attributes = &spec.attributes;
    let (q, k, v) = (file.need("in.Q")?, file.need("in.K")?, file.need("in.V")?);
    let cache = Cache::read(file)?;
    let (shape, fresh) = shape(attributes, [&q, &k, &v], cache.as_ref())?;

    let mut host = HostInputs { q: q.numbers()?, ..HostInputs::default() };
    let dtype = common_type([&q, &k, &v]);
    let mut problem = Problem::builder(shape).dtype(dtype);
    if q.shape.len() == 3 {
        problem = problem.q(Layout::blhd(shape.heads_q, shape.len_q, shape.dim_qk));
        problem = problem.out(Layout::blhd(shape.heads_q, shape.len_q, shape.dim_v));
    }
    let [layout_k, layout_v] = [shape.dim_qk, shape.dim_v].map(|dim| fresh.layout(dim));
    (host.k, host.v) = (k.numbers()?, v.numbers()?);
    if let Some(cache) = &cache {
        host.k = cache.extended(&cache.key, &host.k, layout_k, &shape);
        host.v = cache.extended(&cache.value, &host.v, layout_v, &shape);
    } else {
        problem = problem.k(layout_k).v(layout_v);
    }

    if let Some(mask) = file.find("in.attn_mask")? {
        problem = read_mask(problem, &mask, shape.len_kv, dtype, &mut host)?;
    }
    if let Some(lengths) = file.find("in.nonpad_kv_seqlen")? {
        ensure!(cache.is_none(), "nonpad_kv_seqlen and past_key exclude each other");
        host.kv_lengths = Some(valid_keys(&lengths, &shape)?);
        problem = problem.kv_lengths();
    }
    problem = positions(problem, attributes, cache.as_ref(), host.kv_lengths.is_some())?;
    problem = match attributes.softcap {
        0.0 => problem,
        cap => problem.softcap(cap),
    };
    if let Some(scale) = attributes.scale {
        problem = problem.scale(scale);
    }
    let wants_weights = attributes.qk_matmul_output_mode == 3 && file.find("out.qk_matmul_output")?.is_some();
    let problem = if wants_weights { problem.weights() } else { problem }.build()?;
    host.borrow().check(&problem)?;
    let expected = expected(spec, file, &problem, &host)?;
    Ok(Case { problem, host, expected: Expectation::Tensors(expected) })
}

/// `past_key` and `past_value`, (B, Hkv, Lpast, D).
struct Cache {
    len: u32,
    key: Vec<f32>,
    value: Vec<f32>,
    shapes: [[u32; 4]; 2],
}

impl Cache {
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

    /// The past rows of each head, then its new ones, in (B, H, L, D).
    fn extended(&self, past: &[f32], new: &[f32], layout: Layout, shape: &Shape) -> Vec<f32> {
        let heads = shape.batch as usize * shape.heads_kv as usize;
        let dim = past.len() / (heads * self.len as usize).max(1);
        let dim = if self.len == 0 { new.len() / (heads * shape.len_kv as usize).max(1) } else { dim };
        let mut joined = Vec::with_capacity(past.len() + new.len());
        for batch in 0..shape.batch {
            for head in 0..shape.heads_kv {
                let of_head = (batch * shape.heads_kv + head) as usize * self.len as usize * dim;
                joined.extend_from_slice(&past[of_head..of_head + self.len as usize * dim]);
                joined.extend(rows(new, layout, batch, head, shape.len_kv - self.len, dim));
            }
        }
        joined
    }
}

/// The elements of one head, wherever its rows lie.
fn rows(values: &[f32], layout: Layout, batch: u32, head: u32, len: u32, dim: usize) -> impl Iterator<Item = f32> {
    let start = move |row: u32| {
        let Layout { offset, batch: b, head: h, row: r } = layout;
        let index = offset + u64::from(batch) * b + u64::from(head) * h + u64::from(row) * r;
        usize::try_from(index).unwrap_or(usize::MAX)
    };
    (0..len).flat_map(move |row| values[start(row)..start(row) + dim].iter().copied())
}

/// How K and V lie in their tensors before any cache is put in front.
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
fn shape(attributes: &Attributes, tensors: [&Tensor<'_>; 3], cache: Option<&Cache>) -> Result<(Shape, Fresh)> {
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
        "Q is {q:?}, K {k:?} and V {v:?}, which do not go together"
    );
    let past = cache.map_or(0, |cache| cache.len);
    if let Some(Cache { shapes, .. }) = cache {
        let wanted = [[k[0], k[1], past, k[3]], [v[0], v[1], past, v[3]]];
        ensure!(*shapes == wanted, "past_key and past_value are {shapes:?}, but K and V are {k:?} and {v:?}");
    }
    let len_kv = past.checked_add(k[2]).context("there are more than 2^32 keys")?;
    let shape = Shape { batch: q[0], heads_q: q[1], heads_kv: k[1], len_q: q[2], len_kv, dim_qk: q[3], dim_v: v[3] };
    Problem::builder(shape).build()?;
    Ok((shape, Fresh { packed, heads: k[1], len: k[2] }))
}

fn unpack(name: &str, tensor: &Tensor<'_>, heads: u32) -> Result<[u32; 4]> {
    let &[batch, len, hidden] = tensor.shape.as_slice() else {
        bail!("Q is 3-D but {name} has shape {:?}", tensor.shape);
    };
    ensure!(heads > 0 && hidden % heads == 0, "{name} has {hidden} features, which {heads} heads do not divide");
    Ok([batch, heads, len, hidden / heads])
}

/// The element type all three share, or f32, which holds the values of every other.
fn common_type(tensors: [&Tensor<'_>; 3]) -> Dtype {
    let [q, k, v] = tensors.map(|tensor| element(tensor.stored));
    q.filter(|_| q == k && q == v).unwrap_or_default()
}

/// A boolean mask or an additive one, padded with "masked" up to the keys there are.
fn read_mask(
    problem: ProblemBuilder,
    tensor: &Tensor<'_>,
    len_kv: u32,
    dtype: Dtype,
    host: &mut HostInputs,
) -> Result<ProblemBuilder> {
    let mut dims = tensor.aligned()?;
    let given = std::mem::replace(&mut dims[3], len_kv);
    ensure!(given <= len_kv, "attn_mask is {given} long, but there are {len_kv} keys");
    let layout = ScoreLayout::broadcast(dims);
    if tensor.stored == Stored::BOOL {
        host.mask = Some(padded(&tensor.booleans()?, given, len_kv, false));
        return Ok(problem.mask(layout));
    }
    host.bias = Some(padded(&tensor.numbers()?, given, len_kv, f32::NEG_INFINITY));
    let stored = element(tensor.stored).filter(|&stored| stored == dtype).unwrap_or(Dtype::F32);
    Ok(problem.bias(stored, layout))
}

/// Rows of `given` made rows of `wanted`.
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

/// Causality and window, both from where the operator says row 0 stands.
fn positions(
    problem: ProblemBuilder,
    attributes: &Attributes,
    cache: Option<&Cache>,
    has_lengths: bool,
) -> Result<ProblemBuilder> {
    let diagonal = match cache {
        _ if has_lengths => Diagonal::BottomRight,
        Some(cache) => Diagonal::Offset(i32::try_from(cache.len).context("the cache is longer than 2^31")?),
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

/// The outputs the file holds and how near each must be.
fn expected(spec: &CaseSpec, file: &TensorFile<'_>, problem: &Problem, host: &HostInputs) -> Result<Vec<Expected>> {
    let mut all = Vec::new();
    let relative = Tolerance::Relative { rtol: spec.rtol, atol: spec.atol };
    // The expected values carry the rounding of their own type, and of the softmax's where that is narrower.
    let narrowed = |tensor: &Tensor<'_>, largest: f32| {
        let softmax = spec.attributes.softmax_precision.and_then(onnx_float);
        let narrow = element(tensor.stored).filter(|&stored| stored != Dtype::F32);
        coarser(narrow, softmax).map_or(relative, |dtype| Tolerance::Absolute(2.0 * ulp(dtype, largest)))
    };
    if let Some(y) = file.find("out.Y")? {
        let (values, tolerance) = (y.numbers()?, narrowed(&y, largest(&host.v)));
        all.push(Expected { name: "Y", values, source: Source::Library(Operand::Out), tolerance });
    }
    if let Some(qk) = file.find("out.qk_matmul_output")? {
        let values = qk.numbers()?;
        let source = match spec.attributes.qk_matmul_output_mode {
            3 => Source::Library(Operand::Weights),
            mode @ 0..=2 => Source::Checker(scores(problem, &host.borrow(), mode)),
            other => bail!("qk_matmul_output_mode is {other}; it must be from 0 to 3"),
        };
        let tolerance = narrowed(&qk, largest(&values));
        all.push(Expected { name: "qk_matmul_output", values, source, tolerance });
    }
    for (name, file_name, operand, held) in [
        ("present_key", "out.present_key", Operand::K, &host.k),
        ("present_value", "out.present_value", Operand::V, &host.v),
    ] {
        if let Some(present) = file.find(file_name)? {
            let source = Source::Checker(contiguous(problem, operand, held));
            all.push(Expected { name, values: present.numbers()?, source, tolerance: Tolerance::Exact });
        }
    }
    ensure!(!all.is_empty(), "the file holds no expected output: Y, qk_matmul_output, present_key or present_value");
    Ok(all)
}

/// The type with the larger unit, of those there are.
fn coarser(a: Option<Dtype>, b: Option<Dtype>) -> Option<Dtype> {
    a.into_iter().chain(b).max_by(|&a, &b| ulp(a, 1.0).total_cmp(&ulp(b, 1.0)))
}

/// The 16-bit floats among ONNX's type numbers.
fn onnx_float(number: i64) -> Option<Dtype> {
    match number {
        10 => Some(Dtype::F16),
        16 => Some(Dtype::Bf16),
        _ => None,
    }
}

fn largest(values: &[f32]) -> f32 {
    values.iter().filter(|value| value.is_finite()).fold(0.0, |largest, value| largest.max(value.abs()))
}

/// The unit in the last place of `dtype` at `value`.
fn ulp(dtype: Dtype, value: f32) -> f64 {
    let (bits, lowest) = match dtype {
        Dtype::F32 => (23.0, -126.0),
        Dtype::F16 => (10.0, -14.0),
        Dtype::Bf16 => (7.0, -126.0),
    };
    (f64::from(value).log2().floor().max(lowest) - bits).exp2()
}

/// An operand's elements in (B, H, L, D) order.
fn contiguous(problem: &Problem, operand: Operand, values: &[f32]) -> Vec<f32> {
    let Some(view) = problem.view(operand) else { return Vec::new() };
    let [batches, heads, rows, dim] = view.extent;
    let starts = (0..batches).flat_map(|b| (0..heads).flat_map(move |h| (0..rows).map(move |row| [b, h, row, 0])));
    starts.flat_map(|at| &values[place(&view, at)..][..dim as usize]).copied().collect()
}

/// The scores in f64: 0 scaled, 1 after the softcap, 2 after bias and masks.
fn scores(problem: &Problem, inputs: &Inputs<'_>, mode: i64) -> Vec<f32> {
    let shape = problem.shape();
    let (q, k) = (contiguous(problem, Operand::Q, inputs.q), contiguous(problem, Operand::K, inputs.k));
    let dim = shape.dim_qk as usize;
    let visibility = Visibility::new(problem, inputs);
    let bias = problem.view(Operand::Bias).zip(inputs.bias);
    let mut scores = Vec::new();
    for (row, q) in (0..).zip(q.chunks(dim)) {
        let (head, i) = (row / shape.len_q, row % shape.len_q);
        let (batch, head) = (head / shape.heads_q, head % shape.heads_q);
        let visible = visibility.range(batch, i);
        let first = (batch * shape.heads_kv + shape.kv_head(head)) as usize * shape.len_kv as usize;
        for (j, k) in (0..shape.len_kv).zip(k[first * dim..].chunks(dim)) {
            let dot: f64 = q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
            let mut score = dot * f64::from(problem.scale());
            if let (Some(cap), 1 | 2) = (problem.softcap().map(f64::from), mode) {
                score = cap * (score / cap).tanh();
            }
            if mode == 2 {
                let at = [batch, head, i, j];
                score += bias.map_or(0.0, |(view, bias)| f64::from(bias[place(&view, at)]));
                // Added, as the operator does: what is NaN stays so.
                score += if visible.contains(&j) && visibility.unmasked(at) { 0.0 } else { f64::NEG_INFINITY };
            }
            #[expect(clippy::cast_possible_truncation, reason = "rounded to the precision of the comparison")]
            scores.push(score as f32);
        }
    }
    scores
}

/// Whether every expected tensor is met, and the largest error or the first that is not.
pub(super) fn judge(expected: &[Expected], outputs: &Outputs) -> (bool, String) {
    let mut largest: f64 = 0.0;
    for Expected { name, values, source, tolerance } in expected {
        let got = match source {
            Source::Library(Operand::Weights) => outputs.weights.as_deref().unwrap_or_default(),
            Source::Library(_) => &outputs.out,
            Source::Checker(values) => values,
        };
        if got.len() != values.len() {
            return (false, format!("{name} has {} elements, expected {}", got.len(), values.len()));
        }
        for (index, (&got, &want)) in got.iter().zip(values).enumerate() {
            // NaN is expected only of scores that the checker computed, from inputs that hold it.
            let both_nan = got.is_nan() && want.is_nan() && matches!(source, Source::Checker(_));
            if !(both_nan || tolerance.allows(got, want)) {
                return (false, format!("{name}[{index}] is {got}, expected {want}"));
            }
            if got != want && !both_nan {
                largest = largest.max(f64::from(got - want).abs());
            }
        }
    }
    (true, format!("error {largest:.1e}"))
}

impl Tolerance {
    /// Written so that NaN fails.
    fn allows(self, got: f32, want: f32) -> bool {
        let error = (f64::from(got) - f64::from(want)).abs();
        got == want
            || match self {
                Self::Exact => false,
                Self::Relative { rtol, atol } => error <= atol + rtol * f64::from(want).abs(),
                Self::Absolute(bound) => error <= bound,
            }
    }
}
