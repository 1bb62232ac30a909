//! Gradients: every input's, of everything that the forward pass takes.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use truth::{Case, ExpectedGradients, Fill, GradientOutputs, Host, stored};
use wgpu_attention::{
    Diagonal, Dtype, Gradients, GradientsBuilder, Layout, MaskFormat, Operand, Operands, Problem, ProblemBuilder,
    ScoreLayout, Shape, Slopes, View, Window, reference,
};

use crate::case::{drawn, full};
use crate::device::{self, Device, contents, elements_of, strays, unwritten};

/// A case with a gradient of its output and, if one comes in, of its log-sum-exp.
struct Backward {
    case: Case,
    gradients: Gradients,
}

impl Backward {
    fn new(problem: ProblemBuilder, fill: Fill, seed: u64) -> Self {
        Self::with(problem, fill, seed, |gradients| gradients)
    }

    fn with(
        problem: ProblemBuilder,
        fill: Fill,
        seed: u64,
        change: impl FnOnce(GradientsBuilder) -> GradientsBuilder,
    ) -> Self {
        let case = drawn(problem.lse(), fill, seed);
        let gradients = change(case.problem.gradients()).build().unwrap_or_else(|error| panic!("{error}"));
        Self::of(case, gradients, seed)
    }

    /// Draws what comes in. Gaps between rows, and rows of no sequence, hold NaN.
    fn of(mut case: Case, gradients: Gradients, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0xd0);
        let mut draw = |operand: Operand| {
            let view = gradients.view(operand)?;
            let dtype = gradients.dtype(operand).unwrap();
            let mut values = vec![f32::NAN; view.end() as usize];
            for at in truth::distinct(&view) {
                values[view.index(at) as usize] = stored(dtype, rng.random_range(-2.0..2.0));
            }
            Some(values)
        };
        (case.host.dout, case.host.dlse) = (draw(Operand::Dout), draw(Operand::Dlse));
        Self { case, gradients }
    }

    fn views(&self) -> impl Iterator<Item = View> {
        Operand::ALL.into_iter().filter_map(|operand| self.gradients.view(operand))
    }

    fn contents(&self, view: &View) -> Vec<u8> {
        let encode = |values: &Option<Vec<f32>>| {
            self.gradients.dtype(view.operand).unwrap().encode(values.as_ref().unwrap())
        };
        let mut bytes = match view.operand {
            Operand::Dout => encode(&self.case.host.dout),
            Operand::Dlse => encode(&self.case.host.dlse),
            gradient if gradient.is_gradient() => unwritten(view),
            operand => contents(&self.case, operand),
        };
        bytes.resize(bytes.len().next_multiple_of(4), 0xa5);
        bytes
    }

    /// Runs forward and backward in one pass.
    fn run(&self, device: &Device) -> GradientOutputs {
        self.run_by(device, &device.attention)
    }

    fn run_by(&self, device: &Device, attention: &wgpu_attention::Attention) -> GradientOutputs {
        let _guard = device.enter();
        let (forward, backward) =
            (attention.plan(&self.case.problem).unwrap(), attention.plan_gradients(&self.gradients).unwrap());
        let before: Vec<(View, Vec<u8>)> = self.views().map(|view| (view, self.contents(&view))).collect();
        let buffers: Vec<(View, wgpu::Buffer)> =
            before.iter().map(|(view, bytes)| (*view, device.upload(bytes))).collect();
        let operands = |uses: &dyn Fn(Operand) -> bool| {
            let used = buffers.iter().filter(|(view, _)| uses(view.operand));
            used.fold(Operands::default(), |operands, (view, buffer)| {
                operands.with(view.operand, buffer.as_entire_buffer_binding())
            })
        };
        let calls = [
            forward.bind(&operands(&|operand| self.case.problem.uses(operand))).unwrap(),
            backward.bind(&operands(&|_| true)).unwrap(),
        ];
        let written = || buffers.iter().filter(|(view, _)| view.operand.is_gradient());
        let bytes = device.finish_all(&calls, written().map(|(_, buffer)| buffer));
        crate::coverage::ran(device, backward.variants());
        let read: Vec<(Operand, Vec<f32>)> = written()
            .zip(bytes)
            .map(|((view, _), bytes)| {
                let before = &before.iter().find(|(other, _)| other == view).unwrap().1;
                assert_eq!(strays(view, before, &bytes), None);
                let values = self.gradients.dtype(view.operand).unwrap().decode(&bytes);
                let values = if view.operand == Operand::Dbias {
                    elements_of(view, self.gradients.dtype(view.operand).unwrap(), &bytes)
                } else {
                    values
                };
                (view.operand, values)
            })
            .collect();
        GradientOutputs::gathered(&self.case, &self.gradients, |wanted| {
            read.iter().find_map(|(operand, values)| (*operand == wanted).then(|| values.clone()))
        })
    }

    /// Runs on every adapter, and checks every row.
    fn verify(&self) {
        let expected = ExpectedGradients::new(&self.case, &self.gradients).unwrap();
        for device in device::all() {
            if let Err(wrong) = expected.check(&self.run(device)) {
                panic!("{}: {wrong}\n{:?}", device.name, self.case.problem);
            }
        }
    }
}

fn shape() -> Shape {
    Shape::new(2, 4, 45, 24).kv_heads(2).kv_len(70)
}

#[test]
fn gradients_of_plain_attention_are_right() {
    for (n, shape) in [
        Shape::new(1, 1, 1, 4),
        Shape::new(1, 1, 33, 5),
        shape(),
        shape().value_dim(40),
        Shape::new(1, 2, 64, 64),
        Shape::new(1, 1, 97, 128),
    ]
    .into_iter()
    .enumerate()
    {
        Backward::new(Problem::builder(shape), Fill::Normal, n as u64).verify();
    }
}
