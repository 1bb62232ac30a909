//! Host data for those without buffers of their own, and for the reference.

use wgpu::BufferUsages;

use crate::plan::upload::filled;
use crate::problem::Problem;
use crate::problem::dtype::Dtype;
use crate::problem::operand::Operand;
use crate::record::error::BindError;
use crate::record::operands::Operands;

/// The inputs of a problem as host slices, each laid out as the problem says. Values are given in f32 and stored as the
/// problem's types.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inputs<'a> {
    /// Queries.
    pub q: &'a [f32],
    /// Keys.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
    /// Boolean mask, `true` = attend.
    pub mask: Option<&'a [bool]>,
    /// Additive bias.
    pub bias: Option<&'a [f32]>,
    /// Valid keys per batch.
    pub kv_lengths: Option<&'a [u32]>,
    /// `ALiBi` slopes.
    pub alibi_slopes: Option<&'a [f32]>,
    /// Sinks.
    pub sinks: Option<&'a [f32]>,
    /// The numbers that programs read.
    pub aux: Option<&'a [f32]>,
}

impl Inputs<'_> {
    /// Whether every operand the problem uses is here and long enough, and no other.
    ///
    /// # Errors
    /// [`BindError`] names the operand.
    pub fn check(&self, problem: &Problem) -> Result<(), BindError> {
        let given = [
            (Operand::Q, Some(self.q.len())),
            (Operand::K, Some(self.k.len())),
            (Operand::V, Some(self.v.len())),
            (Operand::Mask, self.mask.map(<[_]>::len)),
            (Operand::Bias, self.bias.map(<[_]>::len)),
            (Operand::KvLengths, self.kv_lengths.map(<[_]>::len)),
            (Operand::AlibiSlopes, self.alibi_slopes.map(<[_]>::len)),
            (Operand::Sinks, self.sinks.map(<[_]>::len)),
            (Operand::Aux, self.aux.map(<[_]>::len)),
        ];
        for (operand, got) in given {
            match (problem.view(operand), got) {
                (None, None) => {}
                (None, Some(_)) => return Err(BindError::Unused { operand }),
                (Some(_), None) => return Err(BindError::Missing { operand }),
                (Some(view), Some(got)) if view.end() > got as u64 => {
                    return Err(BindError::TooShort { operand, need: view.end(), got: got as u64 });
                }
                (Some(_), Some(_)) => {}
            }
        }
        Ok(())
    }

    /// New buffers for every operand of `problem`: the inputs filled, the outputs zero. Submits nothing.
    ///
    /// # Errors
    /// [`BindError`] where the inputs do not fit the problem, or the device is lost.
    pub fn upload(&self, device: &wgpu::Device, problem: &Problem) -> Result<Buffers, BindError> {
        self.check(problem)?;
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let buffers = problem.views().map(|view| {
            let operand = view.operand;
            let buffer = match self.encode(problem, operand) {
                Some(contents) => filled(device, operand.name(), contents, usage),
                None => Some(device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some(operand.name()),
                    // An output without elements has a buffer too, of one word, which can be read back.
                    size: view.size_bytes().max(4),
                    usage,
                    mapped_at_creation: false,
                })),
            };
            Ok((operand, buffer.ok_or(BindError::DeviceLost { operand })?))
        });
        Ok(Buffers { buffers: buffers.collect::<Result<_, _>>()? })
    }

    /// An input's bytes as the problem stores them; `None` for an output.
    fn encode(&self, problem: &Problem, operand: Operand) -> Option<Vec<u8>> {
        match operand {
            Operand::Q => Some(problem.dtype().encode(self.q)),
            Operand::K => Some(problem.dtype().encode(self.k)),
            Operand::V => Some(problem.dtype().encode(self.v)),
            Operand::Mask => Some(self.mask?.iter().map(|&attend| u8::from(attend)).collect()),
            Operand::Bias => Some(problem.bias_dtype()?.encode(self.bias?)),
            Operand::KvLengths => Some(bytemuck::cast_slice(self.kv_lengths?).to_vec()),
            Operand::AlibiSlopes => Some(Dtype::F32.encode(self.alibi_slopes?)),
            Operand::Sinks => Some(Dtype::F32.encode(self.sinks?)),
            Operand::Aux => Some(Dtype::F32.encode(self.aux?)),
            Operand::Out | Operand::Lse | Operand::Weights => None,
        }
    }
}

/// A buffer for each operand of a problem; made by [`Inputs::upload`].
#[derive(Clone, Debug)]
pub struct Buffers {
    buffers: Vec<(Operand, wgpu::Buffer)>,
}

impl Buffers {
    /// The operand's buffer, if the problem uses it.
    pub fn get(&self, operand: Operand) -> Option<&wgpu::Buffer> {
        self.buffers.iter().find_map(|(other, buffer)| (*other == operand).then_some(buffer))
    }

    /// All of them, to bind.
    pub fn operands(&self) -> Operands<'_> {
        self.buffers.iter().fold(Operands::default(), |operands, (operand, buffer)| {
            operands.with(*operand, buffer.as_entire_buffer_binding())
        })
    }
}
