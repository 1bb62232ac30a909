//! The example's own kernels. Each is compiled for the sizes of its tensors, and bound to them once; a step records all of
//! them, among the crate's calls, into one pass.

use std::cell::RefCell;
use std::collections::HashMap;

use wgpu_attention::Call;

/// A matrix, or a vector per row, in a buffer or a part of one.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) buffer: wgpu::Buffer,
    /// Where it begins, in bytes.
    pub(crate) offset: u64,
    pub(crate) rows: u32,
    pub(crate) columns: u32,
}

impl Tensor {
    pub(crate) fn new(device: &wgpu::Device, label: &str, [rows, columns]: [u32; 2]) -> Self {
        let buffer = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: u64::from(rows * columns) * 4,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        Self { buffer, offset: 0, rows, columns }
    }

    /// Writes it before the next submission.
    pub(crate) fn write(&self, queue: &wgpu::Queue, values: &[impl bytemuck::NoUninit]) {
        queue.write_buffer(&self.buffer, self.offset, bytemuck::cast_slice(values));
    }

    pub(crate) fn len(&self) -> u32 {
        self.rows * self.columns
    }

    pub(crate) fn binding(&self) -> wgpu::BufferBinding<'_> {
        let size = wgpu::BufferSize::new(u64::from(self.len()) * 4);
        wgpu::BufferBinding { buffer: &self.buffer, offset: self.offset, size }
    }
}

/// What a step records: a kernel of the example, or a call of the crate.
#[derive(Debug)]
pub(crate) enum Work {
    Own { pipeline: wgpu::ComputePipeline, group: wgpu::BindGroup, workgroups: u32 },
    Attention(Call),
}

impl Work {
    pub(crate) fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        match self {
            Self::Own { pipeline, group, workgroups } => {
                pass.set_pipeline(pipeline);
                pass.set_bind_group(0, group, &[]);
                pass.dispatch_workgroups(*workgroups, 1, 1);
            }
            Self::Attention(call) => call.dispatch(pass),
        }
    }
}

/// Records all of `work` into one pass.
pub(crate) fn record<'a>(encoder: &mut wgpu::CommandEncoder, work: impl IntoIterator<Item = &'a Work>) {
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
    work.into_iter().for_each(|work| work.record(&mut pass));
}

/// A product of matrices: which factor is stored as its transpose, and whether the product is added to what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Product {
    /// Y = X W
    Layer,
    /// Y += X W
    LayerAdds,
    /// dX = dY Wᵀ
    InputGradient,
    /// dW = Xᵀ dY
    WeightGradient,
}

/// The file and the entry point of a kernel.
type Kernel = (&'static str, &'static str);

/// Makes [`Work`], and keeps the pipelines, which layers of the same sizes share.
#[derive(Debug)]
pub(crate) struct Kernels {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pipelines: RefCell<HashMap<String, wgpu::ComputePipeline>>,
}

impl Kernels {
    pub(crate) fn new(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        Self { device, queue, pipelines: RefCell::default() }
    }

    /// x = the rows of E that belong to the tokens; `tokens` has a row per sequence, one longer than the sequence.
    pub(crate) fn embed(&self, tokens: &Tensor, embedding: &Tensor, x: &Tensor) -> Work {
        self.embedding("embed", x.len() / 4, tokens, embedding, x)
    }

    pub(crate) fn embed_gradient(&self, tokens: &Tensor, dx: &Tensor, d_embedding: &Tensor) -> Work {
        self.embedding("embed_gradient", d_embedding.len() / 4, tokens, dx, d_embedding)
    }

    fn embedding(&self, entry: &'static str, threads: u32, tokens: &Tensor, from: &Tensor, to: &Tensor) -> Work {
        let length = tokens.columns - 1;
        let constants = [("ROWS", tokens.rows * length), ("LENGTH", length), ("VECTORS", to.columns / 4)];
        self.bind((include_str!("embed.wgsl"), entry), &constants, threads, &[tokens, from, to])
    }

    /// y = x / rms(x); `s` keeps 1 / rms(x) for the gradient.
    pub(crate) fn norm(&self, x: &Tensor, y: &Tensor, s: &Tensor) -> Work {
        let constants = [("ROWS", x.rows), ("VECTORS", x.columns / 4)];
        self.bind((include_str!("norm.wgsl"), "norm"), &constants, x.rows, &[x, y, s])
    }

    /// dx = the gradient that dy brings.
    pub(crate) fn norm_gradient(&self, dy: &Tensor, y: &Tensor, s: &Tensor, dx: &Tensor) -> Work {
        let constants = [("ROWS", dx.rows), ("VECTORS", dx.columns / 4)];
        self.bind((include_str!("norm.wgsl"), "norm_gradient"), &constants, dx.rows, &[dy, y, s, dx])
    }

    /// dx += the gradient that dy brings.
    pub(crate) fn add_norm_gradient(&self, dy: &Tensor, y: &Tensor, s: &Tensor, dx: &Tensor) -> Work {
        let constants = [("ROWS", dx.rows), ("VECTORS", dx.columns / 4), ("ADDS", 1)];
        self.bind((include_str!("norm.wgsl"), "norm_gradient"), &constants, dx.rows, &[dy, y, s, dx])
    }

