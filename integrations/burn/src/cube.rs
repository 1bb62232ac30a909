//! The operations on the tensors of burn's wgpu runtime.

use std::sync::Arc;

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::device::WgpuDevice;
use burn_cubecl::kernel::{into_contiguous, untile};
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};
use wgpu_attention::{Layout, Operand, Plan, ScoreLayout};

use crate::check::{Reason, dtype, mask_format};
use crate::describe::{Forward, Layouts, refused, shape};
use crate::device::{self, Attached};
use crate::launch::{Bound, first_element, launch};
use crate::ops::{Attend, Bias, Inputs, Kept, Mask, OfBias, Slopes, Train};

type CubeInputs = Inputs<CubeBackend>;

impl Attend for CubeBackend {
    fn attend(inputs: CubeInputs) -> CubeTensor {
        let place = Place::of(&inputs.query);
        let (inputs, plan) = place.planned(inputs, |inputs| place.attached.plan(&place.forward(inputs)?.problem()?));
        let out = place.output(&inputs);
        place.launch(plan, place.bound(&inputs), vec![place.bind(Operand::Out, &out)]);
        out
    }
}

impl Train for CubeBackend {
    fn attend_keeping_lse(inputs: CubeInputs) -> (CubeTensor, CubeTensor) {
        let place = Place::of(&inputs.query);
        let (inputs, plan) = place.planned(inputs, |inputs| place.attached.plan(&place.forward(inputs)?.training()?));
        let out = place.output(&inputs);
        let [batch, heads, length, _] = inputs.query.shape().dims();
        let lse = empty(&inputs.query, Shape::new([batch, heads, length, 1]), DType::F32);
        let outputs = vec![place.bind(Operand::Out, &out), place.bind(Operand::Lse, &lse)];
        place.launch(plan, place.bound(&inputs), outputs);
        (out, lse)
    }

    fn slopes(mut inputs: CubeInputs, kept: Kept<Self>, of_bias: OfBias) -> Slopes<Self> {
        let place = Place::of(&inputs.query);
        if of_bias == OfBias::Wanted {
            // A bias that was expanded has a gradient per element.
            inputs.bias = match inputs.bias {
                Bias::Adds(bias) => Bias::Adds(into_contiguous(bias)),
                Bias::None => Bias::None,
            };
        }
        let Kept { out, lse, dout } = kept;
        let [out, lse] = [out, lse].map(into_contiguous);
        let dout = with_whole_rows(dout);
        let (inputs, plan) = place.planned(inputs, |inputs| {
            let problem = place.forward(inputs)?.training()?;
            let mut wanted = vec![Operand::Dq, Operand::Dk, Operand::Dv];
            if let (Bias::Adds(_), OfBias::Wanted) = (&inputs.bias, of_bias) {
                wanted.push(Operand::Dbias);
            }
            let gradients = problem.gradients().of(wanted).dout(place.rows(&dout)).build().map_err(refused)?;
            place.attached.plan_gradients(&gradients)
        });
        let like = |tensor: &CubeTensor| empty(tensor, tensor.shape(), tensor.dtype);
        let [query, key, value] = [&inputs.query, &inputs.key, &inputs.value].map(like);
        let bias = match (&inputs.bias, of_bias) {
            (Bias::Adds(bias), OfBias::Wanted) => Bias::Adds(like(bias)),
            _ => Bias::None,
        };
        let mut reads = place.bound(&inputs);
        for (operand, tensor) in [(Operand::Out, &out), (Operand::Lse, &lse), (Operand::Dout, &dout)] {
            reads.push(place.bind(operand, tensor));
        }
        let mut writes =
            vec![place.bind(Operand::Dq, &query), place.bind(Operand::Dk, &key), place.bind(Operand::Dv, &value)];
        if let Bias::Adds(bias) = &bias {
            writes.push(place.bind(Operand::Dbias, bias));
        }
        place.launch(plan, reads, writes);
        Slopes { query, key, value, bias }
    }
}

/// The device of a call.
struct Place {
    device: WgpuDevice,
    attached: Arc<Attached>,
}

impl Place {
    /// The function of this crate has asked already whether the device is known.
    fn of(tensor: &CubeTensor) -> Self {
        let CubeDevice::Wgpu(device) = &tensor.device else { panic!("attention: {}", Reason::NotWgpu) };
        let Some(attached) = device::find(device) else { panic!("attention: {}", Reason::NotAttached) };
        Self { device: device.clone(), attached }
    }

