//! burn's attention on wgpu: as it comes, choosing among cubek's fused kernels by trial, and with separate kernels.

use std::hint::black_box;
use std::process::ExitCode;

use burn::tensor::module::{attention, attention_fallback};
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, DType, Device, DeviceKind, Tensor, TensorData};
use protocol::{Dtype, Peer, Problem};

struct Burn {
    device: Device,
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: Option<Tensor<4, Bool>>,
    options: AttentionModuleOptions,
    fused: bool,
}

impl Burn {
    fn prepare(problem: &Problem, fused: bool) -> Result<Self, String> {
        let device = Device::wgpu(DeviceKind::DefaultDevice);
        let dtype = match problem.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::Bf16 => DType::BF16,
        };
        if !device.supports_dtype(dtype) {
            return Err(format!("{} is not supported on this device", problem.dtype.name()));
        }
        let s = problem.shape;
        let upload = |values: Vec<f32>, length: usize| -> Tensor<4> {
            let data = TensorData::new(values, [s.batch, s.heads_q, length, s.dim]).convert_dtype(dtype);
            Tensor::from_data(data, (&device, dtype))
        };
        let q = upload(problem.q.clone(), s.len_q);
        // It has no grouped queries.
        let k = upload(problem.repeated(&problem.k), s.len_k);
        let v = upload(problem.repeated(&problem.v), s.len_k);
        let mask = problem.keep.as_ref().map(|keep| {
            // True is hidden there, and the mask has its full extent.
            let rows = keep.chunks(s.len_k).flat_map(|keys| keys.repeat(s.heads_q * s.len_q));
            let hidden = TensorData::new(rows.map(|keep| !keep).collect(), [s.batch, s.heads_q, s.len_q, s.len_k]);
            Tensor::from_data(hidden, &device)
        });
        device.sync().map_err(|error| format!("{error:?}"))?;
        let options = AttentionModuleOptions { is_causal: s.causal, ..Default::default() };
        Ok(Self { device, q, k, v, mask, options, fused })
    }
}

impl Peer for Burn {
    type Output = TensorData;

    fn device(&self) -> String {
        self.device.identity().map_or("unknown".to_owned(), |identity| identity.name)
    }

    fn run(&mut self) -> TensorData {
        let compute = if self.fused { attention } else { attention_fallback };
        let (q, k, v, mask) = (self.q.clone(), self.k.clone(), self.v.clone(), self.mask.clone());
        let data = compute(q, k, v, mask, None, self.options).into_data();
        // `into_data` returns at once; looking at the bytes is what waits for the device and copies.
        black_box(data.as_bytes());
        data
    }

    fn values(&self, output: TensorData) -> Vec<f32> {
        output.iter::<f32>().collect()
    }
}

fn main() -> ExitCode {
    protocol::main::<Burn>(&[
        ("burn", |problem| Burn::prepare(problem, true)),
        ("burn-unfused", |problem| Burn::prepare(problem, false)),
    ])
}
