//! Measures one shape on one device: every figure, before it is compared with the limits.

use std::hint::black_box;
use std::io::IsTerminal as _;

use anyhow::{Result, anyhow};
use wgpu_attention::{Attention, Buffers, Call, Dtype, Operand, PlanError, Problem, Variant};

use crate::guard::{self, Guard};
use crate::limits::Probes;
use crate::samples::{Effort, Samples};
use crate::timer::Timer;
use crate::workload::bytes;
use crate::{Gpu, Workload, input};

/// What measuring needs.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub(crate) gpu: &'a Gpu,
    pub(crate) attention: Attention,
    pub(crate) timer: Timer<'a>,
    pub(crate) probes: Probes<'a>,
}

/// What one variant takes for one problem.
#[derive(Clone, Debug)]
pub(crate) struct Measurement {
    /// Its name.
    pub(crate) variant: String,
    pub(crate) is_on_matrix_unit: bool,
    /// The operations that it must do, and the bytes that it must move.
    pub(crate) flop: f64,
    pub(crate) bytes: f64,
    /// The pass, with warm caches.
    pub(crate) pass: Samples,
    /// The pass, with caches full of something else; for decode shapes.
    pub(crate) cold: Option<Samples>,
    /// From recording to the output on the host.
    pub(crate) wall: Samples,
    /// Planning with the pipeline compiled.
    pub(crate) plan: Samples,
    /// Recording a call into a new encoder.
    pub(crate) record: Samples,
    pub(crate) extra_bytes: u64,
}

/// The variants to measure, or why there is none.
pub(crate) type Chosen = Result<Vec<Variant>, String>;

impl<'a> Bench<'a> {
    pub(crate) fn new(gpu: &'a Gpu) -> Result<Self> {
        let timer = Timer::new(gpu);
        let probes = Probes::new(gpu, &timer)?;
        Ok(Self { gpu, attention: Attention::with_caps(&gpu.device, gpu.caps()), timer, probes })
    }

    /// The selected variant and, if that is on a matrix unit, the best one that is not. If `text` is given, all variants
    /// with `text` in their names instead.
    pub(crate) fn choose(&self, problem: &Problem, text: Option<&str>) -> Chosen {
        let too_large = problem.views().find(|view| view.size_bytes() > self.attention.caps().buffer_bytes);
        if let Some(view) = too_large {
            return Err(format!("`{}` takes more than a buffer of this device holds", view.operand));
        }
        let able = self.attention.candidates(problem).map_err(|error: PlanError| error.to_string())?;
        let Some(text) = text else {
            // The best kernel without a matrix unit shows what the unit gains.
            let without = able.iter().find(|variant| able[0].is_on_matrix_unit() && !variant.is_on_matrix_unit());
            return Ok(able.iter().take(1).chain(without).cloned().collect());
        };
        let names: Vec<String> = able.iter().map(Variant::to_string).collect();
        let chosen: Vec<Variant> = able.into_iter().filter(|variant| variant.to_string().contains(text)).collect();
        if chosen.is_empty() {
            return Err(format!("no variant has {text:?} in its name; the variants are {}", names.join(", ")));
        }
        Ok(chosen)
    }

    pub(crate) fn measure(
        &self,
        workload: &Workload,
        problem: &Problem,
        chosen: &[Variant],
    ) -> Result<Vec<Measurement>> {
        let case = input::case(workload, problem);
        let buffers = case.inputs().upload(&self.gpu.device, problem)?;
        let guard = Guard::new(&case)?;
        chosen.iter().map(|variant| self.variant(workload, &guard, &buffers, variant)).collect()
    }

    fn variant(
        &self,
        workload: &Workload,
        guard: &Guard<'_>,
        buffers: &Buffers,
        variant: &Variant,
    ) -> Result<Measurement> {
        // Compiling may take half a minute.
        if std::io::stderr().is_terminal() {
            eprintln!("    compiling and measuring {variant}");
        }
        let problem = guard.problem();
        let plan = self.attention.plan_variant(problem, variant)?;
        let call = plan.bind(&buffers.operands())?;
        let out = buffers.get(Operand::Out).ok_or_else(|| anyhow!("every problem has an output"))?;
        guard.check(self.gpu, (variant, &call), out)?;

        let once = || self.timer.pass(|pass| call.dispatch(pass));
        let pass = Samples::of(Effort::RUN, once)?;
        let swept = || self.probes.sweep(&self.timer).and_then(|()| once());
        let cold = workload.is_decode().then(|| Samples::of(Effort::COLD, swept)).transpose()?;
        let wall = Samples::timed(Effort::WALL, || {
            read_back(self.gpu, &call, out, problem.dtype(Operand::Out).unwrap_or_default())
        })?;
        let plan_again = || self.attention.plan_variant(problem, variant).map(|plan| drop(black_box(plan)));
        let planning = Samples::timed(Effort::HOST, || Ok(plan_again()?))?;
        let record = Samples::timed(Effort::HOST, || {
            self.record(&call);
            Ok(())
        })?;
        self.gpu.take_errors()?;
        Ok(Measurement {
            variant: variant.to_string(),
            is_on_matrix_unit: variant.is_on_matrix_unit(),
            flop: workload.flop(),
            bytes: bytes(problem),
            pass,
            cold,
            wall,
            plan: planning,
            record,
            extra_bytes: plan.scratch_bytes(),
        })
    }

    pub(crate) fn record(&self, call: &Call) {
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        call.encode(&mut encoder);
        black_box(encoder.finish());
    }
}

fn read_back(gpu: &Gpu, call: &Call, out: &wgpu::Buffer, dtype: Dtype) -> Result<()> {
    guard::output(gpu, call, out, dtype).map(|values| drop(black_box(values)))
}
