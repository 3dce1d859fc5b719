//! A store that outlives its caches, and remembers in which order it was written.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tierkeep::backend::Scope;
use tierkeep::{Backend, BackendResult, CacheKey, CacheValue, DeleteStatus, Entry, Payload, Raw, Stamp};

use super::world::lock;

/// Entries by key. Clones share them, so that a cache can be built anew over what an earlier one has left.
#[derive(Clone, Default)]
pub(super) struct Witness(Arc<Mutex<Shelf>>);

#[derive(Default)]
struct Shelf {
    entries: BTreeMap<CacheKey, (Stamp, CacheValue<Raw>)>,
    /// Everything up to these stamps is cleared.
    all: u64,
    prefixes: BTreeMap<Arc<str>, u64>,
    /// Of each key: the newest change made here, and the last.
    order: BTreeMap<CacheKey, (Stamp, Stamp)>,
}

impl Shelf {
    fn covers(&self, key: &CacheKey, stamp: Stamp) -> bool {
        stamp.time <= self.all.max(self.prefixes.get(key.prefix()).copied().unwrap_or(0))
    }

    fn note(&mut self, key: &CacheKey, stamp: Stamp) {
        // Zero removes what a fill may have left: it is no change.
        if stamp > Stamp::ZERO {
            let (newest, last) = self.order.entry(key.clone()).or_default();
            (*newest, *last) = (stamp.max(*newest), stamp);
        }
    }
}

impl Witness {
    /// Keys whose last change is older than another one that was made before it.
    pub(super) fn disordered(&self) -> Vec<String> {
        let shelf = lock(&self.0);
        let disordered = shelf.order.iter().filter(|(_, (newest, last))| last < newest);
        disordered.map(|(key, (newest, last))| format!("{key}: {last:?} after {newest:?}")).collect()
    }
}

#[async_trait]
impl Backend for Witness {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(lock(&self.0).entries.get(key).map(|(_, value)| value.clone()))
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        lock(&self.0).entries.insert(key.clone(), (Stamp::ZERO, value));
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(match lock(&self.0).entries.remove(key) {
            Some(_) => DeleteStatus::Deleted(1),
            None => DeleteStatus::Missing,
        })
    }

    async fn write_entries(&self, entries: Vec<(CacheKey, Entry)>) -> Vec<BackendResult<()>> {
        let mut shelf = lock(&self.0);
        for (key, Entry { payload, meta, .. }) in &entries {
            let Payload::Bytes(raw) = payload else { continue };
            shelf.note(key, meta.stamp);
            if shelf.covers(key, meta.stamp) {
                shelf.entries.remove(key);
            } else {
                let value = CacheValue::new(raw.clone(), meta.kept_until(), meta.stale);
                shelf.entries.insert(key.clone(), (meta.stamp, value));
            }
        }
        entries.iter().map(|_| Ok(())).collect()
    }

    async fn remove_entries(&self, entries: Vec<(CacheKey, Stamp)>) -> Vec<BackendResult<DeleteStatus>> {
        let mut results = Vec::new();
        for (key, stamp) in entries {
            lock(&self.0).note(&key, stamp);
            results.push(self.remove(&key).await);
        }
        results
    }

    async fn clear(&self, scope: &Scope, stamp: Stamp) -> BackendResult<()> {
        let mut shelf = lock(&self.0);
        match scope {
            Scope::Prefix(prefix) => {
                let mark = shelf.prefixes.entry(Arc::clone(prefix)).or_default();
                *mark = stamp.time.max(*mark);
            }
            _ => shelf.all = stamp.time.max(shelf.all),
        }
        shelf.entries.retain(|key, (written, _)| !scope.covers(key.prefix()) || written.time > stamp.time);
        Ok(())
    }

    fn residual(&self) -> Option<Duration> {
        Some(Duration::from_secs(30))
    }
}
