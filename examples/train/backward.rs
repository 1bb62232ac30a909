//! The backward pass: from the loss to the gradient of every weight. It mirrors [`forward`](crate::model::forward).

use crate::Result;
use crate::attention::Training;
use crate::kernels::{Kernels, Product, Sum, Tensor, Work};
use crate::model::{Activations, Weights};

/// From the logits to the losses of the rows, and to the gradients of the weights, in `d`.
pub(crate) fn backward(
    kernels: &Kernels,
    attention: &Training,
    weights: &Weights,
    a: &Activations,
    d: &Weights,
    row_losses: &Tensor,
) -> Result<Vec<Work>> {
    use Product::{InputGradient, WeightGradient};
    let like = |tensor: &Tensor| Tensor::new(&kernels.device, "gradient", [tensor.rows, tensor.columns]);
    // Each is read before the next layer writes it, so all layers share them.
    let (d_logits, dx, dy) = (like(&a.logits), like(&a.x), like(&a.last.y));
    let l = &a.layers[0];
    let (d_qkv, d_mixed, du, dh) = (like(&l.qkv), like(&l.mixed), like(&l.u), like(&l.h));

    let mut work = vec![kernels.cross_entropy(&a.tokens, &a.logits, &d_logits, row_losses)];
    work.push(kernels.matmul(WeightGradient, &a.last.y, &d_logits, &d.head));
    work.push(kernels.matmul(InputGradient, &d_logits, &weights.head, &dy));
    work.push(kernels.norm_gradient(Sum::Over, &dy, &a.last, &dx));
    for (n, (w, l)) in weights.layers.iter().zip(&a.layers).enumerate().rev() {
        let d = &d.layers[n];
        work.push(kernels.matmul(WeightGradient, &l.h, &dx, &d.down));
        work.push(kernels.matmul(InputGradient, &dx, &w.down, &dh));
        work.push(kernels.activate_gradient(&l.u, &dh, &du));
        work.push(kernels.matmul(WeightGradient, &l.before_hidden.y, &du, &d.up));
        work.push(kernels.matmul(InputGradient, &du, &w.up, &dy));
        work.push(kernels.norm_gradient(Sum::Onto, &dy, &l.before_hidden, &dx));

        work.push(kernels.matmul(WeightGradient, &l.mixed, &dx, &d.out));
        work.push(kernels.matmul(InputGradient, &dx, &w.out, &d_mixed));
        work.extend(attention.backward(kernels, n, l, &d_mixed, &d_qkv)?);
        work.push(kernels.matmul(WeightGradient, &l.before_attention.y, &d_qkv, &d.qkv));
        work.push(kernels.matmul(InputGradient, &d_qkv, &w.qkv, &dy));
        work.push(kernels.norm_gradient(Sum::Onto, &dy, &l.before_attention, &dx));
    }
    work.push(kernels.embed_gradient(&a.tokens, &dx, &d.embedding));
    Ok(work)
}
