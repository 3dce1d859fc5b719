//! The actor that the suite puts on a runtime: it does as it is told and reports all that happens to it.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_channel::{mpsc, oneshot};
use futures_util::task::AtomicWaker;

use super::stage::NEVER;
use crate::error::{Error, ErrorKind};
use crate::runtime::{ActorSpec, Address, Envelope, Handler, RestartPolicy};

/// A panic without the noise of the panic hook.
pub(super) fn scripted_panic() -> ! {
    resume_unwind(Box::new("scripted"))
}

/// A policy with short delays.
pub(super) fn quick(limit: u32) -> RestartPolicy {
    RestartPolicy {
        limit,
        window: NEVER,
        backoff: Duration::from_millis(1),
        backoff_max: Duration::from_millis(4),
        retry: Duration::from_millis(2),
    }
}

/// What the probe is told.
pub(super) enum Say {
    /// Report that this was handled.
    Note(u32),
    /// Answer with this.
    Echo(u32, oneshot::Sender<u32>),
    /// Panic; the answer, if any, is what is lost with the message.
    Panic(Option<oneshot::Sender<u32>>),
    /// Keep this request unanswered.
    Keep(oneshot::Sender<u32>),
    /// Be not ready until [`Control::open`].
    Close,
    /// Be not ready until the next `idle`.
    CloseUntilIdle,
    /// Send yourself this again until [`Control::release`].
    Again,
    /// Stop yourself.
    StopYourself,
    /// Panic in the next `idle`.
    PanicInIdle,
    /// Panic in the next `poll_ready`.
    PanicInReady,
    /// Panic when dropped.
    PanicInDrop,
}

/// How the next incarnation is made; by default it just is.
#[derive(Clone, Copy)]
pub(super) enum Start {
    /// Report a failure.
    Fail,
    /// Panic in the factory's future.
    Panic,
    /// Panic in the factory itself.
    PanicAtOnce,
    /// Never finish.
    Hang,
}

/// What the probe reports. Numbers of incarnations start at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Made(u32),
    Handled(u32),
    Idle,
    Dropped(u32),
    /// A factory that would have hung for ever was dropped.
    HangDropped,
}

/// The strings by which a case moves its probe.
pub(super) struct Control {
    closed: AtomicBool,
    released: AtomicBool,
    cursed: AtomicBool,
    waker: AtomicWaker,
    starts: Mutex<VecDeque<Start>>,
    made: AtomicU32,
    address: OnceLock<Address>,
    seen: mpsc::UnboundedSender<Seen>,
}

impl Control {
    /// Makes the handler ready.
    pub(super) fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Makes the handler panic in `poll_ready`, now.
    pub(super) fn panic_when_polled(&self) {
        self.cursed.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Ends `Say::Again`.
    pub(super) fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
    }

    /// How the coming incarnations are made.
    pub(super) fn script(&self, starts: impl IntoIterator<Item = Start>) {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner).extend(starts);
    }

    /// Lets the probe know its own address, which also keeps it from stopping with its last other address.
    pub(super) fn introduce(&self, address: &Address) {
        let _ = self.address.set(address.clone());
    }

    /// Stops the actor, once it has been [introduced](Self::introduce).
    pub(super) fn stop_actor(&self) {
        if let Some(address) = self.address.get() {
            address.stop();
        }
    }

    fn see(&self, seen: Seen) {
        let _ = self.seen.unbounded_send(seen);
    }
}

/// A specification of a probe that nobody watches, the strings that move it, and what it reports.
pub(super) fn spec(
    capacity: usize,
    restart: RestartPolicy,
) -> (ActorSpec, Arc<Control>, mpsc::UnboundedReceiver<Seen>) {
    let (seen, reports) = mpsc::unbounded();
    let control = Arc::new(Control {
        closed: AtomicBool::new(false),
        released: AtomicBool::new(false),
        cursed: AtomicBool::new(false),
        waker: AtomicWaker::new(),
        starts: Mutex::default(),
        made: AtomicU32::new(0),
        address: OnceLock::new(),
        seen,
    });
    let shared = control.clone();
    let spec = ActorSpec {
        name: "probe".into(),
        capacity,
        restart,
        factory: Arc::new(move || {
            let control = shared.clone();
            let start = control.starts.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            if let Some(Start::PanicAtOnce) = start {
                scripted_panic();
            }
            Box::pin(async move {
                match start {
                    None => Ok(Box::new(Probe::new(control)) as Box<dyn Handler>),
                    Some(Start::Fail) => Err(Error::new(ErrorKind::Backend, "scripted failure")),
                    Some(Start::Panic | Start::PanicAtOnce) => scripted_panic(),
                    Some(Start::Hang) => {
                        let _reports = ReportsItsDrop(control);
                        std::future::pending().await
                    }
                }
            })
        }),
        watch: Arc::new(|_| {}),
    };
    (spec, control, reports)
}

struct ReportsItsDrop(Arc<Control>);

impl Drop for ReportsItsDrop {
    fn drop(&mut self) {
        self.0.see(Seen::HangDropped);
    }
}

struct Probe {
    control: Arc<Control>,
    number: u32,
    kept: Vec<oneshot::Sender<u32>>,
    closed_until_idle: bool,
    panic_in_idle: bool,
    panic_in_drop: bool,
}

impl Probe {
    fn new(control: Arc<Control>) -> Self {
        let number = control.made.fetch_add(1, Ordering::SeqCst) + 1;
        control.see(Seen::Made(number));
        Self {
            control,
            number,
            kept: Vec::new(),
            closed_until_idle: false,
            panic_in_idle: false,
            panic_in_drop: false,
        }
    }
}

impl Handler for Probe {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.control.waker.register(cx.waker());
        if self.control.cursed.swap(false, Ordering::SeqCst) {
            scripted_panic();
        }
        if self.closed_until_idle || self.control.closed.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn handle(&mut self, message: Envelope) {
        let Ok(say) = message.open::<Say>() else { panic!("the probe only understands Say") };
        match say {
            Say::Note(number) => self.control.see(Seen::Handled(number)),
            Say::Echo(number, reply) => {
                let _ = reply.send(number);
            }
            Say::Panic(_reply) => scripted_panic(),
            Say::Keep(reply) => self.kept.push(reply),
            Say::Close => self.control.closed.store(true, Ordering::SeqCst),
            Say::CloseUntilIdle => self.closed_until_idle = true,
            Say::Again => {
                if !self.control.released.load(Ordering::SeqCst)
                    && let Some(address) = self.control.address.get()
                {
                    let _ = address.try_send(Envelope::new(Say::Again));
                }
            }
            Say::StopYourself => self.control.stop_actor(),
            Say::PanicInIdle => self.panic_in_idle = true,
            Say::PanicInReady => self.control.cursed.store(true, Ordering::SeqCst),
            Say::PanicInDrop => self.panic_in_drop = true,
        }
    }

    fn idle(&mut self) {
        if std::mem::take(&mut self.panic_in_idle) {
            scripted_panic();
        }
        self.closed_until_idle = false;
        self.control.see(Seen::Idle);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.control.see(Seen::Dropped(self.number));
        if self.panic_in_drop {
            scripted_panic();
        }
    }
}
