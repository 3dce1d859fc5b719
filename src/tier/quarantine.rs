//! Quarantine: a key whose mutation a tier did not confirm reads as a miss there until the tier is made good.
//!
//! It ends when a repair (the newest change wanted, written again) is confirmed *and* every attempt that may still be
//! applied has returned or its residual time is over: a late attempt would undo a repair that was confirmed before it.
//! A late attempt that returns confirmed and is itself the newest change wanted is as good as a repair. In a store that
//! compares stamps no attempt is late: whenever it is applied, it cannot undo what is newer.
//!
//! In a write-behind tier it may stand before a pending change: one that was acknowledged, when a newer one of its key was
//! not (there was no room for it, its caller went away). Another tier may have shown the newer one, so the older one shows
//! no more, nor is it sent; but it stays queued, and in the journal, until the newer one is in the store and so replaces
//! it. If that will not come, because its value could not be kept for the repair or the repair fails again and again, the
//! older one is a dead letter.

use super::behind::Moment;
use super::ledger::{Attempt, Ledger};
use super::message::Change;
use crate::key::CacheKey;
use crate::planted::{Plant, planted};
use crate::value::Stamp;
use crate::write_behind::DeadReason;

/// Past this many bytes, keys are repaired by removal: the value is not kept.
const HELD_LIMIT: usize = 16 << 20;

pub(super) struct Quarantine {
    /// The newest change that the tier should show.
    want: (Stamp, Change),
    /// Attempts that may still be applied.
    late: Vec<Attempt>,
    /// The repair under way, and the change it carries.
    repair: Option<(Attempt, Stamp)>,
}

impl Quarantine {
    /// Ends it, for a pending change takes its place. Returns the weight it held, the change it wanted, and the attempts
    /// that may still be applied, a repair under way among them.
    pub(super) fn end(self) -> (usize, Change, Vec<Attempt>) {
        let Self { want: (_, change), mut late, repair } = self;
        late.extend(repair.map(|(attempt, _)| attempt));
        (change.weight(), change, late)
    }
}

/// A quarantined key to be written again.
pub(super) struct Repair {
    pub(super) key: CacheKey,
    pub(super) stamp: Stamp,
    pub(super) change: Change,
    pub(super) attempt: Attempt,
}

impl Ledger {
    /// Puts the key into quarantine, or renews what it wants. `late`: an attempt that may still be applied. In a
    /// bypassed tier the change is settled and nothing more: the tier is cleared once every call has returned.
    pub(super) fn enter_quarantine(
        &mut self,
        key: &CacheKey,
        stamp: Stamp,
        change: Change,
        late: Option<Attempt>,
    ) {
        if self.keeps_answering() {
            return;
        }
        let state = self.keys.entry(key.clone()).or_default();
        let (mut older, mut forgets) = (Vec::new(), false);
        if let (Some(pending), Some(backlog), None) =
            (&mut state.pending, &mut self.backlog, &state.quarantine)
        {
            if pending.stamp.time >= stamp.time {
                // Older than what the key shows, which is not sent before this can no longer be applied.
                pending.late.extend(late.filter(|_| !self.compares));
                return self.dropped.push(change);
            }
            // It was acknowledged, and this is not: it stays queued, though it neither shows nor goes any more.
            backlog.unplace(pending);
            older = std::mem::take(&mut pending.late);
            forgets = planted(Plant::RefusedForgetsAcknowledged);
        }
        state.settled = state.settled.max(stamp.time);
        // An attempt of this key that is still out may be applied as well.
        let late = late.or(state.out.take());
        let late = late.filter(|_| !self.compares && !planted(Plant::LiftAtConfirmation));
        if self.bypassed {
            self.dropped.push(change);
            self.displace(key, stamp);
            return self.tidy(key);
        }
        let mut change = change;
        if self.held + change.weight() > HELD_LIMIT {
            self.dropped.push(std::mem::replace(&mut change, Change::Remove));
            self.displace(key, stamp);
        }
        let Some(state) = self.keys.get_mut(key) else { return };
        match &mut state.quarantine {
            Some(quarantine) => {
                quarantine.late.extend(late);
                if stamp.time >= quarantine.want.0.time && !planted(Plant::RepairsOldest) {
                    self.held = self.held + change.weight() - quarantine.want.1.weight();
                    let (_, old) = std::mem::replace(&mut quarantine.want, (stamp, change));
                    self.dropped.push(old);
                } else {
                    self.dropped.push(change);
                }
            }
            None => {
                self.held += change.weight();
                self.quarantined += 1;
                state.quarantine = Some(Box::new(Quarantine {
                    want: (stamp, change),
                    late: late.into_iter().collect(),
                    repair: None,
                }));
                self.repairs.push_back(key.clone());
            }
        }
        self.extend_late(key, older);
        if forgets {
            self.supersede(key);
        }
    }

