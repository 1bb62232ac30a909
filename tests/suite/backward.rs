//! Cases with gradients: what comes in, how they run on every adapter, and those that several tests use.

use truth::{Case, ExpectedGradients, Fill, GradientOutputs};
use wgpu_attention::{
    Attention, Diagonal, Dtype, Gradients, GradientsBuilder, Operand, Operands, Problem, ProblemBuilder, Shape, Slopes,
    View, reference,
};

use crate::case::{drawn, full};
use crate::contents::{contents, elements_of, strays, unwritten};
use crate::device::{self, Device};

/// A case with a gradient of its output and, if one comes in, of its log-sum-exp.
pub struct Backward {
    pub case: Case,
    pub gradients: Gradients,
}

impl Backward {
    pub fn new(problem: ProblemBuilder, fill: Fill, seed: u64) -> Self {
        Self::with(problem, fill, seed, |gradients| gradients)
    }

    pub fn with(
        problem: ProblemBuilder,
        fill: Fill,
        seed: u64,
        change: impl FnOnce(GradientsBuilder) -> GradientsBuilder,
    ) -> Self {
        let case = drawn(problem.lse(), fill, seed);
        let gradients = change(case.problem.gradients()).build().unwrap_or_else(|error| panic!("{error}"));
        Self::of(case, gradients, seed)
    }

    /// Draws what comes in.
    pub fn of(mut case: Case, gradients: Gradients, seed: u64) -> Self {
        case.draw_incoming(&gradients, seed);
        Self { case, gradients }
    }

    pub fn views(&self) -> impl Iterator<Item = View> {
        Operand::ALL.into_iter().filter_map(|operand| self.gradients.view(operand))
    }

    fn contents(&self, view: &View) -> Vec<u8> {
        let encode =
            |values: &Option<Vec<f32>>| self.gradients.dtype(view.operand).unwrap().encode(values.as_ref().unwrap());
        let mut bytes = match view.operand {
            Operand::Dout => encode(&self.case.host.dout),
            Operand::Dlse => encode(&self.case.host.dlse),
            gradient if gradient.is_gradient() => self.unwritten_rows(view),
            operand => contents(&self.case, operand),
        };
        bytes.resize(bytes.len().next_multiple_of(4).max(4), 0xa5);
        bytes
    }

    /// What the buffer of a gradient holds before a run. Rows of no sequence are like what lies between rows.
    fn unwritten_rows(&self, view: &View) -> Vec<u8> {
        let mut bytes = unwritten(view);
        let host = &self.case.host;
        let bounds = match view.operand {
            Operand::Dq => &host.cu_seqlens_q,
            Operand::Dk | Operand::Dv => &host.cu_seqlens_k,
            _ => &None,
        };
        let Some(bounds) = bounds else { return bytes };
        let size = view.element_bytes as usize;
        for at in truth::distinct(view).filter(|at| !bounds.windows(2).any(|ends| (ends[0]..ends[1]).contains(&at[2])))
        {
            bytes[view.index(at) as usize * size..][..size].fill(0xa5);
        }
        bytes
    }

    /// Runs forward and backward in one pass.
    pub fn run(&self, device: &Device) -> GradientOutputs {
        self.run_by(device, &device.attention).unwrap_or_else(|stray| panic!("{}: {stray}", device.name))
    }

    /// The same with gradients by kernels that may be wrong or are for other devices. An error says what was written where nothing
    /// belongs.
    pub fn run_by(&self, device: &Device, attention: &Attention) -> Result<GradientOutputs, String> {
        let _guard = device.enter();
        let (forward, backward) =
            (device.attention.plan(&self.case.problem).unwrap(), attention.plan_gradients(&self.gradients).unwrap());
        let before: Vec<(View, Vec<u8>)> = self.views().map(|view| (view, self.contents(&view))).collect();
        let buffers: Vec<(View, wgpu::Buffer)> =
            before.iter().map(|(view, bytes)| (*view, device.upload(bytes))).collect();
        let operands = |uses: &dyn Fn(Operand) -> bool| -> Operands<'_> {
            let used = buffers.iter().filter(|(view, _)| uses(view.operand));
            used.map(|(view, buffer)| (view.operand, buffer.as_entire_buffer_binding())).collect()
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
                if let Some(stray) = strays(view, before, &bytes) {
                    return Err(stray);
                }
                let values = self.gradients.dtype(view.operand).unwrap().decode(&bytes);
                let values = if view.operand == Operand::Dbias {
                    elements_of(view, self.gradients.dtype(view.operand).unwrap(), &bytes)
                } else {
                    values
                };
                Ok((view.operand, values))
            })
            .collect::<Result<_, String>>()?;
        Ok(GradientOutputs::gathered(&self.case, &self.gradients, |wanted| {
            read.iter().find_map(|(operand, values)| (*operand == wanted).then(|| values.clone()))
        }))
    }

    /// Runs on every adapter, and checks every row.
    pub fn verify(&self) {
        let expected = ExpectedGradients::new(&self.case, &self.gradients).unwrap();
        for device in devices() {
            if let Err(wrong) = expected.check(&self.run(device)) {
                panic!("{}: {wrong}\n{:?}", device.name, self.case.problem);
            }
        }
    }
}

