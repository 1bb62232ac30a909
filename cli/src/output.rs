//! Files that appear whole or not at all: written beside their place, then renamed into it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};
use safetensors::{Dtype as Stored, View};
use tempfile::NamedTempFile;
use wgpu_attention::Dtype;

use crate::tensors::stored;

/// A file on its way. Made before the work starts, so that a folder that cannot be written is known at once; gone
/// without a trace if dropped.
pub(crate) struct Pending {
    file: NamedTempFile,
    target: PathBuf,
}

impl Pending {
    pub(crate) fn create(target: &Path) -> Result<Self> {
        check_replaceable(target)?;
        let folder = match target.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".wgpu-attention-");
        // A temporary file is private by default; this one becomes an ordinary file, subject to the umask.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder).map_err(|error| {
            anyhow!("cannot write {}: {}; name a folder that exists and is writable", target.display(), error.kind())
        })?;
        Ok(Self { file, target: target.into() })
    }

    /// Where to write.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Lets the file appear in its place.
    pub(crate) fn finish(self) -> Result<()> {
        let target = self.target;
        // It may have come into being since.
        check_replaceable(&target)?;
        let persisted = self.file.persist(&target).map_err(|error| error.error);
        persisted.with_context(|| format!("cannot write {}", target.display()))?;
        Ok(())
    }
}

/// Refuses a folder, device, pipe or socket: a file must not take its place.
fn check_replaceable(target: &Path) -> Result<()> {
    let Ok(existing) = target.metadata() else { return Ok(()) };
    let shown = target.display();
    ensure!(!existing.is_dir(), "cannot write {shown}: it is a folder; name a file");
    ensure!(existing.is_file(), "cannot write {shown}: it is not a regular file; name one, or a new one");
    Ok(())
}

/// Whether two paths lead to the same file, whether or not it exists yet. Hard links do.
pub(crate) fn same_file(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| {
        let (folder, name) = (path.parent().unwrap_or(Path::new("")), path.file_name());
        let folder = if folder == Path::new("") { Path::new(".") } else { folder };
        path.canonicalize().or_else(|_| folder.canonicalize().map(|folder| folder.join(name.unwrap_or_default())))
    };
    let same_path = match (real(a), real(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    };
    same_path || linked(a, b)
}

#[cfg(unix)]
fn linked(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let id = |path: &Path| path.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
    id(a).is_some_and(|a| id(b) == Some(a))
}

#[cfg(not(unix))]
fn linked(_: &Path, _: &Path) -> bool {
    false
}

/// One tensor to write.
pub(crate) struct Named<'a> {
    pub(crate) name: &'a str,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: &'a [f32],
}

/// A tensor as the file has it, encoded when its turn comes.
struct Encoded<'a> {
    tensor: &'a Named<'a>,
    element: Dtype,
}

impl View for Encoded<'_> {
    fn dtype(&self) -> Stored {
        stored(self.element)
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.element.encode(self.tensor.values).into()
    }

    fn data_len(&self) -> usize {
        self.tensor.values.len() * self.dtype().bitsize() / 8
    }
}

/// Writes tensors as `element`, with the metadata of the file they came from.
pub(crate) fn write(
    pending: &Pending,
    tensors: &[Named<'_>],
    element: Dtype,
    metadata: &HashMap<String, String>,
) -> Result<()> {
    let views = tensors.iter().map(|tensor| (tensor.name, Encoded { tensor, element }));
    let metadata = (!metadata.is_empty()).then(|| metadata.clone());
    let shown = pending.target.display();
    let bytes = safetensors::serialize(views, metadata).map_err(|error| anyhow!("cannot write {shown}: {error}"))?;
    // Not `serialize_to_file`, which would put a private file in the place of this one.
    std::fs::write(pending.path(), bytes).with_context(|| format!("cannot write {shown}"))
}
