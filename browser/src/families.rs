//! The kernels beside attention that a browser runs: those of the backward pass, the one that appends to a cache, and the one that
//! merges pairs, also with each of its mistakes.

use truth::appending::New;
use truth::pairs::{MISTAKES, Pairs};
use truth::{Case, Expected, ExpectedGradients, Fill, GradientOutputs, Outputs, indices};
use wgpu::{BufferUsages, Device, Queue};
use wgpu_attention::{
    Append, Attention, Diagonal, Dtype, Operand, Operands, Problem, Quantization, RngState, Rotary, RotaryPairs,
    ScoreLayout, Shape, View, submitting, testing,
};

use crate::judge::{UNWRITTEN, finish};

/// How many runs of these [`judge`](crate::judge::judge) makes.
pub(crate) const COUNT: usize = 2;

pub(crate) async fn gradients(attention: &Attention, queue: &Queue) -> Result<String, String> {
    let problem = Problem::builder(Shape::new(1, 2, 20, 32).kv_heads(1).kv_len(40)).causal(Diagonal::BottomRight);
    let problem = problem.bias(Dtype::F32, ScoreLayout::broadcast([1, 2, 20, 40])).dropout(0.2, RngState::Buffer);
    let mut case = Case::filled(&problem.lse().build().unwrap(), Fill::Normal, 21);
    let gradients = case.problem.gradients().build().unwrap();
    case.draw_incoming(&gradients, 21);
    let got = submitting::gradients(attention, queue, &gradients, &case.inputs()).await;
    let got = got.map_err(|error| error.to_string())?;
    // The forward pass drops the same weights.
    Expected::of(&case).check(&Outputs::of(&case, &got.forward)).map_err(|wrong| wrong.to_string())?;
    let expected = ExpectedGradients::new(&case, &gradients).unwrap();
    let error = expected.check(&GradientOutputs::of(&case, &gradients, &got))?;
    Ok(format!("{error:.2} of the tolerance"))
}

pub(crate) async fn append(attention: &Attention, queue: &Queue) -> Result<String, String> {
    let rotary = Rotary { dims: 32, pairs: RotaryPairs::Halves, positions: 45 };
    let problem = Problem::builder(Shape::new(2, 4, 2, 32).kv_heads(1).kv_len(45)).causal(Diagonal::BottomRight);
    let problem = problem.kv_lengths().kv_quantized(Quantization::Int8);
    let problem = problem.append(Append { rotary: Some(rotary), ..Append::default() }).build().unwrap();
    let lengths = [17, 45];
    let case = Case::filled(&problem, Fill::Normal, 22).lengths(&lengths);
    let new = New::of(&problem);
    let (device, inputs) = (attention.device(), case.inputs());
    let held = inputs.upload(device, &problem).map_err(text)?;
    let appended: Vec<(Operand, wgpu::Buffer)> = [Operand::NewQ, Operand::NewK, Operand::NewV, Operand::RotaryTable]
        .map(|operand| (operand, upload(device, queue, &problem.dtype(operand).unwrap().encode(new.values(operand)))))
        .into();
    let mut operands = held.operands();
    operands.extend(appended.iter().map(|(operand, buffer)| (*operand, buffer.as_entire_buffer_binding())));
    let calls = [
        attention.plan_append(&problem).map_err(text)?.bind(&operands).map_err(text)?,
        attention.plan(&problem).map_err(text)?.bind(&operands).map_err(text)?,
    ];
    let read = [Operand::Q, Operand::K, Operand::V, Operand::Out].map(|operand| held.get(operand).unwrap());
    let got = finish(device, queue, &calls, &read).await.map_err(text)?;
    let before = [inputs.k_words, inputs.v_words]
        .map(|words| words.unwrap().iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>());
    new.check(&case, |batch| lengths[batch as usize], &before, &got.try_into().unwrap())?;
    Ok("as wanted".to_owned())
}

/// An error as a script receives it.
fn text(error: impl ToString) -> String {
    error.to_string()
}

/// Each mistake must be noticed, and the unchanged kernel be right in what notices it.
pub(crate) async fn mistakes(attention: &Attention, queue: &Queue) -> Result<String, String> {
    for (from, to, pairs) in MISTAKES {
        let pairs = pairs();
        let expected = Expected::of(&pairs.as_attention());
        expected.check(&merged(attention, queue, &pairs).await).map_err(|wrong| format!("unchanged, {wrong}"))?;
        let planted = Attention::with_caps(attention.device(), *attention.caps());
        let variant = testing::merge(&pairs.merge, planted.caps()).unwrap();
        let text = variant.wgsl();
        if !text.contains(from) {
            return Err(format!("{from:?} is not in the text"));
        }
        testing::substitute(&planted, &variant, text.replace(from, to));
        if expected.check(&merged(&planted, queue, &pairs).await).is_ok() {
            return Err(format!("{to:?} for {from:?} was not noticed"));
        }
    }
    Ok(format!("all {} are noticed", MISTAKES.len()))
}

async fn merged(attention: &Attention, queue: &Queue, pairs: &Pairs) -> Outputs {
    let device = attention.device();
    let plan = attention.plan_merge(&pairs.merge).unwrap();
    plan.ready().await.unwrap();
    let dtype = |operand| pairs.merge.dtype(operand).unwrap();
    let outs = upload(device, queue, &dtype(Operand::PairOut).encode(&pairs.outs));
    let lses = upload(device, queue, &dtype(Operand::PairLse).encode(&pairs.lses));
    let [out, lse] = [Operand::Out, Operand::Lse].map(|operand| pairs.merge.view(operand).unwrap());
    let results = [out, lse].map(|view| upload(device, queue, &vec![UNWRITTEN; view.size_bytes() as usize]));
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let operands = Operands::of_pairs(whole(&outs), whole(&lses), whole(&results[0]));
    let call = plan.bind(&operands.with(Operand::Lse, whole(&results[1]))).unwrap();
    let bytes = finish(device, queue, &[call], &results.each_ref()).await.unwrap();
    let values = |view: &View, bytes: &[u8]| {
        let values = dtype(view.operand).decode(bytes);
        indices(view.extent).map(|at| values[view.index(at) as usize]).collect()
    };
    Outputs {
        out: values(&out, &bytes[0]),
        lse: Some(values(&lse, &bytes[1])),
        stray: stray(&out, &bytes[0]).or_else(|| stray(&lse, &bytes[1])),
        ..Outputs::default()
    }
}

/// The first byte between the elements of an output that was written, if there is one.
fn stray(view: &View, bytes: &[u8]) -> Option<String> {
    let mut bytes = bytes.to_vec();
    let size = view.element_bytes as usize;
    for at in indices(view.extent) {
        bytes[view.index(at) as usize * size..][..size].fill(UNWRITTEN);
    }
    let touched = bytes.iter().position(|byte| *byte != UNWRITTEN)?;
    Some(format!("{}: byte {touched} lies between rows and was written", view.operand))
}

/// A buffer of whole words.
fn upload(device: &Device, queue: &Queue, contents: &[u8]) -> wgpu::Buffer {
    let mut contents = contents.to_vec();
    contents.resize(contents.len().next_multiple_of(4).max(4), UNWRITTEN);
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
    let (label, size) = (None, contents.len() as u64);
    let buffer = device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation: false });
    queue.write_buffer(&buffer, 0, &contents);
    buffer
}
