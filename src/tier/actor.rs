//! An incarnation of a tier's actor: takes messages into the core and sends on what has gathered.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;

use super::call::{self, CallCount};
use super::core::{TierCore, backend_panic};
use super::message::Message;
use crate::backend::OpenContext;
use crate::error::{Error, ErrorKind};
use crate::observe::Removals;
use crate::runtime::{ActorFactory, Envelope, Handler, panic_message};

/// How often a backend is swept again for one [`Message::Sweep`], while there is something to sweep. A bound for
/// backends that say so without end.
const PIECES: u32 = 1024;

pub(crate) struct TierActor {
    core: Arc<TierCore>,
    /// How many more pieces may be swept: between two bursts of messages, one at a time.
    pieces: u32,
    /// Whether messages have been handled since [`Handler::idle`].
    busy: bool,
}

impl TierActor {
    /// Makes incarnations on `core`: each opens the backend first, then adopts what waits.
    pub(crate) fn factory(core: &Arc<TierCore>) -> ActorFactory {
        let core = Arc::clone(core);
        Arc::new(move || {
            let core = Arc::clone(&core);
            Box::pin(async move {
                open(&core).await.map_err(|error| error.at_tier(&core.label))?;
                core.pump();
                Ok(Box::new(Self { core, pieces: 0, busy: false }) as Box<dyn Handler>)
            })
        })
    }

    /// Sweeps one piece. Nothing swept, nothing left.
    fn sweep(&mut self) {
        let swept = self.core.sweep(self.core.runtime.wall());
        self.pieces = if swept == 0 { 0 } else { self.pieces.saturating_sub(1) };
    }
}

async fn open(core: &Arc<TierCore>) -> Result<(), Error> {
    let mut context = OpenContext::new(core.runtime.clone());
    context.removals = Removals::new(&core.events, &core.label);
    let call = AssertUnwindSafe(core.backend.open(&context)).catch_unwind();
    let deadline = core.options.open_deadline;
    match core.runtime.deadline(core.runtime.now().after(deadline), call).await {
        Some(Ok(result)) => result,
        Some(Err(panic)) => Err(backend_panic(&panic_message(&*panic))),
        None => Err(Error::new(
            ErrorKind::Timeout,
            format!("the backend did not open within its deadline of {} ms", deadline.as_millis()),
        )),
    }
}

impl Handler for TierActor {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.pieces > 0 {
            if !self.busy {
                self.sweep();
            }
            // The next piece comes after the messages that wait by now.
            cx.waker().wake_by_ref();
        }
        self.core.poll_room(cx)
    }

    fn handle(&mut self, message: Envelope) {
        self.busy = true;
        super::Counters::one(&self.core.counters.messages);
        let Ok(message) = message.open::<Message>() else { return };
        match message {
            Message::Read(read) => self.core.enqueue_read(read),
            Message::Mutate(mutation) => self.core.arrive(mutation),
            Message::Fill(fill) => self.core.fill(fill),
            Message::Clear(op) => {
                self.core.runtime.spawn(call::clear(CallCount::begin(&self.core), op));
            }
            Message::Sweep => {
                self.pieces = PIECES;
                self.sweep();
            }
            #[cfg(feature = "testing")]
            Message::Crash => crash(),
        }
    }

    fn idle(&mut self) {
        self.core.pump();
        self.busy = false;
    }
}

#[cfg(feature = "testing")]
fn crash() {
    std::panic::panic_any("crash asked for by a test");
}
