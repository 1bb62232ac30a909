//! Which variant runs a problem on a device: a pure function over a table.

use crate::{Access, Caps, Family, PlanError, Problem, Variant};

/// One line of the table. The first whose `suits` holds is taken.
struct Row {
    family: Family,
    suits: fn(&Problem, &Caps) -> bool,
    /// Why this row stands where it does: device, date and command of the measurement, or that there was none.
    provenance: &'static str,
}

const TABLE: &[Row] =
    &[Row { family: Family::Tiled, suits: |_, _| true, provenance: "the only family so far; not measured on a GPU" }];

impl Family {
    /// Why selection prefers this family where it does.
    pub fn provenance(self) -> &'static str {
        TABLE.iter().find(|row| row.family == self).map_or("the only kernel for its purpose", |row| row.provenance)
    }
}

/// Every variant that can compute the output of `problem` on such a device, best first.
///
/// # Errors
/// Why the device can run none of them.
pub fn candidates(problem: &Problem, caps: &Caps) -> Result<Vec<Variant>, PlanError> {
    let rows = TABLE.iter().filter(|row| (row.suits)(problem, caps));
    runnable(rows.map(|row| row.family), problem, caps)
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
            let able_if_in_range = head_sizes(family, problem).and_then(|()| {
                let variant = Variant::of(family, access, problem);
                variant.check(caps)?;
                variant.check_rounds(problem.shape().len_kv, caps)?;
                Ok(variant)
            });
            match able_if_in_range {
                Ok(variant) if variant.suits(problem) => able.push(variant),
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

fn head_sizes(family: Family, problem: &Problem) -> Result<(), PlanError> {
    let most = family.dim_most();
    let shape = problem.shape();
    for (axis, dim) in [("dim_qk", shape.dim_qk), ("dim_v", shape.dim_v)] {
        if dim > most {
            return Err(PlanError::HeadSize { axis, dim, most });
        }
    }
    Ok(())
}
