//! The queue of a write-behind tier at work: taking mutations in, and bringing them to the store.
//!
//! A mutation is taken in its caller's own task, under the ledger's lock, without a message. Calls take from the queue
//! when one may be sent, so that changes wait there, where newer ones replace them, and nowhere else. One task per tier,
//! there only while something is pending, watches the time; it holds the core weakly.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use event_listener::Event;
use serde::Serialize;

use super::backlog::{Effects, Seq, WriteBehindCounts};
use super::breaker::{Admission, BreakerState};
use super::call;
use super::core::{TierCore, lock};
use super::counters::Counters;
use super::ledger::Refusal;
use super::message::{Change, Finished, Mutation, Settled, Settlement};
use super::pending::{Entrance, Moment, Verdict, overloaded};
use super::queue::{Job, Work};
use super::room::{Ticket, wait_for_room};
use crate::backend::Scope;
use crate::error::{Error, ErrorKind, Result};
use crate::key::CacheKey;
use crate::observe::{EventKind, Outbox};
use crate::order::WriteHere;
use crate::planted::{Plant, planted};
use crate::runtime::host::drop_quietly;
use crate::runtime::{ActorState, BoxFuture, Instant, RuntimeHandle};
use crate::value::Stamp;
use crate::write_behind::{DeadLetter, Keeper, Letters, Overload, Redriven, WriteBehindOptions, Written};
#[cfg(feature = "disk")]
use crate::write_behind::{JournalReport, JournalStatus};

/// How soon the task looks again where nothing tells it: a tier that is stuck, say.
const LOOK: Duration = Duration::from_secs(1);

/// What a write-behind tier has beside its ledger.
pub(crate) struct Behind {
    pub(crate) options: WriteBehindOptions,
    pub(crate) letters: Arc<Letters>,
    pub(crate) keeper: Arc<Keeper>,
    /// Told when there is something to send.
    wake: Event,
    /// Told when something left the queue, for those who wait for the end.
    left: Event,
    /// Whether the task runs.
    running: AtomicBool,
    /// Who wants everything sent at once: flushes, and the shutdown.
    hurry: AtomicUsize,
    /// Until when the breaker turns calls away, in ns.
    paused: AtomicU64,
    /// Whether it was told that the queue is full, and not yet that it is empty.
    full: AtomicBool,
}

/// What becomes of a mutation at a write-behind tier.
pub(crate) enum Accepting {
    /// It is settled, and answered.
    Settled { deadline: Instant },
    /// It is when `waiting` is over, by `deadline`.
    Waiting { deadline: Instant, waiting: BoxFuture<'static, ()> },
    /// It goes through the mailbox, as in any tier.
    Through(Mutation),
}

/// What became of a try to take a mutation in.
pub(super) enum Tried {
    Settled,
    /// It is pending, and to be answered when it is written.
    Writing(Finished, Written),
    Full(Mutation),
}

/// How the queue of a write-behind tier stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WriteBehindInspection {
    /// What became of the writes that were accepted.
    pub counts: WriteBehindCounts,
    /// Writes that are queued, on their way to the store or waiting to be tried again.
    pub queued: usize,
    /// What their values weigh, in bytes.
    pub bytes: usize,
    /// For how long the oldest has been queued.
    pub oldest: Duration,
    /// Of the queued ones, those on their way to the store.
    pub in_flight: usize,
    /// Of the queued ones, those that have failed and are tried again.
    pub retrying: usize,
    /// Callers who wait for room.
    pub waiting: usize,
    /// Whether a full queue would turn the next new key away.
    pub full: bool,
    /// Whether a flush, or the shutdown, has everything sent without delay.
    pub draining: bool,
    /// Dead letters that wait for their sink.
    pub letters_waiting: usize,
    /// Dead letters that the sink has taken.
    pub letters_delivered: u64,
    /// Dead letters that it has not: it failed, was too slow, or they were too many.
    pub letters_undelivered: u64,
    /// How its journal is doing, if it has one.
    #[cfg(feature = "disk")]
    pub journal: Option<JournalStatus>,
    /// What was found when the journal was opened.
    #[cfg(feature = "disk")]
    pub recovery: Option<JournalReport>,
}

