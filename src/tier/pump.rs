//! From what waits to calls: the reading and the writing half of a tier's queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use super::breaker::Admission;
use super::call;
use super::core::{TierCore, lock};
use super::counters::Counters;
use super::ledger::Ledger;
use super::message::{Mutation, ReadOp};
use super::queue::{Job, LOCKED, Queue, Readers, Work};
use crate::error::{Error, ErrorKind, Result};
use crate::key::CacheKey;
use crate::observe::trace::Caller;
use crate::planted::{Plant, planted};
use crate::value::Entry;

/// A caller on its way into the queue. Given up on drop: a panic on the way must not keep a shutdown waiting.
struct Entering<'a>(Option<&'a TierCore>);

impl Entering<'_> {
    /// There it is, under the queue's lock.
    fn entered(mut self, queue: &mut Queue) {
        self.0 = None;
        queue.entering -= 1;
    }
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        if let Some(core) = self.0 {
            lock(&core.queue).entering -= 1;
        }
    }
}

/// Those who wait for a call that is on its way; their deadlines pass meanwhile. Dropped, they are told that it is not
/// coming back.
pub(super) struct Asked {
    core: Arc<TierCore>,
    call: u64,
}

impl Asked {
    /// Answers them, in the order of the call's keys.
    pub(super) fn answer(self, results: Vec<Result<Option<Entry>>>) {
        for (readers, result) in self.take().into_iter().zip(results) {
            readers.answer(result);
        }
    }

