//! What a trained dictionary saves of small records that resemble each other.

use tierkeep::codec::{DictionaryOptions, ZstdCompressor};
use tierkeep::{Cache, Region};
use tierkeep_benches::peers::bytes::BytesBackend;
use tierkeep_benches::peers::tierkeep as own;
use tierkeep_benches::values::TTL;
use tierkeep_benches::{Comparison, Contest, Measure, Outcome, Setting, Unit, micro};
use tierkeep_tokio::TokioRuntime;

pub(crate) const MEASURES: &[Measure] = &[Measure {
    names: &["dictionary"],
    about: "payload bytes of 10,000 records of 200 bytes of JSON: plain zstd, beside a trained dictionary",
    run: dictionary,
}];

const RECORDS: u64 = 10_000;

/// Both sides set the same records into a tier of bytes, none of which the dictionary was trained with.
fn dictionary(setting: &Setting) -> Outcome {
    let runtime = micro::runtime();
    let stored = |trained: bool| {
        runtime.block_on(async {
            let (cache, region) = open(trained).await;
            for id in RECORDS.. {
                if region.dictionary().is_none_or(|dictionary| dictionary.current().is_some()) {
                    break;
                }
                region.set(&id, record(id)).await.expect("a set in memory");
                tokio::task::yield_now().await;
            }
            let before = cache.inspect().codec.bytes_out;
            for id in 0..RECORDS {
                region.set(&id, record(id)).await.expect("a set in memory");
            }
            let stored = cache.inspect().codec.bytes_out - before;
            for id in 0..RECORDS {
                assert_eq!(*region.get(&id).await.expect("it was set"), record(id));
            }
            own::shutdown(&cache).await;
            bytes(stored)
        })
    };
    let sides = Contest::new(setting, Unit::Bytes)
        .rounds(setting.rounds.min(10))
        .fixed("tierkeep-dictionary", || stored(true))
        .fixed("plain-zstd", || stored(false))
        .run();
    Ok(vec![Comparison::new("dictionary", Unit::Bytes, 3.0, &sides[0], &sides[1])])
}

async fn open(trained: bool) -> (Cache, Region<String, u64>) {
    let tier = BytesBackend::new(64 * RECORDS).compressor(ZstdCompressor::default().with_min_size(0));
    let cache = Cache::builder(TokioRuntime::current()).tier(tier).build().await.expect("a cache in memory");
    let region = cache.region("users").ttl(TTL);
    let region = if trained { region.dictionary(DictionaryOptions::default()) } else { region };
    (cache.clone(), region.build().expect("a region"))
}

/// A user as a service has it: names that recur, numbers that do not.
fn record(id: u64) -> String {
    const CITIES: [&str; 8] = ["Reykjavik", "Lisbon", "Tampere", "Ghent", "Porto", "Graz", "Turku", "Aarhus"];
    const ROLES: [&str; 4] =
        [r#"["reader"]"#, r#"["reader","writer"]"#, r#"["reader","owner"]"#, r#"["admin"]"#];
    // Fixed for an id, and unlike its neighbours' (SplitMix64).
    let mut drawn = id.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let pick = |n: u64, shift: u32| (drawn >> shift) % n;
    format!(
        r#"{{"id":{id},"name":"user-{:05}","email":"user{:05}@example.org","city":"{}","roles":{},"active":{},"logins":{},"created":"2026-{:02}-{:02}T{:02}:{:02}:00Z","plan":"standard","locale":"en-GB"}}"#,
        pick(100_000, 3),
        pick(100_000, 3),
        CITIES[usize::try_from(pick(8, 20)).unwrap_or(0)],
        ROLES[usize::try_from(pick(4, 24)).unwrap_or(0)],
        pick(2, 28) == 0,
        pick(1_000, 30),
        1 + pick(12, 40),
        1 + pick(28, 44),
        pick(24, 49),
        pick(60, 54),
    )
}

#[expect(clippy::cast_precision_loss, reason = "a few megabytes")]
fn bytes(n: u64) -> f64 {
    n as f64
}
