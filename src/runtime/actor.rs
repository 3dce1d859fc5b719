//! What an actor is, whoever hosts it: a handler, a bounded mailbox, and restarts.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{BoxFuture, RestartPolicy};
use crate::error::Error;

/// One message, of any type: the receiving handler knows which.
pub struct Envelope(Box<dyn Any + Send>);

impl Envelope {
    /// Wraps a message.
    pub fn new<M: Send + 'static>(message: M) -> Self {
        Self(Box::new(message))
    }

    /// The message, if it is an `M`; otherwise the envelope again.
    pub fn open<M: 'static>(self) -> Result<M, Self> {
        self.0.downcast().map(|message| *message).map_err(Self)
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Envelope")
    }
}

/// One incarnation of an actor. Dropped when it panics, is replaced or stops.
pub trait Handler: Send + 'static {
    /// Whether it can take another message; while it cannot, messages wait in the mailbox. Called whenever the host's
    /// task is woken, messages or not, so a handler may drive its own futures here.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Ready(())
    }

    /// Takes one message. Runs to its end without waiting: longer work is spawned. A panic ends this incarnation;
    /// the message being handled is lost, those waiting are handled by the next one.
    fn handle(&mut self, message: Envelope);

    /// Called after `handle` when no further message is waiting right now or `poll_ready` has become pending, and at
    /// least every 64 messages: the moment to send on what was gathered.
    fn idle(&mut self) {}
}

/// Makes an incarnation. A failure (or a panic) counts as a crash.
pub type ActorFactory = Arc<dyn Fn() -> BoxFuture<'static, Result<Box<dyn Handler>, Error>> + Send + Sync>;

/// Told of every change in an actor's life. Called on the host's task: must not block.
pub type ActorWatch = Arc<dyn Fn(ActorEvent) + Send + Sync>;

/// A change in an actor's life.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ActorEvent {
    /// An incarnation took over: the first, or one after a restart.
    Started,
    /// An incarnation panicked or could not be made.
    Failed(Error),
    /// The next incarnation is made after this delay.
    Restarting(Duration),
    /// Too many failures: what was queued has been dropped, new messages are rejected, and the actor is tried again
    /// after this delay, for ever.
    Down(Duration),
    /// It stopped because it was asked to.
    Stopped,
}

/// What an actor is made of.
#[derive(Clone)]
pub struct ActorSpec {
    /// Its name in logs.
    pub name: Arc<str>,
    /// How many messages its mailbox holds; at least 1.
    pub capacity: usize,
    /// When it is restarted, and how fast.
    pub restart: RestartPolicy,
    /// Makes each incarnation.
    pub factory: ActorFactory,
    /// Hears of every change.
    pub watch: ActorWatch,
}

impl fmt::Debug for ActorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorSpec")
            .field("name", &self.name)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

/// Where an actor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ActorState {
    /// Its first incarnation is being made.
    Starting,
    /// It handles messages.
    Running,
    /// It failed and is about to be restarted; messages queue.
    Restarting,
    /// It failed too often and is tried again on a slow timer; messages are rejected.
    Down,
    /// It was stopped, for good.
    Stopped,
}

/// A message that was not taken, and why.
#[derive(Debug)]
pub struct Rejected {
    /// The message, given back.
    pub message: Envelope,
    /// Why it was not taken.
    pub reason: RejectReason,
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectReason {
    /// The mailbox is at its capacity.
    Full,
    /// The actor is down.
    Down,
    /// The actor has stopped.
    Stopped,
}

/// The sending end of an actor, as a host implements it.
pub trait Mailbox: Send + Sync + 'static {
    /// Queues a message if there is room, without waiting. Messages of one sender are handled in order.
    fn try_send(&self, message: Envelope) -> Result<(), Rejected>;

    /// Queues a message, waiting for room. Cancel-safe: dropped before it completes, the message is dropped unsent.
    fn send(&self, message: Envelope) -> BoxFuture<'_, Result<(), Rejected>>;

    /// How many messages wait.
    fn len(&self) -> usize;

    /// Whether no message waits.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the actor stands.
    fn state(&self) -> ActorState;

    /// Asks the actor to handle what is queued and then stop; later messages are rejected, and so are those of senders
    /// that wait for room.
    ///
    /// It waits for a handler that is not ready and, if messages are queued, for an incarnation that is being made:
    /// [`kill`](Self::kill) does not. A delay before a restart is skipped; an actor that is down stops at once.
    fn stop(&self);

    /// Stops the actor now; what is queued is dropped.
    fn kill(&self);

    /// Completes once the actor has stopped: its handler and its queue are gone, its watch has been told.
    fn stopped(&self) -> BoxFuture<'static, ()>;
}

/// The sending end of an actor. Cheap to clone; holds no incarnation, so it stays valid over restarts. Dropping the
/// last clone [stops](Mailbox::stop) the actor.
#[derive(Clone)]
pub struct Address(Arc<dyn Mailbox>);

impl Address {
    /// Wraps a host's mailbox.
    pub fn new(mailbox: impl Mailbox) -> Self {
        Self(Arc::new(mailbox))
    }
}

impl std::ops::Deref for Address {
    type Target = dyn Mailbox;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("state", &self.state()).field("len", &self.len()).finish()
    }
}
