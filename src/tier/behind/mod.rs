//! The queue of a write-behind tier: taking mutations in, and bringing them to the store.
//!
//! A mutation is taken in its caller's own task, under the ledger's lock, without a message ([`accept`]). From then on it
//! is a *pending change*: what its key shows until the store has confirmed it. A pending change is settled when it is
//! accepted, for every read of the tier asks for it before the store. The rules:
//!
//! 1. Of several changes of a key only the newest is pending. The one it replaces is superseded, though an attempt with it
//!    may be on its way.
//! 2. It is sent only when no other attempt of its key is out, and none that timed out may still be applied: an older one
//!    would undo it after it was confirmed, and nothing would show it any more.
//! 3. It stands in the place of a quarantine: one is lifted when a newer change is accepted (its late attempts are waited
//!    for all the same), and a change that was not confirmed and is older than the pending one needs none. A newer one
//!    that was not confirmed quarantines the key before it (see [`quarantine`](super::quarantine)).
//! 4. A change that is given up quarantines its key: what it should have replaced must not come back.
//!
//! What is a matter of keys is the ledger's, under its lock: [`entrance`], [`pending`], [`attempts`], [`given_up`], with the
//! [`backlog`] as the order in which they go. What is done under no lock is the core's: [`accept`], [`room`] for those who
//! wait, [`send`] and its [`task`], [`drain`].

mod accept;
mod attempts;
mod backlog;
mod drain;
mod entrance;
mod given_up;
mod inspect;
mod journal;
mod pending;
mod redrive;
mod room;
mod send;
mod task;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use event_listener::Event;

pub(crate) use accept::Accepting;
pub(super) use attempts::Sending;
pub(super) use backlog::Backlog;
use backlog::Effects;
pub use inspect::{WriteBehindCounts, WriteBehindInspection};
pub(super) use pending::Pending;

use super::core::{TierCore, lock};
use crate::observe::{EventKind, Outbox};
use crate::runtime::{Instant, RuntimeHandle};
use crate::value::Timestamp;
use crate::write_behind::{Keeper, Letters, WriteBehindOptions};

/// What a write-behind tier has beside its ledger.
pub(crate) struct Behind {
    pub(crate) options: WriteBehindOptions,
    pub(crate) letters: Arc<Letters>,
    pub(crate) keeper: Arc<Keeper>,
    /// Told when there is something to send.
    wake: Event,
    /// Told when something left the queue, for those who wait for the end.
    left: Event,
    /// Whether the task runs.
    running: AtomicBool,
    /// Who wants everything sent at once: flushes, and the shutdown.
    hurry: AtomicUsize,
    /// Until when the breaker turns calls away, in ns.
    paused: AtomicU64,
    /// Whether it was told that the queue is full, and not yet that it is empty.
    full: AtomicBool,
}

/// When something happens, by both clocks.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    pub(super) wall: Timestamp,
    /// 64 random bits.
    pub(super) random: u64,
}

impl Behind {
    pub(super) fn new(options: WriteBehindOptions, runtime: &RuntimeHandle, outbox: &Arc<Outbox>) -> Self {
        let keeper = Arc::default();
        Self {
            letters: Letters::new(&options, runtime, outbox, &keeper),
            keeper,
            options,
            wake: Event::new(),
            left: Event::new(),
            running: AtomicBool::new(false),
            hurry: AtomicUsize::new(0),
            paused: AtomicU64::new(0),
            full: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_journaled(&self) -> bool {
        self.options.is_journaled()
    }
}

impl TierCore {
    pub(super) fn moment(&self) -> Moment {
        Moment { now: self.runtime.now(), wall: self.runtime.wall(), random: self.runtime.random() }
    }

    /// Does what follows from a change of the queue. Under no lock.
    pub(super) fn follow(&self, effects: Effects) {
        let Some(behind) = &self.behind else { return };
        let Effects { letters, settled, left, room, wake, drained } = effects;
        if drained && behind.full.swap(false, Ordering::Relaxed) {
            self.tell(EventKind::QueueDrained);
        }
        for (key, stamp) in &settled {
            behind.keeper.settled(key, *stamp);
        }
        if left {
            behind.left.notify(usize::MAX);
        }
        if room {
            self.tell_first();
        }
        behind.letters.post(letters);
        if wake {
            self.wake_behind();
        }
    }

    /// Has the first one who waits for room look for it.
    fn tell_first(&self) {
        let first = lock(&self.ledger).backlog.as_ref().and_then(|backlog| backlog.line.first());
        if let Some(turn) = first {
            turn.notify(1);
        }
    }
}
