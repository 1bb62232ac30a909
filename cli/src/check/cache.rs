//! The operator's cache: its past rows, and the new ones that the library appends to them.

use anyhow::{Context as _, Result, bail, ensure};
use truth::Case;
use wgpu_attention::{Inputs, Operand, Problem, Readback};

use crate::device::Gpu;

/// A cache with room for the new rows, and these rows.
pub(super) struct Cache {
    /// Its queries are the new rows.
    pub(super) problem: Problem,
    /// The cache of keys and that of values. NaN stands where the new rows belong.
    pub(super) before: [Vec<f32>; 2],
    pub(super) new: [Vec<f32>; 2],
}

/// What was appended, and the name of the kernel that did.
pub(super) struct Appended {
    pub(super) variant: String,
    pub(super) keys: Vec<f32>,
    pub(super) values: Vec<f32>,
}

impl Cache {
    /// Appends the new rows on the device.
    pub(super) fn append(&self, gpu: &Gpu) -> Result<Appended> {
        let appended = self.run(gpu);
        gpu.opened.take_errors()?;
        appended
    }

    fn run(&self, gpu: &Gpu) -> Result<Appended> {
        let (device, problem) = (&gpu.opened.device, &self.problem);
        let plan = gpu.attention.plan_append(problem)?;
        let [k, v] = &self.before;
        let [new_k, new_v] = &self.new;
        // Appending reads no queries.
        let q = vec![0.0; usize::try_from(problem.view(Operand::Q).map_or(0, |view| view.end()))?];
        let inputs = Inputs { q: &q, k, v, new_k: Some(new_k), new_v: Some(new_v), ..Inputs::default() };
        let buffers = inputs.upload(device, problem)?;
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        plan.bind(&buffers.operands())?.encode(&mut encoder);
        let [keys, values] = [(Operand::K, k), (Operand::V, v)].map(|(operand, before)| {
            let buffer = buffers.get(operand).context("every problem has keys and values")?;
            let readback = Readback::record(device, &mut encoder, buffer.as_entire_buffer_binding())?;
            anyhow::Ok((problem.dtype(operand).unwrap_or_default(), before.len(), readback))
        });
        gpu.opened.queue.submit([encoder.finish()]);
        device.poll(wgpu::PollType::wait_indefinitely())?;
        let read = |recorded: Result<(_, usize, Readback)>| -> Result<Vec<f32>> {
            let (dtype, len, readback) = recorded?;
            let mut values = pollster::block_on(readback.values(dtype))?;
            values.truncate(len);
            Ok(values)
        };
        Ok(Appended { variant: plan.variant().to_string(), keys: read(keys)?, values: read(values)? })
    }
}

impl Appended {
    /// Puts the cache into the case that attends to it. Fails if it is not, bit by bit, what the case had.
    pub(super) fn replace(self, case: &mut Case) -> Result<()> {
        let Self { keys, values, .. } = self;
        for (name, got, wanted) in [("keys", &keys, &case.host.k), ("values", &values, &case.host.v)] {
            ensure!(got.len() == wanted.len(), "the cache has {} {name}, not {}", got.len(), wanted.len());
            if let Some(at) = got.iter().zip(wanted).position(|(got, wanted)| got.to_bits() != wanted.to_bits()) {
                bail!("{name}[{at}] of the cache is {} after appending, not {}", got[at], wanted[at]);
            }
        }
        (case.host.k, case.host.v) = (keys, values);
        Ok(())
    }
}
