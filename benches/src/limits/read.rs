//! Reading a buffer larger than the caches: the limit of a kernel that must read every key.

use anyhow::Result;
use wgpu::Features;

use super::fastest;
use super::kernel::{Kernel, buffer};
use crate::Gpu;
use crate::timer::Timer;

/// The size of the buffer, if a binding may be that large: more than the last-level cache of any device in use.
const BYTES: u64 = 256 << 20;
/// The size on a software GPU, where reading is slow, and hardly slower from memory than from the caches.
const FEW_BYTES: u64 = 64 << 20;
const ELEMENT_BYTES: u64 = 16;
const WORKGROUP: u64 = 64;
/// The most elements that an invocation reads.
const MOST_EACH: u64 = 1024;

/// The type of a single read, which has 16 bytes.
#[derive(Clone, Copy, Debug)]
enum Element {
    Floats,
    Words,
}

/// Which elements an invocation reads.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// Consecutive elements.
    Contiguous,
    /// Every 64th element of the workgroup's block.
    Block,
    /// Every nth element, where n is the number of invocations.
    Strided,
}

/// How the loop is written.
#[derive(Clone, Copy, Debug)]
struct Form {
    element: Element,
    order: Order,
    /// Elements an invocation reads: many for a CPU, fewer for a GPU that wants many invocations.
    each: u64,
    /// Elements per loop iteration.
    at_once: u64,
}

/// Elements per invocation, and per loop iteration.
const LOOPS: [[u64; 2]; 2] = [[MOST_EACH, 1], [64, 4]];

/// The fastest way to read everything.
#[derive(Debug)]
pub(crate) struct Reader {
    form: Form,
    kernel: Kernel,
    buffer: wgpu::Buffer,
    workgroups: u32,
}

impl Reader {
    pub(super) fn fastest(gpu: &Gpu, timer: &Timer<'_>) -> Result<Self> {
        let limits = gpu.device.limits();
        let wanted = if gpu.info.device_type == wgpu::DeviceType::Cpu { FEW_BYTES } else { BYTES };
        let most = wanted.min(limits.max_storage_buffer_binding_size).min(limits.max_buffer_size);
        let least = ELEMENT_BYTES * WORKGROUP * MOST_EACH;
        let elements = most / least * least / ELEMENT_BYTES;
        let source = buffer(gpu, elements * ELEMENT_BYTES);
        let sink = buffer(gpu, 16);
        // Written once, because pages that were never touched may all be the same page and cost nothing to read.
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.clear_buffer(&source, 0, None);
        gpu.queue.submit([encoder.finish()]);
        gpu.wait()?;

        let has_words = gpu.device.features().contains(Features::SHADER_INT64);
        let types: &[Element] = if has_words { &[Element::Floats, Element::Words] } else { &[Element::Floats] };
        let mut forms = Vec::new();
        for &element in types {
            for order in [Order::Contiguous, Order::Block, Order::Strided] {
                for [each, at_once] in LOOPS {
                    let form = Form { element, order, each, at_once };
                    let invocations = elements / each;
                    let kernel = Kernel::new(gpu, "read", &form.wgsl(invocations), &[&source, &sink]);
                    let workgroups = u32::try_from(invocations / WORKGROUP)?;
                    forms.push(Self { form, kernel, buffer: source.clone(), workgroups });
                }
            }
        }
        fastest(forms, Self::bytes, |form| form.seconds(timer))
    }

    pub(crate) fn seconds(&self, timer: &Timer<'_>) -> Result<f64> {
        timer.pass(|pass| self.kernel.dispatch(pass, self.workgroups))
    }

    pub(super) fn bytes(&self) -> f64 {
        self.buffer.size() as f64
    }

    pub(super) const fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    pub(super) fn name(&self) -> String {
        let Form { element, order, each, at_once } = self.form;
        format!("{} {order:?}, {at_once} of {each} per iteration", element.wgsl()).to_lowercase()
    }
}

impl Element {
    const fn wgsl(self) -> &'static str {
        match self {
            Self::Floats => "vec4<f32>",
            Self::Words => "vec2<u64>",
        }
    }
}

impl Form {
    fn wgsl(self, invocations: u64) -> String {
        let Self { element, order, each, at_once } = self;
        let ty = element.wgsl();
        // The buffer holds zeros, which no compiler can know. If it could evaluate this condition, it would remove the
        // loop.
        let (plus, seen) = match element {
            Element::Floats => ("+", "sum.x + sum.y + sum.z + sum.w == 1.0"),
            Element::Words => ("|", "(sum.x | sum.y) == 1lu"),
        };
        let (first, step) = match order {
            Order::Contiguous => (format!("id.x * {each}u"), 1),
            Order::Block => (format!("id.x / {WORKGROUP}u * {}u + id.x % {WORKGROUP}u", WORKGROUP * each), WORKGROUP),
            Order::Strided => ("id.x".into(), invocations),
        };
        let reads: Vec<String> = (0..at_once).map(|i| format!("source[at + {}u]", i * step)).collect();
        let reads = reads.join(&format!(" {plus} "));
        let (rounds, ahead) = (each / at_once, at_once * step);
        format!(
            "@group(0) @binding(0) var<storage, read> source: array<{ty}>;
@group(0) @binding(1) var<storage, read_write> sink: array<u32>;
@compute @workgroup_size({WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
    var at = {first};
    var sum = {ty}();
    for (var i = 0u; i < {rounds}u; i++) {{
        sum = sum {plus} ({reads});
        at += {ahead}u;
    }}
    if {seen} {{ sink[0] = 1u; }}
}}
"
        )
    }
}
