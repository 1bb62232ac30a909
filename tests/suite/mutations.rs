//! Plants each mistake of [`crate::mutants`] in the shaders' text and checks that it is noticed.
//!
//! The unchanged text must pass the same test, so that it is the mistake that is noticed.
//!
//! A mistake is a kernel of its own to compile. One in three is planted, all with `--full`: they test the questions, which seldom
//! change. Every run checks that each has its place in the text.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use truth::{Case, Expected};
use wgpu_attention::testing::{self, kind};
use wgpu_attention::{Attention, Caps, Problem, Variant, candidates};

use crate::choice::plants;
use crate::coverage::{self, offered};
use crate::device::{Device, all, with_real_matrices};
use crate::facts;
use crate::laws;
use crate::mutants::{ATTENTION, DECODE, LANES, MATRIX, MERGE, Mutation, PARTS, Question, STAGE, STREAMS, WEIGHTS};

/// Which kernel's text is edited.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Edited {
    Tiled,
    Weights,
    Lanes,
    /// The kernel that stages keys for [`Self::Lanes`].
    Stage,
    Decode,
    Streams,
    Matrix,
    /// The kernel that merges the parts that the tiled kernel leaves.
    Merge,
}

impl Edited {
    /// The schedule of the kernel that is edited.
    const fn schedule(self) -> &'static str {
        match self {
            Self::Tiled => "tiled",
            Self::Weights => "weights",
            Self::Lanes => "lanes",
            Self::Stage => "stage",
            Self::Decode => "decode",
            Self::Streams => "streams",
            Self::Matrix => "matrix",
            Self::Merge => "merge",
        }
    }

    /// The schedule of the variant whose plan contains that kernel.
    const fn pinned(self) -> &'static str {
        match self {
            Self::Weights | Self::Merge => Self::Tiled.schedule(),
            Self::Stage => Self::Lanes.schedule(),
            own => own.schedule(),
        }
    }
}

/// Every mistake there is, by the kernel that it is planted in.
const ALL: [(Edited, &[Mutation]); 9] = [
    (Edited::Tiled, ATTENTION),
    (Edited::Tiled, PARTS),
    (Edited::Weights, WEIGHTS),
    (Edited::Lanes, LANES),
    (Edited::Stage, STAGE),
    (Edited::Decode, DECODE),
    (Edited::Streams, STREAMS),
    (Edited::Merge, MERGE),
    (Edited::Matrix, MATRIX),
];

/// How a mistake is tested.
struct Asked {
    /// The limits to plan within.
    caps: Caps,
    /// The variant to run.
    pinned: Variant,
    /// The variant to edit: the same, or one that runs with it.
    edited: Variant,
}

/// The variants that may run a problem on such a device, as pairs of the one to pin and the one to edit.
fn editable(problem: &Problem, caps: &Caps, tried: fn(&Variant) -> bool, edited: Edited) -> Vec<(Variant, Variant)> {
    let mut able = candidates(problem, caps).unwrap();
    able.retain(tried);
    let pairs = able.into_iter().filter(|pinned| testing::schedule(pinned) == edited.pinned()).filter_map(|pinned| {
        let kernels = testing::kernels(problem, &pinned, caps).unwrap();
        let edited = kernels.into_iter().find(|kernel| testing::schedule(kernel) == edited.schedule())?;
        Some((pinned, edited))
    });
    pairs.collect()
}

/// The case that exposes a mistake.
fn case(mutation: &Mutation) -> Case {
    match mutation.exposed_by {
        Question::Case(case) | Question::Cut(case) | Question::Split(case) => case(),
        Question::Rounding(dtype) => laws::between_neighbours(dtype, 2),
    }
}

/// The limits to plan the case within.
fn within(mutation: &Mutation, edited: Edited, mut caps: Caps) -> Caps {
    match mutation.exposed_by {
        Question::Cut(_) => caps.dispatch_flop = 1,
        Question::Split(_) => caps.workgroups_to_fill = 1 << 20,
        Question::Case(_) | Question::Rounding(_) => {}
    }
    treated_as_gpu(edited, caps)
}

