//! The backward pass: from the loss back to the gradient of every weight. It mirrors [`forward`](crate::model::forward).

use crate::Result;
use crate::attention::Training;
use crate::kernels::{Kernels, Product, Sum, Tensor, Work};
use crate::model::{Activations, Weights};

/// Gradients of activations. Each is read before the next layer writes it, so all layers share them.
struct Gradients {
    logits: Tensor,
    x: Tensor,
    y: Tensor,
    qkv: Tensor,
    mixed: Tensor,
    u: Tensor,
    h: Tensor,
}

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
    let l = &a.layers[0];
    let g = Gradients {
        logits: like(&a.logits),
        x: like(&a.x),
        y: like(&a.last.y),
        qkv: like(&l.qkv),
        mixed: like(&l.mixed),
        u: like(&l.u),
        h: like(&l.h),
    };

    let mut work = vec![kernels.cross_entropy(&a.tokens, &a.logits, &g.logits, row_losses)];
    work.push(kernels.matmul(WeightGradient, &a.last.y, &g.logits, &d.head));
    work.push(kernels.matmul(InputGradient, &g.logits, &weights.head, &g.y));
    work.push(kernels.norm_gradient(Sum::Over, &g.y, &a.last, &g.x));
    for (n, (w, l)) in weights.layers.iter().zip(&a.layers).enumerate().rev() {
        let d = &d.layers[n];
        work.push(kernels.matmul(WeightGradient, &l.h, &g.x, &d.down));
        work.push(kernels.matmul(InputGradient, &g.x, &w.down, &g.h));
        work.push(kernels.activate_gradient(&l.u, &g.h, &g.u));
        work.push(kernels.matmul(WeightGradient, &l.before_hidden.y, &g.u, &d.up));
        work.push(kernels.matmul(InputGradient, &g.u, &w.up, &g.y));
        work.push(kernels.norm_gradient(Sum::Onto, &g.y, &l.before_hidden, &g.x));

        work.push(kernels.matmul(WeightGradient, &l.mixed, &g.x, &d.out));
        work.push(kernels.matmul(InputGradient, &g.x, &w.out, &g.mixed));
        work.extend(attention.backward(kernels, n, l, &g.mixed, &g.qkv)?);
        work.push(kernels.matmul(WeightGradient, &l.before_attention.y, &g.qkv, &d.qkv));
        work.push(kernels.matmul(InputGradient, &g.qkv, &w.qkv, &g.y));
        work.push(kernels.norm_gradient(Sum::Onto, &g.y, &l.before_attention, &g.x));
    }
    work.push(kernels.embed_gradient(&a.tokens, &g.x, &d.embedding));
    Ok(work)
}
