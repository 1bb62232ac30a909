//! Plants each mistake of [`crate::mutants`] in the shaders' text and sees that it is noticed.
//!
//! The same question put to the honest text must pass, so that what is noticed is the mistake.

use wgpu_attention::{Attention, Family, Problem, Variant};

use crate::comparator::Expected;
use crate::device::{Device, all};
use crate::laws;
use crate::mutants::{ATTENTION, Mutation, Question, WEIGHTS};

/// The variants that `attention` would run a case with, as pairs of the one to pin and the one to edit.
fn editable(attention: &Attention, problem: &Problem, family: Family) -> Vec<(Variant, Variant)> {
    let edited = |pinned: Variant| {
        let mut variant = pinned;
        variant.family = family;
        if family == Family::Weights {
            (variant.dim_v, variant.lse) = (0, false);
        }
        (pinned, variant)
    };
    attention.candidates(problem).unwrap().into_iter().map(edited).collect()
}

/// Asks the question of the first variant whose text the edits fit. The answer is right or it says what is not.
fn ask(device: &Device, mutation: &Mutation, family: Family, planted: bool) -> Result<(), String> {
    let mut caps = *device.attention.caps();
    let case = match mutation.exposed_by {
        Question::Case(case) => case(),
        Question::Cut(case) => {
            caps.dispatch_flop = 1;
            case()
        }
        Question::Rounding(dtype) => laws::between_neighbours(dtype, 2),
    };
    let attention = Attention::with_caps(device.attention.device(), caps);
    let fits = |&(_, edited): &(Variant, Variant)| mutation.edits.iter().all(|(from, _)| edited.wgsl().contains(from));
    let Some((pinned, edited)) = editable(&attention, &case.problem, family).into_iter().find(fits) else {
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
    let runner =
        if planted || matches!(mutation.exposed_by, Question::Cut(_)) { &attention } else { &device.attention };
    let (got, _) = device.run_by(runner, &case, pinned);
    match mutation.exposed_by {
        Question::Rounding(_) => laws::assert_nearest(&case, &got),
        _ => Expected::of(&case).check(&got).map(|_| ()),
    }
}

/// Plants every mistake, spread over the adapters, and lists those that nobody noticed.
fn assert_all_noticed(mutations: &[Mutation], family: Family) {
    let mut survivors = Vec::new();
    for (n, mutation) in mutations.iter().enumerate() {
        let device = &all()[n % all().len()];
        if let Err(wrong) = ask(device, mutation, family, false) {
            panic!("the honest shader fails where {:?} should: {wrong}", mutation.edits);
        }
        if ask(device, mutation, family, true).is_ok() {
            survivors.push(format!("{:?}", mutation.edits));
        }
    }
    assert!(survivors.is_empty(), "not noticed:\n{}", survivors.join("\n"));
}

#[test]
fn every_mistake_in_the_attention_kernel_is_noticed() {
    assert_all_noticed(ATTENTION, Family::Tiled);
}

#[test]
fn every_mistake_in_the_weights_kernel_is_noticed() {
    assert_all_noticed(WEIGHTS, Family::Weights);
}
