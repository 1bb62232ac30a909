//! Which variant runs a problem on a device: a pure function over a table.

use crate::family::matrix::Rows;
use crate::family::{self, DIM_MOST, DIM_QK_KEPT, VALUE_COLUMNS, textures_fit};
use crate::{Access, Caps, Exchange, Family, PlanError, Problem, Variant};

/// One line of the table. The first whose `suits` holds is taken.
struct Row {
    exchange: Exchange,
    family: fn(&Problem, &Caps) -> Option<Family>,
    suits: fn(&Problem, &Caps) -> bool,
    /// Why this row stands where it does: device, date and command of the measurement, or that there was none.
    provenance: &'static str,
}

const TABLE: &[Row] = &[
    Row {
        exchange: Exchange::Workgroup,
        family: streams,
        suits: |problem, _| few_for_streams(problem) || !fits_lanes(problem),
        provenance: "lavapipe (Mesa 22.3.6): benches/NOTES.md",
    },
    Row {
        exchange: Exchange::Workgroup,
        family: |_, caps| Some(Family::Lanes { size: software_lanes(caps)? }),
        suits: |problem, _| fits_lanes(problem),
        provenance: "lavapipe (Mesa 22.3.6): benches/NOTES.md",
    },
    Row {
        exchange: Exchange::Workgroup,
        family: |problem, caps| family::matrix::family(problem, caps, Rows::Few),
        suits: |problem, _| few_rows(problem) && rows_together(problem) > ROWS_OF_A_THREAD,
        provenance: BY_ARITHMETIC,
    },
    Row {
        exchange: Exchange::Workgroup,
        family: |problem, caps| family::matrix::family(problem, caps, Rows::Many),
        suits: |problem, _| !few_rows(problem),
        provenance: BY_ARITHMETIC,
    },
    Row {
        exchange: Exchange::Workgroup,
        family: |problem, caps| family::matrix::family(problem, caps, Rows::Some),
        suits: |problem, _| !few_rows(problem),
        provenance: BY_ARITHMETIC,
    },
    Row {
        exchange: Exchange::Subgroup,
        family: decode,
        suits: |problem, caps| few_rows(problem) && has_eight_lanes(caps),
        provenance: "no barrier in the loop; not measured on a GPU",
    },
    Row {
        exchange: Exchange::Workgroup,
        family: decode,
        suits: |problem, _| few_rows(problem),
        provenance: "not measured on a GPU",
    },
    Row {
        exchange: Exchange::Workgroup,
        family: |_, _| Some(Family::Tiled),
        suits: |_, _| true,
        provenance: "runs everywhere; not measured on a GPU",
    },
    Row {
        exchange: Exchange::Subgroup,
        family: |_, _| Some(Family::Tiled),
        suits: |_, caps| has_eight_lanes(caps) && !caps.is_software,
        provenance: "one barrier a tile less; not measured on a GPU",
    },
    Row {
        exchange: Exchange::Workgroup,
        family: streams,
        suits: |problem, _| !few_for_streams(problem) && fits_lanes(problem),
        provenance: "right for any number of rows, and slower than the others for many",
    },
    Row {
        exchange: Exchange::Subgroup,
        family: decode,
        suits: |problem, caps| !few_rows(problem) && has_eight_lanes(caps),
        provenance: "right for any number of rows, and slower than the others for many",
    },
    Row {
        exchange: Exchange::Workgroup,
        family: decode,
        suits: |problem, caps| !few_rows(problem) && !caps.is_software,
        provenance: "right for any number of rows, and slower than the others for many",
    },
    Row {
        exchange: Exchange::Workgroup,
        family: |problem, caps| family::matrix::family(problem, caps, Rows::Few),
        suits: |_, _| true,
        provenance: BY_ARITHMETIC,
    },
];

/// Of the kernels on matrix units.
const BY_ARITHMETIC: &str = "a matrix unit, by arithmetic (benches/NOTES.md); not measured on a GPU";

/// Query rows of a KV head up to which threads that multiply for themselves are not what takes the time.
const ROWS_OF_A_THREAD: u32 = 4;

/// Subgroups of the CPUs that play a GPU; the text of a kernel grows with them.
const LANES: [u32; 2] = [4, 8];

fn software_lanes(caps: &Caps) -> Option<u32> {
    caps.subgroup_size.filter(|size| caps.is_software && LANES.contains(size))
}

/// Not where [`streams`] does the same, with subgroups and so much sooner.
fn decode(problem: &Problem, caps: &Caps) -> Option<Family> {
    software_lanes(caps).is_none().then(|| family::decode::family(problem))
}

/// What [`Exchange::Subgroup`] needs.
fn has_eight_lanes(caps: &Caps) -> bool {
    caps.subgroup_least.is_some_and(|least| least >= 8)
}

fn streams(problem: &Problem, caps: &Caps) -> Option<Family> {
    Some(family::streams::family(problem, software_lanes(caps)?))
}

/// Whether a lane has room for whole rows of Q and O, and one texture for all the values.
fn fits_lanes(problem: &Problem) -> bool {
    problem.shape().dim_qk <= DIM_QK_KEPT && problem.shape().dim_v <= VALUE_COLUMNS
}

/// Query rows of a KV head.
fn rows_together(problem: &Problem) -> u32 {
    let shape = problem.shape();
    shape.len_q.saturating_mul(shape.group())
}

