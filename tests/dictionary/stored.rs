//! Dictionaries outlive their process in the tiers, and what a store makes of them does no harm.

use tierkeep::codec::{CodecOptions, ZstdDictionary};
use tierkeep::{Cache, MemoryBackend, Region};
use tierkeep_smol::SmolRuntime;

use super::support::{Store, open, other_record, record, small, train, train_with, written};

#[test]
fn a_later_cache_finds_the_dictionary_in_the_tier() {
    smol::block_on(async {
        let (store, id, _) = written().await;
        let (cache, region) = open(&store).await;
        for n in 0..20 {
            assert_eq!(*region.get(&n).await.unwrap().into_arc(), record(n));
        }
        let codec = cache.inspect().codec;
        assert_eq!((codec.dictionaries, codec.dictionaries_loaded, codec.decode_failures), (1, 1, 0));
        assert_eq!(store.reads.load(std::sync::atomic::Ordering::SeqCst), 21, "it is looked for once");
        // And goes on with it.
        region.set(&100, record(100)).await.unwrap();
        assert_eq!(store.header(&region.key(&100)).dictionary, id);
    });
}

#[test]
fn a_region_without_a_dictionary_reads_what_one_with_it_wrote() {
    smol::block_on(async {
        let (store, _, _) = written().await;
        let cache = Cache::builder(SmolRuntime::new())
            .tier(MemoryBackend::entries(100))
            .tier(store.tier())
            .build()
            .await
            .unwrap();
        let region: Region<String, u64> = cache.region("records").no_expiry().build().unwrap();
        assert_eq!(*region.get(&3).await.unwrap().into_arc(), record(3));
        region.set(&3, record(4)).await.unwrap();
        assert_eq!(store.header(&region.key(&3)).dictionary, 0);
    });
}

#[test]
fn an_entry_whose_dictionary_is_gone_is_a_counted_miss() {
    smol::block_on(async {
        let (store, _, key) = written().await;
        tierkeep::Backend::remove(&store.map, &key).await.unwrap();
        let (cache, region) = open(&store).await;
        for n in 0..20 {
            assert!(region.get(&n).await.is_none());
        }
        let inspection = cache.inspect();
        assert_eq!((inspection.codec.dictionaries_unknown, inspection.codec.dictionaries_loaded), (20, 0));
        assert_eq!(inspection.tiers[0].reads.decode_failed, 20);
        assert_eq!(store.reads(), 21, "it is not looked for again at once");
        region.set(&3, record(3)).await.unwrap();
        assert_eq!(*region.get(&3).await.unwrap().into_arc(), record(3));
    });
}

#[test]
fn a_dictionary_can_be_carried_over_by_hand() {
    smol::block_on(async {
        let (store, id, key) = written().await;
        let frame = store.map.get(&key).unwrap();
        let header = store.header(&key);
        let dictionary = ZstdDictionary::new(frame.slice(header.header_len..)).unwrap();
        assert_eq!(dictionary.id(), id);
        tierkeep::Backend::remove(&store.map, &key).await.unwrap();
        let options = CodecOptions::default().dictionary(&dictionary);
        let cache =
            Cache::builder(SmolRuntime::new()).tier(store.tier()).codec(options).build().await.unwrap();
        let start = small().start_with(&dictionary);
        let region: Region<String, u64> =
            cache.region("records").no_expiry().dictionary(start).build().unwrap();
        assert_eq!(*region.get(&3).await.unwrap().into_arc(), record(3));
        region.set(&100, record(100)).await.unwrap();
        assert_eq!(store.header(&region.key(&100)).dictionary, id, "the first value is written with it");
        while store.dictionaries().is_empty() {
            smol::future::yield_now().await;
        }
    });
}

#[test]
fn what_a_store_makes_of_a_dictionary_is_a_counted_miss() {
    smol::block_on(async {
        let (store, _, key) = written().await;
        let sound = store.map.get(&key).unwrap();
        let mut flipped = sound.to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        // A sound frame, of another dictionary.
        let other = {
            let store = Store::new();
            let (_cache, region) = open(&store).await;
            let options = small().start_with(&ZstdDictionary::new(vec![7; 5_000]).unwrap());
            let cache = Cache::builder(SmolRuntime::new()).tier(store.tier()).build().await.unwrap();
            let own: Region<String, u64> =
                cache.region("records").no_expiry().dictionary(options).build().unwrap();
            own.set(&1, record(1)).await.unwrap();
            while store.dictionaries().is_empty() {
                smol::future::yield_now().await;
            }
            drop(region);
            store.map.get(&store.dictionaries()[0]).unwrap()
        };
        // And one of an entry.
        let entry = {
            let (_cache, region) = open(&store).await;
            store.map.get(&region.key(&1)).unwrap()
        };
        for hostile in [flipped.into(), other, entry, sound.slice(..40), Vec::new().into()] {
            store.map.put(key.clone(), hostile);
            let (cache, region) = open(&store).await;
            assert!(region.get(&1).await.is_none());
            let codec = cache.inspect().codec;
            assert_eq!((codec.dictionaries, codec.dictionaries_unknown), (0, 1));
        }
        store.map.put(key, sound);
        let (_cache, region) = open(&store).await;
        assert!(region.get(&1).await.is_some());
    });
}

#[test]
fn a_cleared_cache_stores_its_dictionary_again() {
    smol::block_on(async {
        let store = Store::new();
        let (cache, region) = open(&store).await;
        let id = train(&region).await;
        store.map.wipe();
        let _ = cache.clear().await;
        region.set(&1, record(1)).await.unwrap();
        while store.dictionaries().is_empty() {
            smol::future::yield_now().await;
        }
        let (_later, again) = open(&store).await;
        assert_eq!(*again.get(&1).await.unwrap().into_arc(), record(1));
        assert_eq!(store.header(&region.key(&1)).dictionary, id);
    });
}

#[test]
fn dictionaries_that_gave_way_are_loaded_again() {
    smol::block_on(async {
        let (store, _, _) = written().await;
        let options = CodecOptions::default().max_dictionaries(1);
        let cache =
            Cache::builder(SmolRuntime::new()).tier(store.tier()).codec(options).build().await.unwrap();
        let region: Region<String, u64> = cache.region("records").no_expiry().build().unwrap();
        let other: Region<String, u64> =
            cache.region("others").no_expiry().dictionary(small()).build().unwrap();
        assert!(region.get(&1).await.is_some());
        // Of other values, or it would be the same dictionary.
        train_with(&other, other_record, 0).await;
        other.set(&1, other_record(1)).await.unwrap();
        assert_eq!(cache.inspect().codec.dictionaries, 1);
        for _ in 0..3 {
            assert_eq!(*region.get(&1).await.unwrap().into_arc(), record(1));
            assert_eq!(*other.get(&1).await.unwrap().into_arc(), other_record(1));
        }
        assert!(cache.inspect().codec.dictionaries_loaded >= 2);
        assert_eq!(cache.inspect().codec.decode_failures, 0);
    });
}
