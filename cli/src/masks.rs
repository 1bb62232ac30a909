//! Turns `mask`, `key_padding_mask` and `bias` into the two operands that the library has: one boolean mask and one bias.
//!
//! If `mask` and the padding are both given, two of the three tensors are joined into one. All of them broadcast, and a
//! joined tensor has every axis that either part has. So (1, 1, Lq, 1) and (B, 1, 1, Lk) would be joined into a tensor with
//! Lq·Lk elements, although neither part is that large. There is always a pair that can be joined without such growth:
//!
//! - `mask` and the padding are joined, unless `mask` has a query axis and no key axis;
//! - otherwise the padding is joined into the bias, as −∞, unless the bias has a query axis and no key axis. If there is no
//!   bias, the padding becomes one;
//! - otherwise `mask` is joined into the bias, as −∞. Neither has a key axis, so the bias still has none. The padding
//!   becomes the mask.
//!
//! A bias of −∞ hides a key just as a mask does, whatever the other operands hold.

use wgpu_attention::Shape;

/// A tensor that broadcasts to the scores, (batch, heads, queries, keys).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scores<T> {
    pub(crate) dims: [u32; 4],
    pub(crate) values: Vec<T>,
}

impl<T> Scores<T> {
    /// Whether each axis is 1 or that of the scores.
    pub(crate) fn broadcasts(&self, shape: &Shape) -> bool {
        let scores = [shape.batch, shape.heads_q, shape.len_q, shape.len_kv];
        self.dims.iter().zip(scores).all(|(&size, want)| size == 1 || size == want)
    }
}

/// The operands for the library.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Operands {
    pub(crate) mask: Option<Scores<bool>>,
    pub(crate) bias: Option<Scores<f32>>,
}

/// Joins two of the tensors if necessary. All of them must broadcast to the scores.
pub(crate) fn operands(
    mask: Option<Scores<bool>>,
    padding: Option<Scores<bool>>,
    bias: Option<Scores<f32>>,
) -> Operands {
    let (mask, padding) = match (mask, padding) {
        (Some(mask), Some(padding)) => (mask, padding),
        (mask, padding) => return Operands { mask: mask.or(padding), bias },
    };
    // A missing bias is a bias of 0.
    let is_given = bias.is_some();
    let bias = bias.unwrap_or(Scores { dims: [1; 4], values: vec![0.0] });
    let pairs = [
        (growth(mask.dims, padding.dims), Pair::MaskPadding),
        (growth(padding.dims, bias.dims), Pair::PaddingBias),
        (growth(mask.dims, bias.dims), Pair::MaskBias),
    ];
    // The first of the pairs that grow least. A kernel with a mask alone is faster than one with a mask and a bias.
    match pairs.into_iter().min_by_key(|&(growth, _)| growth).map(|(_, pair)| pair) {
        Some(Pair::PaddingBias) => Operands { bias: Some(joined(&padding, &bias, hidden)), mask: Some(mask) },
        Some(Pair::MaskBias) => Operands { bias: Some(joined(&mask, &bias, hidden)), mask: Some(padding) },
        Some(Pair::MaskPadding) | None => {
            let both = joined(&mask, &padding, |a, b| a && b);
            Operands { mask: Some(both), bias: is_given.then_some(bias) }
        }
    }
}

enum Pair {
    MaskPadding,
    PaddingBias,
    MaskBias,
}

/// The bias of a key that is not attended to becomes −∞, even if it was NaN.
fn hidden(attend: bool, bias: f32) -> f32 {
    if attend { bias } else { f32::NEG_INFINITY }
}

/// How many elements the joined tensor has more than the larger of the two.
fn growth(a: [u32; 4], b: [u32; 4]) -> u64 {
    let count = |dims: [u32; 4]| dims.into_iter().map(u64::from).fold(1, u64::saturating_mul);
    count(common(a, b)).saturating_sub(count(a).max(count(b)))
}

/// The shape of two tensors joined.
fn common(a: [u32; 4], b: [u32; 4]) -> [u32; 4] {
    std::array::from_fn(|axis| if a[axis] == 1 { b[axis] } else { a[axis] })
}

