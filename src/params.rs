//! The shader's `Params`, filled in for one dispatch.

use std::f64::consts::LOG2_E;

use bytemuck::{Pod, Zeroable};

use crate::cut::{Job, Piece, Slice, Source};
use crate::{Operand, Problem};

/// Mirrors `shaders/params.wgsl`; a test compares the two field by field.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub(crate) struct Params {
    q: [u32; 4],
    k: [u32; 4],
    v: [u32; 4],
    out: [u32; 4],
    lse: [u32; 4],
    mask: [u32; 4],
    bias: [u32; 4],
    part: [u32; 4],
    staged: [u32; 4],
    len_q: u32,
    len_kv: u32,
    dim_qk: u32,
    dim_v: u32,
    group: u32,
    first_row: u32,
    first_batch: u32,
    mask_key: u32,
    bias_key: u32,
    band_first: i32,
    band_last: i32,
    band_from_end: u32,
    score_scale: f32,
    softcap_scale: f32,
    exp2_scale: f32,
    natural_scale: f32,
    negative_infinity: f32,
    nan: f32,
    parts: u32,
    part_keys: u32,
}

impl Params {
    pub(crate) fn new(job: &Job<'_>, piece: &Piece, slices: impl Iterator<Item = Slice>) -> Self {
        let problem = job.problem;
        let shape = problem.shape();
        let band = problem.band();
        let mut params = Self {
            len_q: piece.rows.end - piece.rows.start,
            len_kv: shape.len_kv,
            dim_qk: shape.dim_qk,
            dim_v: piece.columns.end - piece.columns.start,
            group: shape.group(),
            first_row: piece.rows.start,
            first_batch: piece.batch.start,
            band_first: band.first,
            band_last: band.last,
            band_from_end: band.from_end.into(),
            staged: job.staged(piece).map(narrow),
            negative_infinity: f32::NEG_INFINITY,
            nan: f32::NAN,
            parts: job.split.parts,
            part_keys: job.split.keys,
            ..Self::default()
        };
        params.set_scales(problem);
        for slice in slices {
            params.set_view(&slice);
        }
        params
    }

    fn set_scales(&mut self, problem: &Problem) {
        let scale = f64::from(problem.scale());
        let cap = problem.softcap().map(f64::from);
        // How much a natural score is of the unit S is kept in: with a bias, which comes in natural units, 1; else
        // whatever saves a multiplication. The unit is positive, so that the largest S is the largest score.
        let unit = if problem.uses(Operand::Bias) { 1.0 } else { cap.unwrap_or(scale.abs()) };
        let (score, softcap) = match cap {
            Some(cap) => (scale / cap, cap / unit),
            None if unit == 0.0 => (0.0, 0.0),
            None => (scale / unit, 0.0),
        };
        #[expect(clippy::cast_possible_truncation, reason = "rounding is what is wanted")]
        let finite = |x: f64| x.clamp(f32::MIN.into(), f32::MAX.into()) as f32;
        self.score_scale = finite(score);
        self.softcap_scale = finite(softcap);
        self.exp2_scale = finite(unit * LOG2_E);
        self.natural_scale = finite(unit);
    }

    fn set_view(&mut self, slice: &Slice) {
        let [batch, head, row, column] = slice.stride.map(narrow);
        let view = [narrow(slice.first), batch, head, row];
        let operand = match slice.source {
            Source::Operand(operand) => operand,
            Source::Partial => {
                self.part = view;
                return;
            }
        };
        match operand {
            Operand::Q => self.q = view,
            Operand::K => self.k = view,
            Operand::V => self.v = view,
            Operand::Out | Operand::Weights => self.out = view,
            Operand::Lse => self.lse = view,
            Operand::Mask => (self.mask, self.mask_key) = (view, column),
            Operand::Bias => (self.bias, self.bias_key) = (view, column),
            Operand::KvLengths => {}
        }
    }
}

/// Cutting has made everything addressable with 32 bits.
fn narrow(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    /// Each field's place, by the compiler of this file.
    fn fields() -> Vec<(&'static str, usize)> {
        macro_rules! places {
            ($($field:ident)*) => { vec![$((stringify!($field), offset_of!(Params, $field))),*] };
        }
        places! {
            q k v out lse mask bias part staged
            len_q len_kv dim_qk dim_v group first_row first_batch mask_key bias_key band_first band_last band_from_end
            score_scale softcap_scale exp2_scale natural_scale negative_infinity
            nan parts part_keys
        }
    }

    #[test]
    fn the_shaders_see_each_field_where_the_host_puts_it() {
        let module = naga::front::wgsl::parse_str(include_str!("../shaders/params.wgsl")).expect("valid by itself");
        let declared = module.types.iter().find_map(|(_, ty)| match &ty.inner {
            naga::TypeInner::Struct { members, span } if ty.name.as_deref() == Some("Params") => Some((members, span)),
            _ => None,
        });
        let (members, span) = declared.expect("a struct");
        let name = |member: &naga::StructMember| member.name.clone().unwrap_or_default();
        let theirs: Vec<(String, usize)> = (members.iter())
            .filter(|member| !name(member).starts_with("padding"))
            .map(|member| (name(member), member.offset as usize))
            .collect();
        let ours: Vec<(String, usize)> = fields().into_iter().map(|(name, at)| (name.to_owned(), at)).collect();
        assert_eq!(ours, theirs);
        assert_eq!(size_of::<Params>(), *span as usize);
    }
}