/// Treats a CPU as a GPU for [`Edited::Decode`], because a CPU is offered that kernel only for few rows, and the cases have
/// many.
fn treated_as_gpu(edited: Edited, mut caps: Caps) -> Caps {
    caps.is_software &= edited != Edited::Decode;
    caps
}

/// All that such a device runs and whose text the edits fit.
fn targets(
    mutation: &Mutation,
    problem: &Problem,
    edited: Edited,
    caps: &Caps,
    tried: fn(&Variant) -> bool,
) -> Vec<Asked> {
    let caps = within(mutation, edited, *caps);
    let fits = |variant: &Variant| {
        let text = text(variant);
        mutation.edits.iter().all(|(from, _)| text.contains(from))
    };
    let pairs = editable(problem, &caps, tried, edited).into_iter().filter(|(_, edited)| fits(edited));
    pairs.map(|(pinned, edited)| Asked { caps, pinned, edited }).collect()
}

/// A variant's text. It is kept, because many mistakes look for their place in it.
fn text(variant: &Variant) -> Arc<str> {
    static TEXTS: Mutex<BTreeMap<String, Arc<str>>> = Mutex::new(BTreeMap::new());
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    texts.entry(variant.to_string()).or_insert_with(|| variant.wgsl().into()).clone()
}

/// The kernels that the edits fit, by adapter.
fn kernels_by_adapter(mutation: &Mutation, edited: Edited) -> BTreeMap<&'static str, BTreeSet<String>> {
    let problem = case(mutation).problem;
    let kernels =
        |caps| targets(mutation, &problem, edited, &caps, |_| true).iter().map(|asked| kind(&asked.edited)).collect();
    facts::adapters().into_iter().map(|(name, caps)| (name, kernels(caps))).collect()
}

/// Runs the case, on the unchanged text or with the mistake planted. The error says what is wrong with the result.
fn ask(device: &Device, mutation: &Mutation, case: &Case, asked: &Asked, runner: &Attention) -> Result<(), String> {
    let (got, _) = device.run_by(runner, case, &asked.pinned);
    match mutation.exposed_by {
        Question::Rounding(_) => laws::assert_nearest(case, &got),
        _ => Expected::of(case).check(&got).map(|_| ()).map_err(|wrong| wrong.to_string()),
    }
}

/// An `Attention` that has compiled the mistake.
fn with_mistake(device: &Device, mutation: &Mutation, asked: &Asked) -> Attention {
    let planted = Attention::with_caps(device.attention.device(), asked.caps);
    let text = mutation.edits.iter().fold(asked.edited.wgsl(), |text, (from, to)| text.replace(from, to));
    let _guard = device.enter();
    let invalid = testing::substitute(&planted, &asked.edited, text);
    assert!(invalid.is_none(), "{:?} is no longer WGSL: {invalid:?}", mutation.edits);
    planted
}

