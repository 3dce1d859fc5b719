//! Archives are read where they are, and only where they are sound.

use async_trait::async_trait;
use rkyv::rancor::Error as RkyvError;
use tierkeep::codec::frame::Header;
use tierkeep::codec::{
    CodecOptions, Compressor, Format, JsonFormat, PassthroughCompressor, RkyvFormat, ZstdCompressor,
};
use tierkeep::write_behind::WriteBehind;
use tierkeep::{
    Backend, BackendResult, Cache, CacheKey, CacheValue, DeleteStatus, MemoryBackend, Raw, Region, Tier,
};
use tierkeep_sim::MapBackend;
use tierkeep_smol::SmolRuntime;

use super::support::{Coded, Rich, rich};

/// A store that hands its bytes back at an address that is `shift` past a multiple of 16.
struct Shifted(MapBackend, RkyvFormat, usize);

#[async_trait]
impl Backend for Shifted {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        let value = self.0.read(key).await?;
        Ok(value.map(|value| value.map(|raw| at(&raw, self.2))))
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.0.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.0.remove(key).await
    }

    fn value_format(&self) -> &dyn Format {
        &self.1
    }
}

fn at(raw: &[u8], shift: usize) -> Raw {
    let mut room = vec![0; raw.len() + 32];
    let start = room.as_ptr().align_offset(16) + shift;
    room[start..start + raw.len()].copy_from_slice(raw);
    Raw::from(room).slice(start..start + raw.len())
}

async fn open(tier: impl Into<Tier>, codec: CodecOptions) -> (Cache, Region<Rich, u64>) {
    let builder = Cache::builder(SmolRuntime::new()).tier(MemoryBackend::entries(100)).tier(tier.into());
    let cache = builder.codec(codec).build().await.unwrap();
    let region = cache.region("rich").no_expiry().build().unwrap();
    (cache, region)
}

fn coded(map: MapBackend, compressor: impl Compressor) -> Coded {
    Coded::new(map, RkyvFormat::new().register::<Rich>(), compressor)
}

/// What the archive says: enough to tell that it is the right one, and whether nothing was decoded for it.
async fn name(cache: &Cache, region: &Region<Rich, u64>) -> Option<String> {
    let before = cache.inspect().codec;
    let seen = region.read_archived(&1, |archived, hit| {
        assert_eq!(archived.bytes.len(), 2000);
        assert_eq!(archived.hashed.len(), 40);
        assert!(hit.ttl().is_none() && hit.meta().stamp.time > 0);
        archived.text.as_str().to_owned()
    });
    let seen = seen.await;
    let after = cache.inspect().codec;
    assert_eq!(
        (before.inline_decodes, before.pooled_decodes),
        (after.inline_decodes, after.pooled_decodes),
        "nothing is decoded"
    );
    seen
}

#[test]
fn an_archive_is_read_where_it_is() {
    smol::block_on(async {
        for (inline, size) in [(usize::MAX, 10), (0, 10), (usize::MAX, 300_000), (0, 300_000)] {
            let store = Shifted(MapBackend::new(), RkyvFormat::new().register::<Rich>(), 0);
            let (cache, region) = open(store, CodecOptions::default().inline_decode(inline)).await;
            region.set(&1, rich(size)).await.unwrap();
            // The frame's head is of another length than 16; the store's address has no say in that.
            assert_eq!(name(&cache, &region).await.map(|text| text.len()), Some(rich(size).text.len()));
            let codec = cache.inspect().codec;
            assert_eq!((codec.archived_views, codec.archived_copies, codec.decode_failures), (1, 0, 0));
            assert_eq!(cache.inspect().tiers[1].reads.hits, 1);
        }
    });
}

