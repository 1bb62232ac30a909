//! Mistakes that are none.

use std::collections::HashSet;

use anyhow::{Result, ensure};

use super::plant::Mutant;

/// What to leave out, and why. Empty text stands for every expression of the function, and empty mistakes for every one of
/// the expression.
struct Equivalent {
    file: &'static str,
    function: &'static str,
    text: &'static str,
    mistake: &'static str,
    because: &'static str,
}

const EQUIVALENT: &[Equivalent] = &[];

impl Equivalent {
    fn is(&self, mutant: &Mutant) -> bool {
        let fits = |pattern: &str, text: &str| pattern.is_empty() || pattern == text;
        self.file == mutant.file
            && fits(self.function, &mutant.function)
            && fits(self.text, &mutant.text)
            && fits(self.mistake, mutant.mistake)
    }
}

/// The numbers of those among `mutants`. Fails where one names nothing.
pub(crate) fn check(mutants: &[Mutant]) -> Result<HashSet<usize>> {
    let mut numbers = HashSet::new();
    for equivalent in EQUIVALENT {
        let named = (0..mutants.len()).filter(|&number| equivalent.is(&mutants[number]));
        let before = numbers.len();
        numbers.extend(named);
        let Equivalent { file, function, text, mistake, because } = equivalent;
        ensure!(numbers.len() > before, "{file}, {function}: `{text}`, {mistake} is not there ({because})");
    }
    Ok(numbers)
}
