//! What a write-behind tier has accepted and not yet applied: the order in which it goes to the store, its bounds and its
//! counts.
//!
//! The pending change itself is its key's, in the ledger (see [`pending`](super::pending)); everything here is under the
//! ledger's lock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::message::Change;
use super::inspect::WriteBehindCounts;
use super::pending::{Pending, Place};
use super::room::Line;
use crate::key::CacheKey;
use crate::runtime::{Instant, jitter};
use crate::value::{BackendLabel, Entry, Stamp, Timestamp};
use crate::write_behind::{DeadLetter, DeadReason, Retry, WriteBehindOptions};

/// A place in the queue: older ones are lower.
pub(super) type Seq = u64;

/// The queue of a write-behind tier.
pub(in crate::tier) struct Backlog {
    label: BackendLabel,
    pub(super) entries: usize,
    pub(super) limit: usize,
    pub(super) batch_keys: usize,
    pub(super) batch_bytes: usize,
    pub(super) max_delay: Duration,
    retry: Retry,
    journaled: bool,
    /// Every pending key, oldest first.
    pub(in crate::tier) order: BTreeMap<Seq, CacheKey>,
    /// By since when they wait.
    pub(super) fresh: BTreeSet<(Instant, Seq)>,
    fresh_bytes: usize,
    /// Whether the task was told that the fresh ones are ripe, since it last took some.
    pub(super) told_ripe: bool,
    /// By when they are due.
    pub(super) retries: BTreeSet<(Instant, Seq)>,
    /// By when they were accepted, where they are given up at an age.
    ages: BTreeSet<(Instant, Seq)>,
    pub(super) bytes: usize,
    /// Keys on their way to the store.
    pub(super) in_flight: usize,
    next: Seq,
    pub(in crate::tier) counts: WriteBehindCounts,
    /// Callers who wait for room: who comes later waits behind them.
    pub(super) line: Line,
    /// Nothing is accepted any more.
    pub(in crate::tier) closed: bool,
    /// Keys whose pending change is to be given up before the lock is released: a newer one was refused, and is lost.
    pub(in crate::tier) displaced: Vec<CacheKey>,
    /// Whether something was given up that the journal may not have synced.
    pub(super) buried: bool,
    /// What is to be done once the lock is released.
    pub(in crate::tier) effects: Effects,
}

/// What follows from a change of the queue, outside the ledger's lock.
#[derive(Default)]
pub(in crate::tier) struct Effects {
    pub(super) letters: Vec<DeadLetter>,
    /// Changes that are settled, and need no journal any more.
    pub(super) settled: Vec<(CacheKey, Stamp)>,
    /// Whether something has left the queue.
    pub(super) left: bool,
    /// Whether there is more room than there was.
    pub(super) room: bool,
    /// Whether there is more to send.
    pub(super) wake: bool,
    /// Whether nothing is queued any more.
    pub(super) drained: bool,
}

impl Backlog {
    pub(in crate::tier) fn new(
        label: &BackendLabel,
        options: &WriteBehindOptions,
        batch_keys: usize,
    ) -> Self {
        Self {
            label: label.clone(),
            entries: options.entries,
            limit: options.bytes,
            batch_keys: options.batch_keys.unwrap_or(batch_keys),
            batch_bytes: options.batch_bytes,
            max_delay: options.max_delay,
            retry: options.retry,
            journaled: options.is_journaled(),
            order: BTreeMap::new(),
            fresh: BTreeSet::new(),
            fresh_bytes: 0,
            told_ripe: false,
            retries: BTreeSet::new(),
            ages: BTreeSet::new(),
            bytes: 0,
            in_flight: 0,
            next: 0,
            counts: WriteBehindCounts::default(),
            line: Line::default(),
            closed: false,
            displaced: Vec::new(),
            buried: false,
            effects: Effects::default(),
        }
    }

    /// Whether a change of this weight finds room; `old`: the weight of the one whose place it takes.
    pub(super) fn has_room(&self, weight: usize, old: Option<usize>) -> bool {
        let others = self.order.len() - usize::from(old.is_some());
        // One that is larger than everything allowed goes alone.
        others == 0 || (others < self.entries && self.bytes - old.unwrap_or(0) + weight <= self.limit)
    }

    /// Whether nothing more is accepted without somebody giving way.
    pub(super) fn is_full(&self) -> bool {
        self.order.len() >= self.entries || self.bytes >= self.limit
    }

    /// A new place at the end of the queue.
    pub(super) fn enter(&mut self, key: &CacheKey) -> Seq {
        let seq = self.reserve();
        self.order.insert(seq, key.clone());
        seq
    }

    /// The same, to be taken later.
    pub(super) fn reserve(&mut self) -> Seq {
        self.next += 1;
        self.next
    }

    /// The place that the next one will be given.
    pub(super) fn barrier(&self) -> Seq {
        self.next + 1
    }

