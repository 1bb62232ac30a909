//! Which kernels compute the gradients of a problem on a device.

use crate::device::caps::Caps;
use crate::kernel::check::{check, head_sizes};
use crate::kernel::choices::Access;
use crate::kernel::error::PlanError;
use crate::kernel::gradient::{Gradient, Target};
use crate::kernel::gradient_lanes::{self, Own};
use crate::kernel::schedule::Schedule;
use crate::kernel::select::software_lanes;
use crate::kernel::variant::Variant;
use crate::problem::Problem;
use crate::problem::operand::Operand;

/// The variants that compute the gradients that `problem` wants, in order: first what all of them need of each row.
///
/// # Errors
/// [`PlanError`] if the device cannot run one of them.
pub(crate) fn gradient_variants(problem: &Problem, caps: &Caps) -> Result<Vec<Variant>, PlanError> {
    head_sizes(problem)?;
    let of = |schedule| {
        let in_fours = Variant::of_gradient(schedule, problem, Access::Vec4);
        let suits = in_fours.suits(&in_fours.kernel(), problem);
        let variant = if suits { in_fours } else { Variant::of_gradient(schedule, problem, Access::Scalar) };
        check(&variant, &variant.kernel(), problem, caps)?;
        Ok(variant)
    };
    gradient_schedules(problem, caps).into_iter().map(of).collect()
}

/// The schedules of the gradients that `problem` wants, in order. On a software GPU with subgroups, lanes own rows or keys if
/// their operands are in fours and fit.
fn gradient_schedules(problem: &Problem, caps: &Caps) -> Vec<Schedule> {
    let wants = |operand| problem.uses(operand);
    let mut schedules = vec![Schedule::RowSums];
    let tiled = |target| Schedule::Gradient(Gradient::of(target, problem, caps));
    let lanes = |own| {
        let size = software_lanes(caps)?;
        let schedule = Schedule::GradientLanes { own, size };
        let fits_lanes = problem.shape().dim_qk.max(problem.shape().dim_v) <= gradient_lanes::MOST_DIM;
        let variant = Variant::of_gradient(schedule, problem, Access::Vec4);
        let fits = fits_lanes
            && variant.suits(&variant.kernel(), problem)
            && gradient_lanes::fits(variant.choices(), problem, caps)
            && check(&variant, &variant.kernel(), problem, caps).is_ok();
        fits.then_some([Schedule::StagePairs(own.streams()), schedule])
    };
    if wants(Operand::Dq) {
        match lanes(Own::Rows) {
            Some(steps) => schedules.extend(steps),
            None => schedules.push(tiled(Target::Queries)),
        }
    }
    let own = match (wants(Operand::Dk), wants(Operand::Dv)) {
        (true, true) => Some(Own::KeysAndValues),
        (true, false) => Some(Own::Keys),
        (false, true) => Some(Own::Values),
        (false, false) => None,
    };
    match own.and_then(lanes) {
        Some(steps) => schedules.extend(steps),
        None => {
            let targets = [(Operand::Dk, Target::Keys), (Operand::Dv, Target::Values)];
            let wanted = targets.into_iter().filter(|&(operand, _)| wants(operand));
            schedules.extend(wanted.map(|(_, target)| tiled(target)));
        }
    }
    if wants(Operand::Dbias) {
        schedules.push(tiled(Target::Bias));
    }
    if wants(Operand::Dsinks) {
        schedules.push(Schedule::GradientOfSinks);
    }
    schedules
}
