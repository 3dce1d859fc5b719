//! Ending a cache: in order, within a deadline, with a report.

use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;

use super::engine::Engine;
use super::route::RouteTier;
use crate::runtime::Instant;
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
    /// Whether what the tier confirmed is durable, as far as its store can make it so.
    pub flushed: bool,
    /// Why it was not flushed.
    pub error: Option<String>,
}

impl Engine {
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
        let (flushed, error) = match self.runtime.deadline(deadline, core.flush()).await {
            Some(Ok(())) => (true, None),
            Some(Err(error)) => (false, Some(error.to_string())),
            None => (false, Some("the deadline passed".to_owned())),
        };
        core.retire();
        TierShutdown {
            label: core.label.clone(),
            unanswered: tier.address.len() + core.queued(),
            stuck_calls: core.calls(),
            quarantined: core.quarantined(),
            flushed,
            error,
        }
    }
}

impl TierShutdown {
    fn is_clean(&self) -> bool {
        self.unanswered == 0 && self.stuck_calls == 0 && self.quarantined == 0 && self.flushed
    }
}
