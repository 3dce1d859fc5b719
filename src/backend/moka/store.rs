//! The map behind a moka tier, and what moka is told about each entry.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use moka::Expiry;
use moka::notification::RemovalCause as MokaCause;
use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::{Cache, CacheBuilder};

use super::RemovalCause;
use crate::backend::{OpenContext, Port, Removals, Scope, Usage};
use crate::key::{CacheKey, KeyHash, KeyProbe};
use crate::runtime::RuntimeHandle;
use crate::value::{DeleteStatus, Entry, Packed, Stamp};

/// What an entry costs beyond its payload and its key's text, in bytes: an allowance.
const OVERHEAD: u64 = 400;
/// moka takes no longer times.
pub(super) const LONGEST: Duration = Duration::from_secs(1000 * 365 * 24 * 3600);

/// What a tier is bounded by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Entries(u64),
    Bytes(u64),
}

type Weigher = Arc<dyn Fn(&CacheKey, usize) -> u64 + Send + Sync>;
type Listener = Arc<dyn Fn(&CacheKey, RemovalCause) + Send + Sync>;

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) limit: Limit,
    pub(super) idle: Option<Duration>,
    pub(super) lru: bool,
    pub(super) weigher: Option<Weigher>,
    pub(super) listener: Option<Listener>,
}

impl Settings {
    pub(super) fn new(limit: Limit) -> Self {
        Self { limit, idle: None, lru: false, weigher: None, listener: None }
    }
}

/// The entries of a moka tier.
pub(super) struct Store {
    map: Map,
    weighed: bool,
    departures: Arc<Departures>,
    /// Whose clock says how long an entry has to live; until the tier is opened, moka expires nothing.
    runtime: OnceLock<RuntimeHandle>,
}

type Map = Cache<CacheKey, Held, KeyHash>;

/// An entry, and how long moka keeps it at most.
#[derive(Clone)]
struct Held {
    packed: Packed,
    life: Option<Duration>,
}

/// Who hears of entries that leave.
#[derive(Default)]
struct Departures {
    evicted: AtomicU64,
    expired: AtomicU64,
    panics: AtomicU64,
    removals: ArcSwapOption<Removals>,
    listener: Option<Listener>,
}

impl Store {
    pub(super) fn new(settings: &Settings) -> Arc<Self> {
        let departures =
            Arc::new(Departures { listener: settings.listener.clone(), ..Departures::default() });
        let mut builder: CacheBuilder<CacheKey, Held, Cache<CacheKey, Held>> = match settings.limit {
            Limit::Entries(capacity) => Cache::builder().max_capacity(capacity),
            Limit::Bytes(capacity) => {
                let weigher = settings.weigher.clone();
                Cache::builder().max_capacity(capacity).weigher(move |key, held: &Held| {
                    weigh(weigher.as_ref(), key, held.packed.weight() as usize)
                })
            }
        };
        if settings.lru {
            builder = builder.eviction_policy(EvictionPolicy::lru());
        }
        if let Some(idle) = settings.idle {
            // More than this moka refuses with a panic; `validate` has said so by then.
            builder = builder.time_to_idle(idle.min(LONGEST));
        }
        let told = Arc::clone(&departures);
        let map = builder
            .expire_after(Life)
            .eviction_listener(move |key, _, cause| told.tell(&key, cause))
            .build_with_hasher(KeyHash);
        let weighed = matches!(settings.limit, Limit::Bytes(_));
        Arc::new(Self { map, weighed, departures, runtime: OnceLock::new() })
    }

