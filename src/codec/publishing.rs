//! When a region's dictionary is stored in the tiers again, and for how long: what is written with it must not outlive it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::value::Timestamp;

/// After so many values, so that a store that evicts the oldest keeps it.
const VALUES: u64 = 10_000;

/// After so long, with the next value: another process may have cleared the store.
const EVERY: Duration = Duration::from_secs(10 * 60);

/// For how long it is stored at least, and at most: what a region writes for ever must not leave dictionaries for ever.
const SHORTEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Every field stands for itself, so they are relaxed: at worst a dictionary is stored once more.
#[derive(Debug, Default)]
pub(super) struct Publishing {
    /// Values until the next time.
    values: AtomicU64,
    /// From when on it is due with the next value, in wall-clock ms.
    due: AtomicU64,
    /// How long the region's entries are kept at most, in ms.
    wanted: AtomicU64,
    /// For how long they may be, by what the tiers were told last.
    promised: AtomicU64,
}

impl Publishing {
    /// A value was compressed with the dictionary.
    pub(super) fn value(&self) {
        let one_less = |values: u64| values.checked_sub(1);
        let _ = self.values.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
    }

    /// An entry is kept for so long; `None`: for ever.
    pub(super) fn wanted_for(&self, kept: Option<Duration>) {
        let kept = kept.unwrap_or(LONGEST).min(LONGEST);
        let millis = u64::try_from(kept.as_millis()).unwrap_or(u64::MAX);
        if millis > self.wanted.load(Ordering::Relaxed) {
            self.wanted.fetch_max(millis, Ordering::Relaxed);
        }
    }

    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let get = |field: &AtomicU64| field.load(Ordering::Relaxed);
        get(&self.values) == 0 || get(&self.due) <= now.as_millis() || get(&self.wanted) > get(&self.promised)
    }

    /// If it is due: one caller is to store it, for so long.
    pub(super) fn take(&self, now: Timestamp) -> Option<Duration> {
        let due = self.due.load(Ordering::Relaxed);
        let next = now.after(EVERY).as_millis();
        let is_mine = self.is_due(now)
            && self.due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        is_mine.then(|| self.begin(now))
    }

    /// It is stored now; for so long.
    pub(super) fn begin(&self, now: Timestamp) -> Duration {
        self.due.store(now.after(EVERY).as_millis(), Ordering::Relaxed);
        self.values.store(VALUES, Ordering::Relaxed);
        let wanted = self.wanted.load(Ordering::Relaxed);
        self.promised.store(wanted, Ordering::Relaxed);
        // Until it is stored again, entries are written that are kept as long.
        (Duration::from_millis(wanted) + 2 * EVERY).clamp(SHORTEST, LONGEST)
    }

    /// The tiers have lost it.
    pub(super) fn forget(&self) {
        self.values.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000 + millis)
    }

    #[test]
    fn it_is_due_at_first_and_after_so_many_values() {
        let publishing = Publishing::default();
        assert!(publishing.take(at(0)).is_some());
        assert_eq!(publishing.take(at(0)), None);
        (1..VALUES).for_each(|_| publishing.value());
        assert!(!publishing.is_due(at(0)));
        publishing.value();
        publishing.value();
        assert!(publishing.is_due(at(0)));
        publishing.begin(at(0));
        publishing.forget();
        assert!(publishing.is_due(at(0)));
    }

    #[test]
    fn it_is_due_after_some_minutes() {
        let publishing = Publishing::default();
        publishing.begin(at(0));
        let every = u64::try_from(EVERY.as_millis()).unwrap();
        assert!(!publishing.is_due(at(every - 1)));
        assert!(publishing.is_due(at(every)));
    }

    #[test]
    fn it_is_stored_for_longer_than_entries_are_kept() {
        let publishing = Publishing::default();
        assert_eq!(publishing.take(at(0)), Some(SHORTEST));
        publishing.wanted_for(Some(DAY));
        assert_eq!(publishing.take(at(0)), Some(SHORTEST), "it was not promised for as long");
        publishing.wanted_for(Some(100 * DAY));
        publishing.wanted_for(Some(DAY));
        assert!(publishing.take(at(0)).unwrap() > 100 * DAY);
        assert_eq!(publishing.take(at(0)), None);
        publishing.wanted_for(None);
        assert_eq!(publishing.take(at(0)), Some(LONGEST));
    }
}
