//! The built-in cases: one for each rule of the definition, with sizes just below and above those of the kernels' tiles.

use std::sync::Arc;

use truth::{Case, Expected, Fill, Host};
use wgpu_attention::{
    BlockMask, Diagonal, Dtype, Layout, Pages, Problem, ProblemBuilder, Quantization, RngState, ScoreLayout, Shape,
    Slopes, Window,
};

use super::{Attention, Entry, Expectation, Question};

/// Changes the inputs drawn at random.
type Spoil = fn(&Shape, &mut Host);

pub(super) fn entries() -> Vec<Entry> {
    let cases = [shapes(), positions(), masks(), sequences(), scores(), programs(), storage(), outputs()].concat();
    let entry = |(name, problem, spoil): (&str, ProblemBuilder, Spoil)| -> Entry {
        (name.into(), Box::new(move || question(&problem, spoil)))
    };
    cases.into_iter().map(entry).collect()
}

type Row = (&'static str, ProblemBuilder, Spoil);

const AS_DRAWN: Spoil = |_, _| {};

fn self_attention() -> Shape {
    Shape::new(2, 3, 67, 32)
}

fn shapes() -> Vec<Row> {
    let packed = Shape::new(2, 4, 19, 16).kv_heads(2);
    let [q, k, v] = Layout::packed_qkv(&packed);
    let of = Problem::builder;
    vec![
        ("self-attention", of(self_attention()), AS_DRAWN),
        ("cross-attention", of(self_attention().kv_len(131)), AS_DRAWN),
        ("one-query-row", of(Shape::new(3, 2, 1, 64).kv_len(257)), AS_DRAWN),
        ("one-key", of(Shape::new(1, 2, 5, 16).kv_len(1)), AS_DRAWN),
        ("head-size-1", of(Shape::new(1, 2, 33, 1)), AS_DRAWN),
        ("head-size-odd", of(Shape::new(1, 2, 40, 33).value_dim(17)), AS_DRAWN),
        ("head-size-80", of(Shape::new(1, 2, 40, 80)), AS_DRAWN),
        ("head-size-128", of(Shape::new(1, 2, 40, 128)), AS_DRAWN),
        ("head-size-256", of(Shape::new(1, 1, 35, 256)), AS_DRAWN),
        ("values-wider-than-keys", of(Shape::new(1, 2, 40, 16).value_dim(72)), AS_DRAWN),
        ("grouped-query", of(Shape::new(2, 8, 37, 32).kv_heads(2)), AS_DRAWN),
        ("multi-query", of(Shape::new(1, 5, 37, 32).kv_heads(1)), AS_DRAWN),
        ("batch-length-head", of(packed).q(Layout::blhd(4, 19, 16)).out(Layout::blhd(4, 19, 16)), AS_DRAWN),
        ("packed-qkv", of(packed).q(q).k(k).v(v), AS_DRAWN),
    ]
}

fn positions() -> Vec<Row> {
    let (square, wide, tall) = (self_attention(), self_attention().kv_len(100), self_attention().kv_len(41));
    let (top, bottom) = (Diagonal::TopLeft, Diagonal::BottomRight);
    let window = |left, right| Window { left, right };
    let of = Problem::builder;
    vec![
        ("causal", of(square).causal(top), AS_DRAWN),
        ("causal-top-left-more-keys", of(wide).causal(top), AS_DRAWN),
        ("causal-top-left-fewer-keys", of(tall).causal(top), AS_DRAWN),
        ("causal-bottom-right-more-keys", of(wide).causal(bottom), AS_DRAWN),
        ("causal-bottom-right-fewer-keys", of(tall).causal(bottom), AS_DRAWN),
        ("causal-offset", of(wide).causal(Diagonal::Offset(7)), AS_DRAWN),
        ("causal-negative-offset", of(wide).causal(Diagonal::Offset(-9)), AS_DRAWN),
        ("window", of(square).window(window(Some(3), Some(1))), AS_DRAWN),
        ("window-itself-alone", of(square).window(window(Some(0), Some(0))), AS_DRAWN),
        ("window-left-open", of(square).window(window(None, Some(2))), AS_DRAWN),
        ("window-right-open", of(square).window(window(Some(2), None)), AS_DRAWN),
        ("causal-window-bottom-right", of(wide).causal(bottom).window(window(Some(17), None)), AS_DRAWN),
        ("window-past-the-keys", of(tall).window(window(Some(4), Some(4))), AS_DRAWN),
    ]
}

fn masks() -> Vec<Row> {
    let shape = self_attention();
    let Shape { batch, heads_q, len_q, len_kv, .. } = shape;
    let masked = |dims| Problem::builder(shape).mask(ScoreLayout::broadcast(dims));
    let padding = [batch, 1, 1, len_kv];
    let lengths = Problem::builder(shape).kv_lengths();
    vec![
        ("mask", masked([batch, heads_q, len_q, len_kv]), AS_DRAWN),
        ("mask-shared", masked([1, 1, len_q, len_kv]), AS_DRAWN),
        ("mask-causal", masked([batch, 1, len_q, len_kv]).causal(Diagonal::TopLeft), AS_DRAWN),
        ("key-padding", masked(padding), AS_DRAWN),
        ("mask-hides-every-key", masked(padding), |_, host| host.mask.iter_mut().for_each(|mask| mask.fill(false))),
        ("nan-behind-the-mask", masked(padding), poison_masked),
        ("lengths", lengths.clone(), AS_DRAWN),
        ("lengths-zero", lengths.clone(), |_, host| host.kv_lengths = Some(vec![0, 5])),
        ("lengths-causal-bottom-right", lengths.clone().causal(Diagonal::BottomRight), AS_DRAWN),
        ("nan-past-the-lengths", lengths, poison_past_lengths),
    ]
}

fn sequences() -> Vec<Row> {
    let shape = Shape::new(3, 4, 37, 32).kv_heads(2).kv_len(53);
    let of = |shape| Problem::builder(shape).causal(Diagonal::BottomRight);
    let pages = |size| Pages { count: 20, size };
    let window = Window { left: Some(9), right: None };
    let step = Shape { len_q: 1, ..shape };
    vec![
        ("q-lengths", of(shape).q_lengths().kv_lengths(), AS_DRAWN),
        ("q-lengths-sinks", of(shape).q_lengths().kv_lengths().sinks().lse(), |_, host| {
            host.q_lengths = Some(vec![0, 36, 37]);
        }),
        ("ragged", of(shape).ragged_q(80).ragged_kv(120).lse(), AS_DRAWN),
        ("ragged-empty", of(shape).ragged_q(80).ragged_kv(120), |_, host| {
            host.cu_seqlens_q = Some(vec![0, 37, 37, 74]);
            host.cu_seqlens_k = Some(vec![0, 0, 53, 106]);
        }),
        ("ragged-decode", of(step).ragged_q(5).ragged_kv(140), AS_DRAWN),
        ("paged", of(shape).paged_kv(pages(16)).kv_lengths().lse(), AS_DRAWN),
        ("paged-of-one", of(step).paged_kv(pages(1)).kv_lengths(), AS_DRAWN),
        ("paged-chunk", of(Shape { len_q: 5, ..shape }).ragged_q(15).paged_kv(pages(3)).kv_lengths(), AS_DRAWN),
        ("ring", of(Shape { len_q: 4, ..shape }.kv_len(500)).window(window).ring_kv(16), |_, host| {
            host.kv_lengths = Some(vec![7, 16, 431]);
        }),
        ("int8", of(shape).kv_quantized(Quantization::Int8).kv_lengths(), AS_DRAWN),
        ("int4-decode", of(step).kv_quantized(Quantization::Int4).kv_lengths(), AS_DRAWN),
        ("fp8-paged", of(step).kv_quantized(Quantization::Fp8E4m3).paged_kv(pages(8)).kv_lengths(), AS_DRAWN),
    ]
}

fn scores() -> Vec<Row> {
    let shape = self_attention();
    let Shape { batch, heads_q, len_q, len_kv, .. } = shape;
    let biased = Problem::builder(shape).bias(Dtype::F32, ScoreLayout::broadcast([1, heads_q, len_q, len_kv]));
    let plain = Problem::builder(shape);
    vec![
        ("scale", plain.clone().scale(0.7), AS_DRAWN),
        ("scale-zero", plain.clone().scale(0.0), AS_DRAWN),
        ("scale-negative", plain.clone().scale(-0.3), AS_DRAWN),
        ("scores-large", plain.clone().scale(12.0), AS_DRAWN),
        ("scores-rising", plain.clone(), |_, host| staircase(&mut host.k)),
        ("softcap", plain.clone().softcap(2.0), AS_DRAWN),
        ("softcap-causal", plain.clone().softcap(30.0).causal(Diagonal::TopLeft), AS_DRAWN),
        ("bias", biased.clone(), AS_DRAWN),
        (
            "bias-softcap-mask",
            biased.clone().softcap(5.0).mask(ScoreLayout::broadcast([1, 1, len_q, len_kv])),
            AS_DRAWN,
        ),
        ("bias-minus-infinity", biased.clone(), |_, host| every_third(host, f32::NEG_INFINITY)),
        ("bias-all-minus-infinity", biased.clone(), |_, host| bias(host).fill(f32::NEG_INFINITY)),
        ("nan-behind-the-bias", plain.bias(Dtype::F32, ScoreLayout::broadcast([batch, 1, 1, len_kv])), poison_biased),
        ("bias-lowest-finite", biased.clone(), |_, host| every_third(host, -3.4e38)),
        ("bias-minus-100000-everywhere", biased, |_, host| bias(host).iter_mut().for_each(|bias| *bias -= 1e5)),
    ]
}

/// Programs in the score, ALiBi, sinks and block masks.
fn programs() -> Vec<Row> {
    let shape = Shape::new(2, 4, 37, 16).kv_heads(2).kv_len(53);
    let of = || Problem::builder(shape).causal(Diagonal::BottomRight);
    let every = ScoreLayout::broadcast([2, 1, 37, 53]);
    let tanh = "fn score_mod(score: f32, at: At) -> f32 { return 4.0 * tanh(score / 4.0) + f32(at.head) / 8.0; }";
    let documents = "fn mask_mod(at: At) -> bool { return at.query / 16u == at.key / 16u || at.key < 3u; }";
    vec![
        ("alibi", of().alibi(Slopes::PerHead), AS_DRAWN),
        ("alibi-of-each-batch", of().alibi(Slopes::PerBatchAndHead), AS_DRAWN),
        ("sinks", of().sinks(), AS_DRAWN),
        ("sinks-of-rows-without-keys", of().sinks().causal(Diagonal::Offset(-5)), AS_DRAWN),
        ("sinks-and-weights", of().sinks().weights(), AS_DRAWN),
        ("score-mod", of().score_mod(tanh), |_, host| {
            host.programs.score_mod =
                Some(Arc::new(|score, at, _| 4.0 * (score / 4.0).tanh() + f64::from(at.head) / 8.0));
        }),
        ("mask-mod", Problem::builder(shape).mask_mod(documents), |_, host| {
            host.programs.mask_mod = Some(Arc::new(|at, _| at.query / 16 == at.key / 16 || at.key < 3));
        }),
        ("block-mask", of().mask(every).block_mask(BlockMask::new(16, 32).per_batch()), AS_DRAWN),
        ("block-mask-of-a-mask-mod", of().mask_mod(documents).block_mask(BlockMask::new(16, 32)), |_, host| {
            host.programs.mask_mod = Some(Arc::new(|at, _| at.query / 16 == at.key / 16 || at.key < 3));
        }),
    ]
}

fn storage() -> Vec<Row> {
    let shape = Shape::new(2, 4, 45, 64).kv_heads(2).kv_len(70);
    let of = |dtype| Problem::builder(shape).dtype(dtype);
    let layout = ScoreLayout::broadcast([2, 1, 45, 70]);
    vec![
        ("f16", of(Dtype::F16), AS_DRAWN),
        ("bf16", of(Dtype::Bf16), AS_DRAWN),
        ("f16-causal-bias-f16", of(Dtype::F16).causal(Diagonal::BottomRight).bias(Dtype::F16, layout), AS_DRAWN),
        ("bf16-bias-f32", of(Dtype::Bf16).bias(Dtype::F32, layout), AS_DRAWN),
        ("bf16-mask-window", of(Dtype::Bf16).mask(layout).window(Window { left: Some(9), right: Some(9) }), AS_DRAWN),
        ("f16-odd-sizes", Problem::builder(Shape::new(1, 3, 23, 21).value_dim(13)).dtype(Dtype::F16), AS_DRAWN),
        ("bf16-odd-sizes", Problem::builder(Shape::new(1, 3, 23, 21).value_dim(13)).dtype(Dtype::Bf16), AS_DRAWN),
    ]
}

fn outputs() -> Vec<Row> {
    let shape = Shape::new(2, 4, 37, 32).kv_heads(2).kv_len(53).value_dim(24);
    let both = Problem::builder(shape).lse().weights();
    let everything = both
        .clone()
        .causal(Diagonal::BottomRight)
        .window(Window { left: Some(20), right: Some(3) })
        .softcap(8.0)
        .scale(0.5)
        .mask(ScoreLayout::broadcast([2, 1, 1, 53]))
        .bias(Dtype::F32, ScoreLayout::broadcast([1, 4, 37, 53]))
        .kv_lengths();
    vec![
        ("lse", Problem::builder(shape).lse(), AS_DRAWN),
        ("dropout", both.clone().causal(Diagonal::BottomRight).dropout(0.3, RngState::Buffer), AS_DRAWN),
        ("weights", Problem::builder(shape).weights(), AS_DRAWN),
        ("weights-of-heads", Problem::builder(shape).weights_of([3, 0, 1], 10..30), AS_DRAWN),
        ("lse-weights-causal", both.clone().causal(Diagonal::TopLeft), AS_DRAWN),
        ("lse-weights-no-key", both.clone().kv_lengths(), |_, host| host.kv_lengths = Some(vec![0, 53])),
        ("weights-f16", both.dtype(Dtype::F16), AS_DRAWN),
        ("weights-bf16-odd", Problem::builder(Shape::new(1, 2, 11, 7)).weights().dtype(Dtype::Bf16), AS_DRAWN),
        ("everything", everything.clone(), AS_DRAWN),
        ("everything-bf16", everything.dtype(Dtype::Bf16), AS_DRAWN),
    ]
}

/// Draws the inputs, the same in every run: normal values, masks that hide a third of the keys, and a different length for
/// each batch.
fn question(problem: &ProblemBuilder, spoil: Spoil) -> anyhow::Result<Question> {
    let shape = problem.build()?.shape();
    let mut case = Case::filled(&problem.build()?, Fill::Normal, 1);
    // The device computes the block mask.
    case.host.block_mask = None;
    let length = |batch: u32| shape.len_kv.saturating_sub(1 + 13 * batch);
    case.host.kv_lengths = case.host.kv_lengths.map(|_| (0..shape.batch).map(length).collect());
    spoil(&shape, &mut case.host);
    let case = Case::new(case.problem, case.host);
    let expected = Expectation::Definition(Box::new(Expected::new(&*case.with_block_mask()?)?));
    Ok(Question::Attention(Box::new(Attention { case, cache: None, expected })))
}

fn bias(host: &mut Host) -> &mut [f32] {
    host.bias.as_deref_mut().unwrap_or_default()
}

fn every_third(host: &mut Host, value: f32) {
    bias(host).iter_mut().step_by(3).for_each(|bias| *bias = value);
}

/// Makes the keys grow, so that the largest score so far keeps rising.
fn staircase(keys: &mut [f32]) {
    let count = keys.len();
    for (index, key) in keys.iter_mut().enumerate() {
        *key *= 1.0 + 4.0 * index as f32 / count as f32;
    }
}

/// Puts NaN and ∞ into every key and value that the padding mask hides.
fn poison_masked(shape: &Shape, host: &mut Host) {
    let mask = host.mask.clone().unwrap_or_default();
    poison(shape, host, |batch, key| !mask[(batch * shape.len_kv + key) as usize]);
}

/// Puts NaN and ∞ into every key and value that a bias of −∞ hides.
fn poison_biased(shape: &Shape, host: &mut Host) {
    every_third(host, f32::NEG_INFINITY);
    let bias = host.bias.clone().unwrap_or_default();
    poison(shape, host, |batch, key| bias[(batch * shape.len_kv + key) as usize] == f32::NEG_INFINITY);
}

fn poison_past_lengths(shape: &Shape, host: &mut Host) {
    let lengths = host.kv_lengths.clone().unwrap_or_default();
    poison(shape, host, |batch, key| key >= lengths[batch as usize]);
}

fn poison(shape: &Shape, host: &mut Host, hidden: impl Fn(u32, u32) -> bool) {
    for batch in 0..shape.batch {
        for head in 0..shape.heads_kv {
            for key in (0..shape.len_kv).filter(|&key| hidden(batch, key)) {
                let row = ((batch * shape.heads_kv + head) * shape.len_kv + key) as usize;
                let [of_k, of_v] = [shape.dim_qk, shape.dim_v].map(|dim| row * dim as usize..(row + 1) * dim as usize);
                host.k[of_k].fill(if key % 2 == 0 { f32::NAN } else { f32::INFINITY });
                host.v[of_v].fill(if key % 2 == 0 { f32::INFINITY } else { f32::NAN });
            }
        }
    }
}
