//! What cannot work is refused with an error that says so, and changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tierkeep::codec::{CodecOptions, Format, JsonFormat, PostcardFormat, Visit};
use tierkeep::{
    Backend, BackendResult, BreakerOptions, BreakerState, Cache, CacheKey, CacheValue, DeleteStatus, Error,
    ErrorKind, MemoryBackend, Raw, Region, Tier,
};

use super::store::{Store, patient};
use super::world::World;

fn builder(world: &World) -> tierkeep::CacheBuilder {
    Cache::builder(world.runtime.clone())
}

fn memory() -> Tier {
    MemoryBackend::entries(100).into()
}

async fn refused(builder: tierkeep::CacheBuilder, names: &str) {
    let error = builder.build().await.expect_err(names);
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(error.to_string().contains(names), "`{error}` does not say `{names}`");
}

pub(crate) async fn a_cache_without_tiers(world: World) {
    refused(builder(&world), "at least one tier").await;
}

pub(crate) async fn two_tiers_of_one_label(world: World) {
    refused(builder(&world).tier(memory()).tier(memory()), "`memory`").await;
    let renamed = builder(&world).tier(memory()).tier(memory().label("other"));
    assert!(renamed.build().await.is_ok());
}

pub(crate) async fn an_empty_label(world: World) {
    refused(builder(&world).tier(memory().label("")), "label").await;
}

pub(crate) async fn each_option_that_is_zero(world: World) {
    let zero = Duration::ZERO;
    let tiers: [(&str, Tier); 12] = [
        ("read_deadline", memory().read_deadline(zero)),
        ("write_deadline", memory().write_deadline(zero)),
        ("open_deadline", memory().open_deadline(zero)),
        ("sweep_interval", memory().sweep_interval(zero)),
        ("ttl_cap", memory().ttl_cap(zero)),
        ("mailbox", memory().mailbox(0)),
        ("batch_keys", memory().batch_keys(0)),
        ("write_batch_keys", memory().write_batch_keys(0)),
        ("batch_bytes", memory().batch_bytes(0)),
        ("concurrency", memory().concurrency(0)),
        ("stuck_limit", memory().stuck_limit(0)),
        ("quarantine", memory().quarantine(0)),
    ];
    for (name, tier) in tiers {
        refused(builder(&world).tier(tier.label("odd")), &format!("`{name}`")).await;
    }
    refused(builder(&world).tier(MemoryBackend::entries(0)), "capacity").await;
    refused(builder(&world).tier(MemoryBackend::bytes(0)), "capacity").await;
    refused(builder(&world).tier(memory()).refill_lane(0), "refill_lane").await;
    refused(builder(&world).tier(memory()).fence_stripes(0), "fence_stripes").await;
    for (codec, names) in [
        (CodecOptions::default().workers(0), "worker"),
        (CodecOptions::default().queue(0), "queue"),
        (CodecOptions::default().max_value(0), "largest"),
    ] {
        refused(builder(&world).tier(memory()).codec(codec), names).await;
    }
}

pub(crate) async fn breaker_options_that_cannot_work(world: World) {
    let good = BreakerOptions::default();
    let second = Duration::from_secs(1);
    for (breaker, names) in [
        (BreakerOptions { failure_percent: 0, ..good }, "failure_percent"),
        (BreakerOptions { failure_percent: 101, ..good }, "failure_percent"),
        (BreakerOptions { min_calls: 0, ..good }, "min_calls"),
        (BreakerOptions { window: Duration::ZERO, ..good }, "window"),
        (BreakerOptions { open: Duration::ZERO, ..good }, "open"),
        (BreakerOptions { open: second * 2, open_max: second, ..good }, "open_max"),
    ] {
        refused(builder(&world).tier(memory().breaker(breaker)), names).await;
    }
    let off = BreakerOptions { failure_percent: 0, ..BreakerOptions::disabled() };
    assert!(builder(&world).tier(memory().breaker(off)).build().await.is_ok());
}

