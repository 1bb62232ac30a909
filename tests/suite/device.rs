//! Opens every adapter of this machine, and runs cases on them.

use std::num::NonZeroU64;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use truth::{Case, Outputs};
use wgpu::util::DeviceExt as _;
use wgpu::{BufferUsages, PollType};
use wgpu_attention::{
    Attention, Call, Caps, Fragment, MatrixUnit, Multiplier, Operand, Operands, Plan, Problem, Readback, Shape, Tiles,
    Variant, blocking, testing,
};

use crate::contents::{SENTINEL, contents, elements, numbers, strays, unwritten_rows};
use crate::coverage;

/// An adapter opened with WebGPU's default limits, but all its workgroup memory, and the features that some kernels use.
#[derive(Debug)]
pub struct Device {
    pub name: String,
    pub attention: Attention,
    /// Which candidates are tried on this device.
    pub tried: fn(&Variant) -> bool,
    pub queue: wgpu::Queue,
    /// A GL context serves one thread at a time, and wgpu panics rather than wait long for it.
    gate: Option<Mutex<()>>,
}

/// Where an operand lies.
struct Place {
    buffer: wgpu::Buffer,
    offset: u64,
}

/// All adapters, opened once. They keep what they compiled as long as the process lives, so `cargo xtask test` runs the suite
/// as many short processes.
///
/// # Panics
/// If there is no adapter: a run that tested nothing must not pass.
pub fn all() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let devices = opened_anew();
        devices.iter().for_each(coverage::opened);
        devices
    })
}

/// The devices whose drivers have matrices. If there is none, it says that the test runs nothing.
pub fn with_real_matrices() -> impl Iterator<Item = &'static Device> {
    let devices: Vec<_> = with_matrix_units().iter().filter(|device| device.has_matrices()).collect();
    if devices.is_empty() {
        eprintln!("not run: no driver here has matrices");
    }
    devices.into_iter()
}

/// All adapters, opened again with nothing compiled yet. For tests that compile so much that it must be freed now and then.
pub fn opened_anew() -> Vec<Device> {
    let adapters = adapters();
    let plain = adapters.iter().filter_map(open).flat_map(Device::and_as_gpus);
    let devices: Vec<Device> = plain.chain(adapters.iter().filter_map(with_its_matrix_unit)).collect();
    assert!(!devices.is_empty(), "no adapter: install a driver; Mesa's lavapipe runs everywhere");
    devices
}

fn adapters() -> Vec<wgpu::Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()))
}

/// Includes the driver, because a machine may have two drivers for one device.
fn name(adapter: &wgpu::Adapter) -> String {
    let wgpu::AdapterInfo { name, backend, driver, driver_info, .. } = adapter.get_info();
    let driver = if driver_info.is_empty() { driver } else { driver_info };
    format!("{name} ({backend}, {driver})")
}

fn open(adapter: &wgpu::Adapter) -> Option<Device> {
    let name = name(adapter);
    let supported = adapter.limits();
    let wanted = wgpu::Limits::default();
    let usual = wanted.max_compute_workgroup_storage_size;
    if supported.max_storage_buffers_per_shader_stage < wanted.max_storage_buffers_per_shader_stage {
        eprintln!("left out: {name} is below WebGPU's limits");
        return None;
    }
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("tests"),
        required_features: adapter.features() & Caps::FEATURES,
        required_limits: wgpu::Limits {
            max_compute_workgroup_storage_size: supported.max_compute_workgroup_storage_size,
            ..wanted.using_resolution(supported)
        },
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
    eprintln!("testing on {name}");
    let gate = (adapter.get_info().backend == wgpu::Backend::Gl).then(Mutex::default);
    let mut caps = Caps::of(&device);
    if caps.is_software {
        caps.workgroup_bytes = usual;
    }
    Some(Device { name, attention: Attention::with_caps(&device, caps), tried: |_| true, queue, gate })
}

