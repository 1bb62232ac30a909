//! Files that appear whole or not at all: written beside their place, then renamed into it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};
use safetensors::tensor::TensorView;
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
        ensure!(!target.is_dir(), "cannot write {}: it is a folder; name a file", target.display());
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
        self.file.persist(&target).with_context(|| format!("cannot write {}", target.display()))?;
        Ok(())
    }
}

/// Whether two paths lead to the same file, whether or not it exists yet.
pub(crate) fn same_file(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| {
        let (folder, name) = (path.parent().unwrap_or(Path::new("")), path.file_name());
        let folder = if folder == Path::new("") { Path::new(".") } else { folder };
        path.canonicalize().or_else(|_| folder.canonicalize().map(|folder| folder.join(name.unwrap_or_default())))
    };
    match (real(a), real(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

/// One tensor to write.
pub(crate) struct Named<'a> {
    pub(crate) name: &'a str,
    pub(crate) shape: Vec<u32>,
    pub(crate) values: &'a [f32],
}

/// Writes tensors as `element`, with the metadata of the file they came from.
pub(crate) fn write(
    pending: &Pending,
    tensors: &[Named<'_>],
    element: Dtype,
    metadata: &HashMap<String, String>,
) -> Result<()> {
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|tensor| element.encode(tensor.values)).collect();
    let mut views = Vec::new();
    for (tensor, bytes) in tensors.iter().zip(&bytes) {
        let shape = tensor.shape.iter().map(|&size| size as usize).collect();
        views.push((tensor.name, TensorView::new(stored(element), shape, bytes)?));
    }
    let metadata = (!metadata.is_empty()).then(|| metadata.clone());
    safetensors::serialize_to_file(views, metadata, pending.path())
        .with_context(|| format!("cannot write {}", pending.target.display()))
}
