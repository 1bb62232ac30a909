//! The disassembly that Mesa's compiler for Apple's GPUs prints: an address, the bytes, a name and operands.

use anyhow::{Context as _, Result};

use super::{Instruction, Jump, listing};
use crate::linux::listing::{Counts, Listing};

/// Parses the largest program of what `AGX_MESA_DEBUG=shaders` printed: a kernel has a preamble of its own, and the driver
/// compiles small kernels for itself.
pub(crate) fn parse(text: &str) -> Result<Listing> {
    let mut programs: Vec<Vec<(u64, &str, &str)>> = Vec::new();
    for line in text.lines().filter_map(line) {
        if line.0 == 0 || programs.is_empty() {
            programs.push(Vec::new());
        }
        programs.iter_mut().last().into_iter().for_each(|program| program.push(line));
    }
    let program = programs.into_iter().max_by_key(Vec::len).context("the driver printed no machine code")?;
    let instruction = |&(address, name, operands): &(u64, &str, &str)| {
        // By how many bytes.
        let by = name.starts_with("jmp").then(|| operands.split(' ').next()?.parse::<i64>().ok()).flatten();
        let target = by.and_then(|by| address.checked_add_signed(by));
        let target = target.map(|target| program.partition_point(|(other, ..)| *other < target));
        let jump = target.map(|target| Jump { target, falls_through: true });
        Instruction { counts: counts(name, operands), jump }
    };
    let mut instructions: Vec<Instruction> = program.iter().map(instruction).collect();
    // `else` turns the mask of active threads round, and a jump after it skips the branch that then has none. Where all threads
    // go one way, as in full tiles, those that were in the first branch take that jump, and the others do not.
    for at in 1..program.len().saturating_sub(1) {
        let is_skipped = program[at].1 == "else" && program[at + 1].1 == "jmp_none";
        if is_skipped && instructions[at - 1].jump.is_none() {
            let skip = instructions[at + 1].jump.take();
            let both = [at, at + 1].map(|at| instructions[at].counts);
            both.into_iter().for_each(|counts| instructions[at - 1].counts += counts);
            instructions[at - 1].jump = skip.map(|jump| Jump { falls_through: false, ..jump });
        }
    }
    Ok(listing(&instructions, &[]))
}

/// Address, name and operands.
fn line(line: &str) -> Option<(u64, &str, &str)> {
    let (address, rest) = line.trim_start().split_once(": ")?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let (bytes, rest) = rest.trim_start().split_once(' ')?;
    let is_hex = bytes.len() >= 4 && bytes.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (name, operands) = rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
    is_hex.then_some((address, name, operands.trim()))
}

fn counts(name: &str, operands: &str) -> Counts {
    let one = Counts::other();
    let size = if operands.contains("i16") {
        2
    } else if operands.contains("i8") {
        1
    } else {
        4
    };
    let lanes = ["xyzw", "xyz", "xy"].into_iter().find(|mask| operands.contains(mask)).map_or(1, str::len) as u64;
    match name {
        "ffma" | "hfma" => Counts { multiply_adds: 1, multiplying: 1, ..one },
        // 8 × 8 by 8 deep, over the 32 threads of a SIMD group.
        _ if name.starts_with("simd_matrix") => Counts { matrix: 1, multiply_adds: 16, multiplying: 1, ..one },
        "lload" => Counts { shared_loads: 1, shared_bytes: size * lanes, ..one },
        "lstore" => Counts { shared_bytes: size * lanes, ..one },
        "load" => Counts { global_loads: 1, global_bytes: size * lanes, ..one },
        "stack_load" | "stack_store" => Counts { spills: 1, ..one },
        "exp2" => Counts { special: 1, exponentials: 1, ..one },
        "rcp" | "log2" | "rsqrt" | "sqrt" | "sin_pt_1" | "sin_pt_2" => Counts { special: 1, ..one },
        "barrier" | "threadgroup_barrier" => Counts { barriers: 1, ..one },
        "csel" | "icmpsel" | "fcmpsel" => Counts { selects: 1, ..one },
        "mov" | "ldimm" => Counts { moves: 1, ..one },
        "shuffle" | "shuffle_xor" | "quad_shuffle" => Counts { shuffles: 1, ..one },
        "iadd" | "isub" | "imadd" | "imsub" | "imul" | "shl" | "shr" | "and" | "or" | "xor" | "bfi" | "bfeil" => {
            Counts { integer: 1, ..one }
        }
        "wait" => Counts::default(),
        _ => one,
    }
}
