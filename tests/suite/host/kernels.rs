//! What each kernel says of itself, number by number, compared with a file that was reviewed (`kernels.txt`).
//!
//! A number that changes is not wrong, but the change must be intended. `BLESS=1 cargo test --release --test suite
//! host::kernels` writes the file again, and the reviewer checks the difference.

use std::collections::BTreeMap;
use std::path::Path;

use wgpu_attention::{
    Attention, Dtype, Fragment, Layout, MatrixUnit, Multiplier, Problem, ProblemBuilder, ScoreLayout, Shape, Slopes,
    Tiles, testing,
};

use super::{Kind, build, noop_with_features};
use crate::record::{noop_with_matrices, without_error};

/// Head sizes on both sides of where something changes, for few rows and for many.
fn problems() -> Vec<ProblemBuilder> {
    let sized = |len_q: u32, dim_qk: u32, dim_v: u32| {
        Problem::builder(Shape::new(1, 4, len_q, dim_qk).kv_heads(2).kv_len(64).value_dim(dim_v))
    };
    let mask = ScoreLayout::broadcast([1; 4]);
    let mut problems: Vec<_> = [
        (1, 32, 32),
        (2, 64, 64),
        (40, 96, 96),
        (40, 128, 128),
        (40, 160, 160),
        (40, 256, 256),
        (3, 64, 300),
        (3, 576, 32),
        (40, 5, 3),
    ]
    .map(|(rows, dim_qk, dim_v)| sized(rows, dim_qk, dim_v))
    .into();
    problems
        .extend([(40, 96, 32), (40, 32, 96), (40, 256, 32)].map(|(rows, dim_qk, dim_v)| sized(rows, dim_qk, dim_v)));
    problems.push(Problem::builder(Shape::new(1, 4, 1, 32).kv_heads(2).kv_len(2048)));
    let plain = sized(40, 32, 32);
    problems.push(plain.clone().lse().weights().mask(mask));
    problems.push(plain.clone().softcap(2.0).bias(Dtype::F32, mask).kv_lengths());
    problems.push(plain.clone().alibi(Slopes::PerHead).sinks());
    problems.push(plain.aux(3).mask_mod("fn mask_mod(at: At) -> bool { return aux[0] > 0.0; }"));
    let halves = [(1, 32, 32), (40, 64, 64), (40, 130, 130), (40, 256, 256), (40, 257, 16), (3, 64, 300), (40, 5, 3)];
    problems.extend(halves.map(|(rows, dim_qk, dim_v)| sized(rows, dim_qk, dim_v).dtype(Dtype::F16)));
    problems
}

/// The kernels that selection offers on every kind of device, and those that run with them.
fn kernels() -> BTreeMap<String, String> {
    let mut kernels = BTreeMap::new();
    let (device, _queue) = noop_with_features();
    let (with_matrices, _queue) = noop_with_matrices();
    let kinds = [Kind::Plain, Kind::Subgroups { least: 8 }, Kind::Software { lanes: 4 }, Kind::Software { lanes: 8 }];
    let mut devices: Vec<Attention> =
        kinds.iter().map(|kind| Attention::with_caps(&device, kind.caps(&device))).collect();
    for (fragment, tiles, multiplier) in [
        (Fragment::Side16, Tiles::Vectors, Multiplier::Unit),
        (Fragment::Side8, Tiles::Scalars, Multiplier::Unit),
        (Fragment::Side16, Tiles::Vectors, Multiplier::Emulated),
    ] {
        let mut caps = Kind::Plain.caps(&with_matrices);
        caps.matrix_unit = Some(MatrixUnit { fragment, subgroup: 32, tiles, multiplier });
        caps.workgroup_bytes = 32 << 10;
        devices.push(Attention::with_caps(&with_matrices, caps));
    }
    let mut words = *devices[3].caps();
    words.has_int64 = true;
    words.workgroups_to_fill = 1 << 20;
    devices.push(Attention::with_caps(&device, words));
    for problem in problems().into_iter().map(build) {
        for attention in &devices {
            for variant in attention.candidates(&problem).unwrap() {
                for kernel in testing::kernels(&problem, &variant, attention.caps()).unwrap() {
                    kernels.insert(kernel.to_string(), testing::describe(&kernel));
                }
            }
        }
    }
    kernels
}

#[test]
fn kernels_are_as_they_were_when_last_looked_at() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/host/kernels.txt");
    let text: String = kernels().into_iter().map(|(name, told)| format!("{name}\n    {told}\n")).collect();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap();
    for (now, then) in text.lines().zip(known.lines()) {
        assert_eq!(now, then, "see the head of tests/suite/host/kernels.rs");
    }
    assert_eq!(text.lines().count(), known.lines().count());
}

/// wgpu compares the bindings that a kernel declares with its text.
#[test]
fn staged_kernels_bind_what_they_declare() {
    let (device, _queue) = noop_with_features();
    let caps = Kind::Software { lanes: 8 }.caps(&device);
    let problem = build(Problem::builder(Shape::new(1, 1, 40, 32)));
    let attention = Attention::with_caps(&device, caps);
    without_error(&device, || attention.plan(&problem).unwrap());
    // A texture has a row even where there are no keys.
    let empty = build(Problem::builder(Shape::new(1, 1, 40, 32).kv_len(0)));
    without_error(&device, || attention.plan(&empty).unwrap().scratch());
}

/// A kernel moves elements one at a time if they do not lie in fours, whatever the kernel that it works for does. The
/// weights are moved like the output, if possible.
#[test]
fn each_kernel_of_a_plan_moves_elements_as_they_lie() {
    let (device, _queue) = noop_with_features();
    let shape = Shape::new(1, 1, 40, 32);
    let accesses = |kind: Kind, problem: ProblemBuilder, first: &str| -> Vec<String> {
        let (caps, problem) = (kind.caps(&device), build(problem));
        let able = wgpu_attention::candidates(&problem, &caps).unwrap();
        let variant = able.iter().find(|variant| testing::kind(variant) == first).unwrap();
        testing::kernels(&problem, variant, &caps).unwrap().iter().map(testing::kind).collect()
    };
    let odd_keys = Problem::builder(shape).k(Layout::bhld(1, 40, 32).at(1));
    assert_eq!(accesses(Kind::Software { lanes: 8 }, odd_keys, "lanes8 x4"), ["stage x1", "lanes8 x4"]);
    let weights = Problem::builder(shape).weights();
    assert_eq!(accesses(Kind::Plain, weights.clone(), "tiled x4"), ["tiled x4", "weights x4"]);
    assert_eq!(accesses(Kind::Plain, weights, "tiled x1"), ["tiled x1", "weights x1"]);
}
