//! A thousand random caches under faults; and every planted bug is noticed.

#[cfg(feature = "journal")]
#[path = "exploration/given_up.rs"]
mod given_up;

use std::collections::BTreeMap;
use std::io::Write;

use tierkeep::{Plant, plant};
use tierkeep_sim::exploration::{Scenario, newest_stamp_wins, run};

/// Seeds that a planted bug may take to show.
const PATIENCE: u64 = 1000;

/// Past the capture of passing tests: how soon each bug is noticed is what one runs them for.
fn say(line: std::fmt::Arguments<'_>) {
    writeln!(std::io::stdout(), "{line}").expect("stdout is open");
}

fn quiet() {
    // Planned panics are part of the work; a failing assertion still says where it stands.
    std::panic::set_hook(Box::new(|panic| {
        if panic.location().is_some_and(|location| location.file().ends_with("tests/exploration.rs")) {
            eprintln!("{panic}");
        }
    }));
}

#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation; test.sh runs it in release")]
#[test]
fn a_thousand_seeds_without_a_violation() {
    quiet();
    let mut checked = 0;
    let mut faults = BTreeMap::<_, u64>::new();
    for seed in 0..1000 {
        let outcome = run(&Scenario::draw(seed));
        assert!(outcome.violations.is_empty(), "seed {seed}: {:?}", outcome.violations);
        assert_eq!(newest_stamp_wins(seed), None, "seed {seed}");
        checked += outcome.checked;
        for (fault, n) in outcome.faults {
            *faults.entry(fault).or_default() += n;
        }
    }
    say(format_args!("seeds=1000 ops_checked={checked}"));
    let idle: Vec<_> = faults.iter().filter(|(_, n)| **n == 0).map(|(fault, _)| fault).collect();
    assert!(idle.is_empty(), "never struck: {idle:?}");
    assert!(checked > 100_000, "only {checked} operations were checked");
}

#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation; test.sh runs it in release")]
#[test]
fn a_thousand_seeds_of_write_behind_without_a_violation() {
    quiet();
    let mut checked = 0;
    for seed in 0..1000 {
        let outcome = run(&Scenario::draw_behind(seed));
        assert!(outcome.violations.is_empty(), "seed {seed}: {:?}", outcome.violations);
        checked += outcome.checked;
    }
    say(format_args!("write-behind: seeds=1000 ops_checked={checked}"));
    assert!(checked > 100_000, "only {checked} operations were checked");
}

#[cfg(feature = "journal")]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation; test.sh runs it in release")]
#[test]
fn seeds_of_restarts_lose_nothing_that_was_acknowledged() {
    quiet();
    const SEEDS: u64 = 5000;
    let (mut acknowledged, mut recovered, mut redriven, mut crashes) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        let restarts = tierkeep_sim::exploration::restarts(seed);
        assert!(restarts.violations.is_empty(), "seed {seed}: {:?}", restarts.violations);
        acknowledged += restarts.acknowledged;
        recovered += restarts.recovered;
        redriven += restarts.redriven;
        crashes += restarts.crashes;
    }
    say(format_args!(
        "restarts: seeds={SEEDS} crashes={crashes} acknowledged={acknowledged} recovered={recovered} redriven={redriven}"
    ));
    assert!(
        recovered > 1000 && redriven > 100,
        "recovered {recovered}, redriven {redriven}: too few to say much"
    );
}

#[cfg(feature = "journal")]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation; test.sh runs it in release")]
#[test]
fn every_planted_bug_of_journals_is_noticed() {
    quiet();
    let mut missed = Vec::new();
    for bug in Plant::JOURNAL {
        plant(Some(bug));
        let caught =
            (0..PATIENCE).find(|&seed| !tierkeep_sim::exploration::restarts(seed).violations.is_empty());
        plant(None);
        match caught {
            Some(seed) => say(format_args!("planted {bug:?}: caught at seed {seed}")),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not noticed within {PATIENCE} seeds: {missed:?}");
}

#[test]
fn the_same_seed_plays_the_same_way() {
    quiet();
    for seed in 0..50 {
        for scenario in [Scenario::draw(seed), Scenario::draw_behind(seed)] {
            assert_eq!(run(&scenario).trace, run(&scenario).trace, "seed {seed}");
        }
    }
}

#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation; test.sh runs it in release")]
#[test]
fn every_planted_bug_is_noticed() {
    quiet();
    let mut took = Vec::new();
    let mut missed = Vec::new();
    for bug in Plant::ALL.into_iter().chain(Plant::BEHIND) {
        plant(Some(bug));
        let behind = Plant::BEHIND.contains(&bug);
        let caught = (0..PATIENCE).find(|&seed| match behind {
            true => !run(&Scenario::draw_behind(seed)).violations.is_empty(),
            false => !run(&Scenario::draw(seed)).violations.is_empty() || newest_stamp_wins(seed).is_some(),
        });
        plant(None);
        match caught {
            Some(seed) => {
                say(format_args!("planted {bug:?}: caught at seed {seed}"));
                took.push(seed + 1);
            }
            None => missed.push(bug),
        }
    }
    took.sort_unstable();
    let median = took.get(took.len() / 2).copied().unwrap_or(0);
    let all = Plant::ALL.len() + Plant::BEHIND.len();
    say(format_args!("caught={}/{all} median_seeds={median}", took.len()));
    assert!(missed.is_empty(), "not noticed within {PATIENCE} seeds: {missed:?}");
}