    pub(super) fn open(&self, context: &OpenContext) {
        // A second cache over the same store keeps the first one's clock: it is the same wall clock.
        let _ = self.runtime.set(context.runtime.clone());
        self.departures.removals.store(Some(Arc::new(context.removals.clone())));
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            entries: Some(self.map.entry_count()),
            bytes: self.weighed.then(|| self.map.weighted_size()),
            evictions: Some(self.departures.evicted.load(Ordering::Relaxed)),
        }
    }

    /// Runs moka's housekeeping; returns how many entries were found to have expired since it ran last.
    pub(super) fn sweep(&self) -> usize {
        let before = self.departures.expired.load(Ordering::Relaxed);
        self.map.run_pending_tasks();
        let expired = self.departures.expired.load(Ordering::Relaxed) - before;
        usize::try_from(expired).unwrap_or(usize::MAX)
    }

    pub(super) fn listener_panics(&self) -> u64 {
        self.departures.panics.load(Ordering::Relaxed)
    }

    /// Begins a walk over all entries. One that is put while it runs may be passed over: the engine hides what it
    /// has cleared by the stamps, and the walk only frees the room.
    pub(super) fn clear(&self, scope: &Scope, stamp: Stamp) -> ClearWalk<'_> {
        ClearWalk { map: &self.map, entries: self.map.iter(), scope: scope.clone(), stamp }
    }

    fn life(&self, entry: &Entry) -> Option<Duration> {
        let until = entry.meta.kept_until()?;
        Some(until.since(self.runtime.get()?.wall()).min(LONGEST))
    }
}

impl Port for Store {
    fn hit(&self, key: &KeyProbe<'_>) -> Option<Packed> {
        self.map.get(key).map(|held| held.packed)
    }

    fn contains(&self, key: &KeyProbe<'_>) -> bool {
        self.map.contains_key(key)
    }

    fn put(&self, key: CacheKey, entry: Entry) {
        let life = self.life(&entry);
        self.map.insert(key, Held { packed: entry.into(), life });
    }

    fn remove(&self, key: &CacheKey) -> DeleteStatus {
        if self.map.remove(key).is_some() { DeleteStatus::Deleted(1) } else { DeleteStatus::Missing }
    }

    /// As of moka's last housekeeping.
    fn len(&self) -> usize {
        usize::try_from(self.map.entry_count()).unwrap_or(usize::MAX)
    }
}

/// A walk over all entries that removes what a clear covers. Holds no lock between steps.
pub(super) struct ClearWalk<'a> {
    map: &'a Map,
    entries: moka::sync::Iter<'a, CacheKey, Held>,
    scope: Scope,
    stamp: Stamp,
}

impl ClearWalk<'_> {
    /// Looks at up to `limit` entries; `false` at the end.
    pub(super) fn step(&mut self, limit: usize) -> bool {
        let mut seen = 0;
        for (key, held) in self.entries.by_ref().take(limit) {
            seen += 1;
            if self.scope.covers(key.prefix()) && held.packed.stamp() <= self.stamp {
                // Looked at again under the key's lock: a newer put may have replaced it since.
                self.map.entry_by_ref(&*key).and_compute_with(|now| match now {
                    Some(now) if now.value().packed.stamp() <= self.stamp => Op::Remove,
                    _ => Op::Nop,
                });
            }
        }
        seen == limit
    }
}

impl Departures {
    fn tell(&self, key: &CacheKey, cause: MokaCause) {
        let removals = self.removals.load();
        let cause = match cause {
            MokaCause::Size => {
                self.evicted.fetch_add(1, Ordering::Relaxed);
                removals.iter().for_each(|removals| removals.evicted(key));
                RemovalCause::Evicted
            }
            MokaCause::Expired => {
                self.expired.fetch_add(1, Ordering::Relaxed);
                removals.iter().for_each(|removals| removals.expired(key));
                RemovalCause::Expired
            }
            MokaCause::Explicit => RemovalCause::Removed,
            MokaCause::Replaced => RemovalCause::Replaced,
        };
        if let Some(listener) = &self.listener
            && catch_unwind(AssertUnwindSafe(|| listener(key, cause))).is_err()
        {
            // moka would never call it again.
            self.panics.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn weigh(weigher: Option<&Weigher>, key: &CacheKey, payload: usize) -> u32 {
    let own = OVERHEAD + key.as_str().len() as u64 + payload as u64;
    let weight = match weigher {
        Some(weigher) => catch_unwind(AssertUnwindSafe(|| weigher(key, payload))).unwrap_or(own),
        None => own,
    };
    u32::try_from(weight).unwrap_or(u32::MAX).max(1)
}

/// Tells moka when to free an entry's room.
struct Life;

impl Expiry<CacheKey, Held> for Life {
    fn expire_after_create(&self, _: &CacheKey, held: &Held, _: std::time::Instant) -> Option<Duration> {
        held.life
    }

    fn expire_after_update(
        &self,
        _: &CacheKey,
        held: &Held,
        _: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        held.life
    }
}
