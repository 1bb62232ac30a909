//! ir3's text: labels on lines of their own, flags in parentheses before each name. An instruction with `(rptN)` is issued
//! N + 1 times. `nop` waits for results and issues nothing.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{Instruction, Jump, listing};
use crate::linux::listing::{Counts, Listing};

/// Parses what Mesa's Turnip shows as machine code.
pub(crate) fn parse(text: &str) -> Result<Listing> {
    let label_of = |text: &str| text.trim().strip_prefix('l').and_then(|number| number.parse::<u64>().ok());
    let (mut labels, mut lines) = (BTreeMap::new(), Vec::new());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['@', ';'])) {
        match line.strip_suffix(':').and_then(label_of) {
            Some(label) => drop(labels.insert(label, lines.len())),
            None => lines.push(line),
        }
    }
    let (mut instructions, mut ends) = (Vec::new(), Vec::new());
    for (at, line) in lines.iter().enumerate() {
        let (flags, rest) = split_flags(line);
        let (name, operands) = rest.split_once(' ').unwrap_or((rest, ""));
        let repeats = flags.split("(rpt").nth(1).and_then(|n| n.split(')').next()?.parse().ok()).unwrap_or(0_u64);
        if name == "end" {
            ends.push(at);
        }
        let target = operands.rsplit_once('#').and_then(|(_, label)| labels.get(&label_of(label)?)).copied();
        let jump = target.map(|target| Jump { target, falls_through: name != "jump" });
        instructions.push(Instruction { counts: counts(name, operands) * (repeats + 1), jump });
    }
    Ok(listing(&instructions, &ends))
}

/// `(sy)(rpt2)mad.f32 …` as flags and the rest.
fn split_flags(line: &str) -> (&str, &str) {
    let mut end = 0;
    while line[end..].starts_with('(') {
        let Some(close) = line[end..].find(')') else { break };
        end += close + 1;
    }
    (&line[..end], line[end..].trim_start())
}

/// The bytes of one component of `(u32)(xy)r9.w, …`.
fn bytes_of_type(operands: &str) -> u64 {
    if split_flags(operands).0.contains("16)") { 2 } else { 4 }
}

/// How many components `(u32)(xy)r9.w, …` loads.
fn components(operands: &str) -> u64 {
    let mask = split_flags(operands).0.split(['(', ')']).find(|flag| flag.starts_with(['x', 'y', 'z', 'w']));
    mask.map_or(1, |mask| mask.len() as u64)
}

fn counts(name: &str, operands: &str) -> Counts {
    let one = Counts::other();
    let size = if name.contains("16") { 2 } else { 4 };
    let vectors = || operands.rsplit(", ").next().and_then(|count| count.parse::<u64>().ok()).unwrap_or(1);
    let base = name.split('.').next().unwrap_or_default();
    match base {
        "mad" | "fma" if name.contains(".f") => Counts { multiply_adds: 1, multiplying: 1, ..one },
        "ldl" | "ldlw" => Counts { shared_loads: 1, shared_bytes: size * vectors(), ..one },
        "stl" | "stlw" => Counts { shared_bytes: size * vectors(), ..one },
        "isam" => Counts { global_loads: 1, global_bytes: bytes_of_type(operands) * components(operands), ..one },
        "ldib" => {
            let count = name.split('.').find_map(|part| part.parse::<u64>().ok()).unwrap_or(1);
            Counts { global_loads: 1, global_bytes: size * count, ..one }
        }
        "ldg" => Counts { global_loads: 1, global_bytes: size * vectors(), ..one },
        "ldp" | "stp" => Counts { spills: 1, ..one },
        "exp2" => Counts { special: 1, exponentials: 1, ..one },
        "rcp" | "log2" | "rsq" | "sqrt" | "sin" | "cos" => Counts { special: 1, ..one },
        "bar" => Counts { barriers: 1, ..one },
        "sel" => Counts { selects: 1, ..one },
        "cov" => Counts { conversions: 1, ..one },
        "mov" | "swz" | "gat" | "sct" => Counts { moves: 1, ..one },
        "shfl" | "brcst" | "quad_shuffle" => Counts { shuffles: 1, ..one },
        "nop" => Counts::default(),
        "add" | "sub" | "mul" | "mull" | "madsh" | "mad" | "min" | "max" | "cmps" if name.contains(".f") => one,
        "add" | "sub" | "mul" | "mull" | "madsh" | "mad" | "min" | "max" | "cmps" | "shl" | "shr" | "ashr" | "and"
        | "or" | "xor" | "not" | "sad" | "absneg" => Counts { integer: 1, ..one },
        _ => one,
    }
}
