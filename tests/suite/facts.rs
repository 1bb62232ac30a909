//! Which kernels selection offers on adapters that this machine may not have, described by what wgpu reports about them.
//! Needs no device.

use std::collections::BTreeSet;

use wgpu::{AdapterInfo, Backend, DeviceType, Features, Limits};
use wgpu_attention::{Caps, Fragment, MatrixUnit, Multiplier, Tiles};

use crate::coverage::offered;

/// The capabilities of a device with `features`, on an adapter of this kind and API, with subgroups of these sizes.
fn caps(name: &str, kind: DeviceType, backend: Backend, subgroups: [u32; 2], features: Features) -> Caps {
    let info = AdapterInfo {
        name: name.to_owned(),
        vendor: match name.split(' ').next() {
            Some("GeForce") => 0x10de,
            Some("AMD") => 0x1002,
            Some("Intel(R)") => 0x8086,
            _ => 0,
        },
        subgroup_min_size: subgroups[0],
        subgroup_max_size: subgroups[1],
        ..AdapterInfo::new(kind, backend)
    };
    Caps::from_facts(&info, features, &Limits::default())
}

fn on_unit(caps: Caps, fragment: Fragment, subgroup: u32, tiles: Tiles, multiplier: Multiplier) -> Caps {
    let mut caps = caps;
    caps.matrix_unit = Some(MatrixUnit { fragment, subgroup, tiles, multiplier });
    // Such devices have this much, and kernels on matrix units need it.
    caps.workgroup_bytes = 48 << 10;
    caps
}

/// One adapter of every kind there is.
pub fn adapters() -> Vec<(&'static str, Caps)> {
    use DeviceType::{Cpu, DiscreteGpu, IntegratedGpu, Other};
    // The range that wgpu reports if it does not know the sizes.
    let unknown = [wgpu::MINIMUM_SUBGROUP_MIN_SIZE, wgpu::MAXIMUM_SUBGROUP_MAX_SIZE];
    let all = Caps::FEATURES;
    let metal = caps("Apple M4", IntegratedGpu, Backend::Metal, [4, 64], all);
    let nvidia = caps("GeForce RTX 4090", DiscreteGpu, Backend::Vulkan, [32, 32], all);
    let lavapipe = caps("llvmpipe (LLVM 15.0.6, 256 bits)", Cpu, Backend::Vulkan, [8, 8], all);
    vec![
        ("Metal", metal),
        ("Metal's matrix unit", on_unit(metal, Fragment::Side8, 32, Tiles::Scalars, Multiplier::Unit)),
        ("WARP", caps("Microsoft Basic Render Driver", Cpu, Backend::Dx12, [4, 4], all)),
        ("WARP of other sizes", caps("Microsoft Basic Render Driver", Cpu, Backend::Dx12, [4, 128], all)),
        ("RADV", caps("AMD Radeon RX 7900 XTX", DiscreteGpu, Backend::Vulkan, [32, 64], all)),
        ("Intel", caps("Intel(R) Arc(tm) A770", DiscreteGpu, Backend::Vulkan, [8, 32], all)),
        ("NVIDIA", nvidia),
        ("NVIDIA's matrix unit", on_unit(nvidia, Fragment::Side16, 32, Tiles::Vectors, Multiplier::Unit)),
        ("lavapipe", lavapipe),
        ("a newer lavapipe's matrix unit", on_unit(lavapipe, Fragment::Side8, 8, Tiles::Vectors, Multiplier::Unit)),
        ("an emulated unit", on_unit(lavapipe, Fragment::Side16, 32, Tiles::Vectors, Multiplier::Emulated)),
        ("Metal's unit, emulated", on_unit(lavapipe, Fragment::Side8, 32, Tiles::Scalars, Multiplier::Emulated)),
        ("llvmpipe by GL", caps("llvmpipe (LLVM 15.0.6, 256 bits)", Cpu, Backend::Gl, unknown, Features::empty())),
        ("a browser's GPU", caps("", Other, Backend::BrowserWebGpu, [32, 32], Features::SUBGROUP)),
        ("a browser's CPU", caps("", Cpu, Backend::BrowserWebGpu, [4, 4], Features::SUBGROUP)),
        ("a CPU of 256 bits without 64-bit integers", caps("", Cpu, Backend::Vulkan, [8, 8], Features::SUBGROUP)),
    ]
}