#[test]
fn a_misplaced_archive_is_copied_and_counted() {
    smol::block_on(async {
        for shift in [1, 8, 15] {
            let store = Shifted(MapBackend::new(), RkyvFormat::new().register::<Rich>(), shift);
            let (cache, region) = open(store, CodecOptions::default()).await;
            region.set(&1, rich(10)).await.unwrap();
            assert!(name(&cache, &region).await.is_some());
            let codec = cache.inspect().codec;
            assert_eq!((codec.archived_views, codec.archived_copies), (1, 1), "{shift} past");
        }
    });
}

#[test]
fn a_compressed_archive_is_unpacked_to_its_place() {
    smol::block_on(async {
        let store = coded(MapBackend::new(), ZstdCompressor::default());
        let (cache, region) = open(store.tier(), CodecOptions::default()).await;
        region.set(&1, rich(100_000)).await.unwrap();
        assert!(name(&cache, &region).await.is_some());
        let codec = cache.inspect().codec;
        assert_eq!((codec.archived_views, codec.archived_copies), (1, 0));
    });
}

#[test]
fn what_only_a_tier_of_objects_has_is_not_found() {
    smol::block_on(async {
        let map = MapBackend::new();
        let (cache, region) =
            open(coded(map.clone(), PassthroughCompressor).tier(), CodecOptions::default()).await;
        region.set(&1, rich(10)).await.unwrap();
        map.wipe();
        assert!(region.peek(&1).is_some());
        assert!(name(&cache, &region).await.is_none());
        region.remove(&1).await.unwrap();
        assert!(name(&cache, &region).await.is_none());
    });
}

#[test]
fn what_waits_to_be_written_behind_is_seen_before_what_is_stored() {
    smol::block_on(async {
        let map = MapBackend::new();
        let behind = WriteBehind::memory().max_delay(std::time::Duration::from_secs(3_600));
        let tier = coded(map.clone(), PassthroughCompressor).tier().write_behind(behind);
        let (cache, region) = open(tier, CodecOptions::default()).await;
        let length = || async { region.read_archived(&1, |archived, _| archived.text.len()).await };
        for size in [10, 20] {
            region.set(&1, rich(size)).await.unwrap();
            assert_eq!(length().await, Some(rich(size).text.len()));
            assert_eq!(map.is_empty(), size == 10, "one is stored, and one waits");
            if size == 10 {
                cache.flush(std::time::Duration::from_secs(60)).await.unwrap();
            }
        }
        region.remove(&1).await.unwrap();
        assert_eq!((length().await, map.is_empty()), (None, false));
        cache.shutdown(std::time::Duration::from_secs(60)).await;
    });
}

#[test]
fn an_entry_in_another_format_is_of_another_type() {
    smol::block_on(async {
        let map = MapBackend::new();
        let (_json, before) =
            open(Coded::new(map.clone(), JsonFormat, PassthroughCompressor).tier(), CodecOptions::default())
                .await;
        before.set(&1, rich(10)).await.unwrap();
        let (cache, region) = open(coded(map, PassthroughCompressor).tier(), CodecOptions::default()).await;
        assert!(name(&cache, &region).await.is_none());
        let reads = cache.inspect().tiers[1].reads;
        assert_eq!((reads.wrong_type, reads.decode_failed, reads.hits), (1, 0, 0));
        assert_eq!(*region.get(&1).await.unwrap().value().as_ref(), rich(10));
    });
}

/// The frame in `map` with its payload changed and its checksums put right.
fn forge(map: &MapBackend, key: &CacheKey, change: impl FnOnce(&mut Vec<u8>)) {
    let raw = map.get(key).unwrap();
    let header = Header::parse(&raw).unwrap();
    let mut payload = raw[header.header_len..].to_vec();
    change(&mut payload);
    let low = |bytes: &[u8]| twox_hash::XxHash3_64::oneshot(bytes) as u32;
    let mut head = raw[..header.header_len - 4].to_vec();
    let old = low(&raw[header.header_len..]).to_le_bytes();
    let at = head.windows(4).position(|window| window == old).unwrap();
    head[at..at + 4].copy_from_slice(&low(&payload).to_le_bytes());
    let sum = low(&head);
    head.extend(sum.to_le_bytes());
    head.extend(payload);
    map.put(key.clone(), head);
}

