//! When a failed actor is restarted, and when it is down.

use std::time::Duration;

use proptest::prelude::*;
use tierkeep::runtime::{Instant, RestartCounter, RestartDecision, RestartPolicy};

const MS: Duration = Duration::from_millis(1);
/// The least and the greatest jitter.
const LEAST: u64 = 0;
const MOST: u64 = u64::MAX;

fn policy(limit: u32) -> RestartPolicy {
    RestartPolicy { limit, window: MS * 1_000, backoff: MS * 100, backoff_max: MS * 350, retry: MS * 30_000 }
}

fn at(millis: u32) -> Instant {
    Instant::default().after(MS * millis)
}

#[test]
fn the_default_is_as_documented() {
    let RestartPolicy { limit, window, backoff, backoff_max, retry } = RestartPolicy::default();
    assert_eq!(limit, 5);
    assert_eq!(
        [window, backoff, backoff_max, retry].map(|duration| duration.as_millis()),
        [10_000, 100, 10_000, 30_000]
    );
}

#[test]
fn the_delay_doubles_up_to_its_maximum() {
    for (random, delays) in [(LEAST, [50, 100, 175, 175]), (MOST, [100, 200, 350, 350])] {
        let mut counter = RestartCounter::new(policy(4));
        for (n, delay) in (0..).zip(delays) {
            assert_eq!(counter.failed(at(n), random), RestartDecision::Restart(MS * delay));
            counter.started();
        }
    }
}

#[test]
fn the_failure_past_the_limit_takes_it_down() {
    for limit in [0, 1, 5] {
        let mut counter = RestartCounter::new(policy(limit));
        for n in 0..limit {
            assert!(matches!(counter.failed(at(n), MOST), RestartDecision::Restart(_)));
        }
        assert_eq!(counter.failed(at(limit), MOST), RestartDecision::Down(MS * 30_000));
        assert_eq!(counter.failed(at(limit), LEAST), RestartDecision::Down(MS * 15_000));
    }
}

#[test]
fn failures_are_forgotten_after_the_window() {
    let mut counter = RestartCounter::new(policy(2));
    for (millis, delay) in [(0, 100), (600, 200), (1_000, 200), (1_600, 200), (2_600, 100)] {
        assert_eq!(counter.failed(at(millis), MOST), RestartDecision::Restart(MS * delay), "at {millis} ms");
    }
}

#[test]
fn an_actor_stays_down_until_an_attempt_succeeds() {
    let mut counter = RestartCounter::new(policy(1));
    assert!(matches!(counter.failed(at(0), MOST), RestartDecision::Restart(_)));
    for millis in [0, 30_000, 60_000, 90_000] {
        assert!(matches!(counter.failed(at(millis), MOST), RestartDecision::Down(_)), "at {millis} ms");
    }
    counter.started();
    assert_eq!(counter.failed(at(90_001), MOST), RestartDecision::Restart(MS * 100), "it counts afresh");
}

#[test]
fn a_success_between_failures_does_not_hide_them() {
    let mut counter = RestartCounter::new(policy(2));
    for n in 0..2 {
        assert!(matches!(counter.failed(at(n), MOST), RestartDecision::Restart(_)));
        counter.started();
    }
    assert!(matches!(counter.failed(at(3), MOST), RestartDecision::Down(_)));
}

#[test]
fn extreme_policies_do_not_overflow() {
    let policy = RestartPolicy {
        limit: u32::MAX,
        window: Duration::MAX,
        backoff: Duration::MAX,
        backoff_max: Duration::MAX,
        retry: Duration::MAX,
    };
    let mut counter = RestartCounter::new(policy);
    for _ in 0..100 {
        assert!(matches!(counter.failed(Instant::from_nanos(u64::MAX), MOST), RestartDecision::Restart(_)));
    }
}

proptest! {
    #[test]
    fn no_window_holds_more_restarts_than_the_limit(
        limit in 0..6u32,
        steps in prop::collection::vec((0..400u32, any::<u64>()), 1..80),
    ) {
        let policy = policy(limit);
        let mut counter = RestartCounter::new(policy);
        let (mut now, mut restarts) = (Instant::default(), Vec::new());
        for (pause, random) in steps {
            now = now.after(MS * pause);
            match counter.failed(now, random) {
                RestartDecision::Restart(delay) => {
                    prop_assert!(delay >= policy.backoff / 2 && delay <= policy.backoff_max);
                    restarts.push(now);
                    // It restarts, and fails again later: as often as it likes, but for an outage.
                    counter.started();
                }
                RestartDecision::Down(delay) => {
                    prop_assert!(delay >= policy.retry / 2 && delay <= policy.retry);
                    let recent = restarts.iter().filter(|&&at| now.since(at) < policy.window).count();
                    prop_assert!(recent >= limit as usize, "down after only {recent} restarts in the window");
                    break;
                }
            }
            let recent = restarts.iter().filter(|&&at| now.since(at) < policy.window).count();
            prop_assert!(recent <= limit as usize);
        }
    }
}