fn adapter(name: &str) -> Caps {
    adapters().into_iter().find(|(other, _)| *other == name).unwrap().1
}

/// What every device runs.
const EVERYWHERE: [&str; 16] = [
    "tiled x4",
    "tiled x1",
    "weights x4",
    "weights x1",
    "block_mask x4",
    "merge x4",
    "merge x1",
    "combine x4",
    "combine x1",
    "append x4",
    "append x1",
    "row_sums x4",
    "row_sums x1",
    "gradient_bias x4",
    "gradient_bias x1",
    "gradient_sinks x4",
];
/// The gradients of wide heads, and with few registers of all heads that are in fours.
const GRADIENTS: [&str; 3] = ["gradient_queries x4", "gradient_keys x4", "gradient_values x4"];
/// The gradients of heads that are not in fours, with few registers.
const ODD_GRADIENTS: [&str; 3] = ["gradient_queries x1", "gradient_keys x1", "gradient_values x1"];
/// The gradients with many registers.
const LARGER_GRADIENTS: [&str; 6] = [
    "gradient_queries8x4 x4",
    "gradient_queries8x4 x1",
    "gradient_keys4x8 x4",
    "gradient_keys4x8 x1",
    "gradient_values4x8 x4",
    "gradient_values4x8 x1",
];
/// What the devices run in addition that do not get the kernels for CPUs.
const DECODE: [&str; 2] = ["decode x4", "decode x1"];
/// What devices run in addition if their subgroups have eight lanes or more.
const BY_SUBGROUPS: [&str; 2] = ["tiled-sub x4", "decode-sub x4"];
/// What GPUs with many registers run instead.
const WITH_REGISTERS: [&str; 4] = ["tiled8x4 x4", "tiled8x4 x1", "tiled8x4-sub x4", "decode-sub x4"];
/// What they run besides if they have much workgroup memory.
const WITH_MEMORY: [&str; 3] = ["tiled8x8 x4", "tiled8x8 x1", "tiled8x8-sub x4"];

fn assert_offered(name: &str, more: &[&[&str]]) {
    let wanted: BTreeSet<String> =
        EVERYWHERE.iter().chain(more.iter().copied().flatten()).map(ToString::to_string).collect();
    assert_eq!(offered(&adapter(name), |_| true), wanted, "{name}");
}

