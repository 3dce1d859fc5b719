//! Dead letters in a file, a line of JSON each, to be read by people, tools and [`LetterReader`].
//!
//! ```text
//! {"tier":"redis","key":"user:v1:id=7","removal":false,"frame":"54 4b … in hex","stamp":{"time":…,"node":…},
//!  "attempts":16,"accepted":ms,"died":ms,"reason":"attempts","error":"…"}
//! ```

mod line;
mod reader;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

pub use reader::LetterReader;

use super::dead_letter::{DeadLetter, DeadLetterSink};
use crate::backend::BackendResult;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::RuntimeHandle;

/// A sink that appends letters to a file, one line of JSON each, on the runtime's blocking pool.
///
/// A file that has reached its bound is renamed to `<path>.1`, or the next number that is free, and a new one begun. No
/// file is ever deleted: when there are as many as allowed, deliveries fail, and letters count as undelivered, until
/// somebody has dealt with some of the files (see [`read`](Self::read)) and removed them.
///
/// A letter whose delivery took too long may be in the file and among the
/// [undelivered](crate::Cache::undelivered_letters) as well. Values of tiers that keep decoded objects have no bytes:
/// their letters stand in the file without one, and cannot be read back.
pub struct FileLetters {
    writer: Arc<Writer>,
    runtime: RuntimeHandle,
}

struct Writer {
    path: PathBuf,
    sync: bool,
    max_bytes: u64,
    files: u32,
    open: Mutex<Option<Open>>,
}

/// The file that is written to, locked against other writers, and how long it is.
struct Open {
    file: File,
    length: u64,
}

impl FileLetters {
    /// Appends to `path`, which is created with the first letter, in a directory that exists. Each tier needs a path of
    /// its own.
    pub fn new(path: impl AsRef<Path>, runtime: impl Into<RuntimeHandle>) -> Self {
        let writer = Writer {
            path: path.as_ref().to_owned(),
            sync: true,
            max_bytes: 64 << 20,
            files: 8,
            open: Mutex::new(None),
        };
        Self { writer: Arc::new(writer), runtime: runtime.into() }
    }

    /// Whether each letter is synced to the medium before it counts as delivered. Default: yes.
    #[must_use]
    pub fn sync(self, sync: bool) -> Self {
        self.with(|writer| writer.sync = sync)
    }

    /// How long a file gets before the next is begun, in bytes; a single letter may be longer. Default: 64 MiB.
    #[must_use]
    pub fn max_bytes(self, bytes: u64) -> Self {
        self.with(|writer| writer.max_bytes = bytes)
    }

    /// How many files there may be, the one that is written to included; at least 1. Default: 8.
    #[must_use]
    pub fn files(self, files: u32) -> Self {
        self.with(|writer| writer.files = files.max(1))
    }

    fn with(mut self, change: impl FnOnce(&mut Writer)) -> Self {
        // A sink that is still being built is not shared.
        if let Some(writer) = Arc::get_mut(&mut self.writer) {
            change(writer);
        }
        self
    }

    /// The letters in the file at `path`, in the order in which they died: for
    /// [`redrive`](crate::Cache::redrive), letter by letter.
    pub fn read(path: impl AsRef<Path>, runtime: impl Into<RuntimeHandle>) -> LetterReader {
        LetterReader::new(path.as_ref(), runtime.into())
    }

    /// The files of this sink that exist, the oldest first.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if they cannot be looked for.
    pub async fn paths(&self) -> Result<Vec<PathBuf>> {
        let writer = Arc::clone(&self.writer);
        self.run(move || Ok(writer.paths())).await
    }

    async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        match self.runtime.spawn_blocking(job).await {
            Ok(result) => result,
            Err(error) => {
                Err(Error::new(ErrorKind::Unavailable, format!("the file of dead letters: {error}")))
            }
        }
    }
}

#[async_trait]
impl DeadLetterSink for FileLetters {
    async fn deliver(&self, letter: &DeadLetter) -> BackendResult<()> {
        let line = line::encode(letter)?;
        let writer = Arc::clone(&self.writer);
        self.run(move || writer.append(&line)).await.map_err(|error| error.for_key(&letter.key))
    }
}

impl Writer {
    fn append(&self, line: &[u8]) -> Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |open: &Open| open.length > 0 && open.length + line.len() as u64 > self.max_bytes;
        // Somebody may have taken the file away to deal with it.
        if open.is_none() || !self.path.exists() {
            *open = Some(self.begin()?);
        }
        if open.as_ref().is_some_and(full) {
            *open = None;
            self.rotate()?;
            *open = Some(self.begin()?);
        }
        let Some(Open { file, length }) = &mut *open else { return Ok(()) };
        let written = file.write_all(line).and_then(|()| if self.sync { file.sync_data() } else { Ok(()) });
        if let Err(error) = written {
            // Half a line would spoil the next one, too. What cannot be cut off, the next opening ends with a newline.
            let cut = file.set_len(*length);
            if cut.is_err() {
                *open = None;
            }
            return Err(self.failed("cannot be written: is the disk full?", error));
        }
        *length += line.len() as u64;
        Ok(())
    }

    fn begin(&self) -> Result<Open> {
        let failed = |error| self.failed("cannot be opened", error);
        let mut options = OpenOptions::new();
        let mut file = options.create(true).read(true).append(true).open(&self.path).map_err(failed)?;
        file.try_lock().map_err(|error| self.failed("is in use by another sink", error.into()))?;
        let mut length = file.metadata().map_err(failed)?.len();
        if length > 0 && !reader::ends_a_line(&mut file).map_err(failed)? {
            // The process died in the middle of a letter.
            file.write_all(b"\n").map_err(failed)?;
            length += 1;
        }
        Ok(Open { file, length })
    }

    fn rotate(&self) -> Result<()> {
        let free = (1..self.files).map(|number| self.numbered(number)).find(|path| !path.exists());
        let Some(free) = free else {
            let message = format!(
                "there are {} files of dead letters at `{}`, as many as allowed: redrive what is in the oldest, and \
                 remove them",
                self.files,
                self.path.display()
            );
            return Err(Error::new(ErrorKind::Overloaded, message));
        };
        std::fs::rename(&self.path, &free).map_err(|error| self.failed("cannot be renamed", error))
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }

    fn paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> = (1..self.files).map(|number| self.numbered(number)).collect();
        // A number that was freed may be newer than one after it.
        paths.sort_by_key(|path| std::fs::metadata(path).and_then(|about| about.modified()).ok());
        paths.push(self.path.clone());
        paths.retain(|path| path.exists());
        paths
    }

    fn failed(&self, what: &str, source: std::io::Error) -> Error {
        let message = format!("the file of dead letters `{}` {what} ({source})", self.path.display());
        Error::new(ErrorKind::Unavailable, message).with_source(source)
    }
}

impl fmt::Debug for FileLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileLetters")
            .field("path", &self.writer.path)
            .field("sync", &self.writer.sync)
            .field("max_bytes", &self.writer.max_bytes)
            .field("files", &self.writer.files)
            .finish_non_exhaustive()
    }
}
