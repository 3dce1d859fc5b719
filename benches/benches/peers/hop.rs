//! One hop to an actor and back, beside the bare parts that the hosts are made of.
//!
//! The caller is a task of the runtime, as the cache's callers are. All sides send without waiting for room, which
//! there always is, and are answered through the same kind of channel.

use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;
use kameo::actor::{Actor, ActorRef, Spawn};
use kameo::error::Infallible;
use kameo::message::{Context, Message};
use tierkeep::runtime::{ActorSpec, Address, Envelope, Handler, RestartPolicy, RuntimeHandle};
use tierkeep_async_std::AsyncStdRuntime;
use tierkeep_benches::clock::Watch;
use tierkeep_benches::{Comparison, Contest, Measure, Outcome, Setting, Unit};
use tierkeep_tokio::TokioRuntime;

use crate::hit::runtime;

pub(crate) const MEASURES: &[Measure] = &[
    Measure {
        names: &["hop_flume"],
        about: "raw flume + oneshot on async-std, beside a hop of ours",
        run: on_async_std,
    },
    Measure {
        names: &["hop_kameo"],
        about: "raw kameo tell + oneshot on tokio, beside a hop of ours",
        run: on_tokio,
    },
];

/// The capacity of a tier's mailbox.
const MAILBOX: usize = 1_024;

/// What is asked: the number, back.
struct Ask {
    number: u64,
    reply: oneshot::Sender<u64>,
}

impl Ask {
    fn answer(self) {
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

impl Actor for Echo {
    type Args = Self;
    type Error = Infallible;

    async fn on_start(args: Self, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(args)
    }
}

impl Message<Ask> for Echo {
    type Reply = ();

    async fn handle(&mut self, ask: Ask, _: &mut Context<Self, ()>) {
        ask.answer();
    }
}

fn ours(runtime: &RuntimeHandle) -> Address {
    runtime.spawn_actor(ActorSpec {
        name: "echo".into(),
        capacity: MAILBOX,
        restart: RestartPolicy::default(),
        factory: Arc::new(|| Box::pin(async { Ok(Box::new(Echo) as Box<dyn Handler>) })),
        watch: Arc::new(|_| {}),
    })
}

fn bare_flume(runtime: &RuntimeHandle) -> flume::Sender<Ask> {
    let (sender, receiver) = flume::bounded::<Ask>(MAILBOX);
    drop(runtime.spawn(async move {
        while let Ok(ask) = receiver.recv_async().await {
            ask.answer();
        }
    }));
    sender
}

/// Hops one after another, in a task of their own.
async fn hops(runtime: &RuntimeHandle, operations: u64, send: impl Fn(Ask) + Send + 'static) -> Duration {
    let task = runtime.spawn(async move {
        let watch = Watch::start();
        for number in 0..operations {
            let (reply, answer) = oneshot::channel();
            send(Ask { number, reply });
            assert_eq!(answer.await, Ok(number));
        }
        watch.elapsed()
    });
    task.await.expect("the task runs to its end")
}

fn to_ours(address: &Address) -> impl Fn(Ask) + Send + 'static {
    let address = address.clone();
    move |ask| address.try_send(Envelope::new(ask)).expect("there is room")
}

fn to_flume(sender: &flume::Sender<Ask>) -> impl Fn(Ask) + Send + 'static {
    let sender = sender.clone();
    move |ask| sender.try_send(ask).unwrap_or_else(|_| panic!("there is room"))
}

fn on_async_std(setting: &Setting) -> Outcome {
    let runtime = RuntimeHandle::new(AsyncStdRuntime::new());
    let (address, sender) = (ours(&runtime), bare_flume(&runtime));
    let sides = Contest::new(setting, Unit::Nanos)
        .timed("tierkeep", |n| async_std::task::block_on(hops(&runtime, n, to_ours(&address))))
        .timed("flume-bare", |n| async_std::task::block_on(hops(&runtime, n, to_flume(&sender))))
        .run();
    Ok(vec![Comparison::new("hop_flume", Unit::Nanos, 0.75, &sides[0], &sides[1])])
}

fn on_tokio(setting: &Setting) -> Outcome {
    let tokio = runtime();
    let runtime = RuntimeHandle::new(TokioRuntime::new(tokio.handle().clone()));
    let (address, sender) = (ours(&runtime), bare_flume(&runtime));
    let kameo = tokio.block_on(async { Echo::spawn_with_mailbox(Echo, kameo::mailbox::bounded(MAILBOX)) });
    let to_kameo = || {
        let kameo = kameo.clone();
        move |ask| kameo.tell(ask).try_send().unwrap_or_else(|_| panic!("there is room"))
    };
    let sides = Contest::new(setting, Unit::Nanos)
        .timed("tierkeep", |n| tokio.block_on(hops(&runtime, n, to_ours(&address))))
        .timed("kameo-bare", |n| tokio.block_on(hops(&runtime, n, to_kameo())))
        .timed("flume-bare", |n| tokio.block_on(hops(&runtime, n, to_flume(&sender))))
        .run();
    Ok(vec![
        Comparison::new("hop_kameo", Unit::Nanos, 0.75, &sides[0], &sides[1]),
        Comparison::informative("hop_kameo", Unit::Nanos, &sides[0], &sides[2]),
    ])
}
