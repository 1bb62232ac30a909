//! Plants each mistake of [`crate::mutants`] in the shaders' text and sees that it is noticed.
//!
//! The same question put to the honest text must pass, so that what is noticed is the mistake.

use wgpu_attention::{Attention, Family, Problem, Variant, weights_candidates};

use crate::case::Case;
use crate::comparator::Expected;
use crate::device::{Device, all, with_matrix_units};
use crate::laws;
use crate::matrix::in_f16;
use crate::mutants::{ATTENTION, DECODE, LANES, MATRIX, MERGE, Mutation, PARTS, Question, STAGE, STREAMS, WEIGHTS};
use crate::questions::plain;

/// Which kernel's text is edited.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Edited {
    Tiled,
    Weights,
    Lanes,
    /// The one that prepares for it.
    Stage,
    Decode,
    Streams,
    Matrix,
    /// The one that combines what the tiled kernel leaves.
    Merge,
}

/// The variants that `attention` would run a case with, as pairs of the one to pin and the one to edit.
fn editable(attention: &Attention, problem: &Problem, edited: Edited) -> Vec<(Variant, Variant)> {
    let pairs = attention.candidates(problem).unwrap().into_iter().filter_map(|pinned| match (edited, pinned.family) {
        (Edited::Tiled, Family::Tiled)
        | (Edited::Lanes, Family::Lanes { .. })
        | (Edited::Decode, Family::Decode(_))
        | (Edited::Matrix, Family::Matrix(_))
        | (Edited::Streams, Family::Streams { .. }) => Some((pinned, pinned)),
        (Edited::Stage, Family::Lanes { .. }) => Some((pinned, pinned.companions()[0]?)),
        (Edited::Merge, Family::Tiled) => Some((pinned, pinned.companions()[1]?)),
        (Edited::Weights, Family::Tiled) => {
            let weights = weights_candidates(problem, attention.caps()).unwrap();
            Some((pinned, weights.into_iter().find(|weights| weights.access == pinned.access)?))
        }
        _ => None,
    });
    pairs.collect()
}

/// The case to ask with, and the limits to plan within.
fn question(device: &Device, mutation: &Mutation) -> (Case, Attention) {
    let mut caps = *device.attention.caps();
    let case = match mutation.exposed_by {
        Question::Case(case) => case(),
        Question::Cut(case) => {
            caps.dispatch_flop = 1;
            case()
        }
        Question::Split(case) => {
            caps.workgroups_to_fill = 1 << 20;
            case()
        }
        Question::Rounding(dtype) => laws::between_neighbours(dtype, 2),
    };
    (case, Attention::with_caps(device.attention.device(), caps))
}

/// The first variant whose text the edits fit, as the one to pin and the one to edit.
fn target(attention: &Attention, problem: &Problem, mutation: &Mutation, edited: Edited) -> Option<(Variant, Variant)> {
    let fits = |&(_, edited): &(Variant, Variant)| mutation.edits.iter().all(|(from, _)| edited.wgsl().contains(from));
    editable(attention, problem, edited).into_iter().find(fits)
}

fn applies(device: &Device, mutation: &Mutation, edited: Edited) -> bool {
    let (case, attention) = question(device, mutation);
    target(&attention, &case.problem, mutation, edited).is_some()
}

/// Whether an adapter runs the kernel at all.
fn runs(device: &Device, edited: Edited) -> bool {
    let problem = if edited == Edited::Matrix { in_f16(plain()).problem } else { plain().problem };
    !editable(&device.attention, &problem, edited).is_empty()
}

/// Asks the question of the first variant whose text the edits fit. The answer is right or it says what is not.
fn ask(device: &Device, mutation: &Mutation, edited: Edited, planted: bool) -> Result<(), String> {
    let (case, attention) = question(device, mutation);
    let Some((pinned, edited)) = target(&attention, &case.problem, mutation, edited) else {
        panic!("the mutation no longer applies: {:?} is not in the text", mutation.edits);
    };
    let text = mutation.edits.iter().fold(edited.wgsl(), |text, (from, to)| text.replace(from, to));
    if planted {
        let _guard = device.enter();
        let scope = attention.device().push_error_scope(wgpu::ErrorFilter::Validation);
        attention.substitute(edited, text);
        let invalid = pollster::block_on(scope.pop());
        assert!(invalid.is_none(), "{:?} is no longer WGSL: {invalid:?}", mutation.edits);
    }
    // What is not edited need not be compiled again.
    let runner = if planted || matches!(mutation.exposed_by, Question::Cut(_) | Question::Split(_)) {
        &attention
    } else {
        &device.attention
    };
    let (got, _) = device.run_by(runner, &case, pinned);
    match mutation.exposed_by {
        Question::Rounding(_) => laws::assert_nearest(&case, &got),
        _ => Expected::of(&case).check(&got).map(|_| ()),
    }
}

/// Plants every mistake, spread over the adapters, and lists those that nobody noticed.
fn assert_all_noticed(devices: &[Device], mutations: &[Mutation], edited: Edited) {
    let somewhere = |mutation: &&Mutation| devices.iter().any(|device| applies(device, mutation, edited));
    let stale: Vec<_> =
        mutations.iter().filter(|mutation| !somewhere(mutation)).map(|mutation| mutation.edits).collect();
    assert!(stale.is_empty() || !devices.iter().any(|device| runs(device, edited)), "in no text: {stale:?}");
    let mut survivors = Vec::new();
    for (n, mutation) in mutations.iter().enumerate() {
        // Kernels for CPUs that play a GPU run on no other adapter, and their text differs.
        let mut in_turn = devices.iter().cycle().skip(n).take(devices.len());
        let Some(device) = in_turn.find(|device| applies(device, mutation, edited)) else { continue };
        if let Err(wrong) = ask(device, mutation, edited, false) {
            panic!("the honest shader fails where {:?} should: {wrong}", mutation.edits);
        }
        if ask(device, mutation, edited, true).is_ok() {
            survivors.push(format!("{:?}", mutation.edits));
        }
    }
    assert!(survivors.is_empty(), "not noticed:\n{}", survivors.join("\n"));
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

/// Where a driver has matrices: others are old, and take minutes to compile so many.
#[test]
fn every_mistake_in_the_matrix_kernel_is_noticed() {
    let recent: Vec<Device> = (with_matrix_units().iter())
        .filter(|device| device.has_matrices())
        .map(|device| device.with_caps(|_| ()))
        .collect();
    assert_all_noticed(&recent, MATRIX, Edited::Matrix);
}
