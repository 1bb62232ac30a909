//! The shapes that are measured by default.

use wgpu::DeviceType;

use crate::{Suite, Workload};

/// The tokens of a prefill shape, over all its batches.
const TOKENS: u32 = 16 * 1024;
/// Size of all heads together.
const WIDTH: u32 = 2048;
/// KV heads of every decode shape, so that all shapes of one length read the same amount.
const KV_HEADS: u32 = 8;

/// The shapes of `suite`. A software GPU gets fewer and smaller ones.
pub(crate) fn shapes(suite: Suite, kind: DeviceType) -> Vec<Workload> {
    let small = kind == DeviceType::Cpu;
    let mut shapes = Vec::new();
    if matches!(suite, Suite::Prefill | Suite::All) {
        shapes.extend(named("prefill"));
        shapes.extend(if small { small_prefill() } else { prefill() });
    }
    if matches!(suite, Suite::Decode | Suite::All) {
        shapes.extend(named("decode"));
        let (keys, swept): (&[u32], _) =
            if small { (&[1, 4, 16], 2048) } else { (&[1, 2, 4, 8, 16, 32, 64, 128], 8192) };
        shapes.extend(decode(keys));
        shapes.extend([1, 2, 4, 8, 16, 32, 64].map(|queries| Workload::new("decode", [1, 32, 8, queries, swept, 128])));
    }
    if suite == Suite::Backward {
        shapes.extend(backward(small));
    }
    distinct(shapes)
}

/// Long enough to show how time and memory grow with the length. On a software GPU the longest have one head.
fn backward(small: bool) -> Vec<Workload> {
    let heads = |len| if small && len > 1024 { 1 } else { 8 };
    let lens: &[u32] = if small { &[512, 1024, 4096, 16384] } else { &[512, 1024, 2048, 4096, 8192, 16384] };
    let dims: &[u32] = if small { &[64] } else { &[64, 128] };
    let all = dims.iter().flat_map(|&dim| lens.iter().map(move |&len| (dim, len)));
    all.flat_map(|(dim, len)| {
        let shape = Workload::new("backward", [1, heads(len), heads(len), len, len, dim]);
        [shape.clone(), shape.causal()]
    })
    .collect()
}

/// Each problem once. The named shapes come first, so that a problem keeps its name.
fn distinct(shapes: Vec<Workload>) -> Vec<Workload> {
    let mut distinct: Vec<Workload> = Vec::new();
    for workload in shapes {
        if !distinct.iter().any(|other| other.is_same_problem(&workload)) {
            distinct.push(workload);
        }
    }
    distinct
}

/// Printed if the suites were made small.
pub(crate) const SMALL: &str = "on a software GPU the suites are small: about two minutes in all, only f32 by default";

/// The shapes that other projects are measured on, too.
fn named(suite: &str) -> Vec<Workload> {
    let prefill = |sizes| Workload::new("prefill", sizes);
    let decode = |sizes| Workload::new("decode", sizes);
    let all = [
        prefill([1, 8, 8, 512, 512, 64]).named("P1"),
        prefill([1, 8, 8, 1024, 1024, 64]).causal().named("P2"),
        prefill([1, 8, 2, 1024, 1024, 128]).causal().named("P3"),
        prefill([2, 4, 4, 384, 384, 32]).masked().named("P4"),
        decode([1, 32, 8, 1, 4096, 128]).named("D1"),
        decode([8, 16, 16, 1, 2048, 64]).named("D2"),
    ];
    all.into_iter().filter(|workload| workload.suite == suite).collect()
}

fn prefill() -> Vec<Workload> {
    let mut shapes = Vec::new();
    for dim in [64, 128, 256] {
        for len in [512, 1024, 2048, 4096, 8192, 16384] {
            let shape = Workload::new("prefill", [TOKENS / len, WIDTH / dim, WIDTH / dim, len, len, dim]);
            shapes.extend([shape.clone(), shape.causal()]);
        }
    }
    // Shapes with shared KV heads. Those without are above.
    shapes.extend([4, 8].map(|group| Workload::new("prefill", [4, 16, 16 / group, 4096, 4096, 128]).causal()));
    shapes
}

fn small_prefill() -> Vec<Workload> {
    let mut shapes = Vec::new();
    for dim in [64, 128] {
        for len in [512, 1024, 2048] {
            let shape = Workload::new("prefill", [1, 4, 4, len, len, dim]);
            shapes.extend([shape.clone(), shape.causal()]);
        }
    }
    shapes
}

/// One new token, for each number of keys, which is given in units of 1024.
fn decode(thousands: &[u32]) -> Vec<Workload> {
    let mut shapes = Vec::new();
    for group in [1, 4, 8] {
        for keys in thousands {
            shapes.push(Workload::new("decode", [1, group * KV_HEADS, KV_HEADS, 1, keys * 1024, 128]));
        }
    }
    shapes
}

#[cfg(test)]
mod tests {
    use wgpu_attention::Dtype;

    use super::*;

    #[test]
    fn every_shape_is_a_problem_and_stands_once() {
        for kind in [DeviceType::Cpu, DeviceType::DiscreteGpu] {
            let all = [Suite::All, Suite::Backward].into_iter().flat_map(|suite| shapes(suite, kind));
            let all: Vec<Workload> = all.collect();
            assert_eq!(all.iter().filter(|workload| workload.name.is_some()).count(), 6);
            for (i, workload) in all.iter().enumerate() {
                assert!(workload.problem(Dtype::F32).is_ok(), "{workload}");
                assert!(
                    !all[..i].iter().any(|other| other.suite == workload.suite && other.is_same_problem(workload)),
                    "{workload} stands twice"
                );
            }
        }
    }
}