/// Postcard under another id and name.
struct Renamed(u8, &'static str);

impl Format for Renamed {
    fn id(&self) -> u8 {
        self.0
    }

    fn name(&self) -> &'static str {
        self.1
    }

    fn encode(&self, value: &dyn erased_serde::Serialize, out: &mut Vec<u8>) -> Result<(), Error> {
        PostcardFormat.encode(value, out)
    }

    fn decode(&self, bytes: &[u8], visit: Visit<'_>) -> Result<(), Error> {
        PostcardFormat.decode(bytes, visit)
    }
}

/// A store that says which format it wants.
struct Formatted(Store, Box<dyn Format>);

#[async_trait]
impl Backend for Formatted {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.0.read(key).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.0.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.0.remove(key).await
    }

    fn value_format(&self) -> &dyn Format {
        &*self.1
    }
}

fn formatted(format: impl Format) -> Tier {
    patient(Formatted(Store::new("store"), Box::new(format)))
}

pub(crate) async fn formats_with_ids_that_are_not_theirs(world: World) {
    // Unknown, though in the engine's range; and in another's place.
    refused(builder(&world).tier(formatted(Renamed(77, "unknown"))), "`unknown`").await;
    refused(builder(&world).tier(formatted(Renamed(2, "not json"))), "`not json`").await;
    let reserved = CodecOptions::default().format(Arc::new(Renamed(127, "reserved")));
    refused(builder(&world).tier(memory()).codec(reserved), "`reserved`").await;
    let twice = CodecOptions::default()
        .format(Arc::new(Renamed(200, "first")))
        .format(Arc::new(Renamed(200, "second")));
    refused(builder(&world).tier(memory()).codec(twice), "200").await;
    let clash = builder(&world)
        .tier(formatted(Renamed(200, "first")).label("a"))
        .tier(formatted(Renamed(200, "second")).label("b"));
    refused(clash, "200").await;

    let cache = builder(&world).tier(formatted(Renamed(200, "own"))).build().await.unwrap();
    let region: Region<u64, u64> = cache.region("r").no_expiry().build().unwrap();
    region.set(&1, 11).await.unwrap();
    assert_eq!(*region.get(&1).await.unwrap(), 11, "the application's own ids are its own");
}

async fn cache(world: &World) -> Cache {
    builder(world).tier(memory()).tier(Store::new("store").tier()).build().await.unwrap()
}

fn refused_region<T: std::fmt::Debug>(result: Result<T, Error>, kind: ErrorKind, names: &str) {
    let error = result.expect_err(names);
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(error.to_string().contains(names), "`{error}` does not say `{names}`");
}

pub(crate) async fn a_region_without_a_name(world: World) {
    let region = cache(&world).await.region::<u64, u64>("").no_expiry().build();
    refused_region(region, ErrorKind::Config, "name");
}

pub(crate) async fn a_region_that_does_not_say_how_long_entries_live(world: World) {
    let cache = cache(&world).await;
    refused_region(cache.region::<u64, u64>("r").build(), ErrorKind::Config, ".no_expiry()");
    let region = cache.region::<u64, u64>("r").no_expiry().load_deadline(Duration::ZERO).build();
    refused_region(region, ErrorKind::Config, "load deadline");
    assert!(cache.region::<String, u64>("r").no_expiry().build().is_ok(), "what was refused left no trace");
}

pub(crate) async fn a_region_reopened_with_other_types(world: World) {
    let cache = cache(&world).await;
    let _first: Region<u64, u64> = cache.region("r").no_expiry().build().unwrap();
    let other_value = cache.region::<String, u64>("r").no_expiry().build();
    refused_region(other_value, ErrorKind::TypeMismatch, "choose another name");
    let other_key = cache.clone().region::<u64, str>("r").no_expiry().build();
    refused_region(other_key, ErrorKind::TypeMismatch, "`r`");
    let ttl = cache.region::<u64, u64>("r").ttl(Duration::from_secs(1)).build();
    assert!(ttl.is_ok(), "the same types, with another TTL");
}

