//! What ran where. A process of the tests sees a part of it, so each writes what it did to a file of its own; `cargo xtask test`
//! reads them all, prints a table at its end, and fails where a kernel that an adapter can run was not run.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use wgpu_attention::testing::{self, kind, weights_candidates};
use wgpu_attention::{Caps, Dtype, Problem, Shape, Variant, candidates};

use crate::device::{Device, all, with_matrix_units};
use crate::facts;

/// The folder that the files are written to. Where it is not set, nothing is written.
const FOLDER: &str = "WGPU_ATTENTION_COVERAGE";

/// Few rows and many, rows in fours and not, keys enough to be split, elements for every unit.
fn probes() -> Vec<Problem> {
    let shapes = [1, 8, 600].into_iter().flat_map(|len_q| [5, 64].map(|dim| Shape::new(1, 2, len_q, dim).kv_len(2048)));
    let problems = shapes.flat_map(|shape| [Dtype::F32, Dtype::F16].map(|dtype| Problem::builder(shape).dtype(dtype)));
    problems.map(|problem| problem.lse().build().unwrap()).collect()
}

/// The kernels that selection offers on such a device, among the variants that are tried there, with those that they bring along.
pub fn offered(caps: &Caps, tried: impl Fn(&Variant) -> bool) -> BTreeSet<String> {
    let mut kernels = BTreeSet::new();
    for problem in probes() {
        let mut variants = candidates(&problem, caps).unwrap();
        variants.retain(&tried);
        variants.extend(weights_candidates(&problem, caps).unwrap().into_iter().filter(&tried));
        let all = variants.iter().flat_map(|variant| testing::kernels(&problem, variant, caps).unwrap());
        kernels.extend(all.chain(variants.iter().cloned()).map(|variant| kind(&variant)));
    }
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

/// A fact of an adapter that selection looks at.
struct Fact {
    /// What it is on an adapter that is offered less for it.
    says: fn(&Caps) -> String,
    /// Takes it over from another adapter.
    take: fn(&mut Caps, &Caps),
}

static FACTS: [Fact; 5] = [
    Fact {
        says: |caps| {
            caps.matrix_unit.map_or("has no matrix unit".to_owned(), |unit| format!("its matrix unit is {unit}"))
        },
        take: |caps, other| caps.matrix_unit = other.matrix_unit,
    },
    Fact {
        says: |caps| if caps.is_software { "is a CPU" } else { "is no CPU" }.to_owned(),
        take: |caps, other| caps.is_software = other.is_software,
    },
    Fact {
        says: |caps| match (caps.subgroup_size, caps.subgroup_least) {
            (Some(size), _) => format!("its subgroups have {size} lanes"),
            (None, Some(least)) => format!("its subgroups have several sizes, from {least} lanes"),
            (None, None) => "has no subgroups".to_owned(),
        },
        take: |caps, other| (caps.subgroup_size, caps.subgroup_least) = (other.subgroup_size, other.subgroup_least),
    },
    Fact {
        says: |caps| if caps.has_int64 { "has 64-bit integers" } else { "has no 64-bit integers" }.to_owned(),
        take: |caps, other| caps.has_int64 = other.has_int64,
    },
    Fact {
        says: |caps| format!("has {} bytes of workgroup memory", caps.workgroup_bytes),
        take: |caps, other| caps.workgroup_bytes = other.workgroup_bytes,
    },
];

/// Why selection does not offer `kernel` on an adapter: the fewest facts with which it would, were they as on another adapter. So
/// selection itself tells, and no list of what kernels need can grow old.
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

/// Writes a line that this process has not yet written.
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

/// That tests are going to run on this device, and what it can run.
pub fn opened(device: &Device) {
    for kernel in offered(device.attention.caps(), device.tried) {
        write(&["offers", &kernel, &device.name]);
    }
}

/// That these ran to their end.
pub fn ran<'a>(device: &Device, variants: impl Iterator<Item = &'a Variant>) {
    for variant in variants {
        write(&["ran", &kind(variant), &device.name]);
    }
}

/// That a mistake was planted in a kernel's text.
pub fn planted(edits: &str) {
    write(&["planted", edits]);
}

/// That no device here runs any of the kernels in whose text the mistake could be planted.
pub fn not_planted(edits: &str, kernels: &BTreeSet<String>) {
    write(&["not planted", edits, &kernels.iter().cloned().collect::<Vec<_>>().join(", ")]);
}

/// What is not offered has a reason, and it is written down.
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

/// The kernels of the table are those of every variant there is.
#[test]
fn no_kernel_is_forgotten() {
    let known: BTreeSet<String> = kernels().into_keys().collect();
    let all: BTreeSet<String> = crate::shaders::every_variant().values().map(kind).collect();
    assert_eq!(all.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(known.len() > 25, "{known:?}");
}
