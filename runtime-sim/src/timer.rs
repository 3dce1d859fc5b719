//! Virtual timers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tierkeep::runtime::Instant;

use crate::core::Core;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimerKey {
    pub(crate) deadline: u64,
    pub(crate) tie: u64,
    pub(crate) id: u64,
}

/// Waits for a deadline. Known to the simulation from its first poll until it fires or is dropped, so a timer that
/// nobody waits for moves no time.
pub(crate) struct Sleep {
    core: Arc<Core>,
    deadline: Instant,
    key: Option<TimerKey>,
}

impl Sleep {
    pub(crate) fn new(core: Arc<Core>, deadline: Instant) -> Self {
        Self { core, deadline, key: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let core = Arc::clone(&self.core);
        let mut state = core.lock();
        if state.now >= self.deadline.as_nanos() {
            drop(state); // before `waker`, whose drop may run anything
            return Poll::Ready(());
        }
        if state.closed {
            drop(state);
            return Poll::Pending;
        }
        let key = match self.key {
            Some(key) => key,
            None => state.timer_key(self.deadline),
        };
        let replaced = state.timers.insert(key, waker);
        drop(state);
        drop(replaced);
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = self.core.lock().timers.remove(&key);
            drop(waker); // after the lock: its drop may run anything
        }
    }
}
