//! Random problems, run as the variants that can run them.
//!
//! proptest draws and shrinks the problem; its inputs come from a seed. The kernel that a problem needs is drawn from a
//! short list, because each takes the driver's compiler most of a second. Everything else is free.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use truth::{Case, Expected, Fill, naive, poison_hidden};
use wgpu_attention::{Diagonal, Dtype, Layout, Philox, Problem, ProblemBuilder, RngState, ScoreLayout, Shape, Window};

use crate::case::drawn;
use crate::choice::chosen_variants;
use crate::device::{Device, all, opened_anew};

/// The properties of a problem that decide which kernel is compiled.
#[derive(Clone, Copy, Debug)]
struct Kernel {
    dtype: Dtype,
    kv_dtype: Dtype,
    out_dtype: Dtype,
    /// Head sizes are drawn from 1 to this.
    dim_qk: u32,
    dim_v: u32,
    softcap: bool,
    mask: bool,
    bias: Option<Dtype>,
    kv_lengths: bool,
    lse: bool,
    weights: bool,
    dropout: bool,
}

const PLAIN: Kernel = Kernel {
    dtype: Dtype::F32,
    kv_dtype: Dtype::F32,
    out_dtype: Dtype::F32,
    dim_qk: 32,
    dim_v: 32,
    softcap: false,
    mask: false,
    bias: None,
    kv_lengths: false,
    lse: true,
    weights: false,
    dropout: false,
};
const F16: Kernel = Kernel { dtype: Dtype::F16, kv_dtype: Dtype::F16, out_dtype: Dtype::F16, ..PLAIN };
const BF16: Kernel = Kernel { dtype: Dtype::Bf16, kv_dtype: Dtype::Bf16, out_dtype: Dtype::Bf16, ..PLAIN };
const ALL: Kernel =
    Kernel { softcap: true, mask: true, bias: Some(Dtype::F32), kv_lengths: true, weights: true, ..PLAIN };

/// Each feature alone, all together, in each element type; wider heads for some.
const KERNELS: [Kernel; 16] = [
    PLAIN,
    Kernel { lse: false, ..PLAIN },
    Kernel { dim_qk: 64, dim_v: 64, ..PLAIN },
    Kernel { dim_qk: 96, dim_v: 32, ..PLAIN },
    Kernel { dim_qk: 32, dim_v: 96, ..PLAIN },
    Kernel { softcap: true, ..PLAIN },
    Kernel { mask: true, ..PLAIN },
    Kernel { bias: Some(Dtype::F32), ..PLAIN },
    Kernel { kv_lengths: true, ..PLAIN },
    F16,
    BF16,
    ALL,
    Kernel { softcap: true, mask: true, bias: Some(Dtype::F16), kv_lengths: true, weights: true, ..F16 },
    Kernel { softcap: true, mask: true, bias: Some(Dtype::Bf16), kv_lengths: true, weights: true, ..BF16 },
    Kernel { dropout: true, ..PLAIN },
    // A cache in f16 beside activations in f32.
    Kernel { kv_dtype: Dtype::F16, kv_lengths: true, ..PLAIN },
];

/// Any kernel at all.
fn any_kernel() -> impl Strategy<Value = Kernel> {
    let dims = prop_oneof![3 => Just(32_u32), 1 => 1..=256_u32];
    let flags = any::<[bool; 6]>();
    let dtype = || prop::sample::select(&Dtype::ALL[..]);
    let dtypes = (dtype(), dtype(), dtype(), prop::option::of(dtype()));
    (dtypes, dims.clone(), dims, flags).prop_map(
        |((dtype, kv_dtype, out_dtype, bias), dim_qk, dim_v, [softcap, mask, kv_lengths, lse, weights, dropout])| {
            Kernel { dtype, kv_dtype, out_dtype, dim_qk, dim_v, softcap, mask, bias, kv_lengths, lse, weights, dropout }
        },
    )
}

/// A random problem: its kernel, and the properties that compile nothing.
#[derive(Clone, Debug)]
struct Draw {
    kernel: Kernel,
    shape: Shape,
    /// Whether sizes are multiples of four, wherever that decides how elements are moved.
    in_fours: bool,
    layouts: [Arrangement; 4],
    score_axes: [u32; 2],
    scale: Option<f32>,
    softcap: f32,
    diagonal: Diagonal,
    causal: bool,
    window: Window,
    fill: Fill,
    poison: Option<f32>,
    seed: u64,
}

/// How an operand's rows lie.
#[derive(Clone, Copy, Debug)]
struct Arrangement {
    tokens_outermost: bool,
    offset: u64,
    gap: u64,
}

