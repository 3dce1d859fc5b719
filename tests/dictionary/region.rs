//! A region trains its dictionary, uses it, and trains another when it no longer fits.

use std::time::Duration;

use tierkeep::codec::{DictionaryOptions, DictionaryState};
use tierkeep::{Cache, ErrorKind, MemoryBackend, Region};
use tierkeep_smol::SmolRuntime;

use super::support::{Store, hash, open, other_record, record, small, train, train_with};

#[test]
fn small_records_take_a_third_of_what_they_take_without() {
    smol::block_on(async {
        let payload = async |dictionary: bool| {
            let store = Store::new();
            let cache = Cache::builder(SmolRuntime::new()).tier(store.tier()).build().await.unwrap();
            let builder = cache.region::<String, u64>("records").no_expiry();
            let region = if dictionary {
                let region = builder.dictionary(DictionaryOptions::default()).build().unwrap();
                train(&region).await;
                region
            } else {
                builder.build().unwrap()
            };
            let before = cache.inspect().codec.bytes_out;
            for n in 100_000..110_000 {
                region.set(&n, record(n)).await.unwrap();
            }
            cache.inspect().codec.bytes_out - before
        };
        let (plain, taught) = (payload(false).await, payload(true).await);
        assert!(record(105_000).len() > 190 && record(105_000).len() < 220, "{}", record(105_000).len());
        assert!(plain >= 3 * taught, "{plain} bytes and {taught}");
    });
}

#[test]
fn a_region_trains_its_own_dictionary_and_reads_what_was_written_before() {
    smol::block_on(async {
        let store = Store::new();
        let (cache, region) = open(&store).await;
        region.set(&1_000_000, record(1_000_000)).await.unwrap();
        let id = train(&region).await;
        region.set(&1_000_001, record(1_000_001)).await.unwrap();
        assert_eq!(store.header(&region.key(&1_000_000)).dictionary, 0);
        assert_eq!(store.header(&region.key(&1_000_001)).dictionary, id);
        for n in [1_000_000, 1_000_001, 5] {
            assert_eq!(*region.get(&n).await.unwrap().into_arc(), record(n));
        }
        let inspection = cache.inspect();
        let found = &inspection.dictionaries[0];
        assert_eq!((found.region.as_str(), found.dictionary, found.version), ("records:v1", id, 1));
        assert_eq!((found.state, found.trained, found.in_vain), (DictionaryState::Watching, 1, 0));
        assert!(found.ratio > 3.0, "{found:?}");
        assert_eq!((inspection.codec.dictionaries, inspection.codec.decode_failures), (1, 0));
        assert!(serde_json::to_string(&inspection).unwrap().contains("Watching"));
    });
}

#[test]
fn another_dictionary_is_trained_when_values_change_and_the_old_one_still_reads() {
    smol::block_on(async {
        let store = Store::new();
        let (cache, region) = open(&store).await;
        let first = train(&region).await;
        region.set(&1_000_000, record(1_000_000)).await.unwrap();
        for n in 0..1_000 {
            region.set(&n, record(n)).await.unwrap();
        }
        let second = train_with(&region, other_record, first).await;
        assert_ne!(second, first);
        let found = &cache.inspect().dictionaries[0];
        assert_eq!((found.version, found.trained), (2, 2), "{found:?}");
        region.set(&1_000_001, other_record(1)).await.unwrap();
        assert_eq!(store.header(&region.key(&1_000_001)).dictionary, second);
        assert_eq!(store.header(&region.key(&1_000_000)).dictionary, first);
        assert_eq!(*region.get(&1_000_000).await.unwrap().into_arc(), record(1_000_000));
        assert_eq!(*region.get(&1_000_001).await.unwrap().into_arc(), other_record(1));
        assert_eq!(store.dictionaries().len(), 2);
    });
}

