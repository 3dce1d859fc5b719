//! Where an actor stands, what was asked of it, and who waits for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::Event;
use futures_util::task::AtomicWaker;

use crate::runtime::{
    ActorEvent, ActorSpec, ActorState, BoxFuture, Envelope, RejectReason, Rejected, RestartCounter,
    RestartDecision,
};

/// One actor's life over all its incarnations: where it stands, what was asked of it, who waits for it.
pub struct Life {
    pub(super) spec: ActorSpec,
    /// An `ActorState` in the low bits, and the flags below.
    pub(super) phase: AtomicU8,
    restarts: Mutex<Restarts>,
    /// Wakes the host's task, of which there is one at a time.
    pub(super) host: AtomicWaker,
    /// Senders waiting for room. They count themselves before they look again for room, and the host looks at the
    /// count after it has made room (both sequentially consistent), so that one of the two sees the other.
    waiting: AtomicUsize,
    pub(super) room: Event,
    ended: Event,
}

pub(super) struct Restarts {
    pub(super) counter: RestartCounter,
    /// What was decided about the last failure and is still to be carried out.
    pub(super) pending: Option<RestartDecision>,
}

const STATE: u8 = 0b0_0111;
/// Handle what is queued, then stop.
pub(super) const STOP: u8 = 0b0_1000;
/// Stop now.
pub(super) const KILL: u8 = 0b1_0000;
/// Stopped, and everybody told.
const ENDED: u8 = 0b10_0000;

impl Life {
    /// A life about to start.
    pub fn new(spec: ActorSpec) -> Arc<Self> {
        let counter = RestartCounter::new(spec.restart);
        Arc::new(Self {
            spec,
            phase: AtomicU8::new(ActorState::Starting as u8),
            restarts: Mutex::new(Restarts { counter, pending: None }),
            host: AtomicWaker::new(),
            waiting: AtomicUsize::new(0),
            room: Event::new(),
            ended: Event::new(),
        })
    }

    /// Where the actor stands.
    pub fn state(&self) -> ActorState {
        state_of(self.phase.load(Ordering::Acquire))
    }

    /// Whether a message may be queued now. One that is queued just as the actor goes down or stops is dropped by
    /// the host, like those queued before it.
    pub fn admit(&self) -> Result<(), RejectReason> {
        let phase = self.phase.load(Ordering::Acquire);
        if phase & (STOP | KILL | ENDED) != 0 {
            return Err(RejectReason::Stopped);
        }
        match state_of(phase) {
            ActorState::Stopped => Err(RejectReason::Stopped),
            ActorState::Down => Err(RejectReason::Down),
            ActorState::Starting | ActorState::Running | ActorState::Restarting => Ok(()),
        }
    }

    /// Wakes the host's task: a message was queued.
    pub fn wake(&self) {
        self.host.wake();
    }

    /// Queues `message` with `try_send`, waiting for room as long as it is refused for want of it. Cancel-safe:
    /// dropped before it completes, the message is dropped unsent and the room goes to the next sender.
    pub async fn send(
        &self,
        message: Envelope,
        try_send: impl Fn(Envelope) -> Result<(), Rejected>,
    ) -> Result<(), Rejected> {
        let Err(mut refused) = try_send(message) else { return Ok(()) };
        let _counted = Waiting::new(&self.waiting);
        while refused.reason == RejectReason::Full {
            let room = self.room.listen();
            match try_send(refused.message) {
                Err(again) if again.reason == RejectReason::Full => refused = again,
                result => return result,
            }
            room.await;
            match try_send(refused.message) {
                Ok(()) => return Ok(()),
                Err(again) => refused = again,
            }
        }
        Err(refused)
    }

    /// Asks the actor to handle what is queued and then stop.
    ///
    /// While it is being made or about to be restarted, an empty mailbox stops it at once; with messages waiting, one
    /// more attempt is made to handle them, without further delay. While it is down, it stops at once.
    pub fn stop(&self) {
        self.request(STOP);
    }

    /// Stops the actor now, whatever it is doing.
    pub fn kill(&self) {
        self.request(KILL);
    }

    /// Completes once the actor has stopped.
    pub fn stopped(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            while self.phase.load(Ordering::Acquire) & ENDED == 0 {
                let ended = self.ended.listen();
                if self.phase.load(Ordering::Acquire) & ENDED != 0 {
                    break;
                }
                ended.await;
            }
        })
    }

    /// Ends the actor's life: rejects what comes, drops what waits by `empty`, and then tells everybody. Call it when
    /// the host's task ends, for whatever reason; later calls do nothing.
    pub fn finish(&self, empty: impl FnOnce()) {
        if self.enter(ActorState::Stopped) == ActorState::Stopped {
            return;
        }
        self.room.notify(usize::MAX);
        empty();
        self.tell(ActorEvent::Stopped);
        self.phase.fetch_or(ENDED, Ordering::AcqRel);
        self.ended.notify(usize::MAX);
        // Addresses may live long; they need not keep the host's task.
        drop(self.host.take());
    }

    pub(super) fn made_room(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.room.notify_additional(1);
        }
    }

    fn request(&self, flag: u8) {
        if self.phase.fetch_or(flag, Ordering::AcqRel) & flag == 0 {
            self.room.notify(usize::MAX);
            self.host.wake();
        }
    }

    /// Moves to `state` and returns the one before; `Stopped` is never left.
    pub(super) fn enter(&self, state: ActorState) -> ActorState {
        let moved = self.phase.fetch_update(Ordering::AcqRel, Ordering::Acquire, |phase| {
            (state_of(phase) != ActorState::Stopped).then_some(phase & !STATE | state as u8)
        });
        moved.map_or(ActorState::Stopped, state_of)
    }

    /// Tells the watch, whose panics are its own affair.
    pub(super) fn tell(&self, event: ActorEvent) {
        let _ = catch_unwind(AssertUnwindSafe(|| (self.spec.watch)(event)));
    }

    pub(super) fn restarts(&self) -> MutexGuard<'_, Restarts> {
        self.restarts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Life").field("spec", &self.spec).field("state", &self.state()).finish_non_exhaustive()
    }
}

/// Counts a sender as waiting for as long as it waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(super) fn state_of(phase: u8) -> ActorState {
    match phase & STATE {
        0 => ActorState::Starting,
        1 => ActorState::Running,
        2 => ActorState::Restarting,
        3 => ActorState::Down,
        _ => ActorState::Stopped,
    }
}
