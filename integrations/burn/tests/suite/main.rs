//! Compares with burn's own composition, `attention_fallback`, on whatever wgpu device there is. A machine without one
//! fails.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod forward;
mod gradients;
mod left_to_burn;
mod shapes;
mod surroundings;

use std::sync::LazyLock;

use burn::tensor::module::attention_fallback;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, DType, Device, Tensor, TensorData};
use wgpu_attention_burn::{attention, init, why_not};

static DEVICE: LazyLock<Device> = LazyLock::new(|| init(Device::wgpu_options()).unwrap());

fn device() -> Device {
    DEVICE.clone()
}

/// Numbers in −1 .. 1 without a pattern, different for each seed.
fn numbers<const D: usize>(dims: [usize; D], seed: u32) -> Tensor<D> {
    let mut state = 0x9e37_79b9_u32.wrapping_mul(seed.wrapping_add(1));
    let values: Vec<f32> = (0..dims.iter().product::<usize>())
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from(u16::try_from(state >> 16).unwrap()) / 32_768.0 - 1.0
        })
        .collect();
    Tensor::from_data(TensorData::new(values, dims), &device())
}

/// A mask that hides about a third of the pairs.
fn mask(dims: [usize; 4], seed: u32) -> Tensor<4, Bool> {
    numbers(dims, seed).greater_elem(0.35)
}

struct Call {
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: Option<Tensor<4, Bool>>,
    bias: Option<Tensor<4>>,
    options: AttentionModuleOptions,
}

impl Call {
    /// Queries (batch, heads, length, head size), and keys and values of another length.
    fn new([batch, heads, len_q, dim]: [usize; 4], len_k: usize) -> Self {
        let q = numbers([batch, heads, len_q, dim], 1);
        let [k, v] = [2, 3].map(|seed| numbers([batch, heads, len_k, dim], seed));
        Self { q, k, v, mask: None, bias: None, options: AttentionModuleOptions::default() }
    }

    fn scores(&self) -> [usize; 4] {
        let [batch, heads, len_q, _] = self.q.dims();
        [batch, heads, len_q, self.k.dims()[2]]
    }

    fn masked(mut self) -> Self {
        self.mask = Some(mask(self.scores(), 4));
        self
    }

    fn biased(mut self) -> Self {
        self.bias = Some(numbers(self.scores(), 5));
        self
    }

    fn causal(mut self) -> Self {
        self.options.is_causal = true;
        self
    }

    fn cast(mut self, dtype: DType) -> Self {
        [self.q, self.k, self.v] = [self.q, self.k, self.v].map(|tensor| tensor.cast(dtype));
        self.bias = self.bias.map(|bias| bias.cast(dtype));
        self
    }

    /// By this crate, which must not leave it to burn.
    fn fused(&self) -> Tensor<4> {
        let Self { q, k, v, mask, bias, options } = self;
        assert_eq!(why_not(q, k, v, mask.as_ref(), bias.as_ref(), options), None);
        attention(q.clone(), k.clone(), v.clone(), mask.clone(), bias.clone(), *options)
    }

    fn composed(&self) -> Tensor<4> {
        let Self { q, k, v, mask, bias, options } = self;
        attention_fallback(q.clone(), k.clone(), v.clone(), mask.clone(), bias.clone(), *options)
    }

    fn check(&self) {
        assert_close(self.fused(), self.composed(), 1e-5);
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Relative to the largest value.
fn assert_close<const D: usize>(got: Tensor<D>, wanted: Tensor<D>, tolerance: f32) {
    assert_eq!(got.dims(), wanted.dims());
    let (got, wanted) = (values(got), values(wanted));
    let largest = wanted.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let far = got.iter().zip(&wanted).map(|(got, wanted)| (got - wanted).abs());
    let far = far.fold(0.0, |far: f32, next| if next.is_nan() { f32::NAN } else { far.max(next) });
    assert!(far <= tolerance * largest, "differs by {far:e}, largest value {largest:e}");
    assert!(largest > 0.0, "nothing was compared");
}
