use proptest::prelude::*;

use super::*;

/// Random bits that make every delay as long as it can be.
const LONGEST: u64 = u64::MAX;

fn ms(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn breaker() -> Breaker {
    Breaker::new(BreakerOptions::default())
}

fn epoch(breaker: &Breaker, now: Instant) -> Epoch {
    match breaker.allow(now) {
        Admission::Yes(epoch) => epoch,
        other => panic!("expected a closed breaker, got {other:?}"),
    }
}

fn probe(breaker: &Breaker, now: Instant) -> ProbePermit {
    match breaker.allow(now) {
        Admission::Probe(permit) => permit,
        other => panic!("expected a probe, got {other:?}"),
    }
}

fn until(breaker: &Breaker, now: Instant) -> Instant {
    match breaker.allow(now) {
        Admission::No { until } => until,
        other => panic!("expected to be turned away, got {other:?}"),
    }
}

fn record(breaker: &Breaker, ok: bool, count: u32, now: Instant) -> bool {
    let epoch = epoch(breaker, now);
    breaker.record(epoch, ok, count, now, LONGEST)
}

fn opened_at(now: Instant) -> Breaker {
    let breaker = breaker();
    assert!(record(&breaker, false, 20, now));
    breaker
}

#[test]
fn opens_at_half_of_at_least_twenty_calls() {
    let few = breaker();
    assert!(!record(&few, false, 19, ms(0)));
    assert_eq!(few.state(), BreakerState::Closed);

    let mostly_well = breaker();
    assert!(!record(&mostly_well, true, 11, ms(0)));
    assert!(!record(&mostly_well, false, 10, ms(0)));
    assert!(record(&mostly_well, false, 1, ms(0)), "11 of 22 is half");
    assert_eq!(mostly_well.state(), BreakerState::Open);
    assert_eq!(mostly_well.opened_total(), 1);
}

#[test]
fn the_twentieth_call_opens_even_if_it_succeeds() {
    let breaker = breaker();
    record(&breaker, false, 19, ms(0));
    assert!(record(&breaker, true, 1, ms(0)));
}

#[test]
fn failures_leave_the_window_after_its_length() {
    let breaker = breaker();
    record(&breaker, false, 19, ms(0));
    assert!(!record(&breaker, false, 1, ms(10_000)), "the first 19 are a window old");
    assert!(!record(&breaker, false, 18, ms(19_900)), "19 in the window");
    assert!(record(&breaker, false, 1, ms(19_900)));
}

#[test]
fn failures_stay_in_the_window_until_its_last_tenth() {
    let breaker = breaker();
    record(&breaker, false, 19, ms(999));
    assert!(record(&breaker, false, 1, ms(9_999)));
}

#[test]
fn a_long_silence_empties_the_window() {
    let breaker = breaker();
    record(&breaker, false, 19, ms(0));
    assert!(!record(&breaker, false, 1, ms(86_400_000)));
}

#[test]
fn time_that_steps_back_between_threads_counts_in_the_newest_tenth() {
    let breaker = breaker();
    let epoch = epoch(&breaker, ms(5_000));
    assert!(!breaker.record(epoch, false, 10, ms(5_000), LONGEST));
    assert!(breaker.record(epoch, false, 10, ms(3_000), LONGEST));
}

#[test]
fn turns_calls_away_until_its_time_is_over() {
    let breaker = opened_at(ms(0));
    assert_eq!(until(&breaker, ms(0)), ms(1_000));
    assert_eq!(until(&breaker, ms(999)), ms(1_000));
    let permit = probe(&breaker, ms(1_000));
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    permit.succeeded();
}

#[test]
fn jitter_shortens_to_half_at_most() {
    let breaker = breaker();
    let epoch = epoch(&breaker, ms(0));
    breaker.record(epoch, false, 20, ms(0), 0);
    assert_eq!(until(&breaker, ms(0)), ms(500));
}

#[test]
fn failed_probes_double_the_time_up_to_the_maximum() {
    let breaker = opened_at(ms(0));
    let mut now = ms(1_000);
    for expected in [2_u64, 4, 8, 16, 30, 30] {
        probe(&breaker, now).failed(now, LONGEST);
        let next = until(&breaker, now);
        assert_eq!(next.since(now), Duration::from_secs(expected));
        now = next;
    }
    assert_eq!(breaker.opened_total(), 7);
}

#[test]
fn a_successful_probe_closes_with_an_empty_window_and_the_first_delay() {
    let breaker = opened_at(ms(0));
    probe(&breaker, ms(1_000)).failed(ms(1_000), LONGEST);
    probe(&breaker, ms(3_000)).succeeded();
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert!(!record(&breaker, false, 19, ms(3_000)), "earlier failures are forgotten");
    assert!(record(&breaker, false, 1, ms(3_000)));
    assert_eq!(until(&breaker, ms(3_000)), ms(4_000));
}

#[test]
fn a_vanished_probe_counts_as_failed_from_when_it_was_granted() {
    let breaker = opened_at(ms(0));
    drop(probe(&breaker, ms(1_000)));
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(until(&breaker, ms(1_500)), ms(3_000));
    probe(&breaker, ms(3_000)).succeeded();
}

#[test]
fn late_results_change_nothing_while_open_or_half_open() {
    let breaker = breaker();
    let early = epoch(&breaker, ms(0));
    record(&breaker, false, 20, ms(0));
    assert!(!breaker.record(early, true, 1_000, ms(10), LONGEST));
    assert_eq!(breaker.state(), BreakerState::Open);

    let permit = probe(&breaker, ms(1_000));
    assert!(!breaker.record(early, true, 1_000, ms(1_000), LONGEST));
    assert!(!breaker.record(early, false, 1_000, ms(1_000), LONGEST));
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    permit.succeeded();
}

#[test]
fn late_failures_of_an_outage_do_not_reopen_a_closed_breaker() {
    let breaker = breaker();
    let early = epoch(&breaker, ms(0));
    record(&breaker, false, 20, ms(0));
    probe(&breaker, ms(1_000)).succeeded();
    assert!(!breaker.record(early, false, 1_000, ms(1_001), LONGEST));
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn disabled_never_opens() {
    let breaker = Breaker::new(BreakerOptions::disabled());
    assert!(!record(&breaker, false, u32::MAX, ms(0)));
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn options_that_cannot_work_are_named() {
    let good = BreakerOptions::default();
    assert!(good.validate().is_ok());
    assert!(BreakerOptions { open: Duration::ZERO, ..BreakerOptions::disabled() }.validate().is_ok());
    for (bad, name) in [
        (BreakerOptions { failure_percent: 0, ..good }, "failure_percent"),
        (BreakerOptions { failure_percent: 101, ..good }, "failure_percent"),
        (BreakerOptions { min_calls: 0, ..good }, "min_calls"),
        (BreakerOptions { window: Duration::ZERO, ..good }, "window"),
        (BreakerOptions { open: Duration::ZERO, ..good }, "breaker.open "),
        (BreakerOptions { open_max: Duration::from_millis(999), ..good }, "open_max"),
    ] {
        let error = bad.validate().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains(name), "{error}");
    }
}

#[test]
fn of_many_threads_one_gets_the_probe() {
    for _ in 0..200 {
        let breaker = opened_at(ms(0));
        let start = std::sync::Barrier::new(4);
        let ask = || {
            start.wait();
            breaker.allow(ms(1_000))
        };
        let answers: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let probes = answers.iter().filter(|answer| matches!(answer, Admission::Probe(_))).count();
        assert_eq!(probes, 1, "{answers:?}");
    }
}

/// What callers can do, in any order.
#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Send,
    /// A call sent earlier ends: which one, and how.
    End(usize, bool, u32),
    Succeed,
    Fail,
    Vanish,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0_u64..40_000).prop_map(Step::Wait),
        4 => Just(Step::Send),
        4 => (any::<usize>(), prop::bool::weighted(0.3), 1_u32..30).prop_map(|(i, ok, n)| Step::End(i, ok, n)),
        1 => Just(Step::Succeed),
        1 => Just(Step::Fail),
        1 => Just(Step::Vanish),
    ]
}

