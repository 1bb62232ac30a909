//! burn's attention on wgpu, computed by [wgpu-attention](wgpu_attention) as one fused kernel: with masks, a bias, a softcap,
//! a scale of its own, grouped queries and gradients.
//!
//! [`attention`] takes what `burn::tensor::module::attention` takes, and means the same. It works on burn's device, queue and
//! pooled buffers, and copies only what kernels cannot read where it lies. What it cannot compute, burn computes: [`why_not`] tells why.
//!
//! ```no_run
//! use burn::tensor::{Device, Distribution, Tensor};
//! use wgpu_attention_burn::{attention, init};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Instead of `Device::wgpu(…)`, because the queue of a device cannot be found later.
//! let device = init(Device::wgpu_options())?;
//! let [q, k, v] = [8, 2, 2].map(|heads| Tensor::<4>::random([1, heads, 512, 64], Distribution::Default, &device));
//! let out = attention(q, k, v, None, None, Default::default());
//! # let _ = out;
//! # Ok(()) }
//! ```

mod autodiff;
mod check;
mod cube;
mod describe;
mod device;
mod launch;
mod ops;

use burn::backend::Dispatch;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Tensor};

pub use check::Reason;
#[cfg(not(target_family = "wasm"))]
pub use device::init;
pub use device::{attach, init_async};

use ops::{Attend, Bias, Inputs, Mask};

/// Scaled dot-product attention, as `burn::tensor::module::attention` defines it: in the mask, true hides; a causal mask
/// is aligned at the last query and the last key; a row that sees no key is 0.
///
/// Beyond burn's, the queries may have more heads than keys and values, by a factor: query head h then sees the head
/// h / factor of the keys. A mask and a bias may be 1 along any axis, which broadcasts. Gradients of queries, keys, values and
/// the bias are computed by a fused kernel too.
///
/// # Panics
/// If the shapes do not belong together, or the softcap is not positive.
pub fn attention(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    mask: Option<Tensor<4, Bool>>,
    attn_bias: Option<Tensor<4>>,
    options: AttentionModuleOptions,
) -> Tensor<4> {
    let shapes = [&query, &key, &value].map(|tensor| tensor.dims());
    check::shapes(shapes, mask.as_ref().map(Tensor::dims), attn_bias.as_ref().map(Tensor::dims), &options);
    if let Some(reason) = why_not(&query, &key, &value, mask.as_ref(), attn_bias.as_ref(), &options) {
        log::debug!("burn computes this attention: {reason}");
        return by_burn(query, key, value, mask, attn_bias, options);
    }
    let [query, key, value] = [query, key, value].map(Tensor::into_dispatch);
    let mask = mask.map_or(Mask::None, |mask| Mask::Hides(mask.into_dispatch()));
    let bias = attn_bias.map_or(Bias::None, |bias| Bias::Adds(bias.into_dispatch()));
    Tensor::from_dispatch(<Dispatch as Attend>::attend(Inputs { query, key, value, mask, bias, options }))
}

/// Why [`attention`] would leave this call to burn; `None` if it would not. The shapes must belong together.
pub fn why_not(
    query: &Tensor<4>,
    key: &Tensor<4>,
    value: &Tensor<4>,
    mask: Option<&Tensor<4, Bool>>,
    attn_bias: Option<&Tensor<4>>,
    options: &AttentionModuleOptions,
) -> Option<Reason> {
    check::accepts([query, key, value], mask, attn_bias, options).err()
}

/// burn has no grouped queries, and its mask has its full extent.
fn by_burn(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    mask: Option<Tensor<4, Bool>>,
    attn_bias: Option<Tensor<4>>,
    options: AttentionModuleOptions,
) -> Tensor<4> {
    let [batch, heads, length, _] = query.dims();
    let repeated = |tensor: Tensor<4>| {
        let [batch, own, length, dim] = tensor.dims();
        let groups = tensor.reshape([batch, own, 1, length, dim]).expand([batch, own, heads / own, length, dim]);
        groups.reshape([batch, heads, length, dim])
    };
    let scores = [batch, heads, length, key.dims()[2]];
    let (key, value) = if key.dims()[1] == heads { (key, value) } else { (repeated(key), repeated(value)) };
    let mask = mask.map(|mask| mask.expand(scores));
    let attn_bias = attn_bias.map(|bias| bias.expand(scores));
    burn::tensor::module::attention(query, key, value, mask, attn_bias, options)
}
