//! Queueing a dead letter again, under the ledger's lock.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::core::TierCore;
use super::super::message::Change;
use super::entrance::overloaded;
use crate::error::{Error, ErrorKind, Result};
use crate::write_behind::{DeadLetter, Redriven, Written};

impl TierCore {
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
}
