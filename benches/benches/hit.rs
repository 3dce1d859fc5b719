//! What a hit in the topmost memory tier costs: by a key made before, by a typed key, without the region's counting,
//! and beside them the bare map that it comes from.
//!
//! All four go round the same 1,024 entries, which stay in the processor's caches, and share the values' type and the
//! hash; so what is between them and the floor is the engine.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use serde::{Deserialize, Serialize};
#[cfg(feature = "prometheus")]
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Cache, CacheKey, KeyHash, MemoryBackend, Region};
use tierkeep_sim::MapBackend;
use tierkeep_tokio::TokioRuntime;
use tokio::runtime::Runtime;

/// A power of two: going round costs no division.
const ENTRIES: usize = 1_024;

/// A hundred and twenty-five bytes of data in one allocation.
#[derive(Clone, Serialize, Deserialize)]
struct Quote {
    at: u64,
    bid: u64,
    ask: u64,
    volume: u64,
    open: bool,
    venue: [u8; 30],
    symbol: [u8; 30],
    book: [u8; 32],
}

impl Quote {
    fn new(id: u64) -> Self {
        Self {
            at: id,
            bid: id + 1,
            ask: id + 2,
            volume: id * 1_000,
            open: true,
            venue: [1; 30],
            symbol: [2; 30],
            book: [3; 32],
        }
    }
}

/// A cache of two tiers whose upper one has every entry.
struct Warm {
    runtime: Runtime,
    cache: Cache,
    region: Region<Quote, u64>,
    keys: Vec<CacheKey>,
}

impl Warm {
    fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        #[cfg(feature = "prometheus")]
        install_recorder(&runtime);
        let (cache, region) = runtime.block_on(async {
            let cache = Cache::builder(TokioRuntime::current())
                .tier(MemoryBackend::entries(16 * ENTRIES))
                .tier(MapBackend::new())
                .build()
                .await
                .unwrap();
            let region: Region<Quote, u64> =
                cache.region("quote").ttl(Duration::from_secs(24 * 3_600)).build().unwrap();
            for id in 0..ENTRIES as u64 {
                region.set(&id, Quote::new(id)).await.unwrap();
            }
            (cache, region)
        });
        let keys: Vec<_> = (0..ENTRIES as u64).map(|id| region.key(&id)).collect();
        let warm = Self { runtime, cache, region, keys };
        for id in 0..ENTRIES as u64 {
            let hit = warm.region.peek(&id).expect("the upper tier has every entry");
            assert_eq!(hit.at, id);
        }
        warm
    }
}

/// As a service has it: scraped or not, the exporter takes up its samples every five seconds.
#[cfg(feature = "prometheus")]
fn install_recorder(runtime: &Runtime) {
    let scrapes = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().unwrap();
    let timers = RuntimeHandle::new(TokioRuntime::new(runtime.handle().clone()));
    runtime.spawn(async move {
        loop {
            timers.sleep(Duration::from_secs(5)).await;
            scrapes.run_upkeep();
        }
    });
}

/// The next of the entries, round and round.
fn next(at: &mut usize) -> usize {
    *at = (*at + 1) % ENTRIES;
    *at
}

fn hit(criterion: &mut Criterion) {
    let warm = Warm::new();
    let mut group = criterion.benchmark_group("hit");
    let mut at = 0;
    group.bench_function("cache_get_prebuilt_key", |bencher| {
        bencher.to_async(&warm.runtime).iter(|| {
            let key = black_box(&warm.keys[next(&mut at)]);
            let cache = &warm.cache;
            async move { cache.get::<Quote>(key).await.expect("a hit") }
        });
    });
    group.bench_function("region_get_typed_key", |bencher| {
        bencher.to_async(&warm.runtime).iter(|| {
            let key = black_box(next(&mut at) as u64);
            let region = &warm.region;
            async move { region.get(&key).await.expect("a hit") }
        });
    });
    group.bench_function("region_peek_typed_key", |bencher| {
        bencher.iter(|| warm.region.peek(&black_box(next(&mut at) as u64)).expect("a hit"));
    });
    let bare = quick_cache::sync::Cache::with(
        16 * ENTRIES,
        16 * ENTRIES as u64,
        quick_cache::UnitWeighter,
        KeyHash,
        quick_cache::sync::DefaultLifecycle::default(),
    );
    for (key, id) in warm.keys.iter().zip(0..) {
        bare.insert(key.clone(), Arc::new(Quote::new(id)));
    }
    group.bench_function("floor_bare_quick_cache", |bencher| {
        bencher.iter(|| bare.get(black_box(&warm.keys[next(&mut at)])).expect("a hit"));
    });
    group.finish();
    assert!(warm.runtime.block_on(warm.cache.shutdown(Duration::from_secs(10))).clean);
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(40)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4));
    targets = hit
}
criterion_main!(benches);
