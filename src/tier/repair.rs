//! Making a tier good again: quarantined keys are rewritten, missed clears recorded, a bypassed tier cleared.
//!
//! One task per tier, there only while there is something to do; it holds the core weakly, so it never keeps a
//! dropped cache alive.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::call::{CallCount, contained_clear};
use super::core::{TierCore, lock};
use super::quarantine::Repair;
use super::queue::{Job, Work};
use crate::backend::Scope;
use crate::error::ErrorKind;
use crate::key::{CacheKey, KeyPart};
use crate::runtime::{ActorState, jitter};
use crate::value::Stamp;
#[cfg(feature = "backplane")]
use crate::write_behind::DeadReason;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);
/// Past this many clears to catch up on, everything is cleared instead: misses, but bounded.
const MAX_CLEARS: usize = 64;

impl TierCore {
    /// Starts the repair task unless it runs.
    pub(super) fn wake_repair(&self) {
        if !self.repairing.swap(true, Ordering::SeqCst) {
            self.runtime.spawn(run(self.downgrade()));
        }
    }

    /// Whether the repair task has something to do, now or later.
    pub(super) fn needs_repair(&self) -> bool {
        // What an operator holds in bypass is made good when it is let go.
        (self.gate.blocks() && !self.gate.is_held()) || !lock(&self.clears).is_empty()
    }

    /// Sends the repairs that can be sent: into the store's port, or as calls.
    pub(super) async fn send_repairs(self: &Arc<Self>) {
        let mut repairs = lock(&self.ledger).take_repairs(self.options.largest_write());
        if repairs.is_empty() {
            return;
        }
        if self.keep_given_up().await {
            repairs = self.with_ledger(|ledger, _| ledger.still_wanted(repairs));
        }
        for repair in repairs {
            let Repair { attempt, .. } = repair;
            self.carry_out(Job { work: Work::Repair(repair), attempt });
        }
        self.pump();
    }

    /// Keeps a clear that the backend has not recorded.
    pub(crate) fn retry_clear(&self, scope: Scope, stamp: Stamp) {
        {
            let mut clears = lock(&self.clears);
            clears.push((scope, stamp));
            if clears.len() > MAX_CLEARS {
                let newest = clears.iter().map(|(_, stamp)| *stamp).max().unwrap_or(stamp);
                *clears = vec![(Scope::All, newest)];
            }
        }
        self.wake_repair();
    }

    /// Whether nothing that was sent before could still be applied.
    pub(super) fn is_quiet(&self) -> bool {
        let is_writing = || self.port.is_some() && lock(&self.ledger).is_writing();
        self.calls.load(Ordering::SeqCst) == 0 && !lock(&self.queue).has_writes() && !is_writing()
    }
}

#[cfg(feature = "backplane")]
impl TierCore {
    /// Drops everything up to `stamp`. What is on its way here is void: the caller holds the fences.
    pub(crate) async fn drop_all(self: &Arc<Self>, stamp: Stamp) {
        let _count = CallCount::begin(self);
        // What is pending is older than what may have been missed, too: nobody knows that it was superseded.
        let wall = self.runtime.wall();
        self.with_ledger(|ledger, _| ledger.give_up_to(stamp, DeadReason::Unheard, wall));
        let hide = || self.hidden.fetch_max(stamp.time, Ordering::SeqCst);
        if self.port.is_none() {
            // At once, and for good: such a store may take its time, and what it holds outlives the process.
            hide();
        }
        let call = std::panic::AssertUnwindSafe(self.backend.clear(&Scope::All, stamp));
        let call = futures_util::FutureExt::catch_unwind(call);
        let deadline = self.runtime.now().after(self.options.write_deadline);
        if !matches!(self.runtime.deadline(deadline, call).await, Some(Ok(Ok(())))) {
            hide();
        }
    }
}

/// Should the repair task die of a panic, another one takes over.
struct Running(Weak<TierCore>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(core) = self.0.upgrade()
            && std::thread::panicking()
        {
            core.repairing.store(false, Ordering::SeqCst);
            core.wake_repair();
        }
    }
}

