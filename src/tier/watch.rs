//! The deadlines of those who read and write: one timer for all of a tier's readers and one for all who write, not one
//! for each.
//!
//! Those whose calls do not return are rare, and a timer that is set and taken back costs a good part of a read. So the
//! earliest deadline alone is waited for; when it has come, most have long been answered. The timer runs in a task of its
//! own, and finds them in the queue while their calls are on their way: a store that holds up the thread of its call holds
//! up no deadline.

use std::sync::{Arc, Weak};
use std::time::Duration;

use event_listener::EventListener;

use super::core::{TierCore, lock};
use super::message::Overdue;
use super::queue::Job;
use crate::error::{Error, ErrorKind};
use crate::runtime::{Instant, RuntimeHandle};

/// How often those who write are looked at, at most.
const GRAIN: Duration = Duration::from_millis(1);

impl TierCore {
    /// Answers the readers in the queue as their deadlines pass, the first at `at`. Called once
    /// [`Queue::watched`](super::queue::Queue) has been set, until it is taken back.
    pub(super) fn watch_reads(&self, at: Instant) {
        self.watch(Watched::Reads, at);
    }

    /// Queues a job for a call; the deadlines of those who wait for it are watched from here on.
    pub(super) fn push_write(&self, job: Job) {
        let deadline = job.next_deadline();
        let unwatched = {
            let mut queue = lock(&self.queue);
            queue.push_write(job);
            queue.watch_writes(deadline)
        };
        if let Some(deadline) = unwatched {
            self.watch_writes(deadline);
        }
    }

    /// The same for mutations that wait in the queue or in the ledger, and [`Queue::writes_watched`].
    ///
    /// [`Queue::writes_watched`]: super::queue::Queue
    pub(super) fn watch_writes(&self, at: Instant) {
        self.watch(Watched::Writes, at);
    }

    fn watch(&self, watched: Watched, at: Instant) {
        let watch = Watch { core: self.downgrade(), watched, over: false };
        self.runtime.detach(watch.run(self.runtime.clone(), self.gone.listen(), at));
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

    fn expire_writes(self: &Arc<Self>) -> Option<Instant> {
        let mut gone = Vec::new();
        let next = {
            // Both locks, in the one order in which they are ever held together: whoever comes to wait in one of the places
            // is found there, or finds that nobody watches.
            let mut ledger = lock(&self.ledger);
            let mut queue = lock(&self.queue);
            let now = self.runtime.now();
            let waiting = ledger.expire_waiting(now, &mut gone);
            let queued = queue.expire_writes(now, &mut gone);
            let next = waiting.into_iter().chain(queued).min();
            queue.writes_watched = next.is_some();
            next
        };
        if !gone.is_empty() {
            self.answer_overdue(gone);
        }
        // Every look is at all that wait, under the locks.
        next.map(|next| next.max(self.runtime.now().after(GRAIN)))
    }

    /// Settles mutations by quarantine whose deadline has passed, unless they have just been settled otherwise.
    fn answer_overdue(self: &Arc<Self>, gone: Vec<Overdue>) {
        // All of them before anyone is told, who may take their time.
        let replies = self.with_ledger(|ledger, done| {
            let expire = |Overdue { key, stamp, change, open, reply }| {
                if open.is_open() {
                    ledger.expire(&key, (stamp, change), done);
                } else {
                    ledger.dropped.push(change);
                }
                reply
            };
            gone.into_iter().map(expire).collect::<Vec<_>>()
        });
        for reply in replies {
            let _ = reply.send(Err(self.overdue_write()));
        }
    }

    /// What a reader is told whose deadline has passed.
    pub(crate) fn overdue_read(&self) -> Error {
        let millis = self.options.read_deadline.as_millis();
        Error::new(ErrorKind::Timeout, format!("no answer within the read deadline of {millis} ms"))
    }

    /// The same for one who writes.
    pub(crate) fn overdue_write(&self) -> Error {
        let millis = self.options.write_deadline.as_millis();
        Error::new(ErrorKind::Timeout, format!("not confirmed within the write deadline of {millis} ms"))
    }
}

#[derive(Clone, Copy)]
enum Watched {
    Reads,
    Writes,
}

/// Dropped before it is over (its runtime was shut down), it lets the next one begin anew.
struct Watch {
    core: Weak<TierCore>,
    watched: Watched,
    over: bool,
}

impl Watch {
    /// `gone`: told when the tier's core is.
    async fn run(mut self, runtime: RuntimeHandle, mut gone: EventListener, mut at: Instant) {
        while !self.over {
            if runtime.deadline(at, &mut gone).await.is_some() {
                return;
            }
            let Some(core) = self.core.upgrade() else { return };
            let next = match self.watched {
                Watched::Reads => core.expire_reads(),
                Watched::Writes => core.expire_writes(),
            };
            match next {
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
            let mut queue = lock(&core.queue);
            match self.watched {
                Watched::Reads => queue.watched = false,
                Watched::Writes => queue.writes_watched = false,
            }
        }
    }
}
