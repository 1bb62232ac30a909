//! The piece of text for each choice, and what it binds.

use crate::kernel::choices::{Access, Choices, Elements, Keys, Queries, Results, RngState, Storage, Tables};
use crate::kernel::record::{Constant, File, Source};
use crate::kernel::slots::{Slot, Space, Usage};
use crate::problem::dtype::Dtype;
use crate::problem::mask::MaskFormat;
use crate::problem::operand::Operand;
use crate::problem::program::AT;
use crate::problem::quantization::Quantization;

/// A kernel's text and bindings, to which pieces are added one by one.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pub(super) source: Source,
    pub(super) slots: Vec<Slot>,
}

/// How a kernel reads 16-bit elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Widened to f32, without a device feature.
    Wide,
    /// As f16, without conversion.
    Half,
}

/// How a workgroup finds the sequence of its block.
const RAGGED_BLOCKS: &str = shader!("../../shaders/pieces/ragged_blocks.wgsl");

/// The conversions of each packed type.
const CONVERSIONS: [(Dtype, &str); 2] =
    [(Dtype::F16, shader!("../../shaders/pieces/f16.wgsl")), (Dtype::Bf16, shader!("../../shaders/pieces/bf16.wgsl"))];

impl Pieces {
    /// Starts with the pieces that every kernel has, and those that convert its elements.
    pub(super) fn new(choices: &Choices) -> Self {
        let mut pieces = Self::default();
        pieces.file(shader!("../../shaders/pieces/views.wgsl"));
        let Storage { q, kv, out } = choices.storage;
        let stored = [Some(Elements::Of(q)), Some(kv), Some(Elements::Of(out)), choices.bias.map(Elements::Of)];
        for (dtype, text) in CONVERSIONS {
            if stored.contains(&Some(Elements::Of(dtype))) {
                pieces.file_for(dtype, text);
                pieces.file_for(dtype, shader!("../../shaders/pieces/packed.wgsl"));
            }
        }
        if choices.access == Access::Scalar || matches!(kv, Elements::Quantized(_)) {
            pieces.file(shader!("../../shaders/pieces/places.wgsl"));
        }
        pieces
    }

    pub(super) fn file(&mut self, text: &'static str) {
        self.source.files.push(File { text, of: None, dtype: None, renamed: &[] });
    }

    /// Adds a file that converts elements of this type.
    fn file_for(&mut self, dtype: Dtype, text: &'static str) {
        self.source.files.push(File { text, of: None, dtype: Some(dtype), renamed: &[] });
    }

