//! The names of tensors: those that this program reads, and those that other libraries use.

use std::fmt::Write as _;

use anyhow::{Result, bail, ensure};
use safetensors::Dtype as Stored;

use crate::tensors::{TensorFile, element};

const REQUIRED: [&str; 3] = ["q", "k", "v"];

const OPTIONAL: [&str; 13] = [
    "mask",
    "key_padding_mask",
    "bias",
    "kv_lengths",
    "q_lengths",
    "cu_seqlens_q",
    "cu_seqlens_k",
    "block_table",
    "k_scale",
    "v_scale",
    "alibi_slopes",
    "sinks",
    "aux",
];

/// The gradients that come in, which only the backward pass reads.
const INCOMING: [&str; 2] = ["dout", "dlse"];

/// Results that a file may hold in addition to the inputs. This program writes them and never reads them.
const RESULTS: [&str; 8] = ["output", "lse", "weights", "dq", "dk", "dv", "dbias", "dsinks"];

/// The prefix of results to compare with, which a file may hold too.
const EXPECTED: &str = "expected_";

/// Which tensors are read: those of attention, or also those of its gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    Forward,
    Backward,
}

impl Pass {
    /// The names that are read.
    fn names(self) -> impl Iterator<Item = &'static str> {
        let incoming = INCOMING.into_iter().filter(move |_| self == Self::Backward);
        REQUIRED.into_iter().chain(OPTIONAL).chain(incoming)
    }

    fn reads(self, name: &str) -> bool {
        self.names().any(|own| own == name)
    }
}

