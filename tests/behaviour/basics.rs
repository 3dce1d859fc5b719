//! The operations of a cache and its regions, over healthy tiers.

use std::convert::Infallible;
use std::sync::Arc;

use futures_util::future::join_all;
use tierkeep::codec::CodecOptions;
use tierkeep::{
    Backend, BackendLabel, Cache, CacheKey, DeleteStatus, ErrorKind, Freshness, Hit, KeyPart, MemoryBackend,
    Region,
};

use super::store::{Store, patient};
use super::world::World;

struct Tiers {
    cache: Cache,
    region: Region<String, u64>,
    memory: MemoryBackend,
    store: Store,
}

async fn two_tiers(world: &World) -> Tiers {
    let (memory, store) = (MemoryBackend::entries(100), Store::new("store"));
    let cache = Cache::builder(world.runtime.clone())
        .tier(patient(memory.clone()))
        .tier(store.tier())
        .build()
        .await
        .unwrap();
    let region = cache.region("names").no_expiry().build().unwrap();
    Tiers { cache, region, memory, store }
}

fn from<T>(hit: &Hit<T>) -> &str {
    hit.tier().map_or("loader", BackendLabel::as_str)
}

pub(crate) async fn what_is_set_is_read_back(world: World) {
    let Tiers { region, memory, .. } = two_tiers(&world).await;
    region.set(&1, "one".to_owned()).await.unwrap();
    let hit = region.get(&1).await.unwrap();
    assert_eq!((hit.as_str(), from(&hit), hit.freshness()), ("one", "memory", Freshness::Fresh));
    assert_eq!(hit.ttl(), None);
    memory.remove(&region.key(&1)).await.unwrap();
    let lookup = region.try_get(&1).await.unwrap();
    let hit = lookup.hit.unwrap();
    assert_eq!((hit.as_str(), from(&hit)), ("one", "store"));
    assert!(lookup.degraded.is_empty());
    region.set(&1, Arc::new("uno".to_owned())).await.unwrap();
    assert_eq!(**region.get(&1).await.unwrap(), *"uno");
}

pub(crate) async fn an_absent_key_is_a_miss(world: World) {
    let Tiers { cache, region, .. } = two_tiers(&world).await;
    assert!(region.get(&1).await.is_none());
    let lookup = region.try_get(&1).await.unwrap();
    assert!(lookup.hit.is_none() && lookup.degraded.is_empty());
    assert!(!region.contains(&1).await);
    assert!(!region.remove(&1).await.unwrap());
    for tier in cache.inspect().tiers {
        assert_eq!((tier.reads.misses, tier.reads.total()), (3, 3), "{}", tier.label);
    }
}

pub(crate) async fn a_removed_key_is_gone_from_every_tier(world: World) {
    let Tiers { cache, region, memory, store } = two_tiers(&world).await;
    region.set(&1, "one".to_owned()).await.unwrap();
    let key = region.key(&1);
    assert!(store.holds(&key));
    assert_eq!(cache.remove(&key).await.unwrap(), DeleteStatus::Deleted(2));
    assert!(region.get(&1).await.is_none());
    assert!(!store.holds(&key));
    assert_eq!(memory.usage().entries, Some(0));
    assert_eq!(cache.remove(&key).await.unwrap(), DeleteStatus::Missing);
    region.set(&1, "again".to_owned()).await.unwrap();
    assert!(region.remove(&1).await.unwrap());
}

pub(crate) async fn many_at_once_keep_their_order(world: World) {
    let Tiers { cache, region, memory, .. } = two_tiers(&world).await;
    let keys: Vec<u64> = (0..300).collect();
    let results = region.set_many(keys.iter().map(|key| (key, format!("v{key}")))).await;
    assert!(results.len() == 300 && results.iter().all(Result::is_ok));
    region.remove(&7).await.unwrap();
    for key in [3, 7, 11] {
        memory.remove(&region.key(&key)).await.unwrap();
    }
    let asked = [11, 7, 299, 1000, 3];
    let found = region.get_many(&asked).await;
    let found: Vec<_> = found.iter().map(|hit| hit.as_ref().map(|hit| hit.as_str())).collect();
    assert_eq!(found, [Some("v11"), None, Some("v299"), None, Some("v3")]);
    let store = cache.inspect().tiers[1].clone();
    assert!(store.writes.calls < 300, "they go in batches: {:?}", store.writes);
}