#[test]
fn values_with_nothing_in_common_are_stored_as_ever() {
    smol::block_on(async {
        let store = Store::new();
        let cache = Cache::builder(SmolRuntime::new()).tier(store.tier()).build().await.unwrap();
        let region: Region<Vec<u8>, u64> =
            cache.region("noise").no_expiry().dictionary(small()).build().unwrap();
        let noise = |n: u64| (0..12).flat_map(|i| hash(n << 8 | i).to_le_bytes()).collect::<Vec<u8>>();
        let mut n = 0;
        while cache.inspect().dictionaries[0].in_vain == 0 {
            region.set(&n, noise(n)).await.unwrap();
            n += 1;
            assert!(n < 200_000);
            smol::future::yield_now().await;
        }
        region.set(&n, noise(n)).await.unwrap();
        let found = &cache.inspect().dictionaries[0];
        assert_eq!(
            (found.dictionary, found.state, found.sampled),
            (0, DictionaryState::Watching, 0),
            "{found:?}"
        );
        assert_eq!(store.header(&region.key(&n)).dictionary, 0);
        assert_eq!(*region.get(&n).await.unwrap().into_arc(), noise(n));
        assert!(store.dictionaries().is_empty());
        // It tries again, after ten thousand values.
        while cache.inspect().dictionaries[0].sampled == 0 {
            region.set(&n, noise(n)).await.unwrap();
            n += 1;
            assert!(n < 200_000);
        }
    });
}

#[test]
fn regions_and_tiers_without_it_notice_nothing() {
    smol::block_on(async {
        let (packed, plain) = (Store::new(), Store::with(tierkeep::codec::PassthroughCompressor));
        let cache = Cache::builder(SmolRuntime::new())
            .tier(MemoryBackend::entries(100))
            .tier(packed.tier().label("packed"))
            .tier(plain.tier().label("plain"))
            .build()
            .await
            .unwrap();
        let region: Region<String, u64> =
            cache.region("records").no_expiry().dictionary(small()).build().unwrap();
        let without: Region<String, u64> = cache.region("others").no_expiry().build().unwrap();
        let id = train(&region).await;
        without.set(&1, record(1).repeat(2)).await.unwrap();
        region.set(&1, record(1)).await.unwrap();
        assert_eq!(packed.header(&region.key(&1)).dictionary, id);
        assert_eq!(packed.header(&without.key(&1)).dictionary, 0);
        assert_eq!(plain.header(&region.key(&1)).compressor, 0);
        assert!(without.dictionary().is_none());
    });
}

#[test]
fn openings_of_a_region_share_its_dictionary() {
    smol::block_on(async {
        let store = Store::new();
        let (cache, region) = open(&store).await;
        let id = train(&region).await;
        let again: Region<String, u64> =
            cache.region("records").no_expiry().dictionary(DictionaryOptions::default()).build().unwrap();
        assert_eq!(again.dictionary().unwrap().current().unwrap().id(), id);
        // A version of another schema has one of its own.
        let next: Region<String, u64> =
            cache.region("records").version(2).no_expiry().dictionary(small()).build().unwrap();
        assert!(next.dictionary().unwrap().current().is_none());
    });
}

#[test]
fn loaded_values_are_sampled_too() {
    smol::block_on(async {
        let store = Store::new();
        let (_cache, region) = open(&store).await;
        for n in 0..200_000_u64 {
            region.get_or_load(&n, async || Ok::<_, std::io::Error>(record(n))).await.unwrap();
            if region.dictionary().unwrap().current().is_some() {
                return;
            }
        }
        panic!("no dictionary came of it: {:?}", region.dictionary());
    });
}

#[test]
fn options_that_cannot_work_are_refused() {
    smol::block_on(async {
        let cache = Cache::builder(SmolRuntime::new()).tier(Store::new().tier()).build().await.unwrap();
        let refused = |options: DictionaryOptions| {
            let builder = cache.region::<String, u64>("records").no_expiry();
            assert_eq!(builder.dictionary(options).build().unwrap_err().kind(), ErrorKind::Config);
        };
        refused(DictionaryOptions::default().size(10));
        refused(DictionaryOptions::default().size(2 << 20));
        refused(DictionaryOptions::default().samples(1_000));
        refused(DictionaryOptions::default().drift(0.9));
        refused(DictionaryOptions::default().drift(f64::NAN));
        let reserved = cache.region::<String, u64>("tierkeep-dictionary").ttl(Duration::from_secs(1)).build();
        assert_eq!(reserved.unwrap_err().kind(), ErrorKind::Config);
    });
}
