//! What a second thread adds.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use tierkeep_benches::clock::{CpuWatch, Watch, on_threads};
use tierkeep_benches::peers::tierkeep as own;
use tierkeep_benches::values::{Account, Identified};
use tierkeep_benches::{Comparison, Contest, Measure, Outcome, Setting, Unit, micro};

use crate::hit::{CAPACITY, ENTRIES, Warm};

pub(crate) const MEASURES: &[Measure] = &[Measure {
    names: &["hit_scale"],
    about: "hits per second of 2 threads, beside those of 1; both threads read all entries",
    run: scale,
}];

/// Lets threads share the operations, each from `first(thread)` on; `hit` is given the number of each.
fn round(
    threads: u64,
    operations: u64,
    first: impl Fn(u64) -> u64 + Sync,
    hits: impl Fn(std::ops::Range<u64>) + Sync,
) -> Vec<(Duration, Duration)> {
    let each = operations / threads;
    on_threads(threads as usize, |thread| {
        let from = first(thread as u64);
        let (watch, cpu) = (Watch::start(), CpuWatch::start());
        hits(from..from + each);
        (watch.elapsed(), cpu.elapsed())
    })
}

/// Until the last has finished, without what starting the threads cost.
fn wall(times: &[(Duration, Duration)]) -> Duration {
    times.iter().map(|(wall, _)| *wall).max().unwrap_or_default()
}

/// As if each thread had a processor to itself.
fn cpu(times: &[(Duration, Duration)]) -> Duration {
    times.iter().map(|(_, cpu)| *cpu).max().unwrap_or_default()
}

/// On a machine that is busy with other work the second thread finds no second processor: the line of the processor time
/// counts only while the threads really ran, and so shows only what they cost each other. What they cost each other is
/// that both write the lock's and the value's line of the same entries: the other lines show the same threads with half
/// of the entries each, a bare map read by both, and nothing but the reference counts.
fn scale(setting: &Setting) -> Outcome {
    let runtime = micro::runtime();
    let ours = runtime.block_on(Warm::<Account>::new());
    let bare = quick_cache::sync::Cache::new(CAPACITY as usize);
    for (id, key) in (0..).zip(&ours.keys) {
        bare.insert(key.clone(), Arc::new(Account::of(id)));
    }
    let hits = |numbers: std::ops::Range<u64>, entries: u64, offset: u64| {
        runtime.block_on(async {
            for n in numbers {
                let id = offset + n % entries;
                let value = ours.cache.get::<Account>(black_box(&ours.keys[id as usize])).await;
                assert_eq!(value.expect("a hit").id(), id);
            }
        });
    };
    let bare_hits = |numbers: std::ops::Range<u64>| {
        for n in numbers {
            let id = n % ENTRIES;
            let value = bare.get(black_box(&ours.keys[id as usize]));
            assert_eq!(value.expect("a hit").id(), id);
        }
    };
    let values: Vec<_> = (0..ENTRIES).map(|id| Arc::new(Account::of(id))).collect();
    let counts = |numbers: std::ops::Range<u64>| {
        for n in numbers {
            let id = n % ENTRIES;
            let value = Arc::clone(black_box(&values[id as usize]));
            assert_eq!(value.id(), id);
        }
    };
    // Half the entries apart: the threads meet at entries, and do not march in step.
    let half = |thread: u64| thread * ENTRIES / 2;
    let all = |threads, operations| round(threads, operations, half, |numbers| hits(numbers, ENTRIES, 0));
    // A thread's first number tells its half.
    let own_half = |threads, operations| {
        round(
            threads,
            operations,
            |thread| thread << 48,
            |numbers| {
                hits(numbers.clone(), ENTRIES / 2, (numbers.start >> 48) * ENTRIES / 2);
            },
        )
    };
    let of_bare = |threads, operations| round(threads, operations, half, bare_hits);
    let of_counts = |threads, operations| round(threads, operations, half, counts);
    let sides = Contest::new(setting, Unit::PerSecond)
        .timed("2-threads", |operations| wall(&all(2, operations)))
        .timed("1-thread", |operations| wall(&all(1, operations)))
        .timed("2-threads-cpu-time", |operations| cpu(&all(2, operations)))
        .timed("1-thread-cpu-time", |operations| cpu(&all(1, operations)))
        .timed("2-threads-own-half", |operations| wall(&own_half(2, operations)))
        .timed("1-thread-half", |operations| wall(&own_half(1, operations)))
        .timed("2-threads-bare-quick_cache", |operations| wall(&of_bare(2, operations)))
        .timed("1-thread-bare-quick_cache", |operations| wall(&of_bare(1, operations)))
        .timed("2-threads-reference-counts", |operations| wall(&of_counts(2, operations)))
        .timed("1-thread-reference-counts", |operations| wall(&of_counts(1, operations)))
        .run();
    runtime.block_on(own::shutdown(&ours.cache));
    let mut comparisons = vec![Comparison::new("hit_scale", Unit::PerSecond, 1.7, &sides[0], &sides[1])];
    let pairs = sides[2..].chunks_exact(2);
    comparisons
        .extend(pairs.map(|pair| Comparison::informative("hit_scale", Unit::PerSecond, &pair[0], &pair[1])));
    Ok(comparisons)
}