#[test]
fn each_kind_of_adapter_is_offered_its_kernels() {
    // wgpu reports that its subgroups may have four lanes.
    let on_scalars = ["matrix8in32-scalars x4", "matrix8in32-scalars x1"];
    assert_offered("Metal", &[&DECODE, &GRADIENTS, &ODD_GRADIENTS]);
    assert_offered("Metal's matrix unit", &[&DECODE, &GRADIENTS, &ODD_GRADIENTS, &on_scalars]);
    for gpu in ["Intel", "a browser's GPU"] {
        assert_offered(gpu, &[&DECODE, &BY_SUBGROUPS, &GRADIENTS, &ODD_GRADIENTS]);
    }
    for gpu in ["RADV", "NVIDIA"] {
        assert_offered(gpu, &[&DECODE, &WITH_REGISTERS, &LARGER_GRADIENTS, &GRADIENTS]);
    }
    assert_offered(
        "NVIDIA's matrix unit",
        &[&DECODE, &WITH_REGISTERS, &WITH_MEMORY, &LARGER_GRADIENTS, &["matrix16in32 x4", "matrix16in32 x1"]],
    );
    assert_offered("llvmpipe by GL", &[&DECODE, &GRADIENTS, &ODD_GRADIENTS]);
    assert_offered("WARP of other sizes", &[&DECODE, &GRADIENTS, &ODD_GRADIENTS]);
    let gradients_of_four = [
        "stage_keys x4",
        "stage_rows x4",
        "gradient_lanes_queries4 x4",
        "gradient_lanes_keys_values4 x4",
        "gradient_lanes_keys4 x4",
        "gradient_lanes_values4 x4",
    ];
    let gradients_of_eight = [
        "stage_keys x4",
        "stage_rows x4",
        "gradient_lanes_queries8 x4",
        "gradient_lanes_keys_values8 x4",
        "gradient_lanes_keys8 x4",
        "gradient_lanes_values8 x4",
    ];
    let of_four = ["lanes4 x4w", "lanes4 x1", "streams4 x4w", "streams4 x1", "stage x4w", "stage x1"];
    assert_offered("WARP", &[&of_four, &gradients_of_four, &GRADIENTS, &ODD_GRADIENTS]);
    let without_words = ["lanes4 x4", "lanes4 x1", "streams4 x4", "streams4 x1", "stage x4", "stage x1"];
    assert_offered("a browser's CPU", &[&without_words, &gradients_of_four, &GRADIENTS, &ODD_GRADIENTS]);
    let of_eight = ["lanes8 x4w", "lanes8 x1", "streams8 x4w", "streams8 x1", "stage x4w", "stage x1"];
    assert_offered("lavapipe", &[&of_eight, &gradients_of_eight, &GRADIENTS, &ODD_GRADIENTS]);
    assert_offered(
        "a newer lavapipe's matrix unit",
        &[&of_eight, &gradients_of_eight, &GRADIENTS, &ODD_GRADIENTS, &["matrix8in8 x4", "matrix8in8 x1"]],
    );
}

fn has(caps: &Caps, kernel: &str) -> bool {
    offered(caps, |_| true).iter().any(|name| name.contains(kernel))
}

#[test]
fn without_the_feature_no_size_of_a_subgroup_counts() {
    let silent = caps("", DeviceType::Cpu, Backend::Vulkan, [8, 8], Features::empty());
    assert_eq!((silent.subgroup_size, silent.min_subgroup_size), (None, None));
    assert!(!has(&silent, "lanes") && !has(&silent, "streams"));
}

#[test]
fn of_several_sizes_none_is_taken_for_the_size() {
    for sizes in [[4, 8], [8, 32], [32, 64], [4, 64], [4, 128]] {
        for kind in [DeviceType::Cpu, DeviceType::DiscreteGpu] {
            let caps = caps("", kind, Backend::Vulkan, sizes, Caps::FEATURES);
            assert_eq!((caps.subgroup_size, caps.min_subgroup_size), (None, Some(sizes[0])));
            assert!(!has(&caps, "lanes") && !has(&caps, "streams"), "{sizes:?}");
        }
    }
    // The range that wgpu reports if it does not know the sizes.
    let unknown = Caps::from_facts(
        &AdapterInfo::new(DeviceType::Cpu, Backend::BrowserWebGpu),
        Features::SUBGROUP,
        &Limits::default(),
    );
    assert_eq!(unknown.subgroup_size, None);
}

#[test]
fn a_vector_of_a_cpu_has_four_lanes_or_eight() {
    for size in [1, 2, 16, 32, 64] {
        let caps = caps("", DeviceType::Cpu, Backend::Vulkan, [size, size], Caps::FEATURES);
        assert!(!has(&caps, "lanes") && !has(&caps, "streams"), "{size}");
    }
}

#[test]
fn a_gpu_runs_no_kernel_for_cpus() {
    for size in [4, 8] {
        let caps = caps("", DeviceType::IntegratedGpu, Backend::Vulkan, [size, size], Caps::FEATURES);
        assert!(!has(&caps, "lanes") && !has(&caps, "streams"), "{size}");
    }
}

