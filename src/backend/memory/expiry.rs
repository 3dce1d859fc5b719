//! Which entry expires when, so that a sweep touches only what is due.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::key::CacheKey;
use crate::value::Timestamp;

/// Where an entry stands in the index: its time, and the number of the put that stored it.
pub(super) type Due = (Timestamp, u64);

/// The entries that expire, by time. Touched by mutations only, never by reads.
///
/// A put enters its due time before its entry becomes visible in the map, and whoever takes an entry out of the map
/// takes out its due time afterwards. So every entry that expires is in the index, and what is in the index beyond
/// the entries are only mutations in progress: it cannot outgrow the map, however threads interleave.
#[derive(Debug, Default)]
pub(super) struct ExpiryIndex(Mutex<BTreeMap<Due, CacheKey>>);

impl ExpiryIndex {
    pub(super) fn insert(&self, due: Due, key: CacheKey) {
        self.lock().insert(due, key);
    }

    pub(super) fn remove(&self, due: impl IntoIterator<Item = Due>) {
        let mut due = due.into_iter().peekable();
        if due.peek().is_none() {
            return;
        }
        let mut index = self.lock();
        for at in due {
            index.remove(&at);
        }
    }

    /// Takes out up to `limit` of what is due at `now`, the earliest first.
    pub(super) fn take_due(&self, now: Timestamp, limit: usize) -> Vec<(u64, CacheKey)> {
        let mut taken = Vec::new();
        let mut index = self.lock();
        while taken.len() < limit {
            let Some(first) = index.first_entry().filter(|first| first.key().0 <= now) else {
                break;
            };
            let ((_, id), key) = first.remove_entry();
            taken.push((id, key));
        }
        taken
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Due, CacheKey>> {
        // No user code runs under this lock, and a BTreeMap is whole after every operation.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
