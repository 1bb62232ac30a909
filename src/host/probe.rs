//! Finds and tests an adapter's matrix unit, since some drivers advertise a unit that they do not have.

use wgpu::{Backend, BufferUsages, CooperativeMatrixProperties, CooperativeScalarType, Features};

use crate::device::caps::Caps;
use crate::device::matrix_unit::{Fragment, MatrixUnit, Multiplier, Tiles};
use crate::host::inputs::Inputs;
use crate::host::reference;
use crate::host::run::{RunError, attention_with, refusals_as_errors};
use crate::kernel::probe;
use crate::plan::Attention;
use crate::plan::upload::filled;
use crate::problem::Problem;
use crate::problem::dtype::Dtype;
use crate::problem::positions::Diagonal;
use crate::problem::shape::Shape;
use crate::record::error::ReadbackError;
use crate::record::readback::Readback;

/// The reason why the kernels of a device use no matrix unit.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NoMatrixUnit {
    /// The adapter lacks features that the kernels need.
    #[error("the adapter has no {}", names(*missing))]
    Absent {
        /// The features that are missing.
        missing: Features,
    },
    /// The adapter has the features that the kernels need, but the device was created without them.
    #[error(
        "the device was created without {}; request `adapter.features() & Caps::MATRIX_FEATURES`, with `experimental_features` enabled",
        names(*missing)
    )]
    NotRequested {
        /// The features that are missing.
        missing: Features,
    },
    /// The adapter does not multiply matrices of the sizes and types that the kernels use.
    #[error("the adapter does not multiply f16 matrices of 8×8 or 16×16 into f32")]
    Shapes,
    /// The subgroup size is not known, or cannot hold a fragment.
    #[error("its subgroups have {least} to {most} threads, and a kernel cannot tell which size it gets")]
    SubgroupSizes {
        /// The smallest subgroup size.
        least: u32,
        /// The largest subgroup size.
        most: u32,
    },
    /// The driver refused the test kernel.
    #[error("the driver refused the test kernel: {0}")]
    Refused(String),
    /// No kernel supports such a unit.
    #[error(
        "a subgroup of {subgroup} cannot hold fragments of {side} × {side}: its size must be a power of two, and at least {side}"
    )]
    Impossible {
        /// Threads per subgroup.
        subgroup: u32,
        /// Rows per fragment.
        side: u32,
    },
    /// The device was opened on another adapter.
    #[error("the device was opened on {device}, not on {adapter}")]
    OtherAdapter {
        /// The name of the device's own adapter.
        device: String,
        /// The name of the adapter given.
        adapter: String,
    },
    /// The unit multiplies wrongly.
    #[error(
        "it multiplies wrongly: {wrong} of {of} numbers of a product are wrong; the driver advertises a unit that it does not have, or has a fault"
    )]
    Product {
        /// Numbers of the product that are wrong.
        wrong: usize,
        /// Numbers of the product.
        of: usize,
    },
    /// A short attention on the unit is wrong.
    #[error("a short attention on it is wrong by {error:.1e}, {times:.0} times the tolerance for f16")]
    Attention {
        /// The largest error.
        error: f64,
        /// The largest error divided by the tolerance.
        times: f64,
    },
    /// The test did not complete.
    #[error(transparent)]
    Run(RunError),
}

impl From<RunError> for NoMatrixUnit {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Refused(reason) => Self::Refused(reason),
            error => Self::Run(error),
        }
    }
}

fn names(features: Features) -> String {
    features.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join(", ")
}

