//! The lock on a store's directory: one opening at a time, in this process or any other.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// How often a held lock is tried again, and how long between: a store that was just dropped closes in the
/// background, and opening it again should not fail for that.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// Held while the store is open; released when dropped, or by the system when the process dies.
pub(crate) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Creates the directory if it is missing and locks it, waiting up to a second for another holder.
    pub(crate) fn acquire(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory).map_err(|e| unavailable(directory, "cannot be created", e))?;
        let path = directory.join("LOCK");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| unavailable(directory, "cannot be written to", e))?;
        for _ in 0..ATTEMPTS {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) => std::thread::park_timeout(PAUSE),
                Err(TryLockError::Error(e)) => return Err(unavailable(directory, "cannot be locked", e)),
            }
        }
        let message = format!(
            "the directory `{}` is in use: is another process, or another cache of this one, using it? \
             Give each its own directory",
            directory.display()
        );
        Err(Error::new(ErrorKind::Unavailable, message))
    }

    /// Whether the locked file is still the one in the directory: it is not after the directory was deleted.
    pub(crate) fn is_in_place(directory: &Path) -> bool {
        directory.join("LOCK").exists()
    }
}

fn unavailable(directory: &Path, what: &str, source: std::io::Error) -> Error {
    let message = format!("the directory `{}` {what} ({source})", directory.display());
    Error::new(ErrorKind::Unavailable, message).with_source(source)
}
