use std::time::Duration;

use tierkeep::Timestamp;
use tierkeep::runtime::{Instant, Runtime};
use tierkeep_sim::{Drained, Sim, SimOptions};

use crate::{Log, handle, step_aside};

const HOUR: Duration = Duration::from_secs(3600);

fn exact(seed: u64) -> Sim {
    Sim::with(SimOptions::new(seed).poll_cost(Duration::ZERO))
}

#[test]
fn time_jumps_exactly_to_each_timer() {
    let sim = exact(1);
    let runtime = handle(&sim);
    let log = Log::new();
    sim.block_on(async {
        for seconds in [1, 2, 3600] {
            runtime.sleep(Duration::from_secs(seconds)).await;
            log.push(runtime.now().as_nanos());
        }
    })
    .unwrap();
    assert_eq!(log.all(), [1_000_000_000, 3_000_000_000, 3_603_000_000_000]);
}

#[test]
fn timers_fire_in_the_order_of_their_deadlines() {
    for seed in 0..50 {
        let sim = Sim::new(seed);
        let (runtime, log) = (handle(&sim), Log::new());
        for ms in [30, 10, 20, 50, 40] {
            let (sleep, log) = (runtime.sleep(Duration::from_millis(ms)), log.clone());
            drop(runtime.spawn(async move {
                sleep.await;
                log.push(ms);
            }));
        }
        assert_eq!(sim.run_until_idle(HOUR).unwrap(), Drained::Idle);
        assert_eq!(log.all(), [10, 20, 30, 40, 50], "seed {seed}");
    }
}

#[test]
fn a_deadline_that_has_passed_completes_at_once() {
    let sim = exact(1);
    let runtime = handle(&sim);
    sim.run_for(HOUR).unwrap();
    sim.block_on(runtime.sleep_until(Instant::from_nanos(5))).unwrap();
    assert_eq!(runtime.now(), Instant::default().after(HOUR));
}

#[test]
fn dropped_timers_move_no_time() {
    let sim = exact(1);
    let runtime = handle(&sim);
    sim.block_on(async {
        // Never polled, dropped; polled, dropped when the deadline's future wins.
        drop(runtime.sleep(HOUR));
        let end = runtime.now().after(HOUR);
        runtime.deadline(end, runtime.sleep(Duration::from_millis(1))).await.unwrap();
    })
    .unwrap();
    assert_eq!(sim.pending_timers(), 0);
    assert_eq!(sim.run_until_idle(2 * HOUR).unwrap(), Drained::Idle);
    assert_eq!(sim.now().as_nanos(), 1_000_000);
}

#[test]
fn run_until_idle_stops_at_its_limit() {
    let sim = exact(1);
    let runtime = handle(&sim);
    let log = Log::new();
    let (sleep, seen) = (runtime.sleep(HOUR), log.clone());
    drop(runtime.spawn(async move {
        sleep.await;
        seen.push(());
    }));
    assert_eq!(sim.run_until_idle(HOUR / 2).unwrap(), Drained::TimeUp);
    assert_eq!(sim.now(), Instant::default().after(HOUR / 2));
    assert!(log.all().is_empty());
    assert_eq!(sim.run_until_idle(HOUR).unwrap(), Drained::Idle);
    assert_eq!(sim.now(), Instant::default().after(HOUR), "no further than the last timer");
    assert_eq!(log.all().len(), 1);
}

#[test]
fn run_for_takes_its_time_even_when_idle() {
    let sim = exact(1);
    sim.run_for(HOUR).unwrap();
    assert_eq!(sim.now(), Instant::default().after(HOUR));
}

#[test]
fn run_for_ends_although_a_task_is_always_ready() {
    let sim = Sim::new(1);
    drop(handle(&sim).spawn(async {
        loop {
            step_aside().await;
        }
    }));
    sim.run_for(Duration::from_millis(10)).unwrap();
    assert!(sim.now().as_nanos() < 11_000_000);
}

#[test]
fn the_wall_clock_moves_with_time_and_jumps_alone() {
    let sim = exact(1);
    let runtime = handle(&sim);
    let start = runtime.wall();
    assert_eq!(start, Timestamp::from_millis(1_767_225_600_000));
    sim.run_for(Duration::from_millis(1500)).unwrap();
    assert_eq!(runtime.wall().since(start), Duration::from_millis(1500));

    let before = runtime.now();
    sim.jump_wall(-10_000);
    assert_eq!(start.since(runtime.wall()), Duration::from_millis(8500));
    sim.jump_wall(i64::MIN);
    assert_eq!(runtime.wall(), Timestamp::from_millis(0));
    sim.set_wall(start.after(HOUR));
    assert_eq!(runtime.wall().since(start), HOUR);
    sim.run_for(Duration::from_millis(1)).unwrap();
    assert_eq!(runtime.wall().since(start), HOUR + Duration::from_millis(1));
    assert_eq!(runtime.now().since(before), Duration::from_millis(1), "monotonic time does not jump");
}