    /// What is pending of the key, if it is older than `stamp`, will never be brought to the store, nor what replaced it:
    /// it is given up before the lock is released. What the journal keeps past a shutdown is left to that.
    fn displace(&mut self, key: &CacheKey, stamp: Stamp) {
        let pending = self.keys.get(key).and_then(|state| state.pending.as_ref());
        if pending.is_some_and(|pending| pending.stamp.time < stamp.time)
            && let Some(backlog) = self.backlog.as_mut().filter(|backlog| !backlog.closed)
        {
            backlog.displaced.push(key.clone());
        }
    }

    /// Adds attempts that may still be applied to the key's quarantine.
    pub(super) fn extend_late(&mut self, key: &CacheKey, late: Vec<Attempt>) {
        if let Some(quarantine) = self.keys.get_mut(key).and_then(|state| state.quarantine.as_mut()) {
            quarantine
                .late
                .extend(late.into_iter().filter(|_| !self.compares && !planted(Plant::LiftAtConfirmation)));
        }
    }

    /// Whether the key reads as a miss.
    pub(super) fn is_quarantined(&self, key: &CacheKey) -> bool {
        self.keys.get(key).is_some_and(|state| state.quarantine.is_some())
    }

    /// A late attempt returned (or its residual time is over); `confirmed`: with which change applied.
    pub(super) fn late(&mut self, key: &CacheKey, attempt: Attempt, confirmed: Option<Stamp>) {
        if self.pending_late(key, attempt, confirmed) {
            return;
        }
        let Some(state) = self.keys.get_mut(key) else { return };
        let Some(quarantine) = &mut state.quarantine else { return };
        quarantine.late.retain(|&late| late != attempt);
        let (over, want) = (quarantine.late.is_empty() && quarantine.repair.is_none(), quarantine.want.0);
        if let (Some(pending), Some(backlog)) = (&state.pending, &mut self.backlog)
            && confirmed == Some(pending.stamp)
        {
            backlog.counts.applied += 1;
            self.discard(key);
        }
        if !over {
            return;
        }
        if confirmed == Some(want) {
            self.lift(key);
        } else {
            self.repairs.push_back(key.clone());
        }
    }

    /// Up to `limit` keys to repair now. A key with late attempts is left out until they are over.
    pub(super) fn take_repairs(&mut self, limit: usize) -> Vec<Repair> {
        let mut repairs = Vec::new();
        while repairs.len() < limit {
            let Some(key) = self.repairs.pop_front() else { break };
            let attempt = self.next_attempt();
            let Some(state) = self.keys.get_mut(&key) else { continue };
            let Some(quarantine) = &mut state.quarantine else { continue };
            if !quarantine.late.is_empty() || quarantine.repair.is_some() {
                continue; // queued again by `late` or `repaired`
            }
            let (stamp, change) = quarantine.want.clone();
            quarantine.repair = Some((attempt, stamp));
            repairs.push(Repair { key, stamp, change, attempt });
        }
        repairs
    }

