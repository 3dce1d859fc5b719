//! A hit in the topmost memory tier of a composition of two.

use std::hint::black_box;
use std::sync::Arc;

use hitbox_backend::CacheBackend;
use hitbox_backend::format::JsonFormat;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tierkeep::{Cache, CacheKey, Region};
use tierkeep_benches::clock::Watch;
use tierkeep_benches::peers::{cachet, hitbox, tierkeep as own};
use tierkeep_benches::values::{Account, Identified, Page};
use tierkeep_benches::{Comparison, Contest, Measure, Outcome, Setting, Unit, micro};
use tierkeep_tokio::TokioRuntime;
use tokio::runtime::Runtime;

pub(crate) const MEASURES: &[Measure] = &[
    Measure {
        names: &["hit_small", "hit_small_cachet"],
        about: "composed L1 hit, typed, 125 bytes with TTL, prebuilt key",
        run: small,
    },
    Measure { names: &["hit_6k"], about: "the same with 5,962 bytes", run: large },
    Measure { names: &["hit_built_key"], about: "typed key in, 125-byte value out", run: built_key },
];

/// A power of two: going round costs no division. All entries stay in the processor's caches, on both sides.
pub(crate) const ENTRIES: u64 = 1_024;
pub(crate) const CAPACITY: u64 = 16 * ENTRIES;

/// What a value must be to be cached by every side.
pub(crate) trait Value:
    Identified + Serialize + DeserializeOwned + Clone + Send + Sync + 'static
{
}
impl<T: Identified + Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Value for T {}

/// Our composition of two memory tiers with every entry in the upper one.
pub(crate) struct Warm<T> {
    pub(crate) cache: Cache,
    pub(crate) region: Region<T, u64>,
    pub(crate) keys: Vec<CacheKey>,
}

impl<T: Value> Warm<T> {
    pub(crate) async fn new() -> Self {
        let capacity = CAPACITY as usize;
        let cache =
            own::compose(TokioRuntime::current(), own::memory("l1", capacity), own::memory("l2", capacity))
                .await;
        let region = own::region::<T>(&cache, "bench");
        for id in 0..ENTRIES {
            region.set(&id, T::of(id)).await.expect("a set in memory");
        }
        let keys = (0..ENTRIES).map(|id| region.key(&id)).collect();
        for id in 0..ENTRIES {
            let hit = region.get(&id).await.expect("every entry is there");
            assert_eq!(hit.tier().map(|tier| tier.as_str()), Some("l1"));
        }
        Self { cache, region, keys }
    }
}

/// hitbox's composition of two moka tiers with every entry in both.
struct HitboxWarm<B> {
    backend: B,
    keys: Vec<hitbox_core::CacheKey>,
}

impl<B: CacheBackend> HitboxWarm<B> {
    async fn new<T: Value>(backend: B) -> Self {
        let keys: Vec<_> = (0..ENTRIES).map(|id| hitbox::key("bench", id)).collect();
        for (id, key) in (0..).zip(&keys) {
            hitbox::set(&backend, key, T::of(id)).await;
        }
        Self { backend, keys }
    }
}

/// The entry that operation `n` reads: round and round.
fn at(n: u64) -> (usize, u64) {
    ((n % ENTRIES) as usize, n % ENTRIES)
}

