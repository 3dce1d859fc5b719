//! How a tier fares: what `inspect()` and the supervisor ask.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use futures_util::FutureExt;

use super::breaker::Breaker;
use super::core::{TierCore, backend_panic, lock};
use super::counters::Counters;
use crate::backend::{Backend, Usage};
use crate::error::{Error, Result};
use crate::runtime::{ActorState, panic_message};
use crate::value::Timestamp;

/// How the tier's actor fares.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    pub(crate) state: ActorState,
    pub(crate) restarts: u64,
    pub(crate) last_error: Option<Error>,
    /// Why a call to its backend failed last.
    pub(crate) last_failure: Option<Error>,
}

impl TierCore {
    pub(crate) fn health(&self) -> Health {
        lock(&self.health).clone()
    }

    pub(crate) fn set_health(&self, change: impl FnOnce(&mut Health)) {
        change(&mut lock(&self.health));
    }

    pub(crate) fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Keys in quarantine.
    pub(crate) fn quarantined(&self) -> usize {
        lock(&self.ledger).quarantined
    }

    /// Keys the ledger knows of.
    pub(crate) fn ledger_keys(&self) -> usize {
        lock(&self.ledger).keys.len()
    }

    /// Operations drained from the mailbox that wait for a call.
    pub(crate) fn queued(&self) -> usize {
        lock(&self.queue).len()
    }

    /// Calls that have not returned.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Whether nothing is queued or in flight and nothing waits to be made good.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_quiet() && self.queued() == 0 && !self.needs_repair()
    }

    /// Makes what the backend acknowledged durable.
    pub(crate) async fn flush(&self) -> Result<()> {
        if self.options.read_only {
            return Ok(());
        }
        match AssertUnwindSafe(self.backend.flush()).catch_unwind().await {
            Ok(result) => result,
            Err(panic) => Err(backend_panic(&panic_message(&*panic))),
        }
    }

    /// Deletes a bounded number of expired entries; returns how many.
    pub(crate) fn sweep(&self, now: Timestamp) -> usize {
        let swept = self.asked(0, |backend| backend.sweep(now));
        Counters::add(&self.counters.swept, swept as u64);
        swept
    }

    /// What the backend's store holds, as far as it says.
    pub(crate) fn usage(&self) -> Usage {
        self.asked(Usage::default(), |backend| backend.usage())
    }

    /// Jobs of the backend that run on the blocking pool.
    pub(crate) fn running_jobs(&self) -> usize {
        self.asked(0, |backend| backend.running_jobs())
    }

    /// Asks the backend something that it answers at once; `default` if it panics.
    fn asked<R>(&self, default: R, question: impl FnOnce(&dyn Backend) -> R) -> R {
        catch_unwind(AssertUnwindSafe(|| question(&*self.backend))).unwrap_or_else(|panic| {
            let error = backend_panic(&panic_message(&*panic));
            self.set_health(|health| health.last_failure = Some(error));
            default
        })
    }
}
