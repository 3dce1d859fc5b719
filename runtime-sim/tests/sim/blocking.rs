use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tierkeep::runtime::{Runtime, TaskError};
use tierkeep_sim::{Drained, Sim, SimOptions, StallReason};

use crate::{Log, handle};

#[test]
fn jobs_finish_in_seeded_order_even_when_they_take_equally_long() {
    let ms = Duration::from_millis;
    for delay in [ms(0)..=ms(2), ms(1)..=ms(1)] {
        let orders: HashSet<Vec<u32>> = (0..100)
            .map(|seed| {
                let sim = Sim::with(SimOptions::new(seed).blocking_delay(delay.clone()));
                let (runtime, log) = (handle(&sim), Log::new());
                for job in 0..3 {
                    let log = log.clone();
                    drop(runtime.spawn_blocking(move || log.push(job)));
                }
                assert_eq!(sim.run_until_idle(Duration::from_secs(1)).unwrap(), Drained::Idle);
                log.all()
            })
            .collect();
        assert_eq!(orders.len(), 6, "{delay:?}");
    }
}

#[test]
fn a_dropped_handle_does_not_cancel_the_job() {
    let sim = Sim::new(1);
    let log = Log::new();
    let job = log.clone();
    let handle = handle(&sim).spawn_blocking(move || job.push(()));
    handle.abort();
    drop(handle);
    sim.run_until_idle(Duration::from_secs(1)).unwrap();
    assert_eq!(log.all().len(), 1);
}

#[test]
fn threads_bound_what_is_under_way() {
    // Each job takes 1 ms: four on two threads take two.
    let delay = Duration::from_millis(1);
    let options =
        SimOptions::new(1).poll_cost(Duration::ZERO).blocking_threads(2).blocking_delay(delay..=delay);
    let sim = Sim::with(options);
    let runtime = handle(&sim);
    let jobs: Vec<_> = (0..4)
        .map(|_| {
            let clock = runtime.clone();
            runtime.spawn_blocking(move || clock.now().as_nanos())
        })
        .collect();
    let mut times: Vec<_> = sim.block_on(join_all(jobs)).unwrap().into_iter().map(Result::unwrap).collect();
    times.sort_unstable();
    assert_eq!(times, [1_000_000, 1_000_000, 2_000_000, 2_000_000]);
}

#[test]
fn held_jobs_hang_until_released() {
    let sim = Sim::new(1);
    let runtime = handle(&sim);
    let log = Log::new();
    sim.hold_blocking(true);
    for job in 0..20 {
        let log = log.clone();
        drop(runtime.spawn_blocking(move || log.push(job)));
    }
    sim.run_for(Duration::from_secs(10)).unwrap();
    assert_eq!(sim.pending_blocking(), 20);
    let stall = sim.block_on(std::future::pending::<()>()).unwrap_err();
    assert_eq!((stall.reason, stall.jobs), (StallReason::Deadlock, 20));
    assert!(log.all().is_empty());

    sim.hold_blocking(false);
    assert_eq!(sim.run_until_idle(Duration::from_secs(1)).unwrap(), Drained::Idle);
    let mut ran = log.all();
    ran.sort_unstable();
    assert_eq!(ran, (0..20).collect::<Vec<_>>());
}

#[test]
fn a_job_may_hold_and_spawn_from_within() {
    let sim = Sim::new(1);
    let runtime = handle(&sim);
    let ran = Arc::new(AtomicUsize::new(0));
    let (inner, count, control) = (runtime.clone(), Arc::clone(&ran), sim.runtime());
    drop(runtime.spawn_blocking(move || {
        control.hold_blocking(true);
        control.hold_blocking(false);
        let again = Arc::clone(&count);
        drop(inner.spawn_blocking(move || again.fetch_add(1, Ordering::Relaxed)));
        drop(inner.spawn(async move { count.fetch_add(10, Ordering::Relaxed) }));
    }));
    sim.run_until_idle(Duration::from_secs(1)).unwrap();
    assert_eq!(ran.load(Ordering::Relaxed), 11);
}

#[test]
fn a_panicking_job_is_contained() {
    let sim = Sim::new(1);
    let runtime = handle(&sim);
    let quiet = || std::panic::resume_unwind(Box::new("no disk"));
    let result = sim.block_on(runtime.spawn_blocking(quiet)).unwrap();
    assert_eq!(result, Err::<(), _>(TaskError::Panicked("no disk".to_owned())));
    assert_eq!(sim.panics(), 0, "the engine's guard caught it");

    sim.runtime().execute_blocking(Box::new(|| std::panic::resume_unwind(Box::new("bare"))));
    sim.run_until_idle(Duration::from_secs(1)).unwrap();
    assert_eq!(sim.panics(), 1);
}