async fn run(core: Weak<TierCore>) {
    let _running = Running(Weak::clone(&core));
    loop {
        let (wait, runtime, healed) = {
            let Some(core) = core.upgrade() else { return };
            if core.is_retired() {
                return;
            }
            if !core.needs_repair() {
                core.repairing.store(false, Ordering::SeqCst);
                // Something may have come between the look and the flag.
                if !core.needs_repair() || core.repairing.swap(true, Ordering::SeqCst) {
                    return;
                }
            }
            // A stopped tier's backend is open still: what is left is made good while the shutdown waits for it.
            if matches!(core.health().state, ActorState::Running | ActorState::Stopped) {
                round(&core).await;
            }
            (pause(&core), core.runtime.clone(), core.healed.listen())
        };
        // Whichever comes first: after a long outage the pause is long too.
        let _ = runtime.deadline(runtime.now().after(wait), healed).await;
    }
}

/// The wait before the next round: longer while repairs fail, with jitter so that tiers do not retry in step.
fn pause(core: &TierCore) -> Duration {
    let doublings = core.repair_streak.load(Ordering::Relaxed).min(10);
    jitter(FIRST.saturating_mul(1 << doublings).min(LONGEST), core.runtime.random())
}

async fn round(core: &Arc<TierCore>) {
    if core.repair_failed.swap(false, Ordering::Relaxed) {
        core.repair_streak.fetch_add(1, Ordering::Relaxed);
    }
    if core.is_bypassed() && !core.is_held() {
        if core.is_quiet() && !recover(core).await {
            core.repair_streak.fetch_add(1, Ordering::Relaxed);
        }
        return;
    }
    if !core.is_bypassed() {
        core.send_repairs().await;
    }
    let clear = lock(&core.clears).first().cloned();
    if let Some((scope, stamp)) = clear {
        let ok = clear_in_time(core, &scope, stamp).await;
        if ok {
            lock(&core.clears).retain(|known| *known != (scope.clone(), stamp));
            core.repair_streak.store(0, Ordering::Relaxed);
        } else {
            core.repair_streak.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Clears a bypassed tier and lets it serve again. Nothing that was sent before is still on its way.
async fn recover(core: &Arc<TierCore>) -> bool {
    if core.options.read_only {
        // It missed nothing: what may no longer be shown was noted all the while.
        return answers(core).await && {
            core.lift_bypass(Stamp::ZERO);
            true
        };
    }
    let mut stamp = core.order.clock.mint(core.runtime.wall());
    // The number itself is kept for what is pending, which is written after this and has to show.
    stamp.time -= 1;
    if !clear_in_time(core, &Scope::All, stamp).await || !answers(core).await {
        return false;
    }
    // One that came meanwhile may be newer than what has just been cleared.
    lock(&core.clears).retain(|(_, missed)| *missed > stamp);
    core.repair_streak.store(0, Ordering::Relaxed);
    core.lift_bypass(stamp);
    true
}

async fn clear_in_time(core: &Arc<TierCore>, scope: &Scope, stamp: Stamp) -> bool {
    let _count = CallCount::begin(core);
    let deadline = core.runtime.now().after(core.options.write_deadline);
    matches!(core.runtime.deadline(deadline, contained_clear(core, scope, stamp)).await, Some(Ok(())))
}

/// Whether the backend answers a read. A backend that cannot clear has said nothing yet.
async fn answers(core: &Arc<TierCore>) -> bool {
    let _count = CallCount::begin(core);
    let key = [CacheKey::new("tierkeep", 0, [KeyPart::flag("probe")])];
    let deadline = core.runtime.now().after(core.options.read_deadline);
    let call =
        futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(core.backend.read_entries(&key)));
    match core.runtime.deadline(deadline, call).await {
        Some(Ok(results)) => results.iter().all(|r| r.as_ref().is_ok_and(|_| true) || unsupported(r)),
        _ => false,
    }
}

fn unsupported<T>(result: &crate::error::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unsupported)
}
