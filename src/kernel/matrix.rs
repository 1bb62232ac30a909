//! `matrix.wgsl`: both products on a matrix unit. A block has the rows of all heads of a group.

use std::iter::successors;

use crate::device::caps::Caps;
use crate::device::matrix_unit::{Fragment, MatrixUnit, Multiplier, Tiles};
use crate::kernel::DIM_QK_KEPT;
use crate::kernel::choices::{Choices, VALUE_COLUMNS};
use crate::kernel::pieces::{Form, Pieces};
use crate::kernel::record::{Block, Columns, Cost, Counts, Iterations, Kernel, Keys, Needs, TILE_KEYS, Work};
use crate::problem::Problem;
use crate::problem::dtype::Dtype;
use crate::problem::operand::Operand;

/// How a workgroup divides the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Matrix {
    /// The unit that multiplies.
    unit: MatrixUnit,
    /// Subgroups per workgroup, each with its own rows.
    subgroups: u32,
    /// Fragments of rows per subgroup.
    row_fragments: u32,
    /// Keys per tile.
    keys: u32,
}

/// How many rows a workgroup processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    /// As many fragments of rows per subgroup as registers hold, if they hold several: each key that is read serves more rows.
    ManyFragments,
    /// One fragment of rows per subgroup, so that more subgroups run at a time.
    OneFragment,
    /// One fragment of rows per workgroup, which has one subgroup, if registers hold it.
    OneSubgroup,
}

/// Head sizes are rounded up to whole fragments of either size.
pub(super) const DIM_STEP: u32 = 16;
/// Registers per thread for Q, O and the keys and values on their way. GPUs have at most 255, and the rest of the kernel needs
/// some of them: by Mesa's compiler for NVIDIA (benches/NOTES.md), no kernel with at most this many spills.
const REGISTERS: u32 = 176;
/// Subgroups per workgroup and keys per tile, best first. Fewer keys take less memory but more barriers.
const SHAPES: [(u32, u32); 6] = [(8, 32), (8, 16), (4, 32), (4, 16), (2, 16), ONE_SUBGROUP];
/// The same for subgroups with several fragments of rows.
const FRAGMENT_SHAPES: [(u32, u32); 3] = [(4, 32), (4, 16), (2, 16)];
/// For few rows: the keys of the next tile that one subgroup can hold while it processes this tile.
const ONE_SUBGROUP: (u32, u32) = (1, 16);

/// The division of work for a problem on a device, whatever its number of rows; `None` if there is none.
pub(super) fn of(problem: &Problem, caps: &Caps, rows: Rows) -> Option<Matrix> {
    let unit = caps.matrix_unit.filter(|unit| unit.is_possible() && stores_for_units(problem))?;
    let [dim_qk, dim_v] = [problem.shape().dim_qk, problem.shape().dim_v.min(VALUE_COLUMNS)];
    if dim_qk > DIM_QK_KEPT {
        return None;
    }
    let [dim_qk, dim_v] = [dim_qk, dim_v].map(|dim| dim.next_multiple_of(DIM_STEP));
    let side = unit.fragment.side();
    // A thread has at most one row.
    let most = unit.subgroup / side;
    let fits = |shape: &Matrix| {
        shape.workgroup_bytes(dim_qk, dim_v) <= caps.workgroup_bytes && shape.threads() <= caps.invocations
    };
    // A software GPU has no registers to fill.
    let holds = |shape: &Matrix| caps.is_software || shape.registers(dim_qk, dim_v) <= REGISTERS;
    let with = |row_fragments: u32, shapes: &[(u32, u32)]| -> Vec<Matrix> {
        let of = |&(subgroups, keys): &(u32, u32)| {
            // A row must not be shared by more threads than it has vectors of four keys.
            Matrix { unit, subgroups, row_fragments: row_fragments.max(most * 4 / keys), keys }
        };
        shapes.iter().map(of).filter(fits).collect()
    };
    match rows {
        Rows::OneSubgroup => with(1, &[ONE_SUBGROUP]).into_iter().find(holds),
        Rows::OneFragment => {
            let shapes = with(1, &SHAPES);
            // If registers hold none, the one that needs the fewest spills the least.
            let least = shapes.iter().min_by_key(|shape| shape.registers(dim_qk, dim_v)).copied();
            shapes.into_iter().find(holds).or(least)
        }
        Rows::ManyFragments => {
            let fragments =
                successors(Some(most), |fragments| Some(fragments >> 1)).take_while(|&fragments| fragments > 1);
            fragments.flat_map(|fragments| with(fragments, &FRAGMENT_SHAPES)).find(holds)
        }
    }
}

impl Matrix {
    /// Query rows per workgroup.
    const fn rows(&self) -> u32 {
        self.subgroups * self.row_fragments * self.unit.fragment.side()
    }

    const fn threads(&self) -> u32 {
        self.subgroups * self.unit.subgroup
    }

    /// Registers of a thread for Q and O, in f16 and f32, and for what it moves of the next keys and of the values.
    const fn registers(&self, dim_qk: u32, dim_v: u32) -> u32 {
        let fragments =
            self.row_fragments * self.unit.fragment.side() * (dim_qk + 2 * dim_v) / (2 * self.unit.subgroup);
        fragments + self.keys * (dim_qk + dim_v) / (2 * self.threads())
    }

