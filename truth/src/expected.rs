//! The exact results of a case, and how far from them a result may be.
//!
//! A row passes if `err ≤ 2·err(naive) + 4ε·scale`. Both errors are the largest of the row, against the f64 reference. The
//! naive computation is the textbook formula in f32 on the stored inputs, with the result rounded to the storage type.
//! There are several equally good ways to compute it, and the worst one counts. ε is that of the storage type. The scale is
//! the size of the numbers that the result is made of:
//!
//! - output: the largest |V| the row sees;
//! - weights: the largest weight of the row (they are the output for one-hot V, sharpened);
//! - LSE, always f32: the largest |score| the row sees, and at least 1, for a sum of exponentials near 1.
//!
//! A row that sees no key has scale 0 and no error: its output must be 0 and its LSE −∞, exactly.

use std::fmt::{self, Display, Formatter};

use rayon::prelude::*;
use wgpu_attention::{BindError, Dtype, Operand};

use crate::case::{Case, epsilon};
use crate::naive::{Row, Way};

/// What was computed, contiguous in (batch, head, row) order for any layouts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    /// The output, (B, Hq, Lq, Dv).
    pub out: Vec<f32>,
    /// The log-sum-exp, (B, Hq, Lq).
    pub lse: Option<Vec<f32>>,
    /// The weights, (B, Hq, Lq, Lk), or those of chosen heads and rows in the order of the problem.
    pub weights: Option<Vec<f32>>,
    /// Describes a write that belongs to no row, if there was one.
    pub stray: Option<String>,
}

impl Outputs {
    /// These results, of every row of the output, without those of no sequence.
    #[must_use]
    pub fn owned(mut self, case: &Case) -> Self {
        let rows = case.stored_rows();
        if rows.contains(&None) {
            for values in [Some(&mut self.out), self.lse.as_mut(), self.weights.as_mut()].into_iter().flatten() {
                let width = values.len() / rows.len().max(1);
                let owned = values.chunks(width.max(1)).zip(&rows).filter(|(_, row)| row.is_some());
                *values = owned.flat_map(|(values, _)| values).copied().collect();
            }
        }
        self
    }

    /// The bits of all values, for exact comparisons that include NaN.
    pub fn bits(&self) -> [Vec<u32>; 3] {
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect();
        let of = |values: &Option<Vec<f32>>| bits(values.as_deref().unwrap_or_default());
        [bits(&self.out), of(&self.lse), of(&self.weights)]
    }
}

/// The exact results of a case, and the tolerance of each row.
#[derive(Debug)]
pub struct Expected {
    rows: Vec<[u32; 3]>,
    /// The rows whose weights are written, in the order of the weights.
    weight_rows: Vec<[u32; 3]>,
    out: Quantity,
    lse: Quantity,
    weights: Quantity,
}

/// One of the three results: exact values, `width` per row, and a tolerance for each row.
#[derive(Debug)]
struct Quantity {
    operand: Operand,
    width: usize,
    exact: Vec<f64>,
    tolerance: Vec<f64>,
}

/// The row that came closest to its tolerance.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// The error of the row.
    pub error: f64,
    /// The largest error allowed.
    pub allowed: f64,
    /// Which result it is a row of.
    pub operand: Operand,
    /// Its batch, head and query.
    pub at: [u32; 3],
}

impl Verdict {
    /// The error in units of the tolerance.
    pub fn relative_error(&self) -> f64 {
        if self.error == 0.0 { 0.0 } else { self.error / self.allowed }
    }

    /// Whether the error is too large. NaN counts as too large.
    #[expect(clippy::neg_cmp_op_on_partial_ord, reason = "that NaN fails is the point")]
    fn fails(&self) -> bool {
        !(self.error <= self.allowed)
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { error, allowed, operand, at } = self;
        write!(f, "error {error:.1e}, allowed {allowed:.1e} ({operand} at {at:?})")
    }
}

