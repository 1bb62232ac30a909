//! What the buffers of operands hold before and after a run.

use truth::{Case, indices};
use wgpu_attention::{Dtype, Operand, Problem, View};

/// The bytes of outputs before a run: NaN in every element type.
const UNWRITTEN: u8 = 0xff;
/// The bytes in the gaps between the rows of an output, before and after a run.
pub const SENTINEL: u8 = 0xa5;

/// What an operand's buffer holds before the run.
pub fn contents(case: &Case, operand: Operand) -> Vec<u8> {
    let encode = |values: &[f32]| case.dtype(operand).encode(values);
    let words = |words: &Option<Vec<u32>>| words.as_ref().map(|words| bytemuck::cast_slice(words).to_vec());
    let mut bytes = match operand {
        Operand::Q => encode(&case.host.q),
        Operand::K => words(&case.host.k_words).unwrap_or_else(|| encode(&case.host.k)),
        Operand::V => words(&case.host.v_words).unwrap_or_else(|| encode(&case.host.v)),
        Operand::Mask => mask(case),
        Operand::Bias => encode(case.host.bias.as_ref().unwrap()),
        Operand::KvLengths | Operand::QLengths | Operand::CuSeqlensQ | Operand::CuSeqlensK | Operand::BlockTable => {
            bytemuck::cast_slice(numbers(case, operand).unwrap()).to_vec()
        }
        Operand::AlibiSlopes => encode(case.host.alibi_slopes.as_ref().unwrap()),
        Operand::Sinks => encode(case.host.sinks.as_ref().unwrap()),
        Operand::Aux => encode(case.host.aux.as_ref().unwrap()),
        Operand::RngState => bytemuck::bytes_of(&case.host.rng_state.unwrap()).to_vec(),
        Operand::BlockMask => bytemuck::cast_slice(case.host.block_mask.as_ref().unwrap()).to_vec(),
        Operand::Out | Operand::Lse | Operand::Weights => unwritten_rows(case, operand),
        other => unreachable!("attention does not use {other}"),
    };
    bytes.resize(bytes.len().next_multiple_of(4), SENTINEL);
    bytes
}

/// A mask in which every non-zero element is another one.
fn mask(case: &Case) -> Vec<u8> {
    let format = case.problem.mask_format().unwrap();
    let set = |(&attend, some): (&bool, u8)| if attend == format.hides() { 0 } else { some };
    let bytes = case.host.mask.as_ref().unwrap().iter().zip((1..=255).cycle()).map(set);
    // The upper byte of a word, so that all of it must be read.
    bytes.flat_map(|byte| vec![0; format.size_bytes() as usize - 1].into_iter().chain([byte])).collect()
}

/// The lengths and places of sequences.
pub fn numbers(case: &Case, operand: Operand) -> Option<&[u32]> {
    let numbers = match operand {
        Operand::KvLengths => &case.host.kv_lengths,
        Operand::QLengths => &case.host.q_lengths,
        Operand::CuSeqlensQ => &case.host.cu_seqlens_q,
        Operand::CuSeqlensK => &case.host.cu_seqlens_k,
        Operand::BlockTable => &case.host.block_table,
        _ => return None,
    };
    numbers.as_deref()
}

/// What the buffer of an output of a case holds before a run. Rows of no sequence are like what lies between rows.
pub fn unwritten_rows(case: &Case, operand: Operand) -> Vec<u8> {
    let view = case.view(operand);
    let [_, heads, rows, _] = view.extent;
    if operand == Operand::Weights {
        return unwritten(&view);
    }
    let owners = case.stored_rows();
    marked(&view, |[b, h, row, _]| owners[((b * heads + h) * rows + row) as usize].is_some())
}

/// What the buffer of an output holds before a run.
pub fn unwritten(view: &View) -> Vec<u8> {
    marked(view, |_| true)
}

fn marked(view: &View, is_written: impl Fn([u32; 4]) -> bool) -> Vec<u8> {
    let size = view.element_bytes as usize;
    let mut bytes = vec![SENTINEL; view.size_bytes() as usize];
    for at in indices(view.extent).filter(|at| is_written(*at)) {
        let start = view.index(at) as usize * size;
        bytes[start..start + size].fill(UNWRITTEN);
    }
    bytes
}

/// The elements of an output in order.
pub fn elements(problem: &Problem, operand: Operand, bytes: &[u8]) -> Vec<f32> {
    elements_of(&problem.view(operand).unwrap(), problem.dtype(operand).unwrap(), bytes)
}

/// The elements of a view in order.
pub fn elements_of(view: &View, dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    let values = dtype.decode(bytes);
    indices(view.extent).map(|at| values[view.index(at) as usize]).collect()
}

/// Reports the first byte between the elements of an output that has changed, if there is one.
pub fn strays(view: &View, before: &[u8], bytes: &[u8]) -> Option<String> {
    let gaps = before.iter().zip(bytes).enumerate().filter(|(_, (before, _))| **before == SENTINEL);
    let touched = gaps.into_iter().find(|(_, (_, after))| **after != SENTINEL)?;
    Some(format!("{}: byte {} lies between rows and was written", view.operand, touched.0))
}
