//! The built-in cases of gradients. They are small, because the gradients that they are checked against are computed in f64
//! and several times in f32.

use anyhow::Result;
use truth::{Case, ExpectedGradients, Fill};
use wgpu_attention::{Diagonal, Dtype, Problem, ProblemBuilder, RngState, ScoreLayout, Shape, Slopes, Window};

use super::{Backward, Entry, Question};

type Row = (&'static str, ProblemBuilder, Incoming);

/// Which gradients come in.
#[derive(Clone, Copy)]
enum Incoming {
    Output,
    OutputAndLse,
}

use Incoming::{Output, OutputAndLse};

pub(super) fn entries() -> Vec<Entry> {
    let entry =
        |(name, problem, incoming): Row| -> Entry { (name.into(), Box::new(move || question(problem, incoming))) };
    rows().into_iter().map(entry).collect()
}

fn rows() -> Vec<Row> {
    let shape = Shape::new(2, 4, 35, 24).kv_heads(2).kv_len(50);
    let Shape { batch, heads_q, len_q, len_kv, .. } = shape;
    let of = || Problem::builder(shape);
    let bottom = Diagonal::BottomRight;
    let window = Window { left: Some(20), right: Some(3) };
    let mask = ScoreLayout::broadcast([batch, 1, len_q, len_kv]);
    let odd = Shape::new(2, 2, 21, 7).kv_heads(1).kv_len(33).value_dim(9);
    vec![
        ("backward", Problem::builder(Shape::new(2, 2, 35, 32)), Output),
        ("backward-grouped-causal", of().causal(bottom), Output),
        ("backward-window-softcap", of().window(window).diagonal(bottom).softcap(3.0), Output),
        ("backward-lse", of().scale(-0.3), OutputAndLse),
        (
            "backward-bias-mask",
            of().mask(mask).bias(Dtype::F32, ScoreLayout::broadcast([1, heads_q, len_q, len_kv])),
            OutputAndLse,
        ),
        ("backward-bias-of-keys", of().bias(Dtype::F32, ScoreLayout::broadcast([batch, 1, 1, len_kv])), Output),
        ("backward-alibi-sinks-lengths", of().causal(bottom).alibi(Slopes::PerHead).sinks().kv_lengths(), OutputAndLse),
        ("backward-ragged", of().causal(bottom).ragged_q(64).ragged_kv(90), Output),
        ("backward-dropout", of().causal(bottom).dropout(0.3, RngState::Buffer), Output),
        ("backward-f16", of().dtype(Dtype::F16).causal(bottom), Output),
        ("backward-bf16", of().dtype(Dtype::Bf16), Output),
        ("backward-f16-odd-sizes", Problem::builder(odd).dtype(Dtype::F16), Output),
        ("backward-head-size-272", Problem::builder(Shape::new(1, 1, 19, 272).kv_len(23)), Output),
    ]
}

/// Draws the inputs and the gradients that come in, the same in every run.
fn question(problem: ProblemBuilder, incoming: Incoming) -> Result<Question> {
    let problem = problem.lse().build()?;
    let gradients = match incoming {
        Output => problem.gradients(),
        OutputAndLse => problem.gradients().dlse(),
    };
    let gradients = gradients.build()?;
    let mut case = Case::filled(&problem, Fill::Normal, 1);
    case.draw_incoming(&gradients, 1);
    let expected = ExpectedGradients::new(&case, &gradients)?;
    Ok(Question::Backward(Box::new(Backward { case, gradients, expected })))
}
