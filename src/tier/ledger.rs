//! The ledger: per key of a tier, what is under way and what is settled.
//!
//! A key stands in it from a mutation's announcement until nothing of it is queued, in flight, late or quarantined, so
//! outstanding work bounds it. It belongs to the tier's core and survives restarts of the actor. The rules:
//!
//! 1. A mutation is dropped as superseded only when a newer one is *settled* at this tier (not merely minted:
//!    otherwise it would return while the tier still shows what came before both).
//! 2. At most one writing attempt per key, fills included, is out at a time: a store may reorder two.
//! 3. What arrives meanwhile waits; when the attempt ends, the newest goes and the older ones settle with it.
//! 4. A mutation that was not confirmed quarantines the key (see [`quarantine`](super::quarantine)).
//! 5. In a write-behind tier a mutation is settled when it is queued; it shows until the store has confirmed it (see
//!    [`behind`](super::behind)).
//!
//! Everything here runs under the ledger's lock and only moves state; calls, wake-ups and answers happen outside.

use std::collections::{HashMap, VecDeque};

use super::behind::{Backlog, Pending};
use super::message::{Change, Finished, Mutation, Overdue, Settled, Settlement};
use super::quarantine::Quarantine;
use crate::error::{Error, ErrorKind};
use crate::key::{CacheKey, KeyHash};
use crate::planted::{Plant, planted};
use crate::runtime::Instant;
use crate::value::Stamp;

/// One try to write a key, unique within the tier.
pub(super) type Attempt = u64;

/// Mutations that wait for a call of their key, over all keys. Beyond it a key is quarantined at once instead: what
/// waits here has left the mailbox, whose bound no longer holds it.
const MAX_WAITING: usize = 4096;

#[derive(Default)]
pub(crate) struct Ledger {
    pub(super) keys: HashMap<CacheKey, KeyState, KeyHash>,
    /// Keys in quarantine that wait for a repair, oldest first. May name keys that have left since.
    pub(super) repairs: VecDeque<CacheKey>,
    /// How many keys are in quarantine.
    pub(super) quarantined: usize,
    /// Bytes that quarantined keys hold for their repair.
    pub(super) held: usize,
    /// Changes that nothing needs any more. Dropped after the lock is released: the destructor of a value is the
    /// user's, and may ask the cache.
    pub(super) dropped: Vec<Change>,
    /// Whether the whole tier reads as a miss: no key need be quarantined then.
    pub(super) bypassed: bool,
    /// How many mutations wait.
    waiting: usize,
    attempts: Attempt,
    /// Whether callers may carry out changes beside the actor: while it runs.
    pub(super) open: bool,
    /// Whether the store is written through its port, under the ledger's lock.
    in_process: bool,
    /// Of a write-behind tier: what it has accepted and not yet applied.
    pub(super) backlog: Option<Box<Backlog>>,
    /// Whether the store keeps the newer of two changes, whichever reaches it last: no attempt is ever late then.
    pub(super) compares: bool,
}

#[derive(Default)]
pub(super) struct KeyState {
    /// Mutations announced and not yet let go of.
    users: u32,
    /// The time of the newest mutation settled here.
    pub(super) settled: u64,
    /// The attempt that is queued or in flight.
    pub(super) out: Option<Attempt>,
    waiting: Vec<Mutation>,
    /// The newest number drawn; kept only for a planted bug.
    minted: u64,
    pub(super) quarantine: Option<Box<Quarantine>>,
    /// In a write-behind tier: what the key shows until the store has it, unless a quarantine stands before it.
    pub(super) pending: Option<Box<Pending>>,
}

impl KeyState {
    /// An announced mutation is settled; something of the key is left, or the caller tidies up.
    pub(super) fn let_go(&mut self) {
        self.users = self.users.saturating_sub(1);
    }

    /// Whether this attempt is out, and no mutation waits for it.
    pub(super) fn is_only_out(&self, attempt: Attempt) -> bool {
        self.out == Some(attempt) && self.waiting.is_empty() && self.quarantine.is_none()
    }

