//! What a disk tier can be told.

use std::fmt;
use std::path::{Path, PathBuf};

use super::DiskBackend;
use super::store::DiskStore;
use crate::backend::Blocking;
use crate::codec::{Compressor, Format, PassthroughCompressor, PostcardFormat};
use crate::error::{Error, ErrorKind, Result};
use crate::value::BackendLabel;

/// The smallest capacity: below it, generations are so small that making and deleting them is all there is.
const MIN_CAPACITY: u64 = 1 << 20;

/// How many generations the capacity is split into.
pub(super) const GENERATIONS: u64 = 8;

/// The largest write buffer of a generation, in bytes.
const MAX_WRITE_BUFFER: u64 = 32 << 20;

/// Builds a [`DiskBackend`].
pub struct DiskBuilder {
    options: Options,
    permits: usize,
}

pub(super) struct Options {
    pub(super) directory: PathBuf,
    pub(super) capacity: u64,
    pub(super) read_cache: u64,
    pub(super) sync_every_write: bool,
    pub(super) reset_if_damaged: bool,
    pub(super) label: BackendLabel,
    pub(super) format: Box<dyn Format>,
    pub(super) compressor: Box<dyn Compressor>,
}

impl Options {
    /// How much a generation takes before the next one begins.
    pub(super) fn generation_bytes(&self) -> u64 {
        self.capacity / GENERATIONS
    }

    pub(super) fn write_buffer(&self) -> u64 {
        // At or above the generation's size the buffer is written out only when the generation closes.
        self.generation_bytes().min(MAX_WRITE_BUFFER)
    }
}

impl DiskBuilder {
    pub(super) fn new(directory: &Path) -> Self {
        let options = Options {
            directory: directory.to_owned(),
            capacity: 1 << 30,
            read_cache: 32 << 20,
            sync_every_write: false,
            reset_if_damaged: false,
            label: BackendLabel::new_static("disk"),
            format: Box::new(PostcardFormat),
            compressor: Box::new(PassthroughCompressor),
        };
        Self { options, permits: 4 }
    }

    /// How many bytes of keys and values it holds at most; default 1 GiB, at least 1 MiB. The journal comes on top,
    /// up to about 128 MiB.
    #[must_use]
    pub fn capacity_bytes(mut self, bytes: u64) -> Self {
        self.options.capacity = bytes;
        self
    }

    /// How much memory caches blocks that were read; default 32 MiB.
    #[must_use]
    pub fn read_cache_bytes(mut self, bytes: u64) -> Self {
        self.options.read_cache = bytes;
        self
    }

    /// How many calls may be in the store at once, each on a thread of the blocking pool; default 4, at least 1.
    #[must_use]
    pub fn permits(mut self, permits: usize) -> Self {
        self.permits = permits;
        self
    }

    /// Whether each write waits until it is on the medium (`fsync`, milliseconds instead of microseconds). Default: no;
    /// then the operating system decides, and a crash of the machine loses what came after the last flush.
    #[must_use]
    pub fn sync_every_write(mut self, sync: bool) -> Self {
        self.options.sync_every_write = sync;
        self
    }

    /// What to do about a store that is damaged beyond opening: `false` (default) reports it until a person decides;
    /// `true` moves the damaged files aside, to `damaged-1`, `damaged-2`, … in the directory, and starts empty. The
    /// files moved aside are not counted in the capacity and never deleted; [`DiskBackend::stats`] names them.
    #[must_use]
    pub fn reset_if_damaged(mut self, reset: bool) -> Self {
        self.options.reset_if_damaged = reset;
        self
    }

    /// The tier's name; default `disk`.
    #[must_use]
    pub fn label(mut self, label: impl Into<BackendLabel>) -> Self {
        self.options.label = label.into();
        self
    }

    /// The format of new values; default postcard.
    #[must_use]
    pub fn value_format(mut self, format: impl Format) -> Self {
        self.options.format = Box::new(format);
        self
    }

    /// The compressor of new values; default none.
    #[must_use]
    pub fn compressor(mut self, compressor: impl Compressor) -> Self {
        self.options.compressor = Box::new(compressor);
        self
    }

    /// The backend. Touches no file: that happens when the tier is opened.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the directory is empty, the capacity under 1 MiB, or there are no permits.
    pub fn build(self) -> Result<DiskBackend> {
        let problem = if self.options.directory.as_os_str().is_empty() {
            "the disk tier's directory is empty: give it a path"
        } else if self.options.capacity < MIN_CAPACITY {
            "the disk tier's capacity is under 1 MiB: give it more, or leave the tier out"
        } else if self.permits == 0 {
            "the disk tier has no permits, so no call could ever run: give it at least 1"
        } else {
            return Ok(DiskBackend(Blocking::new(DiskStore::new(self.options)).with_permits(self.permits)));
        };
        Err(Error::new(ErrorKind::Config, problem).at_tier(&self.options.label))
    }
}

impl fmt::Debug for DiskBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskBuilder")
            .field("directory", &self.options.directory)
            .field("capacity", &self.options.capacity)
            .field("permits", &self.permits)
            .finish_non_exhaustive()
    }
}
