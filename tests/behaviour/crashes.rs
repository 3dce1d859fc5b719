//! Actors that die: bugs of the engine itself, as a test makes them.

use std::time::Duration;

use futures_util::future::join_all;
use tierkeep::ErrorKind;
use tierkeep::runtime::ActorState;
use tierkeep_sim::{Fault, FaultPlan, Faulty, Op};

use super::bench::{Bench, KEYS, Position, frail};
use super::store::Store;
use super::world::{NEVER, World};

pub(crate) async fn an_actor_killed_while_batches_are_in_flight(world: World) {
    Position::each(async |position| {
        let plan = FaultPlan::new(&world.runtime);
        plan.delays(Duration::from_millis(1)..=Duration::from_millis(4));
        plan.rate(Fault::Delay, 1.0);
        let store = Store::new("store");
        let faulty = Faulty::new(store.clone(), &world.runtime, &plan);
        let tier = frail(faulty).read_deadline(NEVER).write_deadline(NEVER).concurrency(2).batch_keys(2);
        let bench = Bench::new(&world, position, &store, tier).await;
        bench.serves().await;
        let watch = bench.watch();
        for crash in 1..=3 {
            let calls = plan.calls(Op::Read) + plan.calls(Op::Write);
            let requests: Vec<_> = (0..4 * KEYS)
                .map(|request| {
                    let subject = bench.subject.clone();
                    world.runtime.spawn(async move {
                        match request % 4 {
                            0 => subject.set(request % KEYS, 1 + crash).await,
                            1 => subject.evict(request % KEYS).await,
                            _ => drop(subject.read(request % KEYS).await),
                        }
                    })
                })
                .collect();
            let sent = || plan.calls(Op::Read) + plan.calls(Op::Write) > calls;
            world.until("calls are in flight", sent).await;
            bench.cache.crash_tier("faulty");
            for answered in join_all(requests).await {
                answered.unwrap();
            }
            world.until("the actor is back", || bench.faulty().restarts == crash).await;
            world.until("the actor runs", || bench.faulty().state == ActorState::Running).await;
        }
        watch.saw_nothing_old().await;
        assert!(bench.faulty().last_error.unwrap().contains("crash asked for by a test"));
        bench.overwrite(9).await;
        plan.heal();
        bench.recovers().await;
    })
    .await;
}

pub(crate) async fn an_actor_killed_more_often_than_the_limit(world: World) {
    Position::each(async |position| {
        let plan = FaultPlan::new(&world.runtime);
        let store = Store::new("store");
        let faulty = Faulty::new(store.clone(), &world.runtime, &plan);
        let bench = Bench::new(&world, position, &store, frail(faulty)).await;
        bench.serves().await;
        for restart in 1..=3 {
            bench.cache.crash_tier("faulty");
            world.until("a restart", || bench.faulty().restarts == restart).await;
            world.until("the actor runs", || bench.faulty().state == ActorState::Running).await;
        }
        // So that it stays down for as long as the test looks at it.
        plan.rate(Fault::RefuseOpen, 1.0);
        bench.cache.crash_tier("faulty");
        world.until("the tier is down", || bench.faulty().state == ActorState::Down).await;
        assert_eq!(bench.faulty().restarts, 3, "past the limit it is not restarted but retried");
        bench.first_read(ErrorKind::Unavailable).await;
        let watch = bench.watch();
        bench.overwrite(2).await;
        bench.is_quarantined(1).await;
        plan.heal();
        bench.recovers().await;
        watch.saw_nothing_old().await;
    })
    .await;
}

pub(crate) async fn the_supervisor_killed(world: World) {
    Position::each(async |position| {
        let plan = FaultPlan::new(&world.runtime);
        let store = Store::new("store");
        let faulty = Faulty::new(store.clone(), &world.runtime, &plan);
        let bench = Bench::new(&world, position, &store, frail(faulty)).await;
        bench.cache.crash_supervisor();
        outlives_its_supervisor(&bench, &plan).await;
    })
    .await;
}

pub(crate) async fn the_supervisor_killed_for_good(world: World) {
    Position::each(async |position| {
        let plan = FaultPlan::new(&world.runtime);
        let store = Store::new("store");
        let faulty = Faulty::new(store.clone(), &world.runtime, &plan);
        let bench = Bench::new(&world, position, &store, frail(faulty)).await;
        // Each incarnation finds the next crash in its mailbox, until there is none any more.
        for _ in 0..50 {
            bench.cache.crash_supervisor();
        }
        outlives_its_supervisor(&bench, &plan).await;
    })
    .await;
}

/// Without a supervisor the cache serves, and callers still follow a tier that goes down and comes back.
async fn outlives_its_supervisor(bench: &Bench, plan: &FaultPlan) {
    bench.serves().await;
    let watch = bench.watch();
    bench.overwrite(2).await;
    watch.saw_nothing_old().await;
    bench.recovers().await;
    plan.rate(Fault::RefuseOpen, 1.0);
    let world = &bench.world;
    for _ in 0..4 {
        bench.cache.crash_tier("faulty");
    }
    world.until("the tier is down", || bench.faulty().state == ActorState::Down).await;
    bench.first_read(ErrorKind::Unavailable).await;
    bench.overwrite(3).await;
    plan.heal();
    bench.recovers().await;
}
