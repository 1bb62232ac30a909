//! Mistakes planted in the kernels of gradients, each of which a case must notice.

use std::collections::BTreeSet;

use truth::{ExpectedGradients, Fill};
use wgpu_attention::{
    Attention, Caps, Dtype, MaskFormat, Operand, Problem, RngState, ScoreLayout, Shape, Window, testing,
};

use crate::backward::{Backward, as_gpu, devices, everything, poisoned, shape, with_programs};
use crate::case::full;
use crate::choice::plants;
use crate::coverage;
use crate::device::Device;

/// A case, and the gradients that are right for it.
type Exposing = (Backward, ExpectedGradients);

fn exposing(backward: Backward) -> Exposing {
    let expected = ExpectedGradients::new(&backward.case, &backward.gradients).unwrap();
    (backward, expected)
}

fn with_mask_and_bias() -> Exposing {
    exposing(Backward::with(everything(shape())[0].clone(), Fill::Normal, 1, |gradients| gradients.dlse()))
}

fn with_sinks() -> Exposing {
    let mut backward = Backward::with(everything(shape())[1].clone(), Fill::Normal, 1, |gradients| gradients.dlse());
    backward.case.host.sinks = Some(vec![2.0, f32::NEG_INFINITY, -3.0, 0.0]);
    backward.case.host.kv_lengths = Some(vec![0, 65]);
    exposing(backward)
}

fn dropped() -> Exposing {
    exposing(Backward::new(Problem::builder(shape()).dropout(0.4, RngState::Buffer), Fill::Normal, 1))
}

fn ragged() -> Exposing {
    let window = Window { left: Some(20), right: Some(0) };
    let problem = Problem::builder(Shape::new(4, 4, 45, 24).kv_heads(2).kv_len(70)).ragged_q(130).ragged_kv(200);
    let mut backward = Backward::new(problem.window(window), Fill::Normal, 5);
    backward.case.host.cu_seqlens_q = Some(vec![1, 41, 41, 80, 125]);
    backward.case.host.cu_seqlens_k = Some(vec![0, 70, 75, 118, 180]);
    exposing(backward)
}

fn ragged_queries() -> Exposing {
    let problem = Problem::builder(Shape::new(3, 2, 45, 8).kv_len(70)).ragged_q(130).kv_lengths();
    let mut backward = Backward::new(problem, Fill::Normal, 5);
    backward.case.host.cu_seqlens_q = Some(vec![0, 41, 80, 125]);
    backward.case.host.kv_lengths = Some(vec![70, 20, 45]);
    exposing(backward)
}

fn padded_with_sinks() -> Exposing {
    let shape = Shape::new(2, 2, 150, 8).kv_len(20);
    let mut backward = Backward::new(Problem::builder(shape).q_lengths().sinks(), Fill::Normal, 5);
    backward.case.host.q_lengths = Some(vec![20, 150]);
    exposing(backward)
}

fn wide() -> Exposing {
    let shape = Shape::new(1, 2, 35, 300).kv_heads(1).value_dim(270).kv_len(40);
    exposing(Backward::new(Problem::builder(shape), Fill::Normal, 1))
}

fn hidden() -> Exposing {
    let problem = Problem::builder(shape()).mask_as(MaskFormat::WordsHide, full(shape())).kv_lengths();
    poisoned(problem.sinks(), [45, 45], f32::NAN)
}

fn programs() -> Exposing {
    exposing(with_programs())
}

fn of_bias(dims: [u32; 4]) -> Exposing {
    let problem = Problem::builder(shape()).bias(Dtype::F32, ScoreLayout::broadcast(dims)).sinks();
    exposing(Backward::with(problem, Fill::Normal, 3, |gradients| gradients.of([Operand::Dbias]).dlse()))
}

fn bias_of_batches_and_heads() -> Exposing {
    of_bias([1, 1, 45, 70])
}

fn bias_of_rows() -> Exposing {
    of_bias([2, 4, 1, 70])
}

fn bias_of_keys() -> Exposing {
    of_bias([2, 4, 45, 1])
}

