//! A plan bound to buffers. Recording it cannot fail, submits nothing and waits for nothing.

/// Attention on given buffers, ready to be recorded any number of times.
#[derive(Clone, Debug)]
pub struct Call {
    label: String,
    dispatches: Vec<Dispatch>,
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
    pub(crate) const fn new(label: String, dispatches: Vec<Dispatch>) -> Self {
        Self { label, dispatches }
    }

    /// Records into the caller's pass. Leaves the pass's pipeline and bind group 0 changed.
    pub fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        for dispatch in &self.dispatches {
            dispatch.record(pass);
        }
    }

    /// Records into the caller's encoder, in a pass of its own.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        let descriptor = wgpu::ComputePassDescriptor { label: Some(&self.label), timestamp_writes: None };
        self.dispatch(&mut encoder.begin_compute_pass(&descriptor));
    }

    /// The dispatches one by one, for an app that must spread long work over several submissions: some drivers (amdgpu
    /// among them) time a whole submission, not a dispatch. They go in this order, in as many submissions as is wanted: some
    /// read what those before them leave in the scratch.
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