    /// Whether the key may be forgotten.
    pub(super) fn is_over(&self) -> bool {
        self.users == 0 && self.is_free()
    }

    /// Whether nothing of the key is under way, nor to be made good.
    fn is_free(&self) -> bool {
        self.out.is_none() && self.waiting.is_empty() && self.quarantine.is_none() && self.pending.is_none()
    }
}

/// Why a mutation is settled without being sent.
pub(super) enum Refusal {
    /// Nothing can be sent now: the key goes into quarantine.
    Quarantine(Error),
    /// The whole tier reads as a miss until it has been cleared: there is nothing to quarantine.
    Bypassed(Error),
}

impl Ledger {
    pub(super) fn new(in_process: bool, compares: bool, backlog: Option<Box<Backlog>>) -> Self {
        Self { in_process, compares, backlog, ..Self::default() }
    }

    /// Whether a planted bug lets the tier answer for keys that it has not confirmed.
    pub(super) fn keeps_answering(&self) -> bool {
        planted(if self.in_process { Plant::NoQuarantineInProcess } else { Plant::NoQuarantine })
    }

    /// Notes a number that was drawn.
    pub(super) fn minted(&mut self, key: &CacheKey, stamp: Stamp) {
        if let Some(state) = self.keys.get_mut(key) {
            state.minted = state.minted.max(stamp.time);
        }
    }

    /// A mutation of `key` is about to be minted. From here on the key's settled number is remembered.
    pub(super) fn announce(&mut self, key: &CacheKey) {
        if let Some(state) = self.keys.get_mut(key) {
            state.users += 1;
        } else {
            self.keys.insert(key.clone(), KeyState { users: 1, ..KeyState::default() });
        }
    }

    /// A mutation reached the actor. Returns it with its attempt if it may be sent now; otherwise it waits here or is
    /// settled into `done`. `refused`: why nothing can be sent at the moment.
    pub(super) fn arrive(
        &mut self,
        mutation: Mutation,
        refused: Option<Refusal>,
        done: &mut Vec<Finished>,
    ) -> Option<(Mutation, Attempt)> {
        if refused.is_none()
            && let Some(attempt) = self.begin_simple(mutation.key(), mutation.stamp())
        {
            return Some((mutation, attempt));
        }
        let key = mutation.key().clone();
        let state = self.keys.entry(key.clone()).or_default();
        let overtaken = mutation.stamp().time <= state.settled && !planted(Plant::NoLedger);
        let minted = planted(Plant::DropMinted) && mutation.stamp().time < state.minted;
        if overtaken || minted {
            // Rule 1. Equal: the caller's deadline has settled this very mutation already.
            self.let_go(mutation, Ok(Settlement::Superseded), done);
        } else if let Some(refusal) = refused {
            match refusal {
                Refusal::Quarantine(error) => self.quarantine_mutation(mutation, error, done),
                // What is pending may be on its way already, with a number past the clear: it must not show again.
                Refusal::Bypassed(error) if state.pending.is_some() && !self.bypassed => {
                    self.quarantine_mutation(mutation, error, done);
                }
                Refusal::Bypassed(error) => {
                    self.settled(&key, mutation.stamp());
                    self.let_go(mutation, Err(error), done);
                }
            }
        } else if state.quarantine.is_some() {
            let error =
                Error::new(ErrorKind::Unavailable, "the key is in quarantine; its repair will carry this");
            self.quarantine_mutation(mutation, error, done);
        } else if self.has_late(&key) {
            let error = Error::new(
                ErrorKind::Unavailable,
                "an earlier write of the key may still be applied; a repair will carry this one",
            );
            self.quarantine_mutation(mutation, error, done);
        } else if self.is_busy(&key) && self.waiting >= MAX_WAITING {
            let error = Error::new(ErrorKind::Overloaded, "too many mutations wait for the tier");
            self.quarantine_mutation(mutation, error, done);
        } else if self.is_busy(&key) && !planted(Plant::TwoOut) {
            self.keys.entry(key).or_default().waiting.push(mutation);
            self.waiting += 1;
        } else {
            let attempt = self.next_attempt();
            self.set_out(&key, attempt);
            return Some((mutation, attempt));
        }
        None
    }

