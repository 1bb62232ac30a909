//! The shaders as text: every variant is valid without features that it does not need, translates to every language, and
//! declares what the host expects. Needs no adapter.

use std::collections::{BTreeMap, BTreeSet};

use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, StorageAccess};
use wgpu_attention::{
    Append, Attention, BlockMask, Caps, Dtype, Fragment, Gradients, MaskFormat, MatrixUnit, Merge, Multiplier, Operand,
    Pages, Philox, Problem, ProblemBuilder, Quantization, RngState, Rotary, RotaryPairs, ScoreLayout, Shape, Slopes,
    Tiles, Variant, testing,
};

use crate::record::noop_with_matrices;

/// Limits that every WebGPU device has.
const WORKGROUP_BYTES: u32 = 16 << 10;
const INVOCATIONS: u32 = 256;
const STORAGE_BUFFERS: usize = 8;
/// The workgroup memory of GPUs with matrix units.
const WORKGROUP_BYTES_BESIDE_MATRICES: u32 = 48 << 10;

/// Head sizes of every class of every schedule, and the smallest and largest there are.
const DIMS: [u32; 9] = [1, 32, 64, 96, 128, 160, 192, 224, 256];
/// Wider heads, of which a kernel computes some columns.
const WIDE: [(u32, u32); 3] = [(64, 576), (576, 32), (576, 512)];

fn noop() -> Attention {
    Attention::new(&wgpu::Device::noop(&wgpu::DeviceDescriptor::default()).0)
}

/// Devices whose variants differ: a plain one, one with subgroups that splits keys, and software GPUs without and with
/// 64-bit integers.
fn kinds_of_device() -> [Attention; 4] {
    let attention = noop();
    let caps = |workgroups_to_fill, min_subgroup_size, software_lanes: Option<u32>, has_int64| {
        let mut caps = *attention.caps();
        caps.workgroups_to_fill = workgroups_to_fill;
        caps.is_software = software_lanes.is_some();
        caps.min_subgroup_size = min_subgroup_size;
        caps.subgroup_size = software_lanes;
        caps.has_int64 = has_int64;
        Attention::with_caps(attention.device(), caps)
    };
    [
        caps(1, None, None, false),
        caps(1 << 20, Some(8), None, false),
        caps(1, None, Some(4), false),
        caps(1, None, Some(8), true),
    ]
}

/// Devices with each kind of matrix unit: Vulkan's, Metal's, a software driver's, and an emulated one.
fn kinds_of_matrix_unit() -> [Attention; 4] {
    use Multiplier::{Emulated, Unit};
    let attention = Attention::new(&noop_with_matrices().0);
    let units = [
        (Fragment::Side16, 32, Tiles::Vectors, Unit),
        (Fragment::Side8, 32, Tiles::Scalars, Unit),
        (Fragment::Side8, 8, Tiles::Vectors, Unit),
        (Fragment::Side16, 32, Tiles::Vectors, Emulated),
    ];
    units.map(|(fragment, subgroup, tiles, multiplier)| {
        let mut caps = *attention.caps();
        caps.matrix_unit = Some(MatrixUnit { fragment, subgroup, tiles, multiplier });
        caps.workgroup_bytes = WORKGROUP_BYTES_BESIDE_MATRICES;
        Attention::with_caps(attention.device(), caps)
    })
}

