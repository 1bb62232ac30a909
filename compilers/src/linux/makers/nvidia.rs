//! NAK's text: blocks with their successors, one instruction per line.

use anyhow::{Context as _, Result};

use crate::linux::listing::{Block, Counts, Listing};

/// Parses what Mesa's NVK shows as machine code.
pub(crate) fn parse(text: &str) -> Result<Listing> {
    let mut blocks: Vec<Block> = Vec::new();
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        if line.starts_with("block") {
            blocks.push(Block::default());
        } else if let Some(next) = line.strip_prefix("} -> [") {
            let block = blocks.last_mut().context("a block ends before one begins")?;
            let next = next.trim_end_matches(']').split(',').filter(|next| !next.trim().is_empty());
            block.next = next.map(|next| Ok(next.trim().parse()?)).collect::<Result<_>>()?;
        } else if let (false, Some(block)) = (line.is_empty(), blocks.last_mut()) {
            block.counts += counts(line);
        }
    }
    Ok(Listing { blocks })
}

fn counts(line: &str) -> Counts {
    let line = match line.strip_prefix('@') {
        Some(predicated) => predicated.split_once(' ').map_or("", |(_, rest)| rest).trim(),
        None => line,
    };
    let operation = line.split_once(" = ").map_or(line, |(_, operation)| operation).trim();
    let name = operation.split(' ').next().unwrap_or_default();
    let base = name.split('.').next().unwrap_or_default();
    let bytes = name.rsplit('.').next().and_then(|last| last.trim_start_matches(['b', 'u', 's']).parse::<u64>().ok());
    let bytes = bytes.map_or(4, |bits| bits / 8);
    let one = Counts::other();
    match base {
        "ffma" => Counts { multiply_adds: 1, multiplying: 1, ..one },
        "hfma2" => Counts { multiply_adds: 2, multiplying: 1, ..one },
        // 16 × 8 by 16 deep, over the 32 threads of a warp.
        "hmma" => Counts { matrix: 1, multiply_adds: 64, multiplying: 1, ..one },
        "ld" if name.contains("shared") => Counts { shared_loads: 1, shared_bytes: bytes, ..one },
        "st" if name.contains("shared") => Counts { shared_bytes: bytes, ..one },
        "ldsm" => Counts { shared_loads: 1, shared_bytes: 16, ..one },
        "ld" | "st" if name.contains("local") => Counts { spills: 1, ..one },
        "ld" if name.contains("global") => Counts { global_loads: 1, global_bytes: bytes, ..one },
        "bar" => Counts { barriers: 1, ..one },
        "mufu" => Counts { special: 1, exponentials: u64::from(name.contains("ex")), ..one },
        "shfl" => Counts { shuffles: 1, ..one },
        "sel" | "fsel" => Counts { selects: 1, ..one },
        "f2f" | "f2fp" => Counts { conversions: 1, ..one },
        "mov" | "prmt" => Counts { moves: 1, ..one },
        "iadd3" | "iadd2" | "imad" | "imad64" | "lea" | "shf" | "lop3" | "isetp" | "iabs" | "i2f" | "f2i" | "popc"
        | "imnmx" | "vimnmx" | "shl" | "shr" | "bfe" | "imul" => Counts { integer: 1, ..one },
        _ => one,
    }
}
