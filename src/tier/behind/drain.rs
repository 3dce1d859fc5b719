//! Emptying the queue: a flush waits for it, a shutdown ends it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::breaker::BreakerState;
use super::super::core::{TierCore, lock};
use super::super::ledger::Ledger;
use super::backlog::Seq;
use super::pending::Place;
use crate::runtime::Instant;
use crate::value::Timestamp;
use crate::write_behind::DeadReason;

impl TierCore {
    /// Without a shutdown there is nobody left to bring it to the store, nor to wait for a sink.
    pub(in crate::tier) fn tell_of_dropped_queue(&self) {
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
}

impl Ledger {
    /// Has everything that is to be tried again tried now.
    fn hasten(&mut self, now: Instant) {
        let Some(backlog) = &mut self.backlog else { return };
        let later: Vec<_> = backlog.retries.range((now, Seq::MAX)..).map(|&(_, seq)| seq).collect();
        for seq in later {
            let pending = backlog.order.get(&seq).and_then(|key| self.keys.get_mut(key)?.pending.as_mut());
            if let Some(pending) = pending {
                backlog.unplace(pending);
                pending.due = now;
                backlog.place(pending, Place::Retry);
            }
        }
    }

    /// Ends the queue: what is left is given up, for the cache is shut down. With a journal it is left to that.
    fn close_backlog(&mut self, journaled: bool, wall: Timestamp) -> usize {
        let Some(backlog) = &mut self.backlog else { return 0 };
        backlog.closed = true;
        let left: Vec<_> = backlog.order.values().cloned().collect();
        if !journaled {
            for key in &left {
                self.give_up(key, DeadReason::Shutdown, wall);
            }
        }
        left.len()
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