/// Sequences of every kind, each storage that a cache may have, and what appends to it.
fn sequences() -> Vec<ProblemBuilder> {
    let pages = Pages { count: 9, size: 5 };
    let halves = Rotary { dims: 16, pairs: RotaryPairs::Halves, positions: 2048 };
    let neighbours = Rotary { pairs: RotaryPairs::Neighbours, ..halves };
    let mut problems = Vec::new();
    for dim in [32, 37] {
        let plain = || Problem::builder(Shape::new(1, 2, 8, dim).kv_len(2048));
        let queries = [plain(), plain().q_lengths(), plain().ragged_q(9)];
        for (queries, rotary) in queries.into_iter().zip([None, Some(halves), Some(neighbours)]) {
            let append = Append { rotary, ..Append::default() };
            let all = || queries.clone().append(append);
            let keys =
                [all(), all().kv_lengths(), all().ragged_kv(9), all().paged_kv(pages).kv_lengths(), all().ring_kv(9)];
            problems.extend(keys.iter().map(|problem| problem.clone().dtype(Dtype::F16)));
            problems.extend(Quantization::ALL.into_iter().zip(keys).map(|(how, problem)| problem.kv_quantized(how)));
        }
    }
    problems
}

/// Gradients of everything that eight buffers allow.
fn gradients() -> Vec<Gradients> {
    let scores = ScoreLayout::broadcast([1; 4]);
    let program = "
        fn score_mod(score: f32, at: At) -> f32 { return score * aux[at.head]; }
        fn score_mod_grad(score: f32, at: At, gradient: f32) -> f32 { return gradient * aux[at.head]; }";
    let mut all = Vec::new();
    for (dtype, dim) in Dtype::ALL.into_iter().flat_map(|dtype| [32, 37, 320].map(|dim| (dtype, dim))) {
        let plain = || Problem::builder(Shape::new(1, 2, 8, dim).kv_len(2048)).dtype(dtype).lse();
        for problem in [
            plain(),
            plain().softcap(1.0).mask(scores).bias(dtype, scores).kv_lengths(),
            plain().alibi(Slopes::PerHead).sinks().kv_lengths().q_lengths(),
            plain().ragged_q(9).ragged_kv(9),
            plain().dropout(0.5, RngState::Buffer).ragged_q(9),
            plain().ragged_q(9).kv_lengths().alibi(Slopes::PerHead),
            plain().block_mask(BlockMask::new(64, 128)).shared_buffers(),
        ] {
            let problem = problem.build().unwrap();
            all.push(problem.gradients().build().unwrap());
            all.push(problem.gradients().dlse().build().unwrap());
        }
        let problem = plain().score_mod(program).aux(2).build().unwrap();
        all.push(problem.gradients().score_mod_grad(program).build().unwrap());
    }
    all
}

