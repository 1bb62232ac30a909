//! The options for WGSL programs in the score, and for the derivatives that the backward pass needs of them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use wgpu_attention::{BlockMask, GradientsBuilder, Problem, ProblemBuilder, ProblemError};

use crate::names::Pass;

/// The user's WGSL programs, and the block mask that goes with them.
#[derive(Debug, Args)]
pub(crate) struct ProgramArgs {
    /// A WGSL function that modifies each score: fn score_mod(score: f32, at: At) -> f32. It can read the tensor `aux`, if
    /// there is one.
    #[arg(long, value_name = "FILE.wgsl")]
    score_mod: Option<PathBuf>,

    /// A WGSL function that decides whether a query sees a key: fn mask_mod(at: At) -> bool.
    #[arg(long, value_name = "FILE.wgsl")]
    mask_mod: Option<PathBuf>,

    /// First evaluate the mask and the mask_mod for each tile of ROWS queries by KEYS keys, and then skip the tiles that
    /// they hide. KEYS is a multiple of 32.
    #[arg(long, value_name = "ROWSxKEYS", value_parser = tiles)]
    block_mask: Option<BlockMask>,
}

impl ProgramArgs {
    pub(crate) fn apply(&self, mut problem: ProblemBuilder) -> Result<ProblemBuilder> {
        if let Some(path) = &self.score_mod {
            problem = problem.score_mod(read(path)?);
            problem.build().with_context(|| path.display().to_string())?;
        }
        if let Some(path) = &self.mask_mod {
            problem = problem.mask_mod(read(path)?);
            problem.build().with_context(|| path.display().to_string())?;
        }
        match self.block_mask {
            Some(tiles) => shared_where_possible(&problem, tiles),
            None => Ok(problem),
        }
    }

    pub(crate) fn has_any(&self) -> bool {
        self.score_mod.is_some() || self.mask_mod.is_some()
    }
}

/// The gradients, and what they need beside the programs.
#[derive(Debug, Args)]
pub(crate) struct BackwardArgs {
    /// Also compute the gradients of q, k, v, bias and sinks, from dout, the gradient of the output.
    #[arg(long)]
    backward: bool,

    /// A WGSL function that passes a gradient back through the score_mod: fn score_mod_grad(score: f32, at: At, gradient:
    /// f32) -> f32. It may be in the file of the score_mod.
    #[arg(long, value_name = "FILE.wgsl", requires = "backward", requires = "score_mod")]
    score_mod_grad: Option<PathBuf>,
}

impl BackwardArgs {
    pub(crate) const fn pass(&self) -> Pass {
        if self.backward { Pass::Backward } else { Pass::Forward }
    }

    /// Starts the description of the gradients of a problem, with the derivative of its `score_mod` if it has one.
    pub(crate) fn gradients(&self, programs: &ProgramArgs, problem: &Problem) -> Result<GradientsBuilder> {
        ensure!(
            programs.score_mod.is_none() || self.score_mod_grad.is_some(),
            "--backward needs the derivative of the score_mod; give --score-mod-grad FILE.wgsl, with a function that \
             returns `gradient` times the slope"
        );
        let mut gradients = problem.gradients();
        if let Some(path) = &self.score_mod_grad {
            gradients = gradients.score_mod_grad(read(path)?);
            // Other errors are not the file's.
            if let Err(error @ ProblemError::Program { .. }) = gradients.build() {
                return Err(error).with_context(|| path.display().to_string());
            }
        }
        Ok(gradients)
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Adds a block mask that batches and heads share where their masks are the same.
fn shared_where_possible(problem: &ProblemBuilder, tiles: BlockMask) -> Result<ProblemBuilder> {
    let sharing = [tiles, tiles.per_batch(), tiles.per_head(), tiles.per_batch().per_head()];
    let problems = sharing.map(|tiles| problem.clone().block_mask(tiles));
    let is_shared = |problem: &&ProblemBuilder| !matches!(problem.build(), Err(ProblemError::BlockMaskShared { .. }));
    Ok(problems.iter().find(is_shared).unwrap_or(&problems[3]).clone())
}

fn tiles(text: &str) -> Result<BlockMask, String> {
    let sizes = text.split_once('x').and_then(|(rows, keys)| Some((rows.parse().ok()?, keys.parse().ok()?)));
    let (rows, keys) = sizes.ok_or("give two numbers, such as 128x128")?;
    Ok(BlockMask::new(rows, keys))
}
