//! Actors on kameo: each incarnation is a kameo actor, supervised by kameo, over one kameo mailbox.
//!
//! A failing incarnation dies as a kameo actor does; its supervisor starts the next one on the same mailbox. Every
//! actor has a supervisor of its own, because kameo never forgets a child: a shared one would keep the mailbox and
//! factory of each actor that ever stopped.
//!
//! Whether and when to restart is for the engine's [`Life`] to say, so kameo's own limit is set never to be reached,
//! and the delay is waited out by the incarnation that it delays. Messages are handled inside of [`Actor::next`]:
//! there the mailbox is at hand, so that messages can wait while the handler is not ready, be dropped while the actor
//! is down, and survive a panic. (kameo's own loop moves what is queued at a start into a buffer that a panic loses.)

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use kameo::actor::{Actor, ActorId, ActorRef, Spawn, WeakActorRef};
use kameo::error::{ActorStopReason, Infallible, SendError};
use kameo::mailbox::{self, MailboxReceiver, Signal};
use kameo::message::Message;
use kameo::supervision::RestartPolicy;
use tierkeep::Error;
use tierkeep::runtime::host::{Life, Served, Source, drop_quietly, spawn_on_flume};
use tierkeep::runtime::{
    ActorSpec, ActorState, Address, BoxFuture, Envelope, Mailbox, RejectReason, Rejected, RuntimeHandle,
};
use tokio::runtime::Handle;
use tokio::task::unconstrained;

/// Room in kameo's mailbox for its own signals, of which a few may wait there beside our messages.
const SIGNALS: usize = 4;

/// Starts a supervised kameo actor. Dropping the last [`Address`] stops it.
pub(crate) fn spawn(handle: &Handle, runtime: &RuntimeHandle, spec: ActorSpec) -> Address {
    let _entered = handle.enter();
    let capacity = spec.capacity.max(1);
    let life = Life::new(spec.clone());
    let queued = Arc::new(AtomicUsize::new(0));
    let seed = Incarnation { life: life.clone(), queued: queued.clone(), runtime: runtime.clone() };

    let supervisor = Supervisor::prepare_with_mailbox(mailbox::bounded(SIGNALS));
    let supervisor_ref = supervisor.actor_ref().clone();
    let spawning = Incarnation::supervise_with(&supervisor_ref, move || seed.clone())
        // A normal end is for good: only a stop causes it.
        .restart_policy(RestartPolicy::Transient)
        .restart_limit(u32::MAX, Duration::ZERO)
        .spawn_with_mailbox(mailbox::bounded(capacity.saturating_add(SIGNALS)));
    // It only waits for locks, which nobody else can hold before the supervisor runs.
    let Some(actor) = unconstrained(spawning).now_or_never() else {
        return spawn_on_flume(runtime, spec);
    };
    supervisor.spawn(Ward(life.clone()));
    Address::new(KameoMailbox { life, actor, queued, capacity })
}

struct KameoMailbox {
    life: Arc<Life>,
    actor: ActorRef<Incarnation>,
    /// Our messages in kameo's mailbox: its own count would include its signals.
    queued: Arc<AtomicUsize>,
    capacity: usize,
}

impl KameoMailbox {
    /// Takes a place in the mailbox. Sequentially consistent, because [`Life::send`] counts on it.
    fn reserve(&self) -> bool {
        self.queued
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n < self.capacity).then_some(n + 1))
            .is_ok()
    }
}

impl Mailbox for KameoMailbox {
    fn try_send(&self, message: Envelope) -> Result<(), Rejected> {
        if let Err(reason) = self.life.admit() {
            return Err(Rejected { message, reason });
        }
        if !self.reserve() {
            return Err(Rejected { message, reason: RejectReason::Full });
        }
        let (message, reason) = match self.actor.tell(message).try_send() {
            Ok(()) => return Ok(()),
            Err(SendError::MailboxFull(message)) => (message, RejectReason::Full),
            Err(SendError::ActorNotRunning(message) | SendError::ActorRestarting(message)) => {
                (message, RejectReason::Stopped)
            }
            // Only answers to requests end otherwise.
            Err(SendError::ActorStopped | SendError::HandlerError(_) | SendError::Timeout(_)) => {
                return Ok(());
            }
        };
        self.queued.fetch_sub(1, Ordering::SeqCst);
        // A stop may have been waiting for this message.
        self.life.wake();
        Err(Rejected { message, reason })
    }

