//! The report of one measurement: the figures, their shares of the limits, and their origin.

use serde::{Deserialize, Serialize};
use wgpu_attention::{Operand, Problem, Shape};

use crate::device::backend_name;
use crate::limits::Limits;
use crate::measure::Measurement;
use crate::{Gpu, Workload};

/// One variant on one problem. Times are in the unit that the field's name ends in; shares are from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// `prefill`, `decode`, `backward`, or `shape` for one given by hand.
    pub suite: String,
    /// What the shape is called, where it has a name.
    pub name: Option<String>,
    /// The number of batches.
    pub batch: u32,
    /// The number of query heads.
    pub heads_q: u32,
    /// The number of KV heads.
    pub heads_kv: u32,
    /// The number of queries.
    pub len_q: u32,
    /// The number of keys.
    pub len_k: u32,
    /// The head size, of keys and of values.
    pub dim: u32,
    /// Whether it is causal.
    pub causal: bool,
    /// Whether a mask hides keys.
    pub mask: bool,
    /// How the elements are stored.
    pub dtype: String,
    /// The name of the variant, or of all kernels of a backward pass.
    pub variant: String,
    /// The adapter.
    pub device: String,
    /// Time on the device, the median of several runs.
    pub median_ms: f64,
    /// Operations per second of that time; of a backward pass, those of its five products.
    pub tflops: f64,
    /// Bytes of q, k, v and the output, and of what a backward pass adds to them, each once, per second of that time.
    pub gbps: f64,
    /// `tflops` as a share of `fma_tflops`.
    pub share_of_fma: f64,
    /// `tflops` as a share of `matrix_tflops`, for a kernel on the matrix unit.
    #[serde(default)]
    pub share_of_matrix: Option<f64>,
    /// `gbps` as a share of `read_gbps`.
    pub share_of_read: f64,
    /// The fastest run.
    pub min_ms: f64,
    /// The slowest run.
    pub max_ms: f64,
    /// From recording to the output on the host.
    pub wall_ms: f64,
    /// Time on the device after its caches were filled with something else; for decode shapes.
    pub cold_ms: Option<f64>,
    /// Planning, with the kernel compiled.
    pub plan_us: f64,
    /// Recording a call.
    pub record_us: f64,
    /// Memory beyond inputs and outputs.
    pub extra_bytes: u64,
    /// The driver and its version.
    pub driver: String,
    /// The API it is reached through.
    pub backend: String,
    /// What `median_ms` times: `timestamps` means the pass, `wall` the submission.
    pub timer: String,
    /// Limit: multiply-adds in registers.
    pub fma_tflops: f64,
    /// Limit: cooperative multiplications in registers, f16 into f32, where the device has a matrix unit.
    #[serde(default)]
    pub matrix_tflops: Option<f64>,
    /// Limit: reading a large buffer in a kernel.
    pub read_gbps: f64,
    /// Limit: copying a large buffer, bytes read and bytes written.
    pub copy_gbps: f64,
    /// An empty dispatch, from recording to completion.
    pub dispatch_us: f64,
    /// The time of the run, in UTC.
    pub date: String,
    /// The command that measured it.
    pub command: String,
}

/// Where and when a run takes place: the same for all its rows.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) device: String,
    pub(crate) driver: String,
    pub(crate) backend: String,
    pub(crate) timer: String,
    pub(crate) date: String,
    pub(crate) command: String,
}

impl Origin {
    /// A run that begins now.
    pub(crate) fn of(gpu: &Gpu, timer: &str) -> Self {
        let mut command: Vec<String> = std::env::args().filter(|argument| argument != "--bench").collect();
        if let Some(program) = command.first_mut() {
            *program = "wgpu-attention bench".into();
        }
        if command.get(1).is_some_and(|argument| argument == "bench") {
            command.remove(1);
        }
        Self {
            device: gpu.info.name.clone(),
            driver: gpu.driver(),
            backend: backend_name(gpu.info.backend).into(),
            timer: timer.into(),
            date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            command: command.join(" "),
        }
    }

    /// The first line of a report.
    pub(crate) fn heading(&self) -> String {
        let Self { device, driver, backend, date, .. } = self;
        format!("{device} · {backend} · {driver} · {date}\n")
    }
}

/// The type of q and the output, and that of k and v if it is another one: `f32/f16`.
fn dtypes(problem: &Problem) -> String {
    let [q, kv] = [Operand::Q, Operand::K].map(|operand| problem.dtype(operand).unwrap_or_default());
    if q == kv { q.to_string() } else { format!("{q}/{kv}") }
}

impl Row {
    pub(crate) fn new(
        origin: &Origin,
        workload: &Workload,
        problem: &Problem,
        measured: &Measurement,
        limits: &Limits,
    ) -> Self {
        let Shape { batch, heads_q, heads_kv, len_q, len_kv, dim_qk, .. } = workload.shape;
        let seconds = measured.pass.median().max(1e-9);
        let (tflops, gbps) = (measured.flop / seconds * 1e-12, measured.bytes / seconds * 1e-9);
        let origin = origin.clone();
        Self {
            suite: workload.suite.into(),
            name: workload.name.map(Into::into),
            batch,
            heads_q,
            heads_kv,
            len_q,
            len_k: len_kv,
            dim: dim_qk,
            causal: workload.causal,
            mask: workload.mask,
            dtype: dtypes(problem),
            variant: measured.variant.clone(),
            device: origin.device,
            median_ms: seconds * 1e3,
            tflops,
            gbps,
            share_of_fma: tflops / limits.fma_tflops(),
            share_of_matrix: limits.matrix_tflops().filter(|_| measured.is_on_matrix_unit).map(|most| tflops / most),
            share_of_read: gbps / limits.read_gbps(),
            min_ms: measured.pass.min() * 1e3,
            max_ms: measured.pass.max() * 1e3,
            wall_ms: measured.wall.median() * 1e3,
            cold_ms: measured.cold.as_ref().map(|cold| cold.median() * 1e3),
            plan_us: measured.plan.median() * 1e6,
            record_us: measured.record.median() * 1e6,
            extra_bytes: measured.extra_bytes,
            driver: origin.driver,
            backend: origin.backend,
            timer: origin.timer,
            fma_tflops: limits.fma_tflops(),
            matrix_tflops: limits.matrix_tflops(),
            read_gbps: limits.read_gbps(),
            copy_gbps: limits.copy_gbps(),
            dispatch_us: limits.dispatch_us(),
            date: origin.date,
            command: origin.command,
        }
    }

    /// The kernel's family: the letters its name begins with.
    pub(crate) fn family(&self) -> &str {
        let end = self.variant.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(self.variant.len());
        &self.variant[..end]
    }

    /// Operations per byte, which decide which limit is the lower one.
    pub(crate) fn intensity(&self) -> f64 {
        self.tflops * 1e3 / self.gbps
    }
}
