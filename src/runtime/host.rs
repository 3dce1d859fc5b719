//! What every host of actors shares, so that all of them behave alike: an actor's life over its incarnations.
//!
//! A host brings a queue and somewhere to run. Its sending end asks [`Life::admit`] before it queues a message; its
//! task calls [`Life::serve`] once per incarnation, over its end of the queue as a [`Source`], until the actor has
//! stopped. Restarts, outages, stopping and their events are decided here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use event_listener::Event;
use futures_util::task::AtomicWaker;
use futures_util::{FutureExt, future::poll_fn};

pub use super::flume_host::spawn as spawn_on_flume;
use super::task::panic_message;
use super::{
    ActorEvent, ActorSpec, ActorState, BoxFuture, Envelope, Handler, RejectReason, Rejected, RestartCounter,
    RestartDecision, RuntimeHandle,
};
use crate::error::{Error, ErrorKind};

/// How many messages are handled before `idle` is called and other tasks get their turn.
const BURST: usize = 64;

/// The receiving end of a host's queue.
pub trait Source: Send {
    /// Takes the next message. When there is none, the host's task is woken by the next one: either through `cx`, or
    /// because senders call [`Life::wake`].
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Envelope>;

    /// Whether every message that was queued has been taken.
    fn is_empty(&self) -> bool;
}

/// How [`Life::serve`] ended.
#[derive(Debug)]
pub enum Served {
    /// The incarnation failed, with this, and is gone; serve the next one.
    Failed(Error),
    /// The actor was asked to stop and has; call [`Life::finish`].
    Stopped,
}

/// One actor's life over all its incarnations: where it stands, what was asked of it, who waits for it.
pub struct Life {
    spec: ActorSpec,
    /// An `ActorState` in the low bits, and the flags below.
    phase: AtomicU8,
    restarts: Mutex<Restarts>,
    /// Wakes the host's task, of which there is one at a time.
    host: AtomicWaker,
    /// Senders waiting for room. They count themselves before they look again for room, and the host looks at the
    /// count after it has made room (both sequentially consistent), so that one of the two sees the other.
    waiting: AtomicUsize,
    room: Event,
    ended: Event,
}

struct Restarts {
    counter: RestartCounter,
    /// What was decided about the last failure and is still to be carried out.
    pending: Option<RestartDecision>,
}

