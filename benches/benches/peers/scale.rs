//! What a second thread adds.

use std::hint::black_box;
use std::time::Duration;

use tierkeep_benches::clock::{Watch, on_threads};
use tierkeep_benches::peers::tierkeep as own;
use tierkeep_benches::values::{Account, Identified};
use tierkeep_benches::{Comparison, Contest, Measure, Outcome, Setting, Unit};

use crate::hit::{ENTRIES, Warm, runtime};

pub(crate) const MEASURES: &[Measure] = &[Measure {
    names: &["hit_scale"],
    about: "hits per second of 2 threads, beside those of 1; both threads read all entries",
    run: scale,
}];

fn scale(setting: &Setting) -> Outcome {
    let runtime = runtime();
    let ours = runtime.block_on(Warm::<Account>::new());
    let round = |threads: u64, operations: u64| -> Duration {
        let each = operations / threads;
        let took = on_threads(threads as usize, |thread| {
            // Half the entries apart: the threads meet at entries, and do not march in step.
            let from = thread as u64 * ENTRIES / 2;
            runtime.block_on(async {
                let watch = Watch::start();
                for n in from..from + each {
                    let id = n % ENTRIES;
                    let value = ours.cache.get::<Account>(black_box(&ours.keys[id as usize])).await;
                    assert_eq!(value.expect("a hit").id(), id);
                }
                watch.elapsed()
            })
        });
        // Until the last has finished, without what starting the threads cost.
        took.into_iter().max().unwrap_or_default()
    };
    let sides = Contest::new(setting, Unit::PerSecond)
        .timed("2-threads", |operations| round(2, operations))
        .timed("1-thread", |operations| round(1, operations))
        .run();
    runtime.block_on(own::shutdown(&ours.cache));
    Ok(vec![Comparison::new("hit_scale", Unit::PerSecond, 1.7, &sides[0], &sides[1])])
}
