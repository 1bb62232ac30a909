//! `matrix.wgsl`: both products on a matrix unit, the rows of a group's heads together.

use crate::device::caps::Caps;
use crate::device::matrix_unit::{Fragment, MatrixUnit, Multiplier, Tiles};
use crate::kernel::DIM_QK_KEPT;
use crate::kernel::choices::{Choices, VALUE_COLUMNS};
use crate::kernel::pieces::{Form, Pieces};
use crate::kernel::record::{Block, Cost, Counts, Kernel, Keys, Needs, Rounds, TILE_KEYS, Work};
use crate::problem::Problem;
use crate::problem::dtype::Dtype;
use crate::problem::operand::Operand;

/// How a workgroup divides the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Matrix {
    /// What multiplies.
    unit: MatrixUnit,
    /// Subgroups of a workgroup, each with rows of its own.
    subgroups: u32,
    /// Fragments that the rows of a subgroup make.
    row_fragments: u32,
    /// Keys of a tile.
    keys: u32,
}

/// Which of a unit's shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    /// As many fragments of them to a subgroup as registers hold: each key that is read serves more rows.
    ManyFragments,
    /// One fragment of them to a subgroup: more subgroups at a time.
    OneFragment,
    /// One fragment of them in all, in workgroups of one subgroup.
    OneSubgroup,
}

/// Head sizes come in whole fragments of either size.
pub(super) const DIM_STEP: u32 = 16;
/// Registers of a thread for Q and O. GPUs have at most 255, and the rest of the kernel wants its share.
const REGISTERS: u32 = 192;
/// Subgroups and keys of a tile, best first. Fewer keys take less memory but more barriers.
const SHAPES: [(u32, u32); 4] = [(4, 32), (4, 16), (2, 16), ONE_SUBGROUP];
/// For few rows: what a subgroup by itself can hold of the next tile while it works on this one.
const ONE_SUBGROUP: (u32, u32) = (1, 16);

/// For a problem on such a device, whatever its number of rows.
pub(super) fn of(problem: &Problem, caps: &Caps, rows: Rows) -> Option<Matrix> {
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
        Rows::ManyFragments => {
            (0..=most.ilog2()).map(|log| 1 << log).rfind(|&fragments| registers(fragments) <= REGISTERS)
        }
        Rows::OneFragment | Rows::OneSubgroup => None,
    };
    let shapes = if rows == Rows::OneSubgroup { &[ONE_SUBGROUP][..] } else { &SHAPES };
    let mut shapes = shapes.iter().map(|&(subgroups, keys)| {
        // And no more threads share a row than it has vectors of four keys.
        let row_fragments = row_fragments.unwrap_or(1).max(most * 4 / keys);
        Matrix { unit, subgroups, row_fragments, keys }
    });
    let fits = |shape: &Matrix| {
        shape.workgroup_bytes(dim_qk, dim_v) <= caps.workgroup_bytes && shape.threads() <= caps.invocations
    };
    shapes.find(fits)
}

impl Matrix {
    /// Query rows of a workgroup.
    const fn rows(&self) -> u32 {
        self.subgroups * self.row_fragments * self.unit.fragment.side()
    }

    const fn threads(&self) -> u32 {
        self.subgroups * self.unit.subgroup
    }

    /// Tiles of K, V, weights and scores, their rows padded by 16 bytes; and the marks.
    const fn workgroup_bytes(&self, dim_qk: u32, dim_v: u32) -> u32 {
        let (rows, keys) = (self.rows(), self.keys);
        2 * keys * (dim_qk + 8 + dim_v + 8) + rows * (2 * (keys + 8) + 4 * (keys + 4)) + 4 * (4 + keys)
    }
}

/// How many times as fast as other kernels those on a matrix unit are at least.
const SPEED: u64 = 8;

