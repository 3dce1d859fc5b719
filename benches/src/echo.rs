//! An actor that answers with what it is asked, and callers of it: one hop there, one back.
//!
//! A caller is a task of the runtime, as the cache's callers are, and sends without waiting for room, which there
//! always is.

use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;
use tierkeep::runtime::{ActorSpec, Address, Envelope, Handler, RestartPolicy, RuntimeHandle};

use crate::clock::Watch;

/// How many messages a mailbox holds: as many as a tier's.
pub const MAILBOX: usize = 1_024;

/// What is asked: the number, back.
#[derive(Debug)]
pub struct Ask {
    number: u64,
    reply: oneshot::Sender<u64>,
}

impl Ask {
    /// Sends the number back.
    pub fn answer(self) {
        // Whoever asked waits.
        let _ = self.reply.send(self.number);
    }
}

struct Echo;

impl Handler for Echo {
    fn handle(&mut self, message: Envelope) {
        if let Ok(ask) = message.open::<Ask>() {
            ask.answer();
        }
    }
}

/// Starts the actor on the runtime's own host.
pub fn spawn(runtime: &RuntimeHandle) -> Address {
    runtime.spawn_actor(ActorSpec {
        name: "echo".into(),
        capacity: MAILBOX,
        restart: RestartPolicy::default(),
        factory: Arc::new(|| Box::pin(async { Ok(Box::new(Echo) as Box<dyn Handler>) })),
        watch: Arc::new(|_| {}),
    })
}

/// Sends to the actor.
pub fn sender(address: &Address) -> impl Fn(Ask) + Send + 'static {
    let address = address.clone();
    move |ask| address.try_send(Envelope::new(ask)).expect("there is room")
}

/// Hops one after another, in a task of their own; says how long they took.
///
/// # Panics
/// If an answer is wrong.
pub async fn hops(runtime: &RuntimeHandle, hops: u64, send: impl Fn(Ask) + Send + 'static) -> Duration {
    let task = runtime.spawn(async move {
        let watch = Watch::start();
        for number in 0..hops {
            let (reply, answer) = oneshot::channel();
            send(Ask { number, reply });
            assert_eq!(answer.await, Ok(number));
        }
        watch.elapsed()
    });
    task.await.expect("the task runs to its end")
}