fn shape(kernel: Kernel) -> impl Strategy<Value = (Shape, bool)> {
    let len = || prop_oneof![1..=8_u32, 28..=36_u32, 60..=70_u32, 1..=110_u32];
    let heads = (1..=3_u32, 1..=3_u32, 1..=3_u32);
    let dim = |most: u32| (most - most.min(32) + 1).max(most / 2)..=most;
    let dims = (prop_oneof![1 => 1..=kernel.dim_qk, 3 => dim(kernel.dim_qk)], dim(kernel.dim_v), any::<bool>());
    (heads, len(), len(), dims).prop_map(move |((batch, heads_kv, group), len_q, len_kv, (dim_qk, dim_v, in_fours))| {
        let round = |dim: u32| if in_fours { dim.next_multiple_of(4) } else { dim };
        let (dim_qk, dim_v) = (round(dim_qk), round(dim_v));
        // Weights are moved in fours too, a row of them as long as there are keys.
        let len_kv = if kernel.weights { round(len_kv) } else { len_kv };
        (Shape { batch, heads_q: heads_kv * group, heads_kv, len_q, len_kv, dim_qk, dim_v }, in_fours)
    })
}

fn arrangement() -> impl Strategy<Value = Arrangement> {
    (any::<bool>(), prop_oneof![Just(0), 0..9_u64], prop_oneof![Just(0), 0..5_u64])
        .prop_map(|(tokens_outermost, offset, gap)| Arrangement { tokens_outermost, offset, gap })
}

fn diagonal() -> impl Strategy<Value = Diagonal> {
    let offset = prop_oneof![-70..=70_i32, any::<i32>()].prop_map(Diagonal::Offset);
    prop_oneof![Just(Diagonal::TopLeft), Just(Diagonal::BottomRight), offset]
}

fn window() -> impl Strategy<Value = Window> {
    let side = || prop_oneof![2 => Just(None), 3 => (0..40_u32).prop_map(Some), 1 => any::<u32>().prop_map(Some)];
    (side(), side()).prop_map(|(left, right)| Window { left, right })
}

fn fill() -> impl Strategy<Value = Fill> {
    prop_oneof![
        4 => Just(Fill::Normal),
        2 => Just(Fill::Spike),
        2 => Just(Fill::Staircase),
        1 => Just(Fill::Constant),
        1 => prop::sample::select(vec![Fill::Large(1e4), Fill::Large(1e5)]),
    ]
}

fn draw(kernel: Kernel) -> impl Strategy<Value = Draw> {
    let scale = prop_oneof![3 => Just(None), 1 => (-1.5..1.5_f32).prop_map(Some), 1 => Just(Some(0.0))];
    let positions = (diagonal(), any::<bool>(), window(), any::<bool>());
    let poison = prop::sample::select(vec![None, Some(f32::NAN), Some(f32::INFINITY), Some(f32::NEG_INFINITY)]);
    let numbers = (scale, 0.5..50.0_f32, fill(), poison, any::<u64>());
    let places = (prop::array::uniform4(arrangement()), prop::array::uniform2(0..16_u32));
    (shape(kernel), places, positions, numbers).prop_map(move |((shape, in_fours), places, positions, numbers)| {
        let (layouts, score_axes) = places;
        let (diagonal, causal, window, windowed) = positions;
        let (scale, softcap, fill, poison, seed) = numbers;
        let window = if windowed { window } else { Window::default() };
        Draw {
            kernel,
            shape,
            in_fours,
            layouts,
            score_axes,
            scale,
            softcap,
            diagonal,
            causal,
            window,
            fill,
            poison,
            seed,
        }
    })
}

impl Draw {
    fn layout(&self, which: usize, heads: u32, len: u32, dim: u32) -> Layout {
        let Arrangement { tokens_outermost, offset, gap } = self.layouts[which];
        let in_fours = |n: u64| if self.in_fours { n * 4 } else { n };
        let (offset, gap) = (in_fours(offset), in_fours(gap));
        let (heads, len, dim) = (u64::from(heads), u64::from(len), u64::from(dim));
        if tokens_outermost {
            let row = heads * dim + gap;
            Layout { offset, batch: len * row + gap, head: dim, row }
        } else {
            let row = dim + gap;
            let head = len * row + gap;
            Layout { offset, batch: heads * head, head, row }
        }
    }

    fn scores(&self, which: usize) -> ScoreLayout {
        let Shape { batch, heads_q, len_q, len_kv, .. } = self.shape;
        let dims = [batch, heads_q, len_q, len_kv];
        let axes = self.score_axes[which];
        ScoreLayout::broadcast(std::array::from_fn(|i| if axes >> i & 1 == 1 { dims[i] } else { 1 })).at(axes.into())
    }

