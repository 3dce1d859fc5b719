//! rkyv works on registered types, and nobody else notices that it is there.

use std::collections::HashMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tierkeep::codec::{Format, JsonFormat, PassthroughCompressor, RkyvFormat, Visit, value_type};
use tierkeep::{Cache, CacheBackend, CacheKey, CacheValue, ErrorKind, MemoryBackend, Object, Region, Result};
use tierkeep_sim::MapBackend;
use tierkeep_smol::SmolRuntime;

use super::support::{Coded, Rich, rich};

/// Only serde: no rkyv derive, no other trait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Plain {
    id: u32,
}

/// Code as it is written without the feature: generic over serde alone. It compiles with `rkyv_format` on (as it is
/// here), so the feature changes no bound.
async fn as_ever<T>(cache: &Cache, backend: &impl CacheBackend, value: T) -> Result<()>
where
    T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
{
    let region: Region<T, u32> = cache.region("as ever").no_expiry().build()?;
    region.set(&1, value.clone()).await?;
    let _ = region.get_or_load(&2, async || Ok::<_, std::io::Error>(value.clone())).await?;
    cache.set::<T>(&region.key(&3), value.clone(), None).await?;
    let _ = cache.get::<T>(&region.key(&3)).await;
    backend.set::<T>(&region.key(&4), CacheValue::new(value, None, None)).await?;
    let _ = backend.get::<T>(&region.key(&4)).await?;
    let _ = value_type::<T>();
    Ok(())
}

/// A format as it is written today: without a word about `typed`.
struct Own;

impl Format for Own {
    fn id(&self) -> u8 {
        200
    }

    fn name(&self) -> &'static str {
        "own"
    }

    fn encode(&self, value: &dyn erased_serde::Serialize, out: &mut Vec<u8>) -> Result<()> {
        JsonFormat.encode(value, out)
    }

    fn decode(&self, bytes: &[u8], visit: Visit<'_>) -> Result<()> {
        JsonFormat.decode(bytes, visit)
    }
}

#[test]
fn the_feature_changes_no_bound_and_no_format() {
    smol::block_on(async {
        let coded = Coded::new(MapBackend::new(), Own, PassthroughCompressor);
        let builder = Cache::builder(SmolRuntime::new()).tier(MemoryBackend::entries(100)).tier(coded.tier());
        as_ever(&builder.build().await.unwrap(), &coded, Plain { id: 7 }).await.unwrap();
    });
}

#[test]
fn a_type_that_is_not_registered_is_an_error_that_says_what_to_do() {
    let format = RkyvFormat::new().register::<Rich>();
    let ty = value_type::<Plain>();
    let value: Object = Arc::new(Plain { id: 7 });
    let error = ty.encode(&value, &format, &mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode);
    assert!(error.message().contains("Plain>()`") && error.message().contains(".register::<"), "{error}");
    assert_eq!(ty.decode(b"whatever", &format).unwrap_err().kind(), ErrorKind::Decode);

    smol::block_on(async {
        let coded = Coded::new(MapBackend::new(), format, PassthroughCompressor);
        let cache = Cache::builder(SmolRuntime::new()).tier(coded.tier()).build().await.unwrap();
        let region: Region<Plain, u32> = cache.region("plain").no_expiry().build().unwrap();
        let error = region.set(&1, Plain { id: 7 }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Encode);
        assert!(error.to_string().contains(".register::<"), "{error}");
        assert!(region.get(&1).await.is_none());
    });
}

#[test]
fn two_tiers_may_register_different_types() {
    smol::block_on(async {
        let numbers =
            Coded::new(MapBackend::new(), RkyvFormat::new().register::<u64>(), PassthroughCompressor);
        let texts =
            Coded::new(MapBackend::new(), RkyvFormat::new().register::<String>(), PassthroughCompressor);
        let tiers = [numbers.tier().label("numbers"), texts.tier().label("texts")];
        let [first, second] = tiers;
        let cache = Cache::builder(SmolRuntime::new()).tier(first).tier(second).build().await.unwrap();
        let key = CacheKey::new("k", 1, []);
        for value in [1_u64, 2] {
            numbers.set::<u64>(&key, CacheValue::new(value, None, None)).await.unwrap();
            assert_eq!(cache.get::<u64>(&key).await.as_deref(), Some(&value));
        }
        texts.set::<String>(&key, CacheValue::new("text".to_owned(), None, None)).await.unwrap();
        numbers.delete(&key).await.unwrap();
        assert_eq!(cache.get::<String>(&key).await.as_deref().map(String::as_str), Some("text"));
    });
}

#[test]
fn a_tier_that_leaves_rkyv_still_reads_its_archives() {
    smol::block_on(async {
        let map = MapBackend::new();
        let before = Coded::new(map.clone(), RkyvFormat::new().register::<Rich>(), PassthroughCompressor);
        let key = CacheKey::new("k", 1, []);
        before.set::<Rich>(&key, CacheValue::new(rich(10), None, None)).await.unwrap();

        let after = Coded::new(map, JsonFormat, PassthroughCompressor);
        let known = tierkeep::codec::CodecOptions::default().format(before.format.clone());
        let cache = Cache::builder(SmolRuntime::new()).tier(after.tier()).codec(known).build().await.unwrap();
        assert_eq!(cache.get::<Rich>(&key).await.as_deref(), Some(&rich(10)));
    });
}

#[test]
fn hash_maps_pass_the_check_whatever_order_they_are_archived_in() {
    type Map = HashMap<String, String>;
    let map: Map = (0..200).map(|n| (format!("key {n}"), "x".repeat(n % 9))).collect();
    let value: Object = Arc::new(map);
    value_type::<Map>().check(&value, &RkyvFormat::new().register::<Map>()).unwrap();
}

#[test]
fn archives_are_read_wherever_they_lie_in_memory() {
    let format = RkyvFormat::new().register::<Rich>();
    let (ty, value) = (value_type::<Rich>(), Arc::new(rich(100)));
    let mut archive = Vec::new();
    ty.encode(&(Arc::clone(&value) as Object), &format, &mut archive).unwrap();
    for offset in 0..17 {
        let mut shifted = vec![0; offset];
        shifted.extend_from_slice(&archive);
        let back = ty.decode(&shifted[offset..], &format).unwrap();
        assert_eq!(back.downcast_ref::<Rich>(), Some(&*value), "at offset {offset}");
    }
}
