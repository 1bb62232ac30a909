//! The capabilities of a device, as plain data. Selection and planning use nothing else.

use crate::device::matrix_unit::MatrixUnit;

/// The limits and features of a device that decide which kernels run and how they are cut. An app may tighten them.
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
    /// The smaller of `max_compute_invocations_per_workgroup` and `max_compute_workgroup_size_x`.
    pub invocations: u32,
    /// `max_compute_workgroups_per_dimension`.
    pub workgroups: u32,
    /// `max_texture_dimension_2d`.
    pub texture_side: u32,
    /// The subgroup size, if the device has `Features::SUBGROUP` and its adapter has only one size. It is `None` if the
    /// size is not certain: kernels that exchange values within a subgroup of this size must not rely on a guess.
    pub subgroup_size: Option<u32>,
    /// The smallest size that a subgroup may have, if the device has `Features::SUBGROUP`.
    pub min_subgroup_size: Option<u32>,
    /// Whether shaders may use 64-bit integers: `Features::SHADER_INT64`.
    pub has_int64: bool,
    /// The matrix unit that kernels may use. [`Caps::of`] leaves it `None`;
    /// [`submitting::matrix_unit`](crate::submitting::matrix_unit) finds the unit and tests whether it works.
    pub matrix_unit: Option<MatrixUnit>,
    /// Whether the device is a software GPU, whose costs differ from those of a hardware GPU.
    pub is_software: bool,
    /// The number of 32-bit registers that a thread may have. Compilers spill what does not fit. WebGPU does not report this number;
    /// it is estimated from the adapter, and low if the adapter is unknown.
    pub thread_registers: u32,
    /// The number of workgroups that keep the device busy. If the rows make fewer workgroups, the keys are split over
    /// more of them and the results are merged. WebGPU does not report this number; it is estimated from the type of
    /// the adapter.
    pub workgroups_to_fill: u32,
    /// The largest number of floating-point operations in one dispatch. Work that costs more is cut into several
    /// dispatches.
    ///
    /// Drivers kill a dispatch that runs for about two seconds. The default, 2³⁷, is under one second at 150 GFLOP/s,
    /// which the slowest GPUs in use reach; the cuts cost nothing measurable on faster ones. Some drivers time a whole
    /// submission instead: see [`crate::Call::dispatches`]. On a browser's software driver it is 2³², about a second: a
    /// dispatch cannot be interrupted, and the page's own drawing waits for it.
    pub dispatch_flop: u64,
    /// The largest number of loop iterations in one invocation, counted over all its loops.
    ///
    /// Mesa's software drivers (llvmpipe, lavapipe) silently end every loop after 65 535 iterations, counted over the
    /// whole invocation. No other driver is known to do so; there it is `u32::MAX`. A browser does not always tell which
    /// software driver it runs on, and then this is 65 535 too.
    pub loop_iterations: u32,
}

impl Caps {
    /// The capabilities of `device`: what it was created with, and what is known of its driver. In a browser, that includes
    /// [what the page knows](Self::with_page_adapter).
    pub fn of(device: &wgpu::Device) -> Self {
        let caps = Self::from_facts(&device.adapter_info(), device.features(), &device.limits());
        #[cfg(target_arch = "wasm32")]
        if let Some(device) = device.as_webgpu() {
            let adapter = device.adapter_info();
            return caps.with_page_adapter(&adapter.vendor(), &adapter.architecture());
        }
        caps
    }

    /// The capabilities of a device of the adapter `info` that is created with `features` and `limits`. No device is
    /// needed, so it can show what selection would choose on another machine. An app that knows more of its adapter
    /// than wgpu does can pass that knowledge in `info`.
    pub fn from_facts(info: &wgpu::AdapterInfo, features: wgpu::Features, limits: &wgpu::Limits) -> Self {
        let is_llvmpipe = info.name.starts_with("llvmpipe");
        let kind = Kind { device: info.device_type, is_in_browser: info.backend == wgpu::Backend::BrowserWebGpu };
        // In a browser, wgpu 30 reports the sizes, but a device cannot have the feature, and so kernels use no subgroups there.
        let has_subgroups = features.contains(wgpu::Features::SUBGROUP);
        // If an adapter has several sizes, or wgpu does not know them, the two bounds differ and the driver may choose
        // any size between them.
        let has_one_size = info.subgroup_min_size == info.subgroup_max_size;
        Self {
            // In a browser the name is empty.
            loop_iterations: if is_llvmpipe || kind.is_slow() { MESA_ITERATIONS } else { u32::MAX },
            subgroup_size: (has_subgroups && has_one_size).then_some(info.subgroup_max_size),
            min_subgroup_size: has_subgroups.then_some(info.subgroup_min_size),
            has_int64: features.contains(wgpu::Features::SHADER_INT64),
            is_software: info.device_type == wgpu::DeviceType::Cpu,
            thread_registers: thread_registers(info),
            workgroups_to_fill: kind.workgroups_to_fill(),
            dispatch_flop: kind.dispatch_flop(),
            ..Self::from_limits(limits)
        }
    }

