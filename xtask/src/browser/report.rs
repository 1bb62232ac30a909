//! The messages that the page sends, each a word and a text, and whether they add up to a success.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::chromium::log;
use crate::steps::seconds;

/// What the page has reported so far.
#[derive(Debug)]
pub(crate) struct Report {
    right: usize,
    wrong: usize,
    fault: Option<String>,
    is_done: bool,
    last_word: Instant,
}

impl Default for Report {
    fn default() -> Self {
        Self { right: 0, wrong: 0, fault: None, is_done: false, last_word: Instant::now() }
    }
}

impl Report {
    /// Takes in a message, one word and its text, and prints the text.
    ///
    /// - `right`, `wrong`: the result of a case with one variant, and its error;
    /// - `fault`: a panic, an error on the console, or a WebGPU error;
    /// - `done`: every case was run.
    pub(crate) fn hear(&mut self, word: &str, text: &str) {
        match word {
            "right" => self.right += 1,
            "wrong" => self.wrong += 1,
            "done" => self.is_done = true,
            "fault" => self.fault = Some(text.into()),
            _ => self.fault = Some(format!("the page sent the unknown word `{word}`: {text}")),
        }
        if !text.is_empty() {
            println!("{word:>6} {:>8}  {text}", seconds(self.silence()));
        }
        self.last_word = Instant::now();
    }

    /// How long ago the page sent its last message.
    pub(crate) fn silence(&self) -> Duration {
        self.last_word.elapsed()
    }

    /// Whether no more messages are expected.
    pub(crate) fn is_over(&self) -> bool {
        self.is_done || self.fault.is_some()
    }

    pub(crate) fn verdict(&self) -> Result<()> {
        let Self { right, wrong, fault, is_done, .. } = self;
        if let Some(fault) = fault {
            bail!("the page failed: {fault}; the browser's own messages are in {}", log().display());
        }
        ensure!(*is_done, "the page did not run every case");
        ensure!(*wrong == 0, "{wrong} of {} results are wrong", right + wrong);
        ensure!(*right > 0, "the page ran no case");
        println!("{right} results are right");
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]
mod tests {
    use super::Report;

    fn verdict(words: &[&str]) -> Result<(), String> {
        let mut report = Report::default();
        words.iter().for_each(|word| report.hear(word, "text"));
        report.verdict().map_err(|error| error.to_string())
    }

    #[test]
    fn only_right_results_to_the_end_are_a_success() {
        assert_eq!(verdict(&["right", "right", "done"]), Ok(()));
        let failures: [(&[&str], &str); 6] = [
            (&[], "did not run every case"),
            (&["right"], "did not run every case"),
            (&["done"], "no case"),
            (&["right", "wrong", "done"], "1 of 2 results are wrong"),
            (&["right", "fault", "done"], "text"),
            (&["right", "rihgt", "done"], "`rihgt`"),
        ];
        for (words, reason) in failures {
            let error = verdict(words).unwrap_err();
            assert!(error.contains(reason), "{words:?}: {error}");
        }
    }
}
