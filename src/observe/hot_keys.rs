//! `cache.hot_keys(n)`: which keys are read most, from a sample.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::key::{CacheKey, KeyHash, KeyProbe};

/// One of this many reads is looked at, on average.
const ONE_OF: u32 = 64;
/// Keys that are counted at once.
const COUNTED: usize = 1024;
/// Samples after which all counts are halved, so that what was hot yesterday gives way.
const HALF_LIFE: u64 = 256 * 1024;

/// A key that is read often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HotKey {
    /// The key.
    pub key: CacheKey,
    /// About how often it was read: the sampled count, times 64. Counts are halved now and then (every 16 million
    /// reads of the cache), so this compares keys and is no total.
    pub reads: u64,
    /// By how much `reads` may be too high, because the key took another's place among those counted.
    pub over: u64,
}

/// The space-saving sketch (Metwally, Agrawal, El Abbadi 2005) over sampled reads.
#[derive(Default)]
pub(crate) struct HotKeys(Mutex<Sketch>);

#[derive(Default)]
struct Sketch {
    counts: HashMap<CacheKey, Count, KeyHash>,
    /// The same by count, so that the least is found at once.
    order: BTreeSet<(u64, CacheKey)>,
    samples: u64,
}

#[derive(Clone, Copy)]
struct Count {
    reads: u64,
    over: u64,
}

impl HotKeys {
    /// A read of `key`: a counter of this thread, and for one of 64 reads a short lock.
    pub(crate) fn note(&self, key: &KeyProbe<'_>) {
        thread_local! {
            static SAMPLER: Cell<(u32, u32)> = const { Cell::new((1, 0x9E37_79B9)) };
        }
        let (left, state) = SAMPLER.get();
        if left > 1 {
            return SAMPLER.set((left - 1, state));
        }
        // The distance varies (1 to 127), so that reads in a fixed rhythm are not missed for ever: xorshift.
        let state = state ^ (state << 13);
        let state = state ^ (state >> 17);
        let state = state ^ (state << 5);
        SAMPLER.set((1 + state % (2 * ONE_OF - 1), state));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count(key.to_key());
    }

    /// The `n` keys read most, the hottest first.
    pub(crate) fn top(&self, n: usize) -> Vec<HotKey> {
        let sketch = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let hot = sketch.order.iter().rev().take(n).map(|(reads, key)| HotKey {
            key: key.clone(),
            reads: reads * u64::from(ONE_OF),
            over: sketch.counts.get(key).map_or(0, |count| count.over) * u64::from(ONE_OF),
        });
        hot.collect()
    }
}

impl Sketch {
    fn count(&mut self, key: CacheKey) {
        self.samples += 1;
        if self.samples.is_multiple_of(HALF_LIFE) {
            self.halve();
        }
        if let Some(count) = self.counts.get_mut(&key) {
            self.order.remove(&(count.reads, key.clone()));
            count.reads += 1;
            self.order.insert((count.reads, key));
            return;
        }
        let mut count = Count { reads: 1, over: 0 };
        if self.counts.len() >= COUNTED
            && let Some((least, loser)) = self.order.pop_first()
        {
            // The newcomer may have been read as often as the one it replaces, and no more.
            self.counts.remove(&loser);
            count = Count { reads: least + 1, over: least };
        }
        self.order.insert((count.reads, key.clone()));
        self.counts.insert(key, count);
    }

    fn halve(&mut self) {
        self.counts.retain(|_, count| {
            *count = Count { reads: count.reads / 2, over: count.over / 2 };
            count.reads > 0
        });
        self.order = self.counts.iter().map(|(key, count)| (count.reads, key.clone())).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyPart;

    fn key(i: usize) -> CacheKey {
        CacheKey::new("k", 1, [KeyPart::flag(i.to_string())])
    }

    #[test]
    fn a_newcomer_takes_the_place_of_the_least() {
        let mut sketch = Sketch::default();
        for i in 0..COUNTED {
            sketch.count(key(i));
            sketch.count(key(i));
        }
        sketch.count(key(0));
        sketch.count(key(COUNTED));
        assert_eq!(sketch.counts.len(), COUNTED);
        assert_eq!(sketch.order.len(), COUNTED);
        let newcomer = sketch.counts[&key(COUNTED)];
        assert_eq!((newcomer.reads, newcomer.over), (3, 2));
        assert_eq!(sketch.counts[&key(0)].reads, 3);
    }

    #[test]
    fn halving_forgets_what_was_seen_once() {
        let mut sketch = Sketch::default();
        for _ in 0..5 {
            sketch.count(key(1));
        }
        sketch.count(key(2));
        sketch.halve();
        assert_eq!(sketch.order.into_iter().collect::<Vec<_>>(), [(2, key(1))]);
        assert!(!sketch.counts.contains_key(&key(2)));
    }
}