    /// The same capabilities, with what a page's `GPUAdapterInfo` tells beyond what wgpu reports: its `vendor` and
    /// `architecture`, such as `nvidia` and `ampere`. Whether the device is a software GPU, its registers and how much work it
    /// needs follow, and so do `dispatch_flop` and `loop_iterations`, which an app tightens afterwards. Unknown names, and the empty ones
    /// of browsers that hide them, change nothing.
    ///
    /// [`Caps::of`] already does so. Call this with the names of another machine, to see what selection would choose there.
    #[must_use]
    pub fn with_page_adapter(self, vendor: &str, architecture: &str) -> Self {
        let Some((device, thread_registers)) = page_adapter(vendor, architecture) else { return self };
        let kind = Kind { device, is_in_browser: true };
        Self {
            is_software: device == wgpu::DeviceType::Cpu,
            thread_registers,
            workgroups_to_fill: kind.workgroups_to_fill(),
            dispatch_flop: kind.dispatch_flop(),
            loop_iterations: if vendor == "mesa" { MESA_ITERATIONS } else { u32::MAX },
            ..self
        }
    }

    /// The optional features that make kernels faster. Request `adapter.features() & Caps::FEATURES` along with your
    /// own.
    pub const FEATURES: wgpu::Features = wgpu::Features::SUBGROUP.union(wgpu::Features::SHADER_INT64);

    /// The features that kernels on a matrix unit need. One of them is experimental: see
    /// [`submitting::matrix_unit`](crate::submitting::matrix_unit).
    pub const MATRIX_FEATURES: wgpu::Features = MatrixUnit::FEATURES;

    /// The capabilities of a device created with `limits` and without features, on a driver without known faults.
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
            min_subgroup_size: None,
            has_int64: false,
            matrix_unit: None,
            is_software: false,
            thread_registers: FEW_REGISTERS,
            workgroups_to_fill: 128,
            dispatch_flop: MOST_FLOP,
            loop_iterations: u32::MAX,
        }
    }
}

/// After how many iterations Mesa's software drivers end a loop.
const MESA_ITERATIONS: u32 = 65_535;

/// One second of the slowest GPUs in use.
const MOST_FLOP: u64 = 1 << 37;

/// A kind of device, and whether a page uses it.
struct Kind {
    device: wgpu::DeviceType,
    is_in_browser: bool,
}

impl Kind {
    /// Whether it is a browser's software driver. They reach a few GFLOP/s.
    fn is_slow(&self) -> bool {
        self.is_in_browser && self.device == wgpu::DeviceType::Cpu
    }

    fn dispatch_flop(&self) -> u64 {
        if self.is_slow() { 1 << 32 } else { MOST_FLOP }
    }

    /// An unknown GPU in a browser may be a phone's or a workstation's. Half of what a large one needs keeps that one busy most of
    /// the time, and costs a small one only a short merge.
    fn workgroups_to_fill(&self) -> u32 {
        match self.device {
            wgpu::DeviceType::Cpu => 16,
            wgpu::DeviceType::IntegratedGpu => 128,
            wgpu::DeviceType::Other if self.is_in_browser => 256,
            wgpu::DeviceType::DiscreteGpu | wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => 512,
        }
    }
}

/// The kind and the registers per thread of an adapter, by the names that browsers give: those in Dawn's `gpu_info.json`, in lower
/// case with hyphens. `None` if they are unknown.
fn page_adapter(vendor: &str, architecture: &str) -> Option<(wgpu::DeviceType, u32)> {
    use wgpu::DeviceType::{Cpu, DiscreteGpu, IntegratedGpu, Other};
    Some(match (vendor, architecture) {
        ("google", "swiftshader") | ("mesa", "software") | ("microsoft", "warp") => (Cpu, FEW_REGISTERS),
        ("nvidia", "fermi") => (DiscreteGpu, FEW_REGISTERS),
        ("nvidia", _) => (DiscreteGpu, 255),
        // Its integrated and discrete GPUs have the same architectures.
        ("amd", _) => (Other, 255),
        ("samsung", _) => (IntegratedGpu, 255),
        // Such as `gen-12-hp` and `xe-2-hpg`: high performance.
        ("intel", architecture) if architecture.contains("hp") => (DiscreteGpu, FEW_REGISTERS),
        ("qualcomm", "adreno-4xx" | "adreno-5xx") => (IntegratedGpu, FEW_REGISTERS),
        ("qualcomm", _) => (IntegratedGpu, 192),
        ("intel" | "apple" | "arm" | "img-tec", _) => (IntegratedGpu, FEW_REGISTERS),
        _ => return None,
    })
}

/// The fewest registers per thread of the GPUs that can compute fast.
const FEW_REGISTERS: u32 = 128;

/// The registers per thread of a GPU, by the drivers in Mesa: 255 of NVIDIA and AMD, 192 of Adreno; 128 of Apple, and of
/// Intel in subgroups of 16.
fn thread_registers(info: &wgpu::AdapterInfo) -> u32 {
    let (nvidia, amd, qualcomm) = (0x10de, 0x1002, 0x5143);
    match info.backend {
        wgpu::Backend::Vulkan | wgpu::Backend::Dx12 if info.vendor == nvidia || info.vendor == amd => 255,
        wgpu::Backend::Vulkan | wgpu::Backend::Dx12 if info.vendor == qualcomm => 192,
        _ => FEW_REGISTERS,
    }
}
