//! Timers, deadlines, clocks and randomness.
#![expect(missing_docs, reason = "the name of a case says what must hold")]

use std::collections::HashSet;
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

use super::stage::{HANG, within};
use crate::Timestamp;
use crate::runtime::{Instant, RuntimeHandle};

const SHORT: Duration = Duration::from_millis(5);

pub async fn a_timer_is_not_early(runtime: RuntimeHandle) {
    for micros in [1, 500, 1_000, 3_700] {
        let deadline = runtime.now().after(Duration::from_micros(micros));
        within(&runtime, "the timer", runtime.sleep_until(deadline)).await;
        assert!(runtime.now() >= deadline, "early by {:?}", deadline.since(runtime.now()));
    }
}

pub async fn timers_fire_in_order(runtime: RuntimeHandle) {
    // Apart by more than the granularity of timers.
    let step = Duration::from_millis(10);
    let round = || async {
        let start = runtime.now();
        let mut timers: FuturesUnordered<_> = [3u32, 1, 4, 2, 0]
            .into_iter()
            .map(|n| runtime.sleep_until(start.after(step * (n + 1))).map(move |()| n))
            .collect();
        // Polled for the first time before any of them is due, they become ready in the order of their wakers.
        let first = timers.next().now_or_never();
        let in_time = first.is_none() && runtime.now() < start.after(step);
        let mut order: Vec<u32> = first.flatten().into_iter().collect();
        while let Some(n) = timers.next().await {
            order.push(n);
        }
        in_time.then_some(order)
    };
    let in_order = async {
        loop {
            // A machine too busy to set a round up in time has to try again.
            if let Some(order) = round().await {
                break order;
            }
        }
    };
    assert_eq!(within(&runtime, "a round set up in time", in_order).await, [0, 1, 2, 3, 4]);
}

pub async fn a_past_deadline_completes_at_once(runtime: RuntimeHandle) {
    runtime.sleep(SHORT).await;
    let start = runtime.now();
    for deadline in [Instant::default(), start] {
        within(&runtime, "a timer in the past", runtime.sleep_until(deadline)).await;
    }
    within(&runtime, "no time", runtime.sleep(Duration::ZERO)).await;
    assert!(runtime.now().since(start) < HANG);
}

pub async fn a_dropped_timer_does_no_harm(runtime: RuntimeHandle) {
    let unpolled = runtime.sleep(SHORT);
    let mut polled = runtime.sleep(HANG);
    assert!((&mut polled).now_or_never().is_none());
    let other = runtime.sleep(SHORT * 2);
    drop((unpolled, polled));
    within(&runtime, "the other timer", other).await;
}

pub async fn a_far_deadline_does_no_harm(runtime: RuntimeHandle) {
    let mut far = runtime.sleep_until(Instant::from_nanos(u64::MAX));
    let mut year = runtime.sleep(Duration::from_secs(365 * 24 * 3600));
    assert!((&mut far).now_or_never().is_none());
    assert!((&mut year).now_or_never().is_none());
    within(&runtime, "a near timer", runtime.sleep(SHORT)).await;
    assert!((&mut far).now_or_never().is_none());
    assert!((&mut year).now_or_never().is_none());
}

pub async fn many_timers_all_fire(runtime: RuntimeHandle) {
    let start = runtime.now();
    let timers: Vec<_> = (0..500u32)
        .map(|n| {
            let deadline = start.after(Duration::from_micros(u64::from(n * 7919 % 20_000)));
            let (timer, clock) = (runtime.sleep_until(deadline), runtime.clone());
            runtime.spawn(async move {
                timer.await;
                clock.now() >= deadline
            })
        })
        .collect();
    let fired = within(&runtime, "all timers", join_all(timers)).await;
    assert!(fired.into_iter().all(|in_time| in_time == Ok(true)));
}

pub async fn a_timer_moves_between_tasks(runtime: RuntimeHandle) {
    let moved = async {
        loop {
            let mut timer = runtime.sleep(SHORT);
            // On a busy machine it may be over already, and is not worth moving.
            if (&mut timer).now_or_never().is_none() {
                break runtime.spawn(timer).await;
            }
        }
    };
    assert_eq!(within(&runtime, "the timer", moved).await, Ok(()));
}

pub async fn a_deadline_drops_the_loser(runtime: RuntimeHandle) {
    let (held, dropped) = oneshot::channel::<()>();
    let slow = async move {
        let _held = held;
        std::future::pending::<()>().await;
    };
    let deadline = runtime.now().after(SHORT);
    assert_eq!(within(&runtime, "the deadline", runtime.deadline(deadline, slow)).await, None);
    assert!(runtime.now() >= deadline);
    assert_eq!(dropped.now_or_never(), Some(Err(oneshot::Canceled)));
}

pub async fn a_deadline_gives_the_result(runtime: RuntimeHandle) {
    let deadline = runtime.now().after(HANG);
    let after_a_while = async {
        runtime.sleep(SHORT).await;
        1
    };
    assert_eq!(runtime.deadline(deadline, after_a_while).await, Some(1));
    // What is ready wins even over a deadline that has passed.
    assert_eq!(runtime.deadline(Instant::default(), async { 2 }).await, Some(2));
    assert!(runtime.now() < deadline);
}

pub async fn the_monotonic_clock_never_goes_back(runtime: RuntimeHandle) {
    let mut last = runtime.now();
    for round in 0..50 {
        if round % 10 == 0 {
            runtime.sleep(Duration::from_millis(1)).await;
        }
        let clock = runtime.clone();
        let elsewhere = runtime.spawn(async move { clock.now() });
        let elsewhere = within(&runtime, "the time", elsewhere).await.expect("the task ends");
        assert!(elsewhere >= last, "tasks agree on the time");
        last = runtime.now();
        assert!(last >= elsewhere);
    }
    assert!(last > Instant::default(), "it moves");
}

pub async fn the_wall_clock_is_plausible_and_moves(runtime: RuntimeHandle) {
    let year = 365 * 24 * 3600 * 1000;
    let before = runtime.wall();
    assert!(before > Timestamp::from_millis(50 * year), "before 2020: {before:?}");
    assert!(before < Timestamp::from_millis(130 * year), "after 2100: {before:?}");
    // It may be set back a little while the test runs, but not all the time.
    let moved = async {
        while runtime.wall() <= before {
            runtime.sleep(SHORT).await;
        }
    };
    within(&runtime, "a later time", moved).await;
}

pub async fn random_numbers_vary(runtime: RuntimeHandle) {
    let numbers: HashSet<u64> = (0..100).map(|_| runtime.random()).collect();
    assert!(numbers.len() > 95, "only {} of 100 differ", numbers.len());
    let (ones, zeros) = numbers.iter().fold((0, u64::MAX), |(or, and), n| (or | n, and & n));
    assert_eq!((ones, zeros), (u64::MAX, 0), "every bit varies");
}

pub async fn the_runtime_describes_itself(runtime: RuntimeHandle) {
    assert!(!runtime.name().is_empty());
    assert!(runtime.parallelism() >= 1);
    assert!(!format!("{runtime:?}").is_empty());
}
