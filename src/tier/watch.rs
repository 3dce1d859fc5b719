//! The deadlines of those who read: one timer for all of a tier's readers, not one for each.
//!
//! Readers whose calls do not return are rare, and a timer that is set and taken back costs a good part of a read. So the
//! earliest deadline alone is waited for; when it has come, most readers have long been answered. The timer runs in a
//! task of its own: a store that holds up the thread of its call holds up no deadline.

use std::sync::Weak;

use super::core::{TierCore, lock};
use crate::error::{Error, ErrorKind};
use crate::runtime::{Instant, RuntimeHandle};

impl TierCore {
    /// Answers the readers in the queue as their deadlines pass, the first at `at`. Called once
    /// [`Queue::watched`](super::queue::Queue) has been set, until it is taken back.
    pub(super) fn watch_reads(&self, at: Instant) {
        let watch = Watch { core: self.downgrade(), over: false };
        self.runtime.detach(watch.run(self.runtime.clone(), at));
    }

    /// Answers those whose deadline has passed. Returns the next deadline; `None`: nobody waits, nor watches.
    fn expire_reads(&self) -> Option<Instant> {
        let mut gone = Vec::new();
        let next = {
            let mut queue = lock(&self.queue);
            let next = queue.expire_reads(self.runtime.now(), &mut gone);
            queue.watched = next.is_some();
            next
        };
        if !gone.is_empty() {
            let overdue = self.overdue_read();
            for reply in gone {
                let _ = reply.send(Err(overdue.clone()));
            }
        }
        next
    }

    /// What a reader is told whose deadline has passed.
    pub(crate) fn overdue_read(&self) -> Error {
        let millis = self.options.read_deadline.as_millis();
        Error::new(ErrorKind::Timeout, format!("no answer within the read deadline of {millis} ms"))
    }
}

/// Dropped before it is over (its runtime was shut down), it lets the next reader begin anew.
struct Watch {
    core: Weak<TierCore>,
    over: bool,
}

impl Watch {
    async fn run(mut self, runtime: RuntimeHandle, mut at: Instant) {
        while !self.over {
            runtime.sleep_until(at).await;
            let Some(core) = self.core.upgrade() else { return };
            match core.expire_reads() {
                Some(next) => at = next,
                // Somebody else may watch by now.
                None => self.over = true,
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(core) = self.core.upgrade().filter(|_| !self.over) {
            lock(&core.queue).watched = false;
        }
    }
}