    fn problem(&self) -> ProblemBuilder {
        let Shape { heads_q, heads_kv, len_q, len_kv, dim_qk, dim_v, .. } = self.shape;
        let Kernel { dtype, kv_dtype, out_dtype, softcap, mask, bias, kv_lengths, lse, weights, dropout, .. } =
            self.kernel;
        let mut problem = Problem::builder(self.shape)
            .dtype(dtype)
            .kv_dtype(kv_dtype)
            .out_dtype(out_dtype)
            .q(self.layout(0, heads_q, len_q, dim_qk))
            .k(self.layout(1, heads_kv, len_kv, dim_qk))
            .v(self.layout(2, heads_kv, len_kv, dim_v))
            .out(self.layout(3, heads_q, len_q, dim_v))
            .diagonal(self.diagonal)
            .window(self.window);
        problem = if self.causal { problem.causal(self.diagonal) } else { problem };
        problem = if let Some(scale) = self.scale { problem.scale(scale) } else { problem };
        problem = if softcap { problem.softcap(self.softcap) } else { problem };
        problem = if mask { problem.mask(self.scores(0)) } else { problem };
        problem = if let Some(bias) = bias { problem.bias(bias, self.scores(1)) } else { problem };
        problem = if kv_lengths { problem.kv_lengths() } else { problem };
        problem = if lse { problem.lse() } else { problem };
        if dropout {
            let p = self.softcap / 51.0;
            problem = problem.dropout(p, RngState::Fixed(Philox::new(self.seed, self.score_axes[0])));
        }
        if weights { self.with_weights(problem) } else { problem }
    }

    /// Adds the weights, of all or of some heads and rows.
    fn with_weights(&self, problem: ProblemBuilder) -> ProblemBuilder {
        let Shape { heads_q, len_q, .. } = self.shape;
        let [which, start, count] = [8, 32, 48].map(|bit| (self.seed >> bit) as u32 % (1 << 16));
        let mut heads: Vec<u32> = (0..heads_q).filter(|head| which >> head & 1 == 1).collect();
        if self.seed & 1 == 1 {
            heads.reverse();
        }
        let start = start % len_q;
        let end = start + 1 + count % (len_q - start);
        if heads.is_empty() { problem.weights() } else { problem.weights_of(heads, start..end) }
    }

    fn case(&self) -> Case {
        let mut case = drawn(self.problem(), self.fill, self.seed);
        if let Some(poison) = self.poison {
            poison_hidden(&mut case, poison);
        }
        case
    }
}

/// Whether one adapter computes a problem correctly, as the [`chosen_variants`] of that adapter.
fn holds(draw: &Draw, devices: &[Device]) -> Result<(), TestCaseError> {
    let case = draw.case();
    let expected = Expected::of(&case);
    expected.check(&naive(&case)).map_err(|wrong| TestCaseError::fail(wrong.to_string()))?;
    let mut in_turn = devices.iter().cycle().skip(draw.seed as usize % devices.len()).take(devices.len());
    let drawn = in_turn.find(|device| !device.variants(&case.problem).is_empty()).unwrap();
    for (device, variant) in chosen_variants(std::slice::from_ref(drawn), &case.problem) {
        let verdict = expected.check(&device.run(&case, &variant));
        verdict.map_err(|wrong| TestCaseError::fail(format!("{variant} on {}: {wrong}", device.name)))?;
    }
    Ok(())
}

/// The cases are the same every time, so a new failure comes from a change.
fn fuzz(cases: u32, seed: u8, kernels: impl Strategy<Value = Kernel>, devices: &[Device]) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]));
    let ran = runner.run(&kernels.prop_flat_map(draw), |draw| holds(&draw, devices));
    ran.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
}

/// Opens new devices for every kernel, because devices keep what they compiled, and a driver keeps some memory per
/// dispatch.
fn fuzz_each_kernel(cases: u32, first_seed: u8) {
    for (seed, kernel) in (first_seed..).zip(KERNELS) {
        fuzz(cases, seed, Just(kernel), &opened_anew());
    }
}

#[test]
fn random_problems_of_few_kernels() {
    fuzz_each_kernel(12, 1);
}

#[test]
fn random_problems_of_one_kernel_with_everything() {
    fuzz(120, 0, Just(ALL), all());
}

#[test]
#[ignore = "twenty minutes; cargo xtask test --full"]
fn many_random_problems_of_few_kernels() {
    fuzz_each_kernel(150, 50);
}

const ROUNDS: u8 = 6;

/// Nearly every draw needs other kernels, which take some seconds each to compile. The number of draws is what fits in
/// twenty minutes.
#[test]
#[ignore = "twenty minutes; cargo xtask test --full"]
fn random_problems_of_any_kernel() {
    for round in 1..=ROUNDS {
        fuzz(25, 100 + round, any_kernel(), &opened_anew());
        eprintln!("round {round} of {ROUNDS}");
    }
}
