//! The shapes that are measured unless others are asked for.

use wgpu::DeviceType;

use crate::{Suite, Workload};

/// Many tokens at once, spread over batches.
const TOKENS: u32 = 16 * 1024;
/// Size of all heads together.
const WIDTH: u32 = 2048;
/// KV heads of every decode shape, so that all of one length read as much.
const KV_HEADS: u32 = 8;

/// The shapes of `suite`, and what was left out where a device is a CPU that plays one.
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
    distinct(shapes)
}

/// Each problem once, by its name where it has one: the named come first.
fn distinct(shapes: Vec<Workload>) -> Vec<Workload> {
    let mut distinct: Vec<Workload> = Vec::new();
    for workload in shapes {
        if !distinct.iter().any(|other| other.is_same_problem(&workload)) {
            distinct.push(workload);
        }
    }
    distinct
}

/// What is said where a suite was made small.
pub(crate) const SMALL: &str = "on a software GPU the suites are small: about two minutes in all, f32 unless --dtype";

/// Those that other projects are measured on too.
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
    // The same with shared KV heads; alone they are above.
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

/// One new token before so many thousand keys.
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
            let all = shapes(Suite::All, kind);
            assert_eq!(all.iter().filter(|workload| workload.name.is_some()).count(), 6);
            for (i, workload) in all.iter().enumerate() {
                assert!(workload.problem(Dtype::F32).is_ok(), "{workload}");
                assert!(!all[..i].iter().any(|other| other.is_same_problem(workload)), "{workload} stands twice");
            }
        }
    }
}
