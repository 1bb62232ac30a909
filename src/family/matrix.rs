//! `matrix.wgsl`: both products on a matrix unit.

use super::{Constant, DIM_QK_KEPT, Kernel, VALUE_COLUMNS, tiled};
use crate::{Access, Caps, Dtype, Family, Fragment, MatrixUnit, Multiplier, Problem, Tiles, Variant};

/// How a workgroup divides the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Matrix {
    /// What multiplies.
    pub unit: MatrixUnit,
    /// Subgroups of a workgroup, each with rows of its own.
    pub subgroups: u32,
    /// Fragments that the rows of a subgroup make.
    pub row_fragments: u32,
    /// Keys of a tile.
    pub keys: u32,
}

/// Which of a unit's shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// As many rows as registers hold: each key that is read serves more of them.
    Many,
    /// One fragment of them to a subgroup: more subgroups at a time.
    Some,
    /// One fragment of them in all, in workgroups of one subgroup.
    Few,
}

/// Head sizes come in whole fragments of either size.
pub(crate) const DIM_STEP: u32 = 16;
/// Registers of a thread for Q and O. GPUs have at most 255, and the rest of the kernel wants its share.
const REGISTERS: u32 = 192;
/// Subgroups and keys of a tile, best first. Fewer keys take less memory but more barriers.
const SHAPES: [(u32, u32); 4] = [(4, 32), (4, 16), (2, 16), ONE_SUBGROUP];
/// For few rows: what a subgroup by itself can hold of the next tile while it works on this one.
const ONE_SUBGROUP: (u32, u32) = (1, 16);

/// The family for a problem on such a device, whatever its number of rows.
pub(crate) fn family(problem: &Problem, caps: &Caps, rows: Rows) -> Option<Family> {
    let unit = caps.matrix_unit.filter(|unit| unit.is_possible() && problem.dtype() == Dtype::F16)?;
    let [dim_qk, dim_v] = [problem.shape().dim_qk, problem.shape().dim_v.min(VALUE_COLUMNS)];
    if dim_qk > DIM_QK_KEPT {
        return None;
    }
    let [dim_qk, dim_v] = [dim_qk, dim_v].map(|dim| dim.next_multiple_of(DIM_STEP));
    let side = unit.fragment.side();
    // A thread has at most one row.
    let most = unit.subgroup / side;
    let registers = |fragments: u32| fragments * side * (2 * dim_v + dim_qk) / (2 * unit.subgroup);
    let row_fragments = match rows {
        Rows::Many => (0..=most.ilog2()).map(|log| 1 << log).rfind(|&fragments| registers(fragments) <= REGISTERS),
        Rows::Some | Rows::Few => None,
    };
    let shapes = if rows == Rows::Few { &[ONE_SUBGROUP][..] } else { &SHAPES };
    let mut shapes = shapes.iter().map(|&(subgroups, keys)| {
        // And no more threads share a row than it has vectors of four keys.
        let row_fragments = row_fragments.unwrap_or(1).max(most * 4 / keys);
        Matrix { unit, subgroups, row_fragments, keys }
    });
    let fits = |shape: &Matrix| {
        shape.workgroup_bytes(dim_qk, dim_v) <= caps.workgroup_bytes && shape.threads() <= caps.invocations
    };
    shapes.find(fits).map(Family::Matrix)
}

impl Matrix {
    /// Query rows of a workgroup.
    pub(crate) const fn rows(&self) -> u32 {
        self.subgroups * self.row_fragments * self.unit.fragment.side()
    }

    pub(crate) const fn threads(&self) -> u32 {
        self.subgroups * self.unit.subgroup
    }

    /// Tiles of K, V, weights and scores, their rows padded by 16 bytes; and the marks.
    const fn workgroup_bytes(&self, dim_qk: u32, dim_v: u32) -> u32 {
        let (rows, keys) = (self.rows(), self.keys);
        2 * keys * (dim_qk + 8 + dim_v + 8) + rows * (2 * (keys + 8) + 4 * (keys + 4)) + 4 * (4 + keys)
    }
}

pub(super) fn kernel(variant: &Variant, matrix: Matrix) -> Kernel {
    let Matrix { unit, subgroups, row_fragments, keys } = matrix;
    let side = unit.fragment.side();
    let mut sources = vec![include_str!("../../shaders/params.wgsl")];
    sources.extend(elements(variant));
    sources.extend(tiled::places(variant.access));
    sources.extend(tiled::conversions(variant.dtype));
    sources.extend(tiled::score_pieces(variant));
    sources.extend(tiled::result(variant));
    let directives = unit_pieces(unit, &mut sources);
    sources.extend([
        include_str!("../../shaders/matrix_staging.wgsl"),
        include_str!("../../shaders/matrix_softmax.wgsl"),
        include_str!("../../shaders/matrix.wgsl"),
    ]);
    let threads = matrix.threads();
    let lanes = threads / matrix.rows();
    let constants = vec![
        ("SIDE", Constant::U32(side)),
        ("SUBGROUP", Constant::U32(unit.subgroup)),
        ("SUBGROUPS", Constant::U32(subgroups)),
        ("ROW_FRAGMENTS", Constant::U32(row_fragments)),
        ("BLOCK_KV", Constant::U32(keys)),
        ("DIM_QK", Constant::U32(variant.dim_qk)),
        ("DIM_V", Constant::U32(variant.dim_v)),
        ("QK_FRAGMENTS", Constant::U32(variant.dim_qk / side)),
        ("V_FRAGMENTS", Constant::U32(variant.dim_v / side)),
        ("O_FRAGMENTS", Constant::U32(row_fragments * variant.dim_v / side)),
        ("KEY_FRAGMENTS", Constant::U32(keys / side)),
        ("O_CHUNKS", Constant::U32(variant.dim_v.div_ceil(keys))),
        ("ROW_QUADS", Constant::U32(keys / 4)),
        ("LANE_QUADS", Constant::U32(keys / 4 / lanes)),
        ("K_MOVES", Constant::U32((keys * variant.dim_qk / 4).div_ceil(threads))),
        ("V_MOVES", Constant::U32((keys * variant.dim_v / 4).div_ceil(threads))),
    ];
    let rounds_per_tile = super::TILE_KEYS / keys * rounds(variant, matrix);
    let workgroup_bytes = matrix.workgroup_bytes(variant.dim_qk, variant.dim_v);
    Kernel { directives, sources, constants, workgroup_bytes, rounds_per_tile }
}

