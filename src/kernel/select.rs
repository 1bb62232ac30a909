//! Which variants run a problem on a device, best first: a pure function over a table.

use crate::device::caps::Caps;
use crate::kernel::check::{STORAGE_BUFFERS, check, check_limits, head_sizes, most_keys};
use crate::kernel::choices::{Access, NewRows, VALUE_COLUMNS};
use crate::kernel::decode::Decode;
use crate::kernel::error::PlanError;
use crate::kernel::schedule::Schedule;
use crate::kernel::streams::{self, Streams};
use crate::kernel::tiled::{Exchange, Tiled};
use crate::kernel::variant::Variant;
use crate::kernel::{DIM_QK_KEPT, IN_BROWSER, matrix};
use crate::problem::Problem;
use crate::problem::merge::Merge;

/// A row of the table. The first row that suits a problem and a device is preferred. What an earlier row offers, a later one
/// does not offer again.
struct Row {
    /// Whether a schedule is the one that this row offers.
    is: fn(&Schedule) -> bool,
    /// The schedule for a problem on a device, if there is one.
    schedule: fn(&Problem, &Caps) -> Option<Schedule>,
    suits: fn(&Problem, &Caps) -> bool,
    /// Why this row has its position: device, date and command of the measurement, or that there was none.
    provenance: &'static str,
}

const TABLE: &[Row] = &[
    Row {
        is: is_streams,
        schedule: streams,
        suits: |problem, _| few_for_streams(problem) || !fits_lanes(problem),
        provenance: ON_LAVAPIPE,
    },
    Row {
        is: |schedule| matches!(schedule, Schedule::Lanes { .. }),
        schedule: |_, caps| Some(Schedule::Lanes { size: software_lanes(caps)? }),
        suits: |problem, _| fits_lanes(problem),
        provenance: ON_LAVAPIPE,
    },
    Row {
        is: is_on_matrices,
        schedule: |problem, caps| on_matrices(problem, caps, matrix::Rows::OneSubgroup),
        suits: |problem, _| few_rows(problem) && rows_together(problem) > ROWS_OF_A_THREAD,
        provenance: BY_ARITHMETIC,
    },
    Row {
        is: is_on_matrices,
        schedule: |problem, caps| on_matrices(problem, caps, matrix::Rows::ManyFragments),
        suits: |problem, _| !few_rows(problem),
        provenance: BY_ARITHMETIC,
    },
    Row {
        is: is_on_matrices,
        schedule: |problem, caps| on_matrices(problem, caps, matrix::Rows::OneFragment),
        suits: |problem, _| !few_rows(problem),
        provenance: BY_ARITHMETIC,
    },
    Row {
        is: |schedule| is_decode(schedule, Exchange::Subgroup),
        schedule: |problem, caps| decode(problem, caps, Exchange::Subgroup),
        suits: |problem, caps| few_rows(problem) && has_eight_lanes(caps),
        provenance: "no barrier in the loop; not measured on a GPU",
    },
    Row {
        is: |schedule| is_decode(schedule, Exchange::Workgroup),
        schedule: |problem, caps| decode(problem, caps, Exchange::Workgroup),
        suits: |problem, _| few_rows(problem),
        provenance: "not measured on a GPU",
    },
    Row {
        is: |schedule| is_tiled(schedule, Exchange::Subgroup),
        schedule: |problem, caps| Tiled::large(problem, caps, Exchange::Subgroup).map(Schedule::Tiled),
        suits: |_, caps| !caps.is_software,
        provenance: BY_COMPILERS,
    },
    Row {
        is: |schedule| is_tiled(schedule, Exchange::Workgroup) && !is_plain(schedule),
        schedule: |problem, caps| Tiled::large(problem, caps, Exchange::Workgroup).map(Schedule::Tiled),
        suits: |_, caps| !caps.is_software,
        provenance: BY_COMPILERS,
    },
    Row {
        is: |schedule| is_tiled(schedule, Exchange::Subgroup),
        schedule: |problem, caps| Tiled::for_gpu(problem, caps, Exchange::Subgroup).map(Schedule::Tiled),
        suits: |_, caps| !caps.is_software,
        provenance: BY_COMPILERS,
    },
    Row {
        is: |schedule| is_tiled(schedule, Exchange::Workgroup) && !is_plain(schedule),
        schedule: |problem, caps| Tiled::for_gpu(problem, caps, Exchange::Workgroup).map(Schedule::Tiled),
        suits: |_, caps| !caps.is_software,
        provenance: BY_COMPILERS,
    },
    Row {
        is: is_plain,
        schedule: |problem, _| Some(Schedule::Tiled(Tiled::plain(problem))),
        suits: |_, _| true,
        provenance: "runs everywhere; not measured on a GPU",
    },
    Row { is: is_streams, schedule: streams, suits: |_, _| true, provenance: FOR_ANY_ROWS },
    Row {
        is: |schedule| is_decode(schedule, Exchange::Subgroup),
        schedule: |problem, caps| decode(problem, caps, Exchange::Subgroup),
        suits: |_, caps| has_eight_lanes(caps),
        provenance: FOR_ANY_ROWS,
    },
    Row {
        is: |schedule| is_decode(schedule, Exchange::Workgroup),
        schedule: |problem, caps| decode(problem, caps, Exchange::Workgroup),
        suits: |_, caps| !caps.is_software,
        provenance: FOR_ANY_ROWS,
    },
    Row {
        is: is_on_matrices,
        schedule: |problem, caps| on_matrices(problem, caps, matrix::Rows::OneSubgroup),
        suits: |_, _| true,
        provenance: BY_ARITHMETIC,
    },
];

