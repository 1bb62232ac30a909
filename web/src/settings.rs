//! What the visitor chooses.

use wasm_bindgen::prelude::wasm_bindgen;
use wgpu_attention::{Diagonal, ProblemBuilder, Window};

/// The visitor's choices. Scripts fill in the fields.
#[wasm_bindgen(getter_with_clone)]
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Which sentence, from 0.
    pub sentence: usize,
    /// The scale of the scores, in units of the usual 1/√dim.
    pub scale: f32,
    /// The largest magnitude of a score, if it is limited.
    pub softcap: Option<f32>,
    /// Whether a token reads only tokens before it, and itself.
    pub causal: bool,
    /// How far a token reads to either side, if it is limited.
    pub window: Option<u32>,
    /// The text of a `mask_mod`; empty for none.
    pub program: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { sentence: 0, scale: 1.0, softcap: None, causal: false, window: None, program: String::new() }
    }
}

#[wasm_bindgen]
impl Settings {
    /// The settings that the model was trained with.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Settings {
    /// Applies everything but the program.
    pub(crate) fn apply(&self, mut problem: ProblemBuilder) -> ProblemBuilder {
        if self.scale != 1.0 {
            let usual = problem.clone().build().map_or(1.0, |problem| problem.scale());
            problem = problem.scale(self.scale * usual);
        }
        if let Some(cap) = self.softcap {
            problem = problem.softcap(cap);
        }
        if self.causal {
            problem = problem.causal(Diagonal::TopLeft);
        }
        problem.window(Window { left: self.window, right: self.window })
    }

    /// The text of the program, if there is one.
    pub(crate) fn mask_mod(&self) -> Option<&str> {
        Some(self.program.trim()).filter(|text| !text.is_empty())
    }
}

/// The error as a script receives it.
#[cfg(target_arch = "wasm32")]
pub(crate) fn told(error: impl Into<anyhow::Error>) -> wasm_bindgen::JsError {
    wasm_bindgen::JsError::new(&format!("{:#}", error.into()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]
mod tests {
    use wgpu_attention::{Problem, Shape};

    use super::*;

    #[test]
    fn each_setting_reaches_the_problem() {
        let usual = Problem::builder(Shape::new(1, 2, 5, 16));
        let apply = |settings: Settings| settings.apply(usual.clone()).build().unwrap();
        assert_eq!(apply(Settings::default()), usual.build().unwrap());
        assert_eq!(apply(Settings { scale: 2.0, ..Settings::default() }).scale(), 0.5);
        assert_eq!(apply(Settings { softcap: Some(3.0), ..Settings::default() }).softcap(), Some(3.0));
        assert!(apply(Settings { causal: true, ..Settings::default() }).is_causal());
        let window = Window { left: Some(2), right: Some(2) };
        assert_eq!(apply(Settings { window: Some(2), ..Settings::default() }).window(), window);
    }

    #[test]
    fn blanks_are_no_program() {
        let program = |text: &str| Settings { program: text.into(), ..Settings::default() };
        assert_eq!(program(" \n").mask_mod(), None);
        assert_eq!(program(" fn \n").mask_mod(), Some("fn"));
    }
}