pub(crate) async fn each_writer_of_a_large_batch_hears_of_its_own_value(world: World) {
    let store = Store::new("store");
    let cache =
        Cache::builder(world.runtime.clone()).tier(store.tier().concurrency(1)).build().await.unwrap();
    let region: Region<String, u64> = cache.region("r").no_expiry().build().unwrap();
    store.limit(100);
    store.gate().close();
    let set = |id: u64| {
        let (region, length) = (region.clone(), if id.is_multiple_of(3) { 200 } else { 10 });
        world.runtime.spawn(async move { region.set(&id, "v".repeat(length)).await })
    };
    let first = set(1_000);
    world.until("the first is on its way", || store.gate().waiting() == 1).await;
    let writers: Vec<_> = (0..100).map(set).collect();
    world.until("the others wait", || cache.inspect().tiers[0].ledger == 101).await;
    store.gate().open();
    first.await.unwrap().unwrap();
    let heard = join_all(writers).await;
    // Before the repairs of those that were refused go on for long.
    let writes = cache.inspect().tiers[0].writes;
    assert!(writes.keys_in_calls > 10 * writes.calls, "in large batches: {writes:?}");
    for (id, heard) in (0_u64..).zip(heard) {
        let heard = heard.unwrap().map_err(|error| error.kind());
        let told = if id.is_multiple_of(3) { Err(ErrorKind::TooLarge) } else { Ok(()) };
        assert_eq!(heard, told, "of {id}");
        assert_eq!(region.get(&id).await.is_some(), told.is_ok(), "{id}");
    }
}

pub(crate) async fn writes_have_a_batch_limit_of_their_own(world: World) {
    for (keys, written) in [(64, 8), (8, 64)] {
        let store = Store::new("store");
        let tier = store.tier().concurrency(1).batch_keys(keys).write_batch_keys(written);
        let cache = Cache::builder(world.runtime.clone()).tier(tier).build().await.unwrap();
        let region: Region<u64, u64> = cache.region("r").no_expiry().build().unwrap();
        let held = || store.gate().waiting() == 1;
        store.gate().close();
        let set = |id: u64| {
            let region = region.clone();
            world.runtime.spawn(async move { region.set(&id, id).await })
        };
        let first = set(1_000);
        world.until("a write is on its way", held).await;
        let writers: Vec<_> = (0..64).map(set).collect();
        world.until("the others wait", || cache.inspect().tiers[0].ledger == 65).await;
        store.gate().open();
        first.await.unwrap().unwrap();
        join_all(writers).await.into_iter().for_each(|set| set.unwrap().unwrap());
        let writes = cache.inspect().tiers[0].writes;
        // The smaller limit counts.
        assert_eq!((writes.calls, writes.keys_in_calls), (1 + 64 / 8, 65), "{writes:?}");

        store.gate().close();
        let get = |id: u64| {
            let region = region.clone();
            world.runtime.spawn(async move { region.get(&id).await })
        };
        let first = get(1_000);
        world.until("a read is on its way", held).await;
        let readers: Vec<_> = (0..64).map(get).collect();
        world.settle().await;
        store.gate().open();
        assert!(first.await.unwrap().is_some());
        join_all(readers).await.into_iter().for_each(|hit| assert!(hit.unwrap().is_some()));
        let reads = cache.inspect().tiers[0].reads;
        assert_eq!((reads.calls, reads.keys_in_calls), (1 + 64 / keys as u64, 65), "{reads:?}");
    }
}

/// Nothing else comes that would send it.
pub(crate) async fn a_write_that_waits_for_a_key_of_a_large_batch_follows_it(world: World) {
    let store = Store::new("store");
    let cache =
        Cache::builder(world.runtime.clone()).tier(store.tier().concurrency(1)).build().await.unwrap();
    let region: Region<u64, u64> = cache.region("r").no_expiry().build().unwrap();
    store.gate().close();
    let set = |id: u64, value: u64| {
        let region = region.clone();
        world.runtime.spawn(async move { region.set(&id, value).await })
    };
    let mut writers: Vec<_> = (0..100).map(|id| set(id, 1)).collect();
    world.until("they are in the ledger", || cache.inspect().tiers[0].ledger == 100).await;
    writers.extend([0, 50, 99].map(|id| set(id, 2)));
    world.settle().await;
    store.gate().open();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    for (id, value) in [(0, 2), (1, 1), (50, 2), (99, 2)] {
        assert_eq!(region.get(&id).await.map(|hit| *hit), Some(value), "{id}");
    }
}

