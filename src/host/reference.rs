//! The definition: attention in f64, as the formula says, one row at a time. It uses no tiling and no online softmax,
//! and shares nothing with the kernels. It is slow by design; check your integration against it.

use crate::host::inputs::Inputs;
use crate::host::reference_places::{
    diagonal_offset, key_place, key_vector, oldest_key, place, queries, query_place, valid_keys, vector,
};
use crate::problem::Problem;
use crate::problem::block_mask::BlockMask;
use crate::problem::dropout::RngState;
use crate::problem::function::Function;
use crate::problem::layout::View;
use crate::problem::merge::Merge;
use crate::problem::operand::Operand;
use crate::problem::positions::Diagonal;
use crate::record::error::BindError;

/// The results of one query row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The output, `dim_v` long; zeros where the row sees no key.
    pub out: Vec<f64>,
    /// Log-sum-exp of the visible scores, and of the sink if there is one; −∞ if there are neither.
    pub lse: f64,
    /// The attention weights, `len_kv` long; zero where a key is hidden.
    pub weights: Vec<f64>,
}

/// The results of all rows, contiguous in (batch, head, row) order whatever the problem's output layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// The output (B, Hq, Lq, Dv).
    pub out: Vec<f64>,
    /// Log-sum-exp (B, Hq, Lq).
    pub lse: Vec<f64>,
    /// The attention weights (B, Hq, Lq, Lk), whether or not the problem requests them. If it requests those of
    /// [chosen heads and rows](crate::ProblemBuilder::weights_of), only these: (B, heads, rows, Lk).
    pub weights: Vec<f64>,
}

/// The position of a score, as programs receive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The batch.
    pub batch: u32,
    /// The query head.
    pub head: u32,
    /// The KV head that the query head reads.
    pub kv_head: u32,
    /// The query row.
    pub query: u32,
    /// The key.
    pub key: u32,
    /// The key that the query stands at.
    pub diagonal: i32,
}

/// The programs of a problem as Rust functions, which compute in f64 what the WGSL computes.
#[derive(Clone, Copy, Default)]
pub struct Programs<'a> {
    /// The `score_mod`: the new score.
    pub score_mod: Option<&'a (dyn Fn(f64, At) -> f64 + Sync)>,
    /// The `mask_mod`: whether the query sees the key.
    pub mask_mod: Option<&'a (dyn Fn(At) -> bool + Sync)>,
    /// The `score_mod_grad`: the gradient of the score, from the score, its position and the gradient of the new score.
    pub score_mod_grad: Option<&'a (dyn Fn(f64, At, f64) -> f64 + Sync)>,
}

impl std::fmt::Debug for Programs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { score_mod, mask_mod, score_mod_grad } = self;
        let [score_mod, mask_mod] = [score_mod.is_some(), mask_mod.is_some()];
        write!(
            f,
            "Programs {{ score_mod: {score_mod}, mask_mod: {mask_mod}, score_mod_grad: {} }}",
            score_mod_grad.is_some()
        )
    }
}

