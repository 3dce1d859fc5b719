//! What a set costs: into one memory tier, into two, and into a memory tier above a store of bytes.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tierkeep::{Cache, Region, Tier};
use tierkeep_benches::micro;
use tierkeep_benches::peers::bytes::BytesBackend;
use tierkeep_benches::peers::tierkeep as own;
use tierkeep_benches::values::{Account, Identified, TTL};
use tierkeep_tokio::TokioRuntime;

const ENTRIES: u64 = 1_024;
const CAPACITY: usize = 16 * 1_024;

fn set(criterion: &mut Criterion) {
    let runtime = micro::runtime();
    let open = |tiers: Vec<Tier>| -> (Cache, Region<Account, u64>) {
        let builder = Cache::builder(TokioRuntime::new(runtime.handle().clone()));
        let builder = tiers.into_iter().fold(builder, |builder, tier| builder.tier(tier));
        let cache = runtime.block_on(builder.build()).expect("a cache in memory");
        let region = own::region(&cache, "bench");
        (cache, region)
    };
    let value = Account::of(1);
    let mut group = criterion.benchmark_group("set");
    let memory = |label| own::memory(label, CAPACITY);
    let caches = [
        ("one_memory_tier", open(vec![memory("l1")])),
        ("two_memory_tiers", open(vec![memory("l1"), memory("l2")])),
        ("memory_over_bytes", open(vec![memory("l1"), Tier::new(BytesBackend::new(CAPACITY as u64))])),
    ];
    for (name, (cache, region)) in &caches {
        let keys: Vec<_> = (0..ENTRIES).map(|id| region.key(&id)).collect();
        let mut at = 0;
        group.bench_function(*name, |bencher| {
            bencher.to_async(&runtime).iter(|| {
                at = (at + 1) % keys.len();
                let set = cache.set(black_box(&keys[at]), value.clone(), Some(TTL));
                async { set.await.expect("a set in memory") }
            });
        });
    }
    group.finish();
    for (_, (cache, _)) in &caches {
        runtime.block_on(own::shutdown(cache));
    }
}

criterion_group! { name = benches; config = micro::criterion(); targets = set }
criterion_main!(benches);
