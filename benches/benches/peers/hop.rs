//! One hop to an actor and back, beside the bare parts that the hosts are made of.
//!
//! All sides answer through the same kind of channel, and are asked by the same tasks.

use kameo::actor::{Actor, ActorRef, Spawn};
use kameo::error::Infallible;
use kameo::message::{Context, Message};
use tierkeep::runtime::RuntimeHandle;
use tierkeep_async_std::AsyncStdRuntime;
use tierkeep_benches::echo::{self, Ask, MAILBOX};
use tierkeep_benches::{Comparison, Contest, Measure, Outcome, Setting, Unit, micro};
use tierkeep_tokio::TokioRuntime;

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

struct KameoEcho;

impl Actor for KameoEcho {
    type Args = Self;
    type Error = Infallible;

    async fn on_start(args: Self, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(args)
    }
}

impl Message<Ask> for KameoEcho {
    type Reply = ();

    async fn handle(&mut self, ask: Ask, _: &mut Context<Self, ()>) {
        ask.answer();
    }
}

fn to_kameo(actor: &ActorRef<KameoEcho>) -> impl Fn(Ask) + Send + 'static {
    let actor = actor.clone();
    move |ask| actor.tell(ask).try_send().unwrap_or_else(|_| panic!("there is room"))
}

fn flume_echo(runtime: &RuntimeHandle) -> flume::Sender<Ask> {
    let (sender, receiver) = flume::bounded::<Ask>(MAILBOX);
    drop(runtime.spawn(async move {
        while let Ok(ask) = receiver.recv_async().await {
            ask.answer();
        }
    }));
    sender
}

fn to_flume(sender: &flume::Sender<Ask>) -> impl Fn(Ask) + Send + 'static {
    let sender = sender.clone();
    move |ask| sender.try_send(ask).unwrap_or_else(|_| panic!("there is room"))
}

fn on_async_std(setting: &Setting) -> Outcome {
    let runtime = RuntimeHandle::new(AsyncStdRuntime::new());
    let (ours, flume) = (echo::spawn(&runtime), flume_echo(&runtime));
    let sides = Contest::new(setting, Unit::Nanos)
        .timed("tierkeep", |n| async_std::task::block_on(echo::hops(&runtime, n, echo::sender(&ours))))
        .timed("flume-bare", |n| async_std::task::block_on(echo::hops(&runtime, n, to_flume(&flume))))
        .run();
    Ok(vec![Comparison::new("hop_flume", Unit::Nanos, 0.75, &sides[0], &sides[1])])
}

fn on_tokio(setting: &Setting) -> Outcome {
    let tokio = micro::runtime();
    let runtime = RuntimeHandle::new(TokioRuntime::new(tokio.handle().clone()));
    let (ours, flume) = (echo::spawn(&runtime), flume_echo(&runtime));
    let kameo =
        tokio.block_on(async { KameoEcho::spawn_with_mailbox(KameoEcho, kameo::mailbox::bounded(MAILBOX)) });
    let sides = Contest::new(setting, Unit::Nanos)
        .timed("tierkeep", |n| tokio.block_on(echo::hops(&runtime, n, echo::sender(&ours))))
        .timed("kameo-bare", |n| tokio.block_on(echo::hops(&runtime, n, to_kameo(&kameo))))
        .timed("flume-bare", |n| tokio.block_on(echo::hops(&runtime, n, to_flume(&flume))))
        .run();
    Ok(vec![
        Comparison::new("hop_kameo", Unit::Nanos, 0.75, &sides[0], &sides[1]),
        Comparison::informative("hop_kameo", Unit::Nanos, &sides[0], &sides[2]),
    ])
}
