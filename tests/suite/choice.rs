//! The variants and devices that a test runs a case on.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use truth::{Case, Expected};
use wgpu_attention::{Problem, Variant, testing};

use crate::device::{Device, all};

/// Calls `act` with every variant that can run a case, on every adapter.
pub fn each_variant(problem: &Problem, mut act: impl FnMut(&Device, Variant)) {
    for device in all() {
        for variant in device.variants(problem) {
            act(device, variant);
        }
    }
}

/// Variants that can run a case, each on one of the adapters that prefer it, or else that have it. Another adapter would compile the
/// same text, which tests its driver rather than the kernel. Tests that share few kernels do that.
///
/// These are one variant of each schedule that some adapter prefers, and a few of the others, or all with `--full`: compiling them
/// takes most of the suite's time. What a problem adds to a kernel is mostly in pieces that all kernels share, and each variant
/// meets many problems.
pub fn chosen_variants<'a>(devices: &'a [Device], problem: &Problem) -> impl Iterator<Item = (&'a Device, Variant)> {
    let able: Vec<_> = devices.iter().map(|device| (device, device.variants(problem))).collect();
    let mut variants: Vec<Variant> = Vec::new();
    for variant in able.iter().flat_map(|(_, variants)| variants) {
        if !variants.contains(variant) {
            variants.push(variant.clone());
        }
    }
    let mut preferred: Vec<&Variant> = able.iter().filter_map(|(_, variants)| variants.first()).collect();
    preferred.sort_by_key(|variant| hash((problem, variant.to_string())));
    let mut chosen: Vec<&Variant> = Vec::new();
    for variant in preferred {
        if chosen.iter().all(|other| testing::schedule(other) != testing::schedule(variant)) {
            chosen.push(variant);
        }
    }
    let is_one_of_few = |variant: &Variant| hash((problem, variant.to_string())).is_multiple_of(8);
    variants.retain(|variant| tries_all() || chosen.contains(&variant) || is_one_of_few(variant));
    variants.into_iter().map(move |variant| {
        let which = |does: &dyn Fn(&[Variant]) -> bool| -> Vec<&Device> {
            able.iter().filter(|(_, variants)| does(variants)).map(|(device, _)| *device).collect()
        };
        let mut having = which(&|variants| variants.first() == Some(&variant));
        if having.is_empty() {
            having = which(&|variants| variants.contains(&variant));
        }
        // The same device for most problems, so that each variant is compiled once.
        let turn = hash(variant.to_string()) as usize;
        (having[turn % having.len()], variant)
    })
}

/// Whether this run tries everything, as `--full` asks.
pub fn tries_all() -> bool {
    std::env::args().any(|argument| argument == "--include-ignored")
}

/// Whether this run plants the `n`th mistake of a list: one in three, or all with `--full`. Neighbours in a list are much alike.
pub fn plants(n: usize) -> bool {
    tries_all() || n.is_multiple_of(3)
}

/// The same in every run.
fn hash(of: impl std::hash::Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(of)
}

/// Runs a case as the [`chosen_variants`], and checks all outputs.
pub fn verify(case: &Case) {
    let expected = Expected::of(case);
    for (device, variant) in chosen_variants(all(), &case.problem) {
        verify_variant(case, &expected, device, &variant);
    }
}

/// Runs a case as every variant on every adapter, and checks all outputs.
pub fn verify_everywhere(case: &Case) {
    let expected = Expected::of(case);
    each_variant(&case.problem, |device, variant| verify_variant(case, &expected, device, &variant));
}

/// Runs a case as one variant, and checks all outputs.
pub fn verify_variant(case: &Case, expected: &Expected, device: &Device, variant: &Variant) {
    if let Err(wrong) = expected.check(&device.run(case, variant)) {
        panic!("{variant} on {}: {wrong}\n{:?}", device.name, case.problem);
    }
}
