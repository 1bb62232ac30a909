//! Cutting a problem into dispatches that the device can bind, count and finish in time.

use std::ops::Range;

use crate::{Caps, Operand, PlanError, Problem, Shape, Variant, View};

/// What one dispatch computes: a box of batches, query heads and query rows, over all keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) batch: Range<u32>,
    pub(crate) heads: Range<u32>,
    pub(crate) rows: Range<u32>,
}

/// The part of an operand that a piece touches, as a binding starting where the device can bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) operand: Operand,
    /// Binding, from the operand's own start.
    pub(crate) offset_bytes: u64,
    pub(crate) size_bytes: u64,
    /// The piece's first element, from the binding's start.
    pub(crate) first: u64,
    /// Strides along (batch, head, row, column); 0 along an axis where the piece has one index.
    pub(crate) stride: [u64; 4],
}

/// More dispatches than this is a mistake in the description rather than work for a GPU.
const MOST_DISPATCHES: usize = 1 << 16;

/// The pieces of `problem` for `variant`, in order.
pub(crate) fn cut(problem: &Problem, variant: &Variant, caps: &Caps) -> Result<Vec<Piece>, PlanError> {
    let Shape { batch, heads_q, len_q, .. } = problem.shape();
    let mut waiting = vec![Piece { batch: 0..batch, heads: 0..heads_q, rows: 0..len_q }];
    let mut pieces = Vec::new();
    while let Some(piece) = waiting.pop() {
        let obstacle = obstacle(&piece, problem, variant, caps);
        match (obstacle, split(&piece, problem, variant)) {
            (None, _) | (Some(Obstacle::Slow), None) => pieces.push(piece),
            (Some(_), Some([first, second])) => waiting.extend([second, first]),
            (Some(Obstacle::Grid), None) => unreachable!("one block always fits the grid"),
            (Some(Obstacle::Binding(error)), None) => return Err(error),
        }
        if pieces.len() + waiting.len() > MOST_DISPATCHES {
            return Err(PlanError::TooManyDispatches { most: MOST_DISPATCHES });
        }
    }
    Ok(pieces)
}

/// Why a piece cannot be one dispatch.
enum Obstacle {
    Binding(PlanError),
    Grid,
    Slow,
}

fn obstacle(piece: &Piece, problem: &Problem, variant: &Variant, caps: &Caps) -> Option<Obstacle> {
    if grid(piece, variant).into_iter().any(|n| n > caps.workgroups) {
        return Some(Obstacle::Grid);
    }
    for slice in slices(piece, problem, variant, caps) {
        let Slice { operand, size_bytes: need, .. } = slice;
        // Shaders index elements, and bytes of a mask, with 32 bits.
        let granted = caps.binding_bytes.min(u64::from(u32::MAX));
        if need > granted {
            return Some(Obstacle::Binding(PlanError::TooLarge { operand, need, granted }));
        }
    }
    (flop(piece, problem) > caps.dispatch_flop).then_some(Obstacle::Slow)
}

/// Two halves along the outermost axis that has two: batches, heads, blocks of rows. Heads go by whole groups while there
/// are several: the shader finds the KV head of a dispatch's heads from the first of them.
fn split(piece: &Piece, problem: &Problem, variant: &Variant) -> Option<[Piece; 2]> {
    let halve = |range: &Range<u32>, step: u32| {
        let middle = range.start + ((range.end - range.start) / 2).next_multiple_of(step);
        (range.start < middle && middle < range.end).then_some([range.start..middle, middle..range.end])
    };
    let Piece { batch, heads, rows } = piece;
    if let Some(halves) = halve(batch, 1) {
        return Some(halves.map(|batch| Piece { batch, ..piece.clone() }));
    }
    if let Some(halves) = halve(heads, problem.shape().group()).or_else(|| halve(heads, 1)) {
        return Some(halves.map(|heads| Piece { heads, ..piece.clone() }));
    }
    halve(rows, variant.family.block().rows).map(|halves| halves.map(|rows| Piece { rows, ..piece.clone() }))
}

pub(crate) fn grid(piece: &Piece, variant: &Variant) -> [u32; 3] {
    let count = |range: &Range<u32>| range.end - range.start;
    [count(&piece.rows).div_ceil(variant.family.block().rows), count(&piece.heads), count(&piece.batch)]
}

fn flop(piece: &Piece, problem: &Problem) -> u64 {
    let Shape { len_kv, dim_qk, dim_v, .. } = problem.shape();
    let count = |range: &Range<u32>| u64::from(range.end - range.start);
    [count(&piece.heads), count(&piece.rows), u64::from(len_kv), 2 * (u64::from(dim_qk) + u64::from(dim_v))]
        .into_iter()
        .fold(count(&piece.batch), u64::saturating_mul)
}

/// What `piece` binds, in slot order.
pub(crate) fn slices<'a>(
    piece: &'a Piece,
    problem: &'a Problem,
    variant: &Variant,
    caps: &Caps,
) -> impl Iterator<Item = Slice> + use<'a> {
    let alignment = caps.binding_alignment.max(16);
    variant
        .operands()
        .filter_map(|operand| problem.view(operand))
        .map(move |view| slice(&view, piece, problem, alignment))
}

