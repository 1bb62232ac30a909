//! Files that are not whole yet, which a program that is told to stop must take away.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use tempfile::NamedTempFile;

/// Every temporary file there was. The name of one that has been renamed or removed leads nowhere.
static FILES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Makes a temporary file that SIGINT and SIGTERM remove.
pub(crate) fn create(make: impl FnOnce() -> std::io::Result<NamedTempFile>) -> std::io::Result<NamedTempFile> {
    // Held while the file is made: the watcher sees it, or it is never made.
    let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    #[cfg(unix)]
    if files.is_empty() {
        watch()?;
    }
    let file = make()?;
    files.push(file.path().to_owned());
    Ok(file)
}

/// Waits for a signal on a thread of its own, removes the files, and ends the program as a shell would report it.
#[cfg(unix)]
fn watch() -> std::io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};

    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // Never released: no file is made from here on.
            let files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
            for file in files.iter() {
                // Gone already, or it cannot be helped.
                let _ = std::fs::remove_file(file);
            }
            // At once: a driver's own exit handlers may wait for work that still runs.
            signal_hook::low_level::exit(128 + signal);
        }
    })?;
    Ok(())
}