pub(crate) async fn a_region_s_clear_leaves_other_regions(world: World) {
    let Tiers { cache, region, store, .. } = two_tiers(&world).await;
    let other: Region<String, u64> = cache.region("others").no_expiry().build().unwrap();
    region.set(&1, "one".to_owned()).await.unwrap();
    other.set(&1, "other".to_owned()).await.unwrap();
    region.clear().await.unwrap();
    assert!(region.get(&1).await.is_none() && !region.contains(&1).await);
    assert_eq!(**other.get(&1).await.unwrap(), *"other");
    // This store cannot clear: its bytes are hidden by their stamp.
    assert!(store.holds(&region.key(&1)));
    assert!(cache.inspect().tiers[1].reads.cleared > 0);
    region.set(&1, "new".to_owned()).await.unwrap();
    assert_eq!(**region.get(&1).await.unwrap(), *"new");
}

pub(crate) async fn a_cache_s_clear_takes_everything(world: World) {
    let store = Store::new("store").can_clear();
    let memory = MemoryBackend::entries(100);
    let builder = Cache::builder(world.runtime.clone()).tier(patient(memory.clone())).tier(store.tier());
    let cache = builder.build().await.unwrap();
    let regions: [Region<u64, u64>; 2] =
        ["a", "b"].map(|name| cache.region(name).no_expiry().build().unwrap());
    for region in &regions {
        region.set(&1, 1).await.unwrap();
    }
    cache.clear().await.unwrap();
    for region in &regions {
        assert!(region.get(&1).await.is_none());
    }
    assert!(store.map().is_empty());
    world.until("memory has let go too", || memory.usage().entries == Some(0)).await;
}

pub(crate) async fn a_lower_hit_refills_the_tiers_above(world: World) {
    let stores = [Store::new("first"), Store::new("second")];
    let memory = MemoryBackend::entries(100);
    let cache = Cache::builder(world.runtime.clone())
        .tier(patient(memory.clone()))
        .tier(stores[0].tier())
        .tier(stores[1].tier())
        .build()
        .await
        .unwrap();
    let region: Region<u64, u64> = cache.region("r").no_expiry().build().unwrap();
    region.set(&1, 11).await.unwrap();
    memory.remove(&region.key(&1)).await.unwrap();
    stores[0].map().wipe();
    assert_eq!(from(&region.get(&1).await.unwrap()), "second");
    let fills = || cache.inspect().tiers.iter().map(|tier| tier.writes.fills).collect::<Vec<_>>();
    world.until("both are refilled", || fills() == [1, 1, 0]).await;
    assert_eq!(from(&region.get(&1).await.unwrap()), "memory");
    memory.remove(&region.key(&1)).await.unwrap();
    let hit = region.get(&1).await.unwrap();
    assert_eq!((*hit, from(&hit)), (11, "first"));
}

pub(crate) async fn contains_refills_nothing(world: World) {
    let Tiers { cache, region, memory, .. } = two_tiers(&world).await;
    region.set(&1, "one".to_owned()).await.unwrap();
    memory.remove(&region.key(&1)).await.unwrap();
    assert!(region.contains(&1).await);
    world.settle().await;
    assert_eq!(cache.inspect().tiers[0].writes.fills, 0);
    assert_eq!(memory.usage().entries, Some(0));
}

pub(crate) async fn a_loaded_value_reaches_every_tier(world: World) {
    let Tiers { cache, region, memory, store } = two_tiers(&world).await;
    let load = async || Ok::<_, Infallible>("loaded".to_owned());
    let hit = region.get_or_load(&1, load).await.unwrap();
    assert_eq!((hit.as_str(), from(&hit)), ("loaded", "loader"));
    // The topmost memory tier has it at once.
    let unused = async || -> Result<String, Infallible> { panic!("it is there") };
    assert_eq!(from(&region.get_or_load(&1, unused).await.unwrap()), "memory");
    world.until("the store has it too", || store.holds(&region.key(&1))).await;
    world.until("and has said so", || cache.inspect().tiers[1].writes.fills == 1).await;
    memory.remove(&region.key(&1)).await.unwrap();
    assert_eq!(from(&region.get_or_load(&1, unused).await.unwrap()), "store");
}

pub(crate) async fn clones_are_the_same_cache(world: World) {
    let Tiers { cache, region, .. } = two_tiers(&world).await;
    let clone = cache.clone();
    let again: Region<String, u64> = clone.region("names").no_expiry().build().unwrap();
    let copy = region.clone();
    region.set(&1, "one".to_owned()).await.unwrap();
    assert_eq!(**again.get(&1).await.unwrap(), *"one");
    assert_eq!(**copy.get(&1).await.unwrap(), *"one");
    assert_eq!((copy.name(), copy.cache().inspect().tiers.len()), ("names", 2));
    again.remove(&1).await.unwrap();
    assert!(region.get(&1).await.is_none());
}

