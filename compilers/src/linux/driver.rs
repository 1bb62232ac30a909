//! A device as wgpu opens it, and kernels compiled on it as wgpu compiles them, but for the two flags that make a Vulkan
//! driver tell what it made of them: `VK_KHR_pipeline_executable_properties`.

#![expect(unsafe_code, reason = "Vulkan is called directly for what wgpu does not expose")]

use std::ffi::CStr;
use std::io::Read as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use ash::khr::pipeline_executable_properties;
use ash::vk;
use gag::BufferRedirect;
use wgpu::hal::api::Vulkan;
use wgpu_attention::Caps;

/// The only device there is.
pub(crate) struct Driver {
    device: wgpu::Device,
    pub(crate) caps: Caps,
    pub(crate) info: wgpu::AdapterInfo,
}

/// What a driver counts, by the names that it gives.
type Statistics = Vec<(String, f64)>;

/// What a driver tells of a compiled kernel.
pub(crate) struct Compiled {
    pub(crate) statistics: Statistics,
    /// The last form that the driver shows as text: machine code.
    pub(crate) assembly: String,
    pub(crate) took: Duration,
}

/// What is bound at a `@binding` of group 0. They have no gaps.
pub(crate) enum Slot {
    Uniform,
    Storage,
    Texture,
}

impl Driver {
    pub(crate) fn open() -> Result<Self> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
        let [adapter] = <[_; 1]>::try_from(adapters)
            .map_err(|all| anyhow!("{} Vulkan devices, and this is for one that a shim shows alone", all.len()))?;
        let features = adapter.features() & (Caps::FEATURES | Caps::MATRIX_FEATURES);
        let limits = wgpu::Limits::default().using_resolution(adapter.limits());
        let limits = wgpu::Limits {
            max_compute_workgroup_storage_size: adapter.limits().max_compute_workgroup_storage_size,
            ..limits
        };
        // SAFETY: the adapter is of this backend, and nothing destroys it.
        let hal = unsafe { adapter.as_hal::<Vulkan>() }.context("the adapter is not a Vulkan one")?;
        let mut reports =
            vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default().pipeline_executable_info(true);
        let reports = &mut reports;
        // SAFETY: an extension and its feature are added, and nothing is removed. The driver says below if it lacks them.
        let opened = unsafe {
            hal.open_with_callback(
                features,
                &limits,
                &wgpu::MemoryHints::default(),
                Some(Box::new(move |arguments| {
                    arguments.extensions.push(pipeline_executable_properties::NAME);
                    let info = std::mem::take(arguments.create_info);
                    *arguments.create_info = info.push_next(reports);
                })),
            )
        };
        let opened = opened.context("the driver does not open the device, or does not tell what it compiles")?;
        drop(hal);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("compilers"),
            required_features: features,
            required_limits: limits,
            // SAFETY: nothing is run.
            experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
            ..Default::default()
        };
        // SAFETY: it was opened by this adapter with these features.
        let (device, _queue) = unsafe { adapter.create_device_from_hal(opened, &descriptor) }?;
        let caps = Caps::of(&device);
        Ok(Self { caps, info: adapter.get_info(), device })
    }

    pub(crate) fn has_matrices(&self) -> bool {
        self.device.features().contains(Caps::MATRIX_FEATURES)
    }

    /// Compiles WGSL whose entry point is `main`.
    pub(crate) fn compile(&self, wgsl: &str, slots: &[Slot]) -> Result<Compiled> {
        let spirv = spirv(wgsl)?;
        // SAFETY: the device outlives all that is made of it here.
        let hal = unsafe { self.device.as_hal::<Vulkan>() }.context("the device is not a Vulkan one")?;
        let raw = hal.raw_device();
        let teller = pipeline_executable_properties::Device::new(hal.shared_instance().raw_instance(), raw);
        // SAFETY: every object is valid where it is used, and destroyed once, after its last use.
        unsafe {
            let module = raw.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(&spirv), None)?;
            let bindings: Vec<_> = (0..).zip(slots).map(|(binding, slot)| layout_binding(binding, slot)).collect();
            let layout = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            let set = raw.create_descriptor_set_layout(&layout, None)?;
            let layout = vk::PipelineLayoutCreateInfo::default().set_layouts(std::slice::from_ref(&set));
            let layout = raw.create_pipeline_layout(&layout, None)?;
            let mut stage = vk::PipelineShaderStageCreateInfo::default()
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(module)
                .name(c"main");
            if self.device.features().contains(wgpu::Features::SUBGROUP) {
                stage = stage.flags(vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE);
            }
            let flags = vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
                | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
            let info = vk::ComputePipelineCreateInfo::default().flags(flags).layout(layout).stage(stage);
            // Apple's compiler prints its machine code, if the environment asks it to.
            let mut printed = (BufferRedirect::stdout()?, BufferRedirect::stderr()?);
            let start = Instant::now();
            let made = raw.create_compute_pipelines(vk::PipelineCache::null(), &[info], None);
            let took = start.elapsed();
            let (mut assembly, mut errors) = (Vec::new(), Vec::new());
            printed.0.read_to_end(&mut assembly)?;
            printed.1.read_to_end(&mut errors)?;
            drop(printed);
            assembly.append(&mut errors);
            let told = match made.map_err(|(_, error)| error) {
                Ok(pipelines) => {
                    let told = Self::told(&teller, pipelines[0]);
                    pipelines.iter().for_each(|&pipeline| raw.destroy_pipeline(pipeline, None));
                    told
                }
                Err(error) => Err(error.into()),
            };
            raw.destroy_pipeline_layout(layout, None);
            raw.destroy_descriptor_set_layout(set, None);
            raw.destroy_shader_module(module, None);
            let (statistics, shown) = told?;
            let assembly = shown.unwrap_or_else(|| String::from_utf8_lossy(&assembly).into_owned());
            Ok(Compiled { statistics, assembly, took })
        }
    }

    /// # Safety
    /// The pipeline is valid and was made with both flags.
    unsafe fn told(
        teller: &pipeline_executable_properties::Device,
        pipeline: vk::Pipeline,
    ) -> Result<(Statistics, Option<String>)> {
        let executable = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline);
        // SAFETY: as the caller promises.
        let statistics = unsafe { teller.get_pipeline_executable_statistics(&executable) }?;
        let statistics = statistics.iter().map(|statistic| Ok((text(&statistic.name)?, number(statistic)?)));
        let statistics = statistics.collect::<Result<Vec<_>>>()?;
        // SAFETY: as the caller promises.
        let mut forms = unsafe { teller.get_pipeline_executable_internal_representations(&executable) }?;
        // The first call tells how long each is.
        let mut texts: Vec<Vec<u8>> = forms.iter().map(|form| vec![0; form.data_size]).collect();
        for (form, text) in forms.iter_mut().zip(&mut texts) {
            form.p_data = text.as_mut_ptr().cast();
        }
        let mut count = u32::try_from(forms.len())?;
        let get = teller.fp().get_pipeline_executable_internal_representations_khr;
        // SAFETY: each form points to as many bytes as it says, and there are `count` of them.
        unsafe { get(teller.device(), &executable, &mut count, forms.as_mut_ptr()) }.result()?;
        let last = forms.iter().zip(&texts).rfind(|(form, _)| form.is_text != 0);
        let assembly = last.map(|(_, text)| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
        Ok((statistics, assembly))
    }
}

