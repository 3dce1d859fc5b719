//! The seed's interface: typed calls on backends by themselves, and compositions that are backends again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tierkeep::codec::{GzipCompressor, JsonFormat};
use tierkeep::composition::{CompositionBuilder, CompositionPolicy, ReadPolicy, RefillPolicy, WritePolicy};
use tierkeep::{
    Backend, BackendResult, Cache, CacheBackend, CacheKey, CacheValue, Compose, CompositionBackend,
    DeleteStatus, ErrorKind, KeyPart, MemoryBackend, Raw, Timestamp, async_trait,
};
use tierkeep_sim::{MapBackend, Sim};
use tierkeep_tokio::TokioRuntime;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    id: u32,
    name: String,
}

fn ada() -> User {
    User { id: 7, name: "Ada".into() }
}

fn key(id: u32) -> CacheKey {
    CacheKey::new("user", 1, [KeyPart::new("id", Some(id.to_string()))])
}

/// On a clock that moves only while there is nothing to do: no deadline passes because the machine is busy.
fn at_leisure<F: Future>(future: F) -> F::Output {
    let mut tokio = tokio::runtime::Builder::new_current_thread();
    tokio.enable_time().start_paused(true).build().unwrap().block_on(future)
}

/// A value that never expires.
fn eternal<T>(value: T) -> CacheValue<T> {
    CacheValue::new(value, None, None)
}

/// What every holder of the typed calls does.
async fn keeps_a_user(backend: &(impl CacheBackend + ?Sized)) {
    assert_eq!(backend.get::<User>(&key(1)).await.unwrap(), None);
    backend.set::<User>(&key(1), eternal(ada())).await.unwrap();
    assert_eq!(backend.get::<User>(&key(1)).await.unwrap(), Some(eternal(Arc::new(ada()))));
    let DeleteStatus::Deleted(copies) = backend.delete(&key(1)).await.unwrap() else { panic!("not deleted") };
    assert!(copies >= 1);
    assert_eq!(backend.delete(&key(1)).await.unwrap(), DeleteStatus::Missing);
    assert_eq!(backend.get::<User>(&key(1)).await.unwrap(), None);
}

#[test]
fn every_backend_has_the_typed_calls_also_behind_pointers() {
    at_leisure(async {
        keeps_a_user(&MapBackend::new()).await;
        keeps_a_user(&MemoryBackend::bytes(1 << 20)).await;
        let borrowed: &dyn Backend = &MapBackend::new();
        keeps_a_user(borrowed).await;
        let boxed: Box<dyn Backend> = Box::new(MapBackend::new());
        keeps_a_user(&boxed).await;
        let shared: Arc<dyn Backend> = Arc::new(MapBackend::new());
        keeps_a_user(&shared).await;
        let leaked: &'static dyn Backend = Box::leak(Box::new(MapBackend::new()));
        keeps_a_user(&leaked).await;
    });
}

#[test]
fn a_backend_behind_a_pointer_is_a_tier_as_it_would_be_by_itself() {
    at_leisure(async {
        let memory: Arc<dyn Backend> = Arc::new(MemoryBackend::entries(10).label("pointed at"));
        let cache = Cache::builder(TokioRuntime::current()).tier(Arc::clone(&memory)).build().await.unwrap();
        cache.set::<User>(&key(1), ada(), None).await.unwrap();
        let hit = cache.get::<User>(&key(1)).await.unwrap();
        assert_eq!(hit.tier().unwrap().as_str(), "pointed at");
        assert_eq!(cache.inspect().tiers[0].reads.through_port, 1, "the port was lost");
        assert!(Arc::ptr_eq(memory.get::<User>(&key(1)).await.unwrap().unwrap().data(), hit.value()));
    });
}

/// JSON through gzip, over a map.
struct Zipped(MapBackend, GzipCompressor);