/// A device with the adapter's own matrix unit, if it has one that computes correctly.
fn with_its_matrix_unit(adapter: &wgpu::Adapter) -> Option<Device> {
    let (device, queue) = open_with_matrices(adapter)?;
    match blocking::matrix_unit(adapter, &device, &queue) {
        Ok(unit) => Some(Device::on_unit(unit, &name(adapter), &device, queue)),
        Err(why) => {
            eprintln!("no matrix unit on {}: {why}", name(adapter));
            None
        }
    }
}

fn open_with_matrices(adapter: &wgpu::Adapter) -> Option<(wgpu::Device, wgpu::Queue)> {
    let features = adapter.features() & (Caps::FEATURES | Caps::MATRIX_FEATURES);
    let mut limits = wgpu::Limits::default().using_resolution(adapter.limits());
    limits.max_compute_workgroup_storage_size = adapter.limits().max_compute_workgroup_storage_size;
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("tests of matrix units"),
        required_features: features,
        required_limits: limits,
        // SAFETY: these tests are there to find the faults of it.
        #[expect(unsafe_code, reason = "what wgpu asks of those who want cooperative matrices")]
        experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
        ..Default::default()
    };
    let has_f16 = features.contains(wgpu::Features::SHADER_F16);
    has_f16.then(|| pollster::block_on(adapter.request_device(&descriptor)).unwrap())
}

/// Devices with matrix units: the adapters' own, and two emulated ones on every adapter that has f16. Kernels that take
/// very long to compile are tried only if the driver has matrices itself, because other drivers are older.
pub fn with_matrix_units() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let with_units = |adapter| with_its_matrix_unit(adapter).into_iter().chain(emulated(adapter));
        let devices: Vec<Device> = adapters().iter().flat_map(with_units).collect();
        devices.iter().for_each(coverage::opened);
        devices
    })
}

fn emulated(adapter: &wgpu::Adapter) -> Vec<Device> {
    let multiplier = Multiplier::Emulated;
    let units = [
        MatrixUnit { fragment: Fragment::Side16, subgroup: 32, tiles: Tiles::Vectors, multiplier },
        MatrixUnit { fragment: Fragment::Side8, subgroup: 32, tiles: Tiles::Scalars, multiplier },
    ];
    let Some((device, queue)) = open_with_matrices(adapter) else { return Vec::new() };
    let is_recent = device.features().contains(Caps::MATRIX_FEATURES);
    let units = if is_recent { &units[..] } else { &units[..1] };
    let of_unit = |&unit| {
        let name = format!("{}, emulating", name(adapter));
        let device = Device::on_unit(unit, &name, &device, queue.clone());
        Device { tried: if is_recent { Variant::is_on_matrix_unit } else { is_small_on_matrices }, ..device }
    };
    units.iter().map(of_unit).collect()
}

/// Whether it is a variant of `tiled` whose name contains this.
fn is_tiled(variant: &Variant, part: &str) -> bool {
    testing::schedule(variant) == "tiled" && variant.to_string().contains(part)
}

/// Whether it is a variant of `decode` in f32 whose name contains this.
fn is_decode_in_f32(variant: &Variant, part: &str) -> bool {
    let name = variant.to_string();
    testing::schedule(variant) == "decode" && name.contains(part) && name.contains(".f32")
}

/// The same in f32 only, because a software driver takes long to compile large blocks. Other types change only how an element is
/// read.
fn is_in_f32(variant: &Variant, part: &str) -> bool {
    is_tiled(variant, part) && variant.to_string().contains(".f32")
}

fn is_small_on_matrices(variant: &Variant) -> bool {
    variant.to_string().contains("-1x")
}

impl Device {
    fn on_unit(unit: MatrixUnit, name: &str, device: &wgpu::Device, queue: wgpu::Queue) -> Self {
        let name = format!("{name} matrices of {0} × {0} in {1:?}", unit.fragment.side(), unit.tiles);
        eprintln!("testing on {name}");
        let mut caps = Caps::of(device);
        caps.matrix_unit = Some(unit);
        Self {
            name,
            attention: Attention::with_caps(device, caps),
            tried: Variant::is_on_matrix_unit,
            queue,
            gate: None,
        }
    }

