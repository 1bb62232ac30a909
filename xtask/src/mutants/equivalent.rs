//! Planted mistakes that change nothing, and why.

use std::collections::HashSet;

use anyhow::{Result, ensure};

use super::plant::Mutant;

/// The mistakes to leave out, and why. An empty `text` stands for every expression of the function, an empty `mistake` for
/// every mistake in the expression.
struct Equivalent {
    file: &'static str,
    function: &'static str,
    text: &'static str,
    mistake: &'static str,
    because: &'static str,
}

const EQUIVALENT: &[Equivalent] = &[
    Equivalent {
        file: "src/plan/slices.rs",
        function: "axes",
        text: "0..1",
        mistake: "bound one up",
        because: "the stride along that axis is 0",
    },
    Equivalent {
        file: "src/device/matrix_unit.rs",
        function: "MatrixUnit::is_possible",
        text: "self.subgroup >= self.fragment.side()",
        mistake: "bound one down",
        because: "a power of two below a side is half of it at most",
    },
    Equivalent {
        file: "src/host/tune.rs",
        function: "synthetic",
        text: "",
        mistake: "bound one up",
        because: "any small numbers will do",
    },
    Equivalent {
        file: "src/host/tune.rs",
        function: "synthetic",
        text: "0..61_u8",
        mistake: "bound one down",
        because: "any small numbers will do",
    },
    Equivalent {
        file: "src/host/tune.rs",
        function: "synthetic",
        text: "f32::from(n) / 61.0",
        mistake: "rounded up",
        because: "any small numbers will do",
    },
    Equivalent {
        file: "src/host/tune.rs",
        function: "synthetic",
        text: "f32::from(n) / 61.0 - 0.49",
        mistake: "without its right operand",
        because: "any small numbers will do",
    },
    Equivalent {
        file: "src/host/tune.rs",
        function: "median",
        text: "times.is_empty() || (spent < LONG_ENOUGH && times.len() < MOST_RUNS)",
        mistake: "without its left half",
        because: "nothing was spent before the first run",
    },
    Equivalent {
        file: "src/kernel/decode.rs",
        function: "Decode::iterations",
        text: "",
        mistake: "rounded up",
        because: "the threads are a multiple of those that share a key, and a tile of the keys of an iteration",
    },
    Equivalent {
        file: "src/kernel/lanes.rs",
        function: "shape",
        text: "choices.dim_qk > choices.dim_v",
        mistake: "bound one up",
        because: "sizes are multiples of 32, and if they are equal either may count as the larger",
    },
    Equivalent {
        file: "src/kernel/lanes.rs",
        function: "shape",
        text: "choices.dim_qk > choices.dim_v",
        mistake: "bound one down",
        because: "sizes are multiples of 32, and if they are equal either may count as the larger",
    },
    Equivalent {
        file: "src/kernel/lanes.rs",
        function: "kernel",
        text: "",
        mistake: "rounded up",
        because: "head sizes are multiples of 32",
    },
    Equivalent {
        file: "src/kernel/matrix.rs",
        function: "kernel",
        text: "",
        mistake: "rounded up",
        because: "head sizes are whole fragments",
    },
    Equivalent {
        file: "src/kernel/merge.rs",
        function: "kernel",
        text: "choices.dim_v / 4",
        mistake: "rounded up",
        because: "head sizes are multiples of 16",
    },
    Equivalent {
        file: "src/kernel/select.rs",
        function: "TABLE",
        text: "!few_for_streams(problem) && fits_lanes(problem)",
        mistake: "without its left half",
        because: "the schedule is offered by the first row then, and once",
    },
    Equivalent {
        file: "src/kernel/select.rs",
        function: "TABLE",
        text: "!few_for_streams(problem) && fits_lanes(problem)",
        mistake: "without its right half",
        because: "the schedule is offered by the first row then, and once",
    },
    Equivalent {
        file: "src/kernel/select.rs",
        function: "few_for_streams",
        text: "u64::from(shape.group()) * u64::from(shape.len_q.div_ceil(LANES_ROWS))",
        mistake: "without its right operand",
        because: "with more than one block of rows, streams never cost less",
    },
    Equivalent {
        file: "src/kernel/stage.rs",
        function: "keys_per_row",
        text: "",
        mistake: "rounded up",
        because: "the power of two below is the same",
    },
    Equivalent {
        file: "src/kernel/stage.rs",
        function: "sizes",
        text: "dim / 4",
        mistake: "rounded up",
        because: "head sizes are multiples of 32",
    },
    Equivalent {
        file: "src/kernel/streams.rs",
        function: "Streams::kernel",
        text: "",
        mistake: "rounded up",
        because: "head sizes are multiples of 32",
    },
    Equivalent {
        file: "src/kernel/streams.rs",
        function: "Streams::kernel",
        text: "TILE_KEYS.div_ceil(size)",
        mistake: "rounded down",
        because: "subgroups of 4 and 8 divide a tile",
    },
    Equivalent {
        file: "src/kernel/tiled.rs",
        function: "Tiled::kernel",
        text: "",
        mistake: "rounded up",
        because: "the keys of a tile, of a group and of a step are powers of two",
    },
    Equivalent {
        file: "src/kernel/tiled.rs",
        function: "Tiled::scores",
        text: "if_resident * GROUP_BYTES + votes_bytes <= WORKGROUP_BYTES",
        mistake: "bound one up",
        because: "sizes in bytes are multiples of 4",
    },
    Equivalent {
        file: "src/kernel/tiled.rs",
        function: "Tiled::score_iterations",
        text: "choices.dim_qk / self.slice()",
        mistake: "rounded up",
        because: "head sizes are multiples of 32",
    },
    Equivalent {
        file: "src/plan/cut.rs",
        function: "Job::cut",
        text: "pieces.len() + waiting.len()",
        mistake: "without its right operand",
        because: "that there are too many pieces is noticed a little later",
    },
    Equivalent {
        file: "src/plan/cut.rs",
        function: "Job::halves",
        text: "range.start.checked_add(((range.end - range.start) / 2).checked_next_multiple_of(step)?)",
        mistake: "wrapping",
        because: "a sum that wraps lies before the start, and is refused too",
    },
    Equivalent {
        file: "src/plan/cut.rs",
        function: "Job::halves",
        text: "(range.end - range.start) / 2",
        mistake: "rounded up",
        because: "either half may be the larger",
    },
    Equivalent {
        file: "src/plan/cut.rs",
        function: "Job::halves",
        text: "counts_query_heads",
        mistake: "always true",
        because: "it cuts elsewhere, which is just as correct",
    },
    Equivalent {
        file: "src/plan/mod.rs",
        function: "Attention::assemble",
        text: "operands.iter().any(|bound| bound.view.is_empty())",
        mistake: "always true",
        because: "it makes a buffer that is never bound",
    },
    Equivalent {
        file: "src/plan/piece.rs",
        function: "Piece::workgroups",
        text: "count(&self.rows).saturating_mul(group)",
        mistake: "wrapping",
        because: "an output with that many rows fits no binding",
    },
    Equivalent {
        file: "src/plan/scratch.rs",
        function: "ScratchSize::covers",
        text: "had[0] >= needed[0]",
        mistake: "bound one down",
        because: "widths are 3072, 3200 or 4096, or others as far apart",
    },
    Equivalent {
        file: "src/plan/scratch.rs",
        function: "ScratchSize::bytes",
        text: "(u64::from(width) * u64::from(height)).saturating_mul(TEXEL_BYTES)",
        mistake: "wrapping",
        because: "no device has textures that large",
    },
];

impl Equivalent {
    fn is(&self, mutant: &Mutant) -> bool {
        let fits = |pattern: &str, text: &str| pattern.is_empty() || pattern == text;
        self.file == mutant.file
            && fits(self.function, &mutant.function)
            && fits(self.text, &mutant.text)
            && fits(self.mistake, mutant.mistake)
    }
}

/// The numbers of those `mutants` that are equivalent. Fails if an entry of the list matches none.
pub(crate) fn check(mutants: &[Mutant]) -> Result<HashSet<usize>> {
    let mut numbers = HashSet::new();
    let mut stale = Vec::new();
    for equivalent in EQUIVALENT {
        let named = (0..mutants.len()).filter(|&number| equivalent.is(&mutants[number]));
        let before = numbers.len();
        numbers.extend(named);
        let Equivalent { file, function, text, mistake, because } = equivalent;
        if numbers.len() == before {
            stale.push(format!("{file}, {function}: no mistake matches `{text}`, {mistake} ({because})"));
        }
    }
    ensure!(stale.is_empty(), "{}", stale.join("\n"));
    Ok(numbers)
}