/// The devices with kernels of their own; the same drivers as other devices would run the same kernels again.
pub fn devices() -> impl Iterator<Item = &'static Device> {
    device::all().iter().filter(|device| !device.name.contains("as a GPU"))
}

/// A device that is treated as a GPU whose threads have so many registers, and whose workgroups have so many bytes.
pub fn as_gpu(device: &Device, registers: u32, bytes: u32) -> Attention {
    let mut caps = *device.attention.caps();
    let most = device.attention.device().limits().max_compute_workgroup_storage_size;
    (caps.is_software, caps.thread_registers, caps.workgroup_bytes) = (false, registers, bytes.min(most));
    Attention::with_caps(device.attention.device(), caps)
}

pub fn shape() -> Shape {
    Shape::new(2, 4, 45, 24).kv_heads(2).kv_len(70)
}

/// What scores may have besides programs, as far as eight buffers suffice, in few kernels.
pub fn everything(shape: Shape) -> [ProblemBuilder; 2] {
    let common = || Problem::builder(shape).softcap(5.0).kv_lengths().causal(Diagonal::BottomRight);
    [common().mask(full(shape)).bias(Dtype::F32, full(shape)), common().alibi(Slopes::PerHead).sinks()]
}

const SCORE_MOD: &str = "
fn score_mod(score: f32, at: At) -> f32 { return score * score * 0.3 + aux[at.head] * f32(at.key); }
fn score_mod_grad(score: f32, at: At, gradient: f32) -> f32 { return 0.6 * score * gradient; }";

pub fn with_programs() -> Backward {
    let tiles = wgpu_attention::BlockMask::new(32, 32).per_batch().per_head();
    let problem = Problem::builder(shape())
        .score_mod(SCORE_MOD)
        .mask_mod("fn mask_mod(at: At) -> bool { return (at.query / 16u + at.key / 16u) % 3u != 1u; }")
        .block_mask(tiles)
        .aux(4)
        .softcap(3.0);
    let case = drawn(problem.lse(), Fill::Normal, 1);
    let gradients = case.problem.gradients().score_mod_grad(SCORE_MOD).build().unwrap();
    let mut backward = Backward::of(case, gradients, 1);
    let host = &mut backward.case.host;
    host.aux = Some(vec![0.01, -0.02, 0.03, 0.0]);
    host.block_mask = None;
    let aux = |at: reference::At, aux: &[f32]| f64::from(aux[at.head as usize]) * f64::from(at.key);
    host.programs = truth::Programs {
        score_mod: Some(std::sync::Arc::new(move |score, at, numbers| score * score * 0.3 + aux(at, numbers))),
        mask_mod: Some(std::sync::Arc::new(|at, _| (at.query / 16 + at.key / 16) % 3 != 1)),
        score_mod_grad: Some(std::sync::Arc::new(|score, _, gradient, _| 0.6 * score * gradient)),
    };
    backward.case = backward.case.with_block_mask().unwrap().into_owned();
    backward
}

/// A case whose hidden rows and keys hold `poison`, and what is expected without it.
pub fn poisoned(problem: ProblemBuilder, queries: [u32; 2], poison: f32) -> (Backward, ExpectedGradients) {
    let mut backward = Backward::new(problem, Fill::Normal, 3);
    let host = &mut backward.case.host;
    host.q_lengths = host.q_lengths.as_ref().map(|_| queries.to_vec());
    host.kv_lengths = Some(vec![70, 33]);
    // Key 5 is hidden from all, and row 7 sees nothing.
    backward.case.edit_mask(|[_, _, i, j], attend| attend && j != 5 && i != 7);
    let expected = ExpectedGradients::new(&backward.case, &backward.gradients).unwrap();
    {
        let is_query = |b: u32, i: u32| i < queries[b as usize] && i != 7;
        let is_key = |b: u32, j: u32| j < [70, 33][b as usize] && j != 5;
        backward.case.edit(Operand::Q, |[b, _, i, _], x| if is_query(b, i) { x } else { poison });
        for operand in [Operand::K, Operand::V] {
            backward.case.edit(operand, |[b, _, j, _], x| if is_key(b, j) { x } else { poison });
        }
        let view = backward.gradients.view(Operand::Dout).unwrap();
        for at in truth::distinct(&view).filter(|&[b, _, i, _]| !is_query(b, i)) {
            backward.case.host.dout.as_mut().unwrap()[view.index(at) as usize] = poison;
        }
    }
    (backward, expected)
}
