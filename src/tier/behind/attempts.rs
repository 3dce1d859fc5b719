//! Attempts to bring pending changes to the store: which go together, and what becomes of each.

use super::super::ledger::{Attempt, Ledger};
use super::super::message::{Change, Finished, Mutation, Settled, Settlement};
use super::Moment;
use super::backlog::{Backlog, Seq};
use super::pending::{Pending, Place};
use crate::error::{Error, ErrorKind};
use crate::key::CacheKey;
use crate::planted::{Plant, planted};
use crate::runtime::Instant;
use crate::value::Stamp;

/// Candidates looked at for each key of a batch, which is all stores or all removals.
pub(super) const LOOK_AHEAD: usize = 4;

/// One key's part in a call that brings pending changes to the store.
pub(in crate::tier) struct Sending {
    pub(in crate::tier) key: CacheKey,
    pub(in crate::tier) stamp: Stamp,
    pub(in crate::tier) change: Change,
    /// How many keys the call has.
    size: usize,
    /// Whether the call finds out if the store has healed.
    pub(in crate::tier) probe: bool,
}

impl Ledger {
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
    pub(in crate::tier) fn brought(
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
    pub(in crate::tier) fn brought_late(
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

    /// The pending change of a key, if this attempt went out for it.
    fn sent(&mut self, key: &CacheKey, attempt: Attempt) -> Option<(&mut Backlog, &mut Pending)> {
        let pending = self.keys.get_mut(key)?.pending.as_deref_mut()?;
        let backlog = self.backlog.as_deref_mut()?;
        (pending.place == Place::Out(attempt)).then_some((backlog, pending))
    }
}
