//! Drained but unanswered operations, and how they become calls.
//!
//! Smart batching, without a timer: while calls are in flight the queue fills, and the next call takes what waits. An
//! empty queue means a batch of one, sent at once. It belongs to the core: a restart of the actor finds it as it was.

use std::collections::{HashMap, VecDeque};

use futures_channel::oneshot;

use super::behind::Sending;
use super::ledger::Attempt;
use super::message::{Change, Fill, Mutation, Overdue, ReadOp};
use super::outdated::Carried;
use super::quarantine::Repair;
use crate::error::Error;
use crate::key::{CacheKey, KeyHash};
use crate::observe::trace::Caller;
use crate::runtime::Instant;
use crate::value::{Entry, Stamp};

/// So many keys of a batch are looked up in the ledger under one lock.
pub(super) const LOCKED: usize = 32;

/// Reads of one key that wait together. They left the mailbox, whose bound no longer holds them.
const MAX_JOINED: usize = 16_384;

#[derive(Default)]
pub(super) struct Queue {
    /// Keys to read, in order of arrival.
    reads: VecDeque<CacheKey>,
    /// Who waits for each of them. Only reads that are not yet sent are joined: one in flight may have been answered
    /// by the store before a mutation that completed before this read began.
    readers: HashMap<CacheKey, Readers, KeyHash>,
    /// Whether a read call has been spawned that has not yet taken what waits.
    pub(super) starting: bool,
    /// The same for a writing call.
    pub(super) writes_starting: bool,
    /// How many keys the last read call took, and the last writing call.
    last_batch: usize,
    last_written: usize,
    /// Those whose keys are being read, by call.
    asked: Vec<(u64, Vec<Readers>)>,
    /// How many read calls there have been.
    asks: u64,
    /// Whether the readers' deadlines are watched.
    pub(super) watched: bool,
    /// The same for those of mutations.
    pub(super) writes_watched: bool,
    writes: VecDeque<Job>,
    /// Jobs whose calls are on their way, by call.
    sent: Vec<(u64, Vec<Job>)>,
    /// How many writing calls there have been.
    sends: u64,
    /// Whether callers may queue what they ask for themselves: while the actor runs.
    pub(super) open: bool,
    /// How many callers are about to queue a mutation.
    pub(super) entering: usize,
    pub(super) read_calls: usize,
    pub(super) write_calls: usize,
}

/// Those who wait for one key: mostly one, who needs no allocation.
pub(super) struct Readers {
    first: ReadOp,
    others: Vec<ReadOp>,
}

impl Readers {
    fn join(&mut self, read: ReadOp) -> Result<(), ReadOp> {
        if self.others.len() == self.others.capacity() {
            // Before it grows: those who have gone need no room.
            self.others.retain(|reader| !reader.is_abandoned());
        }
        if self.others.len() >= MAX_JOINED {
            return Err(read);
        }
        self.others.push(read);
        Ok(())
    }

    /// Without those who have gone; `None`: all have.
    fn staying(self) -> Option<Self> {
        let Self { first, mut others } = self;
        others.retain(|reader| !reader.is_abandoned());
        let first = if first.is_abandoned() { others.pop()? } else { first };
        Some(Self { first, others })
    }

    /// Gives up those whose deadline has passed. Returns the next deadline of the others.
    fn expire(&mut self, now: Instant, gone: &mut Vec<Unheard>) -> Option<Instant> {
        let readers = std::iter::once(&mut self.first).chain(&mut self.others);
        let mut next = None;
        for reader in readers.filter(|reader| !reader.is_abandoned()) {
            match reader.expire(now) {
                Some(reply) => gone.push(reply),
                None => next = earlier(next, Some(reader.deadline)),
            }
        }
        next
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &ReadOp> {
        std::iter::once(&self.first).chain(&self.others)
    }

    pub(super) fn answer(self, result: Result<Option<Entry>, Error>) {
        for reader in self.others {
            reader.answer(result.clone());
        }
        // With one reader nothing is cloned.
        self.first.answer(result);
    }
}

/// A caller whose deadline has passed, and who has not been told.
type Unheard = oneshot::Sender<Result<Option<Entry>, Error>>;

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

/// One key's part in a writing call.
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) attempt: Attempt,
}

