//! How a queue stands, and what became of what it accepted.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::super::core::{TierCore, lock};
#[cfg(feature = "disk")]
use crate::write_behind::{JournalReport, JournalStatus};

/// What became of the writes that a tier accepted. `accepted` is the sum of `applied`, `superseded`, `dead` and what is
/// queued, at every moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WriteBehindCounts {
    /// Writes that were acknowledged once they were queued.
    pub accepted: u64,
    /// Writes that the store has confirmed.
    pub applied: u64,
    /// Writes that a newer one of their key, or a clear, has replaced.
    pub superseded: u64,
    /// Writes that went to the dead letters.
    pub dead: u64,
    /// Failed tries of a write on its own.
    pub retries: u64,
    /// Writes that are tried again in a smaller batch, because theirs failed.
    pub splits: u64,
    /// Of the accepted ones, those that an earlier process left in the journal.
    pub recovered: u64,
    /// Writes that found the queue full and were turned away.
    pub rejected: u64,
    /// Writes that found the queue full and waited for room.
    pub blocked: u64,
    /// Writes that found the queue full and were written through.
    pub written_through: u64,
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

impl TierCore {
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

    /// Keys that are pending.
    pub(crate) fn pending(&self) -> usize {
        lock(&self.ledger).backlog.as_ref().map_or(0, |backlog| backlog.order.len())
    }

    /// Whether a write of a new key would find no room.
    pub(crate) fn is_queue_full(&self) -> bool {
        self.behind.is_some() && lock(&self.ledger).backlog.as_ref().is_some_and(|backlog| backlog.is_full())
    }
}
