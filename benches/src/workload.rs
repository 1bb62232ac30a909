//! One shape to measure, and the least work that it takes.

use std::str::FromStr;

use wgpu_attention::{Diagonal, Dtype, Operand, Problem, ProblemError, ScoreLayout, Shape};

/// A shape, which keys it hides, and the suite it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// `prefill`, `decode`, `backward`, or `shape` for one given by hand.
    pub suite: &'static str,
    /// Its name, if other projects are measured on it too.
    pub name: Option<&'static str>,
    /// The sizes.
    pub shape: Shape,
    /// Whether the last query sees every key, and each before it one less.
    pub causal: bool,
    /// Whether a mask hides the keys past a length of each batch.
    pub mask: bool,
}

/// Up to this many queries, most time goes to reading the keys and values.
const FEW_QUERIES: u32 = 64;

impl Workload {
    /// A workload that is neither causal nor masked.
    pub(crate) const fn new(suite: &'static str, [batch, heads_q, heads_kv, len_q, len_k, dim]: [u32; 6]) -> Self {
        let shape = Shape::new(batch, heads_q, len_q, dim).kv_heads(heads_kv).kv_len(len_k);
        Self { suite, name: None, shape, causal: false, mask: false }
    }

    pub(crate) const fn causal(self) -> Self {
        Self { causal: true, ..self }
    }

    pub(crate) const fn masked(self) -> Self {
        Self { mask: true, ..self }
    }

    pub(crate) const fn named(self, name: &'static str) -> Self {
        Self { name: Some(name), ..self }
    }

    /// Whether both have the same problem, whatever their names.
    pub(crate) fn is_same_problem(&self, other: &Self) -> bool {
        (self.shape, self.causal, self.mask) == (other.shape, other.causal, other.mask)
    }

    /// Whether the gradients are measured too.
    pub(crate) fn is_backward(&self) -> bool {
        self.suite == "backward"
    }

    /// Whether the caches matter: few queries, and more keys.
    pub(crate) const fn is_decode(&self) -> bool {
        self.shape.len_q <= FEW_QUERIES && self.shape.len_q < self.shape.len_kv
    }

    /// The problem for the library.
    ///
    /// # Errors
    /// If the sizes are not those of a valid problem.
    pub fn problem(&self, dtype: Dtype) -> Result<Problem, ProblemError> {
        let mut problem = Problem::builder(self.shape).dtype(dtype);
        if self.causal {
            problem = problem.causal(Diagonal::BottomRight);
        }
        if self.mask {
            problem = problem.mask(ScoreLayout::broadcast([self.shape.batch, 1, 1, self.shape.len_kv]));
        }
        problem.build()
    }

    /// The keys that a mask keeps in a batch: three quarters in even batches, all but five in odd ones.
    pub(crate) const fn kept_keys(&self, batch: u32) -> u32 {
        let keys = self.shape.len_kv;
        if batch.is_multiple_of(2) { keys - keys / 4 } else { keys.saturating_sub(5) }
    }

    /// The number of operations, two per multiply-add: 2·B·Hq·Lq·Lk·(Dqk + Dv). A causal problem counts only the part
    /// before its diagonal: half, if there are as many keys as queries. A mask does not reduce the count.
    pub fn flop(&self) -> f64 {
        let Shape { batch, heads_q, len_q, len_kv, dim_qk, dim_v, .. } = self.shape;
        let [batch, heads, queries, keys] = [batch, heads_q, len_q, len_kv].map(f64::from);
        let seen = match self.causal {
            false => 1.0,
            true if queries <= keys => 1.0 - queries / (2.0 * keys),
            true => keys / (2.0 * queries),
        };
        2.0 * batch * heads * queries * keys * f64::from(dim_qk + dim_v) * seen
    }
}

/// The least memory traffic: q, k, v and the output, each once.
pub(crate) fn bytes(problem: &Problem) -> f64 {
    let tensors = [Operand::Q, Operand::K, Operand::V, Operand::Out];
    tensors.into_iter().filter_map(|operand| problem.view(operand)).map(|view| view.size_bytes() as f64).sum()
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let usage =
            || "write six whole numbers, then `causal` or `mask`, such as 1,8,2,1024,1024,128,causal".to_owned();
        let words: Vec<&str> = text.split(',').map(str::trim).collect();
        let (sizes, flags) = words.split_at_checked(6).ok_or_else(usage)?;
        let sizes: Vec<u32> = sizes.iter().map(|size| size.parse()).collect::<Result<_, _>>().map_err(|_| usage())?;
        if sizes.contains(&0) {
            return Err("every size must be at least 1, or there is nothing to measure".to_owned());
        }
        let sizes = sizes.try_into().map_err(|_| usage())?;
        let mut workload = Self::new("shape", sizes);
        for flag in flags {
            workload = match *flag {
                "causal" => workload.causal(),
                "mask" => workload.masked(),
                _ => return Err(usage()),
            };
        }
        workload.problem(Dtype::F32).map_err(|error| error.to_string())?;
        Ok(workload)
    }
}

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shape { batch, heads_q, heads_kv, len_q, len_kv, dim_qk, .. } = self.shape;
        if let Some(name) = self.name {
            write!(f, "{name} ")?;
        }
        write!(f, "{batch},{heads_q},{heads_kv},{len_q},{len_kv},{dim_qk}")?;
        f.write_str(if self.causal { ",causal" } else { "" })?;
        f.write_str(if self.mask { ",mask" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_read_as_they_print() {
        for text in ["1,8,2,1024,512,128", "1,8,8,64,64,32,causal", "2,4,4,384,384,32,mask", "1,1,1,2,2,4,causal,mask"]
        {
            let workload: Workload = text.parse().expect("a shape");
            assert_eq!(workload.to_string(), text);
        }
        for bad in ["", "1,8,8,64,64", "1,8,8,64,64,32,64", "1,8,3,64,64,32", "1,8,8,0,64,32", "1,8,8,64,64,x"] {
            assert!(bad.parse::<Workload>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn operations_are_counted_once_and_halved_below_the_diagonal() {
        let flop = |text: &str| text.parse::<Workload>().expect("a shape").flop();
        assert_eq!(flop("2,8,2,100,50,64"), 4.0 * 2.0 * 8.0 * 100.0 * 50.0 * 64.0);
        assert_eq!(flop("1,1,1,64,64,8,causal"), flop("1,1,1,64,64,8") / 2.0);
        // One query at the end sees all keys.
        assert!(flop("1,1,1,1,1000,8,causal") > 0.999 * flop("1,1,1,1,1000,8"));
    }

    #[test]
    fn bytes_are_those_of_the_four_tensors() {
        let workload: Workload = "1,8,2,16,32,64".parse().expect("a shape");
        let problem = workload.problem(Dtype::F16).expect("a problem");
        assert_eq!(bytes(&problem), 2.0 * 64.0 * (8.0 * 16.0 + 2.0 * 32.0 + 2.0 * 32.0 + 8.0 * 16.0));
    }
}
