//! The code between a problem and its dispatches, on wgpu's noop device: what is accepted to the byte, what is chosen, and
//! where work is cut.
//!
//! `cargo xtask mutants` plants mistakes in that code, which these tests should notice. So sizes are primes if they can be,
//! and each bound is tested from both sides.

mod binding;
mod describing;
mod inputs;
mod kernels;
mod limits;
mod matrices;
mod scratch;
mod selection;
mod sharing;
mod tiles;
mod tuning;

use wgpu::{Device, Queue};
use wgpu_attention::{Attention, Caps, Plan, Problem, ProblemBuilder, Variant, testing};

/// A noop device with the features that some kernels use.
fn noop_with_features() -> (Device, Queue) {
    Device::noop(&wgpu::DeviceDescriptor { required_features: Caps::FEATURES, ..Default::default() })
}

fn build(problem: ProblemBuilder) -> Problem {
    problem.build().unwrap()
}

/// What kind of device a plan is made for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// A GPU without subgroups.
    Plain,
    /// A GPU with subgroups of `least` threads or more.
    Subgroups { least: u32 },
    /// A software GPU, with subgroups of one size.
    Software { lanes: u32 },
}

impl Kind {
    /// The facts of such a device, with limits that nothing here reaches.
    fn caps(self, device: &Device) -> Caps {
        let mut caps = Caps::of(device);
        caps.workgroups_to_fill = 1;
        caps.is_software = matches!(self, Self::Software { .. });
        caps.has_int64 = false;
        (caps.min_subgroup_size, caps.subgroup_size) = match self {
            Self::Plain => (None, None),
            Self::Subgroups { least } => (Some(least), None),
            Self::Software { lanes } => (Some(lanes), Some(lanes)),
        };
        caps
    }
}

/// Plans a problem with the named kernel, in the form that exchanges data through workgroup memory.
fn plan_by(name: &str, device: &Device, caps: Caps, problem: &Problem) -> Plan {
    let attention = Attention::with_caps(device, caps);
    let named = |variant: &Variant| testing::schedule(variant) == name && !testing::kind(variant).contains("-sub");
    let variant = attention.candidates(problem).unwrap().into_iter().find(named);
    let variant = variant.unwrap_or_else(|| panic!("no {name} for {problem:?}"));
    // The kernels are replaced by empty ones, because these tests do not run them, and some take long to compile.
    for kernel in testing::kernels(problem, &variant, &caps).unwrap() {
        testing::substitute(&attention, &kernel, "@compute @workgroup_size(1) fn main() {}".to_owned());
    }
    attention.plan_variant(problem, &variant).unwrap()
}
