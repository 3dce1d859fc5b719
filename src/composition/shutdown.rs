//! Ending a cache: in order, within a deadline, with a report.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;

use super::engine::Engine;
use super::route::RouteTier;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::Instant;
use crate::tier::TierCore;
use crate::value::BackendLabel;

/// How often the drain is looked at: it has no event of its own.
const POLL: Duration = Duration::from_millis(2);

/// What became of what was under way when the cache was shut down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Whether everything was finished and flushed within the deadline.
    pub clean: bool,
    /// How long it took.
    pub elapsed: Duration,
    /// Refills that were dropped.
    pub refills_dropped: u64,
    /// The tiers, topmost first.
    pub tiers: Vec<TierShutdown>,
}

/// How one tier ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TierShutdown {
    /// The tier.
    pub label: BackendLabel,
    /// Operations that were queued and have not been answered by the tier.
    pub unanswered: usize,
    /// Calls that have not returned: stuck jobs among them keep their threads.
    pub stuck_calls: usize,
    /// Keys whose last change the tier has not confirmed: it may still hold what came before.
    pub quarantined: usize,
    /// What became of the writes that it had accepted, if it writes behind.
    pub write_behind: Option<WriteBehindShutdown>,
    /// Whether what the tier confirmed is durable, as far as its store can make it so.
    pub flushed: bool,
    /// Why it was not flushed.
    pub error: Option<String>,
}

/// What became of the writes that a write-behind tier accepted in its life. The sum of `applied`, `superseded`, `dead`
/// and `left_in_journal` is `accepted`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WriteBehindShutdown {
    /// Writes that were acknowledged once they were queued.
    pub accepted: u64,
    /// Writes that the store has confirmed.
    pub applied: u64,
    /// Writes that a newer one of their key, or a clear, has replaced.
    pub superseded: u64,
    /// Writes that went to the dead letters, the `lost` ones among them.
    pub dead: u64,
    /// Writes that the journal keeps, to be taken up again by the next process.
    pub left_in_journal: u64,
    /// Writes that were still queued, without a journal: they went to the dead letters with the reason "shutdown".
    pub lost: u64,
    /// Dead letters that their sink has not taken.
    pub letters_undelivered: u64,
}

impl Engine {
    /// Waits until what was accepted by now has left the write-behind queues, then flushes the stores.
    pub(crate) async fn flush(&self, within: Duration) -> Result<()> {
        self.check_open()?;
        let deadline = self.runtime.now().after(within);
        let route = self.route.load_full();
        let flushed = join_all(route.written.iter().map(|tier| self.flush_tier(tier, deadline))).await;
        flushed.into_iter().collect()
    }

    async fn flush_tier(&self, tier: &RouteTier, deadline: Instant) -> Result<()> {
        let core = &tier.core;
        let flushed = async {
            // First: should the store be away, what is queued is durable at least.
            if let Some(synced) = core.behind.as_ref().and_then(|behind| behind.keeper.sync()) {
                synced.await?;
            }
            core.drain_behind().await;
            core.flush().await
        };
        let flushed = self.runtime.deadline(deadline, flushed).await.unwrap_or_else(|| {
            let message = match core.pending() {
                0 => "the store was not flushed in time".to_owned(),
                left => format!("{left} writes are still queued: the store is slower than them, or away"),
            };
            Err(Error::new(ErrorKind::Timeout, message))
        });
        flushed.map_err(|error| error.at_tier(&core.label))
    }

    /// Refuses new calls, drops refills, lets the tiers finish what is queued, flushes and stops them.
    pub(crate) async fn shutdown(&self, within: Duration) -> ShutdownReport {
        let began = self.runtime.now();
        let deadline = began.after(within);
        self.close();
        let refills_dropped = self.lane.len() as u64;
        self.lane.kill();
        let route = self.route.load_full();
        let tiers = join_all(route.tiers.iter().map(|tier| self.stop_tier(tier, deadline))).await;
        #[cfg(feature = "backplane")]
        if let Some(link) = &self.link {
            // After the last confirmation.
            link.leave(&self.runtime, deadline).await;
        }
        self.supervisor.stop();
        let _ = self.runtime.deadline(deadline, self.supervisor.stopped()).await;
        self.telling.meter.publish(self);
        self.telling.events.close();
        ShutdownReport {
            clean: tiers.iter().all(TierShutdown::is_clean),
            elapsed: self.runtime.now().since(began),
            refills_dropped,
            tiers,
        }
    }

    async fn stop_tier(&self, tier: &RouteTier, deadline: Instant) -> TierShutdown {
        let core = &tier.core;
        // While its actor lives, which may open what is broken. Something of the time is left for what follows.
        core.hasten_behind();
        let drained = self.runtime.deadline(before(deadline, self.runtime.now()), core.drain_behind());
        if !core.leaves_to_journal() {
            let _ = drained.await;
        }
        // Now, so that dead letters have the rest of the time to be delivered.
        let left = core.close_behind() as u64;
        tier.address.stop();
        let stopped = self.runtime.deadline(deadline, tier.address.stopped()).await;
        if stopped.is_none() {
            tier.address.kill();
        }
        // The actor has handed everything to the core; calls and repairs finish on their own.
        while !core.is_idle() && self.runtime.now() < deadline {
            core.pump();
            self.runtime.sleep(POLL).await;
        }
        let letters = core.behind.as_ref().map(|behind| Arc::clone(&behind.letters));
        if let Some(letters) = letters {
            let _ = self.runtime.deadline(deadline, letters.settled()).await;
        }
        let closed = match &core.behind {
            Some(behind) => self.runtime.deadline(deadline, behind.keeper.close()).await,
            None => Some(Ok(())),
        };
        let (flushed, error) = match self.runtime.deadline(deadline, core.flush()).await {
            Some(Ok(())) => (true, None),
            Some(Err(error)) => (false, Some(error.to_string())),
            None => (false, Some("the deadline passed".to_owned())),
        };
        let (flushed, error) = match closed {
            Some(Ok(())) => (flushed, error),
            Some(Err(error)) => (false, Some(error.to_string())),
            None => (false, Some("the journal was not closed in time".to_owned())),
        };
        core.retire();
        TierShutdown {
            label: core.label.clone(),
            unanswered: tier.address.len() + core.queued(),
            stuck_calls: core.calls(),
            quarantined: core.quarantined(),
            write_behind: ended(core, left),
            flushed,
            error,
        }
    }
}

/// How long before `deadline` a queue is given up, so that there is time to say so.
fn before(deadline: Instant, now: Instant) -> Instant {
    let left = deadline.since(now);
    now.after(left - left / 8)
}

fn ended(core: &TierCore, left: u64) -> Option<WriteBehindShutdown> {
    let (behind, inspection) = (core.behind.as_ref()?, core.inspect_behind()?);
    let counts = inspection.counts;
    let journaled = behind.is_journaled();
    Some(WriteBehindShutdown {
        accepted: counts.accepted,
        applied: counts.applied,
        superseded: counts.superseded,
        dead: counts.dead,
        // What was sent already may have been confirmed since.
        left_in_journal: if journaled { core.pending() as u64 } else { 0 },
        lost: if journaled { 0 } else { left },
        letters_undelivered: inspection.letters_undelivered + inspection.letters_waiting as u64,
    })
}

impl TierShutdown {
    fn is_clean(&self) -> bool {
        let applied = self
            .write_behind
            .is_none_or(|behind| behind.lost + behind.left_in_journal + behind.letters_undelivered == 0);
        self.unanswered == 0 && self.stuck_calls == 0 && self.quarantined == 0 && self.flushed && applied
    }
}
