//! The gradients, by wgpu-attention's own backward pass.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};
use burn::tensor::ops::AttentionModuleOptions;

use crate::ops::{Attend, Bias, Inputs, Kept, Mask, OfBias, Slopes, Train};

impl<B: Attend + Train, C: CheckpointStrategy> Attend for Autodiff<B, C> {
    fn attend(inputs: Inputs<Self>) -> FloatTensor<Self> {
        let Inputs { query, key, value, mask, bias, options } = inputs;
        let mask = match mask {
            Mask::None => Mask::None,
            Mask::Hides(mask) => Mask::Hides(mask),
        };
        match bias {
            Bias::None => tracked::<B, C, 3>([query, key, value], mask, options),
            Bias::Adds(bias) => tracked::<B, C, 4>([query, key, value, bias], mask, options),
        }
    }
}

/// Attention of queries, keys, values and perhaps a bias.
fn tracked<B: Attend + Train, C: CheckpointStrategy, const N: usize>(
    parents: [FloatTensor<Autodiff<B, C>>; N],
    mask: Mask<B>,
    options: AttentionModuleOptions,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = parents.each_ref().map(|parent| parent.node());
    match Attention.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut preparation) => {
            let nodes = parents.each_ref().map(|parent| preparation.checkpoint(parent));
            let inputs = inputs(parents.map(|parent| parent.into_primitive()), mask.clone(), options);
            let (out, lse) = B::attend_keeping_lse(inputs);
            preparation.finish(State { nodes, mask, options, out: out.clone(), lse }, out)
        }
        OpsKind::UnTracked(preparation) => {
            preparation.finish(B::attend(inputs(parents.map(|parent| parent.into_primitive()), mask, options)))
        }
    }
}

fn inputs<B: Backend, const N: usize>(
    tensors: [FloatTensor<B>; N],
    mask: Mask<B>,
    options: AttentionModuleOptions,
) -> Inputs<B> {
    let mut tensors = tensors.into_iter();
    let (Some(query), Some(key), Some(value)) = (tensors.next(), tensors.next(), tensors.next()) else {
        unreachable!("attention has three inputs, and perhaps a bias")
    };
    let bias = tensors.next().map_or(Bias::None, Bias::Adds);
    Inputs { query, key, value, mask, bias, options }
}

#[derive(Debug)]
struct Attention;

#[derive(Debug, Clone)]
struct State<B: Backend, const N: usize> {
    nodes: [NodeId; N],
    mask: Mask<B>,
    options: AttentionModuleOptions,
    out: FloatTensor<B>,
    lse: FloatTensor<B>,
}

impl<B: Train, const N: usize> Backward<B, N> for Attention {
    type State = State<B, N>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let State { nodes, mask, options, out, lse } = ops.state;
        let dout = grads.consume::<B>(&ops.node);
        let tensors = nodes.map(|node| checkpointer.retrieve_node_output::<FloatTensor<B>>(node));
        let of_bias = match ops.parents.get(3) {
            Some(Some(_)) => OfBias::Wanted,
            _ => OfBias::Skipped,
        };
        let Slopes { query, key, value, bias } =
            B::slopes(inputs(tensors, mask, options), Kept { out, lse, dout }, of_bias);
        let bias = match bias {
            Bias::Adds(bias) => Some(bias),
            Bias::None => None,
        };
        let slopes = [Some(query), Some(key), Some(value), bias];
        for (parent, slope) in ops.parents.into_iter().zip(slopes) {
            if let (Some(parent), Some(slope)) = (parent, slope) {
                grads.register::<B>(parent.id, slope);
            }
        }
    }
}
