//! How many of a tier's entries cannot be decoded: an alarm that follows the share of failures.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::core::TierCore;
use crate::error::{ErrorKind, Result};
use crate::observe::EventKind;

/// Entries in one stretch.
const STRETCH: u32 = 100;

/// Counts decodings in stretches of a hundred. The alarm rises as soon as a stretch has too many failures, and falls
/// with the first whole stretch that has fewer. No clock: a tier that nobody reads keeps its state.
#[derive(Debug)]
pub(crate) struct Decodes {
    /// Failures in a stretch that are too many; zero: never.
    limit: u32,
    seen: AtomicU32,
    failed: AtomicU32,
    alarmed: AtomicBool,
}

impl Decodes {
    /// Alarmed from `percent` failures on; zero: never.
    pub(crate) fn new(percent: u8) -> Self {
        let (seen, failed) = (AtomicU32::new(0), AtomicU32::new(0));
        Self { limit: u32::from(percent), seen, failed, alarmed: AtomicBool::new(false) }
    }

    /// Counts an entry; returns the alarm's new state if this changed it. Threads that race at the end of a stretch
    /// may count an entry in the next one.
    pub(crate) fn note(&self, ok: bool) -> Option<bool> {
        if self.limit == 0 {
            return None;
        }
        let failed = if ok {
            self.failed.load(Ordering::Relaxed)
        } else {
            self.failed.fetch_add(1, Ordering::Relaxed) + 1
        };
        let alarm = failed >= self.limit;
        let ended = self.seen.fetch_add(1, Ordering::Relaxed) + 1 >= STRETCH;
        if ended {
            self.seen.store(0, Ordering::Relaxed);
            self.failed.store(0, Ordering::Relaxed);
        }
        let changed = if alarm {
            !self.alarmed.swap(true, Ordering::Relaxed)
        } else {
            ended && self.alarmed.swap(false, Ordering::Relaxed)
        };
        changed.then_some(alarm)
    }

    pub(crate) fn is_alarmed(&self) -> bool {
        self.alarmed.load(Ordering::Relaxed)
    }
}

impl TierCore {
    /// Counts an entry that was decoded, or could not be.
    pub(crate) fn note_decode<T>(&self, result: &Result<T>) {
        let ok = match result {
            Ok(_) => true,
            Err(error) => match error.kind() {
                ErrorKind::Decode | ErrorKind::TooLarge | ErrorKind::Panicked => false,
                // Says nothing about the entry.
                _ => return,
            },
        };
        if let Some(alarmed) = self.decodes.note(ok) {
            self.tell(if alarmed { EventKind::DecodeFailuresRose } else { EventKind::DecodeFailuresFell });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_at_once_and_falls_with_a_good_stretch() {
        let decodes = Decodes::new(3);
        assert_eq!([false, false].map(|ok| decodes.note(ok)), [None, None]);
        assert_eq!(decodes.note(false), Some(true));
        let changes = (0..97).filter_map(|_| decodes.note(true)).count();
        assert_eq!((changes, decodes.is_alarmed()), (0, true), "this stretch had its failures");
        let changes: Vec<_> = (0..100).filter_map(|_| decodes.note(true)).collect();
        assert_eq!(changes, [false]);
    }

    #[test]
    fn zero_percent_is_never_alarmed() {
        let decodes = Decodes::new(0);
        assert!((0..1000).all(|_| decodes.note(false).is_none()));
        assert!(!decodes.is_alarmed());
    }
}