const ON_LAVAPIPE: &str = "lavapipe (Mesa 22.3.6): benches/NOTES.md";
const BY_ARITHMETIC: &str = "a matrix unit, by arithmetic (benches/NOTES.md); not measured on a GPU";
const FOR_ANY_ROWS: &str = "right for any number of rows, and slower than the others for many";
const BY_COMPILERS: &str =
    "by the compilers of four makers, 28 November 2026 (benches/NOTES.md); not measured on a GPU";

fn is_streams(schedule: &Schedule) -> bool {
    matches!(schedule, Schedule::Streams(_))
}

fn is_on_matrices(schedule: &Schedule) -> bool {
    matches!(schedule, Schedule::Matrix(_))
}

fn is_tiled(schedule: &Schedule, exchange: Exchange) -> bool {
    matches!(schedule, Schedule::Tiled(tiled) if tiled.exchange == exchange)
}

/// Whether it is the shape of `tiled` that every device gets.
fn is_plain(schedule: &Schedule) -> bool {
    matches!(schedule, Schedule::Tiled(tiled) if tiled.is_plain())
}

fn is_decode(schedule: &Schedule, exchange: Exchange) -> bool {
    matches!(schedule, Schedule::Decode(decode) if decode.exchange == exchange)
}

/// Query rows per KV head up to which a matrix unit saves no time, because reading K and V takes most of it.
const ROWS_OF_A_THREAD: u32 = 4;

/// Subgroup sizes of software GPUs that the kernels support; the text of a kernel grows with the size.
const LANES: [u32; 2] = [4, 8];

pub(super) fn software_lanes(caps: &Caps) -> Option<u32> {
    caps.subgroup_size.filter(|size| !IN_BROWSER && caps.is_software && LANES.contains(size))
}

/// `None` if [`streams`] applies, which does the same work with subgroups and is much faster.
fn decode(problem: &Problem, caps: &Caps, exchange: Exchange) -> Option<Schedule> {
    software_lanes(caps).is_none().then(|| Schedule::Decode(Decode::of(problem, caps, exchange)))
}

/// Whether subgroups have at least eight lanes, the fewest that [`Exchange::Subgroup`] needs.
fn has_eight_lanes(caps: &Caps) -> bool {
    caps.min_subgroup_size.is_some_and(|least| least >= 8)
}

fn streams(problem: &Problem, caps: &Caps) -> Option<Schedule> {
    Some(Schedule::Streams(Streams::of(problem, software_lanes(caps)?)))
}

fn on_matrices(problem: &Problem, caps: &Caps, rows: matrix::Rows) -> Option<Schedule> {
    if IN_BROWSER {
        return None;
    }
    matrix::of(problem, caps, rows).map(Schedule::Matrix)
}

/// Whether a lane can hold whole rows of Q and O, and one texture can hold all the values.
fn fits_lanes(problem: &Problem) -> bool {
    problem.shape().dim_qk <= DIM_QK_KEPT && problem.shape().dim_v <= VALUE_COLUMNS
}

/// Query rows per KV head.
fn rows_together(problem: &Problem) -> u32 {
    let shape = problem.shape();
    shape.len_q.saturating_mul(shape.group())
}

/// Query rows per KV head up to which a GPU takes longer to read K and V than to compute with them.
const FEW_ROWS: u32 = 16;

fn few_rows(problem: &Problem) -> bool {
    rows_together(problem) <= FEW_ROWS
}

/// Whether reading K and V once per block of few rows takes less time than staging them for blocks of many rows.
///
/// In relative time, a block of [`Schedule::Streams`] costs 2, staging costs 3, and a block of [`Schedule::Lanes`]
/// costs 3 (lavapipe, D 128: benches/NOTES.md).
fn few_for_streams(problem: &Problem) -> bool {
    let shape = problem.shape();
    let streams = rows_together(problem).div_ceil(streams::rows(problem));
    let lanes = u64::from(shape.group()) * u64::from(shape.len_q.div_ceil(LANES_ROWS));
    2 * u64::from(streams) <= 3 + 3 * lanes
}

/// The approximate number of query rows per block of [`Schedule::Lanes`].
const LANES_ROWS: u32 = 24;

impl Variant {
    /// Why selection ranks this kernel as it does.
    pub fn provenance(&self) -> &'static str {
        let row = TABLE.iter().find(|row| (row.is)(&self.schedule()));
        row.map_or("the only kernel for its purpose", |row| row.provenance)
    }
}

