//! Host data, for callers without their own buffers and for the reference.

use wgpu::BufferUsages;

use crate::plan::upload::filled;
use crate::problem::Problem;
use crate::problem::dropout::Philox;
use crate::problem::layout::View;
use crate::problem::operand::Operand;
use crate::problem::sequences::Pages;
use crate::record::error::BindError;
use crate::record::operands::Operands;

/// The inputs of a problem as host slices, each in the layout that the problem describes. Values are given in f32 and
/// stored as the problem's types.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inputs<'a> {
    /// Queries.
    pub q: &'a [f32],
    /// Keys.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
    /// Quantized keys, in place of `k`: the words that [`Quantization`](crate::Quantization) describes.
    pub k_words: Option<&'a [u32]>,
    /// Quantized values, in place of `v`.
    pub v_words: Option<&'a [u32]>,
    /// Boolean mask, `true` = attend.
    pub mask: Option<&'a [bool]>,
    /// Additive bias.
    pub bias: Option<&'a [f32]>,
    /// Number of valid keys per batch.
    pub kv_lengths: Option<&'a [u32]>,
    /// Number of queries per batch.
    pub q_lengths: Option<&'a [u32]>,
    /// Where the queries of each sequence begin, and the last ones end.
    pub cu_seqlens_q: Option<&'a [u32]>,
    /// Where the keys of each sequence begin, and the last ones end.
    pub cu_seqlens_k: Option<&'a [u32]>,
    /// The pages of each sequence.
    pub block_table: Option<&'a [u32]>,
    /// `ALiBi` slopes.
    pub alibi_slopes: Option<&'a [f32]>,
    /// Sinks, one logit per head.
    pub sinks: Option<&'a [f32]>,
    /// The numbers that programs read.
    pub aux: Option<&'a [f32]>,
    /// The state of the generator that dropout draws from.
    pub rng_state: Option<Philox>,
    /// One number per tile of the block mask: see [`BlockMask`](crate::BlockMask).
    pub block_mask: Option<&'a [u32]>,
    /// The gradient of the output, for [`Gradients`](crate::Gradients).
    pub dout: Option<&'a [f32]>,
    /// The gradient of the log-sum-exp, if the gradients take one.
    pub dlse: Option<&'a [f32]>,
    /// Queries to be rotated and written to `q`. Only [`Attention::plan_append`](crate::Attention::plan_append) reads this and the next
    /// three; all else ignores them.
    pub new_q: Option<&'a [f32]>,
    /// Keys to be appended to `k`.
    pub new_k: Option<&'a [f32]>,
    /// Values to be appended to `v`.
    pub new_v: Option<&'a [f32]>,
    /// The cosines and sines of the rotary embedding: see [`Rotary::table`](crate::Rotary::table).
    pub rotary_table: Option<&'a [f32]>,
}

