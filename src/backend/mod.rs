//! Backends: where a tier keeps its entries.
//!
//! Only `read`, `write` and `remove` are required; the rest has defaults that a store overrides to be faster (batches),
//! to keep decoded values (entries), to answer without waiting (a [`Port`]) or to be cleared and reopened.
//!
//! ```
//! use std::collections::HashMap;
//! use std::sync::RwLock;
//! use tierkeep::{Backend, BackendResult, DeleteStatus};
//! use tierkeep::{BackendLabel, CacheKey, CacheValue, Raw};
//! use async_trait::async_trait;
//!
//! struct InMemoryBackend {
//!     store: RwLock<HashMap<CacheKey, CacheValue<Raw>>>,
//! }
//!
//! #[async_trait]
//! impl Backend for InMemoryBackend {
//!     async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
//!         Ok(self.store.read().unwrap().get(key).cloned())
//!     }
//!
//!     async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
//!         self.store.write().unwrap().insert(key.clone(), value);
//!         Ok(())
//!     }
//!
//!     async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
//!         match self.store.write().unwrap().remove(key) {
//!             Some(_) => Ok(DeleteStatus::Deleted(1)),
//!             None => Ok(DeleteStatus::Missing),
//!         }
//!     }
//!
//!     fn label(&self) -> BackendLabel {
//!         BackendLabel::new_static("in-memory")
//!     }
//!
//!     // Optional: override defaults for value_format, key_format, compressor
//! }
//!
//! // Typed `get`, `set` and `delete` come with it:
//! # futures_util::FutureExt::now_or_never(async {
//! use tierkeep::CacheBackend;
//!
//! let backend = InMemoryBackend { store: RwLock::default() };
//! let key = CacheKey::new("answer", 1, []);
//! backend.set::<u32>(&key, CacheValue::new(42, None, None)).await?;
//! assert_eq!(backend.get::<u32>(&key).await?.map(|value| **value.data()), Some(42));
//! # assert_eq!(backend.delete(&key).await?, DeleteStatus::Deleted(1));
//! # assert_eq!(backend.delete(&key).await?, DeleteStatus::Missing);
//! # Ok::<(), tierkeep::Error>(())
//! # }).unwrap().unwrap();
//! ```
//!
//! [`CacheBackend`] is for tools and tests; applications put backends into a [`Cache`](crate::Cache). Whether a backend
//! keeps the engine's rules is what the contract suite tells (feature `testing`, `tierkeep::backend::contract`).

mod blocking;
#[cfg(feature = "testing")]
pub mod contract;
#[cfg(feature = "disk")]
pub(crate) mod disk;
mod forward;
mod memory;
#[cfg(feature = "moka")]
mod moka;
#[cfg(any(feature = "redis-tokio", feature = "redis-smol"))]
mod redis;
mod typed;

pub use memory::MemoryBackend;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// For implementations of [`Backend`]: they need no dependency of their own for it.
pub use async_trait::async_trait;

use crate::codec::{Compressor, Format, PassthroughCompressor, PostcardFormat};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{CacheKey, KeyProbe};
use crate::key_format::CacheKeyFormat;
use crate::runtime::RuntimeHandle;
use crate::tier::TierOptions;
use crate::value::{BackendLabel, CacheValue, DeleteStatus, Entry, Packed, Payload, Raw, Stamp, Timestamp};

pub use crate::observe::Removals;
pub use blocking::{Blocking, BlockingBackend};
#[cfg(feature = "disk")]
pub use disk::{DiskBackend, DiskBuilder, DiskStats};
#[cfg(feature = "moka")]
pub use moka::{MokaBackend, RemovalCause};
#[cfg(all(any(feature = "redis-tokio", feature = "redis-smol"), feature = "backplane"))]
pub use redis::RedisBackplane;
#[cfg(any(feature = "redis-tokio", feature = "redis-smol"))]
pub use redis::{
    ConnectionState, Credentials, CredentialsProvider, RedisBackend, RedisBuilder, RedisDriver, RedisStats,
};
pub use typed::CacheBackend;

/// What a backend call returns.
pub type BackendResult<T> = Result<T>;

