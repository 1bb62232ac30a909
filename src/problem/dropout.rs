//! Dropout, and the generator of its random numbers.

use bytemuck::{Pod, Zeroable};

use crate::problem::number::Number;

/// Where dropout takes its random numbers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RngState {
    /// The problem has the state of the generator. Another state is another problem with another plan, but the
    /// compiled kernels are shared.
    Fixed(Philox),
    /// [`Operand::RngState`](crate::Operand::RngState) has it. One plan and one bound call serve all steps. Each step
    /// first writes another state.
    Buffer,
}

/// The state of a Philox 4×32-10 generator (Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, 2011), and the
/// contents of [`Operand::RngState`](crate::Operand::RngState).
///
/// It is counter-based: the number of each pair of a query and a key depends only on this state and on the position of the pair
/// in the problem, so the forward and the backward pass, every kernel and every device draw the same numbers.
/// [`Problem::keeps`](crate::Problem::keeps) draws them on the CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Philox {
    /// The seed: its lower half, then its upper half.
    pub seed: [u32; 2],
    /// Which of the generator's sequences of numbers is used: for example, the number of the training step times the number of
    /// layers, plus that of the layer.
    pub offset: u32,
}

impl Philox {
    /// How many u32 it is.
    pub(crate) const WORDS: u32 = 3;

    /// The state for a seed and an offset.
    #[expect(clippy::cast_possible_truncation, reason = "both halves are kept")]
    pub const fn new(seed: u64, offset: u32) -> Self {
        Self { seed: [seed as u32, (seed >> 32) as u32], offset }
    }

    /// The random number of a pair of a query and a key; `row` is the number of the query's head among those of all batches.
    const fn number(self, row: u32, query: u32, key: u32) -> u32 {
        block([key / 4, query, row, self.offset], self.seed)[key as usize % 4]
    }
}

const _: () = assert!(size_of::<Philox>() == Philox::WORDS as usize * size_of::<u32>());

/// A block of the generator's numbers.
#[expect(clippy::cast_possible_truncation, reason = "both halves are kept")]
const fn block(counter: [u32; 4], seed: [u32; 2]) -> [u32; 4] {
    const ROUNDS: u32 = 10;
    const MULTIPLIERS: [u64; 2] = [0xd251_1f53, 0xcd9e_8d57];
    const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
    let (mut x, mut key, mut round) = (counter, seed, 0);
    while round < ROUNDS {
        let products = [x[0] as u64 * MULTIPLIERS[0], x[2] as u64 * MULTIPLIERS[1]];
        let (low, high) =
            ([products[0] as u32, products[1] as u32], [(products[0] >> 32) as u32, (products[1] >> 32) as u32]);
        x = [high[1] ^ x[1] ^ key[0], low[1], high[0] ^ x[3] ^ key[1], low[0]];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        round += 1;
    }
    x
}

/// The dropout of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Dropout {
    pub(super) p: Number,
    pub(crate) state: RngState,
}

impl Dropout {
    /// The number of 2³² below which a random number drops its weight.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "p is below 1, so the product is below 2³²"
    )]
    pub(crate) fn threshold(self) -> u32 {
        (f64::from(self.p.0) * 2f64.powi(32)) as u32
    }

    /// What is kept is multiplied by this.
    pub(crate) fn kept_scale(self) -> f64 {
        1.0 / (1.0 - f64::from(self.p.0))
    }

    pub(crate) const fn p(self) -> f32 {
        self.p.0
    }

    pub(super) fn is_valid(self) -> bool {
        (0.0..1.0).contains(&self.p.0)
    }

    /// Whether the weight of a pair is kept.
    pub(crate) fn keeps(self, state: Philox, heads: u32, [batch, head, query, key]: [u32; 4]) -> bool {
        state.number(batch.wrapping_mul(heads).wrapping_add(head), query, key) >= self.threshold()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that the authors publish with their library, Random123.
    #[test]
    fn blocks_are_those_of_philox_4x32_10() {
        for (counter, seed, wanted) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(block(counter, seed), wanted);
        }
    }

    #[test]
    fn thresholds_are_shares_of_all_numbers() {
        let of = |p| Dropout { p: Number(p), state: RngState::Buffer };
        assert_eq!([0.0, 0.25, 0.5].map(|p| of(p).threshold()), [0, 1 << 30, 1 << 31]);
        // The largest p below 1 still keeps some.
        assert_eq!(of(1.0_f32.next_down()).threshold(), u32::MAX - 255);
        assert_eq!(of(0.75).kept_scale(), 4.0);
        for p in [1.0, -0.1, 0.0_f32.next_down(), f32::NAN, f32::INFINITY] {
            assert!(!of(p).is_valid(), "{p}");
        }
        for p in [0.0, 0.5, 1.0_f32.next_down()] {
            assert!(of(p).is_valid(), "{p}");
        }
    }

    #[test]
    fn a_weight_is_kept_if_its_number_is_not_below_the_threshold() {
        let state = Philox::new(0x1_0000_0002, 3);
        // Heads are counted through all batches, and four keys share a block.
        let number = |key: u32| block([key / 4, 7, 2 * 5 + 1, 3], [2, 1])[key as usize % 4];
        // A probability has 24 digits, so only such numbers are met exactly.
        let exact = |number: u32| number.is_multiple_of(256).then(|| Number(number as f32 / 2f32.powi(32)));
        let keeps = |p, key| Dropout { p, state: RngState::Buffer }.keeps(state, 5, [2, 1, 7, key]);
        let (key, p) = (0..10_000).find_map(|key| Some((key, exact(number(key))?))).expect("one in 256 is");
        assert!(keeps(p, key), "its number is the threshold");
        let below = |key| exact(number(key).checked_add(1)?);
        let (key, p) = (0..10_000).find_map(|key| Some((key, below(key)?))).expect("one in 256 is");
        assert!(!keeps(p, key), "its number is just below");
    }
}