/// Plants mistakes that some adapter here has the text for, spread over the adapters. Lists those that were not noticed.
fn assert_all_noticed(devices: &[Device], mutations: &[Mutation], edited: Edited) {
    let mut survivors = Vec::new();
    let mut unmodified: Vec<Attention> = Vec::new();
    for (n, mutation) in mutations.iter().enumerate() {
        if !plants(n) {
            coverage::left_to_full(&name(mutation, edited));
            continue;
        }
        let case = case(mutation);
        // A driver without subgroups takes twenty times as long to compile the kernel for few rows, so it comes last.
        let first = if edited == Edited::Decode { 0 } else { n };
        let mut in_turn = devices.iter().cycle().skip(first).take(devices.len());
        let target = in_turn.find_map(|device| {
            let targets = targets(mutation, &case.problem, edited, device.attention.caps(), device.tried);
            Some((device, targets.into_iter().next()?))
        });
        let Some((device, asked)) = target else {
            let kernels = kernels_by_adapter(mutation, edited).into_values().flatten().collect();
            coverage::not_planted(&name(mutation, edited), &kernels);
            continue;
        };
        let is_alike = |other: &Attention| (other.device(), other.caps()) == (device.attention.device(), &asked.caps);
        if !unmodified.iter().any(is_alike) {
            unmodified.push(Attention::with_caps(device.attention.device(), asked.caps));
        }
        let unmodified = unmodified.iter().find(|other| is_alike(other)).unwrap();
        if let Err(wrong) = ask(device, mutation, &case, &asked, unmodified) {
            panic!("the unchanged shader fails where {:?} should: {wrong}", mutation.edits);
        }
        if ask(device, mutation, &case, &asked, &with_mistake(device, mutation, &asked)).is_ok() {
            survivors.push(format!("{:?}", mutation.edits));
        }
        coverage::planted(&name(mutation, edited));
    }
    assert!(survivors.is_empty(), "not noticed:\n{}", survivors.join("\n"));
}

fn name(mutation: &Mutation, edited: Edited) -> String {
    let (from, to) = mutation.edits[0];
    format!("{edited:?}: {to:?} for {from:?}")
}

/// If the shaders have changed, an edit that fits no kernel of any adapter tests nothing. An edit that fits nothing on one
/// adapter must belong to kernels that the adapter does not run. Needs no adapter.
#[test]
fn every_mistake_has_its_place_on_every_adapter_that_runs_the_kernel() {
    let offers = |edited: Edited| -> BTreeMap<_, _> {
        facts::adapters()
            .into_iter()
            .map(|(name, caps)| (name, offered(&treated_as_gpu(edited, caps), |_| true)))
            .collect()
    };
    let mut stale = Vec::new();
    for (edited, mutations) in ALL {
        let offered = offers(edited);
        for mutation in mutations {
            let by_adapter = kernels_by_adapter(mutation, edited);
            let all: BTreeSet<&String> = by_adapter.values().flatten().collect();
            if all.is_empty() {
                stale.push(name(mutation, edited));
            }
            for (adapter, kernels) in &by_adapter {
                let lacks_all = all.iter().all(|kernel| !offered[adapter].contains(*kernel));
                assert_eq!(kernels.is_empty(), lacks_all, "{} on {adapter}, of {all:?}", name(mutation, edited));
            }
        }
    }
    assert!(stale.is_empty(), "in no text:\n{}", stale.join("\n"));
}

#[test]
fn every_mistake_in_the_attention_kernel_is_noticed() {
    assert_all_noticed(all(), ATTENTION, Edited::Tiled);
}

#[test]
fn every_mistake_in_the_weights_kernel_is_noticed() {
    assert_all_noticed(all(), WEIGHTS, Edited::Weights);
}

#[test]
fn every_mistake_in_the_kernel_for_software_is_noticed() {
    assert_all_noticed(all(), LANES, Edited::Lanes);
    assert_all_noticed(all(), STAGE, Edited::Stage);
}

#[test]
fn every_mistake_in_the_kernel_for_few_rows_is_noticed() {
    assert_all_noticed(all(), DECODE, Edited::Decode);
    assert_all_noticed(all(), STREAMS, Edited::Streams);
}

#[test]
fn every_mistake_in_splitting_and_merging_is_noticed() {
    assert_all_noticed(all(), PARTS, Edited::Tiled);
    assert_all_noticed(all(), MERGE, Edited::Merge);
}

/// Only on drivers that have matrices: others are old, and take minutes to compile so many kernels.
#[test]
fn every_mistake_in_the_matrix_kernel_is_noticed() {
    let recent: Vec<Device> = with_real_matrices().map(|device| device.with_caps(|_| ())).collect();
    assert_all_noticed(&recent, MATRIX, Edited::Matrix);
}
