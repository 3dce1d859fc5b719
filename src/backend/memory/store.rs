//! The map behind a memory tier: weights, evictions, expiry and clears in progress.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwapOption;
use quick_cache::sync::{Cache, Iter};
use quick_cache::{Equivalent, Lifecycle, OptionsBuilder, Weighter};

use super::expiry::{Due, ExpiryIndex, mark};
use crate::backend::{Port, Removals, Scope, Usage};
use crate::key::{CacheKey, KeyHash, KeyProbe};
use crate::runtime::host::drop_quietly;
use crate::value::{DeleteStatus, Entry, Packed, Stamp, Timestamp};

/// What an entry costs beyond its payload and its key's text, in bytes. Measured with 64-bit glibc in a full tier:
/// 202 to 216 with an expiry and 186 to 199 without one, evicted keys included. The tier then takes 0.9 to 1.02 of its
/// limit, for payloads from 100 bytes to 10 kB.
const OVERHEAD: u64 = 220;

/// A shard below these sizes evicts worse than a whole cache would, or turns away large values; more shards than this
/// no longer lower contention. With 128 entries a shard, hit ratios on our traces are within 0.001 of one shard's; with
/// 16 shards and two cores on the same thousand entries, half of each hit is waiting for the other's lock, with 128 a
/// tenth. The number is fixed, not taken from the machine, so that a simulated run repeats.
const MIN_SHARD_ENTRIES: usize = 1 << 7;
const MIN_SHARD_BYTES: u64 = 8 << 20;
const MAX_SHARDS: usize = 256;

/// The assumed weight of an average entry. It only sizes the memory of evicted keys (CLOCK-Pro's ghosts).
const AVERAGE_BYTES: u64 = 2 << 10;

/// What a tier is bounded by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Entries(usize),
    Bytes(u64),
}

impl Limit {
    fn sharded(self) -> (usize, OptionsBuilder) {
        let (most, items) = match self {
            Self::Entries(n) => (n / MIN_SHARD_ENTRIES, n),
            Self::Bytes(n) => (to_usize(n / MIN_SHARD_BYTES), to_usize(n / AVERAGE_BYTES)),
        };
        // A power of two at or below `most`: the map would round another number up, and its shards below our minimum.
        let shards = 1 << most.clamp(1, MAX_SHARDS).ilog2();
        let mut options = OptionsBuilder::new();
        options.shards(shards).estimated_items_capacity(items.max(32 * shards));
        (shards, options)
    }

    fn total(self) -> u64 {
        match self {
            Self::Entries(n) => n as u64,
            Self::Bytes(n) => n,
        }
    }
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// The entries of a memory tier.
pub(super) struct Store {
    limit: Limit,
    map: Map,
    expiry: ExpiryIndex,
    clears: RwLock<Vec<Clear>>,
    puts: AtomicU64,
    evictions: AtomicU64,
    removals: ArcSwapOption<Removals>,
}

type Map = Cache<CacheKey, Packed, Weigh, KeyHash, Collect>;

impl Store {
    pub(super) fn new(limit: Limit) -> Self {
        let (shards, mut options) = limit.sharded();
        // Rounded down to whole shards, because the map rounds up and would hold more than it was given.
        let total = limit.total() / shards as u64 * shards as u64;
        let options = options
            .weight_capacity(total)
            .build()
            .unwrap_or_else(|_| unreachable!("every option that has no default is given"));
        Self {
            limit,
            map: Cache::with_options(options, Weigh(limit), KeyHash, Collect),
            expiry: ExpiryIndex::default(),
            clears: RwLock::default(),
            puts: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            removals: ArcSwapOption::empty(),
        }
    }

    /// From now on tells `removals` what it drops.
    pub(super) fn tell(&self, removals: Removals) {
        self.removals.store(Some(Arc::new(removals)));
    }

