//! What ran where. A test process sees only a part of this, so each writes what it did to a separate file. `cargo xtask
//! test` reads all the files, prints a table at the end, and fails if a kernel that an adapter can run was not run.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use wgpu_attention::testing::{self, kind, weights_candidates};
use wgpu_attention::{
    Append, BlockMask, Caps, Dtype, Merge, Operand, Problem, ScoreLayout, Shape, Variant, candidates,
};

use crate::device::{Device, all, with_matrix_units};
use crate::facts;

/// The environment variable with the folder that the files are written to. If it is not set, nothing is written.
const FOLDER: &str = "WGPU_ATTENTION_COVERAGE";

/// Problems that cover every kernel: few rows and many, rows in fours and not, enough keys to be split, and both f32 and
/// f16.
fn probes() -> Vec<Problem> {
    let shapes = [1, 8, 600].into_iter().flat_map(|len_q| [5, 64].map(|dim| Shape::new(1, 2, len_q, dim).kv_len(2048)));
    let problems = shapes.flat_map(|shape| [Dtype::F32, Dtype::F16].map(|dtype| Problem::builder(shape).dtype(dtype)));
    problems.map(|problem| problem.lse().build().unwrap()).collect()
}

/// The kernels that selection offers on a device, of the variants that `tried` selects, and the kernels that run with them.
pub fn offered(caps: &Caps, tried: impl Fn(&Variant) -> bool) -> BTreeSet<String> {
    let mut kernels = BTreeSet::new();
    for problem in probes() {
        let mut variants = candidates(&problem, caps).unwrap();
        variants.retain(&tried);
        variants.extend(weights_candidates(&problem, caps).unwrap().into_iter().filter(&tried));
        let all = variants.iter().flat_map(|variant| testing::kernels(&problem, variant, caps).unwrap());
        kernels.extend(all.chain(variants.iter().cloned()).map(|variant| kind(&variant)));
    }
    let tiles = Problem::builder(Shape::new(1, 2, 64, 32)).block_mask(BlockMask::new(32, 32)).build().unwrap();
    let merges = [5, 64].map(|dim| Merge::builder(Shape::new(1, 2, 8, dim), 3).build().unwrap());
    let others = merges.iter().map(|merge| testing::merge(merge, caps)).chain([testing::block_mask(&tiles, caps)]);
    let appends = [5, 64].map(|dim| {
        let problem = Problem::builder(Shape::new(1, 2, 8, dim)).append(Append::default());
        testing::append(&problem.build().unwrap(), caps)
    });
    let gradients = [5, 64, 256].map(|dim| {
        let problem = Problem::builder(Shape::new(1, 2, 8, dim)).sinks().lse();
        let problem = problem.bias(Dtype::F32, ScoreLayout::broadcast([1; 4])).build().unwrap();
        testing::gradients(&problem.gradients().build().unwrap(), caps)
    });
    let alone = [Operand::Dk, Operand::Dv].map(|of| {
        let problem = Problem::builder(Shape::new(1, 2, 8, 64)).lse().build().unwrap();
        testing::gradients(&problem.gradients().of([of]).build().unwrap(), caps)
    });
    let appends = appends.into_iter().chain(gradients).chain(alone);
    let others = others.map(Result::unwrap).chain(appends.into_iter().flat_map(Result::unwrap));
    kernels.extend(others.filter(tried).map(|variant| kind(&variant)));
    kernels
}

/// Every kernel that selection offers on some adapter, and the adapters that are offered it.
fn kernels() -> BTreeMap<String, Vec<Caps>> {
    let mut kernels = BTreeMap::<_, Vec<Caps>>::new();
    for (_, caps) in facts::adapters() {
        for kernel in offered(&caps, |_| true) {
            kernels.entry(kernel).or_default().push(caps);
        }
    }
    kernels
}

/// A fact about an adapter that selection depends on.
struct Fact {
    /// Describes the fact, as the reason why the adapter is not offered a kernel.
    says: fn(&Caps) -> String,
    /// Copies the fact from another adapter.
    take: fn(&mut Caps, &Caps),
}

static FACTS: [Fact; 6] = [
    Fact {
        says: |caps| {
            caps.matrix_unit.map_or("has no matrix unit".to_owned(), |unit| format!("its matrix unit is {unit}"))
        },
        take: |caps, other| caps.matrix_unit = other.matrix_unit,
    },
    Fact {
        says: |caps| if caps.is_software { "is a CPU" } else { "is not a CPU" }.to_owned(),
        take: |caps, other| caps.is_software = other.is_software,
    },
    Fact {
        says: |caps| match (caps.subgroup_size, caps.min_subgroup_size) {
            (Some(size), _) => format!("its subgroups have {size} lanes"),
            (None, Some(least)) => format!("its subgroups have several sizes, from {least} lanes"),
            (None, None) => "has no subgroups".to_owned(),
        },
        take: |caps, other| {
            (caps.subgroup_size, caps.min_subgroup_size) = (other.subgroup_size, other.min_subgroup_size)
        },
    },
    Fact {
        says: |caps| if caps.has_int64 { "has 64-bit integers" } else { "has no 64-bit integers" }.to_owned(),
        take: |caps, other| caps.has_int64 = other.has_int64,
    },
    Fact {
        says: |caps| format!("its threads have {} registers", caps.thread_registers),
        take: |caps, other| caps.thread_registers = other.thread_registers,
    },
    Fact {
        says: |caps| format!("has {} bytes of workgroup memory", caps.workgroup_bytes),
        take: |caps, other| caps.workgroup_bytes = other.workgroup_bytes,
    },
];