fn layout_binding(binding: u32, slot: &Slot) -> vk::DescriptorSetLayoutBinding<'static> {
    let kind = match slot {
        Slot::Uniform => vk::DescriptorType::UNIFORM_BUFFER,
        Slot::Storage => vk::DescriptorType::STORAGE_BUFFER,
        Slot::Texture => vk::DescriptorType::STORAGE_IMAGE,
    };
    vk::DescriptorSetLayoutBinding::default()
        .binding(binding)
        .descriptor_type(kind)
        .descriptor_count(1)
        .stage_flags(vk::ShaderStageFlags::COMPUTE)
}

fn text(name: &[std::ffi::c_char]) -> Result<String> {
    let bytes: Vec<u8> = name.iter().map(|&byte| byte.cast_unsigned()).collect();
    Ok(CStr::from_bytes_until_nul(&bytes)?.to_str()?.to_owned())
}

#[expect(clippy::cast_precision_loss, reason = "counts of instructions and registers")]
fn number(statistic: &vk::PipelineExecutableStatisticKHR<'_>) -> Result<f64> {
    // SAFETY: the format says which member was written.
    unsafe {
        Ok(match statistic.format {
            vk::PipelineExecutableStatisticFormatKHR::BOOL32 => f64::from(statistic.value.b32),
            vk::PipelineExecutableStatisticFormatKHR::INT64 => statistic.value.i64 as f64,
            vk::PipelineExecutableStatisticFormatKHR::UINT64 => statistic.value.u64 as f64,
            vk::PipelineExecutableStatisticFormatKHR::FLOAT64 => statistic.value.f64,
            other => bail!("a statistic has the unknown format {other:?}"),
        })
    }
}

/// WGSL as wgpu gives it to a Vulkan driver whose buffers are robust: indices of arrays are clamped, loops are bounded, and
/// workgroup memory is not zeroed, for the kernels ask for that.
fn spirv(wgsl: &str) -> Result<Vec<u32>> {
    use naga::back::spv;
    use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
    let module = naga::front::wgsl::parse_str(wgsl).map_err(|error| anyhow!("{}", error.emit_to_string(wgsl)))?;
    let mut validator =
        naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all());
    let info = validator.validate(&module)?;
    let options = spv::Options {
        lang_version: (1, 6),
        bounds_check_policies: BoundsCheckPolicies {
            index: BoundsCheckPolicy::Restrict,
            buffer: BoundsCheckPolicy::Unchecked,
            image_load: BoundsCheckPolicy::Unchecked,
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: true,
        ..Default::default()
    };
    let entry = spv::PipelineOptions { entry_point: "main".to_owned(), shader_stage: naga::ShaderStage::Compute };
    Ok(spv::write_vec(&module, &info, &options, Some(&entry))?)
}
