//! A problem and the numbers for it, and the visibility rule written a third time: not shared with the kernels, nor with
//! the reference.

use std::sync::Arc;

use wgpu_attention::reference::{self, At};
use wgpu_attention::{Diagonal, Dtype, Inputs, Operand, Problem, ProblemBuilder, ScoreLayout, Shape, View};

/// A problem with its inputs, each laid out as the problem says and holding values its type can store.
#[derive(Clone, Debug)]
pub struct Case {
    pub problem: Problem,
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub mask: Option<Vec<bool>>,
    pub bias: Option<Vec<f32>>,
    pub kv_lengths: Option<Vec<u32>>,
    pub alibi_slopes: Option<Vec<f32>>,
    pub sinks: Option<Vec<f32>>,
    pub aux: Option<Vec<f32>>,
    /// The programs of the problem, as Rust functions.
    pub programs: Programs,
}

/// What a problem's WGSL programs compute, in f64.
#[derive(Clone, Default)]
pub struct Programs {
    pub score_mod: Option<Arc<ScoreMod>>,
    pub mask_mod: Option<Arc<MaskMod>>,
}

/// Of a score, its place and the user's own numbers.
pub type ScoreMod = dyn Fn(f64, At, &[f32]) -> f64 + Send + Sync;
pub type MaskMod = dyn Fn(At, &[f32]) -> bool + Send + Sync;

impl std::fmt::Debug for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Programs({}, {})", self.score_mod.is_some(), self.mask_mod.is_some())
    }
}

/// Every index of a (batch, head, row, column) box.
pub fn indices([batches, heads, rows, columns]: [u32; 4]) -> impl Iterator<Item = [u32; 4]> {
    (0..batches).flat_map(move |b| {
        (0..heads).flat_map(move |h| (0..rows).flat_map(move |i| (0..columns).map(move |j| [b, h, i, j])))
    })
}

/// `x` as `dtype` stores it.
pub fn stored(dtype: Dtype, x: f32) -> f32 {
    match dtype {
        Dtype::F32 => x,
        Dtype::F16 => half::f16::from_f32(x).to_f32(),
        Dtype::Bf16 => half::bf16::from_f32(x).to_f32(),
    }
}

/// Half the distance between 1 and its upper neighbour is the most that rounding to `dtype` costs; ε is all of it.
pub fn epsilon(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => f64::from(f32::EPSILON),
        Dtype::F16 => f64::from(half::f16::EPSILON),
        Dtype::Bf16 => f64::from(half::bf16::EPSILON),
    }
}

