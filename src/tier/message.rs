//! What a tier actor is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_channel::oneshot;

use super::core::TierCore;
use crate::backend::Scope;
use crate::error::{Error, ErrorKind, Result};
use crate::key::CacheKey;
use crate::observe::trace::Caller;
use crate::order::{ClearWrite, Fence, Fences, Write};
use crate::planted::{Plant, planted};
use crate::runtime::Instant;
use crate::runtime::host::drop_quietly;
use crate::value::{DeleteStatus, Entry, Stamp};

/// The messages of a tier actor.
pub(crate) enum Message {
    Read(ReadOp),
    Mutate(Mutation),
    Fill(Fill),
    Clear(ClearOp),
    /// Deletes a bounded number of expired entries.
    Sweep,
    /// Panics, so that tests can kill an incarnation at this point of its mailbox.
    #[cfg(feature = "testing")]
    Crash,
}

/// What a reader waits for.
pub(crate) type ReadAnswer = oneshot::Receiver<Result<Option<Entry>>>;

/// Asks for one entry. Dropped unanswered, it answers [`ErrorKind::Restarted`].
pub(crate) struct ReadOp {
    pub(crate) key: CacheKey,
    /// When its caller gives up.
    pub(crate) deadline: Instant,
    pub(crate) caller: Caller,
    reply: Option<oneshot::Sender<Result<Option<Entry>>>>,
}

impl ReadOp {
    pub(crate) fn new(key: CacheKey, deadline: Instant) -> (Self, ReadAnswer) {
        let (reply, answer) = oneshot::channel();
        (Self { key, deadline, caller: Caller::here(), reply: Some(reply) }, answer)
    }

    /// Whether the caller has gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_canceled)
    }

    /// Takes the caller's ear, if the deadline has passed: nobody waits from here on.
    pub(super) fn expire(&mut self, now: Instant) -> Option<oneshot::Sender<Result<Option<Entry>>>> {
        if now < self.deadline { None } else { self.reply.take() }
    }

    pub(crate) fn answer(mut self, result: Result<Option<Entry>>) {
        if let Some(reply) = self.reply.take() {
            // The caller may have gone.
            let _ = reply.send(result);
        }
    }
}

impl Drop for ReadOp {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(Err(Error::new(ErrorKind::Restarted, "the tier was restarted; read again")));
        }
    }
}

/// What a mutation does at a tier.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Set(Entry),
    Remove,
}

impl Change {
    /// The bytes it holds while it waits.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Set(entry) => entry.payload.weight(),
            Self::Remove => 0,
        }
    }
}

/// How a mutation was settled at a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settlement {
    Applied,
    Removed(DeleteStatus),
    /// A newer one is settled there.
    Superseded,
    /// Queued, and shown from there, in a write-behind tier; `held`: a live value of the key was queued before.
    Queued {
        held: bool,
    },
    /// The store holds a newer entry, written by another process.
    Outdated,
}

/// The answer to a mutation. An error means: not confirmed, and the key is quarantined at the tier.
pub(crate) type Settled = Result<Settlement>;

/// A mutation at one tier, from its announcement on. It settles in every case: dropped before it is settled (with a
/// mailbox, a crashed incarnation, a cancelled caller), it quarantines its key.
pub(crate) struct Mutation {
    /// Its fences' stripe is held until this is dropped.
    pub(crate) core: Arc<TierCore>,
    key: CacheKey,
    stamp: Stamp,
    pub(crate) change: Change,
    pub(crate) deadline: Instant,
    /// Whether the tier looks after its deadline, and nobody else (see [`watch`](super::watch)).
    watched: bool,
    pub(crate) caller: Caller,
    /// Older mutations of the key that were overtaken while they waited: they settle with this one, not before.
    pub(crate) overtaken: Vec<Mutation>,
    reply: Option<oneshot::Sender<Settled>>,
    pub(crate) open: Open,
}

/// Whether the ledger still counts a mutation. Changed under its lock only, so that a deadline that passes as the
/// mutation settles cannot settle it a second time, over what came after it.
#[derive(Debug)]
pub(crate) enum Open {
    /// Nobody else asks: mostly, so that nothing is allocated.
    Own(bool),
    Shared(Arc<AtomicBool>),
}

impl Open {
    /// The same, for somebody else who may ask.
    pub(crate) fn share(&mut self) -> Self {
        let shared = match self {
            Self::Own(open) => Arc::new(AtomicBool::new(*open)),
            Self::Shared(shared) => Arc::clone(shared),
        };
        *self = Self::Shared(Arc::clone(&shared));
        Self::Shared(shared)
    }

    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Own(open) => *open,
            Self::Shared(open) => open.load(Ordering::Relaxed),
        }
    }

    pub(super) fn close(&mut self) {
        match self {
            Self::Own(open) => *open = false,
            Self::Shared(open) => open.store(false, Ordering::Relaxed),
        }
    }
}

impl Mutation {
    /// Call after [`TierCore::announce`] for the same key.
    pub(crate) fn new(
        core: &Arc<TierCore>,
        write: &Write<'_>,
        change: Change,
        deadline: Instant,
    ) -> (Self, oneshot::Receiver<Settled>) {
        core.minted(write.key, write.stamp);
        let (reply, answer) = oneshot::channel();
        let caller = Caller::here();
        core.order.fences.hold(write.key.hash_u64());
        let mutation = Self {
            core: Arc::clone(core),
            key: write.key.clone(),
            stamp: write.stamp,
            change,
            deadline,
            watched: false,
            caller,
            overtaken: Vec::new(),
            reply: Some(reply),
            open: Open::Own(true),
        };
        (mutation, answer)
    }

