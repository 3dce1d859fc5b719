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

pub(crate) struct TierActor {
    core: Arc<TierCore>,
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
                Ok(Box::new(Self { core }) as Box<dyn Handler>)
            })
        })
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
        self.core.poll_room(cx)
    }

    fn handle(&mut self, message: Envelope) {
        super::Counters::one(&self.core.counters.messages);
        let Ok(message) = message.open::<Message>() else { return };
        match message {
            Message::Read(read) => self.core.enqueue_read(read),
            Message::Mutate(mutation) => self.core.arrive(mutation),
            Message::Fill(fill) => self.core.fill(fill),
            Message::Clear(op) => {
                self.core.runtime.spawn(call::clear(CallCount::begin(&self.core), op));
            }
            Message::Sweep => self.core.sweep(self.core.runtime.wall()),
            #[cfg(feature = "testing")]
            Message::Crash => crash(),
        }
    }

    fn idle(&mut self) {
        self.core.pump();
    }
}

#[cfg(feature = "testing")]
fn crash() {
    std::panic::panic_any("crash asked for by a test");
}
