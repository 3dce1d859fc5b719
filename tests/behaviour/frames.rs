//! Whatever a store hands back, the cache answers: with a value it can vouch for, or with a counted miss.

use tierkeep::codec::CodecOptions;
use tierkeep::{Cache, ErrorKind, MemoryBackend, Raw, Region};

use super::store::{Store, patient};
use super::world::World;

async fn open(world: &World, store: &Store) -> (Cache, Region<String, u64>) {
    let cache = Cache::builder(world.runtime.clone()).tier(store.tier()).build().await.unwrap();
    let region = cache.region("r").no_expiry().build().unwrap();
    (cache, region)
}

/// A store with one good entry.
async fn filled(world: &World) -> (Store, Cache, Region<String, u64>, Raw) {
    let store = Store::new("store");
    let (cache, region) = open(world, &store).await;
    region.set(&1, "a value of some length".to_owned()).await.unwrap();
    let frame = store.map().get(&region.key(&1)).unwrap();
    (store, cache, region, frame)
}

/// Reads what the store holds under key 1: a miss, counted as undecodable, and told to who wants to know.
async fn is_undecodable(cache: &Cache, region: &Region<String, u64>, what: &str) {
    let counted = || cache.inspect().tiers[0].reads.decode_failed;
    let before = counted();
    let lookup = region.try_get(&1).await.unwrap();
    assert!(lookup.hit.is_none(), "{what}: {:?}", lookup.hit);
    assert_eq!(lookup.degraded.len(), 1, "{what}");
    assert_eq!(lookup.degraded[0].kind(), ErrorKind::Decode, "{what}");
    assert_eq!(counted(), before + 1, "{what}");
}

pub(crate) async fn damaged_entries_are_counted_misses(world: World) {
    let (store, cache, region, frame) = filled(&world).await;
    let key = region.key(&1);
    for at in 0..frame.len() {
        let mut damaged = frame.to_vec();
        damaged[at] ^= 1 << (at % 8);
        store.map().put(key.clone(), damaged);
        is_undecodable(&cache, &region, &format!("a bit of byte {at} flipped")).await;
    }
    store.map().put(key, frame);
    assert!(region.get(&1).await.is_some(), "whole again");
    let tier = &cache.inspect().tiers[0];
    assert_eq!((tier.breaker_opened, tier.restarts), (0, 0), "the store itself is not blamed");
}

pub(crate) async fn truncated_entries_are_counted_misses(world: World) {
    let (store, cache, region, frame) = filled(&world).await;
    for length in 0..frame.len() {
        store.map().put(region.key(&1), frame.slice(..length));
        is_undecodable(&cache, &region, &format!("cut to {length} bytes")).await;
    }
    store.map().put(region.key(&1), [&frame[..], &[0]].concat());
    is_undecodable(&cache, &region, "a byte too long").await;
}

pub(crate) async fn foreign_entries_are_counted_misses(world: World) {
    let (store, cache, region, _) = filled(&world).await;
    for foreign in [&b""[..], b"plain text", b"\0\0\0\0", b"{\"json\":1}", &[0xFF; 4096]] {
        store.map().put(region.key(&1), Raw::from_static(foreign));
        is_undecodable(&cache, &region, &format!("{} foreign bytes", foreign.len())).await;
    }
}

pub(crate) async fn entries_under_another_key_are_counted_misses(world: World) {
    let (store, cache, region, _) = filled(&world).await;
    region.set(&2, "another".to_owned()).await.unwrap();
    let other = store.map().get(&region.key(&2)).unwrap();
    store.map().put(region.key(&1), other);
    is_undecodable(&cache, &region, "another key's entry").await;
}

pub(crate) async fn oversized_entries_are_counted_misses(world: World) {
    let store = Store::new("store");
    // The first is packed where that is built in: small in the store, large once unpacked.
    for zstd in [true, false] {
        store.encode_as(false, zstd);
        let (_generous, region) = open(&world, &store).await;
        region.set(&1, "x".repeat(100_000)).await.unwrap();
        let limits = CodecOptions::default().max_value(10_000);
        let builder = Cache::builder(world.runtime.clone()).codec(limits).tier(store.tier());
        let strict = builder.build().await.unwrap();
        let region = strict.region("r").no_expiry().build().unwrap();
        is_undecodable(&strict, &region, "over the limit of this cache").await;
    }
}

pub(crate) async fn a_damaged_entry_is_replaced_from_below(world: World) {
    let [upper, lower] = ["upper", "lower"].map(Store::new);
    let cache = Cache::builder(world.runtime.clone())
        .tier(patient(MemoryBackend::entries(100)))
        .tier(upper.tier())
        .tier(lower.tier())
        .build()
        .await
        .unwrap();
    let region: Region<String, u64> = cache.region("r").no_expiry().build().unwrap();
    region.set(&1, "value".to_owned()).await.unwrap();
    let key = region.key(&1);
    upper.map().put(key.clone(), Raw::from_static(b"damaged"));
    // A cache whose memory is empty.
    let cache = Cache::builder(world.runtime.clone()).tier(upper.tier()).tier(lower.tier()).build().await;
    let cache = cache.unwrap();
    let region: Region<String, u64> = cache.region("r").no_expiry().build().unwrap();
    let hit = region.get(&1).await.unwrap();
    assert_eq!((hit.as_str(), hit.tier().unwrap().as_str()), ("value", "lower"));
    assert_eq!(cache.inspect().tier("upper").unwrap().reads.decode_failed, 1);
    world.until("the refill", || cache.inspect().tier("upper").unwrap().writes.fills == 1).await;
    let hit = region.get(&1).await.unwrap();
    assert_eq!((hit.as_str(), hit.tier().unwrap().as_str()), ("value", "upper"));
}

pub(crate) async fn entries_of_another_type_are_counted_misses(world: World) {
    let memory = patient(MemoryBackend::entries(100));
    let cache = Cache::builder(world.runtime.clone()).tier(memory).build().await.unwrap();
    let region: Region<String, u64> = cache.region("r").no_expiry().build().unwrap();
    region.set(&1, "text".to_owned()).await.unwrap();
    // Only a key made by hand gets past the region's types.
    let lookup = cache.try_get::<u64>(&region.key(&1)).await.unwrap();
    assert!(lookup.hit.is_none());
    assert_eq!(lookup.degraded[0].kind(), ErrorKind::TypeMismatch);
    assert_eq!(cache.inspect().tiers[0].reads.wrong_type, 1);
    assert_eq!(**region.get(&1).await.unwrap(), *"text");
}
