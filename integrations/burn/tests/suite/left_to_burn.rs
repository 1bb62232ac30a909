//! Calls that burn computes, and why.

use burn::tensor::wgpu::WgpuBackend;
use burn::tensor::{DType, Device, DeviceKind, Tensor, TensorData};
use wgpu_attention_burn::{Reason, attention, why_not};

use crate::{Call, assert_close, device, numbers};

impl Call {
    fn reason(&self) -> Option<Reason> {
        why_not(&self.q, &self.k, &self.v, self.mask.as_ref(), self.bias.as_ref(), &self.options)
    }

    fn by_either(&self) -> Tensor<4> {
        let Self { q, k, v, mask, bias, options } = self;
        attention(q.clone(), k.clone(), v.clone(), mask.clone(), bias.clone(), *options)
    }

    fn on(mut self, device: &Device) -> Self {
        [self.q, self.k, self.v] = [self.q, self.k, self.v].map(|tensor| tensor.to_device(device));
        // From the host: burn 0.22 loses a mask on its way from wgpu to flex.
        self.mask = self.mask.map(|mask| {
            let dims = mask.dims();
            let hides: Vec<bool> = mask.into_data().iter::<bool>().collect();
            Tensor::from_data(TensorData::new(hides, dims), device)
        });
        self.bias = self.bias.map(|bias| bias.to_device(device));
        self
    }
}

#[test]
fn tensors_on_another_backend() {
    let flex = Device::flex();
    let mut call = Call::new([2, 4, 10, 16], 12).masked().biased();
    [call.k, call.v] = [8, 9].map(|seed| numbers([2, 2, 12, 16], seed));
    let fused = call.fused();
    let call = call.on(&flex);
    assert_eq!(call.reason(), Some(Reason::NotWgpu));
    assert_close(call.by_either().to_device(&device()), fused, 1e-5);
}

/// The same adapter through a pinned API is another device to burn.
#[test]
fn a_device_that_was_not_attached() {
    let api = WgpuBackend::Vulkan;
    let Ok(device) = Device::wgpu_options().device_kind(DeviceKind::DefaultDevice).graphics_api(api).init() else {
        eprintln!("there is no adapter through {api:?}");
        return;
    };
    let call = Call::new([1, 2, 10, 16], 12).on(&device);
    assert_eq!(call.reason(), Some(Reason::NotAttached));
    assert_close(call.by_either(), call.composed(), 1e-5);
}

#[test]
fn types_that_are_mixed() {
    if !device().supports_dtype(DType::F16) {
        return;
    }
    let mut call = Call::new([1, 2, 10, 16], 12).biased();
    call.bias = call.bias.map(|bias| bias.cast(DType::F16));
    assert_eq!(call.reason(), Some(Reason::Dtype(DType::F16)));
}

#[test]
fn a_scale_past_single_precision() {
    let mut call = Call::new([1, 2, 10, 16], 12);
    call.options.scale = Some(1e39);
    assert!(matches!(call.reason(), Some(Reason::Refused(_))));
}
