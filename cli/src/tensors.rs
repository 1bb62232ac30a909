//! Reads the tensors of a safetensors file and converts them on demand, with errors that name the tensor and the remedy.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use safetensors::{Dtype as Stored, SafeTensors};
use serde::Deserialize as _;
use wgpu_attention::Dtype;

/// Reads a whole file, which should hold `what`. A pipe or a device is refused, because it may never end.
pub(crate) fn read_bytes(path: &Path, what: &str) -> Result<Vec<u8>> {
    let shown = path.display();
    let read = path.metadata().and_then(|file| file.is_file().then(|| std::fs::read(path)).transpose());
    match read {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => bail!("cannot read {shown}: it is not a regular file; name {what}"),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("cannot read {shown}: there is no such file; name {what}")
        }
        Err(error) => bail!("cannot read {shown}: {}; name {what}", error.kind()),
    }
}

/// A parsed file.
pub(crate) struct TensorFile<'a> {
    tensors: SafeTensors<'a>,
    ignored: Vec<String>,
    pub(crate) metadata: HashMap<String, String>,
}

/// A tensor of the file, as stored.
pub(crate) struct Tensor<'a> {
    name: String,
    pub(crate) stored: Stored,
    pub(crate) shape: Vec<u32>,
    pub(crate) bytes: &'a [u8],
}

impl<'a> TensorFile<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let parsed = SafeTensors::deserialize(bytes).and_then(|file| Ok((file, SafeTensors::read_metadata(bytes)?)));
        let (tensors, (_, header)) = parsed.map_err(|error| match unknown_type(bytes) {
            Some((name, stored)) => anyhow!(
                "`{name}` is stored as {stored}, a type this program does not know; convert it to another, such as F32"
            ),
            // The error's text already contains its source.
            None => {
                anyhow!("this is not a whole safetensors file ({error}); write it again with a safetensors library")
            }
        })?;
        Ok(Self { tensors, ignored: Vec::new(), metadata: header.metadata().clone().unwrap_or_default() })
    }

    /// The names of its tensors, sorted.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names = self.tensors.names();
        names.retain(|name| !self.ignored.iter().any(|ignored| ignored == name));
        names.sort_unstable();
        names
    }

    /// The file without these tensors.
    pub(crate) fn ignoring(self, names: &[String]) -> Self {
        Self { ignored: names.to_vec(), ..self }
    }

    /// The tensor, or `None` where the file has none of that name.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Tensor<'a>>> {
        if self.ignored.iter().any(|ignored| ignored == name) {
            return Ok(None);
        }
        let Ok(view) = self.tensors.tensor(name) else { return Ok(None) };
        let sizes = view.shape().iter().map(|&size| u32::try_from(size));
        let shape = sizes.collect::<Result<_, _>>().with_context(|| {
            format!("`{name}` has shape {:?}, and an axis may be at most {} long", view.shape(), u32::MAX)
        })?;
        Ok(Some(Tensor { name: name.into(), stored: view.dtype(), shape, bytes: view.data() }))
    }

    pub(crate) fn need(&self, name: &str) -> Result<Tensor<'a>> {
        self.find(name)?.ok_or_else(|| anyhow!("there is no tensor `{name}`; the file holds {}", list(&self.names())))
    }
}

/// The name and the type of a tensor whose type safetensors does not know.
fn unknown_type(bytes: &[u8]) -> Option<(String, String)> {
    let (length, rest) = bytes.split_first_chunk()?;
    let header = rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let header: HashMap<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    let unknown = header.into_iter().filter_map(|(name, tensor)| {
        let stored = tensor.get("dtype")?.as_str()?;
        Stored::deserialize(&tensor["dtype"]).is_err().then(|| (name, stored.to_owned()))
    });
    unknown.min()
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none at all".into() } else { names.join(", ") }
}

impl Tensor<'_> {
    /// The element type, if attention computes on it.
    pub(crate) fn element(&self) -> Result<Dtype> {
        element(self.stored)
            .ok_or_else(|| anyhow!("`{}` is stored as {:?}; convert it to F32, F16 or BF16", self.name, self.stored))
    }

    /// Values of one of the three element types.
    pub(crate) fn floats(&self) -> Result<Vec<f32>> {
        Ok(self.element()?.decode(self.bytes))
    }

    /// Values of any numeric type, as f32.
    pub(crate) fn numbers(&self) -> Result<Vec<f32>> {
        #[expect(clippy::cast_possible_truncation, reason = "attention computes in f32")]
        match (element(self.stored), self.stored) {
            (Some(dtype), _) => Ok(dtype.decode(self.bytes)),
            (None, Stored::F64) => Ok(self.bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect()),
            (None, _) => Ok(self.integers()?.into_iter().map(|number| number as f32).collect()),
        }
    }

    /// Values of any integer type.
    pub(crate) fn integers(&self) -> Result<Vec<i128>> {
        macro_rules! read {
            ($int:ty) => {
                self.bytes.as_chunks().0.iter().map(|&bytes| i128::from(<$int>::from_le_bytes(bytes))).collect()
            };
        }
        Ok(match self.stored {
            Stored::U8 => read!(u8),
            Stored::I8 => read!(i8),
            Stored::U16 => read!(u16),
            Stored::I16 => read!(i16),
            Stored::U32 => read!(u32),
            Stored::I32 => read!(i32),
            Stored::U64 => read!(u64),
            Stored::I64 => read!(i64),
            other => bail!("`{}` is stored as {other:?}; convert it to an integer type such as I64", self.name),
        })
    }

    /// Values of a boolean mask, non-zero = attend.
    pub(crate) fn booleans(&self) -> Result<Vec<bool>> {
        ensure!(
            matches!(self.stored, Stored::BOOL | Stored::U8),
            "`{}` is stored as {:?}; convert a boolean mask to BOOL or U8, and give an additive one as `bias`",
            self.name,
            self.stored
        );
        Ok(self.bytes.iter().map(|&byte| byte != 0).collect())
    }

    pub(crate) fn rank4(&self) -> Result<[u32; 4]> {
        self.shape.as_slice().try_into().map_err(|_| {
            anyhow!("`{}` has shape {:?}; reshape it to (batch, heads, length, head size)", self.name, self.shape)
        })
    }

    /// The shape with leading ones up to rank 4: right-aligned to the scores.
    pub(crate) fn aligned(&self) -> Result<[u32; 4]> {
        let rank = self.shape.len();
        ensure!(
            (1..=4).contains(&rank),
            "`{}` has shape {:?}; it must have 1 to 4 axes that broadcast to (batch, heads, queries, keys)",
            self.name,
            self.shape
        );
        let mut shape = [1; 4];
        shape[4 - rank..].copy_from_slice(&self.shape);
        Ok(shape)
    }
}

/// The element type attention computes on, if this is one.
pub(crate) fn element(stored: Stored) -> Option<Dtype> {
    match stored {
        Stored::F32 => Some(Dtype::F32),
        Stored::F16 => Some(Dtype::F16),
        Stored::BF16 => Some(Dtype::Bf16),
        _ => None,
    }
}

/// How safetensors spells an element type.
pub(crate) fn stored(dtype: Dtype) -> Stored {
    match dtype {
        Dtype::F32 => Stored::F32,
        Dtype::F16 => Stored::F16,
        Dtype::Bf16 => Stored::BF16,
    }
}
