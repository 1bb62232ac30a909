//! ACO's text: blocks by their labels, one instruction per line, dual-issued ones joined by `::`.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{Instruction, Jump, listing};
use crate::linux::listing::{Counts, Listing};

/// Parses what Mesa's RADV shows as machine code.
pub(crate) fn parse(text: &str) -> Result<Listing> {
    let label_of = |line: &str| line.strip_prefix("BB")?.strip_suffix(':')?.parse::<u64>().ok();
    let operation = |line: &str| -> Option<String> {
        let line = line.strip_prefix('\t')?.split(';').next()?.trim();
        (!line.is_empty() && !line.starts_with('(')).then(|| line.to_owned())
    };
    // A block without instructions has no label either: a jump to it leads to the next label there is.
    let (mut labels, mut lines) = (BTreeMap::new(), Vec::new());
    for line in text.lines() {
        match label_of(line) {
            Some(label) => drop(labels.insert(label, lines.len())),
            None => lines.extend(operation(line)),
        }
    }
    let (mut instructions, mut ends) = (Vec::new(), Vec::new());
    for (at, line) in lines.iter().enumerate() {
        let name = line.split_whitespace().next().unwrap_or_default();
        if name == "s_endpgm" {
            ends.push(at);
        }
        let target = line.rsplit_once("BB").and_then(|(_, block)| block.trim().parse::<u64>().ok());
        let target = target.filter(|_| name.starts_with("s_branch") || name.starts_with("s_cbranch"));
        let target = target.and_then(|label| labels.range(label..).next()).map(|(_, &target)| target);
        let jump = target.map(|target| Jump { target, falls_through: name != "s_branch" });
        instructions.push(Instruction { counts: counts(name, line), jump });
    }
    Ok(listing(&instructions, &ends))
}

fn counts(name: &str, line: &str) -> Counts {
    let one = Counts::other();
    let vector = Counts { vector: 1, ..one };
    let (mut adds, mut converts) = (0, false);
    for part in line.split("::").map(str::trim) {
        let name = part.split_whitespace().next().unwrap_or_default();
        let name = name.trim_start_matches("v_").trim_start_matches("dual_");
        if name.starts_with("fma_mix") {
            // Also how f16 becomes f32, times 1 plus 0, and how a product of f16 is made, plus 0. Modifiers follow the operands.
            let operands = part.split(" op_sel").next().unwrap_or_default();
            let mut operands = operands.split(',').skip(1).map(str::trim);
            let adds_nothing = operands.clone().last().is_some_and(|last| ["0", "-0", "neg(0)"].contains(&last));
            converts |= adds_nothing && operands.any(|operand| operand == "1.0");
            adds += u64::from(!adds_nothing);
        } else if name.starts_with("fma") || name.starts_with("mad_f") || name.starts_with("mac_f") {
            adds += 1;
        } else if name.starts_with("pk_fma") || name.starts_with("dot2") {
            adds += 2;
        }
    }
    // 16 × 16 by 16 deep, over the 32 threads of a wave.
    if name.starts_with("v_wmma") {
        return Counts { matrix: 1, multiply_adds: 128, multiplying: 1, ..vector };
    }
    if adds > 0 {
        return Counts { multiply_adds: adds, multiplying: 1, ..vector };
    }
    let bits = name.rsplit(['b', 'u', 'i']).next().and_then(|bits| bits.parse::<u64>().ok()).unwrap_or(32);
    let bytes = bits / 8 * if name.contains("2addr") || name.contains("load_2") { 2 } else { 1 };
    let dwords = name.rsplit('x').next().and_then(|count| count.parse::<u64>().ok());
    let is = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    match name {
        _ if converts => Counts { conversions: 1, ..vector },
        _ if is(&["ds_bpermute", "ds_swizzle", "ds_permute"]) => Counts { shuffles: 1, ..one },
        _ if is(&["ds_load", "ds_read"]) => Counts { shared_loads: 1, shared_bytes: bytes, ..one },
        _ if is(&["ds_store", "ds_write"]) => Counts { shared_bytes: bytes, ..one },
        _ if is(&["scratch_"]) => Counts { spills: 1, ..one },
        _ if is(&["buffer_load", "global_load", "flat_load"]) => {
            let bytes = dwords.map_or(bytes, |count| 4 * count);
            Counts { global_loads: 1, global_bytes: bytes, ..one }
        }
        "s_barrier" => Counts { barriers: 1, ..one },
        _ if is(&["s_delay"]) => Counts::default(),
        _ if is(&["v_exp"]) => Counts { special: 1, exponentials: 1, ..vector },
        _ if is(&["v_rcp", "v_log", "v_sqrt", "v_rsq", "v_sin"]) => Counts { special: 1, ..vector },
        _ if name.contains("_dpp") || is(&["v_permlane"]) => Counts { shuffles: 1, ..vector },
        _ if is(&["v_cvt"]) => Counts { conversions: 1, ..vector },
        _ if is(&["v_cndmask"]) => Counts { selects: 1, ..vector },
        _ if is(&["v_mov", "v_dual_mov", "v_swap", "v_perm", "v_pack"]) => Counts { moves: 1, ..vector },
        _ if is(&["v_"]) && (name.contains("_u") || name.contains("_i") || name.contains("_b")) => {
            Counts { integer: 1, ..vector }
        }
        _ if is(&["v_"]) => vector,
        _ => one,
    }
}
