//! A tier's format or compressor changes while it is in use: what was written before stays readable.

use std::collections::BTreeMap;
use std::time::Duration;

use tierkeep::codec::{CodecOptions, frame::Header};
use tierkeep::{Cache, MemoryBackend, Region};

use serde::{Deserialize, Serialize};

use super::store::{Store, patient};
use super::world::World;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u64,
    lines: Vec<Line>,
    notes: BTreeMap<String, Option<f64>>,
    raw: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Line {
    Item { sku: String, count: i32 },
    Discount(f32),
    Gift,
}

fn order(id: u64) -> Order {
    Order {
        id,
        lines: vec![Line::Item { sku: "ä-\u{1F980}".repeat(20), count: -3 }, Line::Discount(0.1), Line::Gift],
        notes: [("third".to_owned(), Some(1.0 / 3.0)), (String::new(), None)].into(),
        raw: (0..=255).collect(),
    }
}

/// Postcard plain, postcard packed, JSON plain, JSON packed.
const ENCODINGS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

async fn open(world: &World, store: &Store) -> (Cache, Region<Order, u64>) {
    // Real clocks would move the limits.
    let codec =
        CodecOptions::default().inline_encode(16 << 10).inline_compress(4 << 10).inline_decode(16 << 10);
    let builder = Cache::builder(world.runtime.clone()).tier(store.tier()).codec(codec);
    let cache = builder.build().await.unwrap();
    let region = cache.region("orders").no_expiry().build().unwrap();
    (cache, region)
}

/// Format and compressor, by id, of what the store holds.
fn stored_as(store: &Store, region: &Region<Order, u64>, id: u64) -> (u8, bool) {
    let header = Header::parse(&store.map().get(&region.key(&id)).unwrap()).unwrap();
    (header.format, header.compressor != 0)
}

/// Writes under one encoding, changes to the other, and reads: in the same cache, and in one opened later.
async fn change(world: &World, from: (bool, bool), to: (bool, bool)) {
    let store = Store::new("store");
    store.encode_as(from.0, from.1);
    let (cache, region) = open(world, &store).await;
    region.set(&1, order(1)).await.unwrap();
    let before = stored_as(&store, &region, 1);
    store.encode_as(to.0, to.1);
    assert_eq!(**region.get(&1).await.unwrap().value(), order(1), "{from:?} to {to:?}");
    region.set(&2, order(2)).await.unwrap();
    assert_eq!(stored_as(&store, &region, 1), before, "what is stored is left alone");
    assert_ne!(stored_as(&store, &region, 2), before);
    assert_eq!(cache.inspect().codec.decode_failures, 0);

    let (_later, region) = open(world, &store).await;
    assert_eq!(**region.get(&1).await.unwrap().value(), order(1));
    assert_eq!(**region.get(&2).await.unwrap().value(), order(2));
}

pub(crate) async fn postcard_entries_are_read_after_a_change_to_json(world: World) {
    change(&world, (false, false), (true, false)).await;
    #[cfg(feature = "zstd")]
    change(&world, (false, false), (true, true)).await;
}

pub(crate) async fn json_entries_are_read_after_a_change_to_postcard(world: World) {
    change(&world, (true, false), (false, false)).await;
    #[cfg(feature = "zstd")]
    change(&world, (true, true), (false, false)).await;
}

pub(crate) async fn a_new_format_is_used_for_what_is_written_next(world: World) {
    let store = Store::new("store");
    let (_cache, region) = open(&world, &store).await;
    for (id, (json, zstd)) in ENCODINGS.into_iter().enumerate() {
        store.encode_as(json, zstd);
        region.set(&1, order(id as u64)).await.unwrap();
        let packed = zstd && cfg!(feature = "zstd");
        assert_eq!(stored_as(&store, &region, 1), (if json { 2 } else { 1 }, packed));
        assert_eq!(region.get(&1).await.unwrap().id, id as u64);
    }
}

pub(crate) async fn every_format_and_compressor_reads_back(world: World) {
    let store = Store::new("store");
    let (cache, region) = open(&world, &store).await;
    for (id, (json, zstd)) in (0..).zip(ENCODINGS) {
        store.encode_as(json, zstd);
        region.set(&id, order(id)).await.unwrap();
    }
    // Large enough for the codec's workers.
    let large = Order { raw: vec![7; 100_000], ..order(9) };
    region.set(&9, large.clone()).await.unwrap();
    for id in 0..4 {
        assert_eq!(**region.get(&id).await.unwrap().value(), order(id));
    }
    assert_eq!(**region.get(&9).await.unwrap().value(), large);
    let codec = cache.inspect().codec;
    assert_eq!((codec.pooled_encodes, codec.pooled_decodes), (1, 1), "{codec:?}");
    assert_eq!((codec.inline_encodes, codec.inline_decodes), (4, 4), "{codec:?}");
}

/// The payload that the store holds, and when it expires.
fn held(store: &Store, region: &Region<Order, u64>) -> (Vec<u8>, Option<tierkeep::Timestamp>) {
    let raw = store.map().get(&region.key(&1)).unwrap();
    let header = Header::parse(&raw).unwrap();
    (raw[header.header_len..].to_vec(), header.meta.expire)
}

pub(crate) async fn tiers_of_one_codec_share_an_encoding(world: World) {
    let [near, far, other, capped] = ["near", "far", "other", "capped"].map(Store::new);
    other.encode_as(true, false);
    let cache = Cache::builder(world.runtime.clone())
        .tier(near.tier())
        .tier(other.tier())
        .tier(capped.tier().ttl_cap(Duration::from_secs(60)))
        .tier(far.tier())
        .build()
        .await
        .unwrap();
    let region: Region<Order, u64> = cache.region("orders").no_expiry().build().unwrap();
    region.set(&1, order(1)).await.unwrap();
    let all = || [&near, &other, &capped, &far].iter().all(|store| store.map().len() == 1);
    world.until("every tier has it", all).await;
    assert_eq!(cache.inspect().codec.inline_encodes, 2, "one in postcard, one in JSON");
    let [near, far, other, capped] = [&near, &far, &other, &capped].map(|store| held(store, &region));
    assert_eq!(near, far);
    assert_eq!((&capped.0, near.1), (&near.0, None), "the same bytes, with a life of their own");
    assert!(capped.1.is_some());
    assert_ne!(other.0, near.0);
}

pub(crate) async fn refills_of_one_codec_share_an_encoding(world: World) {
    let [upper, middle, lower] = ["upper", "middle", "lower"].map(Store::new);
    let writing = Cache::builder(world.runtime.clone()).tier(lower.tier()).build().await.unwrap();
    let region: Region<Order, u64> = writing.region("orders").no_expiry().build().unwrap();
    region.set(&1, order(1)).await.unwrap();

    let cache = Cache::builder(world.runtime.clone())
        .tier(patient(MemoryBackend::bytes(1 << 20)))
        .tier(upper.tier())
        .tier(middle.tier().ttl_cap(Duration::from_secs(60)))
        .tier(lower.tier())
        .build()
        .await
        .unwrap();
    let region: Region<Order, u64> = cache.region("orders").no_expiry().build().unwrap();
    assert_eq!(region.get(&1).await.unwrap().tier().unwrap().as_str(), "lower");
    let filled = || cache.inspect().tiers[..3].iter().all(|tier| tier.writes.fills == 1);
    world.until("the tiers above are filled", filled).await;
    assert_eq!(cache.inspect().codec.inline_encodes, 1);
    assert_eq!(held(&upper, &region).0, held(&middle, &region).0);
}