    /// This device. If it is a software GPU, also copies that are treated as real GPUs, with many registers and with few, for the
    /// kernels made for GPUs.
    fn and_as_gpus(self) -> Vec<Self> {
        if !self.attention.caps().is_software || self.attention.caps().min_subgroup_size.is_none() {
            return vec![self];
        }
        let gpu = |suffix, thread_registers, tried| {
            let workgroup_bytes = self.attention.device().limits().max_compute_workgroup_storage_size;
            let gpu = self.with_caps(|caps| {
                (caps.is_software, caps.thread_registers) = (false, thread_registers);
                caps.workgroup_bytes = workgroup_bytes;
            });
            Self { name: format!("{} as a GPU{suffix}", self.name), tried, ..gpu }
        };
        let many = gpu("", 256, |variant| {
            let is_decode = is_decode_in_f32(variant, "-sub") || is_decode_in_f32(variant, "x8of64.f32x4.d32");
            let wide = ["8x4of4x16", "8x4of8x16"].iter().any(|part| is_in_f32(variant, part));
            is_decode || is_in_f32(variant, "-sub") || wide
        });
        let few = gpu(" of few registers", 128, |variant| {
            is_decode_in_f32(variant, "of64.f32x4") || is_tiled(variant, "-sub") || is_in_f32(variant, "4x4of")
        });
        vec![self, many, few]
    }

    /// Whether its driver has matrices, even if this device emulates them.
    pub fn has_matrices(&self) -> bool {
        self.attention.device().features().contains(Caps::MATRIX_FEATURES)
    }

    /// The same device with changed capabilities.
    pub fn with_caps(&self, change: impl FnOnce(&mut Caps)) -> Self {
        let mut caps = *self.attention.caps();
        change(&mut caps);
        Self {
            attention: Attention::with_caps(self.attention.device(), caps),
            name: self.name.clone(),
            tried: self.tried,
            queue: self.queue.clone(),
            gate: None,
        }
    }

    /// The variants to run a problem with.
    pub fn variants(&self, problem: &Problem) -> Vec<Variant> {
        let mut variants = self.attention.candidates(problem).unwrap();
        variants.retain(self.tried);
        variants
    }

    /// Runs a case as one pinned variant.
    pub fn run(&self, case: &Case, variant: &Variant) -> Outputs {
        self.run_by(&self.attention, case, variant).0
    }

    /// Runs a case on this device as `attention` plans it. Also returns the number of dispatches.
    pub fn run_by(&self, attention: &Attention, case: &Case, variant: &Variant) -> (Outputs, usize) {
        let _guard = self.enter();
        let plan = attention.plan_variant(&case.problem, variant).unwrap();
        let outputs = self.run_plan(case, &plan);
        coverage::ran(self, plan.variants());
        (outputs, plan.dispatches())
    }

