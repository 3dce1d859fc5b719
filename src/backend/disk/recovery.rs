//! Opening fjall over whatever is on the disk: what is damaged is told from what is merely not reachable.

use std::any::Any;
use std::fs;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::runtime::panic_message;

/// fjall's minimum: sealed journals beyond it make it write out what keeps them.
const JOURNALS: u64 = 64 << 20;

/// Why a store could not be opened.
pub(crate) enum Refusal {
    /// Its bytes cannot be understood; opening it again will not help.
    Damaged(String),
    /// The system or another process stands in the way; it may open later.
    Unavailable(Error),
}

impl Refusal {
    pub(crate) fn of(directory: &Path, error: fjall::Error) -> Self {
        if is_damage(&error) {
            return Self::Damaged(error.to_string());
        }
        let message = format!("the store in `{}` cannot be opened ({error})", directory.display());
        Self::Unavailable(Error::new(ErrorKind::Unavailable, message).with_source(error))
    }

    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        Self::Damaged(format!("reading it panicked: {}", panic_message(panic)))
    }

    /// As the tier's error, saying what can be done.
    pub(crate) fn into_error(self, directory: &Path) -> Error {
        match self {
            Self::Unavailable(error) => error,
            Self::Damaged(what) => Error::new(
                ErrorKind::Backend,
                format!(
                    "the store in `{}` is damaged ({what}): delete the directory, or let \
                     `reset_if_damaged` move the damaged files aside and start empty",
                    directory.display()
                ),
            ),
        }
    }
}

/// Whether an error means that bytes are wrong, rather than that they could not be had.
pub(crate) fn is_damage(error: &fjall::Error) -> bool {
    match error {
        fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) => is_damage_io(e),
        fjall::Error::Locked | fjall::Error::Poisoned | fjall::Error::KeyspaceDeleted => false,
        _ => true,
    }
}

fn is_damage_io(error: &io::Error) -> bool {
    // A file that the manifest names is gone, too short (also for a seek from its end), or does not parse.
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::NotADirectory
    )
}

/// Where fjall's files are.
pub(crate) fn data_directory(directory: &Path) -> PathBuf {
    directory.join("data")
}

/// fjall's own mark of a complete store.
pub(crate) fn version_file(directory: &Path) -> PathBuf {
    data_directory(directory).join("version")
}

/// Opens or creates fjall's database in `directory`. Panics of fjall over damaged bytes are caught.
pub(crate) fn open_database(directory: &Path, read_cache: u64) -> Result<fjall::Database, Refusal> {
    let data = data_directory(directory);
    prepare(directory, &data)?;
    let open = || {
        fjall::Database::builder(&data)
            .worker_threads(2)
            .cache_size(read_cache)
            .max_journaling_size(JOURNALS)
            // The journal is short-lived, and values may be compressed already.
            .journal_compression(fjall::CompressionType::None)
            .open()
    };
    match std::panic::catch_unwind(AssertUnwindSafe(open)) {
        Ok(opened) => opened.map_err(|e| Refusal::of(directory, e)),
        Err(panic) => Err(Refusal::panicked(&*panic)),
    }
}

/// Clears away a creation that was cut short, and finds what would make fjall panic under its own locks (which, in
/// turn, would make its clean-up panic and abort the process).
fn prepare(directory: &Path, data: &Path) -> Result<(), Refusal> {
    let io_error = |e| Refusal::of(directory, fjall::Error::Io(e));
    let keyspaces = data.join("keyspaces");
    let mut any_keyspace = false;
    match fs::read_dir(&keyspaces) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry.map_err(io_error)?;
                let is_keyspace = entry.file_name().to_str().is_some_and(|name| name.parse::<u64>().is_ok());
                if !is_keyspace && !entry.file_type().map_err(io_error)?.is_file() {
                    let what = format!("there is a foreign directory `{}`", entry.path().display());
                    return Err(Refusal::Damaged(what));
                }
                any_keyspace |= is_keyspace;
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(io_error(e)),
    }
    let complete = match fs::metadata(data.join("version")) {
        Ok(version) => version.len() > 0,
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(io_error(e)),
    };
    if complete || !data.exists() {
        return Ok(());
    }
    // fjall writes the version file before the first keyspace, so a store without either never held an entry.
    if any_keyspace {
        return Err(Refusal::Damaged("its version file is missing or empty".to_owned()));
    }
    fs::remove_dir_all(data).map_err(io_error)
}

/// Moves damaged files out of the way, to the first free `damaged-<n>`.
pub(crate) fn move_aside(directory: &Path) -> Result<PathBuf> {
    let data = data_directory(directory);
    let aside = (1_u32..).map(|n| directory.join(format!("damaged-{n}"))).find(|path| !path.exists());
    // An endless range always has a next one.
    let aside = aside.unwrap_or_else(|| directory.join("damaged"));
    fs::rename(&data, &aside).map_err(|e| {
        let message = format!("the damaged store `{}` cannot be moved aside ({e})", data.display());
        Error::new(ErrorKind::Unavailable, message).with_source(e)
    })?;
    Ok(aside)
}
