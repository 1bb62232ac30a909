//! Which variant runs a problem on a device: a pure function over a table.

use crate::family::{self, DIM_MOST, textures_fit};
use crate::{Access, Caps, Family, PlanError, Problem, Variant};

/// One line of the table. The first whose `suits` holds is taken.
struct Row {
    family: fn(&Problem, &Caps) -> Option<Family>,
    suits: fn(&Problem, &Caps) -> bool,
    /// Why this row stands where it does: device, date and command of the measurement, or that there was none.
    provenance: &'static str,
}

const TABLE: &[Row] = &[
    Row {
        family: streams,
        suits: |problem, _| few_for_streams(problem),
        provenance: "lavapipe (Mesa 22.3.6): benches/NOTES.md",
    },
    Row {
        family: |_, caps| Some(Family::Lanes { size: software_lanes(caps)? }),
        suits: |_, _| true,
        provenance: "lavapipe (Mesa 22.3.6): benches/NOTES.md",
    },
    Row {
        family: |problem, _| Some(family::decode::family(problem)),
        suits: |problem, _| few_rows(problem),
        provenance: "not measured on a GPU",
    },
    Row {
        family: |_, _| Some(Family::Tiled),
        suits: |_, _| true,
        provenance: "runs everywhere; not measured on a GPU",
    },
    Row {
        family: streams,
        suits: |problem, _| !few_for_streams(problem),
        provenance: "right for any number of rows, and slower than the others for many",
    },
    Row {
        family: |problem, _| Some(family::decode::family(problem)),
        suits: |problem, _| !few_rows(problem),
        provenance: "right for any number of rows, and slower than the others for many",
    },
];

/// Subgroups of the CPUs that play a GPU; the text of a kernel grows with them.
const LANES: [u32; 2] = [4, 8];

fn software_lanes(caps: &Caps) -> Option<u32> {
    caps.subgroup_size.filter(|size| caps.is_software && LANES.contains(size))
}

fn streams(problem: &Problem, caps: &Caps) -> Option<Family> {
    Some(family::streams::family(problem, software_lanes(caps)?))
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

/// Whether reading K and V from buffers once for every few rows takes less time than staging them.
fn few_for_streams(problem: &Problem) -> bool {
    rows_together(problem) <= 8
}

impl Family {
    /// Why selection prefers this family where it does.
    pub fn provenance(self) -> &'static str {
        match self {
            Self::Streams { .. } => TABLE[0].provenance,
            Self::Lanes { .. } => TABLE[1].provenance,
            Self::Decode(_) => TABLE[2].provenance,
            Self::Tiled => TABLE[3].provenance,
            Self::Weights | Self::Stage | Self::Merge => "the only kernel for its purpose",
        }
    }
}

/// Every variant that can compute the output of `problem` on such a device, best first.
///
/// # Errors
/// Why the device can run none of them.
pub fn candidates(problem: &Problem, caps: &Caps) -> Result<Vec<Variant>, PlanError> {
    let rows = TABLE.iter().filter(|row| (row.suits)(problem, caps));
    runnable(rows.filter_map(|row| (row.family)(problem, caps)), problem, caps)
}

/// The variants that compute the weights of `problem`, best first.
///
/// # Errors
/// Why the device can run none of them.
pub fn weights_candidates(problem: &Problem, caps: &Caps) -> Result<Vec<Variant>, PlanError> {
    runnable([Family::Weights].into_iter(), problem, caps)
}

fn runnable(families: impl Iterator<Item = Family>, problem: &Problem, caps: &Caps) -> Result<Vec<Variant>, PlanError> {
    let mut able = Vec::new();
    let mut refused = None;
    for family in families {
        for access in accesses(family, caps) {
            let able_if_in_range = head_sizes(problem).and_then(|()| {
                let variant = Variant::of(family, access, problem, caps);
                variant.check(caps)?;
                variant.check_rounds(problem.shape().len_kv, caps)?;
                Ok(variant)
            });
            match able_if_in_range {
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

fn accesses(family: Family, caps: &Caps) -> [Access; 2] {
    let is_for_software = matches!(family, Family::Streams { .. } | Family::Lanes { .. });
    [if is_for_software && caps.has_int64 { Access::Words } else { Access::Vec4 }, Access::Scalar]
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
