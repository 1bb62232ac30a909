//! Whether a device can run a kernel: its limits, and how long its driver lets loops run.

use crate::device::caps::Caps;
use crate::kernel::MAX_DIM;
use crate::kernel::error::PlanError;
use crate::kernel::record::{Counts, Iterations, Kernel, Keys};
use crate::kernel::variant::Variant;
use crate::problem::Problem;
use crate::problem::operand::Operand;

/// The limit on what a kernel binds.
pub(super) const STORAGE_BUFFERS: &str = "max_storage_buffers_per_shader_stage";

/// Checks that a device can run a variant for `problem`.
pub(super) fn check(variant: &Variant, kernel: &Kernel, problem: &Problem, caps: &Caps) -> Result<(), PlanError> {
    check_limits(variant, kernel, caps)?;
    let (len_kv, most) = (problem.most_keys(), most_keys(kernel, caps));
    if len_kv > most {
        return Err(PlanError::TooManyKeys { variant: variant.clone(), len_kv, most });
    }
    let Keys::Rows(iterations) = kernel.work.keys else { return Ok(()) };
    let (rows, most) = (rows_of_workgroup(kernel, iterations, problem), iterations.most_keys(caps.loop_iterations));
    if rows > u64::from(most) {
        return Err(PlanError::TooManyRows { variant: variant.clone(), rows, most });
    }
    Ok(())
}

/// The rows that one workgroup of a gradient's kernel visits, counted in whole tiles: pairs of a row and a tile of keys for the
/// gradient of a bias.
fn rows_of_workgroup(kernel: &Kernel, iterations: Iterations, problem: &Problem) -> u64 {
    let shape = problem.shape();
    let tile = |len: u32, tile: u32| u64::from(len).next_multiple_of(tile.into()).max(tile.into());
    match kernel.block.counts {
        Counts::SeenKeys => u64::from(shape.group()) * tile(shape.len_q, iterations.tile),
        Counts::Heads => u64::from(shape.batch) * tile(shape.len_q, kernel.block.threads),
        Counts::BiasRows(keys) => {
            let [batches, heads, rows, columns] = problem.view(Operand::Dbias).map_or([1; 4], |view| view.extent);
            let times = |own: u32, all: u32| if own == 1 { u64::from(all) } else { 1 };
            let rows = if rows == 1 { tile(shape.len_q, kernel.block.rows) } else { kernel.block.rows.into() };
            let tiles = if columns == 1 { u64::from(shape.len_kv.div_ceil(keys)) } else { 1 };
            let shared = [times(batches, shape.batch), times(heads, shape.heads_q), rows, tiles];
            shared.into_iter().fold(1, u64::saturating_mul)
        }
        Counts::Rows | Counts::GroupedRows | Counts::Keys | Counts::MaskRows | Counts::StoredRows => 0,
    }
}

/// The most keys, or pairs to merge, of a row that a kernel can process on a device. If the keys can be split, as many
/// workgroups as a grid counts process that many each.
pub(super) fn most_keys(kernel: &Kernel, caps: &Caps) -> u32 {
    match kernel.work.keys {
        Keys::InParts(iterations) => iterations.most_keys(caps.loop_iterations).saturating_mul(caps.workgroups),
        Keys::AllAtOnce(iterations) => iterations.most_keys(caps.loop_iterations),
        Keys::None | Keys::Rows(_) => u32::MAX,
    }
}

pub(super) fn check_limits(variant: &Variant, kernel: &Kernel, caps: &Caps) -> Result<(), PlanError> {
    let buffers = u32::try_from(kernel.storage_buffers()).unwrap_or(u32::MAX);
    let limits = [
        (STORAGE_BUFFERS, buffers, caps.storage_buffers),
        ("max_compute_workgroup_storage_size", kernel.needs.workgroup_bytes, caps.workgroup_bytes),
        ("max_compute_invocations_per_workgroup", kernel.block.threads, caps.invocations),
        ("max_compute_workgroups_per_dimension", 1, caps.workgroups),
    ];
    for (limit, need, granted) in limits {
        if need > granted {
            let (variant, need, granted) = (variant.clone(), need.into(), granted.into());
            return Err(PlanError::Limit { variant, limit, need, granted });
        }
    }
    Ok(())
}