#[async_trait]
impl Backend for Zipped {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.0.read(key).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.0.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.0.remove(key).await
    }

    fn value_format(&self) -> &dyn tierkeep::codec::Format {
        &JsonFormat
    }

    fn compressor(&self) -> &dyn tierkeep::codec::Compressor {
        &self.1
    }
}

#[test]
fn a_cache_and_the_backend_by_itself_read_each_others_entries() {
    at_leisure(async {
        let map = MapBackend::new();
        let zipped = Arc::new(Zipped(map.clone(), GzipCompressor::default().with_min_size(0)));
        let cache = Cache::builder(TokioRuntime::current()).tier(Arc::clone(&zipped)).build().await.unwrap();
        let user = User { name: "x".repeat(1000), ..ada() };

        cache.set::<User>(&key(1), user.clone(), None).await.unwrap();
        assert!(map.get(&key(1)).unwrap().len() < 200, "not compressed");
        assert_eq!(**zipped.get::<User>(&key(1)).await.unwrap().unwrap().data(), user);

        zipped.set::<User>(&key(2), eternal(user.clone())).await.unwrap();
        assert!(map.get(&key(2)).unwrap().len() < 200, "not compressed");
        assert_eq!(cache.get::<User>(&key(2)).await.as_deref(), Some(&user));

        // Whatever the format was, a backend reads those of the engine.
        assert_eq!(**map.get_user(2).await.data(), user);

        cache.clear().await.unwrap();
        zipped.set::<User>(&key(2), eternal(user)).await.unwrap();
        assert!(cache.get::<User>(&key(2)).await.is_none(), "without a stamp it is older than the clear");
    });
}

trait GetUser {
    async fn get_user(&self, id: u32) -> CacheValue<Arc<User>>;
}

impl GetUser for MapBackend {
    async fn get_user(&self, id: u32) -> CacheValue<Arc<User>> {
        CacheBackend::get::<User>(self, &key(id)).await.unwrap().unwrap()
    }
}

#[test]
fn stamps_are_kept_to_the_millisecond_and_never_judged() {
    at_leisure(async {
        let (expire, stale) = (Timestamp::from_millis(1001), Timestamp::from_millis(999));
        let value = CacheValue::new(ada(), Some(expire), Some(stale));
        for backend in [&MapBackend::new() as &dyn Backend, &MemoryBackend::entries(10)] {
            backend.set::<User>(&key(1), value.clone()).await.unwrap();
            let found = backend.get::<User>(&key(1)).await.unwrap().unwrap();
            assert_eq!((found.expire(), found.stale()), (Some(expire), Some(stale)));
        }
    });
}

#[test]
fn what_cannot_be_read_is_an_error_that_names_the_key() {
    at_leisure(async {
        let map = MapBackend::new();
        map.put(key(1), Raw::from_static(b"not a frame"));
        let error = CacheBackend::get::<User>(&map, &key(1)).await.unwrap_err();
        assert_eq!((error.kind(), error.key()), (ErrorKind::Decode, Some(&key(1))));

        map.set::<User>(&key(2), eternal(ada())).await.unwrap();
        map.put(key(3), map.get(&key(2)).unwrap());
        let error = CacheBackend::get::<User>(&map, &key(3)).await.unwrap_err();
        assert!(error.message().contains("another key"), "{error}");
        assert_eq!(
            CacheBackend::get::<Vec<String>>(&map, &key(2)).await.unwrap_err().kind(),
            ErrorKind::Decode
        );

        let memory = MemoryBackend::entries(10);
        memory.set::<User>(&key(2), eternal(ada())).await.unwrap();
        assert_eq!(memory.get::<u64>(&key(2)).await.unwrap_err().kind(), ErrorKind::TypeMismatch);

        let large = vec![0_u8; (16 << 20) + 1];
        assert_eq!(
            map.set::<Vec<u8>>(&key(4), eternal(large)).await.unwrap_err().kind(),
            ErrorKind::TooLarge
        );
    });
}

#[derive(Debug, Serialize, Deserialize)]
struct Bomb;