impl Case {
    pub fn inputs(&self) -> Inputs<'_> {
        Inputs {
            q: &self.q,
            k: &self.k,
            v: &self.v,
            mask: self.mask.as_deref(),
            bias: self.bias.as_deref(),
            kv_lengths: self.kv_lengths.as_deref(),
            alibi_slopes: self.alibi_slopes.as_deref(),
            sinks: self.sinks.as_deref(),
            aux: self.aux.as_deref(),
        }
    }

    /// The view of an operand that the problem is known to use.
    pub fn view(&self, operand: Operand) -> View {
        self.problem.view(operand).unwrap_or_else(|| panic!("{operand} is not part of {:?}", self.problem))
    }

    /// The same numbers asked another question. The layouts must agree.
    pub fn asked(&self, problem: Problem) -> Self {
        Self { problem, ..self.clone() }
    }

    pub fn dtype_of(&self, operand: Operand) -> Dtype {
        match operand {
            Operand::Bias => self.problem.bias_dtype().unwrap_or_default(),
            _ => self.problem.dtype(),
        }
    }

    /// Replaces each element of `q`, `k`, `v` or the bias by what `new` makes of its place and its value.
    pub fn edit(&mut self, operand: Operand, mut new: impl FnMut([u32; 4], f32) -> f32) {
        let (view, dtype) = (self.view(operand), self.dtype_of(operand));
        let values = match operand {
            Operand::Q => &mut self.q,
            Operand::K => &mut self.k,
            Operand::V => &mut self.v,
            Operand::Bias => self.bias.as_mut().unwrap(),
            _ => panic!("{operand} holds no elements to edit"),
        };
        for at in distinct(&view) {
            let place = view.index(at) as usize;
            values[place] = stored(dtype, new(at, values[place]));
        }
    }

    /// The same for the mask.
    pub fn edit_mask(&mut self, mut new: impl FnMut([u32; 4], bool) -> bool) {
        let view = self.view(Operand::Mask);
        let mask = self.mask.as_mut().unwrap();
        for at in distinct(&view) {
            let place = view.index(at) as usize;
            mask[place] = new(at, mask[place]);
        }
    }

    pub fn edited(mut self, operand: Operand, new: impl FnMut([u32; 4], f32) -> f32) -> Self {
        self.edit(operand, new);
        self
    }

    pub fn masked(mut self, new: impl FnMut([u32; 4], bool) -> bool) -> Self {
        self.edit_mask(new);
        self
    }

    pub fn lengths(mut self, kv_lengths: &[u32]) -> Self {
        self.kv_lengths = Some(kv_lengths.to_vec());
        self
    }

    /// Element `at` of an operand.
    pub fn get(&self, operand: Operand, at: [u32; 4]) -> f32 {
        let place = self.view(operand).index(at) as usize;
        match operand {
            Operand::Q => self.q[place],
            Operand::K => self.k[place],
            Operand::V => self.v[place],
            Operand::Bias => self.bias.as_ref().unwrap()[place],
            _ => panic!("{operand} holds no elements"),
        }
    }

    /// One row of `q`, `k` or `v`.
    pub fn row(&self, operand: Operand, [batch, head, row]: [u32; 3]) -> &[f32] {
        let view = self.view(operand);
        let start = view.index([batch, head, row, 0]) as usize;
        let values = match operand {
            Operand::Q => &self.q,
            Operand::K => &self.k,
            _ => &self.v,
        };
        &values[start..start + view.extent[3] as usize]
    }

    /// How many keys of a batch are valid.
    fn valid(&self, batch: u32) -> i64 {
        let capacity = i64::from(self.problem.shape().len_kv);
        self.kv_lengths.as_ref().map_or(capacity, |all| i64::from(all[batch as usize]).min(capacity))
    }

    /// The key that a query stands at.
    pub fn stands_at(&self, batch: u32, i: u32) -> i64 {
        i64::from(i)
            + match self.problem.diagonal() {
                Diagonal::TopLeft => 0,
                Diagonal::Offset(offset) => i64::from(offset),
                Diagonal::BottomRight => self.valid(batch) - i64::from(self.problem.shape().len_q),
            }
    }

    /// Where a score stands, as programs see it.
    pub fn place(&self, [batch, head, query, key]: [u32; 4]) -> At {
        let kv_head = self.problem.shape().kv_head(head);
        At { batch, head, kv_head, query, key, diagonal: self.stands_at(batch, query) as i32 }
    }

    /// The user's own numbers.
    pub fn aux(&self) -> &[f32] {
        self.aux.as_deref().unwrap_or_default()
    }

    /// What the reference makes of a row.
    pub fn exact(&self, at: [u32; 3]) -> reference::Row {
        let score_mod = self.programs.score_mod.as_ref().map(|run| move |score, at| run(score, at, self.aux()));
        let mask_mod = self.programs.mask_mod.as_ref().map(|run| move |at| run(at, self.aux()));
        let programs = reference::Programs {
            score_mod: score_mod.as_ref().map(|run| run as &(dyn Fn(f64, At) -> f64 + Sync)),
            mask_mod: mask_mod.as_ref().map(|run| run as &(dyn Fn(At) -> bool + Sync)),
        };
        reference::row_with(&self.problem, &self.inputs(), &programs, at).unwrap()
    }

    /// Whether query `i` sees key `j`: every rule of the table of meanings, one to a line. A `score_mod` may hide it still.
    pub fn sees(&self, at: [u32; 4]) -> bool {
        let j = i64::from(at[3]);
        let (valid, stands_at) = (self.valid(at[0]), self.stands_at(at[0], at[2]));
        let window = self.problem.window();
        let rules = [
            j < valid,
            !self.problem.is_causal() || j <= stands_at,
            window.left.is_none_or(|left| stands_at - i64::from(left) <= j),
            window.right.is_none_or(|right| j <= stands_at + i64::from(right)),
            self.mask.as_ref().is_none_or(|mask| mask[self.view(Operand::Mask).index(at) as usize]),
            self.bias.is_none() || self.get(Operand::Bias, at) != f32::NEG_INFINITY,
            self.programs.mask_mod.as_ref().is_none_or(|mask_mod| mask_mod(self.place(at), self.aux())),
        ];
        rules.into_iter().all(|holds| holds)
    }

    /// (batch, head, row) of every query row, in the order results are kept in.
    pub fn rows(&self) -> impl Iterator<Item = [u32; 3]> + use<> {
        let shape = self.problem.shape();
        indices([shape.batch, shape.heads_q, shape.len_q, 1]).map(|[b, h, i, _]| [b, h, i])
    }
}

/// The indices that reach each element once, however it is broadcast.
pub fn distinct(view: &View) -> impl Iterator<Item = [u32; 4]> + use<> {
    let mut extent = view.extent;
    for (n, stride) in extent.iter_mut().zip(view.stride) {
        if stride == 0 {
            *n = 1;
        }
    }
    indices(extent)
}

/// A mask or a bias of its own for every score.
pub fn full(shape: Shape) -> ScoreLayout {
    ScoreLayout::broadcast([shape.batch, shape.heads_q, shape.len_q, shape.len_kv])
}

/// Every feature at once: one kernel, compiled once, that answers many tests' questions.
pub fn everything(shape: Shape, dtype: Dtype) -> ProblemBuilder {
    Problem::builder(shape).dtype(dtype).softcap(5.0).mask(full(shape)).bias(dtype, full(shape)).kv_lengths().lse()
}