impl Behind {
    pub(super) fn new(options: WriteBehindOptions, runtime: &RuntimeHandle, outbox: &Arc<Outbox>) -> Self {
        let keeper = Arc::default();
        Self {
            letters: Letters::new(&options, runtime, outbox, &keeper),
            keeper,
            options,
            wake: Event::new(),
            left: Event::new(),
            running: AtomicBool::new(false),
            hurry: AtomicUsize::new(0),
            paused: AtomicU64::new(0),
            full: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_journaled(&self) -> bool {
        self.options.is_journaled()
    }
}

impl TierCore {
    pub(super) fn moment(&self) -> Moment {
        Moment { now: self.runtime.now(), wall: self.runtime.wall(), random: self.runtime.random() }
    }

    // ---- taking in

    /// Takes a mutation into the queue. It must have been announced, as everywhere.
    pub(crate) fn accept(self: &Arc<Self>, mutation: Mutation) -> Accepting {
        let (deadline, Some(behind)) = (mutation.deadline, &self.behind) else {
            return Accepting::Through(mutation);
        };
        let mutation = match self.try_accept(mutation, None) {
            Tried::Full(mutation) => mutation,
            Tried::Settled => return Accepting::Settled { deadline },
            Tried::Writing(finished, written) => {
                let waiting = Box::pin(async move { finished.answer_after(written.await) });
                return Accepting::Waiting { deadline, waiting };
            }
        };
        if !behind.full.swap(true, Ordering::Relaxed) {
            self.tell(EventKind::QueueFilled);
        }
        match behind.options.overload {
            Overload::Block(longest) => {
                self.count_behind(|counts| counts.blocked += 1);
                let until = self.runtime.now().after(longest);
                let waiting = Box::pin(wait_for_room(Arc::clone(self), mutation, until));
                // Room may come at the last moment; then it says itself that there was none.
                Accepting::Waiting { deadline: until.after(self.options.write_deadline), waiting }
            }
            Overload::WriteThrough => {
                self.count_behind(|counts| counts.written_through += 1);
                Accepting::Through(mutation)
            }
            Overload::Reject | Overload::DropOldest => {
                self.turn_away(mutation);
                Accepting::Settled { deadline }
            }
        }
    }

    /// Takes the announced change of `write` into the queue here and now, without anything that would be needed to wait;
    /// gives it back if it is not as simple as that.
    pub(crate) fn queue_at_once(
        self: &Arc<Self>,
        write: &WriteHere<'_>,
        change: Change,
    ) -> Result<Settled, Change> {
        let (key, stamp) = (write.key, write.stamp);
        // Nothing is drawn at random for what has not failed.
        let at = Moment { now: self.runtime.now(), wall: self.runtime.wall(), random: 0 };
        let queued = {
            let mut ledger = lock(&self.ledger);
            // Both under the lock, as in `try_accept`.
            let refused = stamp.time <= self.hidden.load(Ordering::Acquire)
                || self.order.clears.hide(key.prefix(), stamp);
            if refused {
                return Err(change);
            }
            let queued = ledger.queue_at_once(key, stamp, change, at)?;
            self.gate.set_pending(true);
            queued
        };
        drop_quietly(queued.replaced);
        if queued.room {
            self.tell_first();
        }
        if queued.wake {
            self.wake_behind();
        }
        Ok(Ok(Settlement::Queued { held: queued.held }))
    }

    /// `ticket`: the place in the line of one who waits for room.
    pub(super) fn try_accept(self: &Arc<Self>, mutation: Mutation, ticket: Option<Ticket>) -> Tried {
        let (at, Some(behind)) = (self.moment(), &self.behind) else { return Tried::Full(mutation) };
        let put = |key: &CacheKey, stamp, change: &Change| {
            let refuse = behind.options.overload == Overload::Reject;
            behind.keeper.put(key, stamp, change, at.wall, refuse)
        };
        let make_room = behind.options.overload == Overload::DropOldest;
        let verdict = self.with_ledger(|ledger, done| {
            // Both under the lock: a clear, or the lifting of a bypass, is seen either here or by what follows it there.
            let cleared = self.order.clears.hide(mutation.key().prefix(), mutation.stamp());
            let refused = (mutation.stamp().time <= self.hidden.load(Ordering::Acquire)).then(|| {
                let message = "the tier was cleared after this had begun";
                Refusal::Quarantine(Error::new(ErrorKind::Unavailable, message))
            });
            let entrance = Entrance { refused, cleared, at, ticket, make_room };
            ledger.accept(mutation, entrance, put, done)
        });
        match verdict {
            Verdict::Taken(finished, None) => finished.answer(),
            Verdict::Taken(finished, Some(written)) => return Tried::Writing(finished, written),
            Verdict::Settled => {}
            Verdict::Full(mutation) => return Tried::Full(mutation),
        }
        Tried::Settled
    }

    /// There is no room: the key is settled as where any mutation is not confirmed.
    pub(super) fn turn_away(self: &Arc<Self>, mutation: Mutation) {
        self.with_ledger(|ledger, done| ledger.turn_away(mutation, done));
    }

    /// Has the first one who waits for room look for it.
    fn tell_first(&self) {
        let first = lock(&self.ledger).backlog.as_ref().and_then(|backlog| backlog.line.first());
        if let Some(turn) = first {
            turn.notify(1);
        }
    }

    fn count_behind(&self, count: impl FnOnce(&mut WriteBehindCounts)) {
        if let Some(backlog) = &mut lock(&self.ledger).backlog {
            count(&mut backlog.counts);
        }
    }

    /// Does what follows from a change of the queue. Under no lock.
    pub(super) fn follow(&self, effects: Effects) {
        let Some(behind) = &self.behind else { return };
        let Effects { letters, settled, left, room, wake, drained } = effects;
        if drained && behind.full.swap(false, Ordering::Relaxed) {
            self.tell(EventKind::QueueDrained);
        }
        for (key, stamp) in &settled {
            behind.keeper.settled(key, *stamp);
        }
        if left {
            behind.left.notify(usize::MAX);
        }
        if room {
            self.tell_first();
        }
        behind.letters.post(letters);
        if wake {
            self.wake_behind();
        }
    }

    /// A clear was recorded: what it covers is pending no longer. The journal has forgotten it when the answer comes.
    pub(crate) fn clear_behind(self: &Arc<Self>, scope: &Scope, stamp: Stamp) -> Option<Written> {
        let behind = self.behind.as_ref()?;
        self.with_ledger(|ledger, _| ledger.clear_pending(scope, stamp));
        behind.keeper.forget(scope, stamp)
    }

    /// A mutation was written through, past the queue: what the journal has of its key must not be replayed over it.
    pub(crate) fn overtaken(&self, key: &CacheKey, stamp: Stamp, settlement: Settlement) -> Option<Written> {
        let behind = self.behind.as_ref().filter(|behind| behind.is_journaled())?;
        let queued = matches!(settlement, Settlement::Queued { .. } | Settlement::Superseded);
        if queued { None } else { behind.keeper.settled_durably(key, stamp) }
    }

    /// Has the journal sync what was given up by now: a repair removes what it was to replace, or has replaced, from the
    /// store, and a crash before the letter was delivered would leave neither. Returns whether that took time.
    pub(super) async fn keep_given_up(&self) -> bool {
        let Some(behind) = self.behind.as_ref().filter(|behind| behind.is_journaled()) else { return false };
        let buried =
            lock(&self.ledger).backlog.as_mut().is_some_and(|backlog| std::mem::take(&mut backlog.buried));
        if !buried || planted(Plant::RepairsUnkept) {
            return false;
        }
        if let Some(written) = behind.keeper.sync() {
            // A journal that is closed has synced what it had.
            let _ = written.await;
        }
        true
    }

    /// Opens the journal: what an earlier process left in it is pending before anybody asks.
    ///
    /// # Errors
    /// Why it could not be opened.
    pub(crate) async fn open_behind(self: &Arc<Self>) -> Result<()> {
        let Some(behind) = &self.behind else { return Ok(()) };
        let opened = behind.keeper.open(&behind.options, &self.runtime).await;
        let (recovered, sound) = opened.map_err(|error| error.at_tier(&self.label))?;
        if !sound {
            self.tell(EventKind::JournalDamaged);
        }
        let at = self.moment();
        for mut recovered in recovered.into_iter().filter(|_| !planted(Plant::JournalNotReplayed)) {
            self.order.clock.observe(recovered.stamp, at.wall);
            // Older than every write of this process, even if an earlier clock ran ahead.
            recovered.stamp = self.order.inherited(recovered.stamp);
            if let Change::Set(entry) = &mut recovered.change {
                entry.inherited = true;
            }
            self.with_ledger(|ledger, _| ledger.restore(recovered, at));
        }
        Ok(())
    }

    // ---- bringing to the store

    /// Sends a batch of pending changes if there is one and a call may be sent; returns whether it did.
    pub(super) fn send_behind(self: &Arc<Self>) -> bool {
        let Some(behind) = &self.behind else { return false };
        // A stopped tier's backend is open still; one whose actor has not come up may not be.
        let up = matches!(lock(&self.health).state, ActorState::Running | ActorState::Stopped);
        let now = self.runtime.now();
        let closed = self.breaker.state() == BreakerState::Closed;
        // A bypassed tier is cleared once it is quiet, and what is pending written after that.
        let waits = !closed && now.as_nanos() < behind.paused.load(Ordering::Relaxed);
        if !up || waits || self.is_bypassed() || self.is_retired() || self.is_stuck() {
            return false;
        }
        {
            let mut queue = lock(&self.queue);
            if queue.write_calls >= self.options.concurrency {
                return false;
            }
            queue.write_calls += 1;
        }
        let hurry = behind.hurry.load(Ordering::Relaxed) > 0;
        let hidden = self.hidden.load(Ordering::Acquire);
        let batch = lock(&self.ledger).take_batch(now, !closed, hurry, hidden);
        if batch.is_empty() || self.port.is_some() {
            drop(call::Slot::writing_unsent(self));
            let sent = !batch.is_empty();
            if !sent {
                // Others may have found the slot taken meanwhile, and gone away: this is their turn.
                while self.send_writes() {}
                return lock(&self.ledger).next_due(hurry).is_some_and(|due| due <= now);
            }
            for (sending, attempt) in batch {
                self.carry_out(Job { work: Work::Behind(sending), attempt });
            }
            return sent;
        }
        let pass = self.breaker.allow(now);
        let probe = matches!(pass, Admission::Probe(_));
        let jobs: Vec<_> = batch
            .into_iter()
            .map(|(mut sending, attempt)| {
                sending.probe = probe;
                Job { work: Work::Behind(sending), attempt }
            })
            .collect();
        if let Admission::No { until } = pass {
            behind.paused.store(until.as_nanos(), Ordering::Relaxed);
            drop(call::Slot::writing_unsent(self));
            self.put_back(jobs);
            return false;
        }
        Counters::one(&self.counters.write_calls);
        Counters::add(&self.counters.write_keys, jobs.len() as u64);
        let bytes: usize = jobs.iter().filter_map(Job::entry).map(|entry| entry.payload.weight()).sum();
        Counters::add(&self.counters.bytes_written, bytes as u64);
        let batch = call::Batch::new(self, jobs);
        self.runtime.spawn(call::write(call::Slot::writing(self), batch, pass));
        true
    }

    /// Ends pending changes whose attempts returned in time, and sends what goes next for their keys.
    pub(super) fn finish_behind(self: &Arc<Self>, jobs: Vec<(Job, Result<Settlement>)>) {
        // First of all, as everywhere: whoever waits is told when nothing older is left above.
        for (job, result) in &jobs {
            self.note_answer(job.key(), job.carried(), result);
        }
        let mut at = self.moment();
        let mut next = Vec::new();
        self.with_ledger(|ledger, done| {
            for (Job { work, attempt }, result) in jobs {
                if let Work::Behind(sending) = work {
                    next.extend(ledger.brought(sending, attempt, result, at, done));
                    // Those that failed together are not tried again together.
                    at.random = at.random.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31);
                }
            }
        });
        for (mutation, attempt) in next {
            self.carry_out(Job { work: Work::Mutation(mutation), attempt });
        }
    }

    /// Puts back pending changes that were never sent, which is no attempt.
    fn put_back(self: &Arc<Self>, jobs: Vec<Job>) {
        let now = self.runtime.now();
        for Job { work, attempt } in jobs {
            if let Work::Behind(sending) = work {
                let next = self.with_ledger(|ledger, done| ledger.unsent(sending, attempt, now, done));
                self.send_next(next);
            }
        }
    }

    /// Settles jobs that were never sent, or puts them back where they are pending.
    pub(super) fn refuse_unsent(self: &Arc<Self>, jobs: Vec<Job>, error: &Error) {
        let (behind, others) = jobs.into_iter().partition(|job| matches!(job.work, Work::Behind(_)));
        self.put_back(behind);
        self.refuse(others, error);
    }

    /// How long a writing call may take.
    pub(super) fn attempt_deadline(&self, batch: &[Job]) -> Duration {
        let own = self.behind.as_ref().and_then(|behind| behind.options.attempt_deadline);
        let behind = batch.first().is_some_and(|job| matches!(job.work, Work::Behind(_)));
        own.filter(|_| behind).unwrap_or(self.options.write_deadline)
    }

    /// Has the task look at the queue, and starts it unless it runs.
    pub(crate) fn wake_behind(&self) {
        let Some(behind) = &self.behind else { return };
        behind.wake.notify(usize::MAX);
        if self.pending() > 0 && !self.is_retired() && !behind.running.swap(true, Ordering::SeqCst) {
            // Made here: the task may be dropped without a turn.
            self.runtime.spawn(run(Running { core: self.downgrade(), ended: false, working: false }));
        }
    }

    /// Until when the task may sleep, unless it is woken.
    fn drain_wait(&self) -> Instant {
        let now = self.runtime.now();
        let Some(behind) = &self.behind else { return now.after(LOOK) };
        let hurry = behind.hurry.load(Ordering::Relaxed) > 0;
        let (due, aged) = {
            let ledger = lock(&self.ledger);
            (ledger.next_due(hurry), ledger.backlog.as_ref().and_then(|backlog| backlog.next_aged(now)))
        };
        let until = match due {
            Some(due) if due > now => due,
            // Due, and yet not sent: the breaker says until when, or a call that returns wakes it.
            Some(_) => {
                let paused = Instant::from_nanos(behind.paused.load(Ordering::Relaxed));
                if paused > now { paused.min(now.after(LOOK)) } else { now.after(LOOK) }
            }
            None => now.after(LOOK),
        };
        aged.map_or(until, |aged| until.min(aged))
    }

    /// What nothing can be sent of does not fail either: the breaker holds it back, or a call of its key that does not
    /// return. What gets too old meanwhile is given up here.
    fn give_up_aged(self: &Arc<Self>) {
        let limited = self.behind.as_ref().is_some_and(|behind| behind.options.retry.age.is_some());
        if limited {
            let at = self.moment();
            let closed = self.breaker.state() == BreakerState::Closed;
            self.with_ledger(|ledger, _| ledger.give_up_aged(at, closed));
        }
    }

    // ---- flushing and ending

    /// Keys that are pending.
    pub(crate) fn pending(&self) -> usize {
        lock(&self.ledger).backlog.as_ref().map_or(0, |backlog| backlog.order.len())
    }

    /// Waits until everything that was accepted by now is applied, superseded or dead. Dropped, it changes nothing.
    pub(crate) async fn drain_behind(self: &Arc<Self>) {
        let Some(behind) = &self.behind else { return };
        let barrier = lock(&self.ledger).backlog.as_ref().map_or(0, |backlog| backlog.barrier());
        let _hurry = Hurry::begin(self);
        self.wake_behind();
        loop {
            let left = behind.left.listen();
            if self.oldest_pending().is_none_or(|oldest| oldest >= barrier) {
                return;
            }
            left.await;
        }
    }

    /// Tries once more what has failed, however long it was to wait: there is no later.
    pub(crate) fn hasten_behind(self: &Arc<Self>) {
        if self.behind.is_some() {
            let now = self.runtime.now();
            self.with_ledger(|ledger, _| ledger.hasten(now));
        }
    }

    fn oldest_pending(&self) -> Option<Seq> {
        lock(&self.ledger).backlog.as_ref()?.order.first_key_value().map(|(&seq, _)| seq)
    }

    /// Whether what is queued need not be waited for at a shutdown: the store is away, and the journal keeps it.
    pub(crate) fn leaves_to_journal(&self) -> bool {
        let journaled = self.behind.as_ref().is_some_and(|behind| behind.is_journaled());
        journaled && self.breaker.state() != BreakerState::Closed
    }

    /// Accepts nothing more. What is left goes to the dead letters, or is left to the journal; returns how much that is.
    pub(crate) fn close_behind(self: &Arc<Self>) -> usize {
        let Some(behind) = &self.behind else { return 0 };
        let (journaled, wall) = (behind.is_journaled(), self.runtime.wall());
        let left = self.with_ledger(|ledger, _| ledger.close_backlog(journaled, wall));
        // There will be no room any more.
        let waiting = lock(&self.ledger).backlog.as_ref().map(|backlog| backlog.line.all());
        for turn in waiting.into_iter().flatten() {
            turn.notify(1);
        }
        left
    }

    /// Whether a write of a new key would find no room.
    pub(crate) fn is_queue_full(&self) -> bool {
        self.behind.is_some() && lock(&self.ledger).backlog.as_ref().is_some_and(|backlog| backlog.is_full())
    }

    /// Dead letters that their sink did not take: they are handed out once.
    pub(crate) fn undelivered_letters(&self) -> Vec<DeadLetter> {
        self.behind.as_ref().map(|behind| behind.letters.take_undelivered()).unwrap_or_default()
    }

    /// Queues a dead letter again, unless something newer of its key is settled. The key must have been announced, and
    /// found to hold nothing newer, since.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] if there is no room; [`ErrorKind::Closed`] after a shutdown.
    pub(crate) fn redrive(self: &Arc<Self>, letter: &DeadLetter) -> Result<(Redriven, Option<Written>)> {
        let at = self.moment();
        self.with_ledger(|ledger, _| {
            if ledger.pending_change(&letter.key).is_some_and(|(stamp, _)| stamp == letter.stamp) {
                // Redriven already, perhaps by one who did not wait until it was written.
                return Ok((Redriven::Queued, self.behind.as_ref().and_then(|behind| behind.keeper.sync())));
            }
            // What was missed while the tier was bypassed is known no longer: it may have been newer.
            if self.order.clears.hide(letter.key.prefix(), letter.stamp)
                || letter.stamp.time <= self.hidden.load(Ordering::Acquire)
                || ledger.is_overtaken(&letter.key, letter.stamp)
            {
                return Ok((Redriven::Superseded, None));
            }
            let change = letter.entry.clone().map_or(Change::Remove, Change::Set);
            match &ledger.backlog {
                Some(backlog) if backlog.closed => {
                    return Err(Error::new(ErrorKind::Closed, "the cache has been shut down"));
                }
                Some(backlog) if !backlog.has_room(change.weight(), None) || !backlog.line.is_empty() => {
                    return Err(Error::new(ErrorKind::Overloaded, overloaded(backlog)));
                }
                _ => {}
            }
            // It waits whatever the policy says: an error would leave it queued all the same.
            let written = self.behind.as_ref().and_then(|behind| {
                behind.keeper.put(&letter.key, letter.stamp, &change, letter.accepted, false)
            });
            ledger.queue(&letter.key, letter.stamp, change, at);
            Ok((Redriven::Queued, written))
        })
    }

    pub(crate) fn inspect_behind(&self) -> Option<WriteBehindInspection> {
        let behind = self.behind.as_ref()?;
        let (letters_waiting, letters_delivered, letters_undelivered) = behind.letters.counts();
        #[cfg(feature = "disk")]
        let journal = behind.keeper.status();
        let now = self.runtime.now();
        let ledger = lock(&self.ledger);
        let backlog = ledger.backlog.as_ref()?;
        let oldest = backlog.order.values().next().and_then(|key| ledger.keys.get(key)?.pending.as_ref());
        Some(WriteBehindInspection {
            counts: backlog.counts,
            queued: backlog.order.len(),
            bytes: backlog.bytes,
            oldest: oldest.map(|pending| now.since(pending.since)).unwrap_or_default(),
            in_flight: backlog.in_flight,
            retrying: backlog.retries.len(),
            waiting: backlog.line.len(),
            full: backlog.is_full(),
            draining: behind.hurry.load(Ordering::Relaxed) > 0,
            letters_waiting,
            letters_delivered,
            letters_undelivered,
            #[cfg(feature = "disk")]
            journal,
            #[cfg(feature = "disk")]
            recovery: behind.keeper.report(),
        })
    }
}

impl Drop for TierCore {
    fn drop(&mut self) {
        // Without a shutdown there is nobody left to bring it to the store, nor to wait for a sink.
        if let Some(behind) = &self.behind
            && !behind.is_journaled()
            && !self.is_retired()
        {
            let left = self.pending();
            if left > 0 {
                crate::observe::trace::dropped_queue(&self.label, left);
            }
        }
    }
}

/// Keeps everything going at once while it lives.
struct Hurry(Arc<TierCore>);

impl Hurry {
    fn begin(core: &Arc<TierCore>) -> Self {
        if let Some(behind) = &core.behind {
            behind.hurry.fetch_add(1, Ordering::Relaxed);
        }
        Self(Arc::clone(core))
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        if let Some(behind) = &self.0.behind {
            behind.hurry.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Should the task die of a panic, another one takes over. Should its runtime drop it, the next write starts another.
struct Running {
    core: Weak<TierCore>,
    /// It ended by itself, and has said so.
    ended: bool,
    /// It has its turn: if it is dropped now, it has panicked.
    working: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Some(core) = self.core.upgrade()
            && let Some(behind) = &core.behind
        {
            behind.running.store(false, Ordering::SeqCst);
            // Not where the runtime has dropped it, perhaps in a panic of its own: it would drop the next one as well.
            if self.working {
                core.wake_behind();
            }
        }
    }
}

async fn run(mut running: Running) {
    loop {
        let (runtime, until, wake) = {
            let Some(core) = running.core.upgrade() else { return };
            let Some(behind) = &core.behind else { return };
            let wake = behind.wake.listen();
            if core.pending() == 0 || core.is_retired() {
                behind.running.store(false, Ordering::SeqCst);
                // Something may have come between the look and the flag.
                let none = core.pending() == 0 || core.is_retired();
                if none || behind.running.swap(true, Ordering::SeqCst) {
                    running.ended = true;
                    return;
                }
            }
            running.working = true;
            core.give_up_aged();
            core.pump();
            running.working = false;
            (core.runtime.clone(), core.drain_wait(), wake)
        };
        let _ = runtime.deadline(until, wake).await;
    }
}