/// Every variant that can compute the output of `problem` on a device with these capabilities, best first.
///
/// # Errors
/// [`PlanError`] if the device can run none of them.
pub fn candidates(problem: &Problem, caps: &Caps) -> Result<Vec<Variant>, PlanError> {
    let rows = TABLE.iter().filter(|row| (row.suits)(problem, caps));
    runnable(rows.filter_map(|row| (row.schedule)(problem, caps)), problem, caps)
}

/// The variants that compute the weights of `problem`, best first.
///
/// # Errors
/// [`PlanError`] if the device can run none of them.
pub(crate) fn weights_candidates(problem: &Problem, caps: &Caps) -> Result<Vec<Variant>, PlanError> {
    runnable([Schedule::Weights].into_iter(), problem, caps)
}

/// The variants that append to the cache of `problem`, in any order: one for all new rows, or one for keys with values and
/// one for queries if the device binds too few buffers for both.
///
/// # Errors
/// [`PlanError`] if the device cannot run them, or if the problem appends nothing.
pub(crate) fn append_variants(problem: &Problem, caps: &Caps) -> Result<Vec<Variant>, PlanError> {
    match append_variant(problem, NewRows::All, caps) {
        Err(PlanError::Limit { limit: STORAGE_BUFFERS, .. }) if problem.rotary().is_some() => {
            [NewRows::Keys, NewRows::Queries].map(|rows| append_variant(problem, rows, caps)).into_iter().collect()
        }
        all => Ok(vec![all?]),
    }
}

fn append_variant(problem: &Problem, rows: NewRows, caps: &Caps) -> Result<Variant, PlanError> {
    head_sizes(problem)?;
    let of = |access| Variant::of_append(problem, rows, access).ok_or(PlanError::NoAppend);
    let in_fours = of(Access::Vec4)?;
    let variant = if in_fours.suits(&in_fours.kernel(), problem) { in_fours } else { of(Access::Scalar)? };
    check(&variant, &variant.kernel(), problem, caps)?;
    Ok(variant)
}

/// The variant that computes the block mask of `problem`.
///
/// # Errors
/// [`PlanError`] if the device cannot run it, or if the problem has no block mask.
pub(crate) fn block_mask_variant(problem: &Problem, caps: &Caps) -> Result<Variant, PlanError> {
    let variant = Variant::of_block_mask(problem).ok_or(PlanError::NoBlockMask)?;
    check(&variant, &variant.kernel(), problem, caps)?;
    Ok(variant)
}

/// The variant that merges pairs.
///
/// # Errors
/// [`PlanError`] if the device cannot run it, or cannot merge so many pairs.
pub(crate) fn merge_variant(merge: &Merge, caps: &Caps) -> Result<Variant, PlanError> {
    let variant = Variant::of_merge(merge);
    let kernel = variant.kernel();
    check_limits(&variant, &kernel, caps)?;
    let (pairs, most) = (merge.pairs(), most_keys(&kernel, caps));
    if pairs > most {
        return Err(PlanError::TooManyPairs { variant, pairs, most });
    }
    Ok(variant)
}

fn runnable(
    schedules: impl Iterator<Item = Schedule>,
    problem: &Problem,
    caps: &Caps,
) -> Result<Vec<Variant>, PlanError> {
    let mut able = Vec::new();
    let mut refused = None;
    for schedule in schedules {
        for &access in schedule.accesses(caps) {
            let able_if_in_range = head_sizes(problem).and_then(|()| {
                let variant = Variant::of(schedule, access, problem);
                let kernel = variant.kernel();
                check(&variant, &kernel, problem, caps)?;
                Ok((variant, kernel))
            });
            match able_if_in_range {
                Ok((variant, _)) if able.contains(&variant) => {}
                Ok((variant, kernel)) => {
                    if variant.suits(&kernel, problem) && variant.has_room(&kernel, problem, caps) {
                        able.push(variant);
                    }
                }
                Err(error) => refused = refused.or(Some(error)),
            }
        }
    }
    match refused {
        Some(error) if able.is_empty() => Err(error),
        _ => Ok(able),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::shape::Shape;

    #[test]
    fn a_variant_tells_the_provenance_of_the_row_that_chose_it() {
        let gpu = Caps::from_limits(&wgpu::Limits::default());
        let with_subgroups = Caps { min_subgroup_size: Some(8), ..gpu };
        let with_registers = Caps { thread_registers: 255, ..with_subgroups };
        let software = Caps { is_software: true, subgroup_size: Some(8), ..with_subgroups };
        let all = [gpu, with_subgroups, with_registers, software];
        for (len_q, caps) in [1, 500].into_iter().flat_map(|len_q| all.map(|caps| (len_q, caps))) {
            let problem = Problem::builder(Shape::new(1, 2, len_q, 64).kv_len(500)).build().expect("valid");
            for variant in candidates(&problem, &caps).expect("runs everywhere") {
                let of_its_row = |row: &&Row| (row.schedule)(&problem, &caps) == Some(variant.schedule());
                let rows: Vec<_> = TABLE.iter().filter(of_its_row).map(|row| row.provenance).collect();
                assert!(rows.contains(&variant.provenance()), "{variant}: {rows:?}");
            }
        }
    }
}
