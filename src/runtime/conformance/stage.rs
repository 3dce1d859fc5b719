//! A case in progress: a probe on a runtime, what it is told, and what is heard of it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt;

use super::probe::{Control, Say, Seen, Start, spec};
use crate::runtime::{
    ActorEvent, Address, Envelope, Instant, RejectReason, Rejected, RestartPolicy, RuntimeHandle,
};

/// After this long without the awaited event, a case has failed.
pub(super) const HANG: Duration = Duration::from_secs(60);
/// A delay that no case waits out.
pub(super) const NEVER: Duration = Duration::from_secs(24 * 3600);

/// Awaits `future`, and fails the case if it hangs.
pub(super) async fn within<F: Future>(runtime: &RuntimeHandle, what: &str, future: F) -> F::Output {
    match runtime.deadline(runtime.now().after(HANG), future).await {
        Some(output) => output,
        None => panic!("never happened: {what}"),
    }
}

/// A case in progress: a probe on a runtime, and all that is heard of it.
pub(super) struct Stage {
    pub(super) runtime: RuntimeHandle,
    pub(super) address: Address,
    pub(super) control: Arc<Control>,
    events: mpsc::UnboundedReceiver<(Instant, ActorEvent)>,
    seen: mpsc::UnboundedReceiver<Seen>,
}

impl Stage {
    /// Starts a probe.
    pub(super) fn new(runtime: &RuntimeHandle, capacity: usize, restart: RestartPolicy) -> Self {
        Self::scripted(runtime, capacity, restart, [])
    }

    /// Starts a probe whose first incarnations are made as `starts` says.
    pub(super) fn scripted(
        runtime: &RuntimeHandle,
        capacity: usize,
        restart: RestartPolicy,
        starts: impl IntoIterator<Item = Start>,
    ) -> Self {
        let (mut spec, control, seen) = spec(capacity, restart);
        control.script(starts);
        let (heard, events) = mpsc::unbounded();
        let clock = runtime.clone();
        spec.watch = Arc::new(move |event| {
            let _ = heard.unbounded_send((clock.now(), event));
        });
        let address = runtime.spawn_actor(spec);
        Self { runtime: runtime.clone(), address, control, events, seen }
    }

    /// A probe that is running and not ready: what is sent now stays in the mailbox.
    pub(super) async fn closed(runtime: &RuntimeHandle, capacity: usize, restart: RestartPolicy) -> Self {
        let mut stage = Self::new(runtime, capacity, restart);
        // Told in a message, so that no message can be on its way past the closing door.
        stage.say(Say::Close);
        stage.expect("Started").await;
        assert_eq!(stage.see().await, Seen::Made(1));
        assert_eq!(stage.see().await, Seen::Idle);
        stage
    }

    /// Queues something that there is room for.
    pub(super) fn say(&self, say: Say) {
        assert!(self.address.try_send(Envelope::new(say)).is_ok(), "there is room for this message");
    }

    /// Queues a request.
    pub(super) fn ask(&self, number: u32) -> oneshot::Receiver<u32> {
        let (reply, answer) = oneshot::channel();
        self.say(Say::Echo(number, reply));
        answer
    }

    /// Asks and awaits the answer.
    pub(super) async fn echo(&self, number: u32) {
        assert_eq!(self.answer(self.ask(number)).await, Some(number));
    }

    /// What became of a request: `None` if it was dropped unanswered.
    pub(super) async fn answer(&self, answer: oneshot::Receiver<u32>) -> Option<u32> {
        within(&self.runtime, "an answer", answer).await.ok()
    }

    /// The next event in the actor's life, with the time at which it was told.
    pub(super) async fn event_at(&mut self) -> (Instant, ActorEvent) {
        within(&self.runtime, "an event", self.events.next()).await.expect("the actor tells of more")
    }

    /// The next event in the actor's life, which must be called `name`.
    pub(super) async fn expect(&mut self, name: &str) -> ActorEvent {
        let event = self.event_at().await.1;
        assert!(format!("{event:?}").starts_with(name), "expected {name}, told of {event:?}");
        event
    }

    /// The next events, which must be called so.
    pub(super) async fn expect_all(&mut self, names: &[&str]) {
        for name in names {
            self.expect(name).await;
        }
    }

    /// Events told by now and not yet read.
    pub(super) fn unread_events(&mut self) -> Vec<ActorEvent> {
        std::iter::from_fn(|| self.events.try_recv().ok().map(|(_, event)| event)).collect()
    }

    /// The probe's next report.
    pub(super) async fn see(&mut self) -> Seen {
        within(&self.runtime, "a report", self.seen.next()).await.expect("the probe reports more")
    }

    /// The next message that was handled.
    pub(super) async fn handled(&mut self) -> u32 {
        loop {
            if let Seen::Handled(number) = self.see().await {
                return number;
            }
        }
    }

    /// Reports made by now and not yet read.
    pub(super) fn unread(&mut self) -> Vec<Seen> {
        std::iter::from_fn(|| self.seen.try_recv().ok()).collect()
    }

    /// Awaits the end.
    pub(super) async fn stopped(&self) {
        within(&self.runtime, "the end of the actor", self.address.stopped()).await;
    }

    /// Awaits the end, which must come without any delay being waited out.
    pub(super) async fn stopped_promptly(&self) {
        let asked = self.runtime.now();
        self.stopped().await;
        assert!(self.runtime.now().since(asked) < HANG, "the actor stops without waiting");
    }
}

/// What a message was rejected for, and the number in it.
pub(super) fn rejected(result: Result<(), Rejected>) -> (RejectReason, u32) {
    let rejected = result.expect_err("the message is rejected");
    match rejected.message.open::<Say>() {
        Ok(Say::Note(number)) => (rejected.reason, number),
        _ => panic!("another message was given back"),
    }
}