fn joined<A: Copy, B: Copy, C>(a: &Scores<A>, b: &Scores<B>, join: impl Fn(A, B) -> C) -> Scores<C> {
    let dims = common(a.dims, b.dims);
    let place = |own: [u32; 4], at: [u32; 4]| {
        let axes = own.into_iter().zip(at);
        axes.fold(0, |index, (size, i)| index * size as usize + if size == 1 { 0 } else { i as usize })
    };
    let mut values = Vec::new();
    for batch in 0..dims[0] {
        for head in 0..dims[1] {
            for row in 0..dims[2] {
                let keys = (0..dims[3]).map(|key| [batch, head, row, key]);
                values.extend(keys.map(|at| join(a.values[place(a.dims, at)], b.values[place(b.dims, at)])));
            }
        }
    }
    Scores { dims, values }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: [u32; 4] = [2, 3, 5, 7];

    /// Every shape that broadcasts to the scores.
    fn broadcasts() -> impl Iterator<Item = [u32; 4]> {
        (0..16).map(|set| std::array::from_fn(|axis| if set >> axis & 1 == 1 { FULL[axis] } else { 1 }))
    }

    fn tensor<T>(dims: [u32; 4], value: impl Fn(u32) -> T) -> Scores<T> {
        Scores { dims, values: (0..dims.iter().product()).map(value).collect() }
    }

    /// The tensor, broadcast to every query and key.
    fn full<T: Copy>(tensor: Option<&Scores<T>>, unless_given: T) -> Vec<T> {
        let everywhere = Scores { dims: FULL, values: vec![(); FULL.iter().product::<u32>() as usize] };
        let none = Scores { dims: [1; 4], values: vec![unless_given] };
        joined(tensor.unwrap_or(&none), &everywhere, |value, ()| value).values
    }

    fn check(mask: Option<&Scores<bool>>, padding: Option<&Scores<bool>>, bias: Option<&Scores<f32>>) {
        let got = operands(mask.cloned(), padding.cloned(), bias.cloned());
        let shows = |mask: Option<&Scores<bool>>| full(mask, true);
        let given = shows(mask).into_iter().zip(shows(padding)).zip(full(bias, 0.0));
        let wanted: Vec<f32> = given.map(|((mask, padding), bias)| hidden(mask && padding, bias)).collect();
        let scores = shows(got.mask.as_ref()).into_iter().zip(full(got.bias.as_ref(), 0.0));
        let got_scores: Vec<f32> = scores.map(|(attend, bias)| hidden(attend, bias)).collect();
        assert_eq!(got_scores, wanted);

        let has_scores = |dims: [u32; 4]| dims[2] > 1 && dims[3] > 1;
        let given = [mask.map(|mask| mask.dims), bias.map(|bias| bias.dims)].into_iter().flatten();
        let made = [got.mask.map(|mask| mask.dims), got.bias.map(|bias| bias.dims)].into_iter().flatten();
        let (given, made): (Vec<_>, Vec<_>) = (given.collect(), made.collect());
        assert!(
            given.iter().copied().any(has_scores) || !made.iter().copied().any(has_scores),
            "{given:?} became {made:?}, which grows with queries times keys"
        );
    }

    #[test]
    fn every_combination_means_the_same_and_grows_no_faster() {
        let padding = tensor([FULL[0], 1, 1, FULL[3]], |i| i % 3 != 1);
        let masks: Vec<_> = broadcasts().map(|dims| tensor(dims, |i| i % 5 != 2)).collect();
        let biases: Vec<_> = broadcasts().map(|dims| tensor(dims, |i| i as f32 - 4.0)).collect();
        for mask in masks.iter().map(Some).chain([None]) {
            for bias in biases.iter().map(Some).chain([None]) {
                for padding in [Some(&padding), None] {
                    check(mask, padding, bias);
                }
            }
        }
    }

    #[test]
    fn a_mask_that_does_not_grow_takes_the_padding_in() {
        let padding = tensor([2, 1, 1, 7], |i| i % 3 != 1);
        let mask = tensor([2, 1, 5, 7], |i| i % 5 != 2);
        assert_eq!(operands(Some(mask.clone()), Some(padding.clone()), None).bias, None);
        // A mask that both batches share is not copied for each.
        let shared = tensor([1, 1, 5, 7], |i| i % 5 != 2);
        let both = operands(Some(shared.clone()), Some(padding), None);
        assert_eq!(both.mask, Some(shared));
        assert_eq!(both.bias.map(|bias| bias.dims), Some([2, 1, 1, 7]));
    }
}