    /// Those of the repairs taken a while ago that are still to be sent; the others are over.
    pub(super) fn still_wanted(&mut self, mut repairs: Vec<Repair>) -> Vec<Repair> {
        let gone = repairs.extract_if(.., |repair| {
            let quarantine = self.keys.get(&repair.key).and_then(|state| state.quarantine.as_ref());
            let known = quarantine.and_then(|quarantine| quarantine.repair.as_ref());
            known.is_none_or(|(attempt, _)| *attempt != repair.attempt)
        });
        for Repair { key, change, attempt, .. } in gone.collect::<Vec<_>>() {
            self.dropped.push(change);
            self.late(&key, attempt, None);
        }
        repairs
    }

    /// A repair returned in time.
    pub(super) fn repaired(&mut self, key: &CacheKey, attempt: Attempt, confirmed: bool) {
        if self.pending_late(key, attempt, None) {
            return; // a newer change lifted the quarantine meanwhile, and waited for this
        }
        let Some(quarantine) = self.keys.get_mut(key).and_then(|state| state.quarantine.as_mut()) else {
            return;
        };
        let Some((_, stamp)) = quarantine.repair.take_if(|(repair, _)| *repair == attempt) else {
            // Of an earlier quarantine, which a pending change lifted before it was itself overtaken.
            return self.late(key, attempt, None);
        };
        if confirmed && quarantine.late.is_empty() && quarantine.want.0 == stamp {
            self.lift(key);
        } else if quarantine.late.is_empty() {
            self.repairs.push_back(key.clone());
        }
    }

    /// A repair has failed, or hangs: if the key's pending change stands behind it, that cannot be held up for ever, nor
    /// those who wait for the queue to be empty. `own`: the store has answered, so that it says something of this key.
    pub(super) fn repair_failed(&mut self, key: &CacheKey, own: bool, at: Moment) {
        let Some(state) = self.keys.get_mut(key).filter(|state| state.quarantine.is_some()) else { return };
        let (Some(pending), Some(backlog)) = (&mut state.pending, &mut self.backlog) else { return };
        pending.attempts += u32::from(own);
        if !backlog.closed && backlog.verdict(pending, at.now).is_some() {
            self.give_up(key, DeadReason::Displaced, at.wall);
        }
    }

    /// The deadline of a repair passed: it is one more attempt that may still be applied.
    pub(super) fn repair_overdue(&mut self, key: &CacheKey, attempt: Attempt) {
        if let Some(quarantine) = self.keys.get_mut(key).and_then(|state| state.quarantine.as_mut())
            && quarantine.repair.take_if(|(repair, _)| *repair == attempt).is_some()
        {
            if self.compares {
                self.repairs.push_back(key.clone());
            } else {
                quarantine.late.push(attempt);
            }
        }
    }

    /// Drops every quarantine and repair: the whole tier is bypassed instead.
    pub(super) fn forget_quarantines(&mut self) {
        let quarantines: Vec<_> = self
            .keys
            .iter_mut()
            .filter_map(|(key, state)| state.quarantine.take().map(|quarantine| (key.clone(), quarantine)))
            .collect();
        for (key, quarantine) in quarantines {
            self.displace(&key, quarantine.want.0);
            self.dropped.push(quarantine.want.1);
            self.tidy(&key);
        }
        self.repairs.clear();
        self.quarantined = 0;
        self.held = 0;
    }

    fn lift(&mut self, key: &CacheKey) {
        if let Some(quarantine) = self.keys.get_mut(key).and_then(|state| state.quarantine.take()) {
            self.held -= quarantine.want.1.weight();
            self.quarantined -= 1;
            self.dropped.push(quarantine.want.1);
            // What it stood before is replaced now.
            self.supersede(key);
            self.tidy(key);
        }
    }
}
