//! The pending change of a key: it becomes that, it shows, a newer one replaces it, and it goes.

use super::super::ledger::{Attempt, KeyState, Ledger};
use super::super::message::Change;
use super::Moment;
use super::backlog::{Backlog, Seq};
use crate::error::Error;
use crate::key::CacheKey;
use crate::planted::{Plant, planted};
use crate::runtime::Instant;
use crate::value::{Stamp, Timestamp};

/// A change that was accepted and is not known to be applied. It shows, until it is.
pub(in crate::tier) struct Pending {
    pub(in crate::tier) stamp: Stamp,
    pub(super) change: Change,
    pub(super) seq: Seq,
    /// Its place from when the older change is confirmed that is on its way: who waits for all that was accepted before
    /// a certain place waits for this one too.
    pub(super) next_seq: Option<Seq>,
    pub(super) place: Place,
    /// Since when the key waits: from here its delay counts, whatever replaces it.
    pub(super) since: Instant,
    /// When this change was accepted, by either clock.
    pub(super) accepted: (Instant, Timestamp),
    /// How often this change has failed on its own.
    pub(in crate::tier) attempts: u32,
    /// How often the key has failed in a row, probes included: the longer, the longer it waits.
    pub(super) failures: u32,
    /// Keys that may go with it in one call: fewer after each failure of a batch.
    pub(super) cap: usize,
    /// Attempts with older changes, or with this one, that may still be applied.
    pub(in crate::tier) late: Vec<Attempt>,
    /// When it may be tried again.
    pub(super) due: Instant,
    pub(super) error: Option<Error>,
}

impl Pending {
    pub(in crate::tier) fn is_out(&self) -> bool {
        matches!(self.place, Place::Out(_))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Waits for others to go with it.
    Fresh,
    /// Goes when it is due.
    Retry,
    /// Is on its way to the store.
    Out(Attempt),
    /// Waits until another attempt of its key is over.
    Held,
}

impl Ledger {
    /// Makes a change its key's pending one. Returns whether a live value was pending, which it replaces.
    pub(super) fn queue(&mut self, key: &CacheKey, stamp: Stamp, change: Change, at: Moment) -> bool {
        let late = self.take_over(key);
        if !self.keys.contains_key(key) {
            self.keys.insert(key.clone(), KeyState::default());
        }
        let (Some(state), Some(backlog)) = (self.keys.get_mut(key), &mut self.backlog) else { return false };
        let (held, replaced) = backlog.queue(key, state, stamp, change, late, at);
        self.dropped.extend(replaced);
        held
    }

    /// Lifts the key's quarantine, for its pending change stands in its place. Returns the attempts that may still be
    /// applied.
    fn take_over(&mut self, key: &CacheKey) -> Vec<Attempt> {
        let Some(quarantine) = self.keys.get_mut(key).and_then(|state| state.quarantine.take()) else {
            return Vec::new();
        };
        self.quarantined -= 1;
        let (weight, change, late) = quarantine.end();
        self.held -= weight;
        self.dropped.push(change);
        if self.compares { Vec::new() } else { late }
    }

    /// The change that the key shows instead of what the store holds, if there is one.
    pub(in crate::tier) fn pending_change(&self, key: &CacheKey) -> Option<(Stamp, Change)> {
        let state = self.keys.get(key).filter(|state| state.quarantine.is_none())?;
        let pending = state.pending.as_ref()?;
        Some((pending.stamp, pending.change.clone()))
    }

    /// Whether something newer of the key is settled here, or the very same change pending.
    pub(super) fn is_overtaken(&self, key: &CacheKey, stamp: Stamp) -> bool {
        self.keys.get(key).is_some_and(|state| {
            let pending = state.pending.as_ref().is_some_and(|pending| pending.stamp.time >= stamp.time);
            pending || state.settled > stamp.time
        })
    }

    /// Whether attempts with older changes of the key may still be applied, which its pending change waits for.
    pub(in crate::tier) fn has_late(&self, key: &CacheKey) -> bool {
        let pending = self.keys.get(key).and_then(|state| state.pending.as_ref());
        pending.is_some_and(|pending| !pending.late.is_empty())
    }

    /// A late attempt of a key with a pending change is over. Whether it was one of its.
    pub(in crate::tier) fn pending_late(
        &mut self,
        key: &CacheKey,
        attempt: Attempt,
        confirmed: Option<Stamp>,
    ) -> bool {
        let Some(state) = self.keys.get_mut(key).filter(|state| state.quarantine.is_none()) else {
            return false;
        };
        let (Some(pending), Some(backlog)) = (&mut state.pending, &mut self.backlog) else { return false };
        let known = pending.late.len();
        pending.late.retain(|&late| late != attempt);
        if pending.late.len() == known || !pending.late.is_empty() || state.out.is_some() {
            return true;
        }
        if confirmed == Some(pending.stamp) {
            backlog.counts.applied += 1;
            self.discard(key);
        } else {
            self.unhold(key);
        }
        true
    }

    /// Nothing of the key is out any more: its pending change may be sent, unless something late may still be applied.
    pub(in crate::tier) fn unhold(&mut self, key: &CacheKey) {
        if let (Some(state), Some(backlog)) = (self.keys.get_mut(key), &mut self.backlog) {
            backlog.unhold(state);
        }
    }

