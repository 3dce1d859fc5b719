//! What arrives at a tier: reads go into the queue, mutations and fills into the ledger, and from there into the store's port
//! or a call.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::core::{TierCore, contained, lock, removed};
use super::counters::Counters;
use super::ledger::Refusal;
use super::message::{Change, Fill, Mutation, Open, ReadOp, Settled, Settlement};
use super::queue::{Job, Work};
use crate::backend::Port;
use crate::error::{Error, ErrorKind};
use crate::key::CacheKey;
use crate::planted::{Plant, planted};
use crate::value::{Entry, Stamp};

impl TierCore {
    /// Takes a read into the queue. The actor sends it on when its mailbox has no more.
    pub(crate) fn enqueue_read(&self, read: ReadOp) {
        let pushed = lock(&self.queue).push_read(read);
        self.queued_read(pushed);
    }

    pub(super) fn queued_read(&self, pushed: std::result::Result<bool, ReadOp>) {
        match pushed {
            Ok(false) => {}
            Ok(true) => Counters::one(&self.counters.joined_reads),
            Err(read) => {
                let message = "too many reads of the key wait for the tier";
                read.answer(Err(Error::new(ErrorKind::Overloaded, message)));
            }
        }
    }

    /// A mutation of `key` is about to draw its number: from now on this tier remembers what is settled for the key.
    pub(crate) fn announce(&self, key: &CacheKey) {
        lock(&self.ledger).announce(key);
    }

    /// A mutation of `key` drew its number: noted for a planted bug only.
    pub(crate) fn minted(&self, key: &CacheKey, stamp: Stamp) {
        if planted(Plant::DropMinted) {
            lock(&self.ledger).minted(key, stamp);
        }
    }

    /// A mutation reached the actor.
    pub(crate) fn arrive(self: &Arc<Self>, mutation: Mutation) {
        if let Some(job) = self.begin_arrived(mutation) {
            self.carry_out(job);
        }
    }

    /// Takes a mutation into the ledger; gives it back to be carried out, if it may be now.
    pub(super) fn begin_arrived(self: &Arc<Self>, mutation: Mutation) -> Option<Job> {
        let refused = self.refusal(&mutation);
        let begun = self.with_ledger(|ledger, done| ledger.arrive(mutation, refused, done));
        begun.map(|(mutation, attempt)| Job { work: Work::Mutation(mutation), attempt })
    }

    /// Applies a job through the port, or queues it for a call. Never under the ledger's lock: what a port displaces
    /// is dropped here, and its destructor is the user's. The attempt is the key's until the job is finished, so
    /// nothing else of the key comes between. What waited for it meanwhile is carried out next.
    pub(super) fn carry_out(self: &Arc<Self>, job: Job) {
        let Some(port) = &self.port else { return self.push_write(job) };
        let mut next = Some(job);
        while let Some(job) = next {
            // Two reads of a shared store may bring what another process replaced between them, in either order.
            let is_older = |entry: &Entry| {
                matches!(job.work, Work::Fill(_))
                    && port.get(&job.key().probe()).is_some_and(|held| held.meta.stamp > entry.meta.stamp)
                    && !planted(Plant::OlderFill)
            };
            let result = match job.entry() {
                Some(entry) if contained(|| is_older(entry)).unwrap_or(false) => Ok(Settlement::Superseded),
                entry => self.write_port(&**port, job.key(), entry),
            };
            next = self.conclude(job, result);
        }
    }

    /// Stores an entry through the port, or removes the key.
    pub(super) fn write_port(&self, port: &dyn Port, key: &CacheKey, entry: Option<&Entry>) -> Settled {
        let Some(entry) = entry else { return contained(|| removed(port.remove(key))) };
        let weight = entry.payload.weight();
        if weight > 0 {
            // Mostly nobody has weighed what stays in this process.
            Counters::add(&self.counters.bytes_written, weight as u64);
        }
        contained(|| {
            port.put(key.clone(), entry.clone());
            Settlement::Applied
        })
    }

    /// The caller's deadline passed, or nobody waits for this tier: the key is settled by quarantine, unless the
    /// mutation has just been settled otherwise.
    pub(crate) fn expire(self: &Arc<Self>, key: &CacheKey, stamp: Stamp, change: Change, open: &Open) {
        self.with_ledger(|ledger, done| {
            if open.is_open() {
                ledger.expire(key, (stamp, change), done);
            } else {
                ledger.dropped.push(change);
            }
        });
    }

    /// A mutation was dropped unsettled.
    pub(crate) fn lost(self: &Arc<Self>, mutation: &mut Mutation) {
        Counters::one(&self.counters.unconfirmed);
        self.with_ledger(|ledger, done| ledger.lost(mutation, done));
    }

    /// A planted bug: the mutation is gone as if it had never been.
    pub(crate) fn forget(&self, key: &CacheKey) {
        lock(&self.ledger).leave(key);
    }

    /// A fill reached the actor. It is void if a mutation of its stripe began since its fence was taken, and given up
    /// if one of its key is on its way or the key is in quarantine.
    pub(crate) fn fill(self: &Arc<Self>, fill: Fill) {
        if self.gate.is_bypassed() {
            return Counters::one(&self.counters.fills_dropped);
        }
        // Under the lock, so that no mutation of the key can be announced between the check and the attempt, which
        // later ones wait for.
        let begun = self.with_ledger(|ledger, _| {
            if self.order.fences.holds(fill.fence) { ledger.begin_fill(&fill.key) } else { None }
        });
        match begun {
            Some(attempt) => self.carry_out(Job { work: Work::Fill(fill), attempt }),
            None => Counters::one(&self.counters.fills_void),
        }
    }

    /// Why a mutation cannot be sent now, if it cannot.
    pub(super) fn refusal(&self, mutation: &Mutation) -> Option<Refusal> {
        if self.gate.is_bypassed() {
            let error = Error::new(ErrorKind::Unavailable, "the tier is bypassed until it has been cleared");
            return Some(Refusal::Bypassed(error));
        }
        // After the gate: whoever sees it open sees what was hidden before it opened. A mutation that was numbered
        // before the tier was cleared would be confirmed and never seen.
        if mutation.stamp().time <= self.hidden.load(Ordering::Acquire) {
            let error = Error::new(ErrorKind::Unavailable, "the tier was cleared after this had begun");
            // In a write-behind tier an older change may be in the store under a number past the clear.
            return Some(match self.behind {
                Some(_) => Refusal::Quarantine(error),
                None => Refusal::Bypassed(error),
            });
        }
        (self.runtime.now() >= mutation.deadline).then(|| Refusal::Quarantine(self.overdue_write()))
    }
}
