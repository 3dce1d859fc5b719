//! What becomes of a job that has ended, well or not, or is overdue; and what goes next for its key.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::core::TierCore;
use super::counters::Counters;
use super::ledger::Attempt;
use super::message::{Fill, Mutation, Settlement};
use super::queue::{Job, LOCKED, Work};
use crate::error::{Error, ErrorKind, Result};
use crate::key::CacheKey;
use crate::runtime::host::drop_quietly;
use crate::value::Stamp;

impl TierCore {
    /// Ends a job whose attempt returned in time or was never sent, and sends what goes next for the key.
    pub(super) fn finish(self: &Arc<Self>, job: Job, result: Result<Settlement>) {
        if let Some(next) = self.conclude(job, result) {
            self.carry_out(next);
        }
    }

    /// As [`finish`](Self::finish), for the jobs of a call: those who wait for the ledger's lock wait for a few of them.
    pub(super) fn finish_all(self: &Arc<Self>, jobs: impl Iterator<Item = (Job, Result<Settlement>)>) {
        let mut mutations = Vec::with_capacity(LOCKED);
        for (job, result) in jobs {
            let carried = job.carried();
            let Job { work: Work::Mutation(mutation), attempt } = job else {
                self.finish(job, result);
                continue;
            };
            self.note_answer(mutation.key(), carried, &result);
            mutations.push((mutation, attempt, result));
            if mutations.len() == LOCKED {
                self.complete(&mut mutations);
            }
        }
        self.complete(&mut mutations);
    }

    fn complete(self: &Arc<Self>, mutations: &mut Vec<(Mutation, Attempt, Result<Settlement>)>) {
        if mutations.is_empty() {
            return;
        }
        let next: Vec<_> = self.with_ledger_for(mutations.len(), |ledger, done| {
            let mutations = mutations.drain(..);
            mutations
                .filter_map(|(mutation, attempt, result)| ledger.complete(mutation, attempt, result, done))
                .collect()
        });
        for (mutation, attempt) in next {
            self.carry_out(Job { work: Work::Mutation(mutation), attempt });
        }
    }

    /// As [`finish`](Self::finish), giving back what goes next for the key.
    pub(super) fn conclude(self: &Arc<Self>, job: Job, result: Result<Settlement>) -> Option<Job> {
        // First of all: when whoever waits is told, nothing older is left above.
        self.note_answer(job.key(), job.carried(), &result);
        let Job { work, attempt } = job;
        let next = match work {
            Work::Mutation(mutation) => {
                self.with_ledger(|ledger, done| ledger.complete(mutation, attempt, result, done))
            }
            Work::Fill(fill) => {
                Counters::one(match result {
                    Ok(Settlement::Outdated) | Err(_) => &self.counters.fills_dropped,
                    Ok(Settlement::Superseded) => &self.counters.fills_void,
                    Ok(_) => &self.counters.fills,
                });
                let next = self.with_ledger(|ledger, done| ledger.complete_fill(&fill.key, attempt, done));
                // Its entry first, then whoever waits for the fill is told.
                let Fill { entry, done, .. } = fill;
                drop_quietly(entry);
                drop(done);
                next
            }
            Work::Repair(repair) => {
                self.count_repair(result.is_ok());
                let away =
                    |error: &Error| matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout);
                let failed = result.as_ref().err().map(|error| (!away(error), self.moment()));
                self.with_ledger(|ledger, _| {
                    ledger.repaired(&repair.key, attempt, result.is_ok());
                    if let Some((own, at)) = failed {
                        ledger.repair_failed(&repair.key, own, at);
                    }
                });
                None
            }
            Work::Behind(sending) => {
                let at = self.moment();
                self.with_ledger(|ledger, done| ledger.brought(sending, attempt, result, at, done))
            }
        };
        next.map(|(mutation, attempt)| Job { work: Work::Mutation(mutation), attempt })
    }

    /// The deadline of a job's call passed. Its key is in quarantine from here on, until [`late`](Self::late).
    pub(super) fn overdue(self: &Arc<Self>, job: Job, error: &Error) {
        let want = job.want();
        let Job { work, attempt } = job;
        match work {
            Work::Mutation(mutation) => {
                let error = error.clone();
                self.with_ledger(|ledger, done| ledger.overdue_mutation(mutation, attempt, error, done));
            }
            Work::Fill(fill) => {
                Counters::one(&self.counters.fills_dropped);
                self.with_ledger(|ledger, done| ledger.overdue(&fill.key, attempt, want, done));
            }
            Work::Repair(repair) => {
                self.count_repair(false);
                let at = self.moment();
                self.with_ledger(|ledger, _| {
                    ledger.repair_overdue(&repair.key, attempt);
                    ledger.repair_failed(&repair.key, false, at);
                });
            }
            Work::Behind(sending) => {
                let at = self.moment();
                let next =
                    self.with_ledger(|ledger, done| ledger.brought_late(sending, attempt, error, at, done));
                self.send_next(next);
            }
        }
    }

    /// An overdue attempt can no longer be applied; `confirmed`: which change it is known to have applied.
    pub(super) fn late(self: &Arc<Self>, key: &CacheKey, attempt: Attempt, confirmed: Option<Stamp>) {
        self.with_ledger(|ledger, _| ledger.late(key, attempt, confirmed));
    }

    pub(super) fn send_next(&self, next: Option<(Mutation, Attempt)>) {
        if let Some((mutation, attempt)) = next {
            self.push_write(Job { work: Work::Mutation(mutation), attempt });
        }
    }

    fn count_repair(&self, ok: bool) {
        if ok {
            Counters::one(&self.counters.repairs);
            self.repair_streak.store(0, Ordering::Relaxed);
        } else {
            Counters::one(&self.counters.repair_failures);
            // Not once per key: a batch that fails is one failure, whatever its size.
            self.repair_failed.store(true, Ordering::Relaxed);
        }
    }
}