    /// Something newer is settled for the key: its pending change is over. Returns what may still be applied of it, but
    /// for an attempt that is out.
    pub(in crate::tier) fn supersede(&mut self, key: &CacheKey) -> Vec<Attempt> {
        if let Some(backlog) =
            self.backlog.as_mut().filter(|_| self.keys.get(key).is_some_and(|s| s.pending.is_some()))
        {
            backlog.counts.superseded += 1;
        }
        self.discard(key)
    }

    /// Takes a key's pending change out of the queue, and lets the change go.
    pub(in crate::tier) fn discard(&mut self, key: &CacheKey) -> Vec<Attempt> {
        let Some(state) = self.keys.get_mut(key) else { return Vec::new() };
        let (Some(mut pending), Some(backlog)) = (state.pending.take(), &mut self.backlog) else {
            return Vec::new();
        };
        backlog.remove(key, &mut pending);
        let Pending { change, late, .. } = *pending;
        self.dropped.push(change);
        self.tidy(key);
        late
    }
}

impl Backlog {
    /// Makes a change the pending one of its key, whose quarantine was lifted, if there was one: `late` may still be applied
    /// of that. Returns whether it replaces a live value, and what it replaces.
    pub(super) fn queue(
        &mut self,
        key: &CacheKey,
        state: &mut KeyState,
        stamp: Stamp,
        change: Change,
        late: Vec<Attempt>,
        at: Moment,
    ) -> (bool, Option<Change>) {
        if !planted(Plant::AcceptForgetsSettled) {
            state.settled = state.settled.max(stamp.time);
        }
        self.counts.accepted += 1;
        let Some(pending) = &mut state.pending else {
            state.pending = Some(self.first(key, stamp, change, late, at, state.out.is_some()));
            return (false, None);
        };
        pending.late.extend(late);
        self.counts.superseded += 1;
        self.settle(key, pending.stamp);
        let held = match &pending.change {
            Change::Set(entry) => !entry.meta.is_expired(at.wall),
            Change::Remove => false,
        };
        let (mut old, weight) = (change, pending.change.weight());
        if !planted(Plant::CoalescesOldest) {
            std::mem::swap(&mut pending.change, &mut old);
        }
        self.reweigh(pending.place, weight, pending.change.weight());
        self.note_age(Some((pending.accepted.0, pending.seq)), Some((at.now, pending.seq)));
        (pending.stamp, pending.accepted) = (stamp, (at.now, at.wall));
        (pending.attempts, pending.error) = (0, None);
        if pending.is_out() {
            pending.next_seq = Some(self.reserve());
        }
        if planted(Plant::PendingOvertakesLate) {
            pending.late.clear();
            let place = if pending.place == Place::Held { Place::Retry } else { pending.place };
            self.place(pending, place);
        }
        self.unhold(state);
        (held, Some(old))
    }

    /// The only change of a key that is pending.
    fn first(
        &mut self,
        key: &CacheKey,
        stamp: Stamp,
        change: Change,
        late: Vec<Attempt>,
        at: Moment,
        out: bool,
    ) -> Box<Pending> {
        self.bytes += change.weight();
        let mut pending = Box::new(Pending {
            stamp,
            change,
            seq: self.enter(key),
            next_seq: None,
            place: Place::Held,
            since: at.now,
            accepted: (at.now, at.wall),
            attempts: 0,
            failures: 0,
            cap: self.batch_keys,
            late,
            due: at.now,
            error: None,
        });
        if planted(Plant::PendingOvertakesLate) {
            pending.late.clear();
        }
        self.note_age(None, Some((at.now, pending.seq)));
        if !out && pending.late.is_empty() {
            self.place(&mut pending, Place::Fresh);
        }
        pending
    }

    /// Takes a key's pending change out of the queue.
    pub(super) fn remove(&mut self, key: &CacheKey, pending: &mut Pending) {
        self.unplace(pending);
        self.order.remove(&pending.seq);
        self.note_age(Some((pending.accepted.0, pending.seq)), None);
        self.bytes -= pending.change.weight();
        self.effects.drained = self.order.is_empty();
        self.settle(key, pending.stamp);
        (self.effects.left, self.effects.room) = (true, true);
    }

    /// Places what was held, unless something else of its key is under way.
    fn unhold(&mut self, state: &mut KeyState) {
        let free = state.out.is_none() && state.quarantine.is_none();
        let Some(pending) = state.pending.as_mut().filter(|_| free) else { return };
        if pending.late.is_empty() && pending.place == Place::Held {
            let untried = pending.failures == 0 && pending.cap == self.batch_keys;
            self.place(pending, if untried { Place::Fresh } else { Place::Retry });
        }
    }
}

impl Change {
    /// As it has to be stored so that it shows, though everything up to `hidden` is absent: an entry that was accepted
    /// before the tier was cleared to be made safe is still to be written after that.
    pub(in crate::tier) fn raised(&self, hidden: u64) -> Self {
        match self {
            Self::Set(entry) if hidden > 0 && entry.meta.stamp.time <= hidden => {
                let stamp = Stamp { time: hidden + 1, ..entry.meta.stamp };
                Self::Set(entry.clone().restamped(stamp))
            }
            change => change.clone(),
        }
    }
}
