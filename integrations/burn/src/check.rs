//! What burn would refuse, and what this crate leaves to burn.

use std::sync::Arc;

use burn::backend::DispatchDevice;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, BoolStore, DType, Tensor};
use burn_cubecl::CubeDevice;
use wgpu_attention::{Dtype, MaskFormat, ScoreLayout};

use crate::describe::{Forward, shape};
use crate::device::{self, Attached};

/// Why a call is left to burn.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The tensors are not on a wgpu device.
    NotWgpu,
    /// The queue of the device is not known: neither [`init`](crate::init) nor [`attach`](crate::attach) was called for it.
    NotAttached,
    /// Queries, keys, values or the bias have this element type, or not all the same.
    Dtype(DType),
    /// The mask is stored in this way.
    MaskStore(BoolStore),
    /// A length does not fit 32 bits.
    TooLong(usize),
    /// The kernels cannot do it on this device, for the reason that wgpu-attention gives.
    Refused(String),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotWgpu => write!(f, "the tensors are not on a wgpu device"),
            Self::NotAttached => write!(f, "the device was not made by `init`, nor given to `attach`"),
            Self::Dtype(dtype) => {
                write!(f, "elements are {dtype:?}, or not all of one type; f32, f16 and bf16 are fused")
            }
            Self::MaskStore(store) => write!(f, "the mask is stored as {store:?}; bytes and words are fused"),
            Self::TooLong(length) => write!(f, "a length of {length} does not fit 32 bits"),
            Self::Refused(message) => write!(f, "{message}"),
        }
    }
}

/// Panics like burn if the shapes do not belong together.
pub(crate) fn shapes(
    [q, k, v]: [[usize; 4]; 3],
    mask: Option<[usize; 4]>,
    bias: Option<[usize; 4]>,
    options: &AttentionModuleOptions,
) {
    let refuse = |reason: String| {
        panic!("=== Tensor Operation Error ===\n  Operation: 'attention'\n  Reason:\n    1. {reason}\n")
    };
    if q[0] != k[0] || k[0] != v[0] {
        refuse(format!("The batch sizes differ: query {q:?}, key {k:?}, value {v:?}."));
    }
    if k[1] != v[1] || k[2] != v[2] {
        refuse(format!("Keys and values must have the same heads and the same length: key {k:?}, value {v:?}."));
    }
    if k[1] == 0 || !q[1].is_multiple_of(k[1]) {
        refuse(format!("The query's heads must be a multiple of the key's: query {q:?}, key {k:?}."));
    }
    if q[3] != k[3] {
        refuse(format!("Queries and keys must have the same head size: query {q:?}, key {k:?}."));
    }
    let scores = [q[0], q[1], q[2], k[2]];
    for (name, given) in [("mask", mask), ("bias", bias)] {
        let Some(given) = given else { continue };
        if given.iter().zip(scores).any(|(&given, wanted)| given != wanted && given != 1) {
            refuse(format!("The {name} must be {scores:?}, or 1 where it is the same for all: it is {given:?}."));
        }
    }
    if let Some(softcap) = options.softcap.filter(|&softcap| softcap <= 0.0) {
        refuse(format!("softcap must be positive, got {softcap}."));
    }
}

/// Whether this crate computes the call, or why burn does.
pub(crate) fn accepts(
    [q, k, v]: [&Tensor<4>; 3],
    mask: Option<&Tensor<4, Bool>>,
    bias: Option<&Tensor<4>>,
    options: &AttentionModuleOptions,
) -> Result<(), Reason> {
    let attached = attached(q.device().inner().as_dispatch())?;
    let dtype = dtype(q.dtype())?;
    let floats = || [Some(q), Some(k), Some(v), bias].into_iter().flatten();
    if let Some(other) = floats().find(|other| other.dtype() != q.dtype()) {
        return Err(Reason::Dtype(other.dtype()));
    }
    let mask = mask.map(|mask| Ok((mask_format(mask.dtype())?, broadcast(mask.dims())?))).transpose()?;
    let bias = bias.map(|bias| broadcast(bias.dims())).transpose()?;
    let forward = Forward { shape: shape(q.dims(), v.dims())?, dtype, layouts: None, mask, bias, options: *options };
    let trains = floats().any(|tensor| tensor.device().is_autodiff());
    if trains { attached.accepts_training(&forward) } else { attached.accepts(&forward) }
}

fn attached(device: &DispatchDevice) -> Result<Arc<Attached>, Reason> {
    match device {
        DispatchDevice::Cube(CubeDevice::Wgpu(device)) => device::find(device).ok_or(Reason::NotAttached),
        _ => Err(Reason::NotWgpu),
    }
}

pub(crate) fn dtype(dtype: DType) -> Result<Dtype, Reason> {
    match dtype {
        DType::F32 => Ok(Dtype::F32),
        DType::F16 => Ok(Dtype::F16),
        DType::BF16 => Ok(Dtype::Bf16),
        other => Err(Reason::Dtype(other)),
    }
}

/// In burn, true hides a key.
pub(crate) fn mask_format(dtype: DType) -> Result<MaskFormat, Reason> {
    match dtype {
        DType::Bool(BoolStore::U32) => Ok(MaskFormat::WordsHide),
        DType::Bool(BoolStore::U8) => Ok(MaskFormat::BytesHide),
        DType::Bool(store) => Err(Reason::MaskStore(store)),
        other => Err(Reason::Dtype(other)),
    }
}

fn broadcast(dims: [usize; 4]) -> Result<ScoreLayout, Reason> {
    let mut sizes = [0; 4];
    for (size, dim) in sizes.iter_mut().zip(dims) {
        *size = u32::try_from(dim).map_err(|_| Reason::TooLong(dim))?;
    }
    Ok(ScoreLayout::broadcast(sizes))
}