/// The whole space of variants: head sizes against each other for the plain kernels, then every combination of features
/// at a size of each kind.
pub fn every_variant() -> BTreeMap<String, Variant> {
    let devices = kinds_of_device();
    let mut variants = BTreeMap::new();
    let mut take = |devices: &[Attention], dim_qk, dim_v, flags: u32, dtype: Dtype, bias: Option<Dtype>| {
        let mut problem = Problem::builder(Shape::new(1, 2, 8, dim_qk).kv_len(2048).value_dim(dim_v)).dtype(dtype);
        let flag = |bit: u32| flags >> bit & 1 == 1;
        problem = if flag(0) { problem.softcap(1.0) } else { problem };
        problem = if flag(1) { problem.mask(ScoreLayout::broadcast([1; 4])) } else { problem };
        problem = if flag(2) { problem.kv_lengths() } else { problem };
        problem = if flag(3) { problem.lse() } else { problem };
        problem = if flag(4) { problem.block_mask(BlockMask::new(64, 128)) } else { problem };
        problem = if flag(5) { with_programs(problem) } else { problem };
        problem = if let Some(bias) = bias { problem.bias(bias, ScoreLayout::broadcast([1; 4])) } else { problem };
        take_kernels(&mut variants, devices, &problem.build().unwrap());
    };
    let [any, idle, ..] = &devices;
    for dim_qk in DIMS {
        for dim_v in DIMS {
            take(&[any.clone(), idle.clone()], dim_qk, dim_v, 0b1000, Dtype::F32, None);
        }
    }
    for (dim_qk, dim_v) in WIDE {
        take(&devices, dim_qk, dim_v, 0b1000, Dtype::F16, None);
    }
    let on_matrices = kinds_of_matrix_unit();
    for (dim_qk, dim_v) in [(1, 1), (16, 256), (256, 16), (48, 80), (64, 64), (128, 128), (192, 128), (256, 256)] {
        take(&on_matrices, dim_qk, dim_v, 0b1000, Dtype::F16, None);
    }
    // Straight-line kernels are long, so they are taken only with equal sizes, and with all features only at a small size.
    for dim in [64, 128, 256] {
        take(&devices, dim, dim, 0b1000, Dtype::F16, None);
    }
    for (dim, devices, on_matrices) in [(5, &devices[..], &on_matrices[..2]), (32, &devices[..2], &on_matrices[..1])] {
        for (dtype, flags) in Dtype::ALL.into_iter().flat_map(|dtype| (0..16).map(move |flags| (dtype, flags))) {
            for bias in [None, Some(Dtype::F32), Some(dtype)] {
                take(devices, dim, dim, flags, dtype, bias);
                take(on_matrices, dim, dim, flags, dtype, bias);
            }
        }
        // With a block mask, alone and together with a mask; and with programs.
        for flags in [0b10000, 0b11010, 0b101000] {
            take(devices, dim, dim, flags, Dtype::F16, None);
            take(on_matrices, dim, dim, flags, Dtype::F16, None);
        }
    }
    let scores = ScoreLayout::broadcast([1; 4]);
    for format in MaskFormat::ALL {
        let problem = Problem::builder(Shape::new(1, 2, 8, 32).kv_len(2048)).mask_as(format, scores);
        take_kernels(&mut variants, &devices, &problem.build().unwrap());
    }
    for dtype in Dtype::ALL {
        let problem = Problem::builder(Shape::new(1, 2, 8, 32).kv_len(2048)).dtype(dtype).mask(scores).kv_lengths();
        let problem = problem.shared_buffers().bias(dtype, scores).lse();
        take_kernels(&mut variants, &devices, &problem.build().unwrap());
        if dtype == Dtype::F16 {
            take_kernels(&mut variants, &on_matrices, &problem.build().unwrap());
        }
    }
    for problem in sequences() {
        let problem = problem.build().unwrap();
        take_kernels(&mut variants, &devices, &problem);
        if problem.appends().is_some() {
            for append in testing::append(&problem, devices[0].caps()).unwrap() {
                variants.insert(append.to_string(), append);
            }
        }
    }
    for (dim, state) in [(32, RngState::Buffer), (37, RngState::Fixed(Philox::default()))] {
        let problem = Problem::builder(Shape::new(1, 2, 8, dim).kv_len(2048)).dtype(Dtype::F16).dropout(0.5, state);
        let problem = problem.lse().weights().build().unwrap();
        take_kernels(&mut variants, &devices, &problem);
        take_kernels(&mut variants, &on_matrices, &problem);
    }
    // Of GPUs, which all run the same, and of CPUs.
    for gradients in gradients() {
        for device in [&devices[0], &devices[3]] {
            for variant in testing::gradients(&gradients, device.caps()).unwrap() {
                variants.insert(variant.to_string(), variant);
            }
        }
    }
    let problem = Problem::builder(Shape::new(1, 2, 8, 32)).lse().build().unwrap();
    for of in [Operand::Dk, Operand::Dv] {
        let one = problem.gradients().of([of]).build().unwrap();
        let kernels = testing::gradients(&one, devices[2].caps()).unwrap();
        variants.extend(kernels.into_iter().map(|variant| (variant.to_string(), variant)));
    }
    for types in 0..27 {
        let [q, kv, out] = [types / 9, types / 3 % 3, types % 3].map(|n| Dtype::ALL[n]);
        for dim in [5, 32] {
            let problem = Problem::builder(Shape::new(1, 2, 8, dim).kv_len(2048)).dtype(q).kv_dtype(kv).out_dtype(out);
            take_kernels(&mut variants, &devices, &problem.lse().build().unwrap());
            let merge = Merge::builder(Shape::new(1, 2, 8, dim), 3).dtype(kv).out_dtype(out);
            for merge in [merge.clone(), merge.lse()] {
                let merges = testing::merge(&merge.build().unwrap(), devices[0].caps()).unwrap();
                variants.insert(merges.to_string(), merges);
            }
        }
    }
    variants
}