#[test]
fn shuffles_need_eight_lanes_at_least() {
    for (least, wanted) in [(1, false), (4, false), (7, false), (8, true), (16, true), (32, true)] {
        let caps = caps("", DeviceType::DiscreteGpu, Backend::Vulkan, [least, 64], Caps::FEATURES);
        assert_eq!(has(&caps, "-sub"), wanted, "{least}");
    }
}

#[test]
fn words_need_64_bit_integers() {
    assert!(has(&adapter("lavapipe"), "x4w"));
    assert!(!has(&adapter("a CPU of 256 bits without 64-bit integers"), "x4w"));
}

#[test]
fn only_mesas_software_drivers_end_loops_early() {
    for (name, caps) in adapters() {
        // A browser does not tell which driver it has.
        let is_mesa = ["lavapipe", "llvmpipe", "emulated"].iter().any(|part| name.contains(part));
        let ends_loops = is_mesa || name == "a browser's CPU";
        assert_eq!(caps.loop_iterations < u32::MAX, ends_loops, "{name}");
    }
}

/// What a browser tells of an adapter beyond wgpu, and what follows: whether it is a software GPU, the registers of a thread, the
/// workgroups that fill it, the operations of a dispatch, and the iterations of a loop.
#[test]
fn a_page_knows_its_adapter() {
    let short = 1_u64 << 32;
    let long = 1_u64 << 37;
    let gpu = caps("", DeviceType::Other, Backend::BrowserWebGpu, [4, 128], Features::empty());
    let fallback = caps("", DeviceType::Cpu, Backend::BrowserWebGpu, [4, 4], Features::empty());
    let facts = |caps: Caps| {
        (caps.is_software, caps.thread_registers, caps.workgroups_to_fill, caps.dispatch_flop, caps.loop_iterations)
    };
    let unknown = (false, 128, 256, long, u32::MAX);
    assert_eq!(facts(gpu), unknown);
    assert_eq!(facts(fallback), (true, 128, 16, short, 65_535));
    let integrated = |registers| (false, registers, 128, long, u32::MAX);
    let discrete = |registers| (false, registers, 512, long, u32::MAX);
    for (vendor, architecture, wanted) in [
        ("nvidia", "ampere", discrete(255)),
        ("nvidia", "blackwell", discrete(255)),
        ("nvidia", "", discrete(255)),
        ("nvidia", "fermi", discrete(128)),
        ("amd", "rdna-3", (false, 255, 256, long, u32::MAX)),
        ("amd", "gcn-5", (false, 255, 256, long, u32::MAX)),
        ("apple", "metal-3", integrated(128)),
        ("apple", "common-3", integrated(128)),
        ("intel", "gen-9", integrated(128)),
        ("intel", "gen-12lp", integrated(128)),
        ("intel", "gen-12-lp", integrated(128)),
        ("intel", "gen-12-hp", discrete(128)),
        ("intel", "xe-2hpg", discrete(128)),
        ("qualcomm", "adreno-7xx", integrated(192)),
        ("qualcomm", "adreno-5xx", integrated(128)),
        ("arm", "valhall", integrated(128)),
        ("img-tec", "", integrated(128)),
        ("samsung", "rdna-2", integrated(255)),
        ("google", "swiftshader", (true, 128, 16, short, u32::MAX)),
        ("microsoft", "warp", (true, 128, 16, short, u32::MAX)),
        ("mesa", "software", (true, 128, 16, short, 65_535)),
        ("", "", unknown),
        ("a new vendor", "a new architecture", unknown),
    ] {
        assert_eq!(facts(gpu.with_page_adapter(vendor, architecture)), wanted, "{vendor} {architecture}");
    }
    // What a browser hides stays what wgpu reports, and everything else is as it was.
    assert_eq!(fallback.with_page_adapter("", ""), fallback);
    let mut known = fallback;
    known.loop_iterations = u32::MAX;
    assert_eq!(fallback.with_page_adapter("google", "swiftshader"), known);
}
