//! Draws the inputs. They are never U(0, ½): such inputs make every softmax nearly uniform and hide most mistakes.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use wgpu_attention::{Gradients, Operand, Philox, Problem};

use crate::case::{Case, distinct, stored};
use crate::host::Host;
use crate::visibility::Visibility;

/// What a problem is filled with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// N(0, 1) everywhere.
    Normal,
    /// N(0, 1), and one key that every query scores far above the rest.
    Spike,
    /// Scores that climb with the key, so that the maximum rises in every tile and earlier results must be rescaled.
    Staircase,
    /// One value for all queries and keys, another for all values.
    Constant,
    /// N(0, 1) scaled until the scores spread over ± this much.
    Large(f32),
}

impl Fill {
    /// Every kind, the large ones in two sizes.
    pub const ALL: [Self; 6] =
        [Self::Normal, Self::Spike, Self::Staircase, Self::Constant, Self::Large(1e4), Self::Large(1e5)];
}

/// How far above the others the spike scores, before a scale of 1/√d.
const SPIKE: f32 = 12.0;
/// How much a staircase rises from key to key, before a scale of 1/√d.
const STEP: f32 = 0.25;

/// A standard normal number (Box and Muller).
fn normal(rng: &mut StdRng) -> f32 {
    let (a, b): (f64, f64) = (rng.random(), rng.random());
    ((-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32
}

impl Case {
    /// Draws the gradients that come in, uniformly from −2 to 2. Gaps between rows, and rows of no sequence, hold NaN.
    pub fn draw_incoming(&mut self, gradients: &Gradients, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed ^ 0xd0);
        let mut draw = |operand: Operand| {
            let view = gradients.view(operand)?;
            let dtype = gradients.dtype(operand).unwrap_or_default();
            let mut values = vec![f32::NAN; view.end() as usize];
            for at in distinct(&view) {
                values[view.index(at) as usize] = stored(dtype, rng.random_range(-2.0..2.0));
            }
            Some(values)
        };
        (self.host.dout, self.host.dlse) = (draw(Operand::Dout), draw(Operand::Dlse));
    }

    /// Fills a problem with inputs. The gaps between the rows of an operand hold NaN, those of a mask `true`: neither may
    /// matter.
    pub fn filled(problem: &Problem, fill: Fill, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let room = |operand| problem.view(operand).map(|view| view.end() as usize);
        let poison = |operand| room(operand).map(|len| vec![f32::NAN; len]);
        let keys = |operand| {
            if problem.quantization().is_some() { Vec::new() } else { poison(operand).unwrap_or_default() }
        };
        let host = Host {
            q: poison(Operand::Q).unwrap_or_default(),
            k: keys(Operand::K),
            v: keys(Operand::V),
            mask: room(Operand::Mask).map(|len| vec![true; len]),
            bias: poison(Operand::Bias),
            ..Host::default()
        };
        let mut case = Self::new(problem.clone(), host);
        if problem.quantization().is_some() {
            case.host.k_words = Some(some_words(&case, Operand::K, &mut rng));
            case.host.v_words = Some(some_words(&case, Operand::V, &mut rng));
            case.edit(Operand::Q, |_, _| normal(&mut rng));
        } else {
            for operand in [Operand::Q, Operand::K, Operand::V] {
                case.edit(operand, |_, _| normal(&mut rng));
            }
            case.shape_scores(fill, &mut rng);
        }
        if case.host.bias.is_some() {
            case.edit(Operand::Bias, |_, _| normal(&mut rng));
        }
        if case.host.mask.is_some() {
            case.edit_mask(|_, _| rng.random_range(0..3) > 0);
        }
        let host = &mut case.host;
        let shape = problem.shape();
        host.kv_lengths = room(Operand::KvLengths).map(|_| some_lengths(shape.batch, shape.len_kv, &mut rng));
        host.q_lengths = room(Operand::QLengths).map(|_| some_lengths(shape.batch, shape.len_q, &mut rng));
        let total = |operand| problem.view(operand).map_or(0, |view| view.extent[2]);
        let [total_q, total_kv] = [Operand::Q, Operand::K].map(total);
        host.cu_seqlens_q = room(Operand::CuSeqlensQ).map(|_| some_bounds(shape.batch, shape.len_q, total_q, &mut rng));
        host.cu_seqlens_k =
            room(Operand::CuSeqlensK).map(|_| some_bounds(shape.batch, shape.len_kv, total_kv, &mut rng));
        let pages = problem.pages().map_or(1, |pages| pages.count.max(1));
        host.block_table = room(Operand::BlockTable).map(|len| (0..len).map(|_| rng.random_range(0..pages)).collect());
        host.alibi_slopes =
            room(Operand::AlibiSlopes).map(|len| (0..len).map(|n| 0.5_f32.powi(n as i32 % 8 + 1)).collect());
        host.sinks = room(Operand::Sinks).map(|len| (0..len).map(|_| 2.0 * normal(&mut rng)).collect());
        host.aux = room(Operand::Aux).map(|len| (0..len).map(|_| normal(&mut rng)).collect());
        host.rng_state = room(Operand::RngState).map(|_| Philox::new(rng.random(), rng.random()));
        host.block_mask = room(Operand::BlockMask).map(|len| (0..len).map(|_| rng.random_range(0..4)).collect());
        case
    }

    fn shape_scores(&mut self, fill: Fill, rng: &mut StdRng) {
        let shape = self.problem.shape();
        let root = (shape.dim_qk as f32).sqrt();
        let leading = |at: [u32; 4]| at[3] == 0;
        match fill {
            Fill::Normal => {}
            Fill::Spike => {
                let spike = rng.random_range(0..shape.len_kv);
                self.edit(Operand::Q, |at, x| if leading(at) { 1.0 } else { x });
                self.edit(Operand::K, |at, x| if leading(at) && at[2] == spike { SPIKE * root } else { x });
            }
            Fill::Staircase => {
                self.edit(Operand::Q, |at, x| if leading(at) { 1.0 } else { x });
                self.edit(Operand::K, |at, x| if leading(at) { STEP * root * at[2] as f32 } else { x / 4.0 });
            }
            Fill::Constant => {
                self.edit(Operand::Q, |_, _| 0.75);
                self.edit(Operand::K, |_, _| -0.5);
                self.edit(Operand::V, |_, _| 3.0);
            }
            Fill::Large(spread) => {
                self.edit(Operand::Q, |_, x| x * spread.sqrt());
                self.edit(Operand::K, |_, x| x * spread.sqrt());
            }
        }
    }
}

/// Quantized rows of N(0, 1). What lies between them is NaN as a scale.
fn some_words(case: &Case, operand: Operand, rng: &mut StdRng) -> Vec<u32> {
    let (view, shape) = (case.view(operand), case.problem.shape());
    let dim = if operand == Operand::K { shape.dim_qk } else { shape.dim_v };
    let mut words = vec![f32::NAN.to_bits(); view.end() as usize];
    let Some(quantization) = case.problem.quantization() else { return words };
    for at in distinct(&view).filter(|at| at[3] == 0) {
        let row: Vec<f32> = (0..dim).map(|_| normal(rng)).collect();
        let (start, row) = (view.index(at) as usize, quantization.encode(&row));
        words[start..start + row.len()].copy_from_slice(&row);
    }
    words
}

/// Random lengths, some of them at the edges of the range.
fn some_lengths(batch: u32, len: u32, rng: &mut StdRng) -> Vec<u32> {
    (0..batch)
        .map(|_| match rng.random_range(0..8) {
            0 => 0,
            1 => 1,
            2 => len,
            3 => len + 7,
            _ => rng.random_range(0..=len),
        })
        .collect()
}

/// Random bounds of sequences of at most `longest` rows, of `total` rows. Some rows at both ends may belong to no sequence.
fn some_bounds(batch: u32, longest: u32, total: u32, rng: &mut StdRng) -> Vec<u32> {
    let lengths = some_lengths(batch, longest, rng);
    let mut bounds = vec![rng.random_range(0..=total.min(2))];
    for length in lengths {
        let begin = bounds[bounds.len() - 1];
        bounds.push(begin + length.min(longest).min(total - begin));
    }
    bounds
}

/// Puts `poison` into every row of K and V that no query of its group sees. Returns the number of such rows.
pub fn poison_hidden(case: &mut Case, poison: f32) -> usize {
    let (shape, visibility) = (case.problem.shape(), Visibility::new(case));
    let hidden: Vec<bool> = distinct(&case.view(Operand::K))
        .filter(|at| at[3] == 0)
        .map(|[b, kv_head, j, _]| {
            let heads = kv_head * shape.group()..(kv_head + 1) * shape.group();
            !heads.into_iter().any(|h| (0..shape.len_q).any(|i| visibility.sees([b, h, i, j])))
        })
        .collect();
    let is_hidden = |[b, h, j, _]: [u32; 4]| hidden[((b * shape.heads_kv + h) * shape.len_kv + j) as usize];
    for operand in [Operand::K, Operand::V] {
        case.edit(operand, |at, x| if is_hidden(at) { poison } else { x });
    }
    hidden.into_iter().filter(|&hidden| hidden).count()
}

#[cfg(test)]
mod tests {
    use wgpu_attention::{Dtype, Shape};

    use super::*;
    use crate::case::stored;

    fn filled(shape: Shape, dtype: Dtype, seed: u64) -> Case {
        Case::filled(&Problem::builder(shape).dtype(dtype).build().expect("a valid problem"), Fill::Normal, seed)
    }

    #[test]
    fn inputs_are_seeded_and_of_unit_variance() {
        let [one, same, other] = [1, 1, 2].map(|seed| filled(Shape::new(1, 2, 64, 32), Dtype::F32, seed).host.q);
        assert_eq!(one, same);
        assert_ne!(one, other);
        let mean_square = one.iter().map(|x| x * x).sum::<f32>() / one.len() as f32;
        assert!((0.8..1.25).contains(&mean_square), "{mean_square}");
    }

    #[test]
    fn inputs_are_values_their_type_can_store() {
        for dtype in Dtype::ALL {
            let case = filled(Shape::new(1, 1, 9, 5), dtype, 3);
            assert!(case.host.q.iter().all(|&x| x == stored(dtype, x)));
        }
    }
}