    /// Begins an attempt of the announced mutation with this stamp, beside the actor, if nothing speaks against it: what
    /// is not as simple as that arrives as a message.
    pub(super) fn begin_at_once(&mut self, key: &CacheKey, stamp: Stamp) -> Option<Attempt> {
        if self.open && !self.bypassed { self.begin_simple(key, stamp) } else { None }
    }

    /// Begins an attempt of the announced mutation with this stamp, if nothing else of the key is under way.
    fn begin_simple(&mut self, key: &CacheKey, stamp: Stamp) -> Option<Attempt> {
        let attempt = self.attempts + 1;
        let state = self.keys.get_mut(key)?;
        let free = state.is_free() && (stamp.time > state.settled || planted(Plant::NoLedger));
        if !free || (planted(Plant::DropMinted) && stamp.time < state.minted) {
            return None;
        }
        state.out = Some(attempt);
        self.attempts = attempt;
        Some(attempt)
    }

    /// Ends such an attempt, or that of a mutation that overtook none, which was confirmed. `false`, with nothing changed,
    /// if something has come between.
    pub(super) fn end_at_once(&mut self, key: &CacheKey, attempt: Attempt, stamp: Stamp) -> bool {
        let Some(state) = self.keys.get_mut(key) else { return false };
        if !state.is_only_out(attempt) || state.pending.is_some() {
            return false;
        }
        state.out = None;
        state.settled = state.settled.max(stamp.time);
        state.users = state.users.saturating_sub(1);
        if state.users == 0 && state.is_free() {
            self.keys.remove(key);
        }
        true
    }

    /// Whether an attempt is out, of any key.
    pub(super) fn is_writing(&self) -> bool {
        self.keys.values().any(|state| state.out.is_some())
    }

    /// A fill may be written now; at most one attempt is out, and nothing newer is on its way.
    pub(super) fn begin_fill(&mut self, key: &CacheKey) -> Option<Attempt> {
        let free = self.keys.get(key).is_none_or(KeyState::is_free);
        free.then(|| {
            let attempt = self.next_attempt();
            if !planted(Plant::FillNotOut) {
                self.keys.entry(key.clone()).or_default().out = Some(attempt);
            }
            attempt
        })
    }

    /// Whether an attempt of the key is out.
    fn is_busy(&self, key: &CacheKey) -> bool {
        self.keys.get(key).is_some_and(|state| state.out.is_some())
    }

    /// Whether this attempt is still the key's: not if its deadline passed meanwhile.
    pub(super) fn is_out(&self, key: &CacheKey, attempt: Attempt) -> bool {
        self.keys.get(key).is_some_and(|state| state.out == Some(attempt))
    }

    /// Whether the mutation with this stamp is still to be settled here.
    pub(super) fn is_unsettled(&self, key: &CacheKey, stamp: Stamp) -> bool {
        self.keys.get(key).is_some_and(|state| stamp.time > state.settled)
    }

    /// A mutation's attempt returned in time. Returns what goes next for the key.
    pub(super) fn complete(
        &mut self,
        mut mutation: Mutation,
        attempt: Attempt,
        result: Settled,
        done: &mut Vec<Finished>,
    ) -> Option<(Mutation, Attempt)> {
        let stamp = mutation.stamp();
        // Mostly nothing has come between: the key is looked up once.
        if result.is_ok() && mutation.overtaken.is_empty() && self.end_at_once(mutation.key(), attempt, stamp)
        {
            mutation.open.close();
            done.push(Finished::new(mutation, result));
            return None;
        }
        let key = mutation.key().clone();
        if !self.is_out(&key, attempt) {
            // Its caller's deadline passed first, or that of a mutation which it overtook.
            let confirmed = result.is_ok().then_some(stamp);
            let result = if self.want(&mutation) { result } else { Ok(Settlement::Superseded) };
            self.let_go(mutation, result, done);
            self.late(&key, attempt, confirmed);
            return None;
        }
        self.release(&key);
        match result {
            Ok(settlement) => {
                self.settled(&key, stamp);
                self.let_go(mutation, Ok(settlement), done);
            }
            // An error is no proof that nothing was applied, nor that what was there before is gone.
            Err(error) => self.quarantine_mutation(mutation, error, done),
        }
        self.next(&key, done)
    }

