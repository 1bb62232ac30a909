//! Fills in the parameters of one dispatch.

use std::f64::consts::LOG2_E;

use crate::kernel::params::Params;
use crate::kernel::record::{Columns, Counts};
use crate::kernel::slots::{Resource, Space};
use crate::plan::cut::Job;
use crate::plan::piece::{Piece, count, key_tiles, shared_by};
use crate::plan::slices::{Slice, counts_query_heads, staged, staged_rows};
use crate::problem::Problem;
use crate::problem::dropout::{Philox, RngState};
use crate::problem::operand::Operand;

/// The parameters of the dispatch that computes a piece.
pub(super) fn params(job: &Job<'_>, piece: &Piece, slices: &[Slice]) -> Params {
    let problem = job.problem;
    let shape = problem.shape();
    let band = problem.band();
    // The rows of a piece of ragged queries are blocks.
    let (first_row, first_block) = if job.counts_blocks() { (0, piece.rows.start) } else { (piece.rows.start, 0) };
    // A gradient's workgroup visits all rows, whichever results it computes.
    let visits_rows = matches!(job.kernel.block.counts, Counts::SeenKeys | Counts::BiasRows(_) | Counts::Heads);
    let len_q = if visits_rows { shape.len_q } else { count(&piece.rows) };
    let first_row = if visits_rows { 0 } else { first_row };
    let block = job.kernel.block;
    let [batches, heads, rows, keys] = shared_by(problem);
    let tiles = if let Counts::BiasRows(tile) = block.counts { keys.div_ceil(tile) } else { keys };
    let mut params = Params {
        len_q,
        len_kv: shape.len_kv,
        all_queries: shape.len_q,
        sequences: shape.batch,
        first_block,
        capacity: problem.ring().unwrap_or(0),
        table_row: problem.table_row(),
        dim_qk: shape.dim_qk,
        dim_v: if block.columns == Columns::Values { count(&piece.columns) } else { shape.dim_v },
        first_column: piece.columns.start,
        rotary_dims: problem.rotary().map_or(0, |rotary| rotary.dims),
        group: shape.group(),
        first_row,
        first_batch: piece.batch.start,
        first_head: first_head(job, piece),
        diagonal_offset: band.offset,
        band_first: band.first,
        band_last: band.last,
        band_from_end: band.from_end.into(),
        staged: staged(problem, job.kernel.block.counts, piece).map(narrow),
        staged_rows: staged_rows(problem, job.kernel.block.counts, piece).map(narrow),
        negative_infinity: f32::NEG_INFINITY,
        nan: f32::NAN,
        parts: job.split.parts,
        part_step: job.split.step,
        shared_by: [batches, heads, rows.div_ceil(block.rows), tiles],
        gradient_begin: piece.rows.start,
        columns: count(&piece.columns),
        key_tiles: key_tiles(problem, block),
        gradient_scale: problem.scale(),
        all_heads: shape.heads_q,
        ..Params::default()
    };
    set_scales(&mut params, problem);
    set_dropout(&mut params, problem);
    for slice in slices {
        set_view(&mut params, slice);
    }
    params
}

fn set_scales(params: &mut Params, problem: &Problem) {
    let scale = f64::from(problem.scale());
    let cap = problem.softcap().map(f64::from);
    // The unit of S, in natural units. It is 1 if something is added to the scores in natural units, such as a bias.
    // Otherwise it is the one that saves a multiplication. It is positive, so that the largest S is the largest score.
    let unit = if problem.adds_to_scores() { 1.0 } else { cap.unwrap_or(scale.abs()) };
    let (score, softcap) = match cap {
        Some(cap) => (scale / cap, cap / unit),
        None if unit == 0.0 => (0.0, 0.0),
        None => (scale / unit, 0.0),
    };
    // If every score is 0, any positive unit gives the same weights. A sink, which is compared with the scores, needs a
    // unit that is not 0.
    let unit = if unit == 0.0 { 1.0 } else { unit };
    params.score_scale = rounded(score);
    params.softcap_scale = rounded(softcap);
    params.exp2_scale = rounded(unit * LOG2_E);
    params.natural_scale = rounded(unit);
}

fn set_dropout(params: &mut Params, problem: &Problem) {
    let Some(dropout) = problem.dropout() else { return };
    let Philox { seed: [low, high], offset } = match dropout.state {
        RngState::Fixed(state) => state,
        RngState::Buffer => Philox::default(),
    };
    params.rng = [low, high, offset, dropout.threshold()];
    params.kept_scale = rounded(dropout.kept_scale());
}

