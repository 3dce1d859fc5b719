//! The engine's own host of actors: a bounded flume mailbox and one task, on any runtime.

use std::sync::Arc;
use std::task::{Context, Poll};

use flume::{Receiver, Sender, TrySendError};

use super::host::{Life, Served, Source, drop_quietly};
use super::{
    ActorSpec, ActorState, Address, BoxFuture, Envelope, Mailbox, RejectReason, Rejected, RuntimeHandle,
};

/// Starts an actor on a flume mailbox, on `runtime`'s tasks and timers. Dropping the last [`Address`] stops it.
pub fn spawn(runtime: &RuntimeHandle, spec: ActorSpec) -> Address {
    let (sender, receiver) = flume::bounded(spec.capacity.max(1));
    let life = Life::new(spec);
    let host = Host { life: life.clone(), queue: Queue(receiver.clone()), runtime: runtime.clone() };
    // Detached: the actor is stopped through its address.
    drop(runtime.spawn(host.run()));
    Address::new(FlumeMailbox { life, sender, receiver })
}

struct FlumeMailbox {
    life: Arc<Life>,
    sender: Sender<Envelope>,
    /// Keeps the channel connected over everything, and drops what slipped in as the actor stopped.
    receiver: Receiver<Envelope>,
}

impl Mailbox for FlumeMailbox {
    fn try_send(&self, message: Envelope) -> Result<(), Rejected> {
        if let Err(reason) = self.life.admit() {
            return Err(Rejected { message, reason });
        }
        match self.sender.try_send(message) {
            Ok(()) => {
                self.life.wake();
                // The channel's lock orders this load after the message: either the host's last look at the queue
                // saw the message, or we see that the actor has stopped.
                if self.life.state() == ActorState::Stopped {
                    self.receiver.drain().for_each(drop_quietly);
                }
                Ok(())
            }
            Err(TrySendError::Full(message)) => Err(Rejected { message, reason: RejectReason::Full }),
            Err(TrySendError::Disconnected(message)) => {
                Err(Rejected { message, reason: RejectReason::Stopped })
            }
        }
    }

    fn send(&self, message: Envelope) -> BoxFuture<'_, Result<(), Rejected>> {
        Box::pin(self.life.send(message, |message| self.try_send(message)))
    }

    fn len(&self) -> usize {
        self.sender.len()
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

impl Drop for FlumeMailbox {
    fn drop(&mut self) {
        self.life.stop();
    }
}

struct Host {
    life: Arc<Life>,
    queue: Queue,
    runtime: RuntimeHandle,
}

impl Host {
    async fn run(mut self) {
        while let Served::Failed(_) = self.life.serve(&self.runtime, &mut self.queue).await {}
    }
}

/// Also when the runtime drops its tasks as it shuts down.
impl Drop for Host {
    fn drop(&mut self) {
        self.life.finish(|| self.queue.0.drain().for_each(drop_quietly));
    }
}

struct Queue(Receiver<Envelope>);

impl Source for Queue {
    fn poll_next(&mut self, _cx: &mut Context<'_>) -> Poll<Envelope> {
        // Senders wake the host themselves.
        self.0.try_recv().map_or(Poll::Pending, Poll::Ready)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