const STATE: u8 = 0b0_0111;
/// Handle what is queued, then stop.
const STOP: u8 = 0b0_1000;
/// Stop now.
const KILL: u8 = 0b1_0000;
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

    /// Lives through one incarnation: waits until it is due, makes it, and lets it handle what `source` gives until
    /// it fails or the actor stops. The incarnation is dropped before this returns. Panics are caught.
    pub async fn serve(&self, runtime: &RuntimeHandle, source: &mut impl Source) -> Served {
        match self.incarnation(runtime, source).await {
            Ok(()) => Served::Stopped,
            Err(error) => {
                self.failed(runtime, error.clone());
                Served::Failed(error)
            }
        }
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

    async fn incarnation(&self, runtime: &RuntimeHandle, source: &mut impl Source) -> Result<(), Error> {
        if !self.pause(runtime, source).await {
            return Ok(());
        }
        let Some(made) = self.make(source).await else { return Ok(()) };
        let mut handler = made?;
        self.enter(ActorState::Running);
        self.restarts().counter.started();
        self.tell(ActorEvent::Started);
        let handling = poll_fn(|cx| self.poll_handle(&mut *handler, source, cx));
        let handled = AssertUnwindSafe(handling).catch_unwind().await;
        drop_quietly(handler);
        handled.map_err(|panic| panicked(&self.spec.name, &*panic))
    }

    /// Waits out what was decided about the last failure. `false` if the actor is to stop instead.
    async fn pause(&self, runtime: &RuntimeHandle, source: &mut impl Source) -> bool {
        let pending = self.restarts().pending.take();
        let delay = match pending {
            None => return true,
            Some(RestartDecision::Restart(delay)) => {
                self.tell(ActorEvent::Restarting(delay));
                delay
            }
            Some(RestartDecision::Down(delay)) => {
                poll_fn(|cx| {
                    self.drain(source, cx);
                    Poll::Ready(())
                })
                .await;
                self.room.notify(usize::MAX);
                self.tell(ActorEvent::Down(delay));
                delay
            }
        };
        let mut due = runtime.sleep_until(runtime.now().after(delay));
        self.unless_ended(source, |cx, stopping| if stopping { Poll::Ready(()) } else { due.poll_unpin(cx) })
            .await
            .is_some()
    }

    /// Makes an incarnation. `None` if the actor is to stop instead.
    async fn make(&self, source: &mut impl Source) -> Option<Result<Box<dyn Handler>, Error>> {
        let mut making = match catch_unwind(AssertUnwindSafe(|| (self.spec.factory)())) {
            Ok(making) => making,
            Err(panic) => return Some(Err(panicked(&self.spec.name, &*panic))),
        };
        let made = self
            .unless_ended(source, |cx, _| {
                catch_unwind(AssertUnwindSafe(|| making.poll_unpin(cx)))
                    .unwrap_or_else(|panic| Poll::Ready(Err(panicked(&self.spec.name, &*panic))))
            })
            .await;
        drop_quietly(making);
        made
    }

    /// Polls `step` (told whether a stop was asked for) until it is ready, or until the actor has nothing left to
    /// do: `None`. While the actor is down, messages that slipped in are dropped.
    async fn unless_ended<T>(
        &self,
        source: &mut impl Source,
        mut step: impl FnMut(&mut Context<'_>, bool) -> Poll<T>,
    ) -> Option<T> {
        poll_fn(|cx| {
            self.host.register(cx.waker());
            let phase = self.phase.load(Ordering::Acquire);
            let down = state_of(phase) == ActorState::Down;
            let stopping = phase & STOP != 0;
            if phase & KILL != 0 || (stopping && (down || source.is_empty())) {
                return Poll::Ready(None);
            }
            if down {
                self.drain(source, cx);
            }
            step(cx, stopping).map(Some)
        })
        .await
    }

    fn poll_handle(
        &self,
        handler: &mut dyn Handler,
        source: &mut impl Source,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        self.host.register(cx.waker());
        let mut gathered = false;
        for _ in 0..BURST {
            let phase = self.phase.load(Ordering::Acquire);
            if phase & KILL != 0 {
                return Poll::Ready(());
            }
            while handler.poll_ready(cx).is_pending() {
                // What was gathered may be what it waits to get rid of.
                if !std::mem::take(&mut gathered) {
                    return if phase & STOP != 0 && source.is_empty() {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    };
                }
                handler.idle();
            }
            match source.poll_next(cx) {
                Poll::Ready(message) => {
                    self.made_room();
                    gathered = true;
                    handler.handle(message);
                }
                Poll::Pending => {
                    if gathered {
                        handler.idle();
                    }
                    return if phase & STOP != 0 && source.is_empty() {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    };
                }
            }
        }
        handler.idle();
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn failed(&self, runtime: &RuntimeHandle, error: Error) {
        let decision = {
            let mut restarts = self.restarts();
            let decision = restarts.counter.failed(runtime.now(), runtime.random());
            restarts.pending = Some(decision);
            decision
        };
        self.enter(match decision {
            RestartDecision::Restart(_) => ActorState::Restarting,
            RestartDecision::Down(_) => ActorState::Down,
        });
        self.tell(ActorEvent::Failed(error));
    }

    /// Drops what is queued, which answers it.
    fn drain(&self, source: &mut impl Source, cx: &mut Context<'_>) {
        while let Poll::Ready(message) = source.poll_next(cx) {
            drop_quietly(message);
        }
    }

    fn made_room(&self) {
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
    fn enter(&self, state: ActorState) -> ActorState {
        let moved = self.phase.fetch_update(Ordering::AcqRel, Ordering::Acquire, |phase| {
            (state_of(phase) != ActorState::Stopped).then_some(phase & !STATE | state as u8)
        });
        moved.map_or(ActorState::Stopped, state_of)
    }

    /// Tells the watch, whose panics are its own affair.
    fn tell(&self, event: ActorEvent) {
        let _ = catch_unwind(AssertUnwindSafe(|| (self.spec.watch)(event)));
    }

    fn restarts(&self) -> std::sync::MutexGuard<'_, Restarts> {
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

/// Drops a value of the user's: a panic in its destructor must not take the host along.
pub fn drop_quietly<T>(value: T) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
}

fn panicked(name: &str, panic: &(dyn std::any::Any + Send)) -> Error {
    Error::new(ErrorKind::Panicked, format!("actor `{name}`: {}", panic_message(panic)))
}

fn state_of(phase: u8) -> ActorState {
    match phase & STATE {
        0 => ActorState::Starting,
        1 => ActorState::Running,
        2 => ActorState::Restarting,
        3 => ActorState::Down,
        _ => ActorState::Stopped,
    }
}
