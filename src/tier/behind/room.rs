//! Who waits for room in a full queue: first come, first served.
//!
//! Nobody is passed by somebody who came later and needs less room: what is large would wait for as long as small ones
//! come. Whoever leaves the line, served or not, hands the turn on, so everybody waits for those before him and for room,
//! and for nothing else. One whose caller does not poll it any more holds the others up to the end of its own patience,
//! and no longer.

use std::collections::BTreeMap;
use std::sync::Arc;

use event_listener::Event;

use super::super::core::{TierCore, lock};
use super::super::message::Mutation;
use super::accept::Tried;
use crate::runtime::Instant;

/// A place in the line: earlier ones are lower.
pub(super) type Ticket = u64;

/// Those who wait for room, under the ledger's lock.
#[derive(Default)]
pub(super) struct Line {
    next: Ticket,
    waiting: BTreeMap<Ticket, (Instant, Arc<Event>)>,
}

impl Line {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether somebody comes before the one with this ticket, or before one without any. Those whose patience has ended
    /// by `now` have left.
    pub(super) fn is_behind(&mut self, own: Option<Ticket>, now: Instant) -> bool {
        while let Some(first) = self.waiting.first_entry().filter(|first| first.get().0 <= now) {
            first.remove();
        }
        self.waiting.first_key_value().is_some_and(|(&first, _)| Some(first) != own)
    }

    /// Tells the first one to look for room.
    pub(super) fn first(&self) -> Option<Arc<Event>> {
        self.waiting.first_key_value().map(|(_, (_, turn))| Arc::clone(turn))
    }

    /// Tells all of them: there is nothing to wait for any more.
    pub(super) fn all(&self) -> Vec<Arc<Event>> {
        self.waiting.values().map(|(_, turn)| Arc::clone(turn)).collect()
    }

    fn join(&mut self, until: Instant) -> (Ticket, Arc<Event>) {
        self.next += 1;
        let turn = Arc::new(Event::new());
        self.waiting.insert(self.next, (until, Arc::clone(&turn)));
        (self.next, turn)
    }
}

/// Somebody's place in the line.
struct Waiter {
    core: Arc<TierCore>,
    ticket: Ticket,
    until: Instant,
    /// Told when there may be room and nobody comes before.
    turn: Arc<Event>,
}

impl Waiter {
    fn join(core: &Arc<TierCore>, until: Instant) -> Option<Self> {
        let (ticket, turn) = lock(&core.ledger).backlog.as_mut()?.line.join(until);
        // Nothing waits for its delay any more.
        core.wake_behind();
        Some(Self { core: Arc::clone(core), ticket, until, turn })
    }

    /// When to look again at the latest: when the first one's patience ends, which it may not say itself.
    fn look(&self) -> Instant {
        let ledger = lock(&self.core.ledger);
        let first = ledger.backlog.as_ref().and_then(|backlog| backlog.line.waiting.first_key_value());
        first.map_or(self.until, |(_, &(until, _))| until.min(self.until))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let first = lock(&self.core.ledger).backlog.as_mut().and_then(|backlog| {
            backlog.line.waiting.remove(&self.ticket);
            backlog.line.first()
        });
        if let Some(turn) = first {
            turn.notify(1);
        }
    }
}

/// Waits until the queue takes the mutation in, or turns it away. Dropped with its caller, the mutation is settled as any
/// that is given up.
pub(super) async fn wait_for_room(core: Arc<TierCore>, mutation: Mutation, until: Instant) {
    let Some(waiter) = Waiter::join(&core, until) else { return };
    let mut mutation = mutation;
    loop {
        let turn = waiter.turn.listen();
        match core.try_accept(mutation, Some(waiter.ticket)) {
            Tried::Settled => return,
            Tried::Writing(finished, written) => {
                drop(waiter);
                return finished.answer_after(written.await);
            }
            Tried::Full(full) => mutation = full,
        }
        let told = core.runtime.deadline(waiter.look(), turn).await.is_some();
        if !told && core.runtime.now() >= until {
            return core.turn_away(mutation);
        }
    }
}
