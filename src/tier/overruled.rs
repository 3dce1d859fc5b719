//! What a read-only tier may no longer show: keys that were set or removed above it.
//!
//! A read-only tier is never written, so it cannot be made good. The mutation is settled there by its stamp instead:
//! an entry of the key is absent unless it is stamped later, as one that the store's owner writes afterwards is. The
//! keys are kept exactly up to a limit; past it everything stamped at or before the newest of them is absent, and
//! they are forgotten: misses, but bounded.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::key::{CacheKey, KeyHash, KeyProbe};
use crate::value::Stamp;

#[derive(Default)]
pub(crate) struct Overruled {
    /// Whether there ever was one: until then, reads need no lock.
    any: AtomicBool,
    keys: Mutex<HashMap<CacheKey, Stamp, KeyHash>>,
}

impl Overruled {
    /// From now on, entries of `key` up to `stamp` are absent. With more than `limit` keys, `hide` is told up to which
    /// stamp every entry has to be absent instead.
    pub(crate) fn add(&self, key: &CacheKey, stamp: Stamp, limit: usize, hide: impl FnOnce(Stamp)) {
        let mut keys = self.lock();
        self.any.store(true, Ordering::Release);
        let newest = keys.entry(key.clone()).or_default();
        *newest = stamp.max(*newest);
        if keys.len() > limit {
            // Hidden before they are forgotten, both under the lock that readers take.
            hide(keys.values().copied().max().unwrap_or(stamp));
            keys.clear();
        }
    }

    /// Whether an entry of the key with this time is older than what this process made of the key.
    pub(crate) fn hides(&self, key: &KeyProbe<'_>, time: u64) -> bool {
        // Acquire pairs with the store in `add`, before the mutation returned to its caller.
        self.any.load(Ordering::Acquire)
            && self.lock().get(&key.to_key()).is_some_and(|stamp| time <= stamp.time)
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CacheKey, Stamp, KeyHash>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