    fn send(&self, message: Envelope) -> BoxFuture<'_, Result<(), Rejected>> {
        Box::pin(self.life.send(message, |message| self.try_send(message)))
    }

    fn len(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    fn state(&self) -> ActorState {
        self.life.state()
    }

    fn stop(&self) {
        self.life.stop();
    }

    fn kill(&self) {
        self.life.kill();
    }

    fn stopped(&self) -> BoxFuture<'static, ()> {
        self.life.clone().stopped()
    }
}

impl Drop for KameoMailbox {
    fn drop(&mut self) {
        self.life.stop();
    }
}

/// The kameo actor that is one incarnation. Its handler lives inside of `next`.
#[derive(Clone)]
struct Incarnation {
    life: Arc<Life>,
    queued: Arc<AtomicUsize>,
    runtime: RuntimeHandle,
}

impl Actor for Incarnation {
    type Args = Self;
    type Error = Error;

    async fn on_start(seed: Self, _: ActorRef<Self>) -> Result<Self, Error> {
        Ok(seed)
    }

    /// Lives through the whole incarnation. An error makes kameo let it die and its supervisor start the next one.
    async fn next(
        &mut self,
        _: WeakActorRef<Self>,
        mailbox: &mut MailboxReceiver<Self>,
    ) -> Result<Option<Signal<Self>>, Error> {
        let mut queue = Queue { mailbox, queued: &self.queued, life: &self.life };
        // Tokio's budget would make a full mailbox look empty; `serve` yields by itself.
        match unconstrained(self.life.serve(&self.runtime, &mut queue)).await {
            Served::Failed(error) => Err(error),
            Served::Stopped => {
                self.life.finish(|| queue.empty());
                Ok(None)
            }
        }
    }
}

/// Messages are taken from the mailbox by `next`; this only gives them their type.
impl Message<Envelope> for Incarnation {
    type Reply = ();

    async fn handle(&mut self, message: Envelope, _: &mut kameo::message::Context<Self, ()>) {
        drop(message);
    }
}

struct Queue<'a> {
    mailbox: &'a mut MailboxReceiver<Incarnation>,
    queued: &'a AtomicUsize,
    life: &'a Life,
}

impl Queue<'_> {
    fn empty(&mut self) {
        while let Ok(signal) = self.mailbox.try_recv() {
            if matches!(signal, Signal::Message { .. }) {
                self.queued.fetch_sub(1, Ordering::SeqCst);
            }
            drop_quietly(signal);
        }
    }
}

impl Source for Queue<'_> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Envelope> {
        loop {
            match std::task::ready!(self.mailbox.poll_recv(cx)) {
                Some(Signal::Message { message, .. }) => {
                    self.queued.fetch_sub(1, Ordering::SeqCst);
                    if let Ok(envelope) = message.as_any().downcast::<Envelope>() {
                        return Poll::Ready(*envelope);
                    }
                }
                // Its supervisor is going.
                Some(Signal::Stop | Signal::SupervisorRestart) => self.life.kill(),
                Some(Signal::StartupFinished | Signal::LinkDied { .. } | Signal::Callback { .. }) => {}
                // Closed; what happens to the actor is then decided elsewhere.
                None => return Poll::Pending,
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.queued.load(Ordering::SeqCst) == 0
    }
}

/// Restarts one actor's incarnations, and goes when the last one has.
struct Supervisor {
    /// kameo stops an actor that nobody refers to; a supervisor is referred to by nobody else.
    _itself: ActorRef<Self>,
    _ward: Ward,
}

impl Actor for Supervisor {
    type Args = Ward;
    type Error = Infallible;

    async fn on_start(ward: Ward, itself: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Self { _itself: itself, _ward: ward })
    }

    /// Called for a child that is not restarted: it stopped because it was asked to.
    async fn on_link_died(
        &mut self,
        _: WeakActorRef<Self>,
        _: ActorId,
        _: ActorStopReason,
    ) -> Result<ControlFlow<ActorStopReason>, Infallible> {
        Ok(ControlFlow::Break(ActorStopReason::Normal))
    }
}

/// Ends an actor's life with its supervisor, also when the runtime drops its tasks as it shuts down.
struct Ward(Arc<Life>);

impl Drop for Ward {
    fn drop(&mut self) {
        self.0.kill();
        self.0.finish(|| {});
    }
}
