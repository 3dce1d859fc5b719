//! An rkyv value of a byte tier: read where it lies, or decoded.

use std::hint::black_box;

use tierkeep::codec::{CodecOptions, RkyvFormat};
use tierkeep::{Cache, Region};
use tierkeep_benches::clock::Watch;
use tierkeep_benches::peers::bytes::BytesBackend;
use tierkeep_benches::peers::tierkeep as own;
use tierkeep_benches::values::{Catalogue, Identified};
use tierkeep_benches::{Comparison, Contest, Measure, Outcome, Setting, Unit, micro};
use tierkeep_tokio::TokioRuntime;

pub(crate) const MEASURES: &[Measure] = &[Measure {
    names: &["archived"],
    about: "64 kB rkyv value from a byte tier: full decode, beside a validated archived view",
    run: archived,
}];

const ENTRIES: u64 = 64;

/// A cache of one byte tier serves both sides: nothing is refilled, so each read goes to the store. Both look at the id
/// and the number of lines. A full decode takes longer than the codec's budget and so goes to the blocking pool and back;
/// beside it, for the reader's information, one in the caller's task, in a cache that has no other limit.
fn archived(setting: &Setting) -> Outcome {
    let runtime = micro::runtime();
    let (cache, region) = runtime.block_on(open(CodecOptions::default()));
    let (unlimited, in_place) = runtime.block_on(open(CodecOptions::default().inline_decode(usize::MAX)));
    let decoded = |region: &Region<Catalogue, u64>, operations: u64| {
        let region = region.clone();
        micro::on_worker(&runtime, async move {
            let watch = Watch::start();
            for n in 0..operations {
                let id = n % ENTRIES;
                let hit = region.get(black_box(&id)).await.expect("the store has it");
                assert_eq!((hit.id(), hit.items.len()), (id, Catalogue::ITEMS as usize));
            }
            watch.elapsed()
        })
    };
    let viewed = |operations: u64| {
        let region = region.clone();
        micro::on_worker(&runtime, async move {
            let watch = Watch::start();
            for n in 0..operations {
                let id = n % ENTRIES;
                let view = region.read_archived(black_box(&id), |archive, _| {
                    (archive.id.to_native(), archive.items.len())
                });
                assert_eq!(view.await, Some((id, Catalogue::ITEMS as usize)));
            }
            watch.elapsed()
        })
    };
    let sides = Contest::new(setting, Unit::Nanos)
        .timed("tierkeep-archived", viewed)
        .timed("full-decode", |operations| decoded(&region, operations))
        .timed("full-decode-in-place", |operations| decoded(&in_place, operations))
        .run();
    let copies = cache.inspect().codec.archived_copies;
    eprintln!("  archives that lay at an address that did not suit and were copied first: {copies}");
    for cache in [&cache, &unlimited] {
        runtime.block_on(own::shutdown(cache));
    }
    Ok(vec![
        Comparison::new("archived", Unit::Nanos, 4.0, &sides[0], &sides[1]),
        Comparison::informative("archived", Unit::Nanos, &sides[0], &sides[2]),
    ])
}

async fn open(codec: CodecOptions) -> (Cache, Region<Catalogue, u64>) {
    let tier = BytesBackend::new(16 * ENTRIES).format(RkyvFormat::new().register::<Catalogue>());
    let builder = Cache::builder(TokioRuntime::current()).tier(tier).codec(codec);
    let cache = builder.build().await.expect("a cache in memory");
    let region = own::region::<Catalogue>(&cache, "bench");
    for id in 0..ENTRIES {
        region.set(&id, Catalogue::of(id)).await.expect("a set in memory");
    }
    (cache, region)
}
