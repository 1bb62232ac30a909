//! How each maker's machine code reads.

pub(crate) mod adreno;
pub(crate) mod amd;
pub(crate) mod apple;
pub(crate) mod nvidia;

use crate::linux::listing::{Block, Counts, Listing};

/// An instruction, and where control may go after it.
struct Instruction {
    counts: Counts,
    /// A jump, to the instruction with this label.
    jump: Option<Jump>,
}

struct Jump {
    /// The index of the instruction that it leads to.
    target: usize,
    /// Whether the next instruction may follow as well.
    falls_through: bool,
}

/// A program, cut into blocks where jumps lead and after jumps. `ends` are the instructions that end it.
fn listing(instructions: &[Instruction], ends: &[usize]) -> Listing {
    let mut starts: Vec<usize> = vec![0];
    for (index, instruction) in instructions.iter().enumerate() {
        starts.extend(instruction.jump.iter().flat_map(|jump| [jump.target, index + 1]));
    }
    starts.retain(|&start| start < instructions.len());
    starts.sort_unstable();
    starts.dedup();
    let block_at = |index: usize| starts.binary_search(&index).ok();
    let blocks = starts.iter().enumerate().map(|(n, &start)| {
        let end = starts.get(n + 1).copied().unwrap_or(instructions.len());
        let mut block = Block::default();
        instructions[start..end].iter().for_each(|instruction| block.counts += instruction.counts);
        let jump = instructions[end - 1].jump.as_ref();
        let falls = jump.is_none_or(|jump| jump.falls_through) && !ends.contains(&(end - 1));
        block.next.extend(jump.and_then(|jump| block_at(jump.target)));
        block.next.extend(block_at(end).filter(|_| falls));
        block.next.dedup();
        block
    });
    Listing { blocks: blocks.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a listing has in all, and where its blocks lead.
    fn summed(listing: &Listing) -> (Counts, Vec<&[usize]>) {
        let mut sum = Counts::default();
        listing.blocks.iter().for_each(|block| sum += block.counts);
        (sum, listing.blocks.iter().map(|block| &block.next[..]).collect())
    }

    #[test]
    fn nvidia() {
        let text = "
block.u 0 L0 [] -> {
      r1..5     = ld.shared.strong.cta.b128 [r0]      // delay=2
      r6        = ffma.ftz r1 r2 r6
                  bar.sync
} -> [1]
block 1 L1 [0, 1] -> {
      r7        = mufu.exp2.f32 r6
@!p0              bra L1
} -> [1, 2]
block 2 L2 [1] -> {
                  exit
} -> []";
        let listing = nvidia::parse(text).expect("it parses");
        let (sum, next) = summed(&listing);
        assert_eq!(next, [&[1][..], &[1, 2], &[]]);
        let wanted = Counts {
            all: 6,
            multiply_adds: 1,
            multiplying: 1,
            shared_loads: 1,
            shared_bytes: 16,
            barriers: 1,
            special: 1,
            exponentials: 1,
            ..Counts::default()
        };
        assert_eq!(sum, wanted);
    }

    /// Block 3 has no instructions, and so no label.
    #[test]
    fn amd() {
        let text = "BB0:
\ts_cbranch_scc1 BB3 ; bfa2
BB1:
\tv_dual_fmac_f32 v1, v2, v3 :: v_dual_fmac_f32 v4, v5, v6 ; c0
\tds_load_b128 v[0:3], v4 ; d8
\ts_branch BB0 ; bfa0
BB4:
\ts_endpgm ; bfb0";
        let listing = amd::parse(text).expect("it parses");
        let (sum, next) = summed(&listing);
        assert_eq!(next, [&[2, 1][..], &[0], &[]]);
        assert_eq!((sum.all, sum.multiply_adds, sum.multiplying, sum.vector), (5, 2, 1, 1));
        assert_eq!((sum.shared_loads, sum.shared_bytes), (1, 16));
    }

    /// It makes an f32 of an f16, multiplies one, or multiplies and adds.
    #[test]
    fn amd_mixes_types_in_one_instruction() {
        let counts = |operands: &str| {
            let listing = amd::parse(&format!("BB0:\n\tv_fma_mix_f32 {operands} ; cc20\n\ts_endpgm ; bfb0"));
            let (sum, _) = summed(&listing.expect("it parses"));
            (sum.conversions, sum.multiply_adds)
        };
        assert_eq!(counts("v1, v2, 1.0, neg(0) op_sel:[1,0,0] op_sel_hi:[1,0,0]"), (1, 0));
        assert_eq!(counts("v1, v2, v3, neg(0) op_sel_hi:[1,0,0]"), (0, 0));
        assert_eq!(counts("v1, v2, v3, v1 op_sel_hi:[1,0,0]"), (0, 1));
    }

    /// Threads that took the first branch skip the second.
    #[test]
    fn apple() {
        let text = "shader: MESA_SHADER_COMPUTE
   0: 520912010000           if       u9l, 0, 1, ine
   6: 20c00c000000           jmp_none 12
   c: ba11c8aa               ffma     r4, r5, r6, r7
  10: 5209                   nothing
  12: 520400000000           else     1
  18: 20c00a000000           jmp_none 10
  1e: b000aaaa               lload    r0_r1_r2_r3, r9, 0, i32, xyzw
  22: 8800                   stop";
        let listing = apple::parse(text).expect("it parses");
        let (sum, next) = summed(&listing);
        assert_eq!(next, [&[2, 1][..], &[3], &[3], &[]]);
        assert_eq!((sum.multiply_adds, sum.shared_bytes), (1, 16));
    }

    #[test]
    fn adreno() {
        let text = "@const(c1.x) 0x0
l1:
(ss)(rpt1)mad.f32 r0.x, (r)r1.x, r2.x, (r)r0.x
nop
(nop1) ldl.u32 r3.x, l[r4.x], 4
br p0.x, #l1
end";
        let listing = adreno::parse(text).expect("it parses");
        let (sum, next) = summed(&listing);
        assert_eq!(next, [&[0, 1][..], &[]]);
        assert_eq!((sum.all, sum.multiply_adds, sum.shared_bytes), (5, 2, 16));
    }
}
