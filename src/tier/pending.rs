//! Pending changes: what a key of a write-behind tier shows until its store has confirmed it.
//!
//! A pending change is settled when it is accepted, for every read of the tier asks for it before the store. The rules:
//!
//! 1. Of several changes of a key only the newest is pending. The one it replaces is superseded, though an attempt with it
//!    may be on its way.
//! 2. It is sent only when no other attempt of its key is out, and none that timed out may still be applied: an older one
//!    would undo it after it was confirmed, and nothing would show it any more.
//! 3. It stands in the place of a quarantine: one is lifted when a newer change is accepted (its late attempts are waited
//!    for all the same), and a change that was not confirmed and is older than the pending one needs none. A newer one
//!    that was not confirmed quarantines the key before it (see [`quarantine`](super::quarantine)).
//! 4. A change that is given up quarantines its key: what it should have replaced must not come back.

use std::sync::Arc;

use super::backlog::{Backlog, Pending, Place, Sending, Seq};
use super::ledger::{Attempt, KeyState, Ledger, Refusal};
use super::message::{Change, Finished, Mutation, Settled, Settlement};
use super::room::Ticket;
use crate::backend::Scope;
use crate::error::{Error, ErrorKind};
use crate::key::CacheKey;
use crate::planted::{Plant, planted};
use crate::runtime::Instant;
use crate::value::{Stamp, Timestamp};
use crate::write_behind::{DeadReason, Recovered, Written};

/// Candidates looked at for each key of a batch, which is all stores or all removals.
const LOOK_AHEAD: usize = 4;

