//! Attention on the visitor's GPU.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use wasm_bindgen::JsError;
use wasm_bindgen::prelude::wasm_bindgen;
use wgpu::BufferUsages;
use wgpu_attention::{Attention, Call, Caps, Dtype, Operand, Operands, Problem, Readback};

use crate::model::{Attended, Model};
use crate::program;
use crate::settings::{Settings, told};
use crate::stopwatch::Stopwatch;

/// The browser's device with a model's tensors.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Gpu {
    pub(crate) attention: Attention,
    pub(crate) queue: wgpu::Queue,
    pub(crate) stopwatch: Stopwatch,
    is_lost: Arc<AtomicBool>,
    q: wgpu::Buffer,
    k: wgpu::Buffer,
    v: wgpu::Buffer,
    /// Room for the largest sentence.
    out: wgpu::Buffer,
    weights: wgpu::Buffer,
}

/// The results, and by what kernel.
#[wasm_bindgen(getter_with_clone)]
#[derive(Debug)]
pub struct OnGpu {
    pub attended: Attended,
    /// The variant's name.
    pub kernel: String,
    /// The text of every kernel that ran.
    pub wgsl: String,
    /// What the program lets each (head, query) see, if there is a program.
    pub seen: Option<Vec<u8>>,
}

#[wasm_bindgen]
impl Gpu {
    /// Opens the browser's GPU and uploads the model's tensors.
    pub async fn open(model: &Model) -> Result<Self, JsError> {
        Self::opened(model).await.map_err(told)
    }

    /// Whether the device is a CPU.
    #[wasm_bindgen(getter)]
    pub fn is_software(&self) -> bool {
        self.attention.caps().is_software
    }

    /// Whether the device is lost, so that another one is needed.
    #[wasm_bindgen(getter)]
    pub fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    /// Computes the settings' sentence.
    pub async fn attend(&self, model: &Model, settings: &Settings) -> Result<OnGpu, JsError> {
        self.attended(model, settings).await.map_err(told)
    }

    /// How long the settings' sentence takes on the device, in milliseconds.
    pub async fn time(&self, model: &Model, settings: &Settings) -> Result<f64, JsError> {
        let time = async { self.stopwatch.time(self, &self.call(&problem(model, settings)?)?).await };
        time.await.map_err(told)
    }
}

impl Gpu {
    async fn opened(model: &Model) -> Result<Self> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapter = instance.request_adapter(&wgpu::RequestAdapterOptions::default()).await?;
        let granted = adapter.limits();
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                required_features: adapter.features() & (Caps::FEATURES | wgpu::Features::TIMESTAMP_QUERY),
                // For long sequences, and for the kernels of GPUs with more workgroup memory than WebGPU asks for.
                required_limits: wgpu::Limits {
                    max_buffer_size: granted.max_buffer_size,
                    max_storage_buffer_binding_size: granted.max_storage_buffer_binding_size,
                    max_compute_workgroup_storage_size: granted.max_compute_workgroup_storage_size,
                    ..wgpu::Limits::default()
                },
                ..Default::default()
            })
            .await?;
        let is_lost = Arc::new(AtomicBool::new(false));
        let lose = is_lost.clone();
        device.set_device_lost_callback(move |_, _| lose.store(true, Ordering::Relaxed));
        let attention = Attention::new(&device);
        let buffer = |elements: u64, usage| {
            let usage = usage | BufferUsages::STORAGE;
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: elements * 4,
                usage,
                mapped_at_creation: false,
            })
        };
        let [q, k, v] = [&model.q, &model.k, &model.v].map(|values| {
            let tensor = buffer(values.len() as u64, BufferUsages::COPY_DST);
            queue.write_buffer(&tensor, 0, bytemuck::cast_slice(values));
            tensor
        });
        let [out, weights] = model.largest().map(|elements| buffer(elements, BufferUsages::COPY_SRC));
        Ok(Self { stopwatch: Stopwatch::new(&device, &queue), is_lost, attention, queue, q, k, v, out, weights })
    }

    pub(crate) fn device(&self) -> &wgpu::Device {
        self.attention.device()
    }

    fn call(&self, problem: &Problem) -> Result<Call> {
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let operands = Operands::new(whole(&self.q), whole(&self.k), whole(&self.v), whole(&self.out));
        let operands = operands.with(Operand::Weights, whole(&self.weights));
        Ok(self.attention.plan(problem)?.bind(&operands)?)
    }

    async fn attended(&self, model: &Model, settings: &Settings) -> Result<OnGpu> {
        let problem = problem(model, settings)?;
        let plan = self.attention.plan(&problem)?;
        plan.ready().await?;
        let seen = match settings.mask_mod() {
            Some(text) => Some(program::seen(self, text, problem.shape()).await?),
            None => None,
        };

        let mut encoder = self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.call(&problem)?.encode(&mut encoder);
        let mut read = |operand, buffer: &wgpu::Buffer| {
            let view = problem.view(operand).context("the problem has no such output")?;
            let source = wgpu::BufferBinding { buffer, offset: 0, size: wgpu::BufferSize::new(view.size_bytes()) };
            anyhow::Ok(Readback::record(self.device(), &mut encoder, source)?)
        };
        let (out, weights) = (read(Operand::Out, &self.out)?, read(Operand::Weights, &self.weights)?);
        self.queue.submit([encoder.finish()]);
        let attended = Attended { out: out.values(Dtype::F32).await?, weights: weights.values(Dtype::F32).await? };
        let texts: Vec<String> = plan.variants().map(|variant| format!("// {variant}\n\n{}", variant.wgsl())).collect();
        Ok(OnGpu { attended, kernel: plan.variant().to_string(), wgsl: texts.join("\n\n"), seen })
    }
}

fn problem(model: &Model, settings: &Settings) -> Result<Problem> {
    let mut problem = settings.apply(model.problem(settings.sentence)?);
    if let Some(text) = settings.mask_mod() {
        problem = problem.mask_mod(text);
    }
    Ok(problem.build()?)
}
