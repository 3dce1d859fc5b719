//! A hit in a byte tier below, which fills the memory tier.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::{Arc, Weak};

use tierkeep::Cache;
use tierkeep_benches::clock::Watch;
use tierkeep_benches::peers::bytes::BytesBackend;
use tierkeep_benches::peers::{hitbox, tierkeep as own};
use tierkeep_benches::values::{Identified, Page};
use tierkeep_benches::{Comparison, Contest, Measure, Outcome, Setting, Unit, micro};
use tierkeep_tokio::TokioRuntime;

pub(crate) const MEASURES: &[Measure] = &[Measure {
    names: &["l2_hit_6k"],
    about: "L1 miss, L2 byte-tier hit with refill, typed, 5,962 bytes",
    run: lower,
}];

const ENTRIES: u64 = 2_048;
const CAPACITY: u64 = 16 * ENTRIES;

/// Each round puts a new, empty memory tier above the same store and reads every entry once. It ends when every value
/// has arrived in the memory tier.
///
/// For the reader's information, what a cache that keeps values cannot save: the same values decoded by postcard alone,
/// and kept. hitbox keeps bytes and decodes at each hit, so its tiers take less memory in a round, and never pay it back.
fn lower(setting: &Setting) -> Outcome {
    let runtime = micro::runtime();
    let bytes = BytesBackend::new(CAPACITY);
    let compose = async || {
        own::compose(TokioRuntime::current(), own::memory("l1", CAPACITY as usize), bytes.clone()).await
    };
    let seed_bytes = hitbox::moka("l2", CAPACITY);
    let seed_compose = || hitbox::compose(hitbox::moka("l1", CAPACITY), seed_bytes.clone());
    let seed_keys: Arc<[_]> = (0..ENTRIES).map(|id| hitbox::key("bench", id)).collect();
    let keys: Arc<[_]> = runtime.block_on(async {
        let (cache, seed) = (compose().await, seed_compose());
        let region = own::region::<Page>(&cache, "bench");
        for id in 0..ENTRIES {
            region.set(&id, Page::of(id)).await.expect("a set in memory");
            hitbox::set(&seed, &seed_keys[id as usize], Page::of(id)).await;
        }
        own::shutdown(&cache).await;
        (0..ENTRIES).map(|id| region.key(&id)).collect()
    });
    let frames: Arc<[_]> =
        (0..ENTRIES).map(|id| postcard::to_stdvec(&Page::of(id)).expect("a plain struct")).collect();
    let pooled = Cell::new(0);
    let sides = Contest::new(setting, Unit::Nanos)
        .fixed("tierkeep", || {
            let (cache, keys) = (runtime.block_on(compose()), Arc::clone(&keys));
            let pooled = &pooled;
            let (took, decodes) = micro::on_worker(&runtime, async move {
                tidy();
                let watch = Watch::start();
                for (id, key) in (0..).zip(keys.iter()) {
                    let hit = cache.get::<Page>(black_box(key)).await.expect("the store has it");
                    assert_eq!((hit.id(), hit.tier().map(|tier| tier.as_str())), (id, Some("l2")));
                }
                refilled(&cache, ENTRIES).await;
                let took = watch.elapsed();
                let mut held = Vec::with_capacity(keys.len());
                for (id, key) in (0..).zip(keys.iter()) {
                    let hit = cache.get::<Page>(key).await.expect("it was refilled");
                    assert_eq!((hit.id(), hit.tier().map(|tier| tier.as_str())), (id, Some("l1")));
                    held.push(Arc::downgrade(hit.value()));
                }
                let decodes = cache.inspect().codec.pooled_decodes;
                own::shutdown(&cache).await;
                drop(cache);
                freed(held).await;
                (took, decodes)
            });
            pooled.set(pooled.get() + decodes);
            per_entry(took)
        })
        .fixed("hitbox", || {
            let upper = hitbox::moka("l1", CAPACITY);
            let (seed, seed_keys) =
                (hitbox::compose(upper.clone(), seed_bytes.clone()), Arc::clone(&seed_keys));
            micro::on_worker(&runtime, async move {
                tidy();
                let watch = Watch::start();
                for (id, key) in (0..).zip(seed_keys.iter()) {
                    let value: Page = hitbox::get(&seed, black_box(key)).await.expect("the store has it");
                    assert_eq!(value.id(), id);
                }
                let took = watch.elapsed();
                for (id, key) in (0..).zip(seed_keys.iter()) {
                    let value: Page = hitbox::get(&upper, key).await.expect("it was refilled");
                    assert_eq!(value.id(), id);
                }
                per_entry(took)
            })
        })
        .fixed("bare-decode", || {
            let frames = Arc::clone(&frames);
            micro::on_worker(&runtime, async move {
                tidy();
                let mut held = Vec::with_capacity(ENTRIES as usize);
                let watch = Watch::start();
                for (id, frame) in (0..).zip(frames.iter()) {
                    let value: Page = postcard::from_bytes(black_box(frame)).expect("it was encoded above");
                    assert_eq!(value.id(), id);
                    held.push(Arc::new(value));
                }
                per_entry(watch.elapsed())
            })
        })
        .run();
    eprintln!("  values that were decoded on the codec pool: {}", pooled.get());
    Ok(vec![
        Comparison::new("l2_hit_6k", Unit::Nanos, 2.0, &sides[0], &sides[1]),
        Comparison::informative("l2_hit_6k", Unit::Nanos, &sides[0], &sides[2]),
    ])
}

/// Has the allocator put together what earlier rounds have freed: glibc does so when more than a little is asked for, and
/// that would be in the round.
fn tidy() {
    drop(black_box(Vec::<u8>::with_capacity(100_000)));
}

/// Waits until the last of a cache's values is freed, which a task of its own does: it would fall into the next round.
async fn freed(held: Vec<Weak<Page>>) {
    for value in held {
        while value.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Waits until the upper tier holds this many entries.
pub(crate) async fn refilled(cache: &Cache, entries: u64) {
    loop {
        let inspection = cache.inspect();
        assert_eq!(inspection.refills_dropped, 0, "a refill was dropped: less work than the peer's");
        let held = inspection.tier("l1").and_then(|tier| tier.usage.entries);
        if held >= Some(entries) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand entries")]
fn per_entry(took: std::time::Duration) -> f64 {
    took.as_secs_f64() * 1e9 / ENTRIES as f64
}
