//! What a device grants, as plain data: selection and planning look at nothing else.

use crate::device::matrix_unit::MatrixUnit;

/// The limits and features of a device that decide which kernels run and how they are cut. May be tightened by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caps {
    /// `max_storage_buffer_binding_size`.
    pub binding_bytes: u64,
    /// `max_buffer_size`.
    pub buffer_bytes: u64,
    /// `min_storage_buffer_offset_alignment`.
    pub binding_alignment: u64,
    /// `min_uniform_buffer_offset_alignment`.
    pub uniform_alignment: u32,
    /// `max_storage_buffers_per_shader_stage`.
    pub storage_buffers: u32,
    /// `max_compute_workgroup_storage_size`, in bytes.
    pub workgroup_bytes: u32,
    /// `max_compute_invocations_per_workgroup`, and no more than `max_compute_workgroup_size_x`.
    pub invocations: u32,
    /// `max_compute_workgroups_per_dimension`.
    pub workgroups: u32,
    /// `max_texture_dimension_2d`.
    pub texture_side: u32,
    /// The subgroup size, where the device has `Features::SUBGROUP` and its adapter one size only. Kernels that
    /// hand values round a subgroup are not built on a guess.
    pub subgroup_size: Option<u32>,
    /// The smallest size a subgroup may have, where the device has `Features::SUBGROUP`.
    pub subgroup_least: Option<u32>,
    /// Whether shaders may use 64-bit integers: `Features::SHADER_INT64`.
    pub has_int64: bool,
    /// The matrix unit that kernels may use. [`Caps::of`] leaves it `None`: which there is, and whether it works, is found
    /// by [`blocking::matrix_unit`](crate::blocking::matrix_unit).
    pub matrix_unit: Option<MatrixUnit>,
    /// Whether the device is a CPU that plays one: what costs time there is another thing.
    pub is_software: bool,
    /// How many workgroups keep the device busy. With fewer rows than that, the keys are split over more of them and
    /// the parts merged. WebGPU does not tell: an estimate from the kind of adapter.
    pub workgroups_to_fill: u32,
    /// The floating-point operations one dispatch may cost before the work is cut into several.
    ///
    /// Drivers kill a dispatch that runs for about two seconds. The default, 2³⁷, is under one second at 150 GFLOP/s,
    /// which the slowest GPUs in use reach; the cuts cost nothing measurable on faster ones. Some drivers watch a whole
    /// submission instead: see [`crate::Call::dispatches`].
    pub dispatch_flop: u64,
    /// How often the loops of one invocation may go round in all.
    ///
    /// Mesa's software drivers (llvmpipe, lavapipe) end every loop after 65 535 rounds, counted over the whole
    /// invocation, and say nothing. No other driver is known to; there it is `u32::MAX`.
    pub loop_rounds: u32,
}

impl Caps {
    /// What `device` was created with, and what is known of its driver.
    pub fn of(device: &wgpu::Device) -> Self {
        Self::from_facts(&device.adapter_info(), device.features(), &device.limits())
    }

    /// What a device of the adapter `info`, created with `features` and `limits`, would grant. No device is needed: it tells what
    /// selection does elsewhere, and an app that knows more of its adapter than wgpu does can say so.
    pub fn from_facts(info: &wgpu::AdapterInfo, features: wgpu::Features, limits: &wgpu::Limits) -> Self {
        let is_llvmpipe = info.name.starts_with("llvmpipe");
        let has_subgroups = features.contains(wgpu::Features::SUBGROUP);
        // Where an adapter has several sizes, or wgpu does not know, the two ends differ and a driver may choose any between.
        let has_one_size = info.subgroup_min_size == info.subgroup_max_size;
        Self {
            loop_rounds: if is_llvmpipe { 65_535 } else { u32::MAX },
            subgroup_size: (has_subgroups && has_one_size).then_some(info.subgroup_max_size),
            subgroup_least: has_subgroups.then_some(info.subgroup_min_size),
            has_int64: features.contains(wgpu::Features::SHADER_INT64),
            is_software: info.device_type == wgpu::DeviceType::Cpu,
            workgroups_to_fill: match info.device_type {
                wgpu::DeviceType::Cpu => 16,
                wgpu::DeviceType::IntegratedGpu => 128,
                wgpu::DeviceType::DiscreteGpu | wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => 512,
            },
            ..Self::from_limits(limits)
        }
    }

    /// The features that make kernels faster where an adapter has them; none is needed. Request
    /// `adapter.features() & Caps::FEATURES` with your own.
    pub const FEATURES: wgpu::Features = wgpu::Features::SUBGROUP.union(wgpu::Features::SHADER_INT64);

    /// The features that kernels on a matrix unit need. One of them is experimental: see
    /// [`blocking::matrix_unit`](crate::blocking::matrix_unit).
    pub const MATRIX_FEATURES: wgpu::Features = MatrixUnit::FEATURES;

    /// What a device created with `limits` and without features would grant, its driver being free of faults.
    pub fn from_limits(limits: &wgpu::Limits) -> Self {
        Self {
            binding_bytes: limits.max_storage_buffer_binding_size,
            buffer_bytes: limits.max_buffer_size,
            binding_alignment: u64::from(limits.min_storage_buffer_offset_alignment),
            uniform_alignment: limits.min_uniform_buffer_offset_alignment,
            storage_buffers: limits.max_storage_buffers_per_shader_stage,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            invocations: limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x),
            workgroups: limits.max_compute_workgroups_per_dimension,
            texture_side: limits.max_texture_dimension_2d,
            subgroup_size: None,
            subgroup_least: None,
            has_int64: false,
            matrix_unit: None,
            is_software: false,
            workgroups_to_fill: 128,
            dispatch_flop: 1 << 37,
            loop_rounds: u32::MAX,
        }
    }
}
