//! Sending pending changes, as calls or into the store's port.
//!
//! Calls take from the queue when one may be sent, so that changes wait there, where newer ones replace them, and nowhere
//! else.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::breaker::{Admission, BreakerState};
use super::super::call;
use super::super::core::{TierCore, lock};
use super::super::counters::Counters;
use super::super::message::Settlement;
use super::super::queue::{Job, Work};
use crate::error::{Error, Result};
use crate::runtime::ActorState;

impl TierCore {
    /// Sends a batch of pending changes if there is one and a call may be sent; returns whether it did.
    pub(in crate::tier) fn send_behind(self: &Arc<Self>) -> bool {
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
        self.runtime.spawn(call::write(call::Slot::writing(self), jobs, pass));
        true
    }

    /// Ends pending changes whose attempts returned in time, and sends what goes next for their keys.
    pub(in crate::tier) fn finish_behind(self: &Arc<Self>, jobs: Vec<(Job, Result<Settlement>)>) {
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
    pub(in crate::tier) fn refuse_unsent(self: &Arc<Self>, jobs: Vec<Job>, error: &Error) {
        let (behind, others) = jobs.into_iter().partition(|job| matches!(job.work, Work::Behind(_)));
        self.put_back(behind);
        self.refuse(others, error);
    }

    /// How long a writing call may take.
    pub(in crate::tier) fn attempt_deadline(&self, batch: &[Job]) -> Duration {
        let own = self.behind.as_ref().and_then(|behind| behind.options.attempt_deadline);
        let behind = batch.first().is_some_and(|job| matches!(job.work, Work::Behind(_)));
        own.filter(|_| behind).unwrap_or(self.options.write_deadline)
    }
}