/// Why selection does not offer `kernel` on an adapter: the fewest facts with which selection would offer it if they were
/// copied from another adapter. The reason comes from selection itself, so no list of requirements can become outdated.
fn reason(kernel: &str, caps: &Caps, others: &[Caps]) -> Option<String> {
    let mut subsets: Vec<u32> = (1..1 << FACTS.len()).collect();
    subsets.sort_by_key(|facts| facts.count_ones());
    let taken = |facts: u32| FACTS.iter().enumerate().filter(move |(n, _)| facts >> n & 1 == 1).map(|(_, fact)| fact);
    let would_do = |&facts: &u32| {
        others.iter().any(|other| {
            let mut changed = *caps;
            taken(facts).for_each(|fact| (fact.take)(&mut changed, other));
            changed != *caps && offered(&changed, |_| true).contains(kernel)
        })
    };
    let facts = subsets.into_iter().find(would_do)?;
    Some(taken(facts).map(|fact| (fact.says)(caps)).collect::<Vec<_>>().join(" and "))
}

/// Writes a line, unless this process has already written it.
fn write(fields: &[&str]) {
    static WRITTEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let line = fields.join("\t");
    let mut written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    if written.insert(line.clone()) {
        let path = std::path::Path::new(&folder).join(format!("{}.tsv", std::process::id()));
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
    }
}

/// Records that tests will run on this device, and what it can run.
pub fn opened(device: &Device) {
    for kernel in offered(device.attention.caps(), device.tried) {
        write(&["offers", &kernel, &device.name]);
    }
}

/// Records that these variants ran to their end.
pub fn ran<'a>(device: &Device, variants: impl Iterator<Item = &'a Variant>) {
    for variant in variants {
        write(&["ran", &kind(variant), &device.name]);
    }
}

/// Records that a mistake was planted in a kernel's text.
pub fn planted(edits: &str) {
    write(&["planted", edits]);
}

/// Records that the mistake is planted only with `--full`.
pub fn left_to_full(edits: &str) {
    write(&["left to full", edits]);
}

/// Records that no device here runs a kernel in which the mistake could be planted.
pub fn not_planted(edits: &str, kernels: &BTreeSet<String>) {
    write(&["not planted", edits, &kernels.iter().cloned().collect::<Vec<_>>().join(", ")]);
}

/// Checks that every kernel that is not offered has a reason, and records it.
fn explain(devices: &[Device]) {
    for device in devices {
        let caps = device.attention.caps();
        let offers = offered(caps, |_| true);
        for (kernel, others) in kernels().iter().filter(|(kernel, _)| !offers.contains(*kernel)) {
            let reason = reason(kernel, caps, others);
            let reason =
                reason.unwrap_or_else(|| panic!("nothing explains why {} is not offered {kernel}", device.name));
            write(&["lacks", kernel, &device.name, &reason]);
        }
    }
}

#[test]
fn every_kernel_that_an_adapter_lacks_has_a_reason() {
    explain(all());
}

#[test]
fn every_kernel_that_a_matrix_unit_lacks_has_a_reason() {
    explain(with_matrix_units());
}

#[test]
fn every_kernel_that_other_adapters_lack_has_a_reason() {
    let kernels = kernels();
    for (name, caps) in facts::adapters() {
        let offers = offered(&caps, |_| true);
        for (kernel, others) in kernels.iter().filter(|(kernel, _)| !offers.contains(*kernel)) {
            assert!(reason(kernel, &caps, others).is_some(), "{kernel} on {name}");
        }
    }
    let adapter = |wanted: &str| facts::adapters().into_iter().find(|(name, _)| *name == wanted).unwrap().1;
    let why = |kernel: &str, name: &str| reason(kernel, &adapter(name), &kernels[kernel]).unwrap();
    assert_eq!(why("tiled-sub x4", "llvmpipe by GL"), "is a CPU and has no subgroups");
    assert_eq!(why("tiled-sub x4", "lavapipe"), "is a CPU");
    assert_eq!(why("tiled-sub x4", "Metal"), "its subgroups have several sizes, from 4 lanes");
    assert_eq!(why("lanes8 x4w", "a CPU of 256 bits without 64-bit integers"), "has no 64-bit integers");
    assert_eq!(why("lanes8 x4", "lavapipe"), "has 64-bit integers");
    assert_eq!(why("matrix16in32 x4", "NVIDIA"), "has no matrix unit");
}

/// The table contains the kernels of every variant.
#[test]
fn no_kernel_is_forgotten() {
    let known: BTreeSet<String> = kernels().into_keys().collect();
    let all: BTreeSet<String> = crate::shaders::every_variant().values().map(kind).collect();
    assert_eq!(all.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(known.len() > 25, "{known:?}");
}
