//! Which entry expires when, so that a sweep touches only what is due.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::value::Timestamp;

/// Where an entry stands in the index: its mark, and its key's hash by which it is found again.
///
/// The mark is the time it is due (48 bits of milliseconds) and the number of the put that stored it (16 bits), so that
/// puts of one key stand apart. Sixteen bytes an entry: with the key in full the index would be a quarter of what an
/// entry costs. Should two entries share both, one of them is not swept: it is as expired, and waits to be evicted.
pub(super) type Due = (u64, u64);

/// When it is due, and which put stored it.
pub(super) fn mark(at: Timestamp, put: u16) -> u64 {
    // Year 10889 is the latest time that has a sweep.
    at.as_millis().min((1 << 48) - 1) << 16 | u64::from(put)
}

/// The entries that expire, by time. Touched by mutations only, never by reads.
///
/// A put enters its due time before its entry becomes visible in the map, and whoever takes an entry out of the map
/// takes out its due time afterwards. So every entry that expires is in the index, and what is in the index beyond
/// the entries are only mutations in progress: it cannot outgrow the map, however threads interleave.
///
/// In parts, by hash, which several threads seldom need at once, and whose trees are less deep.
#[derive(Debug, Default)]
pub(super) struct ExpiryIndex([Part; PARTS]);

/// A power of two.
const PARTS: usize = 16;

/// In a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Part(Mutex<BTreeSet<Due>>);

impl ExpiryIndex {
    pub(super) fn insert(&self, due: Due) {
        self.part(due).lock().insert(due);
    }

    pub(super) fn remove(&self, due: impl IntoIterator<Item = Due>) {
        for due in due {
            self.part(due).lock().remove(&due);
        }
    }

    /// Takes out up to `limit` of what is due at `now`, the earliest first.
    pub(super) fn take_due(&self, now: Timestamp, limit: usize) -> Vec<Due> {
        // All at once, always in this order; puts need one at a time.
        let mut parts: Vec<_> = self.0.iter().map(Part::lock).collect();
        let mut taken = Vec::new();
        while taken.len() < limit {
            let earliest =
                parts.iter_mut().min_by_key(|part| part.first().copied().unwrap_or((u64::MAX, u64::MAX)));
            match earliest {
                Some(part) if part.first().is_some_and(|due| due.0 <= mark(now, u16::MAX)) => {
                    taken.extend(part.pop_first());
                }
                _ => break,
            }
        }
        taken
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|part| part.lock().len()).sum()
    }

    fn part(&self, due: Due) -> &Part {
        // Bits in the middle: maps keyed by the same hash use those at either end.
        let part = (due.1 >> 24) as usize;
        &self.0[part % PARTS]
    }
}

impl Part {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<Due>> {
        // No user code runs under this lock, and a BTreeSet is whole after every operation.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
