//! Reads which queries and keys the sequences of a batch have, and where they lie.

use anyhow::{Result, bail, ensure};
use truth::Host;
use wgpu_attention::{Pages, ProblemBuilder, Shape};

use crate::tensors::{Tensor, TensorFile};

/// The tensors that place sequences.
pub(crate) struct Sequences {
    bounds_q: Option<Vec<u32>>,
    bounds_k: Option<Vec<u32>>,
    table: Option<Table>,
}

/// The pages of each sequence.
struct Table {
    batch: u32,
    /// Entries per sequence.
    row: u32,
    pages: Vec<i128>,
}

/// The sizes of a tensor of queries, keys or values.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// `None` if the tensor does not say it.
    pub(crate) batch: Option<u32>,
    pub(crate) heads: u32,
    pub(crate) len: u32,
    pub(crate) dim: u32,
}

impl Sequences {
    pub(crate) fn read(file: &TensorFile<'_>) -> Result<Self> {
        let bounds = |name| file.find(name)?.map(|tensor| bounds(name, &tensor)).transpose();
        let (bounds_q, bounds_k) = (bounds("cu_seqlens_q")?, bounds("cu_seqlens_k")?);
        let table = file.find("block_table")?.map(|tensor| Table::read(&tensor)).transpose()?;
        ensure!(
            bounds_k.is_none() || table.is_none(),
            "`cu_seqlens_k` and `block_table` both say where the keys lie; leave one out"
        );
        ensure!(
            table.is_none() || file.find("kv_lengths")?.is_some(),
            "`block_table` needs `kv_lengths`, the number of keys of each sequence"
        );
        Ok(Self { bounds_q, bounds_k, table })
    }

    /// The sizes of q.
    pub(crate) fn queries(&self, q: &Tensor<'_>) -> Result<Sizes> {
        match &self.bounds_q {
            Some(bounds) => ragged("q", q, "cu_seqlens_q", bounds),
            None => dense(q),
        }
    }

    /// The sizes of k or v.
    pub(crate) fn keys(&self, name: &str, tensor: &Tensor<'_>) -> Result<Sizes> {
        match (&self.bounds_k, &self.table) {
            (Some(bounds), _) => ragged(name, tensor, "cu_seqlens_k", bounds),
            (None, Some(table)) => {
                let [_, size, heads, dim] = tensor.shape.as_slice().try_into().map_err(|_| {
                    anyhow::anyhow!(
                        "`{name}` has shape {:?}; with a `block_table` it must be (pages, page size, heads, head size)",
                        tensor.shape
                    )
                })?;
                let Some(len) = table.row.checked_mul(size) else {
                    bail!("`block_table` lists {} pages of {size} keys per sequence, which is too long", table.row)
                };
                Ok(Sizes { batch: Some(table.batch), heads, len, dim })
            }
            (None, None) => dense(tensor),
        }
    }

    /// Adds what was read to a problem whose shape is known, and to its inputs.
    pub(crate) fn add(
        self,
        mut problem: ProblemBuilder,
        host: &mut Host,
        shape: &Shape,
        [q, k, v]: [&Tensor<'_>; 3],
    ) -> Result<ProblemBuilder> {
        if let Some(bounds) = self.bounds_q {
            problem = problem.ragged_q(q.shape[0]);
            host.cu_seqlens_q = Some(bounds);
        }
        if let Some(bounds) = self.bounds_k {
            problem = problem.ragged_kv(k.shape[0]);
            host.cu_seqlens_k = Some(bounds);
        }
        if let Some(table) = self.table {
            let pages = Pages { count: k.shape[0], size: k.shape[1] };
            ensure!(
                k.shape[..3] == v.shape[..3],
                "k has shape {:?} and v {:?}; they must agree in pages, page size and heads",
                k.shape,
                v.shape
            );
            host.block_table = Some(table.checked(pages, host.kv_lengths.as_deref().unwrap_or_default())?);
            problem = problem.paged_kv(pages);
        }
        let batches = [&host.cu_seqlens_q, &host.cu_seqlens_k].map(|bounds| bounds.as_ref().map(|all| all.len() - 1));
        ensure!(
            batches.into_iter().flatten().all(|batch| batch == shape.batch as usize),
            "the tensors disagree in the number of sequences: `cu_seqlens_q` and `cu_seqlens_k` have one number more than \
             there are sequences"
        );
        Ok(problem)
    }
}

fn dense(tensor: &Tensor<'_>) -> Result<Sizes> {
    let [batch, heads, len, dim] = tensor.rank4()?;
    Ok(Sizes { batch: Some(batch), heads, len, dim })
}

/// The sizes of a tensor (T, heads, head size) in which sequences lie between `bounds`.
fn ragged(name: &str, tensor: &Tensor<'_>, of: &str, bounds: &[u32]) -> Result<Sizes> {
    let Ok([total, heads, dim]) = <[u32; 3]>::try_from(tensor.shape.as_slice()) else {
        bail!("`{name}` has shape {:?}; with `{of}` it must be (T, heads, head size)", tensor.shape)
    };
    if let Some(last) = bounds.last().filter(|last| **last > total) {
        bail!("`{of}` ends at {last}, but `{name}` has {total} rows");
    }
    let longest = bounds.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
    Ok(Sizes { batch: u32::try_from(bounds.len() - 1).ok(), heads, len: longest, dim })
}

/// The bounds of sequences, in ascending order.
fn bounds(name: &str, tensor: &Tensor<'_>) -> Result<Vec<u32>> {
    ensure!(
        tensor.shape.len() == 1 && tensor.shape[0] > 0,
        "`{name}` has shape {:?}; it must be [B + 1]: where each sequence begins, and where the last one ends",
        tensor.shape
    );
    let mut bounds: Vec<u32> = Vec::new();
    for (n, bound) in tensor.integers()?.into_iter().enumerate() {
        let Ok(bound) = u32::try_from(bound) else {
            bail!("`{name}` is {bound} at [{n}]; it must be from 0 to 2^32 − 1")
        };
        if let Some(before) = bounds.last().filter(|before| **before > bound) {
            bail!("`{name}` falls from {before} to {bound} at [{n}]; a sequence cannot end before it begins");
        }
        bounds.push(bound);
    }
    Ok(bounds)
}

impl Table {
    fn read(tensor: &Tensor<'_>) -> Result<Self> {
        let Ok([batch, row]) = <[u32; 2]>::try_from(tensor.shape.as_slice()) else {
            bail!("`block_table` has shape {:?}; it must be (B, pages per sequence)", tensor.shape)
        };
        Ok(Self { batch, row, pages: tensor.integers()? })
    }

    /// The pages, of which those within each sequence's length must exist. What lies past it is never read, and may be
    /// anything.
    fn checked(self, pages: Pages, lengths: &[u32]) -> Result<Vec<u32>> {
        let mut table = Vec::new();
        for (n, &page) in self.pages.iter().enumerate() {
            let [sequence, nth] = [n / self.row as usize, n % self.row as usize];
            let begin = nth as u64 * u64::from(pages.size);
            let is_used = lengths.get(sequence).is_some_and(|&length| begin < u64::from(length));
            match u32::try_from(page) {
                Ok(page) if page < pages.count || !is_used => table.push(page),
                Err(_) if !is_used => table.push(u32::MAX),
                _ => bail!(
                    "`block_table` is {page} at [{sequence}, {nth}], within the {} keys of the sequence, but there are {} \
                     pages",
                    lengths[sequence],
                    pages.count
                ),
            }
        }
        Ok(table)
    }
}