/// **Submits.** Finds the matrix unit of `device`, which was opened on `adapter`, and tests it: first a
/// product that is not symmetric, through every kind of fragment, then a short attention against
/// [`reference`](crate::reference). Call it once and keep the result in [`Caps::matrix_unit`].
///
/// The device needs [`Caps::MATRIX_FEATURES`], one of which is experimental in wgpu. The app must enable experimental
/// features when it opens the device, and thereby accepts what [`wgpu::ExperimentalFeatures::enabled`] says of them.
/// Without them, everything else works as before.
///
/// ```no_run
/// use wgpu_attention::{Attention, Caps, submitting};
/// # async fn open(adapter: wgpu::Adapter) -> Result<(), Box<dyn std::error::Error>> {
/// // The fastest tiles need more than WebGPU's default of 16 KiB.
/// let max_compute_workgroup_storage_size = adapter.limits().max_compute_workgroup_storage_size;
/// let required_limits = wgpu::Limits { max_compute_workgroup_storage_size, ..wgpu::Limits::default() };
/// let (device, queue) = adapter.request_device(&wgpu::DeviceDescriptor {
///     required_features: adapter.features() & (Caps::FEATURES | Caps::MATRIX_FEATURES),
///     required_limits,
///     // SAFETY: faults of wgpu's cooperative matrices may be hit, and will be reported to wgpu.
///     experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
///     ..Default::default()
/// }).await?;
///
/// let mut caps = Caps::of(&device);
/// match submitting::matrix_unit(&adapter, &device, &queue).await {
///     Ok(unit) => caps.matrix_unit = Some(unit),
///     Err(why) => eprintln!("no matrix unit: {why}"),
/// }
/// let attention = Attention::with_caps(&device, caps);
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`NoMatrixUnit`] says what is missing or wrong.
pub async fn matrix_unit(
    adapter: &wgpu::Adapter,
    device: &wgpu::Device,
    queue: &wgpu::Queue,
) -> Result<MatrixUnit, NoMatrixUnit> {
    let (info, of_device) = (adapter.get_info(), device.adapter_info());
    if info != of_device {
        return Err(NoMatrixUnit::OtherAdapter { device: of_device.name, adapter: info.name });
    }
    let missing = Caps::MATRIX_FEATURES - adapter.features();
    if !missing.is_empty() {
        return Err(NoMatrixUnit::Absent { missing });
    }
    requested(device, Caps::MATRIX_FEATURES)?;
    let unit = advertised(&adapter.cooperative_matrix_properties(), &info)?;
    try_matrix_unit(device, queue, unit).await?;
    Ok(unit)
}

fn requested(device: &wgpu::Device, features: Features) -> Result<(), NoMatrixUnit> {
    let missing = features - device.features();
    if missing.is_empty() { Ok(()) } else { Err(NoMatrixUnit::NotRequested { missing }) }
}

/// The unit that an adapter advertises: the larger fragment if it has both.
fn advertised(
    properties: &[CooperativeMatrixProperties],
    info: &wgpu::AdapterInfo,
) -> Result<MatrixUnit, NoMatrixUnit> {
    let has = |fragment: &Fragment| {
        properties.iter().any(|shape| {
            [shape.m_size, shape.n_size, shape.k_size] == [fragment.side(); 3]
                && shape.ab_type == CooperativeScalarType::F16
                && shape.cr_type == CooperativeScalarType::F32
        })
    };
    let fragment = [Fragment::Side16, Fragment::Side8].into_iter().find(has).ok_or(NoMatrixUnit::Shapes)?;
    let (least, most) = (info.subgroup_min_size, info.subgroup_max_size);
    let subgroup = match info.backend {
        // Metal reports no size. Every Apple GPU that has simdgroup matrices has simdgroups of 32, and the test product
        // fails if that is wrong.
        Backend::Metal => 32,
        _ if least == most && least >= fragment.side() => most,
        _ => return Err(NoMatrixUnit::SubgroupSizes { least, most }),
    };
    let tiles = if info.backend == Backend::Metal { Tiles::Scalars } else { Tiles::Vectors };
    Ok(MatrixUnit { fragment, subgroup, tiles, multiplier: Multiplier::Unit })
}