pub(crate) async fn a_ttl_of_zero(world: World) {
    let cache = cache(&world).await;
    refused_region(
        cache.region::<u64, u64>("r").ttl(Duration::ZERO).build(),
        ErrorKind::Config,
        "TTL is zero",
    );
    let region: Region<u64, u64> = cache.region("r").no_expiry().build().unwrap();
    region.set(&1, 11).await.unwrap();
    let set = region.set_for(&1, 12, Duration::ZERO).await;
    refused_region(set, ErrorKind::Config, "`remove`");
    let set = cache.set::<u64>(&region.key(&1), 12_u64, Some(Duration::ZERO)).await;
    refused_region(set, ErrorKind::Config, "`remove`");
    assert_eq!(*region.get(&1).await.unwrap(), 11, "nothing changed");
    // The shortest there is lives for a millisecond, not none.
    region.set_for(&1, 12, Duration::from_nanos(1)).await.unwrap();
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u64),
    Text(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Flattened {
    id: u64,
    #[serde(flatten)]
    rest: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Skipping {
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<u64>,
    second: u64,
}

/// Writes a number, reads a text.
#[derive(Debug, Clone)]
struct Asymmetric(u64);

impl Serialize for Asymmetric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Asymmetric {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// A field that is not stored reads back as its default, on purpose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Partial {
    kept: u64,
    #[serde(skip)]
    computed: u64,
}

async fn first_write<T>(world: &World, store: Store, value: T) -> Result<(), Error>
where
    T: Serialize + DeserializeOwned + Clone + Send + Sync + std::fmt::Debug + 'static,
{
    let cache = builder(world).tier(memory()).tier(store.tier()).build().await.unwrap();
    let region: Region<T, u64> = cache.region("r").no_expiry().build().unwrap();
    let set = region.set(&1, value.clone()).await;
    let loaded = region.get_or_load(&2, async || Ok::<_, Error>(value)).await;
    assert_eq!(set.as_ref().err().map(Error::kind), loaded.as_ref().err().map(Error::kind));
    for key in 1..=2 {
        assert_eq!(region.get(&key).await.is_some(), set.is_ok(), "a refused value is nowhere");
    }
    if set.is_err() {
        assert!(store.map().is_empty());
        assert!(cache.inspect().tiers.iter().all(|tier| tier.quarantined == 0));
    }
    set
}

pub(crate) async fn a_type_that_does_not_read_back(world: World) {
    let store = || Store::new("store");
    let flattened = Flattened { id: 1, rest: [("a".to_owned(), 2)].into() };
    let refused = [
        first_write(&world, store(), Untagged::Number(1)).await,
        first_write(&world, store(), Untagged::Text("t".to_owned())).await,
        first_write(&world, store(), flattened.clone()).await,
        first_write(&world, store(), Skipping { first: None, second: 2 }).await,
        first_write(&world, store(), Asymmetric(1)).await,
    ];
    for result in refused {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Encode, "{error:?}");
        assert_eq!(error.tier().unwrap().as_str(), "store");
    }
    first_write(&world, store(), Partial { kept: 1, computed: 2 }).await.unwrap();

    let json = || {
        let store = store();
        store.encode_as(true, false);
        store
    };
    assert_eq!(Store::value_format(&json()).name(), JsonFormat.name());
    first_write(&world, json(), Untagged::Number(1)).await.unwrap();
    first_write(&world, json(), flattened).await.unwrap();
    first_write(&world, json(), Skipping { first: None, second: 2 }).await.unwrap();
    let error = first_write(&world, json(), Asymmetric(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode, "no format helps here");
}

pub(crate) async fn a_value_that_cannot_be_encoded(world: World) {
    let store = Store::new("store");
    store.encode_as(true, false);
    let cache = builder(&world).tier(memory()).tier(store.tier()).build().await.unwrap();
    // JSON wants text as keys of a map.
    let region: Region<BTreeMap<(u8, u8), u8>, u64> = cache.region("r").no_expiry().build().unwrap();
    region.set(&1, BTreeMap::new()).await.unwrap();
    let error = region.set(&1, [((1, 2), 3)].into_iter().collect::<BTreeMap<_, _>>()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode, "{error:?}");
    assert!(region.get(&1).await.unwrap().is_empty(), "nothing changed");
}

pub(crate) async fn a_value_over_the_size_limit(world: World) {
    let store = Store::new("store");
    let cache = builder(&world)
        .codec(CodecOptions::default().max_value(10_000))
        .tier(memory())
        .tier(store.tier().breaker(BreakerOptions::default()))
        .build()
        .await
        .unwrap();
    let region: Region<String, u64> = cache.region("r").no_expiry().build().unwrap();
    region.set(&1, "small".to_owned()).await.unwrap();
    let before = cache.inspect();
    for _ in 0..50 {
        let error = region.set(&1, "x".repeat(10_001)).await.unwrap_err();
        assert_eq!((error.kind(), error.key()), (ErrorKind::TooLarge, Some(&region.key(&1))), "{error:?}");
    }
    assert_eq!(**region.get(&1).await.unwrap(), *"small", "nothing changed");
    for (before, after) in before.tiers.iter().zip(&cache.inspect().tiers) {
        assert_eq!(after.writes, before.writes, "{} is not blamed", before.label);
        assert_eq!((after.breaker, after.quarantined), (BreakerState::Closed, 0));
    }
    // A loaded value is given to who asked, but not stored in this tier.
    let loaded = region.get_or_load(&2, async || Ok::<_, Error>("x".repeat(10_001))).await.unwrap();
    assert_eq!(loaded.len(), 10_001);
    world.until("the fill is given up", || cache.inspect().tiers[1].writes.fills_dropped == 1).await;
    assert!(!store.holds(&region.key(&2)));
}

pub(crate) async fn a_value_that_the_store_finds_too_large(world: World) {
    let store = Store::new("store");
    let tier = store.tier().breaker(BreakerOptions { min_calls: 5, ..BreakerOptions::default() });
    let cache = builder(&world).tier(tier).build().await.unwrap();
    let region: Region<String, u64> = cache.region("r").no_expiry().build().unwrap();
    region.set(&1, "small".to_owned()).await.unwrap();
    store.limit(1_000);
    for key in 1..20 {
        let error = region.set(&key, "x".repeat(2_000)).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TooLarge | ErrorKind::Unavailable), "{error:?}");
    }
    assert_eq!(cache.inspect().tiers[0].breaker_opened, 0, "it is the caller's doing");
    assert!(region.get(&1).await.is_none(), "the small one is no longer the newest");
    store.limit(usize::MAX);
    world.until("it is made good", || cache.inspect().tiers[0].quarantined == 0).await;
    assert_eq!(region.get(&1).await.unwrap().len(), 2_000);
}

