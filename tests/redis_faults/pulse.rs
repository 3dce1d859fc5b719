//! How late the runtime's own timers are: what a call may be late by, on a machine that has much else to do.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tierkeep::runtime::{Instant, RuntimeHandle};

const TICK: Duration = Duration::from_millis(10);

/// What timers are late by anywhere: they count milliseconds.
const GRAIN: Duration = Duration::from_millis(2);

/// A timer of the same runtime, beside the calls.
#[derive(Debug)]
pub(crate) struct Pulse {
    state: Mutex<State>,
    stopped: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// By how much all ticks so far were late together.
    late: Duration,
    /// When the next one is due.
    due: Instant,
}

impl Pulse {
    pub(crate) fn new(runtime: &RuntimeHandle) -> Self {
        let state = State { late: Duration::ZERO, due: runtime.now().after(TICK) };
        Self { state: Mutex::new(state), stopped: AtomicBool::new(false) }
    }

    /// Ticks until it is stopped.
    pub(crate) async fn beat(&self, runtime: &RuntimeHandle) {
        while !self.stopped.load(Ordering::Relaxed) {
            let due = {
                let mut state = self.state.lock().unwrap();
                state.due = runtime.now().after(TICK);
                state.due
            };
            runtime.sleep_until(due).await;
            self.state.lock().unwrap().late += runtime.now().since(due.after(GRAIN));
        }
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// By how much all ticks were late by now, one that is overdue included.
    pub(crate) fn late(&self, now: Instant) -> Duration {
        let state = self.state.lock().unwrap();
        state.late + now.since(state.due.after(GRAIN))
    }
}
