//! Where the numbers come from. Never U(0, ½): such inputs make every softmax nearly uniform and hide most mistakes.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use wgpu_attention::{Operand, Problem, ProblemBuilder};

use crate::case::{Case, Programs, distinct, stored};

/// What a problem is filled with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// N(0, 1) everywhere.
    Normal,
    /// N(0, 1), and one key that every query scores far above the rest.
    Spike,
    /// Scores that climb with the key, so that the maximum rises in every tile and what came before must be rescaled.
    Staircase,
    /// One value for all queries and keys, another for all values.
    Constant,
    /// N(0, 1) scaled until the scores spread over ± this much.
    Large(f32),
}

impl Fill {
    pub const ALL: [Self; 6] =
        [Self::Normal, Self::Spike, Self::Staircase, Self::Constant, Self::Large(1e4), Self::Large(1e5)];
}

/// How far above the others the spike scores, before a scale of 1/√d.
const SPIKE: f32 = 12.0;
/// How much a staircase rises from key to key, likewise.
const STEP: f32 = 0.25;

/// A standard normal number (Box and Muller).
fn normal(rng: &mut StdRng) -> f32 {
    let (a, b): (f64, f64) = (rng.random(), rng.random());
    ((-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32
}

impl Case {
    /// A problem filled. What lies between the rows of an operand is NaN, and between those of a mask `true`: neither
    /// may matter.
    #[allow(clippy::needless_pass_by_value, reason = "builders are made where they are used")]
    pub fn new(problem: ProblemBuilder, fill: Fill, seed: u64) -> Self {
        let problem = problem.build().unwrap_or_else(|error| panic!("{error}: {problem:?}"));
        let mut rng = StdRng::seed_from_u64(seed);
        let room = |operand| problem.view(operand).map(|view| view.end() as usize);
        let poison = |operand| room(operand).map(|len| vec![f32::NAN; len]);
        let mut case = Self {
            problem: problem.clone(),
            q: poison(Operand::Q).unwrap(),
            k: poison(Operand::K).unwrap(),
            v: poison(Operand::V).unwrap(),
            mask: room(Operand::Mask).map(|len| vec![true; len]),
            bias: poison(Operand::Bias),
            kv_lengths: None,
            alibi_slopes: None,
            sinks: None,
            aux: None,
            programs: Programs::default(),
        };
        for operand in [Operand::Q, Operand::K, Operand::V] {
            case.edit(operand, |_, _| normal(&mut rng));
        }
        case.shape_scores(fill, &mut rng);
        if case.bias.is_some() {
            case.edit(Operand::Bias, |_, _| normal(&mut rng));
        }
        if case.mask.is_some() {
            case.edit_mask(|_, _| rng.random_range(0..3) > 0);
        }
        case.kv_lengths = room(Operand::KvLengths).map(|_| some_lengths(&case.problem, &mut rng));
        case.alibi_slopes =
            room(Operand::AlibiSlopes).map(|len| (0..len).map(|n| 0.5_f32.powi(n as i32 % 8 + 1)).collect());
        case.sinks = room(Operand::Sinks).map(|len| (0..len).map(|_| 2.0 * normal(&mut rng)).collect());
        case.aux = room(Operand::Aux).map(|len| (0..len).map(|_| normal(&mut rng)).collect());
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

/// Lengths at the edges and between them.
fn some_lengths(problem: &Problem, rng: &mut StdRng) -> Vec<u32> {
    let len = problem.shape().len_kv;
    (0..problem.shape().batch)
        .map(|_| match rng.random_range(0..8) {
            0 => 0,
            1 => 1,
            2 => len,
            3 => len + 7,
            _ => rng.random_range(0..=len),
        })
        .collect()
}

/// Puts `poison` into every row of K and V that no query of its group sees.
pub fn poison_hidden(case: &mut Case, poison: f32) -> usize {
    let shape = case.problem.shape();
    let hidden: Vec<bool> = distinct(&case.view(Operand::K))
        .filter(|at| at[3] == 0)
        .map(|[b, kv_head, j, _]| {
            let heads = kv_head * shape.group()..(kv_head + 1) * shape.group();
            !heads.into_iter().any(|h| (0..shape.len_q).any(|i| case.sees([b, h, i, j])))
        })
        .collect();
    let is_hidden = |[b, h, j, _]: [u32; 4]| hidden[((b * shape.heads_kv + h) * shape.len_kv + j) as usize];
    for operand in [Operand::K, Operand::V] {
        case.edit(operand, |at, x| if is_hidden(at) { poison } else { x });
    }
    hidden.into_iter().filter(|&hidden| hidden).count()
}

#[test]
fn inputs_are_seeded_and_of_unit_variance() {
    let problem = Problem::builder(wgpu_attention::Shape::new(1, 2, 64, 32));
    let [one, same, other] = [1, 1, 2].map(|seed| Case::new(problem.clone(), Fill::Normal, seed));
    assert_eq!(one.q, same.q);
    assert_ne!(one.q, other.q);
    let mean_square = one.q.iter().map(|x| x * x).sum::<f32>() / one.q.len() as f32;
    assert!((0.8..1.25).contains(&mean_square), "{mean_square}");
}

#[test]
fn inputs_are_values_their_type_can_store() {
    for dtype in wgpu_attention::Dtype::ALL {
        let case = Case::new(Problem::builder(wgpu_attention::Shape::new(1, 1, 9, 5)).dtype(dtype), Fill::Normal, 3);
        assert!(case.q.iter().all(|&x| x == stored(dtype, x)));
    }
}
