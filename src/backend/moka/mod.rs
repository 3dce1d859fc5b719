//! The in-process tier on moka: W-TinyLFU or LRU, time-to-idle, a listener, a weigher.
//!
//! ```
//! use std::time::Duration;
//! use tierkeep::Backend;
//! use tierkeep::backend::MokaBackend;
//!
//! let sessions = MokaBackend::entries(10_000)
//!     .time_to_idle(Duration::from_secs(1800))
//!     .on_removal(|key, cause| println!("{} left: {cause:?}", key.as_str()));
//! assert!(sessions.validate().is_ok());
//! ```
//!
//! # Memory or moka
//!
//! Take [`MemoryBackend`](super::MemoryBackend) unless you need what only this one has: its hits are several times
//! cheaper, and its CLOCK-Pro keeps more of what is read again in most traces. Take this one for entries that should
//! go when nobody reads them for a while, to hear of every entry that leaves, or for a small tier over skewed reads
//! with many one-hit keys, where W-TinyLFU's memory of frequencies pays. Hit ratios on two production traces ("get,
//! and on a miss insert", one tier; `cargo test --release --features moka --test telling -- --ignored hit_ratios`):
//!
//! | trace | capacity | memory | moka |
//! |---|---|---|---|
//! | web12 | 137 (1 %) | 0.376 | 0.415 |
//! | web12 | 687 (5 %) | 0.635 | 0.624 |
//! | web12 | 2,751 (20 %) | 0.774 | 0.751 |
//! | orm-busy | 763 (1 %) | 0.713 | 0.644 |
//! | orm-busy | 3,817 (5 %) | 0.844 | 0.780 |
//! | orm-busy | 15,269 (20 %) | 0.924 | 0.896 |
//!
//! # Two clocks
//!
//! Whether an entry has expired is decided on each read by the engine, with the runtime's wall clock. moka's own
//! expiry, on its own clock, is housekeeping: it frees the room of what the engine would refuse anyway. Time-to-idle
//! is moka's alone, and so follows neither a paused nor a simulated clock.

mod store;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::store::{Limit, Settings, Store};
use super::{Backend, BackendResult, Holds, OpenContext, Port, Scope, Usage};
use crate::error::{Error, ErrorKind};
use crate::key::CacheKey;
use crate::value::{BackendLabel, CacheValue, DeleteStatus, Entry, Meta, Payload, Raw, Stamp, Timestamp};

/// How many entries one piece of a [`clear`](Backend::clear) touches at most.
const PIECE: usize = 256;

/// Why an entry left a [`MokaBackend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RemovalCause {
    /// For want of room.
    Evicted,
    /// Its life, or its time to idle, was over.
    Expired,
    /// It was removed, or cleared.
    Removed,
    /// Another value took its place.
    Replaced,
}

/// A bounded map in the process's memory, on moka. It holds decoded values, as
/// [`MemoryBackend`](super::MemoryBackend) does. Cheap to clone; clones share the entries.
///
/// Evictions happen in moka's housekeeping, which runs along with reads and writes and with each sweep: for a moment
/// the tier may hold more than its capacity, and [`usage`](Backend::usage) lags behind.
#[derive(Clone)]
pub struct MokaBackend {
    label: BackendLabel,
    settings: Settings,
    /// Made from the settings when it is first asked for; changing a setting makes a new one.
    store: Arc<std::sync::OnceLock<Arc<Store>>>,
}

impl MokaBackend {
    /// Holds up to `capacity` entries, whatever they weigh. Zero is an [`ErrorKind::Config`] error when the cache is
    /// built.
    pub fn entries(capacity: u64) -> Self {
        Self::new(Limit::Entries(capacity))
    }

    /// Holds up to `capacity` bytes. Zero is an [`ErrorKind::Config`] error when the cache is built.
    ///
    /// An entry weighs its payload (the frame's length, or the object's stated weight), the key's text, and 400 bytes
    /// of allowance for the bookkeeping of an entry, unless a [`weigher`](Self::weigher) says otherwise.
    pub fn bytes(capacity: u64) -> Self {
        Self::new(Limit::Bytes(capacity))
    }

    fn new(limit: Limit) -> Self {
        Self {
            label: BackendLabel::new_static("moka"),
            settings: Settings::new(limit),
            store: Arc::default(),
        }
    }

    /// Names the tier. Default: `moka`.
    #[must_use]
    pub fn label(mut self, label: impl Into<BackendLabel>) -> Self {
        self.label = label.into();
        self
    }

    /// Drops an entry that nobody has read for `idle`, by moka's clock. Default: never. Up to 1,000 years.
    #[must_use]
    pub fn time_to_idle(self, idle: Duration) -> Self {
        self.with(|settings| settings.idle = Some(idle))
    }

    /// Evicts the entry that was not read for longest (LRU), rather than by W-TinyLFU: for reads that follow recency
    /// alone, as in a queue.
    #[must_use]
    pub fn lru(self) -> Self {
        self.with(|settings| settings.lru = true)
    }