/// A store of raw bytes under keys, and the only thing a new kind of tier has to implement.
///
/// The engine calls it from spawned tasks (but see [`immediate`](Self::immediate)), several calls at a time up to the
/// tier's concurrency, and never more than one writing call for a key. A call that panics, fails or hangs is the tier's failure, not the cache's. A call whose
/// deadline passes is left to run (see [`residual`](Self::residual)).
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The value under `key`, or `None`.
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>>;

    /// Stores a value. Its stamps are hints for the store's own expiry: the engine reads them from the frame.
    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()>;

    /// Removes a value.
    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus>;

    /// The tier's name, unless the tier gives another. Default: `backend`.
    fn label(&self) -> BackendLabel {
        BackendLabel::new_static("backend")
    }

    /// The format that new values are encoded with. Default: postcard.
    fn value_format(&self) -> &dyn Format {
        &PostcardFormat
    }

    /// The compressor that new values go through. Default: none.
    fn compressor(&self) -> &dyn Compressor {
        &PassthroughCompressor
    }

    /// How it writes keys, for stores that leave that open. Default: as the key's own text. Nothing in the engine reads
    /// it: a backend asks itself.
    fn key_format(&self) -> &CacheKeyFormat {
        &CacheKeyFormat::UrlEncoded
    }

    /// Several reads in one call; answers in the order of `keys`. Default: one after another.
    async fn read_many(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<CacheValue<Raw>>>> {
        let mut results = Vec::with_capacity(keys.len());
        for key in keys {
            results.push(self.read(key).await);
        }
        results
    }

    /// Several writes in one call; answers in the order of `entries`. Default: one after another.
    async fn write_many(&self, entries: Vec<(CacheKey, CacheValue<Raw>)>) -> Vec<BackendResult<()>> {
        let mut results = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            results.push(self.write(&key, value).await);
        }
        results
    }

    /// Several removals in one call; answers in the order of `keys`. Default: one after another.
    async fn remove_many(&self, keys: &[CacheKey]) -> Vec<BackendResult<DeleteStatus>> {
        let mut results = Vec::with_capacity(keys.len());
        for key in keys {
            results.push(self.remove(key).await);
        }
        results
    }

    /// Entries with their payload as the tier holds it. Default: [`read_many`](Self::read_many), as bytes.
    async fn read_entries(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<Entry>>> {
        let values = self.read_many(keys).await;
        values.into_iter().map(|value| Ok(value?.map(Entry::from_raw))).collect()
    }

    /// Stores entries. Default: [`write_many`](Self::write_many), bytes kept until the entry's retain time.
    async fn write_entries(&self, entries: Vec<(CacheKey, Entry)>) -> Vec<BackendResult<()>> {
        let values = entries
            .into_iter()
            .filter_map(|(key, entry)| match entry.payload {
                Payload::Bytes(raw) => {
                    Some((key, CacheValue::new(raw, entry.meta.kept_until(), entry.meta.stale)))
                }
                // The engine sends objects only to backends that say they hold them.
                Payload::Object(..) => None,
            })
            .collect();
        self.write_many(values).await
    }

    /// Removes entries on behalf of mutations with these stamps. A store that [`compares`](Self::compares) remembers the
    /// stamp in the entry's place. Answers in the order of `entries`. Default: [`remove_many`](Self::remove_many).
    async fn remove_entries(&self, entries: Vec<(CacheKey, Stamp)>) -> Vec<BackendResult<DeleteStatus>> {
        let keys: Vec<_> = entries.into_iter().map(|(key, _)| key).collect();
        self.remove_many(&keys).await
    }

    /// Whether the tier holds decoded objects (in-process tiers) or frames (everything else, the default).
    fn holds(&self) -> Holds {
        Holds::Bytes
    }

    /// Removes everything in `scope` that was written at or before `stamp`, and remembers to treat what remains of it
    /// as absent, also after the process ends. Foreign keys are never touched. Default: [`ErrorKind::Unsupported`];
    /// the engine then hides cleared entries by their stamps, for as long as the process lives.
    async fn clear(&self, scope: &Scope, stamp: Stamp) -> BackendResult<()> {
        let _ = (scope, stamp);
        Err(Error::new(ErrorKind::Unsupported, "this backend cannot clear"))
    }

    /// Makes what was acknowledged durable, where the store buffers. Default: nothing to do.
    async fn flush(&self) -> BackendResult<()> {
        Ok(())
    }

    /// Called once, when a cache is built: whether what this backend was given can work at all. Default: it can.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], with a message that names what must change.
    fn validate(&self) -> BackendResult<()> {
        Ok(())
    }

    /// Called once, when a cache is built, before anything is opened: whether this backend can run on the cache's
    /// runtime. Default: it can.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], with a message that names what must change.
    fn suits(&self, runtime: &RuntimeHandle) -> BackendResult<()> {
        let _ = runtime;
        Ok(())
    }

    /// How a tier on this backend behaves unless the application says otherwise. Default: [`TierOptions::default`].
    fn tier_options(&self) -> TierOptions {
        TierOptions::default()
    }

    /// How full it is, for `inspect()`. Must not wait. Default: nothing is known.
    fn usage(&self) -> Usage {
        Usage::default()
    }

    /// Called before each incarnation of the tier's actor, and must bear being called again: opens what must be
    /// open. A failure counts as a crash of the tier. Default: nothing to do.
    async fn open(&self, context: &OpenContext) -> BackendResult<()> {
        let _ = context;
        Ok(())
    }

    /// Called before the breaker's probe: replaces what is broken for good (a poisoned database). Default: nothing.
    async fn reopen(&self) -> BackendResult<()> {
        Ok(())
    }

    /// Deletes what has expired, a bounded piece at a time; called now and then between other work, and again soon
    /// while it deletes something. Returns how many entries went. Default: nothing (the store expires by itself).
    fn sweep(&self, now: Timestamp) -> usize {
        let _ = now;
        0
    }

    /// A view that answers without waiting, for stores that can. Default: none.
    fn port(&self) -> Option<Arc<dyn Port>> {
        None
    }

    /// Whether calls are as a rule over when they are first polled, and may be polled on any thread, outside of the
    /// runtime too: stores in process, which wait for nothing but a lock of their own. Default: no.
    ///
    /// A call that is asked for alone is then begun by whoever asks, and costs no task; a lone read of a store of bytes
    /// goes to [`read`](Self::read). What is pending nevertheless goes on in a task, but for a read, which is dropped
    /// and made again there. No deadline interrupts a poll: a store that blocks its thread must not say yes.
    fn immediate(&self) -> bool {
        false
    }

    /// For how long after a timed-out call was dropped the store may still apply it. `None`: the call is never
    /// dropped but kept until it returns (stores on the blocking pool). Default: 30 s.
    fn residual(&self) -> Option<Duration> {
        Some(Duration::from_secs(30))
    }

    /// How many calls occupy a thread of the blocking pool right now, for `inspect()` and the report of a shutdown.
    /// Default: 0 (the store does not block).
    fn running_jobs(&self) -> usize {
        0
    }

    /// Whether [`write_entries`](Self::write_entries) and [`remove_entries`](Self::remove_entries) are applied only if
    /// the store holds nothing newer of the key, going by [`Stamp`]; otherwise nothing is changed and they answer
    /// [`Error::superseded`]. Default: no.
    ///
    /// The engine relies on three things. Equal stamps are one mutation, sent again: it is applied. A removal at
    /// [`Stamp::ZERO`] is made only where nothing stamped is held. And the stamp of what was removed, or has expired, is
    /// remembered for at least twice the [`residual`](Self::residual) time, so that a call that was given up cannot
    /// bring an older value back: a quarantine here ends as soon as its repair is confirmed.
    fn compares(&self) -> bool {
        false
    }

    /// Whether other processes read and write the same store. In-process and local tiers above such a tier keep entries
    /// for 30 s at most, unless the application sets [`TierOptions::ttl_cap`]. Default: no.
    fn shared(&self) -> bool {
        false
    }

    /// Whether a read gives the last confirmed write. Where it may not (a replica that lags), what is read is never
    /// refilled above, and entries older than this process's own last change of the key are absent. Default: yes.
    fn authoritative(&self) -> bool {
        true
    }
}