    /// The tiles of K, V, weights and scores, with rows padded by 16 bytes, and the marks.
    const fn workgroup_bytes(&self, dim_qk: u32, dim_v: u32) -> u32 {
        let (rows, keys) = (self.rows(), self.keys);
        2 * keys * (dim_qk + 8 + dim_v + 8) + rows * (2 * (keys + 8) + 4 * (keys + 4)) + 4 * (4 + keys)
    }
}

/// Whether the element types are what a unit multiplies. So is the output's, because weights in f16 have too few digits for
/// an output in f32.
fn stores_for_units(problem: &Problem) -> bool {
    [Operand::Q, Operand::K, Operand::Out].iter().all(|&operand| problem.dtype(operand) == Some(Dtype::F16))
}

/// Kernels on a matrix unit are at least this many times as fast as others.
const SPEED: u64 = 8;

pub(super) fn kernel(choices: &Choices, matrix: Matrix) -> Kernel {
    let Matrix { unit, subgroups, row_fragments, keys } = matrix;
    let side = unit.fragment.side();
    let mut pieces = Pieces::new(choices);
    pieces.inputs([Operand::Q, Operand::K, Operand::V], choices, Form::Half);
    pieces.scores(choices);
    pieces.results(choices, Form::Half);
    fragments(unit, &mut pieces);
    pieces.file(shader!("../../shaders/pieces/block.wgsl"));
    pieces.file(shader!("../../shaders/matrix_staging.wgsl"));
    pieces.file(shader!("../../shaders/matrix_softmax.wgsl"));
    pieces.file(shader!("../../shaders/matrix.wgsl"));
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
    let iterations = Iterations {
        tile: TILE_KEYS,
        per_tile: TILE_KEYS / keys * tile_iterations(choices, matrix),
        besides: other_iterations(choices, matrix),
    };
    let workgroup_bytes = matrix.workgroup_bytes(choices.dim_qk, choices.dim_v);
    Kernel {
        source: pieces.source,
        slots: pieces.slots,
        block: Block { counts: Counts::GroupedRows, rows: matrix.rows(), threads, columns: Columns::Values },
        needs: Needs { features: unit.features(), workgroup_bytes },
        work: Work { cost: Cost::Scores, keys: Keys::InParts(iterations), speed: SPEED },
    }
}

/// Adds the functions that hold and multiply fragments.
pub(super) fn fragments(unit: MatrixUnit, pieces: &mut Pieces) {
    pieces.file(match unit.tiles {
        Tiles::Vectors => shader!("../../shaders/pieces/tiles_vec4.wgsl"),
        Tiles::Scalars => shader!("../../shaders/pieces/tiles_scalar.wgsl"),
    });
    match unit.multiplier {
        Multiplier::Unit => {
            pieces.file(match unit.fragment {
                Fragment::Side8 => shader!("../../shaders/pieces/fragments_8.wgsl"),
                Fragment::Side16 => shader!("../../shaders/pieces/fragments_16.wgsl"),
            });
            pieces.file(shader!("../../shaders/pieces/fragments_unit.wgsl"));
            // All threads of a subgroup take the same branches around fragments, which the uniformity analysis does not
            // know.
            pieces.source.directives =
                "enable f16;\nenable wgpu_cooperative_matrix;\ndiagnostic(off, derivative_uniformity);\n";
        }
        Multiplier::Emulated => {
            pieces.file(shader!("../../shaders/pieces/fragments_emulated.wgsl"));
            pieces.source.directives = "enable f16;\n";
        }
    }
}

/// An upper bound on the loop iterations per tile of the kernel: the loop over tiles, and the loop over a thread's keys
/// if some value is not finite. Each loop has one more, in which it ends, and one because the driver's counting is
/// measured, not documented.
fn tile_iterations(choices: &Choices, matrix: Matrix) -> u32 {
    let own_keys = matrix.keys * matrix.rows() / matrix.threads();
    let of_masks = 2 * choices.block_mask_iterations(matrix.rows(), Counts::GroupedRows);
    3 + own_keys + 2 + of_masks + emulated_iterations(choices, matrix, matrix.keys / matrix.unit.fragment.side())
}

/// An upper bound on the loop iterations before the first tile and after the last.
fn other_iterations(choices: &Choices, matrix: Matrix) -> u32 {
    let chunks = choices.dim_v.div_ceil(matrix.keys);
    let own_vectors = matrix.keys * matrix.rows() / matrix.threads() / 4;
    let staging = matrix.rows().div_ceil(matrix.keys);
    // Loading Q and laying out O takes fewer fragments than a tile with one fragment of keys.
    staging + 64 + chunks * (own_vectors + 3) + emulated_iterations(choices, matrix, 1)
}

/// The loop iterations of emulated fragments, for `key_fragments` fragments of keys. Each load and each product is a
/// loop over a side, which contains loops over a thread's columns.
fn emulated_iterations(choices: &Choices, matrix: Matrix, key_fragments: u32) -> u32 {
    if matrix.unit.multiplier == Multiplier::Unit {
        return 0;
    }
    let side = matrix.unit.fragment.side();
    let width = (side * side / matrix.unit.subgroup).max(4);
    let one = side * (width + 3) + 2;
    let fragments = (choices.dim_qk + choices.dim_v) / side;
    let products = key_fragments * fragments * (1 + matrix.row_fragments) * one;
    // Loads of P, stores of S, and stores and loads of O.
    products + matrix.row_fragments * (key_fragments * 2 + 2 * fragments) * (side + width)
}

impl Matrix {
    /// Its name, without the division of work.
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