    /// The guard to hold while using the device.
    pub fn enter(&self) -> Option<MutexGuard<'_, ()>> {
        self.gate.as_ref().map(|gate| gate.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn run_plan(&self, case: &Case, plan: &Plan) -> Outputs {
        let buffers: Vec<(Operand, Place)> = if case.problem.shares_buffers() {
            self.upload_together(case)
        } else {
            let own = |operand| Place { buffer: self.upload(&contents(case, operand)), offset: 0 };
            case.problem.views().map(|view| (view.operand, own(view.operand))).collect()
        };
        let bindings = buffers.iter().map(|(operand, Place { buffer, offset })| {
            let size = NonZeroU64::new(case.view(*operand).size_bytes());
            (*operand, wgpu::BufferBinding { buffer, offset: *offset, size })
        });
        let operands: Operands<'_> = bindings.collect();
        let call = plan.bind(&operands).unwrap();
        let outputs: Vec<_> = buffers.iter().filter(|(operand, _)| operand.is_output()).collect();
        let bytes = self.finish(&call, outputs.iter().map(|(_, place)| &place.buffer));
        let mut got = outputs.iter().zip(bytes).map(|((operand, place), bytes)| {
            let start = place.offset as usize;
            let end = if case.problem.shares_buffers() {
                start + case.view(*operand).size_bytes() as usize
            } else {
                bytes.len()
            };
            (*operand, bytes[start..end].to_vec())
        });
        let mut stray = None;
        let mut take = |wanted| {
            case.problem.uses(wanted).then(|| {
                let (operand, bytes) = got.next().unwrap();
                assert_eq!(operand, wanted);
                stray = stray.take().or(strays(&case.view(operand), &unwritten_rows(case, operand), &bytes));
                elements(&case.problem, operand, &bytes)
            })
        };
        let (out, lse, weights) = (take(Operand::Out).unwrap(), take(Operand::Lse), take(Operand::Weights));
        Outputs { out, lse, weights, stray }.owned(case)
    }

    /// Uploads all operands to one buffer, but those that cannot share one with the outputs.
    fn upload_together(&self, case: &Case) -> Vec<(Operand, Place)> {
        let alignment = self.attention.device().limits().min_storage_buffer_offset_alignment as usize;
        let is_apart = |operand: &Operand| *operand == Operand::BlockMask || numbers(case, *operand).is_some();
        let operands = || case.problem.views().map(|view| view.operand);
        let (mut pool, mut offsets) = (Vec::new(), Vec::new());
        for operand in operands().filter(|operand| !is_apart(operand)) {
            pool.resize(pool.len().next_multiple_of(alignment), SENTINEL);
            offsets.push((operand, pool.len() as u64));
            pool.extend(contents(case, operand));
        }
        let pool = self.upload(&pool);
        let apart = operands().filter(is_apart);
        let apart = apart.map(|operand| (operand, Place { buffer: self.upload(&contents(case, operand)), offset: 0 }));
        let shared = offsets.into_iter().map(|(operand, offset)| (operand, Place { buffer: pool.clone(), offset }));
        shared.chain(apart).collect()
    }

    pub fn upload(&self, contents: &[u8]) -> wgpu::Buffer {
        self.attention.device().create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: None,
            contents,
            usage: BufferUsages::STORAGE | BufferUsages::COPY_SRC,
        })
    }

    /// Runs a call and reads buffers back.
    pub fn finish<'a>(&self, call: &Call, buffers: impl Iterator<Item = &'a wgpu::Buffer>) -> Vec<Vec<u8>> {
        self.finish_all(std::slice::from_ref(call), buffers)
    }

    /// Runs calls in one pass and reads buffers back.
    pub fn finish_all<'a>(&self, calls: &[Call], buffers: impl Iterator<Item = &'a wgpu::Buffer>) -> Vec<Vec<u8>> {
        let device = self.attention.device();
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            calls.iter().for_each(|call| call.dispatch(&mut pass));
        }
        let readbacks: Vec<Readback> = buffers
            .map(|buffer| Readback::record(device, &mut encoder, buffer.as_entire_buffer_binding()).unwrap())
            .collect();
        self.queue.submit([encoder.finish()]);
        device.poll(PollType::wait_indefinitely()).unwrap();
        readbacks.into_iter().map(|readback| pollster::block_on(readback.bytes()).unwrap()).collect()
    }
}

/// A filter that lets no kernel through tests nothing.
#[test]
fn what_is_treated_as_a_gpu_runs_the_kernels_for_few_rows() {
    let problem = Problem::builder(Shape::new(1, 1, 8, 32)).build().unwrap();
    for device in all().iter().filter(|device| device.name.contains("as a GPU")) {
        let names: Vec<String> = device.variants(&problem).iter().map(Variant::to_string).collect();
        let few: &[&str] = if device.name.contains("few registers") {
            &["decode4x8of64.f32x4"]
        } else {
            &["decode8x8of128-sub.f32x4", "decode8x8of64.f32x4"]
        };
        assert!(few.iter().all(|few| names.iter().any(|name| name.starts_with(few))), "{}: {names:?}", device.name);
    }
}

#[test]
fn there_is_an_adapter() {
    assert!(!all().is_empty());
}
