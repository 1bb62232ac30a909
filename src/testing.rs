//! For the project's own tests, benchmarks and tools; not part of the public interface.

use crate::device::caps::Caps;
use crate::kernel::choices::{Access, Results};
use crate::kernel::error::PlanError;
use crate::kernel::record::{Block, Kernel};
use crate::kernel::shader::bare;
use crate::kernel::slots::{Slot, Usage, binding};
use crate::kernel::variant::Variant;
use crate::kernel::{select, select_gradients, text};
use crate::plan::{self, Attention};
use crate::problem::Problem;
use crate::problem::gradients::Gradients;
use crate::problem::merge::Merge;
use crate::problem::program::BUILTINS;

pub use crate::problem::program::AT;

/// The variants that compute the weights of a problem, best first.
///
/// # Errors
/// [`PlanError`] if the device can run none of them.
pub fn weights_candidates(problem: &Problem, caps: &Caps) -> Result<Vec<Variant>, PlanError> {
    select::weights_candidates(problem, caps)
}

/// The variant that computes the block mask of a problem.
///
/// # Errors
/// [`PlanError`] if the device cannot run it.
pub fn block_mask(problem: &Problem, caps: &Caps) -> Result<Variant, PlanError> {
    select::block_mask_variant(problem, caps)
}

/// The variants that append to the cache of a problem.
///
/// # Errors
/// [`PlanError`] if the device cannot run them.
pub fn append(problem: &Problem, caps: &Caps) -> Result<Vec<Variant>, PlanError> {
    select::append_variants(problem, caps)
}

/// The variants that compute gradients.
///
/// # Errors
/// [`PlanError`] if the device cannot run them.
pub fn gradients(gradients: &Gradients, caps: &Caps) -> Result<Vec<Variant>, PlanError> {
    select_gradients::gradient_variants(gradients.problem(), caps)
}

/// The variant that merges pairs.
///
/// # Errors
/// [`PlanError`] if the device cannot run it.
pub fn merge(merge: &Merge, caps: &Caps) -> Result<Variant, PlanError> {
    select::merge_variant(merge, caps)
}

/// Every kernel that a plan for `problem` by `variant` runs, in order.
///
/// # Errors
/// As for planning.
pub fn kernels(problem: &Problem, variant: &Variant, caps: &Caps) -> Result<Vec<Variant>, PlanError> {
    Ok(plan::kernels(problem, variant, caps)?.into_iter().map(|(variant, _)| variant).collect())
}

/// Compiles `wgsl` for a variant instead of its own text. Returns why it was refused, as far as it is known by now.
pub fn substitute(attention: &Attention, variant: &Variant, wgsl: String) -> Option<String> {
    attention.substitute(variant, wgsl)
}

/// The text of a variant in a browser, where files are embedded without comments.
pub fn wgsl_in_browser(variant: &Variant) -> String {
    const LONGEST: usize = 1 << 16;
    let mut kernel = variant.kernel();
    for file in &mut kernel.source.files {
        let (bare, length) = bare::<LONGEST>(file.text);
        // Files are static, and a test keeps the few that it reads.
        file.text = String::from_utf8_lossy(&bare[..length]).into_owned().leak();
    }
    text::text(&variant.to_string(), &kernel)
}

/// A description of a variant's kernel in one line, without its text.
pub fn describe(variant: &Variant) -> String {
    let buffers = variant.kernel().storage_buffers();
    let Kernel { source, slots, block, needs, work } = variant.kernel();
    let constants: Vec<String> = source.constants.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let usage = |slot: &Slot| match slot.usage {
        Usage::Read => "",
        Usage::ReadShared => "?",
        Usage::Write => "!",
    };
    let slots: Vec<String> = slots.iter().map(|slot| format!("{}{}", slot.name(), usage(slot))).collect();
    let Block { counts, rows, threads, columns } = block;
    let features: Vec<&str> = needs.features.iter_names().map(|(name, _)| name).collect();
    format!(
        "{} files; {}; {}, {buffers} buffers; {rows} {counts:?} by {threads} threads in {} bytes, columns {columns:?}; {}; {work:?}",
        source.files.len(),
        constants.join(", "),
        slots.join(" "),
        needs.workgroup_bytes,
        features.join(" ")
    )
}

/// The query rows and the threads of one workgroup.
pub fn block(variant: &Variant) -> [u32; 2] {
    let Block { rows, threads, .. } = variant.kernel().block;
    [rows, threads]
}

/// The features that the kernel of a variant needs from a device.
pub fn features(variant: &Variant) -> wgpu::Features {
    variant.kernel().needs.features
}

/// The name of a variant's schedule.
pub fn schedule(variant: &Variant) -> &'static str {
    variant.schedule_name()
}

/// The schedule of a variant, the hardware that it is written for, and how it moves elements. Variants of one kind have
/// the same text, apart from sizes and choices.
pub fn kind(variant: &Variant) -> String {
    format!("{} {}", variant.schedule_kind(), access(variant))
}

/// How a variant moves elements: `x4`, `x4w` or `x1`.
pub fn access(variant: &Variant) -> &'static str {
    match variant.choices().access {
        Access::Vec4 => "x4",
        Access::Words => "x4w",
        Access::Scalar => "x1",
    }
}

/// Whether a variant leaves its results for another kernel to merge.
pub fn is_partial(variant: &Variant) -> bool {
    variant.choices().results == Results::Partial
}

/// Whether programs in the score may not declare a name, because it is a name of WGSL itself that the kernels use.
pub fn is_builtin(name: &str) -> bool {
    BUILTINS.contains(&name)
}

/// A resource that a kernel binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its `@binding` in group 0.
    pub binding: u32,
    /// Its name in the shader.
    pub name: &'static str,
    /// Whether the kernel declares that it may write it.
    pub is_writable: bool,
    /// Whether it is a buffer rather than a texture.
    pub is_buffer: bool,
}

/// The resources that the kernel of a variant binds besides the parameters.
pub fn bindings(variant: &Variant) -> Vec<Binding> {
    let of = |(n, slot): (usize, &Slot)| Binding {
        binding: binding(n),
        name: slot.name(),
        is_writable: slot.usage != Usage::Read,
        is_buffer: slot.is_buffer(),
    };
    variant.kernel().slots.iter().enumerate().map(of).collect()
}
