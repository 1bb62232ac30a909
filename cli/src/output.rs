//! Output files that appear complete or not at all: each is written to a temporary file in the same folder, then renamed.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};
use safetensors::{Dtype as Stored, View};
use tempfile::NamedTempFile;
use wgpu_attention::Dtype;

use crate::tensors::stored;
use crate::unfinished;

/// An unfinished output file. It is created before the work starts, so that a folder that cannot be written is reported at
/// once. It is removed if it is dropped, or if a signal stops the program.
pub(crate) struct Pending {
    file: NamedTempFile,
    /// The final path. A symbolic link is resolved, so that the link itself stays.
    target: PathBuf,
    /// The path as the user wrote it, for messages.
    shown: PathBuf,
}

impl Pending {
    pub(crate) fn create(shown: &Path) -> Result<Self> {
        check_replaceable(shown)?;
        let target = destination(shown).with_context(|| format!("cannot write {}", shown.display()))?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".wgpu-attention-");
        // A temporary file is private by default; this one becomes an ordinary file, subject to the umask.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = unfinished::create(|| builder.tempfile_in(folder(&target))).map_err(|error| {
            anyhow!("cannot write {}: {}; name a folder that exists and is writable", shown.display(), error.kind())
        })?;
        Ok(Self { file, target, shown: shown.into() })
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> Result<()> {
        // Writes to the open file, because its path may no longer exist.
        self.file.as_file().write_all(bytes).with_context(|| format!("cannot write {}", self.shown.display()))
    }

    /// Renames the file to its final path.
    pub(crate) fn finish(self) -> Result<()> {
        let shown = self.shown;
        // Something else may have been created there since.
        check_replaceable(&shown)?;
        let persisted = self.file.persist(&self.target).map_err(|error| error.error);
        persisted.with_context(|| format!("cannot write {}", shown.display()))?;
        Ok(())
    }
}

/// How many symbolic links may follow one another, as on Linux.
const MOST_LINKS: usize = 40;

/// The path that `path` leads to through symbolic links. The file there need not exist yet.
fn destination(path: &Path) -> std::io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match path.read_link() {
            // An absolute `next` replaces the folder.
            Ok(next) => path = folder(&path).join(next),
            // Not a link, or not there.
            Err(_) => return Ok(path),
        }
    }
    Err(std::io::Error::other("there are too many symbolic links; name another file"))
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Refuses a folder, device, pipe or socket, which a file must not replace.
fn check_replaceable(target: &Path) -> Result<()> {
    let Ok(existing) = target.metadata() else { return Ok(()) };
    let shown = target.display();
    ensure!(!existing.is_dir(), "cannot write {shown}: it is a folder; name a file");
    ensure!(existing.is_file(), "cannot write {shown}: it is not a regular file; name one, or a new one");
    Ok(())
}

/// Whether two paths lead to the same file, which need not exist yet. Hard links to one file count as the same file.
pub(crate) fn same_file(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| {
        let end = destination(path)?;
        let name = end.file_name().unwrap_or_default();
        path.canonicalize().or_else(|_| folder(&end).canonicalize().map(|folder| folder.join(name)))
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
    /// The element type it is written in.
    pub(crate) element: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: &'a [f32],
}

/// Encodes a tensor only when it is written.
impl View for &Named<'_> {
    fn dtype(&self) -> Stored {
        stored(self.element)
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.element.encode(self.values).into()
    }

    fn data_len(&self) -> usize {
        self.values.len() * View::dtype(self).bitsize() / 8
    }
}

/// Writes tensors, with the metadata of the file they came from.
pub(crate) fn write(pending: &Pending, tensors: &[Named<'_>], metadata: &HashMap<String, String>) -> Result<()> {
    let views = tensors.iter().map(|tensor| (tensor.name, tensor));
    let metadata = (!metadata.is_empty()).then(|| metadata.clone());
    let bytes = safetensors::serialize(views, metadata)
        .map_err(|error| anyhow!("cannot write {}: {error}", pending.shown.display()))?;
    pending.write(&bytes)
}