/// `probe.wgsl`: a product that shows whether a unit is right.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn probe(unit: MatrixUnit, subgroups: u32) -> Kernel {
    let mut sources = vec![include_str!("../../shaders/probe.wgsl")];
    let directives = unit_pieces(unit, &mut sources);
    let constants = vec![
        ("SIDE", Constant::U32(unit.fragment.side())),
        ("SUBGROUP", Constant::U32(unit.subgroup)),
        ("SUBGROUPS", Constant::U32(subgroups)),
    ];
    Kernel { directives, sources, constants, workgroup_bytes: 0, rounds_per_tile: 1 }
}

/// How fragments are kept and multiplied. Returns the directives that this needs.
fn unit_pieces(unit: MatrixUnit, sources: &mut Vec<&'static str>) -> &'static str {
    sources.push(match unit.tiles {
        Tiles::Vectors => include_str!("../../shaders/pieces/tiles_vec4.wgsl"),
        Tiles::Scalars => include_str!("../../shaders/pieces/tiles_scalar.wgsl"),
    });
    match unit.multiplier {
        Multiplier::Unit => {
            sources.push(match unit.fragment {
                Fragment::Side8 => include_str!("../../shaders/pieces/fragments_8.wgsl"),
                Fragment::Side16 => include_str!("../../shaders/pieces/fragments_16.wgsl"),
            });
            sources.push(include_str!("../../shaders/pieces/fragments_unit.wgsl"));
            // Whole subgroups take the branches around fragments, which the analysis does not know.
            "enable f16;\nenable wgpu_cooperative_matrix;\ndiagnostic(off, derivative_uniformity);\n"
        }
        Multiplier::Emulated => {
            sources.push(include_str!("../../shaders/pieces/fragments_emulated.wgsl"));
            "enable f16;\n"
        }
    }
}

/// Rounds of its loops for a tile of its own, at most: the loop over tiles, and that over a thread's keys where some value is not
/// finite; one more for each loop, in which it ends, and one because what a driver counts is measured, not documented.
fn rounds(variant: &Variant, matrix: Matrix) -> u32 {
    let own_keys = matrix.keys * matrix.rows() / matrix.threads();
    3 + own_keys + 2 + emulated_rounds(variant, matrix, matrix.keys / matrix.unit.fragment.side())
}

/// Those at the beginning and the end.
pub(super) fn other_rounds(variant: &Variant, matrix: Matrix) -> u32 {
    let chunks = variant.dim_v.div_ceil(matrix.keys);
    let own_vectors = matrix.keys * matrix.rows() / matrix.threads() / 4;
    let staging = matrix.rows().div_ceil(matrix.keys);
    // Q is loaded, and O laid out, in fewer fragments than a tile of as many keys as a fragment multiplies.
    staging + 64 + chunks * (own_vectors + 3) + emulated_rounds(variant, matrix, 1)
}

/// Those of fragments that threads play, for so many fragments of keys: each load is a loop over a side, of loops over a
/// thread's columns, and so is each product.
fn emulated_rounds(variant: &Variant, matrix: Matrix, key_fragments: u32) -> u32 {
    if matrix.unit.multiplier == Multiplier::Unit {
        return 0;
    }
    let side = matrix.unit.fragment.side();
    let width = (side * side / matrix.unit.subgroup).max(4);
    let one = side * (width + 3) + 2;
    let fragments = (variant.dim_qk + variant.dim_v) / side;
    let products = key_fragments * fragments * (1 + matrix.row_fragments) * one;
    // Loads of P, stores of S, and O stored and taken back.
    products + matrix.row_fragments * (key_fragments * 2 + 2 * fragments) * (side + width)
}

/// Inputs and result. No atomics on the latter, whose scope naga declares wrongly beside matrices.
fn elements(variant: &Variant) -> [&'static str; 2] {
    match variant.access {
        Access::Vec4 | Access::Words => [
            include_str!("../../shaders/pieces/elements_half_vec4.wgsl"),
            include_str!("../../shaders/pieces/out_packed_vec4.wgsl"),
        ],
        Access::Scalar => [
            include_str!("../../shaders/pieces/elements_half_scalar.wgsl"),
            include_str!("../../shaders/pieces/out_half_scalar.wgsl"),
        ],
    }
}
