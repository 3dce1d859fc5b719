//! The in-process tier: a bounded map of decoded values, read without waiting.
//!
//! ```
//! use tierkeep::{Backend, MemoryBackend};
//!
//! let by_count = MemoryBackend::entries(10_000);
//! let by_size = MemoryBackend::bytes(256 << 20).label("l1");
//! assert!(by_count.validate().is_ok());
//! assert_eq!(by_size.usage().entries, Some(0));
//! ```

mod expiry;
mod store;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::store::{Limit, Store};
use super::{Backend, BackendResult, Holds, OpenContext, Port, Scope, Usage};
use crate::error::{Error, ErrorKind};
use crate::key::CacheKey;
use crate::value::{BackendLabel, CacheValue, DeleteStatus, Entry, Meta, Payload, Raw, Stamp, Timestamp};

/// How many entries one [`sweep`](Backend::sweep), or one piece of a [`clear`](Backend::clear), touches at most: some
/// tens of microseconds of work.
const PIECE: usize = 256;

/// A bounded map in the process's memory, with CLOCK-Pro eviction (quick_cache).
///
/// It holds decoded values, so a hit is one look-up and one reference count: it neither decodes nor allocates. What
/// has expired is swept in small pieces between other work; until then the engine recognises it by its stamps. Cheap
/// to clone; clones share the entries.
#[derive(Clone)]
pub struct MemoryBackend {
    label: BackendLabel,
    store: Arc<Store>,
}

impl MemoryBackend {
    /// Holds up to `capacity` entries, whatever they weigh. Zero is an [`ErrorKind::Config`] error when the cache is
    /// built.
    pub fn entries(capacity: usize) -> Self {
        Self::new(Limit::Entries(capacity))
    }

    /// Holds up to `capacity` bytes. Zero is an [`ErrorKind::Config`] error when the cache is built.
    ///
    /// An entry weighs its payload (the frame's length, or the object's stated weight), the key's text and 220 bytes
    /// for the bookkeeping of an entry. An entry heavier than 97 % of one shard is not stored, and whatever was under
    /// its key is removed: shards are never smaller than 8 MiB, and there is only one below 16 MiB of capacity.
    pub fn bytes(capacity: u64) -> Self {
        Self::new(Limit::Bytes(capacity))
    }

    fn new(limit: Limit) -> Self {
        Self { label: BackendLabel::new_static("memory"), store: Arc::new(Store::new(limit)) }
    }

    /// Names the tier. Default: `memory`.
    #[must_use]
    pub fn label(mut self, label: impl Into<BackendLabel>) -> Self {
        self.label = label.into();
        self
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend")
            .field("label", &self.label.as_str())
            .field("limit", &self.store.limit())
            .field("entries", &self.store.len())
            .finish()
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    /// Answers for entries stored as bytes. An object has no bytes here: [`ErrorKind::Unsupported`].
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        let Some(entry) = self.store.get(&key.probe()) else {
            return Ok(None);
        };
        match entry.payload {
            Payload::Bytes(raw) => Ok(Some(CacheValue::new(raw, entry.meta.expire, entry.meta.stale))),
            Payload::Object(..) => {
                Err(Error::new(ErrorKind::Unsupported, "a decoded value cannot be read as bytes")
                    .for_key(key))
            }
        }
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        let meta = Meta { expire: value.expire(), stale: value.stale(), ..Meta::default() };
        self.store.put(key.clone(), Entry::new(Payload::Bytes(value.into_inner()), meta));
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(self.store.remove(key))
    }

    fn label(&self) -> BackendLabel {
        self.label.clone()
    }

    async fn remove_many(&self, keys: &[CacheKey]) -> Vec<BackendResult<DeleteStatus>> {
        keys.iter().map(|key| Ok(self.store.remove(key))).collect()
    }

    async fn read_entries(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<Entry>>> {
        keys.iter().map(|key| Ok(self.store.get(&key.probe()))).collect()
    }

    async fn write_entries(&self, entries: Vec<(CacheKey, Entry)>) -> Vec<BackendResult<()>> {
        let put = |(key, entry)| {
            self.store.put(key, entry);
            Ok(())
        };
        entries.into_iter().map(put).collect()
    }

    fn holds(&self) -> Holds {
        Holds::Objects { weighed: matches!(self.store.limit(), Limit::Bytes(_)) }
    }

    /// Removes in pieces of a few hundred entries and yields between them. A put with an older stamp that comes while
    /// this runs acts as a removal. Entries written through [`write`](Backend::write) have no stamp and always go.
    /// Cancel-safe: dropped halfway, it has removed a part.
    async fn clear(&self, scope: &Scope, stamp: Stamp) -> BackendResult<()> {
        let mut walk = self.store.clear(scope.clone(), stamp);
        while walk.step(PIECE) {
            super::yield_now().await;
        }
        Ok(())
    }

    /// From here on, events of the cache tell what is evicted and what has expired. A store shared by several caches
    /// tells the one that opened it last.
    async fn open(&self, context: &OpenContext) -> BackendResult<()> {
        self.store.tell(context.removals.clone());
        Ok(())
    }

    fn validate(&self) -> BackendResult<()> {
        match self.store.limit() {
            Limit::Entries(0) | Limit::Bytes(0) => {
                Err(Error::new(ErrorKind::Config, "a memory tier needs a capacity above zero")
                    .at_tier(&self.label))
            }
            Limit::Entries(_) | Limit::Bytes(_) => Ok(()),
        }
    }

    fn usage(&self) -> Usage {
        self.store.usage()
    }

    /// Removes up to 256 expired entries.
    fn sweep(&self, now: Timestamp) -> usize {
        self.store.sweep(now, PIECE)
    }

    fn port(&self) -> Option<Arc<dyn Port>> {
        Some(self.store.clone())
    }

    /// Zero: calls end within their first poll, and a dropped [`clear`](Backend::clear) goes no further.
    fn residual(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }
}