pub(crate) async fn keys_made_by_hand_and_regions_meet(world: World) {
    let Tiers { cache, region, .. } = two_tiers(&world).await;
    let key = CacheKey::new("names", 1, [KeyPart::flag("5")]);
    assert_eq!(region.key(&5), key);
    cache.set::<String>(&key, "five".to_owned(), None).await.unwrap();
    assert_eq!(**region.get(&5).await.unwrap(), *"five");
    assert_eq!(**cache.get::<String>(&key).await.unwrap(), *"five");
    assert_eq!(**cache.try_get::<String>(&key).await.unwrap().hit.unwrap(), *"five");
    cache.remove(&key).await.unwrap();
    assert!(cache.get::<String>(&key).await.is_none());
}

pub(crate) async fn versions_of_a_region_are_apart(world: World) {
    let Tiers { cache, region, .. } = two_tiers(&world).await;
    let next: Region<String, u64> = cache.region("names").version(2).no_expiry().build().unwrap();
    region.set(&1, "old schema".to_owned()).await.unwrap();
    assert!(next.get(&1).await.is_none());
    next.set(&1, "new schema".to_owned()).await.unwrap();
    assert_eq!(**region.get(&1).await.unwrap(), *"old schema");
    next.clear().await.unwrap();
    assert!(region.get(&1).await.is_none(), "a clear takes every version");
}

pub(crate) async fn inspection_serialises(world: World) {
    let Tiers { cache, region, .. } = two_tiers(&world).await;
    region.set(&1, "one".to_owned()).await.unwrap();
    let json: serde_json::Value = serde_json::to_value(cache.inspect()).unwrap();
    assert_eq!(json["runtime"], world.runtime.name());
    assert_eq!(json["tiers"][1]["label"], "store");
    assert_eq!(json["tiers"][1]["writes"]["applied"], 1);
    assert_eq!(json["tiers"][0]["breaker"], "closed");
}

pub(crate) async fn more_keys_than_a_mailbox_holds(world: World) {
    let store = Store::new("store");
    let cache = Cache::builder(world.runtime.clone())
        .tier(patient(MemoryBackend::entries(10)))
        .tier(store.tier().mailbox(16))
        .build()
        .await
        .unwrap();
    let region: Region<u64, u64> = cache.region("r").no_expiry().build().unwrap();
    let keys: Vec<u64> = (0..500).collect();
    let set = region.set_many(keys.iter().map(|key| (key, key * 3))).await;
    assert!(set.iter().all(Result::is_ok), "{:?}", set.iter().find(|result| result.is_err()));
    let hits = region.get_many(&keys).await;
    for (key, hit) in keys.iter().zip(hits) {
        assert_eq!(hit.map(|hit| *hit), Some(key * 3), "key {key}");
    }
}

pub(crate) async fn a_codec_pool_without_room_costs_a_tier_not_the_call(world: World) {
    let store = Store::new("store");
    let cache = Cache::builder(world.runtime.clone())
        .tier(patient(MemoryBackend::entries(100)))
        .tier(store.tier())
        .codec(CodecOptions::default().workers(1).queue(1).inline_encode(0))
        .build()
        .await
        .unwrap();
    let region: Region<Vec<u32>, u64> = cache.region("r").no_expiry().build().unwrap();
    let keys: Vec<u64> = (0..20).collect();
    let value = |key: u64| vec![u32::try_from(key).unwrap(); 10_000];

    // Loads that come back together: none is lost to the check of the region's first value.
    let load = |key: &u64| {
        let (region, key) = (region.clone(), *key);
        async move { region.get_or_load(&key, || async { Ok::<_, Infallible>(value(key)) }).await }
    };
    for (key, loaded) in keys.iter().zip(join_all(keys.iter().map(load)).await) {
        assert_eq!(**loaded.unwrap(), value(*key));
    }
    // Writes that come together: what cannot be encoded now is dropped from that tier, and stored by the other.
    let set = region.set_many(keys.iter().map(|key| (key, value(key + 100)))).await;
    for (key, set) in keys.iter().zip(set) {
        set.unwrap();
        assert_eq!(**region.get(key).await.unwrap(), value(key + 100), "key {key}");
    }
    assert!(cache.inspect().codec.rejected > 0, "the pool had room for all");
}
