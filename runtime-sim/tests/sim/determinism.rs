use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tierkeep_sim::{Sim, SimOptions, TraceEvent};

use crate::{Log, handle, step_aside};

/// Tasks, equal timers, blocking jobs and draws, all at once; what happened in which order.
fn busy(seed: u64) -> (Vec<(u32, u64)>, u64, Vec<TraceEvent>) {
    let sim = Sim::with(SimOptions::new(seed).trace_capacity(10_000));
    let runtime = handle(&sim);
    let log = Log::new();
    sim.block_on(async {
        let tasks = (0..10_u32).map(|task| {
            let (runtime, log) = (runtime.clone(), log.clone());
            let name = task;
            runtime.clone().spawn(async move {
                for round in 0..3 {
                    step_aside().await;
                    log.push((name, round));
                    runtime.sleep(Duration::from_millis(round)).await;
                    let drawn = runtime.random();
                    let inner = log.clone();
                    runtime.spawn_blocking(move || inner.push((name, drawn))).await.unwrap();
                }
            })
        });
        join_all(tasks.collect::<Vec<_>>()).await;
    })
    .unwrap();
    (log.all(), sim.trace_hash(), sim.recent())
}

#[test]
fn the_same_seed_repeats_every_step() {
    for seed in 0..50 {
        let (first, second) = (busy(seed), busy(seed));
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn different_seeds_interleave_differently() {
    let orders: HashSet<Vec<u32>> =
        (0..100).map(|seed| busy(seed).0.into_iter().map(|(task, _)| task).collect()).collect();
    assert!(orders.len() > 95, "only {} orders from 100 seeds", orders.len());
    let hashes: HashSet<u64> = (0..100).map(|seed| busy(seed).1).collect();
    assert_eq!(hashes.len(), 100);
}

#[test]
fn every_order_of_three_ready_tasks_is_reached() {
    let orders: HashSet<Vec<u32>> = (0..200)
        .map(|seed| {
            let sim = Sim::new(seed);
            let (runtime, log) = (handle(&sim), Log::new());
            for task in 0..3 {
                let log = log.clone();
                drop(runtime.spawn(async move { log.push(task) }));
            }
            sim.run_until_idle(Duration::ZERO).unwrap();
            sim.run_until_idle(Duration::from_secs(1)).unwrap();
            log.all()
        })
        .collect();
    assert_eq!(orders.len(), 6);
}

#[test]
fn equal_deadlines_fire_in_seeded_order() {
    let orders: HashSet<Vec<u32>> = (0..200)
        .map(|seed| {
            // Exact time, so that the order can come from nothing else.
            let sim = Sim::with(SimOptions::new(seed).poll_cost(Duration::ZERO));
            let (runtime, log) = (handle(&sim), Log::new());
            // Within one task, so that it is the timers' order and not the tasks'.
            let mut sleeps: FuturesUnordered<_> =
                (0..3).map(|timer| runtime.sleep(Duration::from_secs(1)).map(move |()| timer)).collect();
            sim.block_on(async {
                while let Some(timer) = sleeps.next().await {
                    log.push(timer);
                }
            })
            .unwrap();
            log.all()
        })
        .collect();
    assert_eq!(orders.len(), 6);
}

#[test]
fn a_deadline_can_pass_while_a_task_is_ready() {
    let late = (0..100).filter(|&seed| {
        let sim = Sim::new(seed);
        let runtime = handle(&sim);
        let busy = async {
            for _ in 0..20 {
                step_aside().await;
            }
        };
        let deadline = tierkeep::runtime::Instant::from_nanos(20_000);
        sim.block_on(runtime.deadline(deadline, busy)).unwrap().is_none()
    });
    let late = late.count();
    assert!((10..90).contains(&late), "{late} of 100 seeds were late");
}

#[test]
fn draws_repeat_and_differ() {
    let draw = |seed| {
        let runtime = handle(&Sim::new(seed));
        [runtime.random(), runtime.random()]
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    assert_ne!(draw(1)[0], draw(1)[1]);
}