pub(super) fn kernel(choices: &Choices, matrix: Matrix) -> Kernel {
    let Matrix { unit, subgroups, row_fragments, keys } = matrix;
    let side = unit.fragment.side();
    let mut pieces = Pieces::new(choices);
    pieces.inputs([Operand::Q, Operand::K, Operand::V], choices, Form::Half);
    pieces.scores(choices);
    pieces.results(choices, Form::Half);
    fragments(unit, &mut pieces);
    pieces.file(include_str!("../../shaders/pieces/block.wgsl"));
    pieces.file(include_str!("../../shaders/matrix_staging.wgsl"));
    pieces.file(include_str!("../../shaders/matrix_softmax.wgsl"));
    pieces.file(include_str!("../../shaders/matrix.wgsl"));
    let threads = matrix.threads();
    let lanes = threads / matrix.rows();
    pieces.constants([
        ("SIDE", side),
        ("SUBGROUP", unit.subgroup),
        ("SUBGROUPS", subgroups),
        ("ROW_FRAGMENTS", row_fragments),
        ("BLOCK_KV", keys),
        ("DIM_QK", choices.dim_qk),
        ("DIM_V", choices.dim_v),
        ("QK_FRAGMENTS", choices.dim_qk / side),
        ("V_FRAGMENTS", choices.dim_v / side),
        ("O_FRAGMENTS", row_fragments * choices.dim_v / side),
        ("KEY_FRAGMENTS", keys / side),
        ("O_CHUNKS", choices.dim_v.div_ceil(keys)),
        ("ROW_QUADS", keys / 4),
        ("LANE_QUADS", keys / 4 / lanes),
        ("K_MOVES", (keys * choices.dim_qk / 4).div_ceil(threads)),
        ("V_MOVES", (keys * choices.dim_v / 4).div_ceil(threads)),
    ]);
    let rounds =
        Rounds { per_tile: TILE_KEYS / keys * tile_rounds(choices, matrix), besides: other_rounds(choices, matrix) };
    let workgroup_bytes = matrix.workgroup_bytes(choices.dim_qk, choices.dim_v);
    Kernel {
        source: pieces.source,
        slots: pieces.slots,
        block: Block { counts: Counts::GroupedRows, rows: matrix.rows(), threads, computes_values: true },
        needs: Needs { features: unit.features(), workgroup_bytes },
        work: Work { cost: Cost::Scores, keys: Keys::InParts(rounds), speed: SPEED },
    }
}

/// How fragments are kept and multiplied.
pub(super) fn fragments(unit: MatrixUnit, pieces: &mut Pieces) {
    pieces.file(match unit.tiles {
        Tiles::Vectors => include_str!("../../shaders/pieces/tiles_vec4.wgsl"),
        Tiles::Scalars => include_str!("../../shaders/pieces/tiles_scalar.wgsl"),
    });
    match unit.multiplier {
        Multiplier::Unit => {
            pieces.file(match unit.fragment {
                Fragment::Side8 => include_str!("../../shaders/pieces/fragments_8.wgsl"),
                Fragment::Side16 => include_str!("../../shaders/pieces/fragments_16.wgsl"),
            });
            pieces.file(include_str!("../../shaders/pieces/fragments_unit.wgsl"));
            // Whole subgroups take the branches around fragments, which the analysis does not know.
            pieces.source.directives =
                "enable f16;\nenable wgpu_cooperative_matrix;\ndiagnostic(off, derivative_uniformity);\n";
        }
        Multiplier::Emulated => {
            pieces.file(include_str!("../../shaders/pieces/fragments_emulated.wgsl"));
            pieces.source.directives = "enable f16;\n";
        }
    }
}

/// Rounds of its loops for a tile of its own, at most: the loop over tiles, and that over a thread's keys where some value is not
/// finite; one more for each loop, in which it ends, and one because what a driver counts is measured, not documented.
fn tile_rounds(choices: &Choices, matrix: Matrix) -> u32 {
    let own_keys = matrix.keys * matrix.rows() / matrix.threads();
    3 + own_keys + 2 + emulated_rounds(choices, matrix, matrix.keys / matrix.unit.fragment.side())
}

/// Those at the beginning and the end.
fn other_rounds(choices: &Choices, matrix: Matrix) -> u32 {
    let chunks = choices.dim_v.div_ceil(matrix.keys);
    let own_vectors = matrix.keys * matrix.rows() / matrix.threads() / 4;
    let staging = matrix.rows().div_ceil(matrix.keys);
    // Q is loaded, and O laid out, in fewer fragments than a tile of as many keys as a fragment multiplies.
    staging + 64 + chunks * (own_vectors + 3) + emulated_rounds(choices, matrix, 1)
}

/// Those of emulated fragments, for so many fragments of keys: each load is a loop over a side, of loops over a
/// thread's columns, and so is each product.
fn emulated_rounds(choices: &Choices, matrix: Matrix, key_fragments: u32) -> u32 {
    if matrix.unit.multiplier == Multiplier::Unit {
        return 0;
    }
    let side = matrix.unit.fragment.side();
    let width = (side * side / matrix.unit.subgroup).max(4);
    let one = side * (width + 3) + 2;
    let fragments = (choices.dim_qk + choices.dim_v) / side;
    let products = key_fragments * fragments * (1 + matrix.row_fragments) * one;
    // Loads of P, stores of S, and O stored and taken back.
    products + matrix.row_fragments * (key_fragments * 2 + 2 * fragments) * (side + width)
}

impl Matrix {
    /// Its name without how a workgroup divides the work.
    pub(super) fn kind(&self) -> String {
        let unit = self.unit;
        let scalars = if unit.tiles == Tiles::Scalars { "-scalars" } else { "" };
        let emulated = if unit.multiplier == Multiplier::Emulated { "-emulated" } else { "" };
        format!("matrix{}in{}{scalars}{emulated}", unit.fragment.side(), unit.subgroup)
    }
}

impl std::fmt::Display for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { subgroups, row_fragments, keys, .. } = self;
        write!(f, "{}-{subgroups}x{row_fragments}x{keys}", self.kind())
    }
}