/// Why results are not right.
#[derive(Clone, Debug)]
pub enum Wrong {
    /// The number of values is wrong.
    Count {
        /// The result whose values they are.
        operand: Operand,
        /// How many there are.
        got: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A row is too far off.
    Row {
        /// The error of the row, and the error allowed.
        verdict: Verdict,
        /// The index in the row of the first value that is too far off.
        first: usize,
        /// That value.
        got: f32,
        /// What that value should be.
        exact: f64,
    },
    /// Something was written where nothing belongs.
    Stray(String),
}

impl Display for Wrong {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count { operand, got, expected } => write!(f, "{operand}: {got} values, not {expected}"),
            Self::Row { verdict: Verdict { error, allowed, operand, at }, first, got, exact } => write!(
                f,
                "{operand} of row (batch, head, query) = {at:?} is off by {error:e} > {allowed:e}, first at [{first}]: {got} \
                 instead of {exact}"
            ),
            Self::Stray(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Wrong {}

/// The distance between a value and the exact one. It is 0 between equal infinities, whose difference is NaN.
fn distance(got: f32, exact: f64) -> f64 {
    if f64::from(got) == exact { 0.0 } else { (f64::from(got) - exact).abs() }
}

/// The largest distance between a row and its exact values, or NaN if any distance is NaN.
fn error(got: &[f32], exact: &[f64]) -> f64 {
    let distances = got.iter().zip(exact).map(|(&x, &exact)| distance(x, exact));
    distances.fold(0.0, |most, distance| if distance > most || distance.is_nan() { distance } else { most })
}

impl Quantity {
    const fn new(operand: Operand, width: u32) -> Self {
        Self { operand, width: width as usize, exact: Vec::new(), tolerance: Vec::new() }
    }

    fn push(&mut self, Judged { exact, tolerance }: &Judged) {
        self.exact.extend(exact);
        self.tolerance.push(*tolerance);
    }

    /// Raises `worst` to the verdict on the worst of the `rows` that `judged` selects.
    fn check(
        &self,
        got: &[f32],
        rows: &[[u32; 3]],
        judged: &dyn Fn([u32; 3]) -> bool,
        worst: &mut Verdict,
    ) -> Result<(), Wrong> {
        let Self { operand, width, .. } = *self;
        if got.len() != self.exact.len() {
            return Err(Wrong::Count { operand, got: got.len(), expected: self.exact.len() });
        }
        for (row, &at) in rows.iter().enumerate().filter(|&(_, &at)| judged(at)) {
            let range = row * width..(row + 1) * width;
            let (got, exact) = (&got[range.clone()], &self.exact[range]);
            let verdict = |error| Verdict { error, allowed: self.tolerance[row], operand, at };
            let whole = verdict(error(got, exact));
            if whole.fails() {
                let first = (0..width).find(|&j| verdict(distance(got[j], exact[j])).fails()).unwrap_or(0);
                return Err(Wrong::Row { verdict: whole, first, got: got[first], exact: exact[first] });
            }
            if whole.relative_error() > worst.relative_error() {
                *worst = whole;
            }
        }
        Ok(())
    }
}

/// A row of a result: its exact values, and its tolerance.
struct Judged {
    exact: Vec<f64>,
    tolerance: f64,
}

impl Judged {
    fn new(exact: Vec<f64>, naives: &[Vec<f32>; 4], dtype: Dtype, scale: f32) -> Self {
        let naive = naives.iter().map(|naive| error(naive, &exact)).fold(0.0, f64::max);
        Self { tolerance: 2.0 * naive + 4.0 * epsilon(dtype) * f64::from(scale), exact }
    }

    /// Output, LSE and weights of a row.
    fn of_row(case: &Case, at: [u32; 3]) -> Result<[Self; 3], BindError> {
        let (exact, row) = (case.exact(at)?, Row::new(case, at));
        let dtype = case.dtype(Operand::Out);
        let naives = Way::ALL.map(|way| row.computed(way));
        let store = |values: &[f32]| dtype.decode(&dtype.encode(values));
        let largest_weight = exact.weights.iter().fold(0.0_f32, |most, &p| most.max(p as f32));
        let largest_score = if exact.lse == f64::NEG_INFINITY { 0.0 } else { naives[0].largest_score.max(1.0) };
        let out = naives.each_ref().map(|row| store(&row.out));
        let lse = naives.each_ref().map(|row| vec![row.lse]);
        let weights = naives.each_ref().map(|row| store(&row.weights));
        Ok([
            Self::new(exact.out, &out, dtype, naives[0].largest_v),
            Self::new(vec![exact.lse], &lse, Dtype::F32, largest_score),
            Self::new(exact.weights, &weights, dtype, largest_weight),
        ])
    }
}

impl Expected {
    /// Computes every row of a case in f64, and several times in f32.
    ///
    /// # Errors
    /// If the inputs do not fit the problem.
    pub fn new(case: &Case) -> Result<Self, BindError> {
        Self::of_rows(case, case.rows().collect())
    }

    /// Like [`Self::new`], for some rows (batch, head, query) of a case that is too large to compute whole. The outputs to
    /// check must then hold only these rows.
    ///
    /// # Errors
    /// If the inputs do not fit the problem, or if there is no such row.
    pub fn of_rows(case: &Case, rows: Vec<[u32; 3]>) -> Result<Self, BindError> {
        let shape = case.problem.shape();
        let order = case.weight_order(&rows);
        let judged: Vec<[Judged; 3]> = rows.par_iter().map(|&at| Judged::of_row(case, at)).collect::<Result<_, _>>()?;
        let mut expected = Self {
            weight_rows: order.iter().map(|&n| rows[n]).collect(),
            rows,
            out: Quantity::new(Operand::Out, shape.dim_v),
            lse: Quantity::new(Operand::Lse, 1),
            weights: Quantity::new(Operand::Weights, shape.len_kv),
        };
        let mut all_weights = Vec::new();
        for [out, lse, weights] in judged {
            expected.out.push(&out);
            expected.lse.push(&lse);
            all_weights.push(weights);
        }
        order.iter().for_each(|&n| expected.weights.push(&all_weights[n]));
        Ok(expected)
    }

    /// [`Self::new`] for inputs that are known to fit.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn of(case: &Case) -> Self {
        Self::new(case).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The row that came closest to its tolerance, or what is wrong.
    ///
    /// # Errors
    /// [`Wrong`] says which row is off, and by how much.
    pub fn check(&self, got: &Outputs) -> Result<Verdict, Wrong> {
        self.check_rows(got, |_| true)
    }

    /// Like [`Self::check`], but only for the rows (batch, head, query) that `judged` selects.
    ///
    /// # Errors
    /// As for [`Self::check`].
    pub fn check_rows(&self, got: &Outputs, judged: impl Fn([u32; 3]) -> bool) -> Result<Verdict, Wrong> {
        if let Some(stray) = &got.stray {
            return Err(Wrong::Stray(stray.clone()));
        }
        let mut worst = Verdict { error: 0.0, allowed: 0.0, operand: Operand::Out, at: [0; 3] };
        self.out.check(&got.out, &self.rows, &judged, &mut worst)?;
        let others = [(&self.lse, &self.rows, &got.lse), (&self.weights, &self.weight_rows, &got.weights)];
        for (quantity, rows, got) in others {
            if let Some(got) = got {
                quantity.check(got, rows, &judged, &mut worst)?;
            }
        }
        Ok(worst)
    }
}