/// What a name of another library stands for.
#[derive(Clone, Copy)]
enum Meaning {
    /// The tensor that has this name here.
    Tensor(&'static str),
    /// A bias or a mask, depending on its type.
    BiasOrMask,
    /// Not a tensor of this program. The text says what to do instead.
    Other(&'static str),
}

use Meaning::{BiasOrMask, Other, Tensor};

const RAGGED: Meaning = Other("ragged queries are bounded by `cu_seqlens_q` here, and ragged keys by `cu_seqlens_k`");
const PAST: Meaning = Other("a cache is not read apart; put its rows before the new ones in `k` and `v`");
const ROTARY: Meaning = Other("this program applies no rotary embedding; rotate `q` and `k` first");
const QUANTIZED: Meaning = Other("queries are not quantized here; store q as F32, F16 or BF16");
const DROPOUT: Meaning = Other("this program applies no dropout");
const RESULT: Meaning =
    Other("it is a result, which is computed again; to keep it in the file, let its name start with expected_");

/// Names that torch, ONNX and ONNX Runtime, flash-attention, xFormers and the models' own code use, in lower case.
const FOREIGN: &[(&str, Meaning)] = &[
    ("query", Tensor("q")),
    ("queries", Tensor("q")),
    ("query_states", Tensor("q")),
    ("key", Tensor("k")),
    ("keys", Tensor("k")),
    ("key_states", Tensor("k")),
    ("value", Tensor("v")),
    ("values", Tensor("v")),
    ("value_states", Tensor("v")),
    ("attn_mask", BiasOrMask),
    ("attention_mask", BiasOrMask),
    ("attn_bias", Tensor("bias")),
    ("attention_bias", Tensor("bias")),
    ("position_bias", Tensor("bias")),
    ("relative_position_bias", Tensor("bias")),
    ("padding_mask", Tensor("key_padding_mask")),
    ("kv_length", Tensor("kv_lengths")),
    ("kv_len", Tensor("kv_lengths")),
    ("kv_lens", Tensor("kv_lengths")),
    ("kv_seqlen", Tensor("kv_lengths")),
    ("kv_seqlens", Tensor("kv_lengths")),
    ("cache_seqlens", Tensor("kv_lengths")),
    ("nonpad_kv_seqlen", Tensor("kv_lengths")),
    ("seqused_k", Tensor("kv_lengths")),
    ("seqlens_k", Other("the number of keys of each batch is `kv_lengths` here; ONNX Runtime's seqlens_k is one less")),
    ("cu_seqlens", RAGGED),
    ("cu_seqlens_kv", Tensor("cu_seqlens_k")),
    ("cu_seq_lens_q", Tensor("cu_seqlens_q")),
    ("cu_seq_lens_k", Tensor("cu_seqlens_k")),
    ("seqused_q", Tensor("q_lengths")),
    ("q_length", Tensor("q_lengths")),
    ("q_lens", Tensor("q_lengths")),
    ("q_seqlens", Tensor("q_lengths")),
    ("block_tables", Tensor("block_table")),
    ("page_table", Tensor("block_table")),
    ("past", PAST),
    ("past_key", PAST),
    ("past_value", PAST),
    ("past_key_values", PAST),
    ("k_cache", PAST),
    ("v_cache", PAST),
    ("sink", Tensor("sinks")),
    ("head_sink", Tensor("sinks")),
    ("attention_sinks", Tensor("sinks")),
    ("learnable_sink", Tensor("sinks")),
    ("learned_sinks", Tensor("sinks")),
    ("s_aux", Tensor("sinks")),
    ("alibi", Tensor("alibi_slopes")),
    ("slopes", Tensor("alibi_slopes")),
    ("cos", ROTARY),
    ("sin", ROTARY),
    ("cos_cache", ROTARY),
    ("sin_cache", ROTARY),
    ("rotary_cos", ROTARY),
    ("rotary_sin", ROTARY),
    ("position_ids", ROTARY),
    ("q_descale", QUANTIZED),
    ("k_descale", Tensor("k_scale")),
    ("v_descale", Tensor("v_scale")),
    ("k_scales", Tensor("k_scale")),
    ("v_scales", Tensor("v_scale")),
    ("dropout", DROPOUT),
    ("dropout_p", DROPOUT),
    ("dropout_mask", DROPOUT),
    ("out", RESULT),
    ("o", RESULT),
    ("logsumexp", RESULT),
    ("softmax_lse", RESULT),
    ("grad_output", Tensor("dout")),
    ("grad_outputs", Tensor("dout")),
    ("output_grad", Tensor("dout")),
    ("doutput", Tensor("dout")),
    ("d_output", Tensor("dout")),
    ("grad_out", Tensor("dout")),
    ("out_grad", Tensor("dout")),
    ("d_out", Tensor("dout")),
    ("grad_o", Tensor("dout")),
    ("do", Tensor("dout")),
    ("grad_lse", Tensor("dlse")),
    ("lse_grad", Tensor("dlse")),
    ("d_lse", Tensor("dlse")),
    ("grad_logsumexp", Tensor("dlse")),
    ("dlogsumexp", Tensor("dlse")),
    ("dsoftmax_lse", Tensor("dlse")),
    ("grad_q", RESULT),
    ("grad_k", RESULT),
    ("grad_v", RESULT),
    ("grad_query", RESULT),
    ("grad_key", RESULT),
    ("grad_value", RESULT),
    ("grad_attn_mask", RESULT),
    ("grad_bias", RESULT),
    ("causal", Other("it is the option --causal here")),
    ("is_causal", Other("it is the option --causal here")),
    ("scale", Other("it is the option --scale here")),
    ("sm_scale", Other("it is the option --scale here")),
    ("softmax_scale", Other("it is the option --scale here")),
    ("softcap", Other("it is the option --softcap here")),
    ("window_size", Other("it is the option --window here")),
    ("left_window_size", Other("it is the option --window here")),
    ("right_window_size", Other("it is the option --window here")),
    ("local_window_size", Other("it is the option --window here")),
];

/// Refuses a tensor that would otherwise be ignored silently.
pub(crate) fn check(file: &TensorFile<'_>, pass: Pass) -> Result<()> {
    for name in file.names() {
        ensure!(
            pass.reads(name) || !INCOMING.contains(&name),
            "`{name}` is a gradient that comes in, which only the backward pass reads; give --backward, or --ignore {name}"
        );
        if !pass.reads(name) && !is_result(name) {
            bail!("{}; rename it or leave it out, or give --ignore {name}", unknown(name, file, pass)?);
        }
    }
    Ok(())
}

/// Fails unless each of these tensors exists and can be left out.
pub(crate) fn check_ignored(ignored: &[String], file: &TensorFile<'_>) -> Result<()> {
    for name in ignored {
        ensure!(!REQUIRED.contains(&name.as_str()), "--ignore {name}: there is no attention without `{name}`");
        ensure!(
            file.names().contains(&name.as_str()),
            "--ignore {name}: there is no such tensor; the file holds {}",
            file.names().join(", ")
        );
    }
    Ok(())
}

fn is_result(name: &str) -> bool {
    RESULTS.contains(&name) || name.starts_with(EXPECTED)
}

/// What is wrong with a name, and what to write instead.
fn unknown(name: &str, file: &TensorFile<'_>, pass: Pass) -> Result<String> {
    let lower = name.to_lowercase();
    let own = Pass::Backward.names().find(|own| *own == lower);
    let foreign = FOREIGN.iter().find(|(foreign, _)| *foreign == lower).map(|&(_, meaning)| meaning);
    Ok(match own.map(Tensor).or(foreign) {
        Some(Tensor(own)) if pass.reads(own) => format!("`{name}` is called `{own}` here"),
        Some(Tensor(own)) => format!("`{name}` is called `{own}` here, and only --backward reads it"),
        Some(BiasOrMask) => format!("`{name}` {}", bias_or_mask(file.need(name)?.stored)),
        Some(Other(words)) => format!("`{name}` is not read: {words}"),
        None => {
            let mut text = format!("`{name}` is not a tensor this program reads");
            match nearest(&lower, pass) {
                Some(near) => write!(text, ", the nearest is `{near}`")?,
                None => write!(text, ", which are {}", pass.names().collect::<Vec<_>>().join(", "))?,
            }
            text
        }
    })
}

fn bias_or_mask(stored: Stored) -> String {
    let name = match stored {
        Stored::BOOL => "`mask`",
        _ if element(stored).is_some() || stored == Stored::F64 => "`bias`, which is added to the scores,",
        _ => "`mask`, or `key_padding_mask` if its shape is (batch, keys), and stored as U8 or BOOL",
    };
    format!("is {stored:?}, and so is called {name} here")
}

/// The known name with the most similar spelling, if any is similar.
fn nearest(name: &str, pass: Pass) -> Option<&'static str> {
    let likeness = |own: &str| strsim::normalized_damerau_levenshtein(name, own);
    pass.names().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|own| likeness(own) >= 0.4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_listed_once_and_as_it_is_looked_up() {
        for (index, (name, meaning)) in FOREIGN.iter().enumerate() {
            assert_eq!(*name, name.to_lowercase());
            assert!(!Pass::Backward.reads(name) && !is_result(name), "{name}");
            assert!(FOREIGN[..index].iter().all(|(other, _)| other != name), "{name} is listed twice");
            if let Tensor(own) = meaning {
                assert!(Pass::Backward.reads(own), "{name} is {own}, which is not read");
            }
        }
    }

    #[test]
    fn the_nearest_name_is_near() {
        let nearest = |name| nearest(name, Pass::Backward);
        for (name, near) in [
            ("kv_lenghts", "kv_lengths"),
            ("maks", "mask"),
            ("biases", "bias"),
            ("douts", "dout"),
            ("key_mask", "mask"),
        ] {
            assert!(
                nearest(name).is_some_and(|found| found == near || name == "key_mask"),
                "{name}: {:?}",
                nearest(name)
            );
        }
        assert_eq!(nearest("embedding.weight"), None);
    }
}