/// Adds every kernel that may run a problem on these devices.
fn take_kernels(variants: &mut BTreeMap<String, Variant>, devices: &[Attention], problem: &Problem) {
    for device in devices {
        if problem.block_mask().is_some() {
            let finds = testing::block_mask(problem, device.caps()).unwrap();
            variants.insert(finds.to_string(), finds);
        }
        let weights = testing::weights_candidates(problem, device.caps()).unwrap();
        for variant in device.candidates(problem).unwrap() {
            let kernels = testing::kernels(problem, &variant, device.caps()).unwrap();
            for kernel in kernels.into_iter().chain(weights.clone()) {
                variants.insert(kernel.to_string(), kernel);
            }
        }
    }
}

/// Programs with helpers and loops, the numbers that they read, and what else is made of the same pieces.
fn with_programs(problem: ProblemBuilder) -> ProblemBuilder {
    let score_mod = "
        fn decay(distance: u32) -> f32 {
            var rest = 1.0;
            for (var i = 0u; i < min(distance, 4u); i++) { rest *= aux[i % arrayLength(&aux)]; }
            return rest;
        }
        fn score_mod(score: f32, at: At) -> f32 { return score * decay(u32(abs(at.diagonal - i32(at.key)))); }";
    let mask_mod = "fn mask_mod(at: At) -> bool { return (at.query + at.key) % 3u != 0u || at.head == at.kv_head; }";
    problem.score_mod(score_mod).mask_mod(mask_mod).aux(4).alibi(Slopes::PerHead).sinks()
}

/// All capabilities of naga that the shaders may use: subgroups, and `unpack2x16float`, which WebGPU's core has and some GL
/// ES drivers lack.
const CAPABILITIES: Capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32.union(Capabilities::SUBGROUP);

/// Whether its device must have `Features::SUBGROUP`.
fn needs_subgroups(variant: &Variant) -> bool {
    testing::features(variant).contains(wgpu::Features::SUBGROUP)
}

/// Whether its device must have `Features::SHADER_INT64`.
fn needs_int64(variant: &Variant) -> bool {
    testing::features(variant).contains(wgpu::Features::SHADER_INT64)
}

/// Which matrix unit it needs: a real one, with `Caps::MATRIX_FEATURES`, or an emulated one, which of these needs only f16.
fn multiplier(variant: &Variant) -> Option<Multiplier> {
    let features = testing::features(variant);
    let emulates = features.contains(wgpu::Features::SHADER_F16).then_some(Multiplier::Emulated);
    if features.contains(Caps::MATRIX_FEATURES) { Some(Multiplier::Unit) } else { emulates }
}

/// Parses and validates without any feature that it does not need.
fn validated(variant: &Variant) -> (Module, ModuleInfo) {
    let text = variant.wgsl();
    let module = naga::front::wgsl::parse_str(&text)
        .unwrap_or_else(|error| panic!("{variant}: {}", error.emit_to_string(&text)));
    let int64 = if needs_int64(variant) { Capabilities::SHADER_INT64 } else { Capabilities::empty() };
    let matrices = match multiplier(variant) {
        Some(Multiplier::Unit) => Capabilities::COOPERATIVE_MATRIX | Capabilities::SHADER_FLOAT16,
        Some(Multiplier::Emulated) => Capabilities::SHADER_FLOAT16,
        None => Capabilities::empty(),
    };
    let mut validator = Validator::new(ValidationFlags::all(), CAPABILITIES | int64 | matrices);
    if needs_subgroups(variant) {
        validator.subgroup_stages(naga::valid::ShaderStages::COMPUTE);
        validator.subgroup_operations(naga::valid::SubgroupOperationSet::all());
    }
    let info = validator.validate(&module).unwrap_or_else(|error| panic!("{variant}: {}", error.emit_to_string(&text)));
    (module, info)
}

