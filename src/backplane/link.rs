//! A cache's end of its backplane: what it shares between the task that sends and the one that hears.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use event_listener::Event;

use super::options::BackplaneOptions;
use super::outbox::Outbox;
use super::status::{BackplaneInspection, Status};
use super::{Backplane, receive, send};
use crate::backend::Scope;
use crate::composition::Engine;
use crate::error::Result;
use crate::key::CacheKey;
use crate::runtime::{Instant, RuntimeHandle};
use crate::value::Stamp;

/// How long an attempt to publish may take, and how long one to subscribe before what is missed meanwhile is dropped.
pub(super) const ATTEMPT: Duration = Duration::from_secs(1);

pub(crate) struct Link {
    pub(super) transport: Arc<dyn Backplane>,
    pub(super) options: BackplaneOptions,
    /// Tells its messages from others'.
    pub(super) node: u64,
    pub(super) outbox: Outbox,
    pub(super) status: Status,
    /// A drop of everything is under way and has not begun.
    pub(super) dropping: AtomicBool,
    pub(super) leaving: AtomicBool,
    /// A heartbeat is wanted at once.
    pub(super) announce: AtomicBool,
    /// Told when the leave has been taken, and when it first hears.
    pub(super) changed: Event,
    pub(super) left: AtomicBool,
}

impl Link {
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it cannot work.
    pub(crate) fn new(
        transport: Arc<dyn Backplane>,
        options: BackplaneOptions,
        runtime: &RuntimeHandle,
    ) -> Result<Arc<Self>> {
        options.validate()?;
        transport.suits(runtime)?;
        Ok(Arc::new(Self {
            outbox: Outbox::new(options.queue),
            node: runtime.random(),
            status: Status::default(),
            dropping: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            announce: AtomicBool::new(false),
            left: AtomicBool::new(false),
            changed: Event::new(),
            transport,
            options,
        }))
    }

    /// Begins to send and to hear, until the engine is gone.
    pub(crate) fn start(self: &Arc<Self>, engine: &Weak<Engine>, runtime: &RuntimeHandle) {
        runtime.spawn(send::run(Arc::clone(self), Weak::clone(engine), runtime.clone()));
        runtime.spawn(receive::run(Arc::clone(self), Weak::clone(engine), runtime.clone()));
    }

    /// Waits until it hears for the first time, or until `deadline`.
    pub(crate) async fn await_up(&self, runtime: &RuntimeHandle, deadline: Instant) {
        while !self.is_up() {
            let changed = self.changed.listen();
            if self.is_up() || runtime.deadline(deadline, changed).await.is_none() {
                return;
            }
        }
    }

    /// A shared tier has confirmed a change.
    pub(crate) fn tell(&self, key: &CacheKey, stamp: Stamp, removed: bool) {
        if !self.outbox.push(key, stamp, removed) {
            Status::one(&self.status.overflows);
        }
    }

    pub(crate) fn tell_clear(&self, scope: &Scope, stamp: Stamp) {
        if !self.outbox.push_clear(scope, stamp) {
            Status::one(&self.status.overflows);
        }
    }

    /// Publishes what waits and takes leave, within `deadline`.
    pub(crate) async fn leave(&self, runtime: &RuntimeHandle, deadline: Instant) {
        self.leaving.store(true, Ordering::SeqCst);
        self.outbox.wake();
        while !self.left.load(Ordering::SeqCst) {
            let changed = self.changed.listen();
            if self.left.load(Ordering::SeqCst) || runtime.deadline(deadline, changed).await.is_none() {
                return;
            }
        }
    }

    /// Has a heartbeat sent at once, to hear it.
    pub(super) fn announce(&self) {
        self.announce.store(true, Ordering::SeqCst);
        self.outbox.wake();
    }

    /// Whether the cache is there and has not taken leave.
    pub(super) fn is_on(&self, engine: &Weak<Engine>) -> bool {
        engine.strong_count() > 0 && !self.left.load(Ordering::SeqCst)
    }

    /// Whether it has subscribed once only.
    pub(super) fn is_fresh(&self) -> bool {
        self.status.subscriptions.load(Ordering::Relaxed) <= 1
    }

    pub(crate) fn is_up(&self) -> bool {
        self.status.up.load(Ordering::Relaxed)
    }

    pub(crate) fn inspect(&self) -> BackplaneInspection {
        self.status.inspect(self.outbox.len())
    }
}