mod bomb {
    pub(super) fn go_off() -> ! {
        panic!("the value's own code panics")
    }
}

#[derive(Debug)]
struct Panics;

impl Serialize for Panics {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        bomb::go_off()
    }
}

impl<'de> Deserialize<'de> for Panics {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        bomb::go_off()
    }
}

#[test]
fn a_panic_in_a_values_own_code_is_an_error() {
    at_leisure(async {
        let map = MapBackend::new();
        let error = map.set::<Panics>(&key(1), eternal(Panics)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Panicked);
        map.set::<Bomb>(&key(1), eternal(Bomb)).await.unwrap();
        assert_eq!(CacheBackend::get::<Panics>(&map, &key(1)).await.unwrap_err().kind(), ErrorKind::Panicked);
    });
}

fn tier(label: &'static str) -> MapBackend {
    MapBackend::new().labelled(label)
}

fn labels(cache: &CompositionBackend) -> Vec<String> {
    cache.cache().inspect().tiers.iter().map(|tier| tier.label.as_str().to_owned()).collect()
}

#[test]
fn compositions_nest_into_one_flat_route() {
    at_leisure(async {
        let runtime = TokioRuntime::current();
        let two = tier("a").compose(tier("b"), runtime.clone());
        let right = tier("a").compose(tier("b").compose(tier("c"), runtime.clone()), runtime.clone());
        let left = tier("a").compose(tier("b"), runtime.clone()).compose(tier("c"), runtime.clone());
        let four = (tier("a").compose(tier("b"), runtime.clone()))
            .compose(tier("c").compose(tier("d"), runtime.clone()), runtime.clone());
        let mixed = tier("a").compose(tier("b").over(tier("c")), runtime);
        for (builder, expected) in
            [(two, "a b"), (right, "a b c"), (left, "a b c"), (four, "a b c d"), (mixed, "a b c")]
        {
            assert_eq!(builder.tiers().len(), labels_of(expected).len());
            let cache = builder.await.unwrap();
            assert_eq!(labels(&cache), labels_of(expected));
            keeps_a_user(&cache).await;
        }
    });
}

fn labels_of(expected: &str) -> Vec<String> {
    expected.split(' ').map(str::to_owned).collect()
}