    /// Says what an entry weighs, from its key and the weight of its payload in bytes; for tiers bounded by
    /// [`bytes`](Self::bytes), without effect on others.
    ///
    /// The weigher cannot break the bound: zero counts as 1 (an entry without weight would never be evicted), more
    /// than 4,294,967,295 as that, and a panic as "what it weighs without a weigher".
    #[must_use]
    pub fn weigher(self, weigher: impl Fn(&CacheKey, usize) -> u64 + Send + Sync + 'static) -> Self {
        self.with(|settings| settings.weigher = Some(Arc::new(weigher)))
    }

    /// Calls `listener` for each entry that leaves, with the reason. It runs within the operation or the
    /// housekeeping that found it: keep it short, and do not use the cache in it. A panic in it concerns that one
    /// call, and is counted by [`listener_panics`](Self::listener_panics).
    #[must_use]
    pub fn on_removal(self, listener: impl Fn(&CacheKey, RemovalCause) + Send + Sync + 'static) -> Self {
        self.with(|settings| settings.listener = Some(Arc::new(listener)))
    }

    /// How often the listener has panicked.
    pub fn listener_panics(&self) -> u64 {
        self.store().listener_panics()
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self.store = Arc::default();
        self
    }

    fn store(&self) -> &Arc<Store> {
        self.store.get_or_init(|| Store::new(&self.settings))
    }
}

impl fmt::Debug for MokaBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MokaBackend")
            .field("label", &self.label.as_str())
            .field("limit", &self.settings.limit)
            .field("idle", &self.settings.idle)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for MokaBackend {
    /// Answers for entries stored as bytes. An object has no bytes here: [`ErrorKind::Unsupported`].
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        let Some(entry) = self.store().get(&key.probe()) else {
            return Ok(None);
        };
        match entry.payload {
            Payload::Bytes(raw) => Ok(Some(CacheValue::new(raw, entry.meta.expire, entry.meta.stale))),
            Payload::Object(..) => {
                let message = "the entry is a decoded value; read it as an entry";
                Err(Error::new(ErrorKind::Unsupported, message).at_tier(&self.label).for_key(key))
            }
        }
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        let meta = Meta { expire: value.expire(), stale: value.stale(), ..Meta::default() };
        self.store().put(key.clone(), Entry::new(Payload::Bytes(value.into_inner()), meta));
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(self.store().remove(key))
    }

    fn label(&self) -> BackendLabel {
        self.label.clone()
    }

    async fn read_entries(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<Entry>>> {
        keys.iter().map(|key| Ok(self.store().get(&key.probe()))).collect()
    }

    async fn write_entries(&self, entries: Vec<(CacheKey, Entry)>) -> Vec<BackendResult<()>> {
        let put = |(key, entry)| {
            self.store().put(key, entry);
            Ok(())
        };
        entries.into_iter().map(put).collect()
    }

    fn holds(&self) -> Holds {
        Holds::Objects { weighed: matches!(self.settings.limit, Limit::Bytes(_)) }
    }

    /// Removes in pieces of a few hundred entries and yields between them. Entries written through
    /// [`write`](Backend::write) have no stamp and always go. Cancel-safe: dropped halfway, it has removed a part.
    async fn clear(&self, scope: &Scope, stamp: Stamp) -> BackendResult<()> {
        let mut walk = self.store().clear(scope, stamp);
        while walk.step(PIECE) {
            super::yield_now().await;
        }
        Ok(())
    }

    /// From here on, events of the cache tell what is evicted and what has expired. A store shared by several caches
    /// tells the one that opened it last.
    async fn open(&self, context: &OpenContext) -> BackendResult<()> {
        self.store().open(context);
        Ok(())
    }

    fn validate(&self) -> BackendResult<()> {
        let wrong = |message: &'static str| Err(Error::new(ErrorKind::Config, message).at_tier(&self.label));
        match self.settings {
            Settings { limit: Limit::Entries(0) | Limit::Bytes(0), .. } => {
                wrong("a moka tier needs a capacity above zero")
            }
            Settings { idle: Some(idle), .. } if idle.is_zero() => wrong("the time to idle is zero"),
            Settings { idle: Some(idle), .. } if idle > store::LONGEST => {
                wrong("the time to idle is over 1,000 years; leave it out")
            }
            _ => Ok(()),
        }
    }

    fn usage(&self) -> Usage {
        self.store().usage()
    }

    /// Runs moka's housekeeping: evictions, expiries, and the listener for both.
    fn sweep(&self, _: Timestamp) -> usize {
        self.store().sweep()
    }

    fn port(&self) -> Option<Arc<dyn Port>> {
        Some(self.store().clone())
    }

    /// Zero: calls end within their first poll, and a dropped [`clear`](Backend::clear) goes no further.
    fn residual(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }
}
