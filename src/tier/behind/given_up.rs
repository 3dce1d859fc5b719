//! What leaves the queue without having been brought to the store: dead letters, and what a clear covers.

use std::sync::Arc;

use super::super::breaker::BreakerState;
use super::super::core::TierCore;
use super::super::ledger::Ledger;
use super::super::message::Change;
use super::Moment;
use super::pending::{Pending, Place};
use crate::backend::Scope;
use crate::key::CacheKey;
use crate::planted::{Plant, planted};
use crate::value::{Stamp, Timestamp};
use crate::write_behind::{DeadLetter, DeadReason, Written};

impl TierCore {
    /// What nothing can be sent of does not fail either: the breaker holds it back, or a call of its key that does not
    /// return. What gets too old meanwhile is given up here.
    pub(super) fn give_up_aged(self: &Arc<Self>) {
        let limited = self.behind.as_ref().is_some_and(|behind| behind.options.retry.age.is_some());
        if limited {
            let at = self.moment();
            let closed = self.breaker.state() == BreakerState::Closed;
            self.with_ledger(|ledger, _| ledger.give_up_aged(at, closed));
        }
    }

    /// A clear was recorded: what it covers is pending no longer. The journal has forgotten it when the answer comes.
    pub(crate) fn clear_behind(self: &Arc<Self>, scope: &Scope, stamp: Stamp) -> Option<Written> {
        let behind = self.behind.as_ref()?;
        self.with_ledger(|ledger, _| ledger.clear_pending(scope, stamp));
        behind.keeper.forget(scope, stamp)
    }

    /// Dead letters that their sink did not take: they are handed out once.
    pub(crate) fn undelivered_letters(&self) -> Vec<DeadLetter> {
        self.behind.as_ref().map(|behind| behind.letters.take_undelivered()).unwrap_or_default()
    }
}

impl Ledger {
    /// Hands a pending change to the dead letters and quarantines its key.
    pub(in crate::tier) fn give_up(&mut self, key: &CacheKey, reason: DeadReason, wall: Timestamp) {
        let Some(pending) = self.keys.get(key).and_then(|state| state.pending.as_ref()) else { return };
        let Some(backlog) = &mut self.backlog else { return };
        let stamp = pending.stamp;
        if !(planted(Plant::DropCountsNothing) && reason == DeadReason::Overload) {
            backlog.bury(key, pending, reason, wall);
        }
        let late = self.discard(key);
        if let Some(backlog) = self.backlog.as_mut().filter(|_| !planted(Plant::LetterForgotten)) {
            // The journal keeps it until its letter was delivered.
            backlog.effects.settled.pop();
        }
        if planted(Plant::DeadNotQuarantined) {
            return;
        }
        // The store may hold what this was to replace.
        self.enter_quarantine(key, stamp, Change::Remove, None);
        self.extend_late(key, late);
    }

    /// Gives up what is too old, but for what is on its way. `only_held`: what may be sent is left to its attempts.
    fn give_up_aged(&mut self, at: Moment, only_held: bool) {
        let Some(backlog) = &self.backlog else { return };
        let aged: Vec<_> = backlog.aged(at.now).filter_map(|seq| backlog.order.get(&seq).cloned()).collect();
        for key in aged {
            let pending = self.keys.get(&key).and_then(|state| state.pending.as_deref());
            let given_up = |pending: &Pending| match pending.place {
                Place::Out(_) => false,
                Place::Held => true,
                Place::Fresh | Place::Retry => !only_held,
            };
            if pending.is_some_and(given_up) {
                self.give_up(&key, DeadReason::Age, at.wall);
            }
        }
    }

    /// Gives up what is not newer than `stamp`.
    #[cfg(feature = "backplane")]
    pub(in crate::tier) fn give_up_to(&mut self, stamp: Stamp, reason: DeadReason, wall: Timestamp) {
        let Some(backlog) = &self.backlog else { return };
        let is_older = |key: &&CacheKey| {
            let pending = self.keys.get(*key).and_then(|state| state.pending.as_ref());
            pending.is_some_and(|pending| pending.stamp.time <= stamp.time)
        };
        let older: Vec<_> = backlog.order.values().filter(is_older).cloned().collect();
        for key in older {
            self.give_up(&key, reason, wall);
        }
    }

    /// Gives up what refused changes have displaced for good. Returns whether there was any.
    pub(in crate::tier) fn give_up_displaced(&mut self, wall: impl FnOnce() -> Timestamp) -> bool {
        let Some(backlog) = self.backlog.as_mut().filter(|backlog| !backlog.displaced.is_empty()) else {
            return false;
        };
        let wall = wall();
        for key in std::mem::take(&mut backlog.displaced) {
            self.give_up(&key, DeadReason::Displaced, wall);
        }
        true
    }

    /// Lets go of every pending change that a clear covers.
    fn clear_pending(&mut self, scope: &Scope, stamp: Stamp) {
        let Some(backlog) = &self.backlog else { return };
        if planted(Plant::ClearLeavesPending) {
            return;
        }
        let covered = backlog.order.values().filter(|key| {
            let pending = self.keys.get(*key).and_then(|state| state.pending.as_ref());
            scope.covers(key.prefix()) && pending.is_some_and(|pending| pending.stamp.time <= stamp.time)
        });
        for key in covered.cloned().collect::<Vec<_>>() {
            let late = self.supersede(&key);
            let out = self.keys.get(&key).is_some_and(|state| state.out.is_some());
            if out || !late.is_empty() {
                // It may come to the store after the clear did, and be found there by the next process.
                self.enter_quarantine(&key, stamp, Change::Remove, None);
                self.extend_late(&key, late);
            }
        }
    }
}