    /// Puts a pending change where it can be sent from.
    pub(super) fn place(&mut self, pending: &mut Pending, place: Place) {
        self.unplace(pending);
        match place {
            Place::Fresh => {
                // The task is woken for the first one, whose time it has to watch, and when they need wait no longer: not
                // for each that comes after.
                let own = (pending.since, pending.seq);
                self.fresh.insert(own);
                self.fresh_bytes += pending.change.weight();
                let ripe = self.is_ripe(pending.since);
                self.effects.wake |= self.fresh.first() == Some(&own) || (ripe && !self.told_ripe);
                self.told_ripe |= ripe;
            }
            Place::Retry => {
                self.retries.insert((pending.due, pending.seq));
                self.effects.wake = true;
            }
            Place::Out(_) => self.in_flight += 1,
            Place::Held => {}
        }
        pending.place = place;
    }

    /// Takes a pending change from its place. Before its weight or due time changes.
    pub(in crate::tier) fn unplace(&mut self, pending: &mut Pending) {
        match pending.place {
            Place::Fresh => {
                self.fresh.remove(&(pending.since, pending.seq));
                self.fresh_bytes -= pending.change.weight();
            }
            Place::Retry => {
                self.retries.remove(&(pending.due, pending.seq));
            }
            Place::Out(_) => self.in_flight -= 1,
            Place::Held => {}
        }
        pending.place = Place::Held;
    }

    /// Weighs a fresh one anew, whose change was replaced where it stands.
    pub(super) fn reweigh(&mut self, place: Place, old: usize, new: usize) {
        self.bytes = self.bytes - old + new;
        self.effects.room |= new < old;
        if place == Place::Fresh {
            self.fresh_bytes = self.fresh_bytes - old + new;
        }
    }

    /// Whether the fresh ones need wait no longer: the oldest has waited out its delay, or room gets short. How many they
    /// are is no reason by itself, or nothing would be coalesced when it matters, under load.
    pub(super) fn is_ripe(&self, now: Instant) -> bool {
        let waited = self.fresh.first().is_some_and(|(since, _)| since.after(self.max_delay) <= now);
        // Whole batches as long as something is on its way, whose return brings us here again.
        let worthwhile = self.in_flight == 0
            || self.fresh.len() >= self.batch_keys
            || self.fresh_bytes >= self.batch_bytes;
        waited || (worthwhile && self.is_pressed())
    }

    /// Whether room gets short: the fresh ones alone take more than half of it, or nothing is left.
    fn is_pressed(&self) -> bool {
        let half = self.fresh.len() > self.entries / 2 || self.fresh_bytes > self.limit / 2;
        half || !self.line.is_empty() || self.is_full()
    }

    /// Notes when a change was accepted that gets old, and forgets when the one was that it replaces.
    pub(super) fn note_age(&mut self, old: Option<(Instant, Seq)>, new: Option<(Instant, Seq)>) {
        if self.retry.age.is_some() {
            if let Some(old) = old {
                self.ages.remove(&old);
            }
            self.ages.extend(new);
        }
    }

    /// Changes that are too old, oldest first.
    pub(super) fn aged(&self, now: Instant) -> impl Iterator<Item = Seq> {
        let age = self.retry.age;
        let old = self
            .ages
            .iter()
            .take_while(move |(accepted, _)| age.is_some_and(|age| now.since(*accepted) >= age));
        old.map(|&(_, seq)| seq)
    }

    /// When the next change is too old.
    pub(super) fn next_aged(&self, now: Instant) -> Option<Instant> {
        let age = self.retry.age?;
        self.ages.iter().map(|(accepted, _)| accepted.after(age)).find(|&due| due > now)
    }

    /// A change is over: no journal need keep it.
    pub(super) fn settle(&mut self, key: &CacheKey, stamp: Stamp) {
        if self.journaled {
            self.effects.settled.push((key.clone(), stamp));
        }
    }

    /// How long a key waits that has failed so often.
    pub(super) fn backoff(&self, failures: u32, random: u64) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        jitter(self.retry.first.saturating_mul(1 << doublings).min(self.retry.longest), random)
    }

    /// Why a change that has failed is given up, if it is.
    pub(in crate::tier) fn verdict(&self, pending: &Pending, now: Instant) -> Option<DeadReason> {
        if pending.attempts >= self.retry.attempts {
            return Some(DeadReason::Attempts);
        }
        let aged = self.retry.age.is_some_and(|age| now.since(pending.accepted.0) >= age);
        aged.then_some(DeadReason::Age)
    }

    /// Writes the letter of a change that is given up.
    pub(super) fn bury(&mut self, key: &CacheKey, pending: &Pending, reason: DeadReason, died: Timestamp) {
        self.counts.dead += 1;
        self.buried = true;
        let entry: Option<Entry> = match &pending.change {
            Change::Set(entry) => Some(entry.clone()),
            Change::Remove => None,
        };
        self.effects.letters.push(DeadLetter {
            tier: self.label.clone(),
            key: key.clone(),
            entry,
            stamp: pending.stamp,
            attempts: pending.attempts,
            accepted: pending.accepted.1,
            died,
            reason,
            error: pending.error.clone(),
        });
    }
}