#[test]
fn the_space_of_variants_is_not_empty_and_each_has_its_own_name_and_text() {
    let variants = every_variant();
    let texts: BTreeSet<String> = variants.values().map(Variant::wgsl).collect();
    assert!(variants.len() > 500, "{}", variants.len());
    assert_eq!(texts.len(), variants.len());
    let kinds: BTreeSet<String> = variants.values().map(testing::kind).collect();
    assert!(kinds.len() > 25, "{kinds:?}");
}

/// There are thousands of variants, which are made of some hundred pieces, so each is translated to one language in turn.
#[test]
fn every_variant_is_valid_without_features_declares_what_the_host_believes_and_translates() {
    for_each_variant(|n, variant, module, info| {
        assert_bindings(variant, module, info);
        assert_workgroup(variant, module, info);
        Language::ALL[n % 4].assert_translates(variant, module, info);
    });
}

#[test]
#[ignore = "takes two minutes"]
fn every_variant_translates_to_every_language() {
    for_each_variant(|_, variant, module, info| {
        Language::ALL.into_iter().for_each(|language| language.assert_translates(variant, module, info));
    });
}

/// Parses and validates each variant, on all cores.
fn for_each_variant(act: impl Fn(usize, &Variant, &Module, &ModuleInfo) + Sync) {
    let variants = Vec::from_iter(every_variant().into_values());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for core in 0..cores {
            let (share, act) = (variants.iter().enumerate().skip(core).step_by(cores), &act);
            scope.spawn(move || {
                for (n, variant) in share {
                    let (module, info) = validated(variant);
                    act(n, variant, &module, &info);
                }
            });
        }
    });
}

/// A name of the kernels without the suffix that keeps it apart from the names of programs.
fn own_name(name: Option<&str>) -> String {
    name.unwrap_or_default().trim_end_matches("_k0").to_owned()
}

/// `main` uses exactly what the host binds, and writes exactly what the host expects it to write.
fn assert_bindings(variant: &Variant, module: &Module, info: &ModuleInfo) {
    let main = info.get_entry_point(0);
    let mut storage = BTreeMap::new();
    let (mut uniforms, mut textures) = (Vec::new(), BTreeMap::new());
    for (handle, global) in module.global_variables.iter().filter(|(handle, _)| !main[*handle].is_empty()) {
        let Some(binding) = &global.binding else { continue };
        assert_eq!(binding.group, 0, "{variant}");
        match global.space {
            AddressSpace::Uniform => uniforms.push(binding.binding),
            AddressSpace::Storage { access } => {
                let name = own_name(global.name.as_deref());
                storage.insert(binding.binding, (name, access.contains(StorageAccess::STORE)));
            }
            AddressSpace::Handle => {
                textures.insert(binding.binding, own_name(global.name.as_deref()));
            }
            _ => panic!("{variant}: binding {} is in {:?}", binding.binding, global.space),
        }
        assert!(global.space != AddressSpace::Uniform || !main[handle].is_empty());
    }
    assert_eq!(uniforms, [0], "{variant}: the parameters");
    assert!(storage.len() <= STORAGE_BUFFERS, "{variant} binds {storage:?}");
    let (mut buffers, mut others) = (BTreeMap::new(), BTreeMap::new());
    for testing::Binding { binding, name, is_writable, is_buffer } in testing::bindings(variant) {
        if is_buffer {
            buffers.insert(binding, (name.to_owned(), is_writable));
        } else {
            others.insert(binding, name.to_owned());
        }
    }
    assert_eq!((storage, textures), (buffers, others), "{variant}");
}

