//! Planted mistakes that change nothing, and why.

mod kernels;

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

const ELSEWHERE: &[Equivalent] = &[
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
        file: "src/host/run.rs",
        function: "submit",
        text: "Operand::ALL.into_iter().filter(|operand| operand.is_output())",
        mistake: "always true",
        because: "inputs are copied too, which nobody reads",
    },
    Equivalent {
        file: "src/host/tune.rs",
        function: "synthetic",
        text: "problem.uses(bounds).then(|| even_bounds(problem.shape().batch, total(of)))",
        mistake: "always true",
        because: "what a problem does not use is not read",
    },
    Equivalent {
        file: "src/plan/scratch.rs",
        function: "ScratchSize::fmt",
        text: "self.sums_bytes > 0",
        mistake: "bound one up",
        because: "the sums of a row have 16 bytes",
    },
    Equivalent {
        file: "src/plan/upload.rs",
        function: "filled",
        text: "is_lost(device)",
        mistake: "always false",
        because: "outside browsers, a lost device maps no buffer, which the next lines notice",
    },
    Equivalent {
        file: "src/problem/merge.rs",
        function: "Merge::stack",
        text: "PAIR_BYTES / element_bytes",
        mistake: "rounded up",
        because: "256 bytes are whole elements",
    },
    Equivalent {
        file: "src/plan/merge.rs",
        function: "Job::cut",
        text: "pieces.len() + waiting.len()",
        mistake: "without its right operand",
        because: "that there are too many pieces is noticed a little later",
    },
    Equivalent {
        file: "src/plan/piece.rs",
        function: "halve",
        text: "count(range) / 2",
        mistake: "rounded up",
        because: "either half may be the larger",
    },
    Equivalent {
        file: "src/plan/piece.rs",
        function: "halve",
        text: "range.start.checked_add((count(range) / 2).checked_next_multiple_of(step)?)",
        mistake: "wrapping",
        because: "a sum that wraps lies before the start, and is refused too",
    },
    Equivalent {
        file: "src/plan/mod.rs",
        function: "Attention::with_caps",
        text: "is_lost(device);",
        mistake: "forgotten",
        because: "only a browser has to be asked early",
    },
    Equivalent {
        file: "src/plan/mod.rs",
        function: "Attention::build_alone",
        text: "bound.iter().all(|other| other.view != *view)",
        mistake: "always true",
        because: "an input that is checked twice is as right",
    },
    Equivalent {
        file: "src/plan/mod.rs",
        function: "Attention::build_alone",
        text: "view.filter(|view| bound.iter().all(|other| other.view != *view))",
        mistake: "always true",
        because: "an input that is checked twice is as right",
    },
    Equivalent {
        file: "src/plan/mod.rs",
        function: "Attention::ready",
        text: "is_lost(&self.device)",
        mistake: "always false",
        because: "only a browser tells of a loss there",
    },
    Equivalent {
        file: "src/plan/mod.rs",
        function: "Attention::refused",
        text: "kept.is_some_and(|kept| kept.pipeline == refused.pipeline)",
        mistake: "always true",
        because: "it differs only if another thread compiles at the same moment",
    },
    Equivalent {
        file: "src/plan/piece.rs",
        function: "blocks",
        text: "total.saturating_mul(group)",
        mistake: "wrapping",
        because: "the description was checked not to overflow",
    },
    Equivalent {
        file: "src/problem/quantization.rs",
        function: "Quantization::row_words",
        text: "32 / self.bits()",
        mistake: "rounded up",
        because: "words hold whole numbers",
    },
    Equivalent {
        file: "src/problem/quantization.rs",
        function: "Quantization::encode",
        text: "largest / range",
        mistake: "rounded up",
        because: "the quotient of floats is planted as it is",
    },
    Equivalent {
        file: "src/problem/append.rs",
        function: "Rotary::table",
        text: "-2.0 * f64::from(i) / f64::from(self.dims)",
        mistake: "rounded up",
        because: "the quotient of floats is planted as it is",
    },
    Equivalent {
        file: "src/problem/quantization.rs",
        function: "Quantization::pack",
        text: "32 / bits as usize",
        mistake: "rounded up",
        because: "words hold whole numbers",
    },
    Equivalent {
        file: "src/problem/quantization.rs",
        function: "Quantization::decode",
        text: "32 / self.bits()",
        mistake: "rounded up",
        because: "words hold whole numbers",
    },
    Equivalent {
        file: "src/problem/quantization.rs",
        function: "Quantization::number",
        text: "x.round_ties_even().clamp(-127.0, 127.0)",
        mistake: "",
        because: "the scale is such that none is clamped",
    },
    Equivalent {
        file: "src/problem/quantization.rs",
        function: "Quantization::number",
        text: "x.round_ties_even().clamp(-8.0, 7.0)",
        mistake: "",
        because: "the scale is such that none is clamped",
    },
    Equivalent {
        file: "src/problem/quantization.rs",
        function: "nearest_fp8",
        text: "0..FP8_NAN",
        mistake: "",
        because: "0 is found as the lower neighbour, the largest by default, and NaN never",
    },
    Equivalent {
        file: "src/problem/quantization.rs",
        function: "nearest_fp8",
        text: "Quantization::Fp8E4m3.value(bits) >= size",
        mistake: "",
        because: "an exact value is found as the lower neighbour too",
    },
    Equivalent {
        file: "src/problem/quantization.rs",
        function: "nearest_fp8",
        text: "upper.saturating_sub(1)",
        mistake: "wrapping",
        because: "the lower neighbour of 0 is then NaN, which is never nearer",
    },
    Equivalent {
        file: "src/problem/quantization.rs",
        function: "nearest_fp8",
        text: "distance(lower) < distance(upper)",
        mistake: "bound one down",
        because: "distances that differ differ by more",
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
        text: "counts_query_heads",
        mistake: "always true",
        because: "it cuts elsewhere, which is just as correct",
    },
    Equivalent {
        file: "src/plan/cut.rs",
        function: "Job::grid",
        text: "batches.saturating_mul(parts)",
        mistake: "wrapping",
        because: "the results of so many parts fit no binding",
    },
    Equivalent {
        file: "src/plan/mod.rs",
        function: "Attention::assemble",
        text: "",
        mistake: "always true",
        because: "it makes buffers that are never bound",
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
    Equivalent {
        file: "src/plan/scratch.rs",
        function: "Scratch::new",
        text: "size > 0",
        mistake: "bound one up",
        because: "sizes in bytes are multiples of 4",
    },
    Equivalent {
        file: "src/plan/scratch.rs",
        function: "Scratch::new",
        text: "",
        mistake: "always true",
        because: "it makes a buffer that is never bound",
    },
    Equivalent {
        file: "src/plan/slices.rs",
        function: "axes",
        text: "0..1",
        mistake: "bound one up",
        because: "the stride along that axis is 0",
    },
    Equivalent {
        file: "src/plan/slices.rs",
        function: "slice",
        text: "start_bytes / view.element_bytes",
        mistake: "rounded up",
        because: "bindings start at multiples of 16 bytes",
    },
    Equivalent {
        file: "src/plan/split.rs",
        function: "Split::columns",
        text: "of_output.start / VALUE_COLUMNS",
        mistake: "rounded up",
        because: "ranges of columns start at multiples of it",
    },
    Equivalent {
        file: "src/record/bind.rs",
        function: "Attention::binding_at",
        text: "rest / element_bytes",
        mistake: "rounded up",
        because: "what is no multiple was refused",
    },
    Equivalent {
        file: "src/record/bind.rs",
        function: "Merge::pair",
        text: "stride.saturating_mul(n.into())",
        mistake: "wrapping",
        because: "pairs end within 64 bits, or the description was refused",
    },
    Equivalent {
        file: "src/record/bind.rs",
        function: "Merge::pair",
        text: "stride.saturating_mul(n.into()).saturating_mul(first.element_bytes)",
        mistake: "wrapping",
        because: "pairs end within 64 bits, or the description was refused",
    },
    Equivalent {
        file: "src/record/operands.rs",
        function: "Operands::check",
        text: "wanted.first().filter(|_| is_lost(attention.device()))",
        mistake: "always false",
        because: "only a browser tells of a loss there",
    },
    Equivalent {
        file: "src/record/operands.rs",
        function: "Operands::check_aliases",
        text: "another.end <= one.start",
        mistake: "bound one up",
        because: "ends are multiples of 4, and outputs begin at even bytes",
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
    for equivalent in kernels::IN_KERNELS.iter().chain(ELSEWHERE) {
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
