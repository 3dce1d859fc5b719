//! How a mutation comes into the queue, under the ledger's lock: taken, refused, or told that there is no room.

use std::sync::Arc;

use super::super::ledger::{Ledger, Refusal};
use super::super::message::{Change, Finished, Mutation, Settlement};
use super::Moment;
use super::attempts::LOOK_AHEAD;
use super::backlog::Backlog;
use super::pending::Place;
use super::room::Ticket;
use crate::error::{Error, ErrorKind, Result};
use crate::key::CacheKey;
use crate::planted::{Plant, planted};
use crate::value::Stamp;
use crate::write_behind::{DeadReason, Written};

/// How a mutation comes to the queue.
pub(super) struct Entrance {
    /// Why it cannot be taken, if it cannot.
    pub(super) refused: Option<Refusal>,
    /// Whether a clear covers it.
    pub(super) cleared: bool,
    pub(super) at: Moment,
    /// Its place in the line, if it waits for room.
    pub(super) ticket: Option<Ticket>,
    /// The oldest gives way to it.
    pub(super) make_room: bool,
}

/// What the queue says to a mutation.
pub(super) enum Verdict {
    /// It is pending, and settled thereby; to be answered once it is written where the journal says so.
    Taken(Finished, Option<Written>),
    /// It was settled otherwise.
    Settled,
    /// There is no room for it.
    Full(Mutation),
}

/// What became of a change that was queued at once.
pub(super) struct Queued {
    /// Whether it replaces a live value.
    pub(super) held: bool,
    /// What it replaces: to be dropped under no lock.
    pub(super) replaced: Option<Change>,
    /// Whether there is more to send.
    pub(super) wake: bool,
    /// Whether there is more room than there was.
    pub(super) room: bool,
}

impl Ledger {
    /// Takes a mutation into the queue, and has it `put` down where there is a journal.
    pub(super) fn accept(
        &mut self,
        mutation: Mutation,
        Entrance { refused, cleared, at, ticket, make_room }: Entrance,
        put: impl FnOnce(&CacheKey, Stamp, &Change) -> Option<Written>,
        done: &mut Vec<Finished>,
    ) -> Verdict {
        let key = mutation.key().clone();
        let stamp = mutation.stamp();
        let state = self.keys.entry(key.clone()).or_default();
        let Some(backlog) = &mut self.backlog else { return Verdict::Full(mutation) };
        let out = state.out.is_some();
        if stamp.time <= state.settled && !planted(Plant::AcceptForgetsSettled) {
            self.let_go(mutation, Ok(Settlement::Superseded), done);
            return Verdict::Settled;
        }
        if cleared {
            // A clear that was numbered later covers it: it may not be journaled and come back with the next process.
            let late = self.supersede(&key);
            self.settled(&key, stamp);
            if out || !late.is_empty() {
                // As where the clear itself finds it: it may come to the store after the clear did.
                self.enter_quarantine(&key, stamp, Change::Remove, None);
                self.extend_late(&key, late);
            }
            self.let_go(mutation, Ok(Settlement::Superseded), done);
            return Verdict::Settled;
        }
        if backlog.closed && state.pending.is_some() {
            // What is pending is left to the journal as it is.
            let error = Error::new(ErrorKind::Closed, "the cache has been shut down");
            self.let_go(mutation, Err(error), done);
            return Verdict::Settled;
        }
        let closed = backlog
            .closed
            .then(|| Refusal::Quarantine(Error::new(ErrorKind::Closed, "the cache has been shut down")));
        if let Some(Refusal::Quarantine(error) | Refusal::Bypassed(error)) = refused.or(closed) {
            self.quarantine_mutation(mutation, error, done);
            return Verdict::Settled;
        }
        let weight = mutation.change.weight();
        let old = state.pending.as_ref().map(|pending| pending.change.weight());
        // Also for a key with a place: those whose patience has ended are off the line, and nobody waits for them.
        let behind = backlog.line.is_behind(ticket, at.now);
        let barges = old.is_none() && behind;
        if barges || !backlog.has_room(weight, old) {
            if !make_room {
                return Verdict::Full(mutation);
            }
            self.make_room(&key, weight, at);
        }
        // Under the lock, and before it can be applied: what is settled was put down before.
        let written = put(&key, stamp, &mutation.change);
        let held = self.queue(&key, stamp, mutation.change.clone(), at);
        let mut own = Vec::new();
        self.let_go(mutation, Ok(Settlement::Queued { held }), &mut own);
        match own.pop() {
            Some(finished) => Verdict::Taken(finished, written),
            None => Verdict::Settled,
        }
    }

