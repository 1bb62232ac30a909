//! The command line.

pub(crate) const USAGE: &str = "usage: --shape B,HQ,HKV,LQ,LK,D[,causal|,mask] … [--dtype f32|f16|bf16] \
[--repeats 7] [--warmups 2]";

/// One attention problem, without its numbers.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub batch: usize,
    pub heads_q: usize,
    pub heads_kv: usize,
    pub len_q: usize,
    pub len_k: usize,
    pub dim: usize,
    pub causal: bool,
    /// A padding mask over the keys, (B, 1, 1, Lk).
    pub mask: bool,
}

impl Shape {
    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let mut size = || match parts.next().map(str::parse::<usize>) {
            Some(Ok(size)) if size > 0 => Ok(size),
            _ => Err(format!("--shape {text}: six sizes of at least 1 are needed")),
        };
        let (batch, heads_q, heads_kv) = (size()?, size()?, size()?);
        let (len_q, len_k, dim) = (size()?, size()?, size()?);
        let mut shape = Self { batch, heads_q, heads_kv, len_q, len_k, dim, causal: false, mask: false };
        for word in parts {
            match word {
                "causal" => shape.causal = true,
                "mask" => shape.mask = true,
                _ => return Err(format!("--shape {text}: unknown {word:?}")),
            }
        }
        if heads_q % heads_kv != 0 {
            return Err(format!("--shape {text}: HKV must divide HQ"));
        }
        if shape.causal && len_q != len_k {
            return Err(format!("--shape {text}: causal needs LQ = LK: peers disagree on the diagonal otherwise"));
        }
        Ok(shape)
    }

    /// Floating-point operations of both products, half of them for causal.
    pub fn flop(&self) -> f64 {
        let full = 4.0
            * [self.batch, self.heads_q, self.len_q, self.len_k, self.dim].map(|n| n as f64).iter().product::<f64>();
        if self.causal { full / 2.0 } else { full }
    }
}

/// The type of the elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    F32,
    F16,
    Bf16,
}

impl Dtype {
    const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

/// What is measured, and how often.
#[derive(Debug)]
pub struct Options {
    pub shapes: Vec<Shape>,
    pub dtype: Dtype,
    pub repeats: usize,
    pub warmups: usize,
}

impl Options {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { shapes: Vec::new(), dtype: Dtype::F32, repeats: 7, warmups: 2 };
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(format!("{name} needs a value"))?;
            let number = || value.parse().map_err(|_| format!("{name} {value}: not a number"));
            match name.as_str() {
                "--shape" => options.shapes.push(Shape::parse(&value)?),
                "--dtype" => {
                    let known = Dtype::ALL.into_iter().find(|dtype| dtype.name() == value);
                    options.dtype = known.ok_or(format!("--dtype {value}: unknown"))?;
                }
                "--repeats" => options.repeats = number()?,
                "--warmups" => options.warmups = number()?,
                _ => return Err(format!("unknown argument {name}")),
            }
        }
        if options.shapes.is_empty() || options.repeats == 0 {
            return Err("at least one --shape and one repeat are needed".to_owned());
        }
        Ok(options)
    }
}