fn assert_workgroup(variant: &Variant, module: &Module, info: &ModuleInfo) {
    let main = info.get_entry_point(0);
    let bytes: u32 = (module.global_variables.iter())
        .filter(|(handle, global)| global.space == AddressSpace::WorkGroup && !main[*handle].is_empty())
        .map(|(_, global)| module.types[global.ty].inner.size(module.to_ctx()))
        .sum();
    assert_eq!(bytes, variant.workgroup_bytes(), "{variant}: bytes of workgroup memory");
    let most = if multiplier(variant).is_some() { WORKGROUP_BYTES_BESIDE_MATRICES } else { WORKGROUP_BYTES };
    assert!(bytes <= most, "{variant} takes {bytes} bytes");
    let threads: u32 = module.entry_points[0].workgroup_size.iter().product();
    assert_eq!(threads, variant.invocations(), "{variant}: threads");
    assert!(threads <= INVOCATIONS);
}

/// What wgpu translates WGSL to.
#[derive(Clone, Copy)]
enum Language {
    Spirv,
    Msl,
    Hlsl,
    Glsl,
}

impl Language {
    const ALL: [Self; 4] = [Self::Spirv, Self::Msl, Self::Hlsl, Self::Glsl];

    /// As far as wgpu supports there what the variant needs.
    fn assert_translates(self, variant: &Variant, module: &Module, info: &ModuleInfo) {
        // In wgpu, only Vulkan and Metal have matrices. GL has no subgroups and no integers of 64 bits either.
        let on_unit = multiplier(variant) == Some(Multiplier::Unit);
        match self {
            Self::Spirv => assert!(!spirv(variant, module, info).is_empty()),
            Self::Msl if on_unit && !is_for_metal(variant) => {}
            Self::Msl => {
                let options = naga::back::msl::Options { lang_version: (2, 4), ..Default::default() };
                let msl = naga::back::msl::write_string(module, info, &options, &Default::default());
                assert!(!msl.unwrap_or_else(|error| panic!("{variant}: MSL: {error}")).0.is_empty());
            }
            Self::Hlsl if on_unit => {}
            Self::Hlsl => {
                let (mut hlsl, shader_model) = (String::new(), naga::back::hlsl::ShaderModel::V6_2);
                let options = naga::back::hlsl::Options { shader_model, ..Default::default() };
                let pipeline = Default::default();
                let written = naga::back::hlsl::Writer::new(&mut hlsl, &options, &pipeline).write(module, info, None);
                assert!(written.is_ok(), "{variant}: HLSL: {:?}", written.err());
            }
            Self::Glsl if needs_subgroups(variant) || needs_int64(variant) || multiplier(variant).is_some() => {}
            Self::Glsl => {
                let glsl = glsl(module, info).unwrap_or_else(|error| panic!("{variant}: GLSL: {error}"));
                assert!(!glsl.is_empty());
            }
        }
    }
}

fn is_for_metal(variant: &Variant) -> bool {
    testing::kind(variant).contains("-scalars")
}

fn spirv(variant: &Variant, module: &Module, info: &ModuleInfo) -> Vec<u32> {
    let options = naga::back::spv::Options { lang_version: (1, 3), ..Default::default() };
    let written = naga::back::spv::write_vec(module, info, &options, None);
    written.unwrap_or_else(|error| panic!("{variant}: SPIR-V: {error}"))
}

/// GLSL ES 3.1, the oldest with compute shaders.
fn glsl(module: &Module, info: &ModuleInfo) -> Result<String, naga::back::glsl::Error> {
    use naga::back::glsl::{Options, PipelineOptions, Version, Writer};
    let options = Options { version: Version::Embedded { version: 310, is_webgl: false }, ..Default::default() };
    let pipeline = PipelineOptions {
        shader_stage: naga::ShaderStage::Compute,
        entry_point: module.entry_points[0].name.clone(),
        multiview: None,
    };
    let mut text = String::new();
    Writer::new(&mut text, module, info, &options, &pipeline, naga::proc::BoundsCheckPolicies::default())?.write()?;
    Ok(text)
}