    /// A fill's attempt returned in time. A failed fill leaves things as they were.
    pub(super) fn complete_fill(
        &mut self,
        key: &CacheKey,
        attempt: Attempt,
        done: &mut Vec<Finished>,
    ) -> Option<(Mutation, Attempt)> {
        if !self.is_out(key, attempt) {
            self.late(key, attempt, None);
            return None;
        }
        self.release(key);
        self.next(key, done)
    }

    /// The deadline of an attempt passed: it may still be applied, at any time, so its key goes into quarantine.
    pub(super) fn overdue(
        &mut self,
        key: &CacheKey,
        attempt: Attempt,
        want: (Stamp, Change),
        done: &mut Vec<Finished>,
    ) {
        let forgotten = planted(Plant::FillNoQuarantine) && want.0 == Stamp::ZERO;
        if forgotten {
            self.release(key);
        } else if self.is_out(key, attempt) {
            self.expire_out(key, want, done);
        }
    }

    /// The same for a mutation's own attempt.
    pub(super) fn overdue_mutation(
        &mut self,
        mutation: Mutation,
        attempt: Attempt,
        error: Error,
        done: &mut Vec<Finished>,
    ) {
        let key = mutation.key().clone();
        if self.is_out(&key, attempt) {
            self.expire_out(&key, (mutation.stamp(), mutation.change.clone()), done);
        } else {
            self.want(&mutation);
        }
        self.let_go(mutation, Err(error), done);
    }

    /// The deadline of a mutation passed while a newer one, which overtook it, was out: the key is in quarantine and
    /// wants the older one. From here on it wants this newer one. `false`: this one has been settled already.
    fn want(&mut self, mutation: &Mutation) -> bool {
        let (key, stamp) = (mutation.key(), mutation.stamp());
        let newer = self.is_unsettled(key, stamp);
        if newer {
            self.enter_quarantine(key, stamp, mutation.change.clone(), None);
        }
        newer
    }

    /// Settles a mutation, not let go of yet, without its attempt: its caller's deadline passed, or nobody waits for
    /// this tier.
    pub(super) fn expire(&mut self, key: &CacheKey, want: (Stamp, Change), done: &mut Vec<Finished>) {
        if self.is_unsettled(key, want.0) {
            self.expire_out(key, want, done);
        } else {
            self.dropped.push(want.1);
        }
    }

    /// Quarantines the key with everything of it: what is out becomes late, what waits is settled.
    fn expire_out(&mut self, key: &CacheKey, (stamp, change): (Stamp, Change), done: &mut Vec<Finished>) {
        let Some(state) = self.keys.get_mut(key) else { return self.dropped.push(change) };
        debug_assert!(
            !state
                .pending
                .as_ref()
                .is_some_and(|pending| pending.stamp.time > stamp.time && pending.is_out()),
            "what is older than the pending change on its way is settled"
        );
        let out = state.out.take();
        let waiting = std::mem::take(&mut state.waiting);
        self.waiting -= waiting.len();
        self.enter_quarantine(key, stamp, change, out);
        for mutation in waiting {
            let error = mutation.core.overdue_write();
            self.quarantine_mutation(mutation, error, done);
        }
        // A newer change may be pending, which waited for what was out: no return of that will be told of any more.
        self.unhold(key);
    }

    /// The announced mutation is gone unsettled: with a mailbox, an incarnation, or a cancelled caller.
    pub(super) fn lost(&mut self, mutation: &mut Mutation, done: &mut Vec<Finished>) {
        let change = std::mem::replace(&mut mutation.change, Change::Remove);
        let key = mutation.key().clone();
        self.expire(&key, (mutation.stamp(), change), done);
        for overtaken in std::mem::take(&mut mutation.overtaken) {
            let error = Error::new(ErrorKind::Restarted, "the tier was restarted before it answered");
            self.let_go(overtaken, Err(error), done);
        }
        mutation.open.close();
        self.leave(&key);
    }