/// What a tier keeps of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holds {
    /// Frames.
    Bytes,
    /// Decoded values.
    Objects {
        /// Whether the engine must state each object's weight in bytes.
        weighed: bool,
    },
}

/// How full a backend is; `None`: it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct Usage {
    /// How many entries it holds, expired ones that are not yet swept included.
    pub entries: Option<u64>,
    /// What they weigh, in bytes.
    pub bytes: Option<u64>,
    /// How many entries it has evicted for want of room since it was made.
    pub evictions: Option<u64>,
}

/// What a [`clear`](Backend::clear) covers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// Every entry of this cache.
    All,
    /// The entries whose key has this prefix (a region).
    Prefix(Arc<str>),
}

impl Scope {
    /// Whether a key with `prefix` is covered.
    pub fn covers(&self, prefix: &str) -> bool {
        match self {
            Self::All => true,
            Self::Prefix(p) => **p == *prefix,
        }
    }
}

/// What a backend may use of the engine.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OpenContext {
    /// The application's runtime.
    pub runtime: RuntimeHandle,
    /// Where a store that evicts tells what it drops.
    pub removals: Removals,
}

impl OpenContext {
    /// For tests of backends outside a cache.
    pub fn new(runtime: RuntimeHandle) -> Self {
        Self { runtime, removals: Removals::default() }
    }
}

/// A non-blocking view of an in-process store: neither reads nor mutations wait for the tier's actor. It is called from
/// any thread, also while the backend is opened anew or cleared; of one key, one mutation at a time.
pub trait Port: Send + Sync + 'static {
    /// The entry under `key`, as the store holds it. Counts as a use for eviction. Must not wait.
    fn hit(&self, key: &KeyProbe<'_>) -> Option<Packed>;

    /// As [`hit`](Self::hit), in full.
    fn get(&self, key: &KeyProbe<'_>) -> Option<Entry> {
        self.hit(key).map(Packed::unpack)
    }

    /// Whether the key is there, without counting as a use.
    fn contains(&self, key: &KeyProbe<'_>) -> bool;

    /// Stores an entry; replaces.
    fn put(&self, key: CacheKey, entry: Entry);

    /// Removes an entry.
    fn remove(&self, key: &CacheKey) -> DeleteStatus;

    /// How many entries it holds; the count of some stores lags behind their writes.
    fn len(&self) -> usize;

    /// Whether it holds none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Lets other tasks run once, on any executor.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