/// When something happens, by both clocks.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    pub(super) wall: Timestamp,
    /// 64 random bits.
    pub(super) random: u64,
}

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

    /// Makes pending what an earlier process left in the journal.
    pub(super) fn restore(&mut self, recovered: Recovered, at: Moment) {
        let Recovered { key, stamp, change, accepted } = recovered;
        self.queue(&key, stamp, change, Moment { wall: accepted, ..at });
        if let Some(backlog) = &mut self.backlog {
            backlog.counts.recovered += 1;
        }
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

    /// The change that the key shows instead of what the store holds, if there is one.
    pub(super) fn pending_change(&self, key: &CacheKey) -> Option<(Stamp, Change)> {
        let state = self.keys.get(key).filter(|state| state.quarantine.is_none())?;
        let pending = state.pending.as_ref()?;
        Some((pending.stamp, pending.change.clone()))
    }

    /// The next batch to be sent: keys that may go together, or one if it is to find out whether the store has healed.
    /// `hurry`: what is fresh waits no longer.
    pub(super) fn take_batch(
        &mut self,
        now: Instant,
        probing: bool,
        hurry: bool,
        hidden: u64,
    ) -> Vec<(Sending, Attempt)> {
        let Some(backlog) = &mut self.backlog else { return Vec::new() };
        backlog.told_ripe = false;
        let most = if probing { 1 } else { backlog.batch_keys };
        let due = backlog.retries.range(..=(now, Seq::MAX)).map(|&(_, seq)| seq);
        let ripe = hurry || backlog.is_ripe(now);
        let look = backlog.batch_keys.saturating_mul(LOOK_AHEAD);
        let fresh = backlog.fresh.iter().map(|&(_, seq)| seq).take(if ripe { look } else { 0 });
        let mut candidates: Vec<Seq> = due.take(look).chain(fresh).collect();
        if probing {
            // What has never failed alone says more of the store than what has, which may be the reason of its failures.
            candidates.sort_by_key(|seq| {
                let pending = backlog.order.get(seq).and_then(|key| self.keys.get(key)?.pending.as_ref());
                pending.map_or(u32::MAX, |pending| pending.failures)
            });
        }
        let mut batch: Vec<(Sending, Attempt)> = Vec::new();
        let (mut cap, mut bytes) = (most, 0);
        for seq in candidates {
            if batch.len() >= cap {
                break;
            }
            let attempt = self.next_attempt();
            let Some(backlog) = &mut self.backlog else { break };
            let Some(key) = backlog.order.get(&seq).cloned() else { continue };
            let Some(state) = self.keys.get_mut(&key) else { continue };
            let Some(pending) = &mut state.pending else { continue };
            if state.out.is_some() {
                // Another attempt of the key came first; it is placed again once that is over.
                backlog.place(pending, Place::Held);
                continue;
            }
            let stores = matches!(pending.change, Change::Set(_));
            let fits = bytes + pending.change.weight() <= backlog.batch_bytes && batch.len() < pending.cap;
            let alike =
                batch.first().is_none_or(|(first, _)| matches!(first.change, Change::Set(_)) == stores);
            let joins = batch.is_empty() || (fits && alike);
            if !joins {
                continue;
            }
            cap = cap.min(pending.cap);
            bytes += pending.change.weight();
            state.out = Some(attempt);
            backlog.place(pending, Place::Out(attempt));
            let (key, stamp, change) = (key, pending.stamp, pending.change.raised(hidden));
            batch.push((Sending { key, stamp, change, size: 0, probe: false }, attempt));
        }
        let size = batch.len();
        batch.iter_mut().for_each(|(sending, _)| sending.size = size);
        batch
    }

    /// Has everything that is to be tried again tried now.
    pub(super) fn hasten(&mut self, now: Instant) {
        let Some(backlog) = &mut self.backlog else { return };
        let later: Vec<_> = backlog.retries.range((now, Seq::MAX)..).map(|&(_, seq)| seq).collect();
        for seq in later {
            let pending = backlog.order.get(&seq).and_then(|key| self.keys.get_mut(key)?.pending.as_mut());
            if let Some(pending) = pending {
                backlog.unplace(pending);
                pending.due = now;
                backlog.place(pending, Place::Retry);
            }
        }
    }

    /// When there is something to send, as far as that depends on time.
    pub(super) fn next_due(&self, hurry: bool) -> Option<Instant> {
        let backlog = self.backlog.as_ref()?;
        let retry = backlog.retries.first().map(|&(due, _)| due);
        let fresh = backlog.fresh.first().map(|&(since, _)| {
            let ripe = hurry || backlog.is_ripe(since);
            if ripe { since } else { since.after(backlog.max_delay) }
        });
        retry.into_iter().chain(fresh).min()
    }

    /// Puts back what was never sent.
    pub(super) fn unsent(
        &mut self,
        sending: Sending,
        attempt: Attempt,
        due: Instant,
        done: &mut Vec<Finished>,
    ) -> Option<(Mutation, Attempt)> {
        let Sending { key, change, .. } = sending;
        self.dropped.push(change);
        if !self.is_out(&key, attempt) {
            self.late(&key, attempt, None);
            return None;
        }
        self.release(&key);
        if let Some((backlog, pending)) = self.sent(&key, attempt) {
            backlog.unplace(pending);
            pending.due = due;
        }
        self.next(&key, done)
    }

    /// An attempt with a pending change returned in time.
    pub(super) fn brought(
        &mut self,
        sending: Sending,
        attempt: Attempt,
        result: Settled,
        at: Moment,
        done: &mut Vec<Finished>,
    ) -> Option<(Mutation, Attempt)> {
        let Sending { key, stamp, change, size, probe } = sending;
        self.dropped.push(change);
        let applied = matches!(result, Ok(Settlement::Applied | Settlement::Removed(_)));
        if applied && self.applied(&key, attempt, stamp) {
            return None;
        }
        if !self.is_out(&key, attempt) {
            // The key was cleared, given up or taken over by a newer mutation, which waits for this.
            self.late(&key, attempt, result.is_ok().then_some(stamp));
            return None;
        }
        self.release(&key);
        match result {
            Ok(settlement) => self.confirmed(&key, attempt, stamp, settlement),
            Err(error) => self.failed(&key, attempt, stamp, (size, probe), error, at),
        }
        self.next(&key, done)
    }

    /// Ends a key's pending change that was applied, if there is nothing else to it. What follows says the same, one thing
    /// after the other; this is mostly so, and looks the key up once.
    fn applied(&mut self, key: &CacheKey, attempt: Attempt, stamp: Stamp) -> bool {
        let (Some(state), Some(backlog)) = (self.keys.get_mut(key), &mut self.backlog) else { return false };
        let own = |pending: &&mut Box<Pending>| {
            pending.place == Place::Out(attempt) && pending.stamp == stamp && pending.late.is_empty()
        };
        if !state.is_only_out(attempt) || state.pending.as_mut().filter(own).is_none() {
            return false;
        }
        state.out = None;
        let Some(mut pending) = state.pending.take() else { return false };
        let over = state.is_over();
        backlog.counts.applied += 1;
        backlog.remove(key, &mut pending);
        self.dropped.push(pending.change);
        if over {
            self.keys.remove(key);
        }
        true
    }

    /// The deadline of such an attempt passed: it may still be applied. The key waits for it, and shows its change.
    pub(super) fn brought_late(
        &mut self,
        sending: Sending,
        attempt: Attempt,
        error: &Error,
        at: Moment,
        done: &mut Vec<Finished>,
    ) -> Option<(Mutation, Attempt)> {
        let Sending { key, stamp, change, size, probe } = sending;
        self.dropped.push(change);
        if !self.is_out(&key, attempt) {
            return None; // it is among the late ones already
        }
        let pending = self.keys.get_mut(&key).and_then(|state| {
            state.out = None;
            state.pending.as_mut()
        });
        if let Some(pending) = pending
            && !self.compares
            && !planted(Plant::PendingOvertakesLate)
        {
            pending.late.push(attempt);
        }
        self.failed(&key, attempt, stamp, (size, probe), error.clone(), at);
        self.next(&key, done)
    }

    /// The store has confirmed the change with `stamp`, or holds something newer that another process wrote.
    fn confirmed(&mut self, key: &CacheKey, attempt: Attempt, stamp: Stamp, settlement: Settlement) {
        let Some((backlog, pending)) = self.sent(key, attempt) else { return };
        backlog.unplace(pending);
        if pending.stamp == stamp {
            match settlement {
                Settlement::Outdated => backlog.counts.superseded += 1,
                _ => backlog.counts.applied += 1,
            }
            self.discard(key);
            return;
        }
        // A newer one took its place meanwhile, which starts afresh.
        backlog.order.remove(&pending.seq);
        let old = (pending.accepted.0, pending.seq);
        pending.seq = pending.next_seq.take().unwrap_or_else(|| backlog.reserve());
        backlog.order.insert(pending.seq, key.clone());
        backlog.note_age(Some(old), Some((pending.accepted.0, pending.seq)));
        pending.since = pending.accepted.0;
        (pending.failures, pending.cap) = (0, backlog.batch_keys);
    }

    /// An attempt failed. Whoever failed with others goes again at once, in a smaller batch, until the failing one stands
    /// alone; only what failed alone is held against it.
    fn failed(
        &mut self,
        key: &CacheKey,
        attempt: Attempt,
        stamp: Stamp,
        (size, probe): (usize, bool),
        error: Error,
        at: Moment,
    ) {
        let Some((backlog, pending)) = self.sent(key, attempt) else { return };
        backlog.unplace(pending);
        // A probe says how the store fares. But what the store itself answers about a single change, it may say of this
        // one alone; otherwise one that fails for ever, alone in the queue, would be every probe and never die.
        let own = !probe || !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout);
        if size > 1 {
            backlog.counts.splits += 1;
            pending.cap = size.div_ceil(2);
            pending.due = at.now;
            if planted(Plant::SplitLosesKey) && at.random.is_multiple_of(2) {
                self.discard(key);
            }
            return;
        }
        // From here on it is no company for others, which it would hold up.
        pending.cap = 1;
        pending.failures = pending.failures.saturating_add(1);
        pending.due = at.now.after(backlog.backoff(pending.failures, at.random));
        backlog.counts.retries += 1;
        if pending.stamp != stamp {
            // It says nothing of the newer one that has taken its place.
            return;
        }
        pending.error = Some(error);
        pending.attempts += u32::from(own);
        if let Some(reason) = backlog.verdict(pending, at.now) {
            self.give_up(key, reason, at.wall);
        }
    }

    /// Gives up what is too old, but for what is on its way. `only_held`: what may be sent is left to its attempts.
    pub(super) fn give_up_aged(&mut self, at: Moment, only_held: bool) {
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

    /// The pending change of a key, if this attempt went out for it.
    fn sent(&mut self, key: &CacheKey, attempt: Attempt) -> Option<(&mut Backlog, &mut Pending)> {
        let pending = self.keys.get_mut(key)?.pending.as_deref_mut()?;
        let backlog = self.backlog.as_deref_mut()?;
        (pending.place == Place::Out(attempt)).then_some((backlog, pending))
    }

    /// A late attempt of a key with a pending change is over. Whether it was one of its.
    pub(super) fn pending_late(
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
    pub(super) fn unhold(&mut self, key: &CacheKey) {
        if let (Some(state), Some(backlog)) = (self.keys.get_mut(key), &mut self.backlog) {
            backlog.unhold(state);
        }
    }

    /// Whether something newer of the key is settled here, or the very same change pending.
    pub(super) fn is_overtaken(&self, key: &CacheKey, stamp: Stamp) -> bool {
        self.keys.get(key).is_some_and(|state| {
            let pending = state.pending.as_ref().is_some_and(|pending| pending.stamp.time >= stamp.time);
            pending || state.settled > stamp.time
        })
    }

    /// Whether attempts with older changes of the key may still be applied, which its pending change waits for.
    pub(super) fn has_late(&self, key: &CacheKey) -> bool {
        let pending = self.keys.get(key).and_then(|state| state.pending.as_ref());
        pending.is_some_and(|pending| !pending.late.is_empty())
    }

    /// Something newer is settled for the key: its pending change is over. Returns what may still be applied of it, but
    /// for an attempt that is out.
    pub(super) fn supersede(&mut self, key: &CacheKey) -> Vec<Attempt> {
        if let Some(backlog) =
            self.backlog.as_mut().filter(|_| self.keys.get(key).is_some_and(|s| s.pending.is_some()))
        {
            backlog.counts.superseded += 1;
        }
        self.discard(key)
    }

    /// Hands a pending change to the dead letters and quarantines its key.
    pub(super) fn give_up(&mut self, key: &CacheKey, reason: DeadReason, wall: Timestamp) {
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

    /// Gives up what is not newer than `stamp`.
    #[cfg(feature = "backplane")]
    pub(super) fn give_up_to(&mut self, stamp: Stamp, reason: DeadReason, wall: Timestamp) {
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
    pub(super) fn give_up_displaced(&mut self, wall: impl FnOnce() -> Timestamp) -> bool {
        let Some(backlog) = self.backlog.as_mut().filter(|backlog| !backlog.displaced.is_empty()) else {
            return false;
        };
        let wall = wall();
        for key in std::mem::take(&mut backlog.displaced) {
            self.give_up(&key, DeadReason::Displaced, wall);
        }
        true
    }

    /// Takes a key's pending change out of the queue, and lets the change go.
    pub(super) fn discard(&mut self, key: &CacheKey) -> Vec<Attempt> {
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

    /// Lets go of every pending change that a clear covers.
    pub(super) fn clear_pending(&mut self, scope: &Scope, stamp: Stamp) {
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

    /// Ends the queue: what is left is given up, for the cache is shut down. With a journal it is left to that.
    pub(super) fn close_backlog(&mut self, journaled: bool, wall: Timestamp) -> usize {
        let Some(backlog) = &mut self.backlog else { return 0 };
        backlog.closed = true;
        let left: Vec<_> = backlog.order.values().cloned().collect();
        if !journaled {
            for key in &left {
                self.give_up(key, DeadReason::Shutdown, wall);
            }
        }
        left.len()
    }
}

impl Backlog {
    /// Makes a change the pending one of its key, whose quarantine was lifted, if there was one: `late` may still be applied
    /// of that. Returns whether it replaces a live value, and what it replaces.
    fn queue(
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
    fn remove(&mut self, key: &CacheKey, pending: &mut Pending) {
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
    pub(super) fn raised(&self, hidden: u64) -> Self {
        match self {
            Self::Set(entry) if hidden > 0 && entry.meta.stamp.time <= hidden => {
                let stamp = Stamp { time: hidden + 1, ..entry.meta.stamp };
                Self::Set(entry.clone().restamped(stamp))
            }
            change => change.clone(),
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
