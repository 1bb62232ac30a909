//! The model's attention, all of which is the crate's: for training, and for decoding with a cache of keys and values.

use wgpu_attention::{
    Append, Attention, Diagonal, Layout, Operand, Operands, Plan, Problem, Rotary, RotaryPairs, Shape,
};

use crate::Result;
use crate::kernels::{Kernels, Tensor, Work};
use crate::model::{DIM, HEADS, KV_HEADS, LAYERS, LayerActivations};

const fn rotary(positions: u32) -> Rotary {
    Rotary { dims: DIM, pairs: RotaryPairs::Halves, positions }
}

/// The cosines and sines of the rotary embedding, on the device.
pub(crate) fn rotary_table(kernels: &Kernels, positions: u32) -> Tensor {
    let table = Tensor::new(&kernels.device, "rotary table", [positions, DIM]);
    table.write(&kernels.queue, &rotary(positions).table(10_000.0, 1.0));
    table
}

/// Causal attention of whole sequences, and its gradients. Queries, keys and values are parts of one buffer; the example
/// rotates them there.
pub(crate) struct Training {
    shape: Shape,
    table: Tensor,
    forward: Plan,
    backward: Plan,
    /// Each layer keeps its log-sum-exp for the backward pass.
    lse: Vec<Tensor>,
    d_qkv: [Tensor; 3],
}

impl Training {
    pub(crate) fn new(kernels: &Kernels, attention: &Attention, table: &Tensor, sequences: u32) -> Result<Self> {
        let length = table.rows;
        let shape = Shape::new(sequences, HEADS, length, DIM).kv_heads(KV_HEADS);
        let [q, k, v] = Layout::packed_qkv(&shape);
        let [of_queries, of_keys] = [HEADS, KV_HEADS].map(|heads| Layout::blhd(heads, length, DIM));
        let problem = Problem::builder(shape).q(q).k(k).v(v).out(of_queries).causal(Diagonal::TopLeft).lse().build()?;
        let gradients = problem.gradients().dout(of_queries).dq(of_queries).dk(of_keys).dv(of_keys).build()?;
        let tensor = |label, columns| Tensor::new(&kernels.device, label, [sequences * length, columns]);
        Ok(Self {
            shape,
            table: table.clone(),
            forward: attention.plan(&problem)?,
            backward: attention.plan_gradients(&gradients)?,
            lse: (0..LAYERS).map(|_| tensor("lse", HEADS)).collect(),
            d_qkv: [("dq", HEADS), ("dk", KV_HEADS), ("dv", KV_HEADS)].map(|(name, heads)| tensor(name, heads * DIM)),
        })
    }

    /// From `qkv` to `mixed`.
    pub(crate) fn forward(&self, kernels: &Kernels, layer: usize, l: &LayerActivations) -> Result<[Work; 2]> {
        let call = self.forward.bind(&self.operands(layer, l))?;
        Ok([kernels.rotate(&self.shape, &self.table, &l.qkv), call.into()])
    }

    /// From the gradient of `mixed` to that of `qkv`.
    pub(crate) fn backward(
        &self,
        kernels: &Kernels,
        layer: usize,
        l: &LayerActivations,
        d_mixed: &Tensor,
        d_qkv: &Tensor,
    ) -> Result<[Work; 2]> {
        let [dq, dk, dv] = &self.d_qkv;
        let operands = self
            .operands(layer, l)
            .with(Operand::Dout, d_mixed.binding())
            .with(Operand::Dq, dq.binding())
            .with(Operand::Dk, dk.binding())
            .with(Operand::Dv, dv.binding());
        let call = self.backward.bind(&operands)?;
        Ok([call.into(), kernels.rotate_gradient(&self.shape, &self.table, &self.d_qkv, d_qkv)])
    }

    fn operands<'a>(&'a self, layer: usize, l: &'a LayerActivations) -> Operands<'a> {
        let qkv = || l.qkv.binding();
        Operands::new(qkv(), qkv(), qkv(), l.mixed.binding()).with(Operand::Lse, self.lse[layer].binding())
    }
}

/// Attention of one token per sequence to those before it, whose keys and values are in a cache.
pub(crate) struct Decoding {
    append: Plan,
    attend: Plan,
    table: Tensor,
    /// How many tokens each sequence has, with the new one.
    pub(crate) lengths: Tensor,
    q: Tensor,
    /// The keys and values of each layer.
    caches: Vec<[Tensor; 2]>,
}

impl Decoding {
    pub(crate) fn new(kernels: &Kernels, attention: &Attention, table: &Tensor, sequences: u32) -> Result<Self> {
        let capacity = table.rows;
        let [q, k, v] = Layout::packed_qkv(&Shape::new(sequences, HEADS, 1, DIM).kv_heads(KV_HEADS));
        let problem = Problem::builder(Shape::new(sequences, HEADS, 1, DIM).kv_heads(KV_HEADS).kv_len(capacity))
            .causal(Diagonal::BottomRight)
            .kv_lengths()
            .append(Append { q: Some(q), k: Some(k), v: Some(v), rotary: Some(rotary(capacity)) })
            .build()?;
        let tensor = |label, columns| Tensor::new(&kernels.device, label, [sequences, columns]);
        let cache = |label| tensor(label, KV_HEADS * capacity * DIM);
        Ok(Self {
            append: attention.plan_append(&problem)?,
            attend: attention.plan(&problem)?,
            table: table.clone(),
            lengths: tensor("lengths", 1),
            q: tensor("q", HEADS * DIM),
            caches: (0..LAYERS).map(|_| ["keys", "values"].map(cache)).collect(),
        })
    }

    /// From `qkv` to `mixed`, for one token of each sequence.
    pub(crate) fn forward(&self, layer: usize, l: &LayerActivations) -> Result<[Work; 2]> {
        let [keys, values] = &self.caches[layer];
        let operands = Operands::new(self.q.binding(), keys.binding(), values.binding(), l.mixed.binding())
            .with(Operand::KvLengths, self.lengths.binding())
            .with(Operand::NewQ, l.qkv.binding())
            .with(Operand::NewK, l.qkv.binding())
            .with(Operand::NewV, l.qkv.binding())
            .with(Operand::RotaryTable, self.table.binding());
        Ok([self.append.bind(&operands)?, self.attend.bind(&operands)?].map(Work::from))
    }
}
