//! Multiply-adds that touch only registers: the limit of arithmetic.

use std::fmt::Write as _;

use anyhow::Result;

use super::kernel::{Kernel, buffer};
use super::{fastest, filling};
use crate::Gpu;
use crate::timer::Timer;

/// How the loop is written. Its body is short: compilers order a long body chain by chain, so that each multiply-add waits
/// for the one before it, and the loop measures latency.
#[derive(Clone, Copy, Debug)]
struct Form {
    /// Components of a value.
    width: u32,
    /// Values that do not depend on one another.
    chains: u32,
    /// Multiply-adds of each chain in the loop's body.
    unroll: u32,
}

const FORMS: [Form; 13] = {
    const fn form(width: u32, chains: u32, unroll: u32) -> Form {
        Form { width, chains, unroll }
    }
    [
        form(1, 8, 1),
        form(1, 8, 2),
        form(1, 8, 4),
        form(1, 12, 1),
        form(1, 12, 2),
        form(1, 12, 4),
        form(1, 16, 1),
        form(1, 16, 2),
        form(1, 16, 4),
        form(4, 2, 2),
        form(4, 2, 4),
        form(4, 4, 2),
        form(4, 4, 4),
    ]
};

/// Loop iterations, fewer than the 65 535 after which a software driver ends loops.
const ROUNDS: u32 = 4000;
const WORKGROUP: u32 = 64;

/// The fastest loop.
#[derive(Debug)]
pub(super) struct Multiplier {
    form: Form,
    kernel: Kernel,
    workgroups: u32,
}

impl Multiplier {
    pub(super) fn fastest(gpu: &Gpu, timer: &Timer<'_>) -> Result<Self> {
        let sink = buffer(gpu, 16);
        let mut forms = Vec::new();
        for form in FORMS {
            let kernel = Kernel::new(gpu, "multiply-add", &form.wgsl(), &[&sink]);
            let workgroups = filling(&kernel, timer)?;
            forms.push(Self { form, kernel, workgroups });
        }
        fastest(forms, Self::flop, |form| form.seconds(timer))
    }

    pub(super) fn seconds(&self, timer: &Timer<'_>) -> Result<f64> {
        timer.pass(|pass| self.kernel.dispatch(pass, self.workgroups))
    }

    pub(super) fn flop(&self) -> f64 {
        let Form { width, chains, unroll } = self.form;
        let each = 2.0 * f64::from(width * chains * unroll) * f64::from(ROUNDS);
        each * f64::from(WORKGROUP) * f64::from(self.workgroups)
    }

    pub(super) fn name(&self) -> String {
        let Form { width, chains, unroll } = self.form;
        format!("{chains} chains of {width}, {unroll} per iteration, {} workgroups", self.workgroups)
    }
}

impl Form {
    fn wgsl(self) -> String {
        let Self { width, chains, unroll } = self;
        let ty = if width == 1 { "f32".to_owned() } else { format!("vec{width}<f32>") };
        let each = |write: &dyn Fn(u32) -> String| (0..chains).map(write).collect::<String>();
        let start = each(&|i| format!("    var a{i} = {ty}(x + {i}.0);\n"));
        let step = each(&|i| format!("        a{i} = fma(a{i}, {ty}(0.999), {ty}(0.5));\n"));
        let sum: Vec<String> = (0..chains).map(|i| format!("a{i}")).collect();
        let sum = sum.join(" + ");
        let sum = if width == 1 { sum } else { format!("dot({sum}, {ty}(1.0))") };

        let mut text = String::from("@group(0) @binding(0) var<storage, read_write> sink: array<f32>;\n");
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "@compute @workgroup_size({WORKGROUP})\n\
             fn main(@builtin(global_invocation_id) id: vec3<u32>) {{\n    let x = f32(id.x);\n{start}    \
             for (var i = 0u; i < {ROUNDS}u; i++) {{\n{}    }}\n    \
             // Never true, because every chain approaches 500, which no compiler knows.\n    \
             let sum = {sum};\n    if sum == 1.0 {{ sink[0] = sum; }}\n}}\n",
            step.repeat(unroll as usize)
        );
        text
    }
}