fn slice(view: &View, piece: &Piece, problem: &Problem, alignment: u64) -> Slice {
    let Piece { batch, heads, rows } = piece.clone();
    let [all_batches, _, all_rows, all_columns] = view.extent.map(|n| 0..n);
    let axes = match view.operand {
        Operand::Q | Operand::Out | Operand::Lse | Operand::Weights | Operand::Mask | Operand::Bias => {
            [batch, heads, rows, all_columns]
        }
        Operand::K | Operand::V => {
            let kv_head = |head| problem.shape().kv_head(head);
            [batch, kv_head(heads.start)..kv_head(heads.end - 1) + 1, all_rows, all_columns]
        }
        Operand::KvLengths => [all_batches, 0..1, 0..1, 0..1],
    };
    let first = view.index(axes.clone().map(|axis| axis.start));
    let end = view.index(axes.clone().map(|axis| axis.end - 1)) + 1;
    let start_bytes = first * view.element_bytes / alignment * alignment;
    let mut stride = view.stride;
    for (stride, axis) in stride.iter_mut().zip(&axes) {
        if axis.end - axis.start == 1 {
            *stride = 0;
        }
    }
    Slice {
        operand: view.operand,
        offset_bytes: start_bytes,
        size_bytes: (end * view.element_bytes - start_bytes).next_multiple_of(4),
        first: first - start_bytes / view.element_bytes,
        stride,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, Family, Layout, ScoreLayout};

    fn caps() -> Caps {
        Caps::from_limits(&wgpu::Limits::default())
    }

    fn pieces(problem: &Problem, caps: &Caps) -> Vec<Piece> {
        cut(problem, &Variant::of(Family::Tiled, Access::Scalar, problem), caps).expect("can be cut")
    }

    /// Every (batch, head, row) is in exactly one piece.
    fn assert_partition(problem: &Problem, pieces: &[Piece]) {
        let mut times = vec![0; problem.shape().scores()[..3].iter().map(|&n| n as usize).product()];
        let [_, heads, rows, _] = problem.shape().scores();
        for piece in pieces {
            for b in piece.batch.clone() {
                for h in piece.heads.clone() {
                    for i in piece.rows.clone() {
                        times[((b * heads + h) * rows + i) as usize] += 1;
                    }
                }
            }
        }
        assert!(times.iter().all(|&n| n == 1), "not a partition: {pieces:?}");
    }

    #[test]
    fn a_problem_that_fits_is_one_piece() {
        let problem = Problem::builder(Shape::new(2, 4, 100, 64)).build().expect("valid");
        assert_eq!(pieces(&problem, &caps()), [Piece { batch: 0..2, heads: 0..4, rows: 0..100 }]);
    }

    #[test]
    fn cuts_partition_the_problem_and_respect_every_limit() {
        let shape = Shape::new(3, 6, 130, 32).kv_heads(2);
        let mask = ScoreLayout::broadcast([3, 1, 130, 130]);
        for problem in [
            Problem::builder(shape).mask(mask).build(),
            Problem::builder(shape).k(Layout::blhd(2, 130, 32)).v(Layout::blhd(2, 130, 32)).build(),
        ] {
            let problem = problem.expect("valid");
            for tight in [
                Caps { binding_bytes: 40_000, ..caps() },
                Caps { workgroups: 2, ..caps() },
                Caps { workgroups: 1, ..caps() },
                Caps { dispatch_flop: 1, ..caps() },
            ] {
                let pieces = pieces(&problem, &tight);
                assert!(pieces.len() > 1);
                assert_partition(&problem, &pieces);
                for piece in &pieces {
                    let variant = Variant::of(Family::Tiled, Access::Scalar, &problem);
                    assert!(grid(piece, &variant).into_iter().all(|n| n <= tight.workgroups));
                    for slice in slices(piece, &problem, &variant, &tight) {
                        assert!(slice.size_bytes <= tight.binding_bytes, "{slice:?}");
                        assert_eq!(slice.offset_bytes % tight.binding_alignment, 0);
                    }
                }
            }
        }
    }

    #[test]
    fn what_no_cut_can_bind_is_an_error_with_both_sizes() {
        let problem = Problem::builder(Shape::new(1, 1, 10, 64).kv_len(1000)).build().expect("valid");
        let variant = Variant::of(Family::Tiled, Access::Vec4, &problem);
        let error =
            cut(&problem, &variant, &Caps { binding_bytes: 255_999, ..caps() }).expect_err("K is 256 000 bytes");
        assert_eq!(error, PlanError::TooLarge { operand: Operand::K, need: 256_000, granted: 255_999 });
    }

    #[test]
    fn absurd_sizes_end_in_an_error_rather_than_a_long_loop() {
        let shape = Shape::new(1 << 30, 1 << 30, 1, 1).kv_heads(1);
        let problem = Problem::builder(shape).build().expect("2^62 bytes can be addressed");
        let variant = Variant::of(Family::Tiled, Access::Scalar, &problem);
        assert!(matches!(cut(&problem, &variant, &caps()), Err(PlanError::TooManyDispatches { .. })));
    }
}
