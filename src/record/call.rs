//! A plan bound to buffers. Recording it cannot fail, submits nothing and waits for nothing.

use wgpu::BufferBinding;

use crate::plan::Plan;
use crate::plan::merge::MergePlan;
use crate::plan::scratch::Scratch;
use crate::problem::operand::Operand;
use crate::record::error::BindError;
use crate::record::operands::OwnedOperands;

/// Attention or a merge on given buffers, ready to be recorded any number of times.
#[derive(Clone, Debug)]
pub struct Call {
    label: String,
    planned: Planned,
    operands: OwnedOperands,
    dispatches: Vec<Dispatch>,
}

/// What a call runs.
#[derive(Clone, Debug)]
pub(crate) enum Planned {
    Attention { plan: Box<Plan>, scratch: Scratch },
    Merge(MergePlan),
}

/// One dispatch of a [`Call`].
#[derive(Clone, Debug)]
pub struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    grid: [u32; 3],
    label: String,
}

impl Call {
    pub(crate) const fn new(
        label: String,
        planned: Planned,
        operands: OwnedOperands,
        dispatches: Vec<Dispatch>,
    ) -> Self {
        Self { label, planned, operands, dispatches }
    }

    /// The same call, with the same lengths, layouts and scratch, on another buffer for one operand. For other lengths,
    /// bind a [resized](Plan::resized) plan.
    ///
    /// # Errors
    /// As for [`Plan::bind`] or [`MergePlan::bind`].
    pub fn rebound(&self, operand: Operand, binding: BufferBinding<'_>) -> Result<Self, BindError> {
        let operands = self.operands.borrowed().with(operand, binding);
        match &self.planned {
            Planned::Attention { plan, scratch } => plan.bind_in(&operands, scratch),
            Planned::Merge(plan) => plan.bind(&operands),
        }
    }

    /// Records the dispatches into the caller's pass. Changes the pass's pipeline and bind group 0.
    pub fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        for dispatch in &self.dispatches {
            dispatch.record(pass);
        }
    }

    /// Records the dispatches into the caller's encoder, in a separate pass.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        let descriptor = wgpu::ComputePassDescriptor { label: Some(&self.label), timestamp_writes: None };
        self.dispatch(&mut encoder.begin_compute_pass(&descriptor));
    }

    /// The single dispatches, for an app that must spread long work over several submissions: some drivers (amdgpu
    /// among them) time a whole submission, not a dispatch. Record them in this order, in any number of submissions:
    /// some read what earlier ones leave in the scratch.
    pub fn dispatches(&self) -> &[Dispatch] {
        &self.dispatches
    }
}

impl Dispatch {
    pub(crate) const fn new(
        pipeline: wgpu::ComputePipeline,
        group: wgpu::BindGroup,
        grid: [u32; 3],
        label: String,
    ) -> Self {
        Self { pipeline, group, grid, label }
    }

    /// Records this dispatch.
    pub fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        let [x, y, z] = self.grid;
        pass.push_debug_group(&self.label);
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(x, y, z);
        pass.pop_debug_group();
    }
}
