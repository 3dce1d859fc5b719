//! A set into a composition of two memory tiers.

use std::hint::black_box;
use std::sync::Arc;

use tierkeep_benches::clock::Watch;
use tierkeep_benches::peers::{cachet, hitbox, tierkeep as own};
use tierkeep_benches::values::{Account, Identified, TTL};
use tierkeep_benches::{Comparison, Contest, Measure, Outcome, Setting, Unit, micro};
use tierkeep_tokio::TokioRuntime;

use crate::hit::{CAPACITY, ENTRIES};

pub(crate) const MEASURES: &[Measure] = &[Measure {
    names: &["set_small"],
    about: "composed set into two memory tiers, 125 bytes with TTL, prebuilt key",
    run: set,
}];

/// Every side is given an owned value, made outside of the cache in the same way, and is read back at the end of each
/// round: the last write of every key must be there.
fn set(setting: &Setting) -> Outcome {
    let runtime = micro::runtime();
    let capacity = CAPACITY as usize;
    let ours = runtime.block_on(own::compose(
        TokioRuntime::new(runtime.handle().clone()),
        own::memory("l1", capacity),
        own::memory("l2", capacity),
    ));
    let region = own::region::<Account>(&ours, "bench");
    let keys: Arc<[_]> = (0..ENTRIES).map(|id| region.key(&id)).collect();
    let seed = hitbox::compose(hitbox::moka("l1", CAPACITY), hitbox::moka("l2", CAPACITY));
    let seed_keys: Arc<[_]> = (0..ENTRIES).map(|id| hitbox::key("bench", id)).collect();
    let cachet = Arc::new(runtime.block_on(async { cachet::compose::<Account>(CAPACITY, CAPACITY) }));
    let template = Account::of(0);
    // The value of a write tells the round's write apart from all others under the key.
    let written = move |n: u64| template.clone().renumbered(n);
    let last = move |operations: u64, id: u64| operations - 1 - (operations - 1 - id) % ENTRIES;
    let sides = Contest::new(setting, Unit::Nanos)
        .timed("tierkeep", |operations| {
            let (ours, keys, written) = (ours.clone(), Arc::clone(&keys), written.clone());
            micro::on_worker(&runtime, async move {
                let watch = Watch::start();
                for n in 0..operations {
                    let key = black_box(&keys[(n % ENTRIES) as usize]);
                    ours.set(key, written(n), Some(TTL)).await.expect("a set in memory");
                }
                let took = watch.elapsed();
                for id in 0..ENTRIES.min(operations) {
                    let value = ours.get::<Account>(&keys[id as usize]).await.expect("it was set");
                    assert_eq!(value.id(), last(operations, id));
                }
                took
            })
        })
        .timed("hitbox", |operations| {
            let (seed, seed_keys, written) = (seed.clone(), Arc::clone(&seed_keys), written.clone());
            micro::on_worker(&runtime, async move {
                let watch = Watch::start();
                for n in 0..operations {
                    let key = black_box(&seed_keys[(n % ENTRIES) as usize]);
                    hitbox::set(&seed, key, written(n)).await;
                }
                let took = watch.elapsed();
                for id in 0..ENTRIES.min(operations) {
                    let value: Account =
                        hitbox::get(&seed, &seed_keys[id as usize]).await.expect("it was set");
                    assert_eq!(value.id(), last(operations, id));
                }
                took
            })
        })
        .timed("cachet", |operations| {
            let (cachet, keys, written) = (Arc::clone(&cachet), Arc::clone(&keys), written.clone());
            micro::on_worker(&runtime, async move {
                let watch = Watch::start();
                for n in 0..operations {
                    let key = black_box(&keys[(n % ENTRIES) as usize]);
                    cachet::set(&cachet, key, written(n)).await;
                }
                let took = watch.elapsed();
                for id in 0..ENTRIES.min(operations) {
                    let value = cachet::get(&cachet, &keys[id as usize]).await.expect("it was set");
                    assert_eq!(value.id(), last(operations, id));
                }
                took
            })
        })
        .run();
    runtime.block_on(own::shutdown(&ours));
    Ok(vec![
        Comparison::new("set_small", Unit::Nanos, 3.0, &sides[0], &sides[1]),
        Comparison::informative("set_small", Unit::Nanos, &sides[0], &sides[2]),
    ])
}