    pub(super) fn limit(&self) -> Limit {
        self.limit
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            entries: Some(self.map.len() as u64),
            bytes: matches!(self.limit, Limit::Bytes(_)).then(|| self.map.weight()),
            evictions: Some(self.evictions.load(Ordering::Relaxed)),
        }
    }

    pub(super) fn sweep(&self, now: Timestamp, limit: usize) -> usize {
        let due = self.expiry.take_due(now, limit);
        // Another number under the key is a later put, with its own place in the index.
        let removals = self.removals.load();
        let mut swept = 0;
        for due in due {
            let Some((key, slot)) = self.map.remove_if(&Hashed(due.1), |slot| mark_of(slot) == Some(due.0))
            else {
                continue;
            };
            swept += 1;
            // One by one: a destructor that panics costs none of the others their turn.
            drop_quietly(slot);
            removals.iter().for_each(|removals| removals.expired(&key));
        }
        swept
    }

    /// Begins a clear. From now until the walk is dropped, puts that it covers act as removals.
    pub(super) fn clear(&self, scope: Scope, stamp: Stamp) -> ClearWalk<'_> {
        let id = self.puts.fetch_add(1, Ordering::Relaxed);
        let clear = Clear { id, scope, stamp };
        // Waits for puts in progress (microseconds), so that the walk sees what they stored.
        self.clears.write().unwrap_or_else(PoisonError::into_inner).push(clear.clone());
        ClearWalk { store: self, clear, entries: self.map.iter() }
    }

    #[cfg(test)]
    pub(super) fn indexed(&self) -> usize {
        self.expiry.len()
    }

    #[cfg(test)]
    pub(super) fn shards(&self) -> usize {
        self.map.num_shards()
    }

    fn remove_any(&self, key: &CacheKey) -> bool {
        let removed = self.map.remove(key);
        self.expiry.remove(removed.iter().filter_map(due));
        let was_there = removed.is_some();
        drop_quietly(removed);
        was_there
    }

    /// Returns what a put pushed out, to be dropped when no lock is held: its destructor is the user's.
    fn insert(&self, key: CacheKey, entry: Entry) -> Displaced {
        let mut displaced = Displaced::default();
        let clears = self.clears.read().unwrap_or_else(PoisonError::into_inner);
        if clears.iter().any(|clear| clear.covers(&key, entry.meta.stamp)) {
            drop(clears);
            self.remove_any(&key);
            return displaced;
        }
        #[expect(clippy::cast_possible_truncation, reason = "few bits tell apart the puts of one key")]
        let slot = Packed::from(entry).tagged(self.puts.fetch_add(1, Ordering::Relaxed) as u16);
        if let Some(mark) = mark_of(&slot) {
            self.expiry.insert((mark, key.hash_u64()));
        }
        // Still under `clears`: a clear that begins later finds this entry in its walk.
        self.map.insert_with_lifecycle(key, slot, &mut displaced);
        displaced
    }
}

impl Port for Store {
    #[inline]
    fn hit(&self, key: &KeyProbe<'_>) -> Option<Packed> {
        self.map.get(key)
    }

    fn contains(&self, key: &KeyProbe<'_>) -> bool {
        self.map.contains_key(key)
    }

    fn put(&self, key: CacheKey, entry: Entry) {
        let hash = key.hash_u64();
        let displaced = self.insert(key, entry);
        self.expiry.remove(displaced.iter().filter_map(due));
        // What stood under the same key was replaced, or is this very put, turned away for its weight.
        let evicted = displaced.iter().filter(|(key, _)| key.hash_u64() != hash);
        let removals = self.removals.load();
        let evicted = evicted.inspect(|(key, _)| removals.iter().for_each(|removals| removals.evicted(key)));
        let evicted = evicted.count() as u64;
        if evicted > 0 {
            self.evictions.fetch_add(evicted, Ordering::Relaxed);
        }
        displaced.first.into_iter().chain(displaced.more).for_each(drop_quietly);
    }