impl Inputs<'_> {
    /// Checks that every input of the problem is given and long enough, and that no other is given. What only
    /// [`Attention::plan_append`](crate::Attention::plan_append) reads may be left out.
    ///
    /// # Errors
    /// [`BindError`] names the operand.
    pub fn check(&self, problem: &Problem) -> Result<(), BindError> {
        let outputs = Operand::ALL.into_iter().filter(|operand| operand.is_output());
        self.check_for(problem, |operand| self.has(operand), &outputs.collect::<Vec<_>>())?;
        self.check_bounds(problem)?;
        self.check_pages(problem)
    }

    /// Checks that ragged sequences lie within the rows of their tensors.
    fn check_bounds(&self, problem: &Problem) -> Result<(), BindError> {
        for (operand, of, bounds) in
            [(Operand::CuSeqlensQ, Operand::Q, self.cu_seqlens_q), (Operand::CuSeqlensK, Operand::K, self.cu_seqlens_k)]
        {
            let total = problem.view(of).map_or(0, |view| view.extent[2]);
            let mut before = 0;
            let count = problem.shape().batch as usize + 1;
            for (at, &bound) in (0..).zip(bounds.unwrap_or_default().iter().take(count)) {
                if bound < before || bound > total {
                    return Err(BindError::Bound { operand, at, bound, total });
                }
                before = bound;
            }
        }
        Ok(())
    }

    /// Checks that the block table lists pages that exist, for the keys that the sequences have.
    fn check_pages(&self, problem: &Problem) -> Result<(), BindError> {
        let (Some(Pages { count: pages, size }), Some(table)) = (problem.pages(), self.block_table) else {
            return Ok(());
        };
        let (shape, row) = (problem.shape(), problem.table_row());
        for (sequence, pages_of) in (0..shape.batch).zip(table.chunks((row as usize).max(1))) {
            let given = self.kv_lengths.and_then(|lengths| lengths.get(sequence as usize));
            let used = given.map_or(shape.len_kv, |&length| length.min(shape.len_kv)).div_ceil(size);
            for (nth, &page) in (0..used).zip(pages_of) {
                if page >= pages {
                    return Err(BindError::NoSuchPage { sequence, nth, page, pages });
                }
            }
        }
        Ok(())
    }

    /// Like [`check`](Self::check), for work that reads some operands of a problem; `outputs` are not given.
    pub(crate) fn check_for(
        &self,
        problem: &Problem,
        reads: impl Fn(Operand) -> bool,
        outputs: &[Operand],
    ) -> Result<(), BindError> {
        for (operand, words) in [(Operand::K, self.k_words), (Operand::V, self.v_words)] {
            match (problem.quantization(), words) {
                (Some(_), None) if reads(operand) => return Err(BindError::MissingWords { operand }),
                (None, Some(_)) => return Err(BindError::UnusedWords { operand }),
                _ => {}
            }
        }
        for operand in Operand::ALL.into_iter().filter(|operand| !outputs.contains(operand)) {
            match (problem.view(operand), self.len(operand)) {
                (None, Some(_)) => return Err(BindError::Unused { operand }),
                (Some(_), None) if reads(operand) => return Err(BindError::Missing { operand }),
                (Some(view), Some(got)) if reads(operand) && view.end() > got as u64 => {
                    return Err(BindError::TooShort { operand, need: view.end(), got: got as u64 });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a buffer for the operand is needed: always, unless it is something to append that is not given.
    fn has(&self, operand: Operand) -> bool {
        !operand.is_appended() || self.len(operand).is_some()
    }

    /// The number of elements that were given for an operand.
    fn len(&self, operand: Operand) -> Option<usize> {
        match operand {
            Operand::Q => Some(self.q.len()),
            Operand::K => Some(self.k_words.map_or(self.k.len(), <[_]>::len)),
            Operand::V => Some(self.v_words.map_or(self.v.len(), <[_]>::len)),
            Operand::Mask => self.mask.map(<[_]>::len),
            Operand::Bias => self.bias.map(<[_]>::len),
            Operand::AlibiSlopes => self.alibi_slopes.map(<[_]>::len),
            Operand::Sinks => self.sinks.map(<[_]>::len),
            Operand::Aux => self.aux.map(<[_]>::len),
            Operand::RngState => self.rng_state.map(|_| Philox::WORDS as usize),
            Operand::Dout => self.dout.map(<[_]>::len),
            Operand::Dlse => self.dlse.map(<[_]>::len),
            Operand::NewQ => self.new_q.map(<[_]>::len),
            Operand::NewK => self.new_k.map(<[_]>::len),
            Operand::NewV => self.new_v.map(<[_]>::len),
            Operand::RotaryTable => self.rotary_table.map(<[_]>::len),
            other => self.numbers(other).map(<[_]>::len),
        }
    }

    /// The bytes of quantized keys or values.
    fn words(&self, operand: Operand) -> Option<Vec<u8>> {
        let words = if operand == Operand::K { self.k_words } else { self.v_words };
        Some(bytemuck::cast_slice(words?).to_vec())
    }

    /// The input of an operand that holds u32; `None` for outputs, and for what is merged.
    const fn numbers(&self, operand: Operand) -> Option<&[u32]> {
        match operand {
            Operand::KvLengths => self.kv_lengths,
            Operand::QLengths => self.q_lengths,
            Operand::CuSeqlensQ => self.cu_seqlens_q,
            Operand::CuSeqlensK => self.cu_seqlens_k,
            Operand::BlockTable => self.block_table,
            Operand::BlockMask => self.block_mask,
            _ => None,
        }
    }

    /// Creates a buffer for every operand of `problem` but those that were left out. The inputs are filled, the outputs are zero.
    /// Submits nothing.
    ///
    /// # Errors
    /// [`BindError`] if the inputs do not fit the problem, or the device is lost. In a browser, a loss is known once the page's event
    /// loop has turned since, if the device was used with this crate before.
    ///
    /// # Panics
    /// In a browser, wgpu panics if the browser has no memory for the contents of a buffer.
    pub fn upload(&self, device: &wgpu::Device, problem: &Problem) -> Result<Buffers, BindError> {
        self.check(problem)?;
        self.upload_views(device, problem, problem.views().filter(|view| self.has(view.operand)))
    }

    /// Creates buffers for some operands of a problem, whose inputs were checked.
    pub(crate) fn upload_views(
        &self,
        device: &wgpu::Device,
        problem: &Problem,
        views: impl Iterator<Item = View>,
    ) -> Result<Buffers, BindError> {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let buffers = views.map(|view| {
            let operand = view.operand;
            let buffer = match self.encode(problem, operand) {
                Some(contents) => filled(device, operand.name(), contents, usage),
                None => Some(device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some(operand.name()),
                    // An output without elements gets a buffer of one word, so that it can be read back.
                    size: view.size_bytes().max(4),
                    usage,
                    mapped_at_creation: false,
                })),
            };
            Ok((operand, buffer.ok_or(BindError::DeviceLost { operand })?))
        });
        Ok(Buffers { buffers: buffers.collect::<Result<_, _>>()? })
    }

    /// An input's bytes as the problem stores them; `None` for what is no input.
    fn encode(&self, problem: &Problem, operand: Operand) -> Option<Vec<u8>> {
        let encoded = |values: &[f32]| Some(problem.dtype(operand)?.encode(values));
        match operand {
            Operand::Q => encoded(self.q),
            Operand::K => self.words(operand).or_else(|| encoded(self.k)),
            Operand::V => self.words(operand).or_else(|| encoded(self.v)),
            Operand::Mask => Some(problem.mask_format()?.encode(self.mask?)),
            Operand::Bias => encoded(self.bias?),
            Operand::AlibiSlopes => encoded(self.alibi_slopes?),
            Operand::Sinks => encoded(self.sinks?),
            Operand::Aux => encoded(self.aux?),
            Operand::RngState => Some(bytemuck::bytes_of(&self.rng_state?).to_vec()),
            Operand::Dout => encoded(self.dout?),
            Operand::Dlse => encoded(self.dlse?),
            Operand::NewQ => encoded(self.new_q?),
            Operand::NewK => encoded(self.new_k?),
            Operand::NewV => encoded(self.new_v?),
            Operand::RotaryTable => encoded(self.rotary_table?),
            other => Some(bytemuck::cast_slice(self.numbers(other)?).to_vec()),
        }
    }
}

/// A buffer for each operand of a problem; created by [`Inputs::upload`].
#[derive(Clone, Debug)]
pub struct Buffers {
    buffers: Vec<(Operand, wgpu::Buffer)>,
}

impl Buffers {
    /// The operand's buffer, if there is one.
    pub fn get(&self, operand: Operand) -> Option<&wgpu::Buffer> {
        self.buffers.iter().find_map(|(other, buffer)| (*other == operand).then_some(buffer))
    }

    /// The buffers of the operands that a problem uses, as operands to bind.
    pub(crate) fn operands_of(&self, problem: &Problem) -> Operands<'_> {
        self.bindings().filter(|(operand, _)| problem.uses(*operand)).collect()
    }

    /// All buffers, as operands to bind.
    pub fn operands(&self) -> Operands<'_> {
        self.bindings().collect()
    }

    fn bindings(&self) -> impl Iterator<Item = (Operand, wgpu::BufferBinding<'_>)> {
        self.buffers.iter().map(|(operand, buffer)| (*operand, buffer.as_entire_buffer_binding()))
    }
}