#[test]
fn hostile_archives_are_a_counted_miss() {
    smol::block_on(async {
        let map = MapBackend::new();
        let (cache, region) =
            open(coded(map.clone(), PassthroughCompressor).tier(), CodecOptions::default()).await;
        region.set(&1, rich(10)).await.unwrap();
        let key = region.key(&1);
        let sound = map.get(&key).unwrap();
        // Offsets and lengths at the archive's end, where its root is.
        let mut missed = 0;
        for back in (1..=200).step_by(3) {
            map.put(key.clone(), sound.clone());
            forge(&map, &key, |payload| {
                let at = payload.len() - back;
                payload[at] ^= 0x80;
            });
            // Some bits are values: whatever is seen, seeing it is safe.
            let seen = region
                .read_archived(&1, |archived, _| rkyv::deserialize::<Rich, RkyvError>(archived).is_ok());
            missed += u64::from(seen.await.is_none());
        }
        assert!(missed > 20, "{missed} were refused");
        let reads = cache.inspect().tiers[1].reads;
        assert_eq!((reads.decode_failed, cache.inspect().codec.decode_failures), (missed, missed));

        let mut damaged = sound.to_vec();
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        map.put(key.clone(), damaged);
        assert!(name(&cache, &region).await.is_none(), "the checksum tells");
        assert_eq!(cache.inspect().tiers[1].reads.decode_failed, missed + 1);
    });
}

#[test]
fn the_next_tier_shows_what_a_damaged_one_cannot() {
    smol::block_on(async {
        let maps = [MapBackend::new(), MapBackend::new()];
        let [upper, lower] = maps.each_ref().map(|map| coded(map.clone(), PassthroughCompressor).tier());
        let builder =
            Cache::builder(SmolRuntime::new()).tier(upper.label("upper")).tier(lower.label("lower"));
        let cache = builder.build().await.unwrap();
        let region: Region<Rich, u64> = cache.region("rich").no_expiry().build().unwrap();
        region.set(&1, rich(10)).await.unwrap();
        let key = region.key(&1);
        let mut damaged = maps[0].get(&key).unwrap().to_vec();
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        // Both have it before one is damaged.
        while maps[1].get(&key).is_none() {
            smol::future::yield_now().await;
        }
        maps[0].put(key, damaged);
        let seen = region.read_archived(&1, |_, hit| hit.tier().to_string()).await;
        assert_eq!(seen.as_deref(), Some("lower"));
    });
}

#[test]
fn a_panic_in_the_view_is_the_caller_s() {
    smol::block_on(async {
        for inline in [0, usize::MAX] {
            let store = coded(MapBackend::new(), PassthroughCompressor);
            let (cache, region) = open(store.tier(), CodecOptions::default().inline_decode(inline)).await;
            region.set(&1, rich(10)).await.unwrap();
            let view = region.read_archived(&1, |_, _| -> () { panic!("the view's own") });
            let panicked = futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(view)).await;
            assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"the view's own"));
            let reads = cache.inspect().tiers[1].reads;
            assert_eq!(
                (reads.hits, reads.panicked, reads.decode_failed),
                (1, 0, 0),
                "the tier is not to blame"
            );
        }
    });
}

#[test]
fn after_shutdown_nothing_is_seen() {
    smol::block_on(async {
        let store = coded(MapBackend::new(), PassthroughCompressor);
        let (cache, region) = open(store.tier(), CodecOptions::default()).await;
        region.set(&1, rich(10)).await.unwrap();
        cache.shutdown(std::time::Duration::from_secs(10)).await;
        assert!(region.read_archived(&1, |_, _| ()).await.is_none());
    });
}