pub(crate) async fn any_text_as_a_key_through_the_whole_cache(world: World) {
    let store = Store::new("store");
    let cache = builder(&world).tier(store.tier()).build().await.unwrap();
    let region: Region<u64, str> = cache.region("any: text\n&=%/ä\u{0}").no_expiry().build().unwrap();
    let pairs: Region<u64, (String, String)> = cache.region("pairs").no_expiry().build().unwrap();
    let mut texts: Vec<String> = (0..0x180).filter_map(char::from_u32).map(String::from).collect();
    texts.extend(
        ["", ":", "::", "a:b", "a&b", "a=b", "%41", "A", "\u{10FFFF}", "🦀", " ", "\r\n"].map(String::from),
    );
    texts.push("long ".repeat(2_000));
    texts.sort();
    texts.dedup();
    for (number, text) in (0..).zip(&texts) {
        region.set(text.as_str(), number).await.unwrap();
        pairs.set(&(text.clone(), String::new()), number).await.unwrap();
        pairs.set(&(String::new(), text.clone()), number + 100_000).await.unwrap();
    }
    for (number, text) in (0..).zip(&texts) {
        assert_eq!(*region.get(text.as_str()).await.unwrap(), number, "{text:?}");
        if !text.is_empty() {
            assert_eq!(*pairs.get(&(text.clone(), String::new())).await.unwrap(), number, "{text:?}");
            assert_eq!(*pairs.get(&(String::new(), text.clone())).await.unwrap(), number + 100_000);
        }
    }
    let keys = store.map().contents();
    assert_eq!(keys.len(), 3 * texts.len() - 1, "no two share a key, but the empty pair");
    assert!(keys.keys().all(|key| key.as_str().is_ascii() && !key.as_str().contains(char::is_whitespace)));
}
