//! One incarnation after the other: when it is due, how it is made, how it handles messages, how it fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::poll_fn;

use super::life::{KILL, STOP, state_of};
use super::{Life, Served, Source, drop_quietly};
use crate::error::{Error, ErrorKind};
use crate::runtime::task::panic_message;
use crate::runtime::{ActorEvent, ActorState, Handler, RestartDecision, RuntimeHandle};

/// How many messages are handled before `idle` is called and other tasks get their turn.
const BURST: usize = 64;

impl Life {
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
}

fn panicked(name: &str, panic: &(dyn std::any::Any + Send)) -> Error {
    Error::new(ErrorKind::Panicked, format!("actor `{name}`: {}", panic_message(panic)))
}
