//! The engine's actor host under many seeds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tierkeep::runtime::{
    ActorEvent, ActorSpec, ActorState, Envelope, Handler, Instant, RejectReason, RestartPolicy, RuntimeHandle,
};
use tierkeep_sim::{Sim, StallReason};

use crate::{Log, handle, step_aside};

struct Record {
    log: Log<(u32, u32)>,
    incarnation: u32,
}

/// A message that its handler does not survive.
struct Poison;

impl Handler for Record {
    fn handle(&mut self, message: Envelope) {
        match message.open::<(u32, u32)>() {
            Ok(message) => self.log.push(message),
            Err(message) => {
                assert!(message.open::<Poison>().is_ok());
                std::panic::resume_unwind(Box::new(format!("incarnation {}", self.incarnation)))
            }
        }
    }
}

struct Actor {
    spec: ActorSpec,
    log: Log<(u32, u32)>,
    events: Log<String>,
}

fn recorder(capacity: usize) -> Actor {
    let (log, events, made) = (Log::new(), Log::new(), Arc::new(AtomicU32::new(0)));
    let (entries, told) = (log.clone(), events.clone());
    let spec = ActorSpec {
        name: "recorder".into(),
        capacity,
        restart: RestartPolicy::default(),
        factory: Arc::new(move || {
            let (log, made) = (entries.clone(), Arc::clone(&made));
            Box::pin(async move {
                step_aside().await;
                let incarnation = made.fetch_add(1, Ordering::Relaxed);
                Ok(Box::new(Record { log, incarnation }) as Box<dyn Handler>)
            })
        }),
        watch: Arc::new(move |event| {
            told.push(match event {
                ActorEvent::Started => "started".to_owned(),
                ActorEvent::Failed(_) => "failed".to_owned(),
                ActorEvent::Restarting(_) => "restarting".to_owned(),
                ActorEvent::Down(_) => "down".to_owned(),
                ActorEvent::Stopped => "stopped".to_owned(),
                other => format!("{other:?}"),
            });
        }),
    };
    Actor { spec, log, events }
}

async fn send_all(runtime: &RuntimeHandle, address: &tierkeep::runtime::Address, each: u32) {
    let senders = (0..4_u32).map(|sender| {
        let address = address.clone();
        runtime.spawn(async move {
            for n in 0..each {
                address.send(Envelope::new((sender, n))).await.unwrap();
                step_aside().await;
            }
        })
    });
    for sent in join_all(senders.collect::<Vec<_>>()).await {
        sent.unwrap();
    }
}

fn check_order(log: &Log<(u32, u32)>, each: u32, seed: u64) {
    let all = log.all();
    for sender in 0..4 {
        let sent: Vec<u32> = all.iter().filter(|(s, _)| *s == sender).map(|(_, n)| *n).collect();
        assert_eq!(sent, (0..each).collect::<Vec<_>>(), "sender {sender}, seed {seed}");
    }
}

#[test]
fn every_message_arrives_once_and_in_order_through_a_narrow_mailbox() {
    for seed in 0..200 {
        let sim = Sim::new(seed);
        let (runtime, actor) = (handle(&sim), recorder(1 + (seed % 3) as usize));
        let address = runtime.spawn_actor(actor.spec.clone());
        sim.block_on(async {
            send_all(&runtime, &address, 20).await;
            address.stop();
            address.stopped().await;
        })
        .unwrap();
        check_order(&actor.log, 20, seed);
        assert_eq!(actor.events.all(), ["started", "stopped"], "seed {seed}");
        assert_eq!(address.state(), ActorState::Stopped);
        assert!(matches!(
            address.try_send(Envelope::new(())).map_err(|r| r.reason),
            Err(RejectReason::Stopped)
        ));
        assert_eq!(sim.pending_tasks(), 0, "seed {seed}");
    }
}

#[test]
fn a_restart_keeps_the_mailbox() {
    for seed in 0..200 {
        let sim = Sim::new(seed);
        let (runtime, actor) = (handle(&sim), recorder(4));
        let address = runtime.spawn_actor(actor.spec.clone());
        sim.block_on(async {
            let (poisoner, control) = (address.clone(), runtime.clone());
            let poison = runtime.spawn(async move {
                for _ in 0..3 {
                    poisoner.send(Envelope::new(Poison)).await.unwrap();
                    control.sleep(Duration::from_micros(control.random() % 500_000)).await;
                }
            });
            send_all(&runtime, &address, 20).await;
            poison.await.unwrap();
            address.stop();
            address.stopped().await;
        })
        .unwrap();
        check_order(&actor.log, 20, seed);
        let events = actor.events.all();
        assert_eq!(events.iter().filter(|e| *e == "failed").count(), 3, "seed {seed}: {events:?}");
        assert_eq!(events.last().map(String::as_str), Some("stopped"));
    }
}

