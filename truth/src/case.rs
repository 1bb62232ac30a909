//! A problem and the numbers for it.

use std::borrow::Cow;

use wgpu_attention::reference::{self, ReferenceGradients, Row};
use wgpu_attention::{BindError, Dtype, Gradients, Inputs, Operand, Philox, Problem, RngState, View};

use crate::host::Host;
use crate::sequences::Sequences;

/// A problem with its inputs, each laid out as the problem says and holding values that its type can store.
#[derive(Clone, Debug)]
pub struct Case {
    /// The problem.
    pub problem: Problem,
    /// Its inputs.
    pub host: Host,
}

/// Every index of a (batch, head, row, column) box.
pub fn indices([batches, heads, rows, columns]: [u32; 4]) -> impl Iterator<Item = [u32; 4]> {
    (0..batches).flat_map(move |b| {
        (0..heads).flat_map(move |h| (0..rows).flat_map(move |i| (0..columns).map(move |j| [b, h, i, j])))
    })
}

/// The indices that reach each element of a view once, however it is broadcast.
pub fn distinct(view: &View) -> impl Iterator<Item = [u32; 4]> + use<> {
    let mut extent = view.extent;
    for (n, stride) in extent.iter_mut().zip(view.stride) {
        if stride == 0 {
            *n = (*n).min(1);
        }
    }
    indices(extent)
}

/// `x` as `dtype` stores it.
pub fn stored(dtype: Dtype, x: f32) -> f32 {
    match dtype {
        Dtype::F32 => x,
        Dtype::F16 => half::f16::from_f32(x).to_f32(),
        Dtype::Bf16 => half::bf16::from_f32(x).to_f32(),
    }
}

/// The distance between 1 and the next larger number of this type.
pub fn epsilon(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => f64::from(f32::EPSILON),
        Dtype::F16 => f64::from(half::f16::EPSILON),
        Dtype::Bf16 => f64::from(half::bf16::EPSILON),
    }
}

impl Case {
    /// A problem with these inputs, rounded to what its types can store. This does not check whether the inputs fit the
    /// problem; the functions that compute do.
    pub fn new(problem: Problem, mut host: Host) -> Self {
        let Host { q, k, v, bias, dout, .. } = &mut host;
        let stored = [
            (Operand::Q, Some(q)),
            (Operand::K, Some(k)),
            (Operand::V, Some(v)),
            (Operand::Bias, bias.as_mut()),
            // The gradient of the output has its type.
            (Operand::Out, dout.as_mut()),
        ];
        for (operand, values) in stored {
            if let Some(values) = values {
                round(problem.dtype(operand).unwrap_or_default(), values);
            }
        }
        Self { problem, host }
    }

    /// A case with the same inputs for another problem, whose layouts must agree.
    pub fn with_problem(&self, problem: Problem) -> Self {
        Self::new(problem, self.host.clone())
    }

    /// The state of the generator that dropout draws from, if there is dropout.
    pub fn generator(&self) -> Option<Philox> {
        match self.problem.rng_state()? {
            RngState::Fixed(state) => Some(state),
            RngState::Buffer => Some(self.host.rng_state.expect("the state of the generator is an input")),
        }
    }

