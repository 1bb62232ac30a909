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
        family: |problem, caps| Some(family::decode::family(problem, caps)),
        suits: few_rows,
        provenance: "lavapipe (Mesa 22.3.6): benches/NOTES.md; not measured on a GPU",
    },
    Row {
        family: |_, caps| Some(Family::Lanes { size: caps.subgroup_size.filter(|&size| LANES.contains(&size))? }),
        suits: |_, caps| caps.is_software,
        provenance: "lavapipe (Mesa 22.3.6): benches/NOTES.md",
    },
    Row {
        family: |_, _| Some(Family::Tiled),
        suits: |_, _| true,
        provenance: "runs everywhere; not measured on a GPU",
    },
    Row {
        family: |problem, caps| Some(family::decode::family(problem, caps)),
        suits: |problem, caps| !few_rows(problem, caps),
        provenance: "right for any number of rows, and slower than the others for many",
    },
];

/// Subgroups of the CPUs that play a GPU; the text of a kernel grows with them.
const LANES: [u32; 2] = [4, 8];
/// Query rows of a KV head up to which a GPU takes longer to read K and V than to compute with them.
const FEW_ROWS: u32 = 16;

/// Whether time goes into reading K and V rather than into arithmetic.
///
/// On a CPU that plays a GPU, reading both from buffers once costs 5 where a block of rows of [`Family::Lanes`] costs 2;
/// `decode` reads them for each of its blocks, and `lanes` once, to stage them (lavapipe, D 64: benches/NOTES.md).
fn few_rows(problem: &Problem, caps: &Caps) -> bool {
    let shape = problem.shape();
    let rows = shape.len_q.saturating_mul(shape.group());
    match family::decode::family(problem, caps) {
        Family::Decode(decode) if decode.one_subgroup => {
            let blocks = u64::from(shape.group()) * u64::from(shape.len_q.div_ceil(32));
            5 * u64::from(rows.div_ceil(decode.rows)) <= 5 + 2 * blocks
        }
        _ => rows <= FEW_ROWS,
    }
}

impl Family {
    /// Why selection prefers this family where it does.
    pub fn provenance(self) -> &'static str {
        match self {
            Self::Decode(_) => TABLE[0].provenance,
            Self::Lanes { .. } => TABLE[1].provenance,
            Self::Tiled => TABLE[2].provenance,
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
        for access in [Access::Vec4, Access::Scalar] {
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
