//! The example's own kernels. Each is compiled for the sizes of its tensors, and bound to them once; a step records all of
//! them, among the crate's calls, into one pass.

use std::cell::RefCell;
use std::collections::HashMap;

use wgpu_attention::{Call, Shape};

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
pub(crate) enum Work {
    Own { pipeline: wgpu::ComputePipeline, group: wgpu::BindGroup, workgroups: u32 },
    Attention(Box<Call>),
}

impl From<Call> for Work {
    fn from(call: Call) -> Self {
        Self::Attention(call.into())
    }
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

/// Whether a kernel writes its result over what is there, or adds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sum {
    Over,
    Onto,
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

/// Normalized rows, and the factor of each.
pub(crate) struct Normed {
    pub(crate) y: Tensor,
    pub(crate) s: Tensor,
}

/// The text of a kernel, and its entry point.
type Kernel = (&'static str, &'static str);

const EMBED: &str = include_str!("embed.wgsl");
const NORM: &str = include_str!("norm.wgsl");
const MATMUL: &str = include_str!("matmul.wgsl");
const ROTARY: &str = include_str!("rotary.wgsl");
const ACTIVATION: &str = include_str!("activation.wgsl");
const LOSS: &str = include_str!("loss.wgsl");
const ADAMW: &str = include_str!("adamw.wgsl");

/// Makes [`Work`] of the kernels, whose files have the formulas. Layers of the same sizes share pipelines.
pub(crate) struct Kernels {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pipelines: RefCell<HashMap<String, wgpu::ComputePipeline>>,
}

impl Kernels {
    pub(crate) fn new(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        Self { device, queue, pipelines: RefCell::default() }
    }

    pub(crate) fn embed(&self, tokens: &Tensor, embedding: &Tensor, x: &Tensor) -> Work {
        self.bind((EMBED, "embed"), &embed_sizes(tokens, x), x.len() / 4, &[tokens, embedding, x])
    }

    pub(crate) fn embed_gradient(&self, tokens: &Tensor, dx: &Tensor, d_embedding: &Tensor) -> Work {
        let threads = d_embedding.len() / 4;
        self.bind((EMBED, "embed_gradient"), &embed_sizes(tokens, dx), threads, &[tokens, dx, d_embedding])
    }

    pub(crate) fn norm(&self, x: &Tensor, Normed { y, s }: &Normed) -> Work {
        self.bind((NORM, "norm"), &[("ROWS", x.rows), ("VECTORS", x.columns / 4)], x.rows, &[x, y, s])
    }

    pub(crate) fn norm_gradient(&self, sum: Sum, dy: &Tensor, Normed { y, s }: &Normed, dx: &Tensor) -> Work {
        let constants = [("ROWS", dx.rows), ("VECTORS", dx.columns / 4), ("ADDS", u32::from(sum == Sum::Onto))];
        self.bind((NORM, "norm_gradient"), &constants, dx.rows, &[dy, y, s, dx])
    }

    pub(crate) fn matmul(&self, product: Product, a: &Tensor, b: &Tensor, c: &Tensor) -> Work {
        let is = |other| u32::from(product == other);
        let constants = [
            ("ROWS", c.rows),
            ("COLUMNS", c.columns),
            ("INNER", if product == Product::WeightGradient { a.rows } else { a.columns }),
            ("A_IS_TRANSPOSED", is(Product::WeightGradient)),
            ("B_IS_TRANSPOSED", is(Product::InputGradient)),
            ("ADDS", is(Product::LayerAdds)),
        ];
        self.bind((MATMUL, "matmul"), &constants, c.len() / 32, &[a, b, c])
    }

    pub(crate) fn rotate(&self, shape: &Shape, table: &Tensor, qkv: &Tensor) -> Work {
        let threads = qkv.rows * (shape.heads_q + shape.heads_kv) * shape.dim_qk / 2;
        self.bind((ROTARY, "rotate"), &rotary_sizes(shape, qkv), threads, &[table, qkv])
    }

    pub(crate) fn rotate_gradient(&self, shape: &Shape, table: &Tensor, d: &[Tensor; 3], d_qkv: &Tensor) -> Work {
        let ([dq, dk, dv], sizes) = (d, rotary_sizes(shape, d_qkv));
        self.bind((ROTARY, "rotate_gradient"), &sizes, d_qkv.len() / 2, &[table, d_qkv, dq, dk, dv])
    }

    pub(crate) fn activate(&self, u: &Tensor, h: &Tensor) -> Work {
        self.bind((ACTIVATION, "activate"), &[], u.len() / 4, &[u, h])
    }

    pub(crate) fn activate_gradient(&self, u: &Tensor, dh: &Tensor, du: &Tensor) -> Work {
        self.bind((ACTIVATION, "activate_gradient"), &[], u.len() / 4, &[u, dh, du])
    }

    pub(crate) fn cross_entropy(&self, tokens: &Tensor, logits: &Tensor, d_logits: &Tensor, losses: &Tensor) -> Work {
        let constants = [("ROWS", logits.rows), ("LENGTH", tokens.columns - 1), ("VOCABULARY", logits.columns)];
        self.bind((LOSS, "cross_entropy"), &constants, logits.rows, &[losses, tokens, logits, d_logits])
    }

    pub(crate) fn mean_loss(&self, row_losses: &Tensor, step: &Tensor, losses: &Tensor) -> Work {
        self.bind((LOSS, "mean_loss"), &[("ROWS", row_losses.rows)], 1, &[row_losses, step, losses])
    }

    pub(crate) fn adamw(&self, step: &Tensor, gradients: &Tensor, weights: &Tensor, moments: &[Tensor; 2]) -> Work {
        let [means, squares] = moments;
        self.bind((ADAMW, "adamw"), &[], weights.len() / 4, &[step, gradients, weights, means, squares])
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

fn embed_sizes(tokens: &Tensor, x: &Tensor) -> [(&'static str, u32); 3] {
    [("ROWS", x.rows), ("LENGTH", tokens.columns - 1), ("VECTORS", x.columns / 4)]
}

fn rotary_sizes(shape: &Shape, qkv: &Tensor) -> [(&'static str, u32); 5] {
    let (length, half) = (shape.len_q, shape.dim_qk / 2);
    [("ROWS", qkv.rows), ("LENGTH", length), ("HEADS", shape.heads_q), ("KV_HEADS", shape.heads_kv), ("HALF", half)]
}
