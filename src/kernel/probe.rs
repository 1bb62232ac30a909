//! `probe.wgsl`: a product that shows whether a matrix unit multiplies correctly.

use crate::device::matrix_unit::MatrixUnit;
use crate::kernel::matrix::fragments;
use crate::kernel::pieces::Pieces;
use crate::kernel::text::assemble;

/// The text of the test, for `subgroups` subgroups that multiply side by side.
pub(crate) fn text(unit: MatrixUnit, subgroups: u32) -> String {
    let mut pieces = Pieces::default();
    pieces.file(shader!("../../shaders/probe.wgsl"));
    fragments(unit, &mut pieces);
    pieces.constants([("SIDE", unit.fragment.side()), ("SUBGROUP", unit.subgroup), ("SUBGROUPS", subgroups)]);
    assemble("probe", &pieces.source, "")
}