/// Every file under `shaders`, by its path.
fn files() -> Vec<(std::path::PathBuf, String)> {
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path, text));
            }
        }
    }
    files
}

/// The name of the variable that a line declares inside a function without a value.
fn declared_without_value(line: &str) -> Option<&str> {
    let code = line.split("//").next().unwrap_or_default();
    let declaration = code.strip_prefix([' ', '\t'])?.trim_start().strip_prefix("var ")?;
    let (name, _) = declaration.split_once(':').filter(|_| !declaration.contains('='))?;
    Some(name)
}

/// WGSL sets a variable that is declared in a loop to zero in each iteration. Tint's SPIR-V writer, which Chrome uses on
/// Vulkan, does so only where the declaration has a value, and says nothing.
#[test]
fn every_variable_of_a_function_is_declared_with_a_value() {
    for wrong in ["    var s: Rows;", "\tvar seen: array<vec4<bool>, ROWS>;  // = what is seen"] {
        assert!(declared_without_value(wrong).is_some(), "{wrong:?} should be refused");
    }
    for right in ["    var s = Rows();", "    var s: f32 = 0.0;", "var<workgroup> told: f32;", "    // var s: Rows;"] {
        assert_eq!(declared_without_value(right), None, "{right:?}");
    }
    let files = files();
    assert!(files.len() > 20, "{}", files.len());
    for (path, text) in files {
        for (number, line) in text.lines().enumerate() {
            let name = declared_without_value(line);
            assert_eq!(name, None, "{}:{}: write `var NAME = TYPE();`", path.display(), number + 1);
        }
    }
}

/// WGSL's tokens are separated by white space and comments, and nothing else is dropped.
#[test]
fn a_browser_gets_the_same_code_without_comments() {
    fn code(text: &str) -> impl Iterator<Item = &str> {
        text.lines().flat_map(|line| line.split("//").next().unwrap_or_default().split_whitespace())
    }
    for (name, variant) in every_variant() {
        let (whole, bare) = (variant.wgsl(), testing::wgsl_in_browser(&variant));
        assert!(code(&whole).eq(code(&bare)), "{name}");
        assert!(bare.len() < whole.len(), "{name}");
        // What the host writes keeps its comments: the name, the parameters and the bindings, which come first.
        let (_, rest) = bare.split_once("struct Params").unwrap().1.split_once("\n}\n").unwrap();
        assert!(!rest.lines().any(|line| line.contains("//") && !line.starts_with("@group")), "{name}");
    }
}

/// For compilers that are not written in Rust; see `cargo xtask tint`.
#[test]
#[ignore = "writes every variant's text to target/wgsl"]
fn write_every_variant() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("wgsl");
    std::fs::create_dir_all(&folder).unwrap();
    // Browsers have no 64-bit integers, and no matrices.
    let in_browsers = |variant: &Variant| !needs_int64(variant) && multiplier(variant).is_none();
    for (name, variant) in every_variant().into_iter().filter(|(_, variant)| in_browsers(variant)) {
        // Browsers ask for the directive; naga does not know it yet.
        let directive = if needs_subgroups(&variant) { "enable subgroups;\n" } else { "" };
        std::fs::write(
            folder.join(format!("{name}.wgsl")),
            format!("{directive}{}", testing::wgsl_in_browser(&variant)),
        )
        .unwrap();
    }
}

/// For `spirv-val`; see `cargo xtask matrix`.
#[test]
#[ignore = "writes the SPIR-V of every variant on a matrix unit to target/spirv"]
fn write_every_matrix_module() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("spirv");
    // An earlier run may have written kernels that no longer exist.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    for (name, variant) in every_variant().into_iter().filter(|(_, variant)| multiplier(variant).is_some()) {
        let (module, info) = validated(&variant);
        std::fs::write(folder.join(format!("{name}.spv")), bytemuck::cast_slice(&spirv(&variant, &module, &info)))
            .unwrap();
    }
}