pub(super) enum Work {
    Mutation(Mutation),
    Fill(Fill),
    Repair(Repair),
    /// A pending change of a write-behind tier.
    Behind(Sending),
}

impl Job {
    pub(super) fn key(&self) -> &CacheKey {
        match &self.work {
            Work::Mutation(mutation) => mutation.key(),
            Work::Fill(fill) => &fill.key,
            Work::Repair(repair) => &repair.key,
            Work::Behind(sending) => &sending.key,
        }
    }

    /// Who asked for it, if anyone waits.
    pub(super) fn caller(&self) -> Option<&Caller> {
        match &self.work {
            Work::Mutation(mutation) => Some(&mutation.caller),
            Work::Fill(_) | Work::Repair(_) | Work::Behind(_) => None,
        }
    }

    /// As [`Mutation::next_deadline`]; nobody waits for any other work.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match &self.work {
            Work::Mutation(mutation) => mutation.next_deadline(),
            Work::Fill(_) | Work::Repair(_) | Work::Behind(_) => None,
        }
    }

    /// As [`Mutation::give_up`].
    pub(super) fn give_up(&mut self, now: Instant, gone: &mut Vec<Overdue>) -> Option<Instant> {
        match &mut self.work {
            Work::Mutation(mutation) => mutation.give_up(now, gone),
            Work::Fill(_) | Work::Repair(_) | Work::Behind(_) => None,
        }
    }

    /// The entry to store; `None`: a removal.
    pub(super) fn entry(&self) -> Option<&Entry> {
        let change = match &self.work {
            Work::Mutation(mutation) => &mutation.change,
            Work::Repair(repair) => &repair.change,
            Work::Behind(sending) => &sending.change,
            Work::Fill(fill) => return Some(&fill.entry),
        };
        match change {
            Change::Set(entry) => Some(entry),
            Change::Remove => None,
        }
    }

    /// What its store's answer is about.
    pub(super) fn carried(&self) -> Carried {
        match &self.work {
            Work::Fill(fill) => Carried { stamp: fill.entry.meta.stamp, changes: false },
            Work::Mutation(_) | Work::Repair(_) | Work::Behind(_) => {
                Carried { stamp: self.stamp(), changes: true }
            }
        }
    }

    /// Which change it carries. A fill is none.
    pub(super) fn stamp(&self) -> Stamp {
        match &self.work {
            Work::Mutation(mutation) => mutation.stamp(),
            Work::Repair(repair) => repair.stamp,
            Work::Behind(sending) => sending.stamp,
            Work::Fill(_) => Stamp::ZERO,
        }
    }

    /// What the key has to show should this attempt get lost. A fill's key is made good by removing it.
    pub(super) fn want(&self) -> (Stamp, Change) {
        match &self.work {
            Work::Mutation(mutation) => (mutation.stamp(), mutation.change.clone()),
            Work::Repair(repair) => (repair.stamp, repair.change.clone()),
            Work::Behind(sending) => (sending.stamp, sending.change.clone()),
            Work::Fill(_) => (Stamp::ZERO, Change::Remove),
        }
    }
}

impl Queue {
    /// Adds a read; returns whether it joined one that waits already, or gives it back if too many have joined.
    pub(super) fn push_read(&mut self, read: ReadOp) -> Result<bool, ReadOp> {
        if let Some(readers) = self.readers.get_mut(&read.key) {
            return readers.join(read).map(|()| true);
        }
        self.reads.push_back(read.key.clone());
        self.readers.insert(read.key.clone(), Readers { first: read, others: Vec::new() });
        Ok(false)
    }

    pub(super) fn push_write(&mut self, job: Job) {
        self.writes.push_back(job);
    }

    pub(super) fn len(&self) -> usize {
        self.reads.len() + self.writes.len()
    }

    pub(super) fn has_writes(&self) -> bool {
        !self.writes.is_empty() || self.write_calls > 0 || self.entering > 0
    }

    pub(super) fn has_reads(&self) -> bool {
        !self.reads.is_empty()
    }

