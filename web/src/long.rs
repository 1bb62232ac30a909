//! Long sequences: this crate's attention and naive attention, timed on the same numbers and compared.

use anyhow::{Result, ensure};
use wasm_bindgen::JsError;
use wasm_bindgen::prelude::wasm_bindgen;
use wgpu::BufferUsages;
use wgpu_attention::{Dtype, Inputs, Operands, Problem, Readback, Shape, reference};

use crate::gpu::Gpu;
use crate::naive::{Naive, score_bytes};
use crate::settings::told;

const HEADS: u32 = 8;
const DIM: u32 = 64;
/// Sums of a few thousand products of numbers below 1 in f32.
const TOLERANCE: f64 = 1e-4;

/// How a sequence was computed.
#[wasm_bindgen(getter_with_clone)]
#[derive(Debug)]
pub struct Long {
    /// The fused kernel's milliseconds.
    pub fused: f64,
    /// The fused kernel's name.
    pub kernel: String,
    /// Its floating-point operations: 4 · heads · length² · dim.
    pub flop: f64,
    /// The bytes of the scores, which the fused kernel does not store.
    pub score_bytes: f64,
    /// The naive kernels' milliseconds, if the device holds the scores.
    pub naive: Option<f64>,
    /// Why there is no time of the naive kernels.
    pub why_not: Option<String>,
}

#[wasm_bindgen]
impl Gpu {
    /// Times attention within a sequence of `len` tokens, in 8 heads of 64 features.
    pub async fn long(&self, len: u32) -> Result<Long, JsError> {
        self.timed(len).await.map_err(told)
    }
}

impl Gpu {
    async fn timed(&self, len: u32) -> Result<Long> {
        let shape = Shape::new(1, HEADS, len, DIM);
        let problem = Problem::builder(shape).build()?;
        let count = HEADS as usize * len as usize * DIM as usize;
        let tensors = [1, 2, 3].map(|seed| numbers(count, seed));
        let [q, k, v] = tensors.each_ref().map(|tensor| {
            let buffer = self.tensor(tensor.len(), BufferUsages::COPY_DST);
            self.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(tensor));
            buffer
        });
        let out = self.tensor(count, BufferUsages::COPY_SRC);

        let plan = self.attention.plan(&problem)?;
        plan.ready().await?;
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let call = plan.bind(&Operands::new(whole(&q), whole(&k), whole(&v), whole(&out)))?;
        let fused = self.stopwatch.time(self, &call).await?;
        self.compare(&problem, &tensors, &out).await?;

        let naive = self.naive(&problem, &tensors, [&q, &k, &v]).await;
        // A browser frees a buffer only when its scripts run out of memory.
        [q, k, v, out].iter().for_each(wgpu::Buffer::destroy);
        let pairs = f64::from(HEADS) * f64::from(len) * f64::from(len);
        Ok(Long {
            fused,
            kernel: plan.variant().to_string(),
            flop: 4.0 * pairs * f64::from(DIM),
            score_bytes: score_bytes(shape) as f64,
            naive: naive.as_ref().ok().copied(),
            why_not: naive.err().map(|error| format!("{error:#}")),
        })
    }

    /// The milliseconds of naive attention.
    ///
    /// # Errors
    /// If the device has no room for the scores, or the results are wrong.
    async fn naive(&self, problem: &Problem, tensors: &[Vec<f32>; 3], [q, k, v]: [&wgpu::Buffer; 3]) -> Result<f64> {
        let out = self.tensor(tensors[0].len(), BufferUsages::COPY_SRC);
        let scope = self.device().push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let naive = Naive::new(self, problem.shape(), [q, k, v, &out]);
        let refused = scope.pop().await;
        let naive = naive?;
        let time = async {
            ensure!(refused.is_none(), "does not fit: the device has no memory for the scores");
            let time = self.stopwatch.time(self, &naive).await?;
            self.compare(problem, tensors, &out).await?;
            Ok(time)
        };
        let time = time.await;
        naive.destroy();
        out.destroy();
        time
    }

    fn tensor(&self, elements: usize, usage: BufferUsages) -> wgpu::Buffer {
        self.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: elements as u64 * 4,
            usage: usage | BufferUsages::STORAGE,
            mapped_at_creation: false,
        })
    }

    /// Compares the first row of the first head and the last row of the last one with the definition, so that no time of
    /// wrong results is shown.
    async fn compare(&self, problem: &Problem, [q, k, v]: &[Vec<f32>; 3], out: &wgpu::Buffer) -> Result<()> {
        let Shape { len_q, heads_q, .. } = problem.shape();
        let mut encoder = self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let readback = Readback::record(self.device(), &mut encoder, out.as_entire_buffer_binding())?;
        self.queue.submit([encoder.finish()]);
        let out = readback.values(Dtype::F32).await?;
        let dim = DIM as usize;
        for (at, got) in [([0, 0, 0], &out[..dim]), ([0, heads_q - 1, len_q - 1], &out[out.len() - dim..])] {
            let exact = reference::row(problem, &Inputs { q, k, v, ..Inputs::default() }, at)?.out;
            let error = exact.iter().zip(got).map(|(exact, got)| (exact - f64::from(*got)).abs());
            let error = error
                .fold(0.0, |largest: f64, error| if largest.is_nan() || error <= largest { largest } else { error });
            ensure!(error <= TOLERANCE, "row {at:?} is wrong by {error:e}");
        }
        Ok(())
    }
}

/// Numbers between −1 and 1, the same for the same seed, by a linear congruential generator (Knuth's MMIX).
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}