    pub(super) fn constants<const N: usize>(&mut self, values: [(&'static str, u32); N]) {
        self.source.constants.extend(values.map(|(name, value)| (name, Constant::U32(value))));
    }

    pub(super) fn flag(&mut self, name: &'static str, value: bool) {
        self.source.constants.push((name, Constant::Bool(value)));
    }

    /// Adds a file in which these names change.
    pub(super) fn renamed(&mut self, text: &'static str, renamed: &'static [(&'static str, &'static str)]) {
        self.source.files.push(File { text, of: None, dtype: None, renamed });
    }

    /// Binds scratch memory.
    pub(super) fn space(&mut self, space: Space, usage: Usage) {
        self.slots.push(Slot::of_space(space, usage));
    }

    /// Adds the functions that read queries, keys or values: `load_q` and so on.
    pub(super) fn inputs(&mut self, operands: impl IntoIterator<Item = Operand>, choices: &Choices, form: Form) {
        for operand in operands {
            self.input(operand, choices, form);
        }
    }

    fn input(&mut self, operand: Operand, choices: &Choices, form: Form) {
        let dtype = match choices.storage.elements(operand) {
            Elements::Of(dtype) => dtype,
            Elements::Quantized(quantization) => return self.quantized(operand, quantization),
        };
        let (text, wgsl) = match (dtype, form, choices.access) {
            (Dtype::F32, _, Access::Vec4) => {
                (shader!("../../shaders/pieces/elements_f32_vec4.wgsl"), "array<vec4<f32>>")
            }
            (Dtype::F32, _, Access::Words) => {
                (shader!("../../shaders/pieces/elements_f32_words.wgsl"), "array<vec2<u64>>")
            }
            (Dtype::F32, _, Access::Scalar) => (shader!("../../shaders/pieces/elements_f32_scalar.wgsl"), "array<f32>"),
            (_, Form::Half, Access::Vec4 | Access::Words) => {
                (shader!("../../shaders/pieces/elements_half_vec4.wgsl"), "array<vec4<f16>>")
            }
            (_, Form::Half, Access::Scalar) => {
                (shader!("../../shaders/pieces/elements_half_scalar.wgsl"), "array<f16>")
            }
            (_, Form::Wide, Access::Vec4) => {
                (shader!("../../shaders/pieces/elements_packed_vec4.wgsl"), "array<vec2<u32>>")
            }
            (_, Form::Wide, Access::Words) => {
                (shader!("../../shaders/pieces/elements_packed_words.wgsl"), "array<u64>")
            }
            (_, Form::Wide, Access::Scalar) => {
                (shader!("../../shaders/pieces/elements_packed_scalar.wgsl"), "array<u32>")
            }
        };
        self.source.files.push(File { text, of: Some(operand), dtype: Some(dtype), renamed: &[] });
        self.slots.push(Slot::read(operand, wgsl));
    }

    /// Adds the function that reads quantized keys or values, in single words whatever the access.
    fn quantized(&mut self, operand: Operand, quantization: Quantization) {
        let text = match quantization {
            Quantization::Int8 => shader!("../../shaders/pieces/elements_int8.wgsl"),
            Quantization::Int4 => shader!("../../shaders/pieces/elements_int4.wgsl"),
            Quantization::Fp8E4m3 => shader!("../../shaders/pieces/elements_fp8.wgsl"),
        };
        self.source.files.push(File { text, of: Some(operand), dtype: None, renamed: &[] });
        self.slots.push(Slot::of(operand, "array<u32>"));
    }

    /// Adds the function that writes a whole row of queries, keys or values, which may be quantized: `store_row_q` and so
    /// on.
    pub(super) fn row(&mut self, operand: Operand, choices: &Choices) {
        let (rows, numbers, dtype, wgsl) = match choices.storage.elements(operand) {
            Elements::Of(dtype) => {
                let (text, wgsl) = stored(dtype, Form::Wide, choices.access);
                (shader!("../../shaders/pieces/row_float.wgsl"), text, Some(dtype), wgsl)
            }
            Elements::Quantized(quantization) => {
                let numbers = match quantization {
                    Quantization::Int8 => shader!("../../shaders/pieces/numbers_int8.wgsl"),
                    Quantization::Int4 => shader!("../../shaders/pieces/numbers_int4.wgsl"),
                    Quantization::Fp8E4m3 => shader!("../../shaders/pieces/numbers_fp8.wgsl"),
                };
                (shader!("../../shaders/pieces/row_quantized.wgsl"), numbers, None, "array<u32>")
            }
        };
        self.source.files.push(File { text: rows, of: Some(operand), dtype: None, renamed: &[] });
        if dtype.is_some() {
            self.source.files.push(File { text: numbers, of: Some(operand), dtype, renamed: &[] });
        } else if !self.source.files.iter().any(|file| file.text == numbers) {
            self.file(numbers);
        }
        self.slots.push(Slot::made(operand, wgsl));
    }

    /// Adds the function that writes the output or the weights: `store_out`.
    pub(super) fn output(&mut self, operand: Operand, choices: &Choices, form: Form) {
        let dtype = choices.storage.out;
        let (text, wgsl) = stored(dtype, form, choices.access);
        self.source.files.push(File { text, of: Some(Operand::Out), dtype: Some(dtype), renamed: &[] });
        self.slots.push(Slot::of(operand, wgsl));
    }

    /// Adds the pieces for the positions of rows and keys, for scores, for masks, and for the algebra of the softmax.
    pub(super) fn scores(&mut self, choices: &Choices) {
        self.file(shader!("../../shaders/pieces/score.wgsl"));
        self.file(shader!("../../shaders/pieces/state.wgsl"));
        self.file(if choices.softcap {
            shader!("../../shaders/pieces/softcap_tanh.wgsl")
        } else {
            shader!("../../shaders/pieces/softcap_none.wgsl")
        });
        self.masks(choices);
        match choices.bias {
            None => self.file(shader!("../../shaders/pieces/bias_none.wgsl")),
            Some(Dtype::F32) => {
                self.file(shader!("../../shaders/pieces/bias_f32.wgsl"));
                self.slots.push(Slot::of(Operand::Bias, "array<f32>"));
            }
            Some(dtype @ (Dtype::F16 | Dtype::Bf16)) => {
                self.file_for(dtype, shader!("../../shaders/pieces/bias_packed.wgsl"));
                self.slots.push(Slot::of(Operand::Bias, "array<u32>"));
            }
        }
        self.alibi(choices);
        self.programs(choices);
        self.sites(choices);
        self.dropout(choices);
    }

    /// Adds the pieces for the positions of rows and keys and for masks, without scores.
    pub(super) fn pairs(&mut self, choices: &Choices) {
        self.masks(choices);
        self.programs(choices);
        self.sites(choices);
    }

    /// Adds which weights are kept.
    fn dropout(&mut self, choices: &Choices) {
        let Some(state) = choices.dropout else {
            return self.file(shader!("../../shaders/pieces/dropout_none.wgsl"));
        };
        self.file(shader!("../../shaders/pieces/dropout_philox.wgsl"));
        match state {
            RngState::InParams => self.file(shader!("../../shaders/pieces/generator_params.wgsl")),
            RngState::Bound => {
                self.file(shader!("../../shaders/pieces/generator_buffer.wgsl"));
                self.slots.push(Slot::of(Operand::RngState, "array<u32>"));
            }
        }
    }

    /// Adds what makes up for the weights that are dropped.
    pub(super) fn compensation(&mut self, choices: &Choices) {
        self.file(if choices.dropout.is_some() {
            shader!("../../shaders/pieces/compensated_dropout.wgsl")
        } else {
            shader!("../../shaders/pieces/compensated_none.wgsl")
        });
    }

    /// Adds the positions of rows and keys, and what they depend on: which queries and keys a sequence has.
    pub(super) fn sites(&mut self, choices: &Choices) {
        self.file(shader!("../../shaders/pieces/site.wgsl"));
        self.queries(choices);
        self.keys(choices);
    }

    /// Adds which queries a sequence has, and where they lie.
    pub(super) fn queries(&mut self, choices: &Choices) {
        self.file(shader!("../../shaders/pieces/sequence.wgsl"));
        match choices.queries {
            Queries::All => self.file(shader!("../../shaders/pieces/queries_all.wgsl")),
            Queries::Lengths => {
                self.file(shader!("../../shaders/pieces/queries_lengths.wgsl"));
                self.slots.push(Slot::of(Operand::QLengths, "array<u32>"));
            }
            Queries::Ragged => {
                self.file(shader!("../../shaders/pieces/queries_ragged.wgsl"));
                self.file(RAGGED_BLOCKS);
                self.slots.push(Slot::of(Operand::CuSeqlensQ, "array<u32>"));
            }
        }
    }

    /// Adds how many keys a sequence has, and where they lie.
    pub(super) fn keys(&mut self, choices: &Choices) {
        match choices.keys {
            Keys::Dense => self.file(shader!("../../shaders/pieces/keys_dense.wgsl")),
            Keys::Ragged => {
                self.file(shader!("../../shaders/pieces/keys_ragged.wgsl"));
                self.file(shader!("../../shaders/pieces/lengths_ragged.wgsl"));
                self.slots.push(Slot::of(Operand::CuSeqlensK, "array<u32>"));
            }
            Keys::Paged(size) => {
                self.file(shader!("../../shaders/pieces/keys_paged.wgsl"));
                self.slots.push(Slot::of(Operand::BlockTable, "array<u32>"));
                self.constants([("PAGE", size)]);
            }
            Keys::Ring => self.file(shader!("../../shaders/pieces/keys_ring.wgsl")),
        }
        self.lengths(choices);
    }

    /// Adds how many keys a sequence has. The bounds of ragged keys say that themselves.
    pub(super) fn lengths(&mut self, choices: &Choices) {
        match (choices.kv_lengths, choices.tables) {
            (true, Tables::InSums) => {
                self.file(shader!("../../shaders/pieces/counts.wgsl"));
                self.file(shader!("../../shaders/pieces/lengths_sums.wgsl"));
            }
            (true, Tables::Bound) => {
                self.file(shader!("../../shaders/pieces/lengths_buffer.wgsl"));
                self.slots.push(Slot::of(Operand::KvLengths, "array<u32>"));
            }
            (false, _) if choices.keys != Keys::Ragged => {
                self.file(shader!("../../shaders/pieces/lengths_all.wgsl"));
            }
            (false, _) => {}
        }
    }

    /// Adds the slopes of `ALiBi`.
    pub(super) fn alibi(&mut self, choices: &Choices) {
        match (choices.alibi, choices.tables) {
            (false, _) => self.file(shader!("../../shaders/pieces/alibi_none.wgsl")),
            (true, Tables::InSums) => self.file(shader!("../../shaders/pieces/alibi_sums.wgsl")),
            (true, Tables::Bound) => {
                self.file(shader!("../../shaders/pieces/alibi_slopes.wgsl"));
                self.slots.push(Slot::of(Operand::AlibiSlopes, "array<f32>"));
            }
        }
    }

    /// Adds which keys a workgroup has, for kernels that visit the rows that see them.
    pub(super) fn key_blocks(&mut self, choices: &Choices) {
        self.file(shader!("../../shaders/pieces/key_block.wgsl"));
        if choices.keys == Keys::Ragged {
            self.file(shader!("../../shaders/pieces/key_blocks_ragged.wgsl"));
            self.renamed(
                RAGGED_BLOCKS,
                &[("first_block", "first_key_block"), ("sequence_with", "sequence_with_key_block")],
            );
        } else {
            self.file(shader!("../../shaders/pieces/key_blocks_dense.wgsl"));
        }
    }

    /// Adds the mask and the block mask, but not the user's `mask_mod`.
    fn masks(&mut self, choices: &Choices) {
        self.file(shader!("../../shaders/pieces/seen.wgsl"));
        if let Some(format) = choices.mask {
            self.file(match format {
                MaskFormat::BytesAttend | MaskFormat::BytesHide => {
                    shader!("../../shaders/pieces/mask_bytes.wgsl")
                }
                MaskFormat::WordsAttend | MaskFormat::WordsHide => {
                    shader!("../../shaders/pieces/mask_words.wgsl")
                }
            });
            self.file(if format.hides() {
                shader!("../../shaders/pieces/mask_hides.wgsl")
            } else {
                shader!("../../shaders/pieces/mask_attends.wgsl")
            });
            self.slots.push(Slot::of(Operand::Mask, "array<u32>"));
        } else {
            self.file(shader!("../../shaders/pieces/mask_none.wgsl"));
        }
        if let Some([rows, keys]) = choices.block_mask {
            self.file(shader!("../../shaders/pieces/block_mask_tiles.wgsl"));
            self.slots.push(Slot::of(Operand::BlockMask, "array<u32>"));
            self.constants([("MASK_ROWS", rows), ("MASK_KEYS", keys)]);
        } else {
            self.file(shader!("../../shaders/pieces/block_mask_none.wgsl"));
        }
    }

    /// Adds the user's programs.
    fn programs(&mut self, choices: &Choices) {
        let programs = &choices.programs;
        self.file(if programs.score_mod.is_some() {
            shader!("../../shaders/pieces/score_mod_program.wgsl")
        } else {
            shader!("../../shaders/pieces/score_mod_none.wgsl")
        });
        self.file(if programs.mask_mod.is_some() {
            shader!("../../shaders/pieces/mask_mod_program.wgsl")
        } else {
            shader!("../../shaders/pieces/mask_mod_none.wgsl")
        });
        if programs.has_any() {
            self.file(AT);
            self.file(shader!("../../shaders/pieces/at.wgsl"));
            self.source.programs = programs.text();
        }
        if choices.aux {
            self.slots.push(Slot::of(Operand::Aux, "array<f32>"));
        }
    }

    /// Adds the functions that finish a row's softmax after all keys, including the sinks.
    pub(super) fn total(&mut self, choices: &Choices) {
        self.file(shader!("../../shaders/pieces/finish.wgsl"));
        self.compensation(choices);
        if choices.sinks {
            self.file(shader!("../../shaders/pieces/sinks_buffer.wgsl"));
            self.slots.push(Slot::of(Operand::Sinks, "array<f32>"));
        } else {
            self.file(shader!("../../shaders/pieces/sinks_none.wgsl"));
        }
    }

    /// Adds the functions that write the results of a row.
    pub(super) fn results(&mut self, choices: &Choices, form: Form) {
        if choices.results == Results::Partial {
            self.file(shader!("../../shaders/pieces/result_part.wgsl"));
            self.space(Space::Partial, Usage::Write);
            return;
        }
        self.output(Operand::Out, choices, form);
        self.lse(choices);
        self.total(choices);
        self.file(shader!("../../shaders/pieces/result_whole.wgsl"));
    }

    /// Adds the function that writes a gradient: `store_dq` and so on.
    pub(super) fn gradient(&mut self, operand: Operand, choices: &Choices) {
        let (dtype, access) = match (operand, choices.storage.elements(operand)) {
            // Rows of a bias may have any length.
            (Operand::Dbias, _) => (choices.bias.unwrap_or_default(), Access::Scalar),
            (_, Elements::Of(dtype)) => (dtype, choices.access),
            // Quantized keys have no gradient.
            (_, Elements::Quantized(_)) => (Dtype::F32, choices.access),
        };
        let (text, wgsl) = stored(dtype, Form::Wide, access);
        self.source.files.push(File { text, of: Some(operand), dtype: Some(dtype), renamed: &[] });
        self.slots.push(Slot::of(operand, wgsl));
    }

    /// Adds how the gradient of a score becomes that of its product.
    pub(super) fn slopes(&mut self, choices: &Choices) {
        self.file(shader!("../../shaders/pieces/slopes.wgsl"));
        self.compensation(choices);
        self.file(if choices.softcap {
            shader!("../../shaders/pieces/slope_tanh.wgsl")
        } else {
            shader!("../../shaders/pieces/slope_none.wgsl")
        });
        self.file(if choices.programs.score_mod_grad.is_some() {
            shader!("../../shaders/pieces/score_mod_grad_program.wgsl")
        } else {
            shader!("../../shaders/pieces/score_mod_grad_none.wgsl")
        });
    }

    /// Adds the function that writes the log-sum-exp: `store_lse`.
    fn lse(&mut self, choices: &Choices) {
        if choices.lse {
            self.file(shader!("../../shaders/pieces/lse_buffer.wgsl"));
            self.slots.push(Slot::of(Operand::Lse, "array<f32>"));
        } else {
            self.file(shader!("../../shaders/pieces/lse_none.wgsl"));
        }
    }

    /// Adds the functions that read pairs and write what they are merged into.
    pub(super) fn pairs_of_results(&mut self, choices: &Choices) {
        self.input(Operand::PairOut, choices, Form::Wide);
        self.slots.push(Slot::of(Operand::PairLse, "array<f32>"));
        self.output(Operand::Out, choices, Form::Wide);
        self.lse(choices);
        self.file(shader!("../../shaders/pieces/finish.wgsl"));
    }
}

/// The file that stores elements, and the type of the binding.
const fn stored(dtype: Dtype, form: Form, access: Access) -> (&'static str, &'static str) {
    match (dtype, form, access) {
        (Dtype::F32, _, Access::Vec4 | Access::Words) => {
            (shader!("../../shaders/pieces/out_f32_vec4.wgsl"), "array<vec4<f32>>")
        }
        (Dtype::F32, _, Access::Scalar) => (shader!("../../shaders/pieces/out_f32_scalar.wgsl"), "array<f32>"),
        (_, _, Access::Vec4 | Access::Words) => {
            (shader!("../../shaders/pieces/out_packed_vec4.wgsl"), "array<vec2<u32>>")
        }
        (_, Form::Wide, Access::Scalar) => {
            (shader!("../../shaders/pieces/out_packed_scalar.wgsl"), "array<atomic<u32>>")
        }
        // Without atomics: naga declares their scope wrongly beside matrices.
        (_, Form::Half, Access::Scalar) => (shader!("../../shaders/pieces/out_half_scalar.wgsl"), "array<f16>"),
    }
}