fn small(setting: &Setting) -> Outcome {
    let runtime = micro::runtime();
    let runtime = &runtime;
    let ours = runtime.block_on(Warm::<Account>::new());
    let composed = hitbox::compose(hitbox::moka("l1", CAPACITY), hitbox::moka("l2", CAPACITY));
    let seed = runtime.block_on(HitboxWarm::new::<Account>(composed));
    let composed = hitbox::compose(
        hitbox::moka_in(JsonFormat, "l1", CAPACITY),
        hitbox::moka_in(JsonFormat, "l2", CAPACITY),
    );
    let json = runtime.block_on(HitboxWarm::new::<Account>(composed));
    let cachet = runtime.block_on(async {
        let cache = cachet::compose(CAPACITY, CAPACITY);
        for id in 0..ENTRIES {
            cachet::set(&cache, &ours.keys[id as usize], Account::of(id)).await;
        }
        cache
    });
    let bare = Bare::new(&ours.keys);
    let sides = Contest::new(setting, Unit::Nanos)
        .timed("tierkeep", |operations| by_prebuilt_key(runtime, &ours, operations))
        .timed("hitbox", |operations| hitbox_round::<Account, _>(runtime, &seed, operations))
        .timed("cachet", |operations| {
            runtime.block_on(async {
                let watch = Watch::start();
                for n in 0..operations {
                    let (at, id) = at(n);
                    let value = cachet::get(&cachet, black_box(&ours.keys[at])).await;
                    assert_eq!(value.expect("a hit").id(), id);
                }
                watch.elapsed()
            })
        })
        .timed("hitbox-json", |operations| hitbox_round::<Account, _>(runtime, &json, operations))
        .timed("moka-future-bare", |operations| {
            runtime.block_on(async {
                let watch = Watch::start();
                for n in 0..operations {
                    let (at, id) = at(n);
                    let value = bare.moka_future.get(black_box(&ours.keys[at])).await;
                    assert_eq!(value.expect("a hit").id(), id);
                }
                watch.elapsed()
            })
        })
        .timed("moka-sync-bare", |operations| {
            bare_round(operations, |at| bare.moka_sync.get(black_box(&ours.keys[at])).map(|value| value.id()))
        })
        .timed("quick_cache-bare", |operations| {
            bare_round(operations, |at| bare.quick.get(black_box(&ours.keys[at])).map(|value| value.id()))
        })
        .timed("foyer-memory-bare", |operations| {
            bare_round(operations, |at| {
                bare.foyer.get(black_box(&ours.keys[at])).map(|value| value.value().id())
            })
        })
        .run();
    runtime.block_on(own::shutdown(&ours.cache));
    let [ours, hitbox, cachet, others @ ..] = &sides[..] else { unreachable!("eight sides") };
    let mut comparisons = vec![
        Comparison::new("hit_small", Unit::Nanos, 20.0, ours, hitbox),
        Comparison::new("hit_small_cachet", Unit::Nanos, 7.0, ours, cachet),
    ];
    comparisons
        .extend(others.iter().map(|other| Comparison::informative("hit_small", Unit::Nanos, ours, other)));
    Ok(comparisons)
}

fn large(setting: &Setting) -> Outcome {
    let runtime = micro::runtime();
    let ours = runtime.block_on(Warm::<Page>::new());
    let composed = hitbox::compose(hitbox::moka("l1", CAPACITY), hitbox::moka("l2", CAPACITY));
    let seed = runtime.block_on(HitboxWarm::new::<Page>(composed));
    let composed = hitbox::compose(
        hitbox::moka_in(JsonFormat, "l1", CAPACITY),
        hitbox::moka_in(JsonFormat, "l2", CAPACITY),
    );
    let json = runtime.block_on(HitboxWarm::new::<Page>(composed));
    let sides = Contest::new(setting, Unit::Nanos)
        .timed("tierkeep", |operations| by_prebuilt_key(&runtime, &ours, operations))
        .timed("hitbox", |operations| hitbox_round::<Page, _>(&runtime, &seed, operations))
        .timed("hitbox-json", |operations| hitbox_round::<Page, _>(&runtime, &json, operations))
        .run();
    runtime.block_on(own::shutdown(&ours.cache));
    Ok(vec![
        Comparison::new("hit_6k", Unit::Nanos, 150.0, &sides[0], &sides[1]),
        Comparison::informative("hit_6k", Unit::Nanos, &sides[0], &sides[2]),
    ])
}