/// **Submits.** Tests a unit that is already known, or an emulated one.
///
/// # Errors
/// [`NoMatrixUnit`] says what is wrong.
pub async fn try_matrix_unit(device: &wgpu::Device, queue: &wgpu::Queue, unit: MatrixUnit) -> Result<(), NoMatrixUnit> {
    if !unit.is_possible() {
        return Err(NoMatrixUnit::Impossible { subgroup: unit.subgroup, side: unit.fragment.side() });
    }
    requested(device, unit.features())?;
    try_product(device, queue, unit).await?;
    try_attention(device, queue, unit).await
}

/// Number of subgroups that multiply side by side in the test.
const SUBGROUPS: u32 = 2;

/// Computes the product of `probe.wgsl` on small whole numbers, which f16 and f32 hold exactly.
async fn try_product(device: &wgpu::Device, queue: &wgpu::Queue, unit: MatrixUnit) -> Result<(), NoMatrixUnit> {
    let side = unit.fragment.side() as usize;
    let rows = SUBGROUPS as usize * side;
    let small = |i: usize, factor: usize| ((i * factor + i / side) % 17) as f32 - 8.0;
    let a: Vec<f32> = (0..rows * side).map(|i| small(i, 7)).collect();
    let b: Vec<f32> = (0..side * side).map(|i| small(i, 5)).collect();
    let at = |matrix: &[f32], row: usize, column: usize| matrix[row * side + column];
    let wanted: Vec<f32> = (0..rows * side)
        .map(|i| {
            let (row, column) = (i / side, i % side);
            (0..side).map(|k| at(&a, row, k) * (at(&b, column, k) + at(&b, k, column))).sum()
        })
        .collect();

    let multiplied = refusals_as_errors(device, || multiply(device, queue, unit, [&a, &b]));
    let got = multiplied.await?.values(Dtype::F32).await.map_err(RunError::from)?;
    let wrong = got.iter().zip(&wanted).filter(|(got, wanted)| got != wanted).count();
    if wrong > 0 { Err(NoMatrixUnit::Product { wrong, of: wanted.len() }) } else { Ok(()) }
}

/// Submits the product of two matrices.
fn multiply(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    unit: MatrixUnit,
    factors: [&[f32]; 2],
) -> Result<Readback, RunError> {
    let label = Some("wgpu-attention probe");
    let source = wgpu::ShaderSource::Wgsl(probe::text(unit, SUBGROUPS).into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label, source });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache: None,
    });
    let upload = |factor: &[f32]| {
        let buffer = filled(device, "wgpu-attention probe", bytemuck::cast_slice(factor).into(), BufferUsages::STORAGE);
        buffer.ok_or(RunError::Readback(ReadbackError::DeviceLost))
    };
    let [a, b] = [upload(factors[0])?, upload(factors[1])?];
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
    let size = a.size();
    let result = device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation: false });
    let entries = [&a, &b, &result].map(wgpu::Buffer::as_entire_binding);
    let entries =
        [0, 1, 2].map(|binding: u32| wgpu::BindGroupEntry { binding, resource: entries[binding as usize].clone() });
    let layout = &pipeline.get_bind_group_layout(0);
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor { label, layout, entries: &entries });

    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label });
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
    }
    let readback = Readback::record(device, &mut encoder, result.as_entire_buffer_binding())?;
    queue.submit([encoder.finish()]);
    Ok(readback)
}