    fn take(&self) -> Vec<Readers> {
        lock(&self.core.queue).asked(self.call)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl TierCore {
    /// Whether the actor may take more messages; otherwise its waker is kept.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let limit = self.room_limit();
        if lock(&self.queue).len() < limit {
            return Poll::Ready(());
        }
        self.room.register(cx.waker());
        // A call may have ended between the look and the registration.
        if lock(&self.queue).len() < limit { Poll::Ready(()) } else { Poll::Pending }
    }

    /// How much may be drained from the mailbox and not sent.
    fn room_limit(&self) -> usize {
        self.options.batch_keys.saturating_mul(self.options.concurrency).saturating_mul(2)
    }

    /// How much callers may queue themselves: what would be drained or wait in the mailbox otherwise.
    fn callers_limit(&self) -> usize {
        self.room_limit().saturating_add(self.options.mailbox)
    }

    /// Takes a read in its caller's own task, without a message; gives it back where there is no room for it, so that
    /// it waits in the mailbox like others. Taken, it is answered by its deadline. To be called while nothing waits
    /// there. Reads need no actor: should it restart now, the next incarnation finds the queue as it is.
    pub(crate) fn read_at_once(self: &Arc<Self>, read: ReadOp) -> Option<ReadOp> {
        let limit = self.callers_limit();
        let (pushed, unwatched, starts) = {
            let mut queue = lock(&self.queue);
            if !queue.open || queue.len() >= limit {
                return Some(read);
            }
            let unwatched = (!queue.watched).then_some(read.deadline);
            queue.watched = true;
            let pushed = queue.push_read(read);
            (pushed, unwatched, self.may_read(&mut queue))
        };
        if let Some(deadline) = unwatched {
            self.watch_reads(deadline);
        }
        self.queued_read(pushed);
        if starts {
            self.start_reading();
        }
        None
    }

    /// The same for a mutation: it is in the ledger when this returns, unless it is given back.
    pub(crate) fn write_at_once(self: &Arc<Self>, mut mutation: Mutation) -> Option<Mutation> {
        if self.port.is_some() || self.behind.is_some() || planted(Plant::NoDeadline) {
            return Some(mutation);
        }
        {
            let mut queue = lock(&self.queue);
            if !queue.open || queue.len() >= self.callers_limit() {
                return Some(mutation);
            }
            queue.entering += 1;
        }
        let entering = Entering(Some(self));
        mutation.watch();
        let deadline = mutation.deadline;
        let begun = self.begin_arrived(mutation);
        let (unwatched, starts) = {
            let mut queue = lock(&self.queue);
            entering.entered(&mut queue);
            if let Some(job) = begun {
                queue.push_write(job);
            }
            (queue.watch_writes(Some(deadline)), self.may_write(&mut queue))
        };
        if let Some(deadline) = unwatched {
            self.watch_writes(deadline);
        }
        if starts {
            self.start_writing(self.immediate);
        }
        None
    }

    /// Sends what waits, as far as calls may be in flight.
    pub(crate) fn pump(self: &Arc<Self>) {
        while self.send_reads() || self.send_writes() || self.send_behind() {}
        self.room.wake();
    }

    fn send_reads(self: &Arc<Self>) -> bool {
        let starts = self.may_read(&mut lock(&self.queue));
        if starts {
            self.start_reading();
        }
        starts
    }

    /// Takes a place for a call, if there is one and something to read.
    fn may_read(&self, queue: &mut Queue) -> bool {
        if !queue.has_reads() || queue.starting || queue.read_calls >= self.options.concurrency {
            return false;
        }
        queue.read_calls += 1;
        queue.starting = true;
        true
    }

    fn start_reading(self: &Arc<Self>) {
        match self.admit() {
            Ok(pass) => self.runtime.detach(call::read(call::Slot::reading(self), pass)),
            Err(error) => {
                let (_, batch) = self.starting_reads();
                drop(call::Slot::reading_unsent(self));
                for readers in batch {
                    readers.answer(Err(error.clone()));
                }
            }
        }
    }

    /// What the call that is starting reads, on whose behalf, and who waits. If more waits, the next call starts.
    pub(super) fn take_reads(self: &Arc<Self>) -> (Vec<CacheKey>, Vec<Caller>, Asked) {
        let (keys, readers) = self.starting_reads();
        if !keys.is_empty() {
            Counters::one(&self.counters.read_calls);
            Counters::add(&self.counters.read_keys, keys.len() as u64);
        }
        let callers = readers.iter().flat_map(Readers::iter).map(|reader| reader.caller.clone()).collect();
        let call = lock(&self.queue).ask(readers);
        while self.send_reads() {}
        self.room.wake();
        (keys, callers, Asked { core: Arc::clone(self), call })
    }

    fn starting_reads(&self) -> (Vec<CacheKey>, Vec<Readers>) {
        let mut queue = lock(&self.queue);
        queue.starting = false;
        queue.take_reads(self.options.batch_keys)
    }

    pub(super) fn send_writes(self: &Arc<Self>) -> bool {
        // In a task also where the store answers at once: this may be the end of another call, and they must not pile up.
        let starts = self.may_write(&mut lock(&self.queue));
        if starts {
            self.start_writing(false);
        }
        starts
    }

    /// As [`may_read`](Self::may_read).
    fn may_write(&self, queue: &mut Queue) -> bool {
        let full = queue.write_calls >= self.options.concurrency;
        if !queue.has_waiting_writes() || queue.writes_starting || full {
            return false;
        }
        queue.write_calls += 1;
        queue.writes_starting = true;
        true
    }

    /// `here`: the call is begun by the caller, and goes on in a task if it is not over then.
    fn start_writing(self: &Arc<Self>, here: bool) {
        match self.admit() {
            Ok(pass) => {
                let call = call::write_queued(call::Slot::writing_queued(self), pass);
                if here { self.runtime.begin(call) } else { self.runtime.detach(call) }
            }
            Err(error) => {
                let batch = self.starting_writes();
                drop(call::Slot::writing_unsent(self));
                self.refuse(batch, &error);
            }
        }
    }

    /// What the call that is starting writes. If more waits, the next call starts.
    pub(super) fn take_writes(self: &Arc<Self>) -> Vec<Job> {
        let batch = self.starting_writes();
        if !batch.is_empty() {
            Counters::one(&self.counters.write_calls);
            Counters::add(&self.counters.write_keys, batch.len() as u64);
            let bytes: usize = batch.iter().filter_map(Job::entry).map(|entry| entry.payload.weight()).sum();
            Counters::add(&self.counters.bytes_written, bytes as u64);
        }
        while self.send_writes() {}
        self.room.wake();
        batch
    }

    fn starting_writes(self: &Arc<Self>) -> Vec<Job> {
        let batch = {
            let mut queue = lock(&self.queue);
            queue.writes_starting = false;
            queue.take_writes(self.options.largest_write(), self.options.batch_bytes)
        };
        self.drop_settled(batch)
    }

    /// Drops the reads that wait, or the writes, which answers them.
    pub(super) fn drop_waiting(self: &Arc<Self>, reads: bool) {
        if reads {
            let waiting = lock(&self.queue).take_reads(usize::MAX);
            return drop(waiting);
        }
        let error = Error::new(ErrorKind::Restarted, "the runtime ended before it could be sent");
        loop {
            let waiting = lock(&self.queue).take_writes(usize::MAX, usize::MAX);
            if waiting.is_empty() {
                return;
            }
            // What waits for one of them in the ledger comes next.
            self.refuse(waiting, &error);
        }
    }

    /// Drops jobs that were settled by their callers' deadline while they waited, and fills that are void by now.
    fn drop_settled(self: &Arc<Self>, batch: Vec<Job>) -> Vec<Job> {
        let is_live = |ledger: &Ledger, job: &Job| match &job.work {
            Work::Repair(_) | Work::Behind(_) => true,
            // Also one that is out no longer because one that it overtook has timed out: it is what the key is to show.
            Work::Mutation(mutation) => {
                ledger.is_out(job.key(), job.attempt) || ledger.is_unsettled(job.key(), mutation.stamp())
            }
            Work::Fill(fill) => {
                let out = planted(Plant::FillNotOut) || ledger.is_out(job.key(), job.attempt);
                out && self.order.fences.holds(fill.fence)
            }
        };
        let mut live = Vec::with_capacity(batch.len());
        for jobs in batch.chunks(LOCKED) {
            let ledger = lock(&self.ledger);
            live.extend(jobs.iter().map(|job| is_live(&ledger, job)));
        }
        if !live.contains(&false) {
            return batch;
        }
        let (mut batch, mut dropped) = (Vec::with_capacity(batch.len()), batch);
        let mut live = live.into_iter();
        batch.extend(dropped.extract_if(.., |_| live.next().unwrap_or(true)));
        let error = Error::new(ErrorKind::Timeout, "the deadline passed before it could be sent");
        self.refuse(dropped, &error);
        batch
    }

    /// Settles jobs that were never sent.
    pub(super) fn refuse(self: &Arc<Self>, jobs: Vec<Job>, error: &Error) {
        for job in jobs {
            self.finish(job, Err(error.clone()));
        }
    }

    /// The actor is down and may not come back for long: what it had drained and not sent is answered.
    pub(crate) fn refuse_queued(self: &Arc<Self>) {
        let error = Error::new(ErrorKind::Unavailable, "the tier is down and will be tried again");
        loop {
            let ((_, reads), writes) = {
                let mut queue = lock(&self.queue);
                (queue.take_reads(usize::MAX), queue.take_writes(usize::MAX, usize::MAX))
            };
            if reads.is_empty() && writes.is_empty() {
                return;
            }
            for readers in reads {
                readers.answer(Err(error.clone()));
            }
            self.refuse(writes, &error);
        }
    }

    /// Whether a call may be sent to the backend now.
    pub(super) fn admit(&self) -> Result<Admission> {
        if self.is_stuck() {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("the tier is stuck: {} calls have not returned", self.calls.load(Ordering::Relaxed)),
            ));
        }
        match self.breaker.allow(self.runtime.now()) {
            Admission::No { until } => Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "the breaker is open; the next probe is in {} ms",
                    until.since(self.runtime.now()).as_millis()
                ),
            )),
            pass => Ok(pass),
        }
    }

    /// Whether so many calls never returned that no more are sent.
    pub(crate) fn is_stuck(&self) -> bool {
        self.calls.load(Ordering::Relaxed) >= self.options.stuck_limit + 2 * self.options.concurrency
    }

    pub(super) fn call_began(&self) {
        // SeqCst: a call that a caller begins is counted before it looks whether it may, and the other way round here.
        self.calls.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn call_ended(&self) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
    }
}
