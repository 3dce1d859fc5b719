//! What a second thread adds.

use std::hint::black_box;

use tierkeep_benches::clock::{CpuWatch, Watch, on_threads};
use tierkeep_benches::peers::tierkeep as own;
use tierkeep_benches::values::{Account, Identified};
use tierkeep_benches::{Comparison, Contest, Measure, Outcome, Setting, Unit, micro};

use crate::hit::{ENTRIES, Warm};

pub(crate) const MEASURES: &[Measure] = &[Measure {
    names: &["hit_scale"],
    about: "hits per second of 2 threads, beside those of 1; both threads read all entries",
    run: scale,
}];

/// On a machine that is busy with other work the second thread finds no second processor: the informative line counts
/// the time that the threads really ran, and so shows only what they cost each other.
fn scale(setting: &Setting) -> Outcome {
    let runtime = micro::runtime();
    let ours = runtime.block_on(Warm::<Account>::new());
    let round = |threads: u64, operations: u64| {
        let each = operations / threads;
        on_threads(threads as usize, |thread| {
            // Half the entries apart: the threads meet at entries, and do not march in step.
            let from = thread as u64 * ENTRIES / 2;
            runtime.block_on(async {
                let (watch, cpu) = (Watch::start(), CpuWatch::start());
                for n in from..from + each {
                    let id = n % ENTRIES;
                    let value = ours.cache.get::<Account>(black_box(&ours.keys[id as usize])).await;
                    assert_eq!(value.expect("a hit").id(), id);
                }
                (watch.elapsed(), cpu.elapsed())
            })
        })
    };
    // Until the last has finished, without what starting the threads cost.
    let wall = |threads, operations| round(threads, operations).into_iter().map(|(wall, _)| wall).max();
    // As if each thread had a processor to itself.
    let cpu = |threads, operations| round(threads, operations).into_iter().map(|(_, cpu)| cpu).max();
    let sides = Contest::new(setting, Unit::PerSecond)
        .timed("2-threads", |operations| wall(2, operations).unwrap_or_default())
        .timed("1-thread", |operations| wall(1, operations).unwrap_or_default())
        .timed("2-threads-cpu-time", |operations| cpu(2, operations).unwrap_or_default())
        .timed("1-thread-cpu-time", |operations| cpu(1, operations).unwrap_or_default())
        .run();
    runtime.block_on(own::shutdown(&ours.cache));
    Ok(vec![
        Comparison::new("hit_scale", Unit::PerSecond, 1.7, &sides[0], &sides[1]),
        Comparison::informative("hit_scale", Unit::PerSecond, &sides[2], &sides[3]),
    ])
}