    pub(super) fn has_waiting_writes(&self) -> bool {
        !self.writes.is_empty()
    }

    /// The next read call: up to `limit` keys with those who wait for them. Readers who have gone are dropped.
    pub(super) fn take_reads(&mut self, limit: usize) -> (Vec<CacheKey>, Vec<Readers>) {
        let size = limit.min(self.reads.len());
        let mut batch = (Vec::with_capacity(size), Vec::with_capacity(size));
        while batch.0.len() < limit {
            let Some(key) = self.reads.pop_front() else { break };
            if let Some(readers) = self.readers.remove(&key).and_then(Readers::staying) {
                batch.0.push(key);
                batch.1.push(readers);
            }
        }
        self.last_batch = batch.0.len();
        batch
    }

    /// Keeps those who wait for a call that is on its way; returns its number.
    pub(super) fn ask(&mut self, readers: Vec<Readers>) -> u64 {
        self.asks += 1;
        self.asked.push((self.asks, readers));
        self.asks
    }

    /// Those who wait for a call, in the order of its keys.
    pub(super) fn asked(&mut self, call: u64) -> Vec<Readers> {
        let place = self.asked.iter().position(|(asked, _)| *asked == call);
        place.map_or_else(Vec::new, |place| self.asked.swap_remove(place).1)
    }

    /// Gives up readers whose deadline has passed. Returns the next deadline of the others.
    pub(super) fn expire_reads(&mut self, now: Instant, gone: &mut Vec<Unheard>) -> Option<Instant> {
        let asked = self.asked.iter_mut().flat_map(|(_, readers)| readers);
        let all = self.readers.values_mut().chain(asked);
        all.map(|readers| readers.expire(now, gone)).fold(None, earlier)
    }

    /// Whether others are likely to ask in a moment: those whom the last call has answered, to begin with.
    pub(super) fn gathers(&self) -> bool {
        self.last_batch > 1
    }

    /// Says that writes are watched from `deadline` on; gives it back if they were not: then the watch has to be begun.
    pub(super) fn watch_writes(&mut self, deadline: Option<Instant>) -> Option<Instant> {
        deadline.filter(|_| !std::mem::replace(&mut self.writes_watched, true))
    }

    /// Keeps the jobs of a call that is on its way; returns its number.
    pub(super) fn send(&mut self, jobs: Vec<Job>) -> u64 {
        self.sends += 1;
        self.sent.push((self.sends, jobs));
        self.sends
    }

    /// Gives back the jobs of a call, once.
    pub(super) fn sent(&mut self, call: u64) -> Vec<Job> {
        let place = self.sent.iter().position(|(sent, _)| *sent == call);
        place.map_or_else(Vec::new, |place| self.sent.swap_remove(place).1)
    }

    /// Gives up mutations whose deadline has passed. Returns the next deadline of the others.
    pub(super) fn expire_writes(&mut self, now: Instant, gone: &mut Vec<Overdue>) -> Option<Instant> {
        let sent = self.sent.iter_mut().flat_map(|(_, jobs)| jobs);
        self.writes.iter_mut().chain(sent).filter_map(|job| job.give_up(now, gone)).min()
    }

    /// The next writing call: jobs of one kind (stores or removals) from the front, up to `limit` keys and `bytes`.
    pub(super) fn take_writes(&mut self, limit: usize, bytes: usize) -> Vec<Job> {
        let mut batch: Vec<Job> = Vec::with_capacity(limit.min(self.writes.len()));
        let mut size = 0;
        while batch.len() < limit {
            let Some(next) = self.writes.front() else { break };
            if batch.first().is_some_and(|first| first.entry().is_some() != next.entry().is_some()) {
                break;
            }
            size += next.entry().map_or(0, |entry| entry.payload.weight());
            if size > bytes && !batch.is_empty() {
                break;
            }
            batch.extend(self.writes.pop_front());
        }
        self.last_written = batch.len();
        batch
    }

    /// Whether no others are likely to write in a moment: as many keys wait as the last call took, or that was of one.
    pub(super) fn has_gathered_writes(&self) -> bool {
        self.last_written <= 1 || self.writes.len() >= self.last_written
    }
}
