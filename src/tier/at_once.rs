//! Changes of a store with a port, carried out by whoever asks for them: no message, no wake-up, an answer at once; and
//! reads of a store behind calls that answers when it is first polled.
//!
//! The ledger takes what arrives in any order: a mutation that waits in the mailbox as a newer one is settled here is
//! superseded when it gets there. So only what is simple is done here: the actor runs, the tier is not bypassed, and
//! nothing of the key is under way or in quarantine. Everything else goes through the mailbox.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;

use super::breaker::Admission;
use super::call::{CallCount, record};
use super::core::{TierCore, contained, lock};
use super::counters::Counters;
use super::ledger::Attempt;
use super::message::{Change, Fill, Mutation, Settled};
use super::outdated::Carried;
use super::queue::{Job, Work};
use crate::error::{Error, ErrorKind};
use crate::key::CacheKey;
use crate::observe::trace::Caller;
use crate::observe::{Began, trace};
use crate::order::Write;
use crate::runtime::host::drop_quietly;
use crate::value::{Entry, Stamp};

impl TierCore {
    /// Whether callers may read, and carry out changes, themselves: while the actor runs. Once this has said no, none
    /// begins, and [`is_idle`](Self::is_idle) knows of those that have begun.
    pub(crate) fn open_to_callers(&self, open: bool) {
        lock(&self.ledger).open = open && self.port.is_some() && self.behind.is_none();
        lock(&self.queue).open = open;
        self.open.store(open, Ordering::SeqCst);
    }

    /// Reads a key from a store that answers at once, in the caller's own task: without the queue, a timer or a task.
    /// `None`: it has to be asked for the usual way. The quarantine must have been asked before.
    pub(crate) fn read_in_place(self: &Arc<Self>, key: &CacheKey) -> Option<Result<Option<Entry>, Error>> {
        if !self.immediate {
            return None;
        }
        let _call = CallCount::begin(self);
        // Anything but a closed breaker, and a store that is stuck, is for the usual way.
        let pass = self.breaker.closed().filter(|_| self.open.load(Ordering::SeqCst) && !self.is_stuck())?;
        self.meter.sending(true, 1);
        let began = Began::now(&self.runtime);
        let caller = Caller::here();
        let polled = contained(|| {
            trace::call("read", &self.label, 1, [&caller], self.backend.read(key)).now_or_never()
        });
        self.meter.called(true, began, &self.runtime);
        let result = match polled {
            Ok(None) => return None,
            Ok(Some(Ok(value))) => Ok(value.map(Entry::from_raw)),
            Ok(Some(Err(error))) | Err(error) => Err(error),
        };
        Counters::one(&self.counters.read_calls);
        Counters::one(&self.counters.read_keys);
        record(self, Admission::Yes(pass), std::slice::from_ref(&result));
        Some(result)
    }

    /// Carries out the announced change of `write` here and now; gives it back if it has to go through the mailbox.
    pub(crate) fn settle_at_once(
        self: &Arc<Self>,
        write: &Write<'_>,
        change: Change,
    ) -> Result<Settled, Change> {
        let Some(port) = &self.port else { return Err(change) };
        let (key, stamp) = (write.key, write.stamp);
        let Some(attempt) = self.begin_at_once(key, stamp) else { return Err(change) };
        let entry = match &change {
            Change::Set(entry) => Some(entry),
            Change::Remove => None,
        };
        let settled = self.write_port(&**port, key, entry);
        if settled.is_ok() && lock(&self.ledger).end_at_once(key, attempt, stamp) {
            self.note_answer(key, Carried { stamp, changes: true }, &settled);
            Counters::one(&self.counters.applied);
            drop_quietly(change);
            return Ok(settled);
        }
        // It failed, or something has come between: as a job that was sent.
        let (mutation, mut answer) = Mutation::new(self, write, change, self.runtime.now());
        self.finish(Job { work: Work::Mutation(mutation), attempt }, settled);
        let unanswered = || Err(Error::new(ErrorKind::Restarted, "the change was not answered"));
        Ok(answer.try_recv().ok().flatten().unwrap_or_else(unanswered))
    }

    /// The same for a mutation that is built already: it is answered when this returns, unless it is given back.
    pub(crate) fn take_at_once(self: &Arc<Self>, mutation: Mutation) -> Option<Mutation> {
        let Some(attempt) = self.begin_at_once(mutation.key(), mutation.stamp()) else {
            return Some(mutation);
        };
        self.carry_out(Job { work: Work::Mutation(mutation), attempt });
        None
    }

    fn begin_at_once(&self, key: &CacheKey, stamp: Stamp) -> Option<Attempt> {
        let mut ledger = lock(&self.ledger);
        // Under the lock: a bypass ends under it, after `hidden` has moved.
        if stamp.time <= self.hidden.load(Ordering::Acquire) {
            return None;
        }
        ledger.begin_at_once(key, stamp)
    }

    /// Writes what was read below, or loaded; gives it back if the actor does not run.
    pub(crate) fn fill_at_once(self: &Arc<Self>, fill: Fill) -> Option<Fill> {
        let begun = {
            let mut ledger = lock(&self.ledger);
            if !ledger.open || ledger.bypassed {
                return Some(fill);
            }
            // As in `fill`: no mutation of the key is announced between the check and the attempt.
            if self.order.fences.holds(fill.fence) { ledger.begin_fill(&fill.key) } else { None }
        };
        match begun {
            Some(attempt) => self.carry_out(Job { work: Work::Fill(fill), attempt }),
            None => Counters::one(&self.counters.fills_void),
        }
        None
    }
}