#[expect(clippy::cast_possible_truncation, reason = "rounding is what is wanted")]
fn rounded(x: f64) -> f32 {
    x.clamp(f32::MIN.into(), f32::MAX.into()) as f32
}

pub(super) fn set_view(params: &mut Params, slice: &Slice) {
    let [batch, head, row, column] = slice.stride.map(wrapped);
    let view = [narrow(slice.first), batch, head, row];
    match slice.resource {
        Resource::Operand(Operand::Q) => params.q = view,
        Resource::Operand(Operand::K) => params.k = view,
        Resource::Operand(Operand::V) => params.v = view,
        Resource::Operand(Operand::Out | Operand::Weights) => params.out = view,
        Resource::Operand(Operand::Lse) => params.lse = view,
        Resource::Operand(Operand::Mask) => (params.mask, params.mask_key) = (view, column),
        Resource::Operand(Operand::Bias) => (params.bias, params.bias_key) = (view, column),
        Resource::Operand(Operand::AlibiSlopes) => params.alibi = view,
        Resource::Operand(Operand::Sinks) => params.sinks = view,
        Resource::Operand(Operand::BlockMask) => params.block_mask = view,
        Resource::Operand(
            Operand::KvLengths
            | Operand::QLengths
            | Operand::CuSeqlensQ
            | Operand::CuSeqlensK
            | Operand::BlockTable
            | Operand::RotaryTable
            | Operand::Aux
            | Operand::RngState,
        ) => {}
        Resource::Operand(Operand::NewQ) => params.new_q = view,
        Resource::Operand(Operand::NewK) => params.new_k = view,
        Resource::Operand(Operand::NewV) => params.new_v = view,
        Resource::Operand(Operand::Dout) => params.dout = view,
        Resource::Operand(Operand::Dlse) => params.dlse = view,
        Resource::Operand(Operand::Dq) => params.dq = view,
        Resource::Operand(Operand::Dk) => params.dk = view,
        Resource::Operand(Operand::Dv) => params.dv = view,
        Resource::Operand(Operand::Dbias) => (params.dbias, params.dbias_key) = (view, column),
        Resource::Operand(Operand::Dsinks) => params.dsinks = view,
        Resource::Space(Space::Sums) => params.sums = view,
        Resource::Operand(Operand::PairOut) => params.pair_out = view,
        Resource::Operand(Operand::PairLse) => params.pair_lse = view,
        Resource::Space(Space::Partial) => params.part = view,
        Resource::Space(Space::StagedK | Space::StagedV | Space::StagedQ | Space::StagedDout) => {}
    }
}

/// The first query head of a piece, counted from the start of the problem.
fn first_head(job: &Job<'_>, piece: &Piece) -> u32 {
    match job.kernel.block.counts {
        counts if counts_query_heads(counts) => piece.heads.start,
        _ => piece.heads.start * job.problem.shape().group(),
    }
}

/// A stride modulo 2³². Shaders add offsets modulo 2³² as well, and the sum lies within the binding, whose elements 32
/// bits can count.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "modulo 2³² is what is wanted")]
const fn wrapped(stride: i64) -> u32 {
    stride as u32
}

