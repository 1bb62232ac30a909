//! Appending to a cache.

use crate::problem::layout::Layout;

/// What [`Attention::plan_append`](crate::Attention::plan_append) appends to the cache of a problem: the keys and values of
/// the tokens whose queries the problem has, as many as there are queries.
///
/// The lengths of the problem count these tokens already. So the new keys are the last ones of their sequence, and the call
/// that appends shares its lengths, block table and bounds with the attention that follows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Append {
    /// The layout of [`Operand::NewK`](crate::Operand::NewK); contiguous (B, Hkv, Lq, Dqk) unless given, or (T, Hkv, Dqk) if
    /// the queries are ragged, whatever the layout of `q` is.
    pub k: Option<Layout>,
    /// The layout of [`Operand::NewV`](crate::Operand::NewV), likewise.
    pub v: Option<Layout>,
    /// The layout of [`Operand::NewQ`](crate::Operand::NewQ), which only a rotary embedding needs.
    pub q: Option<Layout>,
    /// The rotary embedding of queries and keys, if there is one.
    pub rotary: Option<Rotary>,
}

/// A rotary position embedding: pairs of elements of a query or a key are rotated by angles that grow with its position, the
/// number of keys before it in its sequence.
///
/// The cosines and sines come from a table, [`Operand::RotaryTable`](crate::Operand::RotaryTable): (`positions`, `dims` / 2)
/// pairs of f32, a cosine and a sine, as [`table`](Self::table) makes it. A table made in f64 is exact at any position, which
/// angles computed in f32 are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rotary {
    /// How many elements are rotated, from the first on; the others stay as they are.
    pub dims: u32,
    /// Which elements are pairs.
    pub pairs: RotaryPairs,
    /// How many positions the table has; at least `len_kv`.
    pub positions: u32,
}

/// The elements that a rotary embedding rotates together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RotaryPairs {
    /// Element i with element i + `dims` / 2, as in GPT-NeoX and Llama; `dims` is a multiple of 8.
    Halves,
    /// Element 2i with element 2i + 1, as in GPT-J and `RoFormer`; `dims` is a multiple of 4.
    Neighbours,
}

impl RotaryPairs {
    /// `dims` is a multiple of this, so that the partners of four elements in a row are in a row too.
    pub(crate) const fn step(self) -> u32 {
        match self {
            Self::Halves => 8,
            Self::Neighbours => 4,
        }
    }
}

impl Rotary {
    /// The table of a rotary embedding: the angle of pair i at position p is `p / scaling · base^(−2i / dims)`. `base` is
    /// usually 10 000. A `scaling` above 1 interpolates positions (Chen et al. 2023); it is 1 otherwise.
    #[expect(clippy::cast_possible_truncation, reason = "the nearest f32 is what is wanted")]
    pub fn table(&self, base: f64, scaling: f64) -> Vec<f32> {
        let pairs = self.dims / 2;
        let angle = |p: u32, i: u32| f64::from(p) / scaling * base.powf(-2.0 * f64::from(i) / f64::from(self.dims));
        let of = |p| (0..pairs).flat_map(move |i| [angle(p, i).cos() as f32, angle(p, i).sin() as f32]);
        (0..self.positions).flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_fall_by_pair_and_grow_with_the_position() {
        let rotary = Rotary { dims: 4, pairs: RotaryPairs::Neighbours, positions: 3 };
        let table = rotary.table(100.0, 2.0);
        let angles = [0.0_f64, 0.0, 0.5, 0.05, 1.0, 0.1];
        assert_eq!(table.len(), 2 * angles.len());
        assert_eq!(Rotary { dims: 5, ..rotary }.table(100.0, 2.0).len(), table.len(), "whole pairs");
        for (pair, angle) in table.chunks(2).zip(angles) {
            for (got, wanted) in pair.iter().zip([angle.cos(), angle.sin()]) {
                assert!((f64::from(*got) - wanted).abs() < 1e-7, "{got}, not {wanted}");
            }
        }
    }
}