pub(super) fn head_sizes(problem: &Problem) -> Result<(), PlanError> {
    let shape = problem.shape();
    for (axis, dim) in [("dim_qk", shape.dim_qk), ("dim_v", shape.dim_v)] {
        if dim > MAX_DIM {
            return Err(PlanError::HeadSize { axis, dim, most: MAX_DIM });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::choices::Access;
    use crate::kernel::record::{Block, Columns};
    use crate::kernel::schedule::Schedule;
    use crate::problem::dtype::Dtype;
    use crate::problem::layout::ScoreLayout;
    use crate::problem::shape::Shape;

    const ITERATIONS: Iterations = Iterations { tile: 32, per_tile: 1, besides: 0 };

    /// A problem with a gradient of a bias that has these extents.
    fn problem(len_q: u32, bias: [u32; 4]) -> Problem {
        let shape = Shape::new(3, 4, len_q, 8).kv_heads(2).kv_len(70);
        let biased = Problem::builder(shape).bias(Dtype::F32, ScoreLayout::broadcast(bias)).lse();
        let gradients = biased.build().expect("valid").gradients().of([Operand::Dbias]).build().expect("valid");
        gradients.problem().clone()
    }

    fn variant_and_kernel(problem: &Problem, counts: Counts) -> (Variant, Kernel) {
        let variant = Variant::of_gradient(Schedule::RowSums, problem, Access::Scalar);
        let mut kernel = variant.kernel();
        kernel.block = Block { counts, rows: 16, threads: 64, columns: Columns::None };
        (variant, kernel)
    }

    #[test]
    fn rows_of_a_workgroup_are_those_of_all_that_share_its_result() {
        let all = [3, 4, 45, 70];
        for (counts, len_q, bias, rows) in [
            (Counts::SeenKeys, 45, all, 2 * 64),
            (Counts::SeenKeys, 0, [3, 4, 1, 70], 2 * 32),
            (Counts::Heads, 45, all, 3 * 64),
            (Counts::Heads, 0, [3, 4, 1, 70], 3 * 64),
            (Counts::BiasRows(16), 45, all, 16),
            (Counts::BiasRows(16), 45, [1, 4, 45, 70], 3 * 16),
            (Counts::BiasRows(16), 45, [3, 1, 45, 70], 4 * 16),
            (Counts::BiasRows(16), 45, [3, 4, 1, 70], 48),
            (Counts::BiasRows(16), 45, [3, 4, 45, 1], 16 * 5),
            (Counts::BiasRows(16), 45, [1; 4], 3 * 4 * 48 * 5),
            (Counts::Rows, 45, all, 0),
        ] {
            let problem = problem(len_q, bias);
            let (_, kernel) = variant_and_kernel(&problem, counts);
            assert_eq!(rows_of_workgroup(&kernel, ITERATIONS, &problem), rows, "{counts:?}, {bias:?}");
        }
    }

    #[test]
    fn rows_that_no_number_counts_are_too_many() {
        let shape = Shape::new(1 << 10, 1 << 10, 1 << 29, 1).kv_heads(1).kv_len(1 << 29);
        let biased = Problem::builder(shape).bias(Dtype::F32, ScoreLayout::broadcast([1; 4])).lse().build();
        let gradients = biased.expect("valid").gradients().of([Operand::Dbias]).build().expect("valid");
        let (_, kernel) = variant_and_kernel(gradients.problem(), Counts::BiasRows(16));
        assert_eq!(rows_of_workgroup(&kernel, ITERATIONS, gradients.problem()), u64::MAX);
    }

    #[test]
    fn a_workgroup_may_visit_as_many_rows_as_loops_have_iterations() {
        let problem = problem(45, [1; 4]);
        let (variant, mut kernel) = variant_and_kernel(&problem, Counts::BiasRows(16));
        kernel.work.keys = Keys::Rows(Iterations { tile: 1, ..ITERATIONS });
        let rows = 3 * 4 * 48 * 5;
        let mut caps = Caps::from_limits(&wgpu::Limits::default());
        caps.loop_iterations = rows;
        assert_eq!(check(&variant, &kernel, &problem, &caps), Ok(()));
        caps.loop_iterations = rows - 1;
        let error = PlanError::TooManyRows { variant: variant.clone(), rows: rows.into(), most: rows - 1 };
        assert_eq!(check(&variant, &kernel, &problem, &caps), Err(error));
    }
}
