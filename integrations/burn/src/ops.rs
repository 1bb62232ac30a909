//! The operations as burn's backends see them. burn's macro makes those of `Fusion`, which run later, and the choice of the
//! backend at run time.

use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Backend, ExtensionType, backend_extension};
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{DType, Shape};

/// A mask, if there is one. (An operation of `Fusion` cannot take an `Option`.)
#[derive(Debug, Clone, ExtensionType)]
#[extension_type(fusion)]
pub(crate) enum Mask<B: Backend> {
    None,
    Hides(BoolTensor<B>),
}

/// A bias or its gradient, if there is one.
#[derive(Debug, Clone, ExtensionType)]
#[extension_type(fusion)]
pub(crate) enum Bias<B: Backend> {
    None,
    Adds(FloatTensor<B>),
}

#[derive(Debug, Clone, ExtensionType)]
#[extension_type(fusion)]
pub(crate) struct Inputs<B: Backend> {
    pub(crate) query: FloatTensor<B>,
    pub(crate) key: FloatTensor<B>,
    pub(crate) value: FloatTensor<B>,
    #[extension_type]
    pub(crate) mask: Mask<B>,
    #[extension_type]
    pub(crate) bias: Bias<B>,
    pub(crate) options: AttentionModuleOptions,
}

/// What the forward pass keeps for the gradients, and the gradient of its output.
#[derive(Debug, Clone, ExtensionType)]
#[extension_type(fusion)]
pub(crate) struct Kept<B: Backend> {
    pub(crate) out: FloatTensor<B>,
    pub(crate) lse: FloatTensor<B>,
    pub(crate) dout: FloatTensor<B>,
}

#[derive(Debug, Clone, ExtensionType)]
#[extension_type(fusion)]
pub(crate) struct Slopes<B: Backend> {
    pub(crate) query: FloatTensor<B>,
    pub(crate) key: FloatTensor<B>,
    pub(crate) value: FloatTensor<B>,
    #[extension_type]
    pub(crate) bias: Bias<B>,
}

/// Whether the gradient of the bias is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OfBias {
    Wanted,
    Skipped,
}

#[backend_extension(Cube, Fusion, Autodiff)]
pub(crate) trait Attend: Backend {
    #[fusion(dtype = inputs.query.dtype, shape = output(inputs))]
    fn attend(#[extension_type] inputs: Inputs<Self>) -> FloatTensor<Self>;
}

/// What differentiates `Attend`.
#[backend_extension(Cube, Fusion)]
pub(crate) trait Train: Backend {
    /// The output, and the log-sum-exp of each row in f32.
    #[fusion(meta = output_and_lse)]
    fn attend_keeping_lse(#[extension_type] inputs: Inputs<Self>) -> (FloatTensor<Self>, FloatTensor<Self>);

    #[fusion(meta = slopes)]
    fn slopes(
        #[extension_type] inputs: Inputs<Self>,
        #[extension_type] kept: Kept<Self>,
        of_bias: OfBias,
    ) -> Slopes<Self>;
}

fn output(inputs: &InputsMetadata) -> Shape {
    let [batch, heads, length, _] = inputs.query.shape.dims();
    let [_, _, _, dim] = inputs.value.shape.dims();
    Shape::new([batch, heads, length, dim])
}

fn output_and_lse(inputs: &InputsMetadata) -> (TensorSpec, TensorSpec) {
    let [batch, heads, length, _] = inputs.query.shape.dims();
    let out = TensorSpec::new(output(inputs), inputs.query.dtype);
    (out, TensorSpec::new(Shape::new([batch, heads, length, 1]), DType::F32))
}

fn slopes(inputs: &InputsMetadata, _kept: &KeptMetadata, of_bias: &OfBias) -> SlopesMetadata {
    let bias = match of_bias {
        OfBias::Wanted => inputs.bias.clone(),
        OfBias::Skipped => BiasMetadata::None,
    };
    SlopesMetadata { query: inputs.query.clone(), key: inputs.key.clone(), value: inputs.value.clone(), bias }
}