    pub(crate) fn matmul(&self, product: Product, a: &Tensor, b: &Tensor, c: &Tensor) -> Work {
        let inner = if product == Product::WeightGradient { a.rows } else { a.columns };
        let constants = [
            ("ROWS", c.rows),
            ("COLUMNS", c.columns),
            ("INNER", inner),
            ("A_IS_TRANSPOSED", u32::from(product == Product::WeightGradient)),
            ("B_IS_TRANSPOSED", u32::from(product == Product::InputGradient)),
            ("ADDS", u32::from(product == Product::LayerAdds)),
        ];
        self.bind((include_str!("matmul.wgsl"), "matmul"), &constants, c.len() / 32, &[a, b, c])
    }

    /// Rotates the queries and keys of `qkv` in place.
    pub(crate) fn rotate(&self, shape: RotaryShape, table: &Tensor, qkv: &Tensor) -> Work {
        let threads = qkv.rows * (shape.heads + shape.kv_heads) * shape.half;
        self.bind((include_str!("rotary.wgsl"), "rotate"), &shape.constants(qkv.rows), threads, &[table, qkv])
    }

    /// Packs the gradients of queries, keys and values, rotated back.
    pub(crate) fn rotate_gradient(&self, shape: RotaryShape, table: &Tensor, d: [&Tensor; 3], d_qkv: &Tensor) -> Work {
        let kernel = (include_str!("rotary.wgsl"), "rotate_gradient");
        let [dq, dk, dv] = d;
        self.bind(kernel, &shape.constants(d_qkv.rows), d_qkv.len() / 2, &[table, d_qkv, dq, dk, dv])
    }

    pub(crate) fn activate(&self, u: &Tensor, h: &Tensor) -> Work {
        self.bind((include_str!("activation.wgsl"), "activate"), &[], u.len() / 4, &[u, h])
    }

    pub(crate) fn activate_gradient(&self, u: &Tensor, dh: &Tensor, du: &Tensor) -> Work {
        self.bind((include_str!("activation.wgsl"), "activate_gradient"), &[], u.len() / 4, &[u, dh, du])
    }

    pub(crate) fn cross_entropy(&self, tokens: &Tensor, logits: &Tensor, d_logits: &Tensor, row_losses: &Tensor) -> Work {
        let constants = [("ROWS", logits.rows), ("LENGTH", tokens.columns - 1), ("VOCABULARY", logits.columns)];
        let kernel = (include_str!("loss.wgsl"), "cross_entropy");
        self.bind(kernel, &constants, logits.rows, &[row_losses, tokens, logits, d_logits])
    }

    pub(crate) fn mean_loss(&self, row_losses: &Tensor, step: &Tensor, losses: &Tensor) -> Work {
        let kernel = (include_str!("loss.wgsl"), "mean_loss");
        self.bind(kernel, &[("ROWS", row_losses.rows)], 1, &[row_losses, step, losses])
    }

    pub(crate) fn adamw(&self, step: &Tensor, gradients: &Tensor, weights: &Tensor, [means, squares]: [&Tensor; 2]) -> Work {
        let kernel = (include_str!("adamw.wgsl"), "adamw");
        self.bind(kernel, &[], weights.len() / 4, &[step, gradients, weights, means, squares])
    }

    /// Binds tensors to bindings 0, 1, … of a kernel.
    fn bind(&self, kernel: Kernel, constants: &[(&str, u32)], threads: u32, tensors: &[&Tensor]) -> Work {
        let pipeline = self.pipeline(kernel, constants);
        let entries: Vec<_> = (0..)
            .zip(tensors)
            .map(|(binding, tensor)| wgpu::BindGroupEntry {
                binding,
                resource: wgpu::BindingResource::Buffer(tensor.binding()),
            })
            .collect();
        let layout = &pipeline.get_bind_group_layout(0);
        let descriptor = wgpu::BindGroupDescriptor { label: Some(kernel.1), layout, entries: &entries };
        let group = self.device.create_bind_group(&descriptor);
        Work::Own { pipeline, group, workgroups: threads.div_ceil(64) }
    }

    fn pipeline(&self, (source, entry): Kernel, constants: &[(&str, u32)]) -> wgpu::ComputePipeline {
        let compile = || {
            let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(entry),
                source: wgpu::ShaderSource::Wgsl(source.into()),
            });
            let constants: Vec<_> = constants.iter().map(|&(name, value)| (name, f64::from(value))).collect();
            self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(entry),
                layout: None,
                module: &module,
                entry_point: Some(entry),
                compilation_options: wgpu::PipelineCompilationOptions { constants: &constants, ..Default::default() },
                cache: None,
            })
        };
        self.pipelines.borrow_mut().entry(format!("{entry} {constants:?}")).or_insert_with(compile).clone()
    }
}

/// The sizes that the rotary kernels need beside those of their tensors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RotaryShape {
    pub(crate) length: u32,
    pub(crate) heads: u32,
    pub(crate) kv_heads: u32,
    /// Half of the head size.
    pub(crate) half: u32,
}

impl RotaryShape {
    fn constants(self, rows: u32) -> [(&'static str, u32); 5] {
        let Self { length, heads, kv_heads, half } = self;
        [("ROWS", rows), ("LENGTH", length), ("HEADS", heads), ("KV_HEADS", kv_heads), ("HALF", half)]
    }
}