/// What is replaced, by what, in the kernels of which schedule, and the case that exposes it.
type Mistake = (&'static str, &'static str, &'static str, fn() -> Exposing);

const MISTAKES: &[Mistake] = &[
    ("row_sums", "sum - lse_gradient(", "sum + lse_gradient(", with_mask_and_bias),
    ("row_sums", "x != vec4(0.0))", "vec4(true))", hidden),
    ("row_sums", "address(params.dout, row.batch, row.head, row.at)", "address(params.dout, 0u, 0u, row.at)", wide),
    (
        "row_sums",
        "address(params.alibi, row.batch, row.head, 0u)",
        "address(params.alibi, row.batch, 0u, 0u)",
        with_sinks,
    ),
    ("gradient_queries", "vec4(row_sums.x)", "vec4(0.0)", wide),
    ("gradient_queries", "p * (dp - mean)", "p * (dp + mean)", wide),
    ("gradient_queries", "vec4(params.natural_scale)", "vec4(1.0)", wide),
    ("gradient_queries", "select(vec4(0.0), x, is_seen)", "x", hidden),
    ("gradient_queries", "x * params.gradient_scale", "x", wide),
    ("gradient_queries", "within_row(params.first_column + ", "within_row(0u + ", wide),
    ("gradient_queries", "at + params.first_column + dim", "at + dim", wide),
    ("gradient_queries", "dim < params.columns", "dim < 1000u", wide),
    ("gradient_queries", "select(vec4(0.0), x, ", "select(x, x, ", hidden),
    ("gradient_queries", "softcap_slopes(products) * ", "", with_mask_and_bias),
    ("gradient_queries", "4.0 * e / ((1.0 + e)", "4.0 * e / ((1.0 - e)", with_sinks),
    ("gradient_queries", "row.head, row.at)].z", "row.head, row.at)].w", with_sinks),
    ("gradient_queries", "sequence(batch, 0u).at", "0u * batch", ragged_queries),
    ("gradient_queries", "gradient.x)", "1.0)", programs),
    ("gradient_queries", "score_mod_grad(s.y,", "score_mod_grad(1.0,", programs),
    ("gradient_keys", "scores.seen & vec4(is_real)", "scores.seen", wide),
    ("gradient_keys", "select(vec4(0.0), x, ", "select(x, x, ", hidden),
    ("gradient_keys", "n < params.group", "n < 1u", wide),
    ("gradient_keys", "workgroup.y * params.group + n", "workgroup.y + n", with_mask_and_bias),
    ("gradient_keys", "key < keys.rows", "true", ragged),
    ("gradient_keys", "first_that_sees(i32(key))", "32 + first_that_sees(i32(key))", ragged),
    ("gradient_keys", "u32(highest) + 1u", "u32(highest) / 2u", ragged),
    ("gradient_keys", "cu_seqlens_k[sequence] / BLOCK_KV + sequence", "cu_seqlens_k[sequence] / BLOCK_KV", ragged),
    ("gradient_keys", "all_keys(first));", "params.len_kv);", ragged),
    ("gradient_values", "scores.seen & vec4(is_real)", "scores.seen", wide),
    ("gradient_values", "select(vec4(0.0), x, is_seen)", "x", hidden),
    ("gradient_values", "at + params.first_column + dim", "at + dim", wide),
    ("gradient_bias", "params.shared_by.x", "1u", bias_of_batches_and_heads),
    ("gradient_bias", "params.shared_by.y", "1u", bias_of_batches_and_heads),
    ("gradient_bias", "params.shared_by.z", "1u", bias_of_rows),
    ("gradient_bias", "params.shared_by.w", "1u", bias_of_keys),
    ("gradient_bias", "if (!has_rows) { sum_rows(thread); }", "", bias_of_rows),
    ("gradient_bias", "if (!has_keys) { sum_keys(thread); }", "", bias_of_keys),
    ("gradient_bias", "scores.seen & vec4(is_real)", "scores.seen", bias_of_rows),
    ("gradient_bias", "first_key + j * BLOCK_KV", "first_key", bias_of_keys),
    ("gradient_queries", "compensated(kept(row, keys, dp", "compensated(kept(row, 0u * keys, dp", dropped),
    ("gradient_queries", "x * params.kept_scale", "x", dropped),
    ("gradient_keys", "compensated(kept(row, keys, dp", "compensated(kept(row, 0u * keys, dp", dropped),
    ("gradient_values", "compensated(kept(row, keys, x))", "x", dropped),
    ("gradient_sinks", "share -= ", "share += ", with_sinks),
    ("gradient_sinks", "sink == params.negative_infinity", "false", with_sinks),
    ("gradient_sinks", "min(sequence.queries, sequence.rows)", "sequence.rows", padded_with_sinks),
    ("gradient_sinks", "i += THREADS", "i += 2u * THREADS", padded_with_sinks),
];

/// The same for the kernels of software GPUs.
const MISTAKES_OF_LANES: &[Mistake] = &[
    ("stage_rows", "(params.sums, batch, head, n)].xy", "(params.sums, batch, head, n)].xx", with_sinks),
    ("stage_rows", "if (!is_finite) {", "if (false) {", hidden),
    ("stage_keys", "if (!is_finite) {", "if (false) {", hidden),
    ("gradient_lanes_queries", "select(vec4(0.0), w, is_seen)", "w", with_mask_and_bias),
    ("gradient_lanes_queries", "p * (dp - mean)", "p * dp", with_sinks),
    ("gradient_lanes_queries", "compensated(dp), is_kept)", "dp, is_kept)", dropped),
    ("gradient_lanes_queries", "select(vec4(0.0), compensated(dp), is_kept)", "dp", dropped),
    ("gradient_lanes_keys_values", "const IN_FOURS = false;", "const IN_FOURS = true;", dropped),
    ("gradient_lanes_keys_values", "is_seen & is_kept", "is_seen", dropped),
    ("gradient_lanes_queries", "* params.gradient_scale", "", ragged),
    ("gradient_lanes_queries", "-lse) * LOG2_E", "-lse)", ragged),
    ("gradient_lanes_queries", "% STREAM;", "* 0u;", ragged),
    ("gradient_lanes_keys_values", "u < rows.y)", "u < 1000u)", ragged),
    ("gradient_lanes_keys_values", "head < first_head + params.group", "head < first_head + 1u", ragged),
    ("gradient_lanes_keys_values", "(key < block.rows)", "(key < 1000u)", ragged),
    ("gradient_lanes_keys_values", "% OWN * LANES + lane", "% OWN + lane", ragged),
    ("gradient_lanes_keys_values", "vec4(note.z)", "vec4(0.0)", with_sinks),
    ("gradient_lanes_keys_values", "compensated(p), is_seen & is_kept)", "p, is_kept)", with_mask_and_bias),
    ("gradient_lanes_keys_values", "x * params.gradient_scale", "x", ragged),
    ("stage_rows", "(workgroup.x + 1u) * PAIRS", "(workgroup.x + 1u) * THREADS", ragged),
    ("stage_keys", "(workgroup.x + 1u) * PAIRS", "(workgroup.x + 1u) * THREADS", with_mask_and_bias),
];

/// The same for the larger blocks of GPUs with many registers.
const MISTAKES_OF_BLOCKS: &[Mistake] = &[
    ("gradient_keys", "thread / SUM_ACROSS * OUTER_COUNT", "thread / ACROSS * OUTER_COUNT", with_mask_and_bias),
    ("gradient_values", "key % OUTER_COUNT / 4u", "0u", with_sinks),
    ("gradient_queries", "weight != 0.0", "true", hidden),
    ("gradient_queries", "* OUTER_VECTORS + vector]", "* OUTER_VECTORS]", wide),
    ("gradient_keys", "i / X_GROUP * SUM_ACROSS", "i / X_GROUP * ACROSS", ragged),
    ("gradient_values", "c * SUM_ACROSS + thread", "c * ACROSS + thread", wide),
    ("gradient_keys", "inner / W_GROUP * SUM_DOWN", "inner / W_GROUP * DOWN", with_sinks),
    ("gradient_keys", "* SUM_DOWN + thread", "* DOWN + thread", with_sinks),
    ("gradient_values", "key / OUTER_COUNT", "key / 4u", with_mask_and_bias),
];

fn is_right(device: &Device, planted: &Attention, (backward, expected): &Exposing) -> Result<(), String> {
    expected.check(&backward.run_by(device, planted)?).map(|_| ())
}

/// Plants mistakes on a device with these capabilities. Its pipelines are its own, so that no other test runs them.
fn notices(device: &Device, caps: Caps, mistakes: &[Mistake]) {
    let planted = Attention::with_caps(device.attention.device(), caps);
    let mut survivors = Vec::new();
    let mut cases: Vec<(fn() -> Exposing, Exposing)> = Vec::new();
    let mut asked = BTreeSet::new();
    for (n, &(schedule, from, to, make)) in mistakes.iter().enumerate() {
        let at = cases.iter().position(|(other, _)| std::ptr::fn_addr_eq(*other, make)).unwrap_or_else(|| {
            cases.push((make, make()));
            cases.len() - 1
        });
        let (backward, _) = &cases[at].1;
        let mistake = format!("{schedule}: {to:?} for {from:?}");
        let variants = testing::gradients(&backward.gradients, planted.caps()).unwrap();
        let variant = variants.iter().find(|variant| testing::schedule(variant) == schedule);
        let variant = variant.unwrap_or_else(|| panic!("{schedule} is not among {variants:?}"));
        let text = variant.wgsl();
        assert!(text.contains(from), "{schedule}: {from:?} is in no text");
        if !plants(n) {
            coverage::left_to_full(&mistake);
            continue;
        }
        asked.insert(at);
        testing::substitute(&planted, variant, text.replace(from, to));
        if is_right(device, &planted, &cases[at].1).is_ok() {
            survivors.push(mistake.clone());
        }
        testing::substitute(&planted, variant, text);
        coverage::planted(&mistake);
    }
    assert!(survivors.is_empty(), "not noticed:\n{}", survivors.join("\n"));
    for at in asked {
        is_right(device, &planted, &cases[at].1).unwrap_or_else(|wrong| panic!("unchanged: {wrong}"));
    }
}

/// On the first adapter, since the text is the same on all.
#[test]
fn every_mistake_in_a_gradient_is_noticed() {
    let device = devices().next().unwrap();
    let mut caps = *device.attention.caps();
    caps.subgroup_size = None;
    notices(device, caps, MISTAKES);
}

#[test]
fn every_mistake_in_a_gradient_for_software_is_noticed() {
    let with_lanes = devices().find(|device| device.attention.caps().subgroup_size == Some(8));
    if let Some(device) = with_lanes.filter(|device| device.attention.caps().is_software) {
        notices(device, *device.attention.caps(), MISTAKES_OF_LANES);
    }
}

#[test]
fn every_mistake_in_a_gradient_for_many_registers_is_noticed() {
    let device = devices().next().unwrap();
    notices(device, *as_gpu(device, 255, 32 << 10).caps(), MISTAKES_OF_BLOCKS);
}