/// After cutting, every element can be addressed with 32 bits.
fn narrow(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::caps::Caps;
    use crate::kernel::select::candidates;
    use crate::kernel::select_gradients::gradient_variants;
    use crate::plan::split::Split;
    use crate::problem::builder::{ProblemBuilder, Slopes};
    use crate::problem::dtype::Dtype;
    use crate::problem::layout::ScoreLayout;
    use crate::problem::shape::Shape;

    fn of(problem: &ProblemBuilder, piece: &Piece) -> Params {
        let caps = Caps::from_limits(&wgpu::Limits::default());
        let problem = problem.build().expect("valid");
        let kernel = candidates(&problem, &caps).expect("runs everywhere")[0].kernel();
        let split = Split::of(&kernel, &problem, &caps);
        params(&Job { problem: &problem, kernel: &kernel, split, caps: &caps }, piece, &[])
    }

    #[test]
    fn a_piece_is_told_where_it_begins() {
        // With few rows, the rows of a group's heads are counted together, and the heads are KV heads.
        for (len_q, first_head) in [(2, 15), (100, 5)] {
            let shape = Shape::new(9, 12, len_q, 8).kv_heads(4);
            let piece = Piece { batch: 7..9, heads: 5..6, rows: 1..2, columns: 3..5 };
            let told = of(&Problem::builder(shape), &piece);
            assert_eq!((told.first_batch, told.first_head, told.first_row), (7, first_head, 1));
            assert_eq!((told.len_q, told.dim_v, told.group), (1, 2, 3));
        }
    }

    #[test]
    fn blocks_of_ragged_rows_are_numbered() {
        let piece = Piece { batch: 0..1, heads: 0..1, rows: 2..5, columns: 0..8 };
        let told = of(&Problem::builder(Shape::new(3, 1, 40, 8)).ragged_q(100), &piece);
        assert_eq!((told.first_block, told.first_row, told.len_q), (2, 0, 3));
    }

    #[test]
    fn a_gradient_is_told_what_it_computes_and_what_it_visits() {
        let shape = Shape::new(3, 4, 45, 13).kv_heads(2).kv_len(70).value_dim(7);
        let piece = Piece { batch: 0..1, heads: 1..2, rows: 32..64, columns: 0..13 };
        let of = |bias, operand| {
            let caps = Caps::from_limits(&wgpu::Limits::default());
            let problem = Problem::builder(shape).bias(Dtype::F32, ScoreLayout::broadcast(bias)).lse().build();
            let gradients = problem.expect("valid").gradients().of([operand]).build().expect("valid");
            let variants = gradient_variants(gradients.problem(), &caps).expect("runs everywhere");
            let kernel = variants.last().expect("there is one").kernel();
            let split = Split { parts: 1, step: 1 };
            params(&Job { problem: gradients.problem(), kernel: &kernel, split, caps: &caps }, &piece, &[])
        };
        let told = of([3, 4, 45, 70], Operand::Dk);
        assert_eq!((told.len_q, told.first_row, told.gradient_begin), (45, 0, 32));
        assert_eq!((told.dim_v, told.columns), (7, 13));
        let told = of([1; 4], Operand::Dbias);
        assert_eq!(told.shared_by, [3, 4, 2, 3], "45 rows in blocks of 32, 70 keys in tiles of 32");
    }

    #[test]
    fn dropout_is_told_its_state_and_its_scale() {
        let piece = Piece { batch: 0..1, heads: 0..1, rows: 0..1, columns: 0..8 };
        let state = RngState::Fixed(Philox { seed: [3, 5], offset: 7 });
        let told = of(&Problem::builder(Shape::new(1, 1, 1, 8)).dropout(0.75, state), &piece);
        assert_eq!(told.rng, [3, 5, 7, 3 << 30]);
        assert_eq!(told.kept_scale, 4.0);
    }

    #[test]
    fn scores_are_kept_in_the_unit_that_costs_least() {
        let piece = Piece { batch: 0..1, heads: 0..1, rows: 0..1, columns: 0..8 };
        let plain = || Problem::builder(Shape::new(1, 1, 1, 8));
        let biased = || plain().bias(Dtype::F32, ScoreLayout::broadcast([1; 4]));
        // score_scale, softcap_scale, natural_scale
        for (problem, wanted) in [
            (plain().scale(0.5), [1.0, 0.0, 0.5]),
            (plain().scale(-0.5), [-1.0, 0.0, 0.5]),
            (biased().scale(-0.5), [-0.5, 0.0, 1.0]),
            (plain().alibi(Slopes::PerHead).scale(-0.5), [-0.5, 0.0, 1.0]),
            (plain().score_mod("fn score_mod(s: f32, at: At) -> f32 { return s; }").scale(-0.5), [-0.5, 0.0, 1.0]),
            (plain().scale(0.5).softcap(2.0), [0.25, 1.0, 2.0]),
            (biased().scale(0.5).softcap(2.0), [0.25, 2.0, 1.0]),
            (plain().scale(0.0), [0.0, 0.0, 1.0]),
            (plain().scale(2e38).softcap(0.125), [f32::MAX, 1.0, 0.125]),
            (plain().scale(-2e38).softcap(0.125), [f32::MIN, 1.0, 0.125]),
        ] {
            let told = of(&problem, &piece);
            assert_eq!([told.score_scale, told.softcap_scale, told.natural_scale], wanted, "{problem:?}");
            assert_eq!(told.exp2_scale, wanted[2] * std::f32::consts::LOG2_E);
        }
    }
}
