//! Runs kernels and judges what they compute.

use truth::{Case, Expected, Outputs, indices};
use wgpu_attention::{Attention, Call, Operand, Problem, Readback, Variant};

use crate::{cases, families};

/// The bytes of an output before a kernel writes it: NaN in every element type.
pub(crate) const UNWRITTEN: u8 = 0xff;

/// Which of the variants that can run a case are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The best one of each kernel.
    OneOfEachKernel,
    /// All of them.
    Every,
}

impl Which {
    fn of(self, attention: &Attention, case: &Case) -> Vec<Variant> {
        let candidates = attention.candidates(&case.problem).unwrap();
        match self {
            Self::OneOfEachKernel => cases::one_of_each_kernel(candidates),
            Self::Every => candidates,
        }
    }
}

/// The runs of attention that [`judge`] makes.
struct Runs {
    cases: Vec<(&'static str, Case, Vec<Variant>)>,
}

impl Runs {
    fn of(attention: &Attention, which: Which) -> Self {
        let several = cases::all().map(|(name, case)| (name, which.of(attention, &case), case));
        let one = cases::of_one_kernel().map(|(name, case)| {
            let mut variants = which.of(attention, &case);
            variants.truncate(1);
            (name, variants, case)
        });
        Self { cases: several.into_iter().chain(one).map(|(name, variants, case)| (name, case, variants)).collect() }
    }

    fn count(&self) -> usize {
        self.cases.iter().map(|(_, _, variants)| variants.len()).sum::<usize>() + families::COUNT
    }
}

/// Runs attention by the variants that `which` says, its gradients and appending to a cache. Tells of each run whether it is
/// right, with the number of all runs.
pub async fn judge(
    attention: &Attention,
    queue: &wgpu::Queue,
    which: Which,
    mut tell: impl FnMut(Result<String, String>, usize),
) {
    let runs = Runs::of(attention, which);
    let all = runs.count();
    for (name, case, variants) in &runs.cases {
        let expected = Expected::of(case);
        for variant in variants {
            let outcome = async {
                let outputs = outputs(attention, queue, case, variant).await.map_err(|error| error.to_string())?;
                let verdict = expected.check(&outputs).map_err(|wrong| wrong.to_string())?;
                Ok(format!("{:.2} of the tolerance", verdict.relative_error()))
            };
            tell(named(&format!("{name}: {variant}"), outcome.await), all);
        }
    }
    tell(named("gradients with dropout and a bias", families::gradients(attention, queue).await), all);
    tell(named("rotated keys appended in int8", families::append(attention, queue).await), all);
}

/// An outcome, with the name of what ran.
pub(crate) fn named(name: &str, outcome: Result<String, String>) -> Result<String, String> {
    outcome.map(|how| format!("{name}: {how}")).map_err(|wrong| format!("{name}: {wrong}"))
}

/// An error of a device: a kernel that is refused, or a loss.
pub(crate) type Failure = Box<dyn std::error::Error>;

async fn outputs(
    attention: &Attention,
    queue: &wgpu::Queue,
    case: &Case,
    variant: &Variant,
) -> Result<Outputs, Failure> {
    let device = attention.device();
    let plan = attention.plan_variant(&case.problem, variant)?;
    plan.ready().await?;
    let buffers = case.inputs().upload(device, &case.problem)?;
    let written = Operand::ALL.into_iter().filter(|operand| operand.is_output());
    let written = written.filter_map(|operand| Some((operand, buffers.get(operand)?)));
    for (_, buffer) in written.clone() {
        queue.write_buffer(buffer, 0, &vec![UNWRITTEN; buffer.size() as usize]);
    }
    let call = plan.bind(&buffers.operands())?;
    let (operands, read): (Vec<Operand>, Vec<&wgpu::Buffer>) = written.unzip();
    let results = finish(device, queue, &[call], &read).await?;

    let mut outputs = Outputs::default();
    for (operand, bytes) in operands.into_iter().zip(results) {
        let values = elements(&case.problem, operand, &bytes);
        match operand {
            Operand::Lse => outputs.lse = Some(values),
            Operand::Weights => outputs.weights = Some(values),
            _ => outputs.out = values,
        }
    }
    Ok(outputs.owned(case))
}

/// Runs calls one after another and reads buffers back.
pub(crate) async fn finish(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    calls: &[Call],
    read: &[&wgpu::Buffer],
) -> Result<Vec<Vec<u8>>, Failure> {
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    calls.iter().for_each(|call| call.encode(&mut encoder));
    let readbacks = read.iter().map(|buffer| Readback::record(device, &mut encoder, buffer.as_entire_buffer_binding()));
    let readbacks = readbacks.collect::<Result<Vec<Readback>, _>>()?;
    queue.submit([encoder.finish()]);
    let mut results = Vec::new();
    for readback in readbacks {
        results.push(readback.bytes().await?);
    }
    Ok(results)
}

/// The elements of an output in order.
fn elements(problem: &Problem, operand: Operand, bytes: &[u8]) -> Vec<f32> {
    let view = problem.view(operand).unwrap();
    let values = problem.dtype(operand).unwrap().decode(bytes);
    indices(view.extent).map(|at| values[view.index(at) as usize]).collect()
}