    /// The inputs, borrowed as the library takes them.
    pub fn inputs(&self) -> Inputs<'_> {
        self.host.inputs()
    }

    /// The inputs without the gradients that come in, as the forward pass takes them.
    pub fn forward_inputs(&self) -> Inputs<'_> {
        Inputs { dout: None, dlse: None, ..self.inputs() }
    }

    /// The view of an operand.
    ///
    /// # Panics
    /// If the problem does not use it.
    pub fn view(&self, operand: Operand) -> View {
        self.problem.view(operand).unwrap_or_else(|| panic!("{operand} is not part of {:?}", self.problem))
    }

    /// The (batch, head, query) of every query row that has results, in their order.
    pub fn rows(&self) -> impl Iterator<Item = [u32; 3]> + use<> {
        self.stored_rows().into_iter().flatten()
    }

    /// Which of some rows have weights among the outputs, as indices in the order of the weights. If the problem has no
    /// weights, all rows in their own order.
    pub(crate) fn weight_order(&self, rows: &[[u32; 3]]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        if self.problem.uses(Operand::Weights) {
            order.retain(|&n| self.problem.weights_at(rows[n]).is_some());
            order.sort_by_key(|&n| self.problem.weights_at(rows[n]));
        }
        order
    }

    /// The (batch, head, query) of every row of the output, in order; `None` for a row of no sequence.
    pub fn stored_rows(&self) -> Vec<Option<[u32; 3]>> {
        let [batches, heads, rows, _] = self.view(Operand::Out).extent;
        let sequences = Sequences::new(self);
        let owners: Vec<_> = indices([batches, 1, rows, 1]).map(|[b, _, row, _]| sequences.query_at(b, row)).collect();
        let row = |[b, h, row, _]: [u32; 4]| {
            let [batch, query] = owners[(b * rows + row) as usize]?;
            Some([batch, h, query])
        };
        indices([batches, heads, rows, 1]).map(row).collect()
    }

    /// The row of `q`, `k` or `v` that holds a query or a key of a sequence.
    pub fn row(&self, operand: Operand, [batch, head, row]: [u32; 3]) -> Cow<'_, [f32]> {
        let (view, sequences) = (self.view(operand), Sequences::new(self));
        let [batch, row] =
            if operand == Operand::Q { sequences.query_place(batch, row) } else { sequences.key_place(batch, row) };
        let start = view.index([batch, head, row, 0]) as usize;
        let (shape, host) = (self.problem.shape(), &self.host);
        let quantized = match operand {
            Operand::K => Some((shape.dim_qk, &host.k_words)),
            Operand::V => Some((shape.dim_v, &host.v_words)),
            _ => None,
        };
        match (self.problem.quantization(), quantized) {
            (Some(quantization), Some((dim, Some(words)))) => quantization.decode(&words[start..], dim).into(),
            _ => self.elements(operand)[start..start + view.extent[3] as usize].into(),
        }
    }

    /// Element `at` of `q`, `k`, `v` or the bias.
    pub fn get(&self, operand: Operand, at: [u32; 4]) -> f32 {
        self.elements(operand)[self.view(operand).index(at) as usize]
    }

    fn elements(&self, operand: Operand) -> &[f32] {
        let host = &self.host;
        let elements = match operand {
            Operand::Q => Some(&host.q),
            Operand::K => Some(&host.k),
            Operand::V => Some(&host.v),
            Operand::Bias => host.bias.as_ref(),
            _ => None,
        };
        elements.unwrap_or_else(|| panic!("{operand} holds no elements"))
    }

    /// The element type of an operand that holds floating-point numbers.
    ///
    /// # Panics
    /// If it does not, or if the problem does not use it.
    pub fn dtype(&self, operand: Operand) -> Dtype {
        self.problem.dtype(operand).unwrap_or_else(|| panic!("{operand} holds no floating-point numbers"))
    }

    /// Replaces each element of `q`, `k`, `v` or the bias by the result of `new`, which gets its index and its value.
    ///
    /// # Panics
    /// If there is no such operand.
    pub fn edit(&mut self, operand: Operand, mut new: impl FnMut([u32; 4], f32) -> f32) {
        let (view, dtype, host) = (self.view(operand), self.dtype(operand), &mut self.host);
        let values = match operand {
            Operand::Q => Some(&mut host.q),
            Operand::K => Some(&mut host.k),
            Operand::V => Some(&mut host.v),
            Operand::Bias => host.bias.as_mut(),
            _ => None,
        };
        let values = values.unwrap_or_else(|| panic!("{operand} holds no elements to edit"));
        for at in distinct(&view) {
            let place = view.index(at) as usize;
            values[place] = stored(dtype, new(at, values[place]));
        }
    }

    /// Replaces each element of the mask by the result of `new`, which gets its index and its value.
    ///
    /// # Panics
    /// If there is no mask.
    pub fn edit_mask(&mut self, mut new: impl FnMut([u32; 4], bool) -> bool) {
        let view = self.view(Operand::Mask);
        let mask = self.host.mask.as_mut().unwrap_or_else(|| panic!("there is no mask to edit"));
        for at in distinct(&view) {
            let place = view.index(at) as usize;
            mask[place] = new(at, mask[place]);
        }
    }

    /// [`Self::edit`], returning the case.
    #[must_use]
    pub fn edited(mut self, operand: Operand, new: impl FnMut([u32; 4], f32) -> f32) -> Self {
        self.edit(operand, new);
        self
    }

    /// [`Self::edit_mask`], returning the case.
    #[must_use]
    pub fn masked(mut self, new: impl FnMut([u32; 4], bool) -> bool) -> Self {
        self.edit_mask(new);
        self
    }

    /// The case with these lengths.
    #[must_use]
    pub fn lengths(mut self, kv_lengths: &[u32]) -> Self {
        self.host.kv_lengths = Some(kv_lengths.to_vec());
        self
    }

    /// The case with the contents of its block mask. If the problem has a block mask and the case does not have its
    /// contents yet, they are computed from the masks.
    ///
    /// # Errors
    /// If the inputs do not fit the problem.
    pub fn with_block_mask(&self) -> Result<Cow<'_, Self>, BindError> {
        if self.problem.block_mask().is_none() || self.host.block_mask.is_some() {
            return Ok(Cow::Borrowed(self));
        }
        let inputs = self.forward_inputs();
        let numbers = self.with_programs(|programs| reference::block_mask(&self.problem, &inputs, programs))?;
        let host = Host { block_mask: Some(numbers), ..self.host.clone() };
        Ok(Cow::Owned(Self { problem: self.problem.clone(), host }))
    }

    /// The reference's result for a row.
    ///
    /// # Errors
    /// If the inputs do not fit the problem, or if there is no such row.
    pub fn exact(&self, at: [u32; 3]) -> Result<Row, BindError> {
        // Only gradients take the derivative of a `score_mod`, or a gradient of the results.
        let inputs = self.forward_inputs();
        self.with_programs(|programs| {
            let programs = reference::Programs { score_mod_grad: None, ..*programs };
            reference::row_with(&self.problem, &inputs, &programs, at)
        })
    }

    /// What the reference says that rows contribute to the gradients.
    ///
    /// # Errors
    /// If the inputs do not fit the gradients, or if there is no such row.
    pub fn exact_gradients(
        &self,
        gradients: &Gradients,
        rows: impl IntoIterator<Item = [u32; 3]>,
    ) -> Result<ReferenceGradients, BindError> {
        self.with_programs(|programs| reference::gradients_of_rows(gradients, &self.inputs(), programs, rows))
    }

    /// Calls `act` with the programs as the reference takes them.
    pub(crate) fn with_programs<T>(&self, act: impl FnOnce(&reference::Programs<'_>) -> T) -> T {
        let programs = &self.host.programs;
        let score_mod = programs.score_mod.as_ref().map(|run| move |score, at| run(score, at, self.host.aux()));
        let mask_mod = programs.mask_mod.as_ref().map(|run| move |at| run(at, self.host.aux()));
        let score_mod_grad = programs.score_mod_grad.as_ref();
        let score_mod_grad =
            score_mod_grad.map(|run| move |score, at, gradient| run(score, at, gradient, self.host.aux()));
        act(&reference::Programs {
            score_mod: score_mod.as_ref().map(|run| run as _),
            mask_mod: mask_mod.as_ref().map(|run| run as _),
            score_mod_grad: score_mod_grad.as_ref().map(|run| run as _),
        })
    }
}

fn round(dtype: Dtype, values: &mut [f32]) {
    if dtype != Dtype::F32 {
        values.iter_mut().for_each(|x| *x = stored(dtype, *x));
    }
}
