//! A dictionary lasts as long as what was written with it, and gives way where it no longer fits.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tierkeep::backplane::LocalBackplane;
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Cache, MemoryBackend, Region};
use tierkeep_sim::Sim;
use tierkeep_smol::SmolRuntime;

use super::support::{Store, open, other_record, record, small, train, train_with, written};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A cache on virtual time, and its region; entries live this long.
async fn over(runtime: &RuntimeHandle, store: &Store, ttl: Option<Duration>) -> (Cache, Region<String, u64>) {
    let cache = Cache::builder(runtime.clone()).tier(store.tier()).build().await.unwrap();
    let builder = cache.region("records").dictionary(small());
    let builder = match ttl {
        Some(ttl) => builder.ttl(ttl),
        None => builder.no_expiry(),
    };
    (cache.clone(), builder.build().unwrap())
}

/// What a cache that starts now has of a record.
async fn read_later(runtime: &RuntimeHandle, store: &Store, n: u64) -> Option<String> {
    let (cache, region) = over(runtime, store, None).await;
    let found = region.get(&n).await.map(|hit| hit.to_string());
    assert_eq!(cache.inspect().codec.dictionaries_unknown, u64::from(found.is_none()));
    cache.shutdown(DAY).await;
    found
}

#[test]
fn readers_that_come_together_load_a_dictionary_once() {
    smol::block_on(async {
        let (store, ..) = written().await;
        let (cache, region) = open(&store).await;
        let reads = (0..3_000_u64).map(|n| {
            let region = region.clone();
            async move { region.get(&(n % 20)).await.map(|hit| hit.to_string()) }
        });
        for (n, found) in (0..).zip(join_all(reads).await) {
            assert_eq!(found, Some(record(n % 20)), "read {n}");
        }
        let codec = cache.inspect().codec;
        assert_eq!((codec.dictionaries_loaded, codec.dictionaries_unknown, codec.rejected), (1, 0, 0));
    });
}

#[test]
fn a_dictionary_outlives_the_entries_that_were_written_with_it() {
    let sim = Sim::new(1);
    let runtime = RuntimeHandle::new(sim.runtime());
    let done = sim.block_on(async {
        for ttl in [Some(90 * DAY), None] {
            let store = Store::new();
            let (cache, region) = over(&runtime, &store, ttl).await;
            let id = train(&region).await;
            region.set(&1_000_000, record(7)).await.unwrap();
            assert_eq!(store.header(&region.key(&1_000_000)).dictionary, id);
            cache.shutdown(DAY).await;
            drop((cache, region));
            runtime.sleep(89 * DAY).await;
            assert_eq!(read_later(&runtime, &store, 1_000_000).await, Some(record(7)), "{ttl:?}");
        }
    });
    done.unwrap();
}

#[test]
#[cfg_attr(
    feature = "metrics",
    ignore = "publishing every second of a hundred days takes a minute: run without"
)]
fn a_dictionary_of_a_region_that_writes_little_does_not_expire_in_use() {
    let sim = Sim::new(2);
    let runtime = RuntimeHandle::new(sim.runtime());
    let done = sim.block_on(async {
        let store = Store::new();
        let (_cache, region) = over(&runtime, &store, Some(5 * DAY)).await;
        let id = train(&region).await;
        for day in 0..100 {
            region.set(&1_000_000, record(day)).await.unwrap();
            assert_eq!(store.header(&region.key(&1_000_000)).dictionary, id);
            runtime.sleep(DAY).await;
            assert_eq!(read_later(&runtime, &store, 1_000_000).await, Some(record(day)), "day {day}");
        }
    });
    done.unwrap();
}

#[test]
fn a_dictionary_that_a_tier_did_not_take_is_offered_again() {
    smol::block_on(async {
        let store = Store::new();
        let (_cache, region) = open(&store).await;
        store.refuses.store(true, Ordering::SeqCst);
        train(&region).await;
        assert!(store.dictionaries().is_empty());
        store.refuses.store(false, Ordering::SeqCst);
        // The repair that brings it comes by itself; how soon is the quarantine's to say.
        let runtime = RuntimeHandle::new(SmolRuntime::new());
        let end = runtime.now().after(Duration::from_secs(20));
        for n in 0.. {
            region.set(&n, record(n % 500)).await.unwrap();
            if !store.dictionaries().is_empty() {
                break;
            }
            assert!(runtime.now() < end, "it was not offered again");
            runtime.sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(store.dictionaries().len(), 1);
    });
}

#[test]
fn a_dictionary_that_another_cache_has_cleared_is_stored_again() {
    let sim = Sim::new(3);
    let runtime = RuntimeHandle::new(sim.runtime());
    let done = sim.block_on(async {
        let store = Store::new();
        let (_cache, region) = over(&runtime, &store, Some(DAY)).await;
        train(&region).await;
        store.map.wipe();
        runtime.sleep(DAY / 24).await;
        region.set(&1_000_000, record(7)).await.unwrap();
        runtime.sleep(DAY / 24).await;
        assert_eq!(read_later(&runtime, &store, 1_000_000).await, Some(record(7)));
    });
    done.unwrap();
}

#[test]
fn a_dictionary_that_another_cache_tells_it_has_cleared_is_stored_again_at_once() {
    smol::block_on(async {
        let (store, hub) = (Store { shared: true, ..Store::new() }, LocalBackplane::new());
        let joined = async || {
            let builder = Cache::builder(SmolRuntime::new()).tier(MemoryBackend::entries(10));
            let builder = builder.tier(store.tier()).backplane(hub.clone());
            let cache = builder.build().await.unwrap();
            let region: Region<String, u64> =
                cache.region("records").no_expiry().dictionary(small()).build().unwrap();
            (cache, region)
        };
        let (cache, region) = joined().await;
        let (other, _region) = joined().await;
        let hears = |cache: &Cache| cache.inspect().backplane.is_some_and(|line| line.peers > 0);
        while !hears(&cache) || !hears(&other) {
            smol::future::yield_now().await;
        }
        train(&region).await;
        let before = cache.inspect().backplane.unwrap().heard;
        let _ = other.clear().await;
        store.map.wipe();
        while cache.inspect().backplane.unwrap().heard == before {
            smol::future::yield_now().await;
        }
        while store.dictionaries().is_empty() {
            region.set(&1, record(1)).await.unwrap();
            smol::future::yield_now().await;
        }
        let (_later, again) = open(&store).await;
        assert_eq!(*again.get(&1).await.unwrap().into_arc(), record(1));
    });
}

#[test]
fn a_dictionary_that_was_found_gives_way_to_a_better_one() {
    smol::block_on(async {
        let (store, old, _) = written().await;
        let (cache, region) = open(&store).await;
        assert!(region.get(&3).await.is_some());
        assert_eq!(region.dictionary().unwrap().current().unwrap().id(), old);
        // Since then the values have changed.
        let new = train_with(&region, other_record, old).await;
        assert_ne!(new, old);
        assert_eq!(cache.inspect().dictionaries[0].version, 2);
        assert_eq!(*region.get(&3).await.unwrap().into_arc(), other_record(3));
    });
}

#[test]
fn a_dictionary_that_was_found_stays_while_it_fits() {
    smol::block_on(async {
        let (store, old, _) = written().await;
        let (cache, region) = open(&store).await;
        assert!(region.get(&3).await.is_some());
        while cache.inspect().dictionaries[0].in_vain == 0 {
            for n in 0..1_000 {
                region.set(&n, record(n)).await.unwrap();
            }
            smol::future::yield_now().await;
        }
        assert_eq!(region.dictionary().unwrap().current().unwrap().id(), old);
    });
}