/// Query rows of a KV head up to which a GPU takes longer to read K and V than to compute with them.
const FEW_ROWS: u32 = 16;

fn few_rows(problem: &Problem) -> bool {
    rows_together(problem) <= FEW_ROWS
}

/// Whether reading K and V once for every few rows takes less time than staging them for blocks of many.
///
/// A block of [`Family::Streams`] costs 2 where staging costs 3 and a block of [`Family::Lanes`] 3 (lavapipe, D 128:
/// benches/NOTES.md).
fn few_for_streams(problem: &Problem) -> bool {
    let shape = problem.shape();
    let streams = rows_together(problem).div_ceil(family::streams::rows(problem));
    let lanes = u64::from(shape.group()) * u64::from(shape.len_q.div_ceil(LANES_ROWS));
    2 * u64::from(streams) <= 3 + 3 * lanes
}

/// Query rows of a block of [`Family::Lanes`], about.
const LANES_ROWS: u32 = 24;

impl Variant {
    /// Why selection prefers this kernel where it does.
    pub fn provenance(&self) -> &'static str {
        let row = match (self.family, self.exchange) {
            (Family::Streams { .. }, _) => 0,
            (Family::Lanes { .. }, _) => 1,
            (Family::Matrix(_), _) => return BY_ARITHMETIC,
            (Family::Decode(_), Exchange::Subgroup) => 5,
            (Family::Decode(_), Exchange::Workgroup) => 6,
            (Family::Tiled, Exchange::Workgroup) => 7,
            (Family::Tiled, Exchange::Subgroup) => 8,
            (Family::Weights | Family::Stage | Family::Merge, _) => return "the only kernel for its purpose",
        };
        TABLE[row].provenance
    }
}

/// Every variant that can compute the output of `problem` on such a device, best first.
///
/// # Errors
/// Why the device can run none of them.
pub fn candidates(problem: &Problem, caps: &Caps) -> Result<Vec<Variant>, PlanError> {
    let rows = TABLE.iter().filter(|row| (row.suits)(problem, caps));
    runnable(rows.filter_map(|row| Some(((row.family)(problem, caps)?, row.exchange))), problem, caps)
}

/// The variants that compute the weights of `problem`, best first.
///
/// # Errors
/// Why the device can run none of them.
pub fn weights_candidates(problem: &Problem, caps: &Caps) -> Result<Vec<Variant>, PlanError> {
    runnable([(Family::Weights, Exchange::Workgroup)].into_iter(), problem, caps)
}

fn runnable(
    families: impl Iterator<Item = (Family, Exchange)>,
    problem: &Problem,
    caps: &Caps,
) -> Result<Vec<Variant>, PlanError> {
    let mut able = Vec::new();
    let mut refused = None;
    for family in families {
        for &access in accesses(family, caps) {
            let able_if_in_range = head_sizes(problem).and_then(|()| {
                let variant = Variant::of(family, access, problem, caps);
                variant.check(caps)?;
                variant.check_rounds(problem.shape().len_kv, caps)?;
                Ok(variant)
            });
            match able_if_in_range {
                Ok(variant) if able.contains(&variant) => {}
                Ok(variant) if variant.suits(problem) && fits(&variant, problem, caps) => able.push(variant),
                Ok(_) => {}
                Err(error) => refused = refused.or(Some(error)),
            }
        }
    }
    match refused {
        Some(error) if able.is_empty() => Err(error),
        _ => Ok(able),
    }
}

/// With shuffles, elements come in fours or not at all: fewer kernels, and those that do not are few.
fn accesses((family, exchange): (Family, Exchange), caps: &Caps) -> &'static [Access] {
    let is_for_software = matches!(family, Family::Streams { .. } | Family::Lanes { .. });
    match exchange {
        Exchange::Subgroup => &[Access::Vec4],
        Exchange::Workgroup if is_for_software && caps.has_int64 => &[Access::Words, Access::Scalar],
        Exchange::Workgroup => &[Access::Vec4, Access::Scalar],
    }
}

fn fits(variant: &Variant, problem: &Problem, caps: &Caps) -> bool {
    !matches!(variant.family, Family::Lanes { .. }) || textures_fit(variant, problem, caps)
}

fn head_sizes(problem: &Problem) -> Result<(), PlanError> {
    let shape = problem.shape();
    for (axis, dim) in [("dim_qk", shape.dim_qk), ("dim_v", shape.dim_v)] {
        if dim > DIM_MOST {
            return Err(PlanError::HeadSize { axis, dim, most: DIM_MOST });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shape;

    #[test]
    fn a_variant_tells_the_provenance_of_the_row_that_chose_it() {
        let gpu = Caps::from_limits(&wgpu::Limits::default());
        let with_subgroups = Caps { subgroup_least: Some(8), ..gpu };
        let software = Caps { is_software: true, subgroup_size: Some(8), ..with_subgroups };
        for (len_q, caps) in [1, 500].into_iter().flat_map(|len_q| [gpu, with_subgroups, software].map(|c| (len_q, c)))
        {
            let problem = Problem::builder(Shape::new(1, 2, len_q, 64).kv_len(500)).build().expect("valid");
            let row = TABLE.iter().find(|row| (row.family)(&problem, &caps).is_some() && (row.suits)(&problem, &caps));
            let best = candidates(&problem, &caps).expect("runs everywhere")[0];
            assert_eq!(Some(best.provenance()), row.map(|row| row.provenance), "{best}");
        }
    }
}