#[test]
fn every_tier_gets_what_is_set_and_the_lowest_refills_those_above() {
    at_leisure(async {
        let [a, b, c] = ["a", "b", "c"].map(tier);
        let runtime = TokioRuntime::current();
        let lower = b.clone().compose(c.clone(), runtime.clone());
        let cache = a.clone().compose(lower, runtime).await.unwrap();
        let clone = cache.clone();
        clone.set::<User>(&key(1), eternal(ada())).await.unwrap();
        for store in [&a, &b, &c] {
            assert_eq!(**store.get_user(1).await.data(), ada());
        }
        a.wipe();
        b.wipe();
        assert_eq!(**cache.get::<User>(&key(1)).await.unwrap().unwrap().data(), ada());
        cache.cache().shutdown(Duration::from_secs(10)).await;
        let error = cache.get::<User>(&key(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "clones are one cache");
    });
}

#[test]
fn policies_are_set_one_by_one_or_together_and_the_outermost_hold() {
    let runtime = Sim::new(1).runtime();
    let policies = |builder: &CompositionBuilder| {
        let policy = builder.policy();
        (policy.read_policy(), policy.write_policy(), format!("{:?}", policy.refill_policy()))
    };
    let default = policies(&tier("a").compose(tier("b"), runtime.clone()));
    assert_eq!(default, (ReadPolicy::Sequential, WritePolicy::default(), "Always".to_owned()));

    let one_by_one = tier("a")
        .compose(tier("b"), runtime.clone())
        .read(ReadPolicy::Race)
        .write(WritePolicy::Sequential)
        .refill(RefillPolicy::Never);
    let policy = CompositionPolicy::new()
        .read(ReadPolicy::Race)
        .write(WritePolicy::Sequential)
        .refill(RefillPolicy::Never);
    let together = tier("a").compose_with(tier("b"), runtime.clone(), policy.clone());
    let later = tier("a").compose(tier("b"), runtime.clone()).with_policy(policy.clone());
    let expected = (ReadPolicy::Race, WritePolicy::Sequential, "Never".to_owned());
    for builder in [&one_by_one, &together, &later] {
        assert_eq!(policies(builder), expected);
    }
    assert_eq!(policies(&tier("z").compose(one_by_one, runtime.clone())), default, "the inner's are void");
    assert_eq!(tier("z").over(tier("a")).with_policy(policy).policy().read_policy(), ReadPolicy::Race);
}

#[test]
fn a_policy_is_in_force_in_the_running_composition() {
    at_leisure(async {
        let (a, b) = (tier("a"), tier("b"));
        let builder = a.clone().compose(b.clone(), TokioRuntime::current());
        let cache = builder.write(WritePolicy::WriteAround).refill(RefillPolicy::Never).await.unwrap();
        cache.set::<User>(&key(1), eternal(ada())).await.unwrap();
        assert_eq!((a.len(), b.len()), (0, 1), "only the lowest tier stores it");
        assert!(cache.get::<User>(&key(1)).await.unwrap().is_some());
        cache.cache().shutdown(Duration::from_secs(10)).await;
        assert_eq!(a.len(), 0, "nothing is refilled");
    });
}

#[test]
fn what_cannot_work_is_told_when_the_composition_is_started() {
    at_leisure(async {
        let error = tier("same").compose(tier("same"), TokioRuntime::current()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains("`same`"), "{error}");
    });
}

#[test]
fn a_composition_goes_by_the_stamps_of_a_value() {
    let sim = Sim::new(3);
    let runtime = tierkeep::runtime::RuntimeHandle::new(sim.runtime());
    let run = sim.block_on(async {
        let cache = MemoryBackend::entries(10).compose(MapBackend::new(), runtime.clone()).await.unwrap();
        let expire = runtime.wall().after(Duration::from_millis(500));
        let stale = runtime.wall().after(Duration::from_millis(100));
        cache.set::<User>(&key(1), CacheValue::new(ada(), Some(expire), Some(stale))).await.unwrap();

        let found = cache.get::<User>(&key(1)).await.unwrap().unwrap();
        assert_eq!((found.expire(), found.stale()), (Some(expire), Some(stale)));
        runtime.sleep(Duration::from_millis(400)).await;
        let hit = cache.cache().get::<User>(&key(1)).await.unwrap();
        assert_eq!(hit.freshness(), tierkeep::Freshness::Stale);
        assert!(
            hit.age() >= Duration::from_millis(400) && hit.age() < Duration::from_secs(1),
            "{:?}",
            hit.age()
        );
        runtime.sleep(Duration::from_millis(200)).await;
        assert_eq!(cache.get::<User>(&key(1)).await.unwrap(), None, "under a second is not for ever");
    });
    run.unwrap();
}

static WRITTEN: AtomicUsize = AtomicUsize::new(0);

/// Counts how often it is serialized.
#[derive(Debug, Deserialize)]
struct Counted;

impl Serialize for Counted {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WRITTEN.fetch_add(1, Ordering::Relaxed);
        serializer.serialize_unit_struct("Counted")
    }
}

#[test]
fn only_the_first_value_of_a_type_is_checked_for_reading_back() {
    at_leisure(async {
        let cache = Cache::builder(TokioRuntime::current()).tier(MapBackend::new()).build().await.unwrap();
        let mut written = Vec::new();
        for id in 0..3 {
            let before = WRITTEN.load(Ordering::Relaxed);
            cache.set::<Counted>(&key(id), Counted, None).await.unwrap();
            written.push(WRITTEN.load(Ordering::Relaxed) - before);
        }
        assert!(written[0] > written[1] && written[1] == written[2], "{written:?}");
    });
}
