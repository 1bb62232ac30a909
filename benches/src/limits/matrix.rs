//! Cooperative multiplications that touch only registers: the limit of a matrix unit.

use std::fmt::Write as _;

use anyhow::Result;
use wgpu_attention::MatrixUnit;

use super::kernel::{Kernel, buffer};
use super::{fastest, filling};
use crate::Gpu;
use crate::timer::Timer;

/// Numbers of independent sums: enough to hide the latency of one, and few enough for the registers.
const FORMS: [u32; 3] = [4, 8, 16];
const SUBGROUPS: u32 = 4;
/// Loop iterations, fewer than the 65 535 after which a software driver ends loops.
const ROUNDS: u32 = 1000;

/// The fastest loop.
#[derive(Debug)]
pub(super) struct MatrixMultiplier {
    unit: MatrixUnit,
    sums: u32,
    kernel: Kernel,
    workgroups: u32,
}

impl MatrixMultiplier {
    /// `None` if the device has no matrix unit.
    pub(super) fn fastest(gpu: &Gpu, timer: &Timer<'_>) -> Result<Option<Self>> {
        let Ok(unit) = gpu.matrix_unit() else { return Ok(None) };
        let sink = buffer(gpu, 1 << 12);
        let mut forms = Vec::new();
        for sums in FORMS {
            let kernel = Kernel::new(gpu, "cooperative multiply", &wgsl(unit, sums), &[&sink]);
            let workgroups = filling(&kernel, timer)?;
            forms.push(Self { unit, sums, kernel, workgroups });
        }
        fastest(forms, Self::flop, |form| form.seconds(timer)).map(Some)
    }

    pub(super) fn seconds(&self, timer: &Timer<'_>) -> Result<f64> {
        timer.pass(|pass| self.kernel.dispatch(pass, self.workgroups))
    }

    pub(super) fn flop(&self) -> f64 {
        let side = f64::from(self.unit.fragment.side());
        2.0 * side.powi(3) * f64::from(self.sums * ROUNDS) * f64::from(SUBGROUPS * self.workgroups)
    }

    pub(super) fn name(&self) -> String {
        format!("{} sums of {1} × {1}, {2} workgroups", self.sums, self.unit.fragment.side(), self.workgroups)
    }
}

fn wgsl(unit: MatrixUnit, sums: u32) -> String {
    let side = unit.fragment.side();
    let matrix = |element: &str, role: char| format!("coop_mat{side}x{side}<{element}, {role}>");
    let (left, right, sum) = (matrix("f16", 'A'), matrix("f16", 'B'), matrix("f32", 'C'));
    let each = |write: &dyn Fn(u32) -> String| (0..sums).map(write).collect::<String>();
    let start = each(&|i| format!("    var s{i} = {sum}();\n"));
    let step = each(&|i| format!("        s{i} = coopMultiplyAdd(a, b, s{i});\n"));
    let total = (0..sums).map(|i| format!("s{i}")).collect::<Vec<_>>().join(" + ");
    let (elements, threads) = (side * side, SUBGROUPS * unit.subgroup);

    let mut text = String::from(
        "enable f16;\nenable wgpu_cooperative_matrix;\ndiagnostic(off, derivative_uniformity);\n\
         @group(0) @binding(0) var<storage, read_write> sink: array<f32>;\n",
    );
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "var<workgroup> factors: array<f16, {elements}>;\nvar<workgroup> result: array<f32, {elements}>;\n\
         @compute @workgroup_size({threads})\n\
         fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {{\n    \
         for (var i = thread; i < {elements}u; i += {threads}u) {{ factors[i] = f16(0.001 * f32(i % 7u)); }}\n    \
         workgroupBarrier();\n    let first = 0u;\n    let stride = {side}u;\n    \
         let a = coopLoadT<{left}>(&factors[first], stride);\n    \
         let b = coopLoad<{right}>(&factors[first], stride);\n{start}    \
         for (var i = 0u; i < {ROUNDS}u; i++) {{\n{step}    }}\n    \
         // The store keeps the sum alive: no compiler knows that all invocations store to the same place.\n    \
         let total = {total};\n    coopStoreT(total, &result[first], stride);\n    workgroupBarrier();\n    \
         if result[thread % {elements}u] == 1.0 {{ sink[thread % 1024u] = result[0]; }}\n}}\n"
    );
    text
}
