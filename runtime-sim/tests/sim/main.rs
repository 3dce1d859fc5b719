//! The simulator does what it says.

#![expect(clippy::unwrap_used, reason = "tests and what they share may panic")]

mod actors;
mod blocking;
mod determinism;
mod faults;
mod life;
mod time;

use std::sync::{Arc, Mutex};

use tierkeep::runtime::RuntimeHandle;
use tierkeep_sim::Sim;

fn handle(sim: &Sim) -> RuntimeHandle {
    RuntimeHandle::new(sim.runtime())
}

/// What happened, in order.
#[derive(Clone)]
struct Log<T>(Arc<Mutex<Vec<T>>>);

impl<T: Clone> Log<T> {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Vec::new())))
    }

    fn push(&self, event: T) {
        self.0.lock().unwrap().push(event);
    }

    fn all(&self) -> Vec<T> {
        self.0.lock().unwrap().clone()
    }
}

/// Lets the other tasks go first, if the seed says so.
async fn step_aside() {
    let mut polled = false;
    std::future::poll_fn(|cx| {
        if polled {
            return std::task::Poll::Ready(());
        }
        polled = true;
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
