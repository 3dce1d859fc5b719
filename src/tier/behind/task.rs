//! The task that watches the time for a queue: one per tier, there only while something is pending. It holds the core
//! weakly.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::core::{TierCore, lock};
use crate::runtime::Instant;

/// How soon the task looks again where nothing tells it: a tier that is stuck, say.
const LOOK: Duration = Duration::from_secs(1);

impl TierCore {
    /// Has the task look at the queue, and starts it unless it runs.
    pub(crate) fn wake_behind(&self) {
        let Some(behind) = &self.behind else { return };
        behind.wake.notify(usize::MAX);
        if self.pending() > 0 && !self.is_retired() && !behind.running.swap(true, Ordering::SeqCst) {
            // Made here: the task may be dropped without a turn.
            self.runtime.spawn(run(Running { core: self.downgrade(), ended: false, working: false }));
        }
    }

    /// Until when the task may sleep, unless it is woken.
    fn drain_wait(&self) -> Instant {
        let now = self.runtime.now();
        let Some(behind) = &self.behind else { return now.after(LOOK) };
        let hurry = behind.hurry.load(Ordering::Relaxed) > 0;
        let (due, aged) = {
            let ledger = lock(&self.ledger);
            (ledger.next_due(hurry), ledger.backlog.as_ref().and_then(|backlog| backlog.next_aged(now)))
        };
        let until = match due {
            Some(due) if due > now => due,
            // Due, and yet not sent: the breaker says until when, or a call that returns wakes it.
            Some(_) => {
                let paused = Instant::from_nanos(behind.paused.load(Ordering::Relaxed));
                if paused > now { paused.min(now.after(LOOK)) } else { now.after(LOOK) }
            }
            None => now.after(LOOK),
        };
        aged.map_or(until, |aged| until.min(aged))
    }
}

/// Should the task die of a panic, another one takes over. Should its runtime drop it, the next write starts another.
struct Running {
    core: Weak<TierCore>,
    /// It ended by itself, and has said so.
    ended: bool,
    /// It has its turn: if it is dropped now, it has panicked.
    working: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Some(core) = self.core.upgrade()
            && let Some(behind) = &core.behind
        {
            behind.running.store(false, Ordering::SeqCst);
            // Not where the runtime has dropped it, perhaps in a panic of its own: it would drop the next one as well.
            if self.working {
                core.wake_behind();
            }
        }
    }
}

async fn run(mut running: Running) {
    loop {
        let (runtime, until, wake) = {
            let Some(core) = running.core.upgrade() else { return };
            let Some(behind) = &core.behind else { return };
            let wake = behind.wake.listen();
            if core.pending() == 0 || core.is_retired() {
                behind.running.store(false, Ordering::SeqCst);
                // Something may have come between the look and the flag.
                let none = core.pending() == 0 || core.is_retired();
                if none || behind.running.swap(true, Ordering::SeqCst) {
                    running.ended = true;
                    return;
                }
            }
            running.working = true;
            core.give_up_aged();
            core.pump();
            running.working = false;
            (core.runtime.clone(), core.drain_wait(), wake)
        };
        let _ = runtime.deadline(until, wake).await;
    }
}
