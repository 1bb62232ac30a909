//! Unfinished output files, which are removed if a signal stops the program.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use tempfile::NamedTempFile;

/// Every temporary file that was created. Those that were renamed or removed no longer exist under this name.
static FILES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Creates a temporary file that is removed on SIGINT and SIGTERM.
pub(crate) fn create(make: impl FnOnce() -> std::io::Result<NamedTempFile>) -> std::io::Result<NamedTempFile> {
    // Locked while the file is created, so that the watcher either sees the file or prevents its creation.
    let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    #[cfg(unix)]
    if files.is_empty() {
        watch()?;
    }
    let file = make()?;
    files.push(file.path().to_owned());
    Ok(file)
}

/// Starts a thread that waits for a signal, removes the files, and exits with the code that a shell would report.
#[cfg(unix)]
fn watch() -> std::io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};

    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // Never released, so that no file is created from here on.
            let files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
            for file in files.iter() {
                // On an error the file is already gone, or nothing can be done.
                let _ = std::fs::remove_file(file);
            }
            // Exits at once, because a driver's exit handlers may wait for work that still runs.
            signal_hook::low_level::exit(128 + signal);
        }
    })?;
    Ok(())
}
