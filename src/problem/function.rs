//! The functions that users' programs in the score declare.

/// A function that a program in the score declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Function {
    /// `fn score_mod(score: f32, at: At) -> f32`
    ScoreMod,
    /// `fn mask_mod(at: At) -> bool`
    MaskMod,
    /// `fn score_mod_grad(score: f32, at: At, gradient: f32) -> f32`
    ScoreModGrad,
}

impl Function {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ScoreMod => "score_mod",
            Self::MaskMod => "mask_mod",
            Self::ScoreModGrad => "score_mod_grad",
        }
    }

    pub(crate) const fn signature(self) -> &'static str {
        match self {
            Self::ScoreMod => "fn score_mod(score: f32, at: At) -> f32",
            Self::MaskMod => "fn mask_mod(at: At) -> bool",
            Self::ScoreModGrad => "fn score_mod_grad(score: f32, at: At, gradient: f32) -> f32",
        }
    }
}

impl std::fmt::Display for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
