//! Taking mutations in, in their callers' own tasks.
//!
//! What is done under the ledger's lock is in [`entrance`](super::entrance).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::core::{TierCore, lock};
use super::super::ledger::Refusal;
use super::super::message::{Change, Finished, Mutation, Settled, Settlement};
use super::Moment;
use super::entrance::{Entrance, Verdict};
use super::inspect::WriteBehindCounts;
use super::room::{Ticket, wait_for_room};
use crate::error::{Error, ErrorKind, Result};
use crate::key::CacheKey;
use crate::observe::EventKind;
use crate::order::Write;
use crate::runtime::host::drop_quietly;
use crate::runtime::{BoxFuture, Instant};
use crate::write_behind::{Overload, Written};

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

impl TierCore {
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
        write: &Write<'_>,
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

    fn count_behind(&self, count: impl FnOnce(&mut WriteBehindCounts)) {
        if let Some(backlog) = &mut lock(&self.ledger).backlog {
            count(&mut backlog.counts);
        }
    }
}
