//! The text that the model learns: the first six chapters of “Pride and Prejudice” by Jane Austen, published in 1813 and in the
//! public domain. A token is a character.

use rand::{RngExt as _, rngs::StdRng};

use crate::Result;
use crate::model::VOCABULARY;

const TEXT: &str = include_str!("pride-and-prejudice.txt");

pub(crate) struct Text {
    /// The characters that occur, in order. A token is an index in this list.
    characters: Vec<char>,
    tokens: Vec<u32>,
}

impl Text {
    /// Reads the text. Each paragraph becomes a line.
    pub(crate) fn new() -> Result<Self> {
        let lines: Vec<String> = TEXT.split("\n\n").map(|paragraph| paragraph.trim().replace('\n', " ")).collect();
        let text = lines.join("\n");
        let mut characters: Vec<char> = text.chars().collect();
        characters.sort_unstable();
        characters.dedup();
        if characters.len() > VOCABULARY as usize {
            return Err(
                format!("the text has {} characters, and the model knows {VOCABULARY}", characters.len()).into()
            );
        }
        let mut read = Self { characters, tokens: Vec::new() };
        read.tokens = read.encode(&text)?;
        Ok(read)
    }

    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let token = |c| self.characters.binary_search(&c).map_err(|_| format!("the text has no character {c:?}"));
        text.chars().map(|c| Ok(u32::try_from(token(c)?)?)).collect()
    }

    pub(crate) fn decode(&self, tokens: &[u32]) -> String {
        tokens.iter().filter_map(|&token| self.characters.get(token as usize)).collect()
    }

    /// How many different characters there are.
    pub(crate) const fn vocabulary(&self) -> usize {
        self.characters.len()
    }

    pub(crate) const fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Passages from anywhere in the text, one after another.
    pub(crate) fn passages(&self, random: &mut StdRng, count: u32, length: u32) -> Vec<u32> {
        let passage = |_| {
            let start = random.random_range(0..=self.tokens.len() - length as usize);
            &self.tokens[start..start + length as usize]
        };
        (0..count).flat_map(passage).copied().collect()
    }

    /// The loss of a model that knows only how frequent each character is.
    pub(crate) fn loss_of_guessing(&self) -> f32 {
        let share = |token| {
            let count = self.tokens.iter().filter(|&&other| other == token).count();
            count as f32 / self.tokens.len() as f32
        };
        (0..).take(self.characters.len()).map(|token| -share(token) * share(token).ln()).sum()
    }
}
