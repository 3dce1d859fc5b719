//! What keys cost: to make, to look up with, to read back.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tierkeep::{CacheKey, KeyPart, MemoryBackend, Region};
use tierkeep_benches::micro;
use tierkeep_benches::peers::tierkeep as own;
use tierkeep_tokio::TokioRuntime;

fn key(criterion: &mut Criterion) {
    let runtime = micro::runtime();
    let build = tierkeep::Cache::builder(TokioRuntime::new(runtime.handle().clone()))
        .tier(MemoryBackend::entries(1_024))
        .build();
    let cache = runtime.block_on(build).expect("a cache in memory");
    let numbers: Region<u64, u64> = own::region(&cache, "number");
    let pairs: Region<u64, (u32, String)> =
        cache.region("pair").no_expiry().build().expect("a region of its own");
    let pair = (7_u32, "en-GB".to_owned());
    let mut group = criterion.benchmark_group("key");
    group.bench_function("region_key_u64", |bencher| bencher.iter(|| numbers.key(black_box(&123_456))));
    group.bench_function("region_key_pair", |bencher| bencher.iter(|| pairs.key(black_box(&pair))));
    // A look-up of what is not there: the key's text is made in a buffer, hashed and looked for, and no key is built.
    group.bench_function("peek_u64_absent", |bencher| {
        bencher.iter(|| numbers.peek(black_box(&123_456)).is_none())
    });
    group.bench_function("by_hand", |bencher| {
        bencher.iter(|| {
            let parts = [KeyPart::new("id", Some(black_box("123456"))), KeyPart::flag("full")];
            CacheKey::new("number", 1, parts)
        });
    });
    let key = CacheKey::new("number", 1, [KeyPart::new("id", Some("123456")), KeyPart::flag("full")]);
    group.bench_function("parse", |bencher| bencher.iter(|| CacheKey::parse(black_box(key.as_str()))));
    group.bench_function("clone", |bencher| bencher.iter(|| black_box(&key).clone()));
    group.finish();
    runtime.block_on(own::shutdown(&cache));
}

criterion_group! { name = benches; config = micro::criterion(); targets = key }
criterion_main!(benches);
