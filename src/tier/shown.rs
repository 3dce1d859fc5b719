//! What a tier may show of what it holds, and for how long.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::core::{TierCore, lock};
use super::message::Change;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{CacheKey, KeyProbe};
use crate::planted::{Plant, planted};
use crate::value::Stamp;

impl TierCore {
    /// What the key shows here instead of what the store holds, if a change of it is pending (`None`: ask the store), or
    /// why it may not be read now. To be asked *before* the store is read: between a later look and the read, a repair
    /// could lift the quarantine, or the change be applied, after the read had already seen the old value.
    pub(crate) fn shown(&self, key: &CacheKey) -> Result<Option<Change>> {
        if self.gate.is_open() || (planted(Plant::PortIgnoresQuarantine) && self.port.is_some()) {
            return Ok(None);
        }
        let mut quarantined = false;
        // Also while the tier is bypassed: what is pending is the newest of its key, whatever the store has missed.
        if self.behind.is_some() && !planted(Plant::PendingHidden) {
            let pending = {
                // Under one lock: a change that is accepted between two looks would lift the quarantine unseen.
                let ledger = lock(&self.ledger);
                quarantined = ledger.is_quarantined(key);
                ledger.pending_change(key)
            };
            if let Some((_, change)) = pending {
                return Ok(Some(change.raised(self.hidden.load(Ordering::Acquire))));
            }
        }
        let why = if self.gate.is_held() {
            "the tier is bypassed by an operator"
        } else if self.gate.is_bypassed() {
            "the tier is bypassed until it has been cleared: too many of its keys were in quarantine"
        } else if quarantined || lock(&self.ledger).is_quarantined(key) {
            "the key is in quarantine: the tier has not confirmed its last change"
        } else {
            return Ok(None);
        };
        Err(Error::new(ErrorKind::Unavailable, why))
    }

    /// Whether nothing at all is blocked or pending: one load.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.gate.is_open()
    }

    /// Whether an entry with these stamps is older than what the tier may have missed.
    #[inline]
    pub(crate) fn hides(&self, key: &KeyProbe<'_>, time: u64) -> bool {
        // The keys first: when there are too many, they are forgotten once `hidden` covers them.
        ((self.options.read_only || !self.authoritative) && self.overruled.hides(key, time))
            || self.covers(time)
    }

    #[inline]
    fn covers(&self, time: u64) -> bool {
        let hidden = self.hidden.load(Ordering::Acquire);
        // Zero hides nothing, not even what has no stamp.
        hidden > 0 && time <= hidden
    }

    /// Settles a mutation at a tier that is never written: what it holds of the key up to `stamp` is absent.
    pub(crate) fn overrule(&self, key: &CacheKey, stamp: Stamp) {
        let hide = |stamp: Stamp| {
            self.hidden.fetch_max(stamp.time, Ordering::SeqCst);
        };
        self.overruled.add(key, stamp, self.options.quarantine, hide);
    }

    /// The longest life of an entry here, now.
    pub(crate) fn ttl_cap(&self) -> Option<Duration> {
        let cap = self.options.ttl_cap;
        match self.fallback_cap {
            Some(fallback) if !self.told.load(Ordering::Relaxed) => {
                Some(cap.map_or(fallback, |cap| cap.min(fallback)))
            }
            _ => cap,
        }
    }

    /// Whether somebody tells what other processes write.
    #[cfg(feature = "backplane")]
    pub(crate) fn follow_backplane(&self, up: bool) {
        self.told.store(up, Ordering::Relaxed);
    }
}