    /// Takes an announced change into the queue, in memory, and lets go of its mutation, which was never built; gives it
    /// back where anything speaks against that.
    pub(super) fn queue_at_once(
        &mut self,
        key: &CacheKey,
        stamp: Stamp,
        change: Change,
        at: Moment,
    ) -> Result<Queued, Change> {
        let (Some(state), Some(backlog)) = (self.keys.get_mut(key), &mut self.backlog) else {
            return Err(change);
        };
        let settled = stamp.time <= state.settled && !planted(Plant::AcceptForgetsSettled);
        if settled || state.quarantine.is_some() || backlog.closed {
            return Err(change);
        }
        let old = state.pending.as_ref().map(|pending| pending.change.weight());
        let barges = old.is_none() && !backlog.line.is_empty();
        if barges || !backlog.has_room(change.weight(), old) {
            return Err(change);
        }
        let (held, replaced) = backlog.queue(key, state, stamp, change, Vec::new(), at);
        state.let_go();
        let (wake, room) = (&mut backlog.effects.wake, &mut backlog.effects.room);
        Ok(Queued { held, replaced, wake: std::mem::take(wake), room: std::mem::take(room) })
    }

    /// Settles a mutation that found no room, as any that is not confirmed.
    pub(super) fn turn_away(&mut self, mutation: Mutation, done: &mut Vec<Finished>) {
        let Some(backlog) = &mut self.backlog else { return };
        backlog.counts.rejected += 1;
        let error = Error::new(ErrorKind::Overloaded, overloaded(backlog));
        if self.is_unsettled(mutation.key(), mutation.stamp()) {
            self.quarantine_mutation(mutation, error, done);
        } else {
            // While it waited, a newer one was taken in.
            self.let_go(mutation, Ok(Settlement::Superseded), done);
        }
    }

    /// Has the oldest give way until there is room.
    fn make_room(&mut self, key: &CacheKey, weight: usize, at: Moment) {
        loop {
            let Some(backlog) = &self.backlog else { return };
            let old = self.keys.get(key).and_then(|state| state.pending.as_ref());
            if backlog.has_room(weight, old.map(|pending| pending.change.weight())) {
                return;
            }
            // Rather one that is not on its way: that may be applied yet.
            let waits = |key: &CacheKey| {
                let pending = self.keys.get(key).and_then(|state| state.pending.as_ref());
                pending.is_some_and(|pending| !matches!(pending.place, Place::Out(_)))
            };
            let mut others = backlog.order.values().filter(|&other| other != key);
            let oldest = others.clone().take(LOOK_AHEAD * backlog.batch_keys).find(|key| waits(key));
            let Some(oldest) = oldest.or_else(|| others.next()).cloned() else { return };
            self.give_up(&oldest, DeadReason::Overload, at.wall);
        }
    }
}

/// Shared by everyone who waits for room.
pub(super) fn overloaded(backlog: &Backlog) -> Arc<str> {
    format!(
        "the write-behind queue is full ({} of {} keys, {} of {} bytes); the store is slower than the writes, or away",
        backlog.order.len(),
        backlog.entries,
        backlog.bytes,
        backlog.limit
    )
    .into()
}