impl Programs<'_> {
    /// Checks that these are the programs that the problem has.
    pub(super) fn check(&self, problem: &Problem) -> Result<(), BindError> {
        let wanted = problem.programs();
        for (function, wanted, given) in [
            (Function::ScoreMod, wanted.score_mod.is_some(), self.score_mod.is_some()),
            (Function::MaskMod, wanted.mask_mod.is_some(), self.mask_mod.is_some()),
            (Function::ScoreModGrad, wanted.score_mod_grad.is_some(), self.score_mod_grad.is_some()),
        ] {
            match (wanted, given) {
                (true, false) => return Err(BindError::MissingProgram { function }),
                (false, true) => return Err(BindError::UnusedProgram { function }),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Computes every row of a problem without programs. Memory grows with Lq·Lk, for the weights.
///
/// # Errors
/// [`BindError`] if the inputs do not fit the problem.
pub fn attention(problem: &Problem, inputs: &Inputs<'_>) -> Result<Reference, BindError> {
    attention_with(problem, inputs, &Programs::default())
}

/// Computes every row of a problem that has programs in its score. Memory grows with Lq·Lk, for the weights.
///
/// # Errors
/// As for [`attention`].
pub fn attention_with(problem: &Problem, inputs: &Inputs<'_>, programs: &Programs<'_>) -> Result<Reference, BindError> {
    inputs.check(problem)?;
    programs.check(problem)?;
    let shape = problem.shape();
    let chosen = problem.weight_rows().and_then(|_| problem.view(Operand::Weights));
    let count = chosen.map_or(0, |view| usize::try_from(view.end()).unwrap_or(usize::MAX));
    let mut reference = Reference { out: Vec::new(), lse: Vec::new(), weights: vec![0.0; count] };
    for batch in 0..shape.batch {
        for head in 0..shape.heads_q {
            for i in 0..shape.len_q {
                let row = compute_row(problem, inputs, programs, [batch, head, i]);
                reference.out.extend(row.out);
                reference.lse.push(row.lse);
                if chosen.is_none() {
                    reference.weights.extend(row.weights);
                } else if let Some(start) = problem.weights_at([batch, head, i]).and_then(|at| usize::try_from(at).ok())
                {
                    reference.weights[start..start + row.weights.len()].copy_from_slice(&row.weights);
                }
            }
        }
    }
    Ok(reference)
}

/// Computes the row of one query, `at` being its batch, head and query. It serves to sample problems that are too large
/// to compute whole.
///
/// # Errors
/// [`BindError`] if the inputs do not fit the problem, or there is no such row.
pub fn row(problem: &Problem, inputs: &Inputs<'_>, at: [u32; 3]) -> Result<Row, BindError> {
    row_with(problem, inputs, &Programs::default(), at)
}

/// Computes the row of one query, like [`row`], of a problem that has programs in its score.
///
/// # Errors
/// As for [`row`].
pub fn row_with(
    problem: &Problem,
    inputs: &Inputs<'_>,
    programs: &Programs<'_>,
    at: [u32; 3],
) -> Result<Row, BindError> {
    inputs.check(problem)?;
    programs.check(problem)?;
    let [batches, heads, rows, _] = problem.shape().scores();
    let extent = [batches, heads, rows];
    if at.iter().zip(extent).any(|(&at, extent)| at >= extent) {
        return Err(BindError::NoSuchRow { at, extent });
    }
    Ok(compute_row(problem, inputs, programs, at))
}

/// Computes the [block mask](crate::BlockMask) of a problem from its mask and its `mask_mod`. The result has one number
/// per tile: (B or 1, Hq or 1, rows of tiles, tiles). Of the inputs it reads only the mask, and the lengths if the
/// diagonal depends on them. The result is empty if the problem has no block mask.
///
/// # Errors
/// [`BindError`] if the mask, or those lengths, do not fit the problem.
pub fn block_mask(problem: &Problem, inputs: &Inputs<'_>, programs: &Programs<'_>) -> Result<Vec<u32>, BindError> {
    let (Some(view), Some(tiles)) = (problem.view(Operand::BlockMask), problem.block_mask()) else {
        return Ok(Vec::new());
    };
    let reads = |operand| match operand {
        Operand::Mask => true,
        Operand::KvLengths | Operand::QLengths | Operand::CuSeqlensK => {
            problem.diagonal() == Diagonal::BottomRight && programs.mask_mod.is_some()
        }
        _ => false,
    };
    Inputs { block_mask: None, ..*inputs }.check_for(problem, reads, &[Operand::BlockMask])?;
    if programs.mask_mod.is_none() && problem.programs().mask_mod.is_some() {
        return Err(BindError::MissingProgram { function: Function::MaskMod });
    }
    let shape = problem.shape();
    let mut numbers = vec![0; usize::try_from(view.end()).unwrap_or(usize::MAX)];
    for batch in 0..view.extent[0] {
        for head in 0..view.extent[1] {
            for query in 0..shape.len_q {
                // Only a program reads it.
                let offset = programs.mask_mod.map_or(0, |_| diagonal_offset(problem, inputs, batch));
                let diagonal = i64::from(query) + offset;
                for key in 0..shape.len_kv {
                    let at = At { batch, head, kv_head: shape.kv_head(head), query, key, diagonal: narrow(diagonal) };
                    let seen = unmasked(problem, inputs, programs, at);
                    let tile = place(&view, [batch, head, query / tiles.rows, key / tiles.keys]);
                    numbers[tile] |= if seen { BlockMask::SEEN } else { BlockMask::HIDDEN };
                }
            }
        }
    }
    Ok(numbers)
}

/// The result of a merge, contiguous in (batch, head, row) order whatever the layouts.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// The output (B, Hq, Lq, Dv).
    pub out: Vec<f64>,
    /// Log-sum-exp (B, Hq, Lq).
    pub lse: Vec<f64>,
}

/// Merges pairs of an output and its log-sum-exp, each stack laid out as the merge says.
///
/// # Errors
/// [`BindError::TooShort`] if a slice does not hold all pairs.
pub fn merge(merge: &Merge, pair_out: &[f32], pair_lse: &[f32]) -> Result<Merged, BindError> {
    let stack = |operand, values: &[f32]| {
        let (view, stride) = (merge.view(operand), merge.pair_stride(operand));
        let need = merge.stack(operand).map_or(0, |stack| stack.end().end());
        let got = values.len() as u64;
        let (Some(view), Some(stride)) = (view, stride) else { return Err(BindError::Unused { operand }) };
        if need > got { Err(BindError::TooShort { operand, need, got }) } else { Ok((view, stride)) }
    };
    let (outs, lses) = (stack(Operand::PairOut, pair_out)?, stack(Operand::PairLse, pair_lse)?);
    let get = |(view, stride): (View, u64), values: &[f32], pair: u32, at| {
        let pair = usize::try_from(stride * u64::from(pair)).expect("a slice that was long enough holds it");
        f64::from(values[pair + place(&view, at)])
    };
    let [batches, heads, rows, columns] = outs.0.extent;
    let mut merged = Merged { out: Vec::new(), lse: Vec::new() };
    for batch in 0..batches {
        for head in 0..heads {
            for row in 0..rows {
                let pairs = (0..merge.pairs()).map(|pair| (pair, get(lses, pair_lse, pair, [batch, head, row, 0])));
                // A pair that saw no key says nothing.
                let pairs: Vec<(u32, f64)> = pairs.filter(|&(_, lse)| lse != f64::NEG_INFINITY).collect();
                let largest = pairs.iter().fold(f64::NEG_INFINITY, |most, &(_, lse)| most.max(lse));
                let total: f64 = pairs.iter().map(|&(_, lse)| (lse - largest).exp()).sum();
                merged.lse.push(if pairs.is_empty() { f64::NEG_INFINITY } else { largest + total.ln() });
                for column in 0..columns {
                    let weighted = pairs.iter().map(|&(pair, lse)| {
                        (lse - largest).exp() / total * get(outs, pair_out, pair, [batch, head, row, column])
                    });
                    merged.out.push(weighted.sum::<f64>() + 0.0);
                }
            }
        }
    }
    Ok(merged)
}

/// The score of a key that a row sees.
pub(super) struct Scored {
    pub(super) at: At,
    /// After the scale.
    pub(super) product: f64,
    /// After the softcap, which a `score_mod` receives.
    pub(super) capped: f64,
    pub(super) score: f64,
}

/// A number of a head, such as its sink.
pub(super) fn number(
    problem: &Problem,
    operand: Operand,
    values: Option<&[f32]>,
    [batch, head]: [u32; 2],
) -> Option<f64> {
    let view = problem.view(operand)?;
    Some(f64::from(values?[place(&view, [batch, head, 0, 0])]))
}

/// The sink of a row. Rows past a sequence's queries have none.
pub(super) fn sink(problem: &Problem, inputs: &Inputs<'_>, [batch, head, i]: [u32; 3]) -> Option<f64> {
    let is_query = i < queries(problem, inputs, batch);
    number(problem, Operand::Sinks, inputs.sinks, [batch, head]).filter(|_| is_query)
}

/// The scores of the keys that a row sees.
pub(super) fn scores(
    problem: &Problem,
    inputs: &Inputs<'_>,
    programs: &Programs<'_>,
    [batch, head, i]: [u32; 3],
) -> Vec<Scored> {
    let shape = problem.shape();
    let kv_head = head / (shape.heads_q / shape.heads_kv);
    let [q_batch, q_row] = query_place(problem, inputs, batch, i);
    let q = vector(problem, Operand::Q, inputs.q, [q_batch, head, q_row]);
    let slope = number(problem, Operand::AlibiSlopes, inputs.alibi_slopes, [batch, head]);
    let diagonal = i64::from(i) + diagonal_offset(problem, inputs, batch);

    let mut scores = Vec::new();
    for j in 0..shape.len_kv {
        let at = At { batch, head, kv_head, query: i, key: j, diagonal: narrow(diagonal) };
        if !visible(problem, inputs, [batch, head, i, j]) || !may_meet(problem, inputs, programs, at) {
            continue;
        }
        let [k_batch, k_row] = key_place(problem, inputs, batch, j);
        let k = key_vector(problem, inputs, Operand::K, [k_batch, kv_head, k_row]);
        let product = q.iter().zip(&k).map(|(q, k)| q * k).sum::<f64>() * f64::from(problem.scale());
        let mut score = product;
        if let Some(cap) = problem.softcap().map(f64::from) {
            score = cap * (score / cap).tanh();
        }
        let capped = score;
        if let Some(score_mod) = programs.score_mod {
            score = score_mod(score, at);
            if score == f64::NEG_INFINITY {
                continue;
            }
        }
        if let (Some(view), Some(bias)) = (problem.view(Operand::Bias), inputs.bias) {
            score += f64::from(bias[place(&view, [batch, head, i, j])]);
        }
        if let Some(slope) = slope {
            score -= slope * (f64::from(at.diagonal) - f64::from(j)).abs();
        }
        scores.push(Scored { at, product, capped, score });
    }
    scores
}

/// The weights of a row that sees some key, before dropout, and the log-sum-exp.
pub(super) fn softmax(scores: &[Scored], sink: Option<f64>) -> (Vec<f64>, f64) {
    let all = || scores.iter().map(|scored| scored.score).chain(sink);
    let largest = all().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = all().map(|score| (score - largest).exp()).sum();
    let weights = scores.iter().map(|scored| (scored.score - largest).exp() / total).collect();
    (weights, largest + total.ln())
}

pub(super) fn compute_row(
    problem: &Problem,
    inputs: &Inputs<'_>,
    programs: &Programs<'_>,
    [batch, head, i]: [u32; 3],
) -> Row {
    let shape = problem.shape();
    let sink = sink(problem, inputs, [batch, head, i]);
    let scores = scores(problem, inputs, programs, [batch, head, i]);
    let mut row =
        Row { out: vec![0.0; shape.dim_v as usize], lse: f64::NEG_INFINITY, weights: vec![0.0; shape.len_kv as usize] };
    if scores.is_empty() {
        row.lse = sink.unwrap_or(row.lse);
        return row;
    }
    let (weights, lse) = softmax(&scores, sink);
    row.lse = lse;
    for (Scored { at, .. }, weight) in scores.into_iter().zip(weights) {
        let At { key: j, kv_head, .. } = at;
        let factor = dropout_factor(problem, inputs, at);
        // A weight that is dropped is 0, even in a row that is NaN.
        let weight = if factor == 0.0 { 0.0 } else { weight * factor };
        row.weights[j as usize] = weight;
        let [v_batch, v_row] = key_place(problem, inputs, batch, j);
        let v = key_vector(problem, inputs, Operand::V, [v_batch, kv_head, v_row]);
        for (out, v) in row.out.iter_mut().zip(v) {
            *out += weight * v;
        }
    }
    row
}

/// What dropout multiplies the weight of a pair by.
pub(super) fn dropout_factor(problem: &Problem, inputs: &Inputs<'_>, at: At) -> f64 {
    let Some(dropout) = problem.dropout() else { return 1.0 };
    let state = match dropout.state {
        RngState::Fixed(state) => state,
        // The inputs were checked.
        RngState::Buffer => inputs.rng_state.unwrap_or_default(),
    };
    let is_kept = problem.keeps(state, [at.batch, at.head, at.query, at.key]);
    if is_kept { dropout.kept_scale() } else { 0.0 }
}

fn narrow(diagonal: i64) -> i32 {
    i32::try_from(diagonal).unwrap_or(i32::MAX)
}

/// Whether the mask and the `mask_mod` let a query see a key.
fn unmasked(problem: &Problem, inputs: &Inputs<'_>, programs: &Programs<'_>, at: At) -> bool {
    let by_mask = match (problem.view(Operand::Mask), inputs.mask) {
        (Some(view), Some(mask)) => mask[place(&view, [at.batch, at.head, at.query, at.key])],
        _ => true,
    };
    by_mask && programs.mask_mod.is_none_or(|mask_mod| mask_mod(at))
}

/// Whether the mask, the `mask_mod` and the block mask let a query see a key. An empty tile hides every pair, and a
/// full tile hides none.
fn may_meet(problem: &Problem, inputs: &Inputs<'_>, programs: &Programs<'_>, at: At) -> bool {
    let (Some(view), Some(tiles), Some(numbers)) =
        (problem.view(Operand::BlockMask), problem.block_mask(), inputs.block_mask)
    else {
        return unmasked(problem, inputs, programs, at);
    };
    let number = numbers[place(&view, [at.batch, at.head, at.query / tiles.rows, at.key / tiles.keys])];
    let (seen, hidden) = (number & BlockMask::SEEN != 0, number & BlockMask::HIDDEN != 0);
    seen && (!hidden || unmasked(problem, inputs, programs, at))
}

/// Whether query `i` may see key `j`: both within the sequence's lengths, not overwritten by a newer key, at or before the diagonal if causal, within the window of
/// it, and not hidden by a bias of −∞.
fn visible(problem: &Problem, inputs: &Inputs<'_>, at: [u32; 4]) -> bool {
    let [batch, _, i, j] = at;
    let (diagonal, key) = (i64::from(i) + diagonal_offset(problem, inputs, batch), i64::from(j));
    let window = problem.window();
    let biased_away = match (problem.view(Operand::Bias), inputs.bias) {
        (Some(view), Some(bias)) => bias[place(&view, at)] == f32::NEG_INFINITY,
        _ => false,
    };
    i < queries(problem, inputs, batch)
        && j < valid_keys(problem, inputs, batch)
        && j >= oldest_key(problem, inputs, batch)
        && !biased_away
        && (!problem.is_causal() || key <= diagonal)
        && window.left.is_none_or(|left| key >= diagonal - i64::from(left))
        && window.right.is_none_or(|right| key <= diagonal + i64::from(right))
}