    /// Records that a mutation is settled here.
    pub(super) fn settled(&mut self, key: &CacheKey, stamp: Stamp) {
        let Some(state) = self.keys.get_mut(key) else { return };
        state.settled = state.settled.max(stamp.time);
        if state.pending.as_ref().is_some_and(|pending| pending.stamp.time < stamp.time) {
            // Nothing older is late: with something late, the newer one would have quarantined the key.
            self.supersede(key);
        }
    }

    /// Gives up mutations that wait for a call of their key and whose deadline has passed. Returns the next deadline of the
    /// others.
    pub(super) fn expire_waiting(&mut self, now: Instant, gone: &mut Vec<Overdue>) -> Option<Instant> {
        if self.waiting == 0 {
            return None;
        }
        let waiting = self.keys.values_mut().flat_map(|state| &mut state.waiting);
        waiting.filter_map(|mutation| mutation.give_up(now, gone)).min()
    }

    pub(super) fn next_attempt(&mut self) -> Attempt {
        self.attempts += 1;
        self.attempts
    }

    /// Forgets the key if nothing of it is left.
    pub(super) fn tidy(&mut self, key: &CacheKey) {
        if self.keys.get(key).is_some_and(KeyState::is_over) {
            self.keys.remove(key);
        }
    }

    fn set_out(&mut self, key: &CacheKey, attempt: Attempt) {
        if let Some(state) = self.keys.get_mut(key) {
            state.out = Some(attempt);
        }
    }

    pub(super) fn release(&mut self, key: &CacheKey) {
        if let Some(state) = self.keys.get_mut(key) {
            state.out = None;
        }
        self.tidy(key);
    }

    /// What goes next for the key, whose attempt is over: a mutation that waited, or in time what is pending.
    pub(super) fn next(&mut self, key: &CacheKey, done: &mut Vec<Finished>) -> Option<(Mutation, Attempt)> {
        let next = self.next_waiting(key, done);
        if next.is_none() {
            self.unhold(key);
        }
        next
    }

    /// Rule 3.
    fn next_waiting(&mut self, key: &CacheKey, done: &mut Vec<Finished>) -> Option<(Mutation, Attempt)> {
        let state = self.keys.get_mut(key)?;
        let mut waiting = std::mem::take(&mut state.waiting);
        self.waiting -= waiting.len();
        waiting.sort_by_key(|mutation| mutation.stamp().time);
        let mut newest = waiting.pop()?;
        if planted(Plant::OvertakenEarly) {
            for overtaken in waiting.drain(..) {
                self.let_go(overtaken, Ok(Settlement::Superseded), done);
            }
        }
        newest.overtaken.append(&mut waiting);
        self.arrive(newest, None, done)
    }

    /// Settles a mutation, and those it overtook, by quarantining its key.
    pub(super) fn quarantine_mutation(
        &mut self,
        mut mutation: Mutation,
        error: Error,
        done: &mut Vec<Finished>,
    ) {
        let change = std::mem::replace(&mut mutation.change, Change::Remove);
        let key = mutation.key().clone();
        self.expire_out(&key, (mutation.stamp(), change), done);
        self.let_go(mutation, Err(error), done);
    }

    /// Answers a mutation, and those it overtook, once the lock is released.
    pub(super) fn let_go(&mut self, mut mutation: Mutation, result: Settled, done: &mut Vec<Finished>) {
        for overtaken in std::mem::take(&mut mutation.overtaken) {
            let result = result.clone().map(|_| Settlement::Superseded);
            self.let_go(overtaken, result, done);
        }
        mutation.open.close();
        let key = mutation.key().clone();
        done.push(Finished::new(mutation, result));
        self.leave(&key);
    }

    pub(super) fn leave(&mut self, key: &CacheKey) {
        if let Some(state) = self.keys.get_mut(key) {
            state.users = state.users.saturating_sub(1);
        }
        self.tidy(key);
    }
}