proptest! {
    #[test]
    fn one_probe_at_a_time_and_never_stuck(
        steps in prop::collection::vec(step(), 1..200),
        random in any::<u64>(),
    ) {
        let breaker = breaker();
        let mut now = ms(0);
        let mut sent = Vec::new();
        let mut permit = None;
        for step in steps {
            match step {
                Step::Wait(millis) => now = now.after(Duration::from_millis(millis)),
                Step::Send => match breaker.allow(now) {
                    Admission::Yes(epoch) => {
                        prop_assert!(permit.is_none(), "a call went through beside the probe");
                        sent.push(epoch);
                    }
                    Admission::Probe(granted) => {
                        prop_assert!(permit.is_none(), "two probes at once");
                        permit = Some(granted);
                    }
                    Admission::No { until } => prop_assert!(until > now, "turned away without a reason"),
                },
                Step::End(which, ok, count) if !sent.is_empty() => {
                    let epoch = sent.swap_remove(which % sent.len());
                    let before = (breaker.state(), breaker.opened_total());
                    let opened = breaker.record(epoch, ok, count, now, random);
                    if permit.is_some() || epoch != Epoch(before.1) {
                        prop_assert!(!opened);
                        prop_assert_eq!(before, (breaker.state(), breaker.opened_total()));
                    }
                }
                Step::End(..) => {}
                Step::Succeed => {
                    if let Some(permit) = permit.take() {
                        permit.succeeded();
                        prop_assert_eq!(breaker.state(), BreakerState::Closed);
                    }
                }
                Step::Fail => {
                    if let Some(permit) = permit.take() {
                        permit.failed(now, random);
                        prop_assert_eq!(breaker.state(), BreakerState::Open);
                    }
                }
                Step::Vanish => permit = None,
            }
            prop_assert_eq!(permit.is_some(), breaker.state() == BreakerState::HalfOpen);
        }
        // Whatever happened, with no probe outstanding a call gets through within the longest delay.
        drop(permit);
        let later = now.after(Duration::from_secs(30));
        let answer = breaker.allow(later);
        prop_assert!(!matches!(answer, Admission::No { .. }), "stuck: {:?}", answer);
    }
}