fn built_key(setting: &Setting) -> Outcome {
    let runtime = micro::runtime();
    let ours = runtime.block_on(Warm::<Account>::new());
    let composed = hitbox::compose(hitbox::moka("l1", CAPACITY), hitbox::moka("l2", CAPACITY));
    let seed = runtime.block_on(HitboxWarm::new::<Account>(composed));
    let sides = Contest::new(setting, Unit::Nanos)
        .timed("tierkeep", |operations| {
            runtime.block_on(async {
                let watch = Watch::start();
                for n in 0..operations {
                    let (_, id) = at(n);
                    let value = ours.region.get(&black_box(id)).await;
                    assert_eq!(value.expect("a hit").id(), id);
                }
                watch.elapsed()
            })
        })
        .timed("hitbox", |operations| {
            runtime.block_on(async {
                let watch = Watch::start();
                for n in 0..operations {
                    let (_, id) = at(n);
                    let key = hitbox::key("bench", black_box(id));
                    let value: Option<Account> = hitbox::get(&seed.backend, &key).await;
                    assert_eq!(value.expect("a hit").id(), id);
                }
                watch.elapsed()
            })
        })
        .run();
    runtime.block_on(own::shutdown(&ours.cache));
    Ok(vec![Comparison::new("hit_built_key", Unit::Nanos, 12.0, &sides[0], &sides[1])])
}

fn by_prebuilt_key<T: Value>(runtime: &Runtime, ours: &Warm<T>, operations: u64) -> std::time::Duration {
    runtime.block_on(async {
        let watch = Watch::start();
        for n in 0..operations {
            let (at, id) = at(n);
            let value = ours.cache.get::<T>(black_box(&ours.keys[at])).await;
            assert_eq!(value.expect("a hit").id(), id);
        }
        watch.elapsed()
    })
}

fn hitbox_round<T: Value, B: CacheBackend>(
    runtime: &Runtime,
    seed: &HitboxWarm<B>,
    operations: u64,
) -> std::time::Duration {
    runtime.block_on(async {
        let watch = Watch::start();
        for n in 0..operations {
            let (at, id) = at(n);
            let value: Option<T> = hitbox::get(&seed.backend, black_box(&seed.keys[at])).await;
            assert_eq!(value.expect("a hit").id(), id);
        }
        watch.elapsed()
    })
}

/// Single maps, without tiers, TTLs or counters: what a hit could cost at least. Only for the reader's information.
struct Bare {
    moka_future: moka::future::Cache<CacheKey, Arc<Account>>,
    moka_sync: moka::sync::Cache<CacheKey, Arc<Account>>,
    quick: quick_cache::sync::Cache<CacheKey, Arc<Account>>,
    foyer: foyer_memory::Cache<CacheKey, Arc<Account>>,
}

impl Bare {
    fn new(keys: &[CacheKey]) -> Self {
        let bare = Self {
            moka_future: moka::future::Cache::new(CAPACITY),
            moka_sync: moka::sync::Cache::new(CAPACITY),
            quick: quick_cache::sync::Cache::new(CAPACITY as usize),
            foyer: foyer_memory::CacheBuilder::new(CAPACITY as usize).build(),
        };
        for (id, key) in (0..).zip(keys) {
            let value = Arc::new(Account::of(id));
            futures_executor::block_on(bare.moka_future.insert(key.clone(), Arc::clone(&value)));
            bare.moka_sync.insert(key.clone(), Arc::clone(&value));
            bare.quick.insert(key.clone(), Arc::clone(&value));
            bare.foyer.insert(key.clone(), value);
        }
        bare
    }
}

fn bare_round(operations: u64, get: impl Fn(usize) -> Option<u64>) -> std::time::Duration {
    let watch = Watch::start();
    for n in 0..operations {
        let (at, id) = at(n);
        assert_eq!(get(at), Some(id));
    }
    watch.elapsed()
}