    /// Leaves its deadline to the tier.
    pub(super) fn watch(&mut self) {
        self.watched = true;
    }

    /// Whether somebody waits who will not look at the clock.
    fn is_watched(&self) -> bool {
        self.watched && self.reply.as_ref().is_some_and(|reply| !reply.is_canceled())
    }

    /// The next deadline that the tier has to look after, of this one and of those that it overtook.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let overtaken = self.overtaken.iter().filter_map(Self::next_deadline);
        overtaken.chain(self.is_watched().then_some(self.deadline)).min()
    }

    /// Gives up those who wait for it, or for one that it overtook, and whose deadline has passed. Returns the next
    /// deadline of the others.
    pub(super) fn give_up(&mut self, now: Instant, gone: &mut Vec<Overdue>) -> Option<Instant> {
        let overtaken = self.overtaken.iter_mut().filter_map(|mutation| mutation.give_up(now, gone)).min();
        if !self.is_watched() {
            return overtaken;
        }
        if now < self.deadline {
            return Some(overtaken.map_or(self.deadline, |at| at.min(self.deadline)));
        }
        let (key, stamp, change) = (self.key().clone(), self.stamp(), self.change.clone());
        let open = self.open.share();
        gone.extend(self.reply.take().map(|reply| Overdue { key, stamp, change, open, reply }));
        overtaken
    }

    pub(crate) fn key(&self) -> &CacheKey {
        &self.key
    }

    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }
}

/// A mutation whose deadline has passed, for which nobody waits from here on.
pub(super) struct Overdue {
    pub(super) key: CacheKey,
    pub(super) stamp: Stamp,
    pub(super) change: Change,
    pub(super) open: Open,
    pub(super) reply: oneshot::Sender<Settled>,
}

impl Drop for Mutation {
    fn drop(&mut self) {
        let hash = self.key.hash_u64();
        if !self.open.is_open() {
            return self.core.order.fences.release(hash);
        }
        let core = Arc::clone(&self.core);
        // Last of all, and whatever happens.
        let _held = Held(&core.order.fences, hash);
        if planted(Plant::LostOnRestart) {
            core.forget(&self.key);
        } else {
            core.lost(self);
        }
    }
}

/// A stripe that a mutation holds, and releases on drop.
struct Held<'a>(&'a Fences, u64);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.release(self.1);
    }
}

/// A mutation that the ledger has let go of, to be answered outside its lock.
pub(crate) struct Finished {
    mutation: Mutation,
    result: Settled,
}

impl Finished {
    pub(super) fn new(mutation: Mutation, result: Settled) -> Self {
        debug_assert!(!mutation.open.is_open(), "the ledger lets go first");
        Self { mutation, result }
    }

    pub(super) fn result(&self) -> &Settled {
        &self.result
    }

    /// As [`answer`](Self::answer), with an error if what was to come first has failed.
    pub(super) fn answer_after(mut self, first: Result<()>) {
        if let Err(error) = first {
            self.result = Err(error);
        }
        self.answer();
    }

    pub(crate) fn answer(self) {
        let Self { mut mutation, result } = self;
        let reply = mutation.reply.take();
        // The stripe is released before the caller hears, so that its next read can already refill.
        drop_quietly(mutation);
        if let Some(reply) = reply {
            let _ = reply.send(result);
        }
    }
}

/// Writes a value that was read below or loaded, unless its fence is void by then.
pub(crate) struct Fill {
    pub(crate) key: CacheKey,
    pub(crate) entry: Entry,
    pub(crate) fence: Fence,
    /// Answered (or dropped) when the fill is done or given up.
    pub(crate) done: Option<oneshot::Sender<()>>,
}

/// Clears a scope. Dropped before a call took it over (with a mailbox, or by a caller that went away), it is kept by
/// the tier and recorded later.
pub(crate) struct ClearOp {
    core: Arc<TierCore>,
    pub(crate) scope: Scope,
    pub(crate) stamp: Stamp,
    /// `None` once a call has taken it over.
    pending: Option<(Arc<ClearWrite>, oneshot::Sender<Result<()>>)>,
}

impl ClearOp {
    pub(crate) fn new(
        core: &Arc<TierCore>,
        clear: &Arc<ClearWrite>,
    ) -> (Self, oneshot::Receiver<Result<()>>) {
        let (reply, answer) = oneshot::channel();
        let (scope, stamp) = (clear.scope.clone(), clear.stamp);
        let pending = Some((Arc::clone(clear), reply));
        (Self { core: Arc::clone(core), scope, stamp, pending }, answer)
    }

    /// The clear is done, or is kept elsewhere until it is: moves fences on and answers.
    pub(crate) fn answer(mut self, result: Result<()>) {
        if let Some((clear, reply)) = self.pending.take() {
            drop(clear);
            // The caller may have gone.
            let _ = reply.send(result);
        }
    }
}

impl Drop for ClearOp {
    fn drop(&mut self) {
        if self.pending.is_some() {
            self.core.retry_clear(self.scope.clone(), self.stamp);
        }
    }
}
