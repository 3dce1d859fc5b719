//! The disk tier: entries in a local directory, bounded by bytes, kept over restarts.
//!
//! ```
//! use tierkeep::backend::DiskBackend;
//!
//! # fn main() -> tierkeep::Result<()> {
//! let disk = DiskBackend::builder("/var/cache/shop").capacity_bytes(4 << 30).build()?;
//! # let _ = disk;
//! # Ok(())
//! # }
//! ```
//!
//! Nothing is touched until the cache opens the tier, so a directory that is locked, unwritable or damaged is an error
//! of this tier, tried again in the background, while the other tiers serve.
//!
//! **Eviction by age of writing.** Writes go to the newest of about eight *generations*; when it holds an eighth of
//! the capacity a new one begins, and when all together are over the capacity the oldest is deleted whole. That costs
//! no bookkeeping per entry, and reading an entry does not keep it.
//!
//! **What a crash loses.** When the process dies (`kill -9` included), nothing that was acknowledged. When the machine
//! dies, what was acknowledged since the last [`flush`](crate::Backend::flush), unless
//! [`sync_every_write`](DiskBuilder::sync_every_write) is on. Clears are synced before they are acknowledged.
//!
//! **What it cannot heal.** A damaged table that is only met while it is compacted closes the database each time it
//! is reopened; the tier stays down until its directory is deleted. Damage met while reading is an error of that read.
//! Damage in the journal is cut off with all that was written after it, removals included.
//!
//! **What it takes.** On disk the capacity, and on top of it fjall's journal: up to about 128 MiB whatever the
//! capacity, as it is recycled in pieces of 64 MiB. In memory a write buffer of up to 32 MiB or an eighth of the
//! capacity, whichever is less, twice while it is written out, and the read cache.

mod batch;
mod database;
mod generation;
mod layout;
pub(crate) mod lock;
mod marks;
mod options;
pub(crate) mod record;
pub(crate) mod recovery;
mod store;

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;

use super::{Backend, BackendResult, Blocking, OpenContext, Scope};
use crate::codec::{Compressor, Format};
use crate::key::CacheKey;
use crate::value::{BackendLabel, CacheValue, DeleteStatus, Entry, Raw, Stamp};

pub use options::DiskBuilder;
pub use store::DiskStats;

use store::DiskStore;

/// A tier in a local directory. See [`builder`](Self::builder).
///
/// Keys of more than 65,535 bytes and entries larger than the capacity are
/// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge).
#[derive(Debug)]
pub struct DiskBackend(Blocking<DiskStore>);

impl DiskBackend {
    /// Starts with the directory, which is created when the tier is opened, and which no other cache may use.
    pub fn builder(directory: impl AsRef<Path>) -> DiskBuilder {
        DiskBuilder::new(directory.as_ref())
    }

    /// How full it is and what happened to it.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) while it is not open.
    pub async fn stats(&self) -> BackendResult<DiskStats> {
        self.0.run(DiskStore::stats).await
    }
}

#[async_trait]
impl Backend for DiskBackend {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.0.read(key).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.0.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.0.remove(key).await
    }

    fn label(&self) -> BackendLabel {
        self.0.label()
    }

    fn value_format(&self) -> &dyn Format {
        self.0.value_format()
    }

    fn compressor(&self) -> &dyn Compressor {
        self.0.compressor()
    }

    async fn read_many(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<CacheValue<Raw>>>> {
        self.0.read_many(keys).await
    }

    async fn write_many(&self, entries: Vec<(CacheKey, CacheValue<Raw>)>) -> Vec<BackendResult<()>> {
        self.0.write_many(entries).await
    }

    async fn remove_many(&self, keys: &[CacheKey]) -> Vec<BackendResult<DeleteStatus>> {
        self.0.remove_many(keys).await
    }

    async fn read_entries(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<Entry>>> {
        self.0.read_entries(keys).await
    }

    async fn write_entries(&self, entries: Vec<(CacheKey, Entry)>) -> Vec<BackendResult<()>> {
        self.0.write_entries(entries).await
    }

    async fn clear(&self, scope: &Scope, stamp: Stamp) -> BackendResult<()> {
        self.0.clear(scope, stamp).await
    }

    async fn flush(&self) -> BackendResult<()> {
        self.0.flush().await
    }

    async fn open(&self, context: &OpenContext) -> BackendResult<()> {
        self.0.open(context).await
    }

    async fn reopen(&self) -> BackendResult<()> {
        self.0.reopen().await
    }

    fn residual(&self) -> Option<Duration> {
        self.0.residual()
    }

    fn running_jobs(&self) -> usize {
        self.0.running_jobs()
    }
}
