//! Which keys a row sees.

use wgpu_attention::reference::At;
use wgpu_attention::{BlockMask, Diagonal, Operand, View};

use crate::case::Case;
use crate::sequences::Sequences;

/// The rules of a case for which query sees which key. Written independently of the kernels and of the reference.
#[derive(Clone, Copy, Debug)]
pub struct Visibility<'a> {
    case: &'a Case,
    mask: Option<(View, &'a [bool])>,
    bias: Option<(View, &'a [f32])>,
    tiles: Option<(View, BlockMask, &'a [u32])>,
}

impl<'a> Visibility<'a> {
    /// The rules of `case`, whose inputs must fit its problem.
    pub fn new(case: &'a Case) -> Self {
        let Case { problem, host } = case;
        let tiles = problem.view(Operand::BlockMask).zip(problem.block_mask()).zip(host.block_mask.as_deref());
        Self {
            case,
            mask: problem.view(Operand::Mask).zip(host.mask.as_deref()),
            bias: problem.view(Operand::Bias).zip(host.bias.as_deref()),
            tiles: tiles.map(|((view, size), tiles)| (view, size, tiles)),
        }
    }

    /// Whether the query at (batch, head, query, key) sees the key. Each line is a rule of the table of meanings. A
    /// `score_mod` may still hide the key.
    pub fn sees(&self, at: [u32; 4]) -> bool {
        let j = i64::from(at[3]);
        let (problem, stands_at) = (&self.case.problem, self.stands_at(at[0], at[2]));
        let window = problem.window();
        let sequences = Sequences::new(self.case);
        at[2] < sequences.queries(at[0])
            && (sequences.oldest(at[0])..sequences.keys(at[0])).contains(&at[3])
            && (!problem.is_causal() || j <= stands_at)
            && window.left.is_none_or(|left| stands_at - i64::from(left) <= j)
            && window.right.is_none_or(|right| j <= stands_at + i64::from(right))
            && self.bias.is_none_or(|(view, bias)| bias[view.index(at) as usize] != f32::NEG_INFINITY)
            && match self.tile(at) {
                Some(0 | BlockMask::HIDDEN) => false,
                Some(BlockMask::SEEN) => true,
                _ => self.is_unmasked(at),
            }
    }

    /// Whether the mask and the `mask_mod` let the query see the key.
    pub fn is_unmasked(&self, at: [u32; 4]) -> bool {
        let host = &self.case.host;
        self.mask.is_none_or(|(view, mask)| mask[view.index(at) as usize])
            && host.programs.mask_mod.as_ref().is_none_or(|mask_mod| mask_mod(self.place(at), host.aux()))
    }

    /// What the block mask says of the tile that a pair is in.
    fn tile(&self, [batch, head, query, key]: [u32; 4]) -> Option<u32> {
        let (view, size, tiles) = self.tiles?;
        Some(tiles[view.index([batch, head, query / size.rows(), key / size.keys()]) as usize])
    }

    /// The key that a query stands at.
    pub fn stands_at(&self, batch: u32, query: u32) -> i64 {
        i64::from(query)
            + match self.case.problem.diagonal() {
                Diagonal::TopLeft => 0,
                Diagonal::Offset(offset) => i64::from(offset),
                Diagonal::BottomRight => {
                    let sequences = Sequences::new(self.case);
                    i64::from(sequences.keys(batch)) - i64::from(sequences.queries(batch))
                }
            }
    }

    /// The place of a score, as programs see it.
    pub fn place(&self, [batch, head, query, key]: [u32; 4]) -> At {
        let kv_head = self.case.problem.shape().kv_head(head);
        At { batch, head, kv_head, query, key, diagonal: self.stands_at(batch, query) as i32 }
    }
}