#[test]
fn a_cancelled_send_leaves_its_room_to_the_next() {
    for seed in 0..200 {
        let sim = Sim::new(seed);
        let (runtime, actor) = (handle(&sim), recorder(1));
        let address = runtime.spawn_actor(actor.spec.clone());
        sim.block_on(async {
            // Senders that give up after a few microseconds, among others that must all get through.
            for n in 0..30 {
                let (address, mine) = (address.clone(), runtime.clone());
                drop(runtime.spawn(async move {
                    let end = Instant::from_nanos(mine.now().as_nanos() + mine.random() % 20_000);
                    let _ = mine.deadline(end, address.send(Envelope::new((9_u32, n)))).await;
                }));
            }
            send_all(&runtime, &address, 10).await;
        })
        .unwrap_or_else(|stall| panic!("{stall}"));
        sim.run_until_idle(Duration::from_secs(1)).unwrap();
        check_order(&actor.log, 10, seed);
    }
}

#[test]
fn an_actor_that_is_down_comes_back() {
    for seed in 0..50 {
        let sim = Sim::new(seed);
        let (runtime, actor) = (handle(&sim), recorder(16));
        let address = runtime.spawn_actor(actor.spec.clone());
        for _ in 0..6 {
            address.try_send(Envelope::new(Poison)).unwrap();
        }
        sim.block_on(async {
            while address.state() != ActorState::Down {
                runtime.sleep(Duration::from_millis(10)).await;
            }
            let rejected = address.send(Envelope::new((0_u32, 0_u32))).await.unwrap_err();
            assert_eq!(rejected.reason, RejectReason::Down);
            while address.state() != ActorState::Running {
                runtime.sleep(Duration::from_secs(1)).await;
            }
            address.send(Envelope::new((0_u32, 1_u32))).await.unwrap();
            address.stop();
            address.stopped().await;
        })
        .unwrap_or_else(|stall| panic!("{stall}"));
        assert_eq!(actor.log.all(), [(0, 1)], "seed {seed}");
    }
}

#[test]
fn dropping_the_last_address_ends_the_actor() {
    for seed in 0..50 {
        let sim = Sim::new(seed);
        let actor = recorder(4);
        let address = handle(&sim).spawn_actor(actor.spec.clone());
        sim.run_until_idle(Duration::from_micros(seed)).unwrap();
        address.try_send(Envelope::new((1_u32, 1_u32))).unwrap();
        drop(address);
        sim.run_until_idle(Duration::from_secs(1)).unwrap();
        assert_eq!((actor.log.all().len(), sim.pending_tasks()), (1, 0), "seed {seed}");
    }
}

#[test]
fn a_stall_names_its_actors() {
    let sim = Sim::new(1);
    let address = handle(&sim).spawn_actor(recorder(4).spec);
    drop(handle(&sim).spawn(std::future::pending::<()>()));
    let stall = sim.block_on(std::future::pending::<()>()).unwrap_err();
    assert_eq!(stall.reason, StallReason::Deadlock);
    let names: Vec<_> = stall.tasks.iter().map(|task| task.name.as_deref()).collect();
    assert_eq!(names, [Some("recorder"), None]);
    assert!(stall.to_string().contains("`recorder` last polled at"), "{stall}");
    drop(address);
}

#[test]
fn a_dropped_simulation_stops_its_actors() {
    let sim = Sim::new(1);
    let actor = recorder(4);
    let address = handle(&sim).spawn_actor(actor.spec.clone());
    sim.run_until_idle(Duration::from_secs(1)).unwrap();
    let held = Arc::new(());
    address.try_send(Envelope::new(Arc::clone(&held))).unwrap();
    drop(sim);
    assert_eq!((address.state(), Arc::strong_count(&held)), (ActorState::Stopped, 1));
    Sim::new(2).block_on(address.stopped()).unwrap();
}
