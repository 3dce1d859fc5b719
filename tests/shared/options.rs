//! What a shared store asks of the tiers above it, and a lagging one of everybody.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{
    Backend, BackendResult, Cache, CacheKey, CacheValue, DeleteStatus, MemoryBackend, Raw, Region, Tier,
};
use tierkeep_sim::{MapBackend, SimRuntime};

use crate::world::{ms, node, under_seeds};

/// What `memory` says an entry has left, an instant after it was set.
async fn life(sim: &SimRuntime, memory: Tier, store: MapBackend) -> Option<Duration> {
    let cache = Cache::builder(sim.clone()).tier(memory).tier(store).build().await.unwrap();
    let numbers: Region<u64, u64> = cache.region("n").no_expiry().build().unwrap();
    numbers.set(&1, 10).await.unwrap();
    numbers.get(&1).await.unwrap().ttl()
}

#[test]
fn a_tier_above_a_shared_one_keeps_entries_for_thirty_seconds_unless_told_otherwise() {
    under_seeds(|sim| async move {
        let memory = || Tier::new(MemoryBackend::entries(10));
        let capped = life(&sim, memory(), MapBackend::comparing()).await.unwrap();
        assert!(capped <= ms(30_000) && capped > ms(29_000), "{capped:?}");
        let told = life(&sim, memory().ttl_cap(ms(7_000)), MapBackend::comparing()).await.unwrap();
        assert!(told <= ms(7_000) && told > ms(6_000), "{told:?}");
        let never = life(&sim, memory().ttl_cap(Duration::MAX), MapBackend::comparing()).await;
        assert!(never.is_none_or(|left| left > Duration::from_secs(1 << 40)), "{never:?}");
        assert_eq!(life(&sim, memory(), MapBackend::new()).await, None, "nobody else writes that store");
    });
}

#[test]
fn what_another_process_wrote_shows_once_the_cap_is_over() {
    under_seeds(|sim| async move {
        let store = MapBackend::comparing();
        let (one, two) = (node(&sim, &store).await, node(&sim, &store).await);
        one.numbers.set(&1, 10).await.unwrap();
        assert_eq!(two.get(1).await, Some(10));
        RuntimeHandle::new(sim.clone()).sleep(ms(5)).await;
        one.numbers.set(&1, 20).await.unwrap();
        assert_eq!(two.get(1).await, Some(10), "nobody has told it");
        RuntimeHandle::new(sim.clone()).sleep(ms(30_000)).await;
        assert_eq!(two.get(1).await, Some(20));
    });
}

/// A store whose reads come from a copy of it that is brought up to date when a test says so.
#[derive(Clone)]
struct Lagging {
    main: MapBackend,
    copy: Arc<MapBackend>,
}

impl Lagging {
    fn new() -> Self {
        Self { main: MapBackend::new(), copy: Arc::default() }
    }

    fn catch_up(&self) {
        self.copy.wipe();
        for (key, value) in self.main.contents() {
            self.copy.put(key, value.into_inner());
        }
    }
}

#[async_trait]
impl Backend for Lagging {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.copy.read(key).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.main.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.main.remove(key).await
    }

    fn authoritative(&self) -> bool {
        false
    }
}

#[test]
fn what_is_read_from_a_replica_is_not_refilled_and_never_older_than_ones_own_change() {
    under_seeds(|sim| async move {
        let store = Lagging::new();
        let memory = MemoryBackend::entries(10);
        let cache =
            Cache::builder(sim.clone()).tier(memory.clone()).tier(store.clone()).build().await.unwrap();
        let numbers: Region<u64, u64> = cache.region("n").no_expiry().build().unwrap();
        let get = async || numbers.get(&1).await.map(|hit| *hit);
        numbers.set(&1, 10).await.unwrap();
        store.catch_up();
        numbers.set(&1, 20).await.unwrap();
        memory.remove(&numbers.key(&1)).await.unwrap();
        assert_eq!(get().await, None, "the replica still has what was replaced");
        store.catch_up();
        assert_eq!(get().await, Some(20));
        RuntimeHandle::new(sim.clone()).sleep(ms(50)).await;
        let at = cache.get_from::<u64>("memory", &numbers.key(&1)).await.unwrap();
        assert!(at.is_none(), "a replica's answer is not kept");
    });
}