/// Runs a short attention on two tiles of keys, one of them cut by the diagonal, with heads that share keys.
async fn try_attention(device: &wgpu::Device, queue: &wgpu::Queue, unit: MatrixUnit) -> Result<(), NoMatrixUnit> {
    let shape = Shape::new(1, 4, 24, 32).kv_heads(2).kv_len(56).value_dim(16);
    let problem = Problem::builder(shape).dtype(Dtype::F16).causal(Diagonal::BottomRight).build();
    let Ok(problem) = problem else { return Ok(()) };
    let numbers = |count: u32, step: u32| -> Vec<f32> {
        (0..count).map(|i| ((i * step + i / 16) % 31) as f32 / 16.0 - 1.0).collect()
    };
    let (q, k, v) = (numbers(4 * 24 * 32, 11), numbers(2 * 56 * 32, 7), numbers(2 * 56 * 16, 13));
    let inputs = Inputs { q: &q, k: &k, v: &v, ..Inputs::default() };

    let mut caps = Caps::of(device);
    caps.matrix_unit = Some(unit);
    let attention = Attention::with_caps(device, caps);
    let able = attention.candidates(&problem).map_err(RunError::from)?;
    let Some(variant) = able.iter().find(|variant| variant.is_on_matrix_unit()) else { return Ok(()) };
    let got = attention_with(&attention, queue, &problem, &inputs, variant).await?.out;
    let wanted = reference::attention(&problem, &inputs).map_err(RunError::from)?.out;
    // The weights and the result are rounded to f16, which has eleven binary digits; values are at most 1. NaN is wrong
    // too.
    let tolerance = 2.0 * 2f64.powi(-11);
    let error = got.iter().zip(wanted).map(|(&got, wanted)| (f64::from(got) - wanted).abs());
    let error = error.fold(0.0, |most: f64, error| if error > most || error.is_nan() { error } else { most });
    if error <= tolerance { Ok(()) } else { Err(NoMatrixUnit::Attention { error, times: error / tolerance }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(backend: Backend, subgroups: [u32; 2]) -> wgpu::AdapterInfo {
        let mut info = wgpu::Device::noop(&wgpu::DeviceDescriptor::default()).0.adapter_info();
        (info.backend, info.subgroup_min_size, info.subgroup_max_size) = (backend, subgroups[0], subgroups[1]);
        info
    }

    fn shape(side: u32, ab_type: CooperativeScalarType, cr_type: CooperativeScalarType) -> CooperativeMatrixProperties {
        CooperativeMatrixProperties {
            m_size: side,
            n_size: side,
            k_size: side,
            ab_type,
            cr_type,
            saturating_accumulation: false,
        }
    }

    #[test]
    fn the_larger_fragment_is_taken_and_others_are_no_unit() {
        use CooperativeScalarType::{F16, F32};
        let nvidia = info(Backend::Vulkan, [32, 32]);
        let both = [shape(8, F16, F32), shape(16, F16, F16), shape(16, F16, F32)];
        let unit = advertised(&both, &nvidia).expect("has one");
        assert_eq!((unit.fragment, unit.subgroup, unit.tiles), (Fragment::Side16, 32, Tiles::Vectors));
        let flat = CooperativeMatrixProperties { n_size: 8, ..shape(16, F16, F32) };
        for others in [&[][..], &[flat], &[shape(16, F16, F16)], &[shape(8, F32, F32)]] {
            assert_eq!(advertised(others, &nvidia), Err(NoMatrixUnit::Shapes));
        }
    }

    #[test]
    fn no_size_of_a_subgroup_is_guessed() {
        use CooperativeScalarType::{F16, F32};
        let radv = info(Backend::Vulkan, [32, 64]);
        let refused = advertised(&[shape(16, F16, F32)], &radv);
        assert_eq!(refused, Err(NoMatrixUnit::SubgroupSizes { least: 32, most: 64 }));
        let apple = advertised(&[shape(8, F16, F32)], &info(Backend::Metal, [4, 64])).expect("has one");
        assert_eq!((apple.subgroup, apple.tiles), (32, Tiles::Scalars));
    }

    #[test]
    fn a_device_without_the_features_says_which() {
        let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = wgpu::Backends::NOOP;
        descriptor.backend_options.noop = wgpu::NoopBackendOptions::enabled();
        let instance = wgpu::Instance::new(descriptor);
        let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()));
        let adapter = adapter.expect("noop is always there");
        let refused = pollster::block_on(matrix_unit(&adapter, &device, &queue)).expect_err("not requested");
        assert!(refused.to_string().contains("EXPERIMENTAL_COOPERATIVE_MATRIX, SHADER_F16"), "{refused}");
    }
}