    /// Plans for the tensors as they lie. If their strides are the obstacle, burn makes them contiguous. Contiguous tensors
    /// were accepted before.
    fn planned(&self, inputs: CubeInputs, plan: impl Fn(&CubeInputs) -> Result<Plan, Reason>) -> (CubeInputs, Plan) {
        let inputs = readable(inputs, with_whole_rows);
        match plan(&inputs) {
            Ok(plan) => (inputs, plan),
            Err(reason) => {
                log::debug!("attention copies its inputs, because as they lie {reason}");
                let inputs = contiguous(inputs);
                match plan(&inputs) {
                    Ok(plan) => (inputs, plan),
                    Err(reason) => panic!("attention: {reason}"),
                }
            }
        }
    }

    fn forward(&self, inputs: &CubeInputs) -> Result<Forward, Reason> {
        let Inputs { query, key, value, mask, bias, options } = inputs;
        let shape = shape(query.shape().dims(), value.shape().dims())?;
        let [q, k, v] = [query, key, value].map(|tensor| self.rows(tensor));
        let mask = match mask {
            Mask::Hides(mask) => Some((mask_format(mask.dtype)?, self.scores(mask))),
            Mask::None => None,
        };
        let bias = match bias {
            Bias::Adds(bias) => Some(self.scores(bias)),
            Bias::None => None,
        };
        let dtype = dtype(query.dtype)?;
        Ok(Forward { shape, dtype, layouts: Some(Layouts { q, k, v }), mask, bias, options: *options })
    }

    fn rows(&self, tensor: &CubeTensor) -> Layout {
        let [batch, head, row, _] = strides(tensor).map(|stride| stride as u64);
        Layout::strided([batch, head, row]).at(first_element(tensor, &self.attached))
    }

    fn scores(&self, tensor: &CubeTensor) -> ScoreLayout {
        let strides = strides(tensor).map(|stride| i64::try_from(stride).unwrap_or(i64::MAX));
        ScoreLayout::strided(strides).at(first_element(tensor, &self.attached))
    }

    fn output(&self, inputs: &CubeInputs) -> CubeTensor {
        let [batch, heads, length, _] = inputs.query.shape().dims();
        let [_, _, _, dim] = inputs.value.shape().dims();
        empty(&inputs.query, Shape::new([batch, heads, length, dim]), inputs.query.dtype)
    }

    fn bound(&self, inputs: &CubeInputs) -> Vec<Bound> {
        let mut bound = vec![
            self.bind(Operand::Q, &inputs.query),
            self.bind(Operand::K, &inputs.key),
            self.bind(Operand::V, &inputs.value),
        ];
        if let Mask::Hides(mask) = &inputs.mask {
            bound.push(self.bind(Operand::Mask, mask));
        }
        if let Bias::Adds(bias) = &inputs.bias {
            bound.push(self.bind(Operand::Bias, bias));
        }
        bound
    }

    fn bind(&self, operand: Operand, tensor: &CubeTensor) -> Bound {
        Bound::new(operand, tensor, &self.attached)
    }

    fn launch(&self, plan: Plan, reads: Vec<Bound>, writes: Vec<Bound>) {
        launch(&self.device, Arc::clone(&self.attached), plan, reads, writes);
    }
}

fn empty(like: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape, dtype)
}

/// The inputs, each laid out as burn lays out new tensors.
fn contiguous(inputs: CubeInputs) -> CubeInputs {
    let Inputs { query, key, value, mask, bias, options } = inputs;
    let mask = match mask {
        Mask::Hides(mask) => Mask::Hides(into_contiguous(mask)),
        Mask::None => Mask::None,
    };
    let bias = match bias {
        Bias::Adds(bias) => Bias::Adds(into_contiguous(bias)),
        Bias::None => Bias::None,
    };
    let [query, key, value] = [query, key, value].map(into_contiguous);
    Inputs { query, key, value, mask, bias, options }
}

/// The inputs, with `rows` applied to those that are read row by row. The elements of a mask and a bias may lie apart.
fn readable(inputs: CubeInputs, rows: fn(CubeTensor) -> CubeTensor) -> CubeInputs {
    let Inputs { query, key, value, mask, bias, options } = inputs;
    let [query, key, value] = [query, key, value].map(rows);
    Inputs { query, key, value, mask, bias, options }
}

/// Kernels need the elements of a row side by side.
fn with_whole_rows(tensor: CubeTensor) -> CubeTensor {
    let tensor = untile(tensor);
    let whole = tensor.meta.strides()[3] == 1 || tensor.meta.shape()[3] == 1;
    if whole { tensor } else { into_contiguous(tensor) }
}

/// The strides, and 0 along an axis of one element.
fn strides(tensor: &CubeTensor) -> [usize; 4] {
    let mut strides = [0; 4];
    for (axis, stride) in strides.iter_mut().enumerate() {
        if tensor.meta.shape()[axis] != 1 {
            *stride = tensor.meta.strides()[axis];
        }
    }
    strides
}