    fn remove(&self, key: &CacheKey) -> DeleteStatus {
        if self.remove_any(key) { DeleteStatus::Deleted(1) } else { DeleteStatus::Missing }
    }

    fn len(&self) -> usize {
        self.map.len()
    }
}

/// A clear in progress.
#[derive(Clone)]
struct Clear {
    id: u64,
    scope: Scope,
    stamp: Stamp,
}

impl Clear {
    fn covers(&self, key: &CacheKey, stamp: Stamp) -> bool {
        stamp <= self.stamp && self.scope.covers(key.prefix())
    }
}

/// A walk over all entries that removes what a clear covers. Holds no lock between steps.
pub(super) struct ClearWalk<'a> {
    store: &'a Store,
    clear: Clear,
    /// Passes every entry that was there when the walk began and still is; later ones with an older stamp cannot
    /// come to be, because puts look at `clears`.
    entries: Iter<'a, CacheKey, Packed, Weigh, KeyHash, Collect>,
}

impl ClearWalk<'_> {
    /// Looks at up to `limit` entries; `false` at the end.
    pub(super) fn step(&mut self, limit: usize) -> bool {
        let Self { store, clear, entries } = self;
        let mut seen = 0;
        let mut removed = Vec::new();
        for (key, slot) in entries.by_ref().take(limit) {
            seen += 1;
            if clear.covers(&key, slot.stamp()) {
                // Looked at again under the lock: a newer put may have replaced it since.
                removed.extend(store.map.remove_if(&key, |slot| slot.stamp() <= clear.stamp));
            }
            drop_quietly(slot);
        }
        store.expiry.remove(removed.iter().filter_map(due));
        removed.into_iter().for_each(drop_quietly);
        seen == limit
    }
}

impl Drop for ClearWalk<'_> {
    fn drop(&mut self) {
        let mut clears = self.store.clears.write().unwrap_or_else(PoisonError::into_inner);
        clears.retain(|clear| clear.id != self.clear.id);
    }
}

/// What an entry weighs under the tier's limit. Never zero: the map would not evict such an entry.
#[derive(Clone)]
struct Weigh(Limit);

impl Weighter<CacheKey, Packed> for Weigh {
    fn weight(&self, key: &CacheKey, slot: &Packed) -> u64 {
        match self.0 {
            Limit::Entries(_) => 1,
            Limit::Bytes(_) => OVERHEAD + key.as_str().len() as u64 + u64::from(slot.weight()),
        }
    }
}

/// Finds an entry by its key's hash alone.
#[derive(Hash)]
struct Hashed(u64);

impl Equivalent<CacheKey> for Hashed {
    fn equivalent(&self, key: &CacheKey) -> bool {
        self.0 == key.hash_u64()
    }
}

/// Its mark in the index; `None`: it never expires. The tag is the last bits of the number of the put that stored it.
fn mark_of(slot: &Packed) -> Option<u64> {
    slot.kept_until().map(|at| mark(at, slot.tag()))
}

/// Where an entry stands in the index, if it expires.
fn due((key, slot): &(CacheKey, Packed)) -> Option<Due> {
    mark_of(slot).map(|mark| (mark, key.hash_u64()))
}

/// Gathers what a put pushed out: evicted, replaced, or turned away.
#[derive(Clone)]
struct Collect;

/// Seldom more than one, which needs no allocation.
#[derive(Default)]
struct Displaced {
    first: Option<(CacheKey, Packed)>,
    more: Vec<(CacheKey, Packed)>,
}

impl Displaced {
    fn iter(&self) -> impl Iterator<Item = &(CacheKey, Packed)> {
        self.first.iter().chain(&self.more)
    }
}

impl Lifecycle<CacheKey, Packed> for Collect {
    type RequestState = Displaced;

    fn on_evict(&self, displaced: &mut Displaced, key: CacheKey, slot: Packed) {
        match &mut displaced.first {
            first @ None => *first = Some((key, slot)),
            Some(_) => displaced.more.push((key, slot)),
        }
    }
}
