//! Caches that share a store, under the simulator.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{
    Backend, BackendLabel, BackendResult, BreakerOptions, Cache, CacheKey, CacheValue, DeleteStatus, Entry,
    Error, MemoryBackend, Raw, Region, Stamp, Tier, TierInspection,
};
use tierkeep_sim::{FaultPlan, Faulty, MapBackend, SimRuntime, explore};

use crate::history::Told;

/// How many schedules each test sees.
const SEEDS: u64 = 20;

pub(crate) type Numbers = Region<u64, u64>;

/// A process: its cache of a memory tier over the shared store, and what goes wrong on its way there.
pub(crate) struct Node {
    pub(crate) cache: Cache,
    pub(crate) numbers: Numbers,
    pub(crate) plan: FaultPlan,
    /// For how many ms the answer to the next read is held back once the store has been read.
    pub(crate) held_back: Arc<AtomicU64>,
}

/// Runs a test under many schedules. What it asserts holds in each.
pub(crate) fn under_seeds<F: Future<Output = ()>>(test: impl Fn(SimRuntime) -> F) {
    explore(0..SEEDS, |sim| sim.block_on(test(sim.runtime())).unwrap());
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A process with a memory tier `memory` over `store` (the tier `map`), without a breaker.
pub(crate) async fn node(sim: &SimRuntime, store: &MapBackend) -> Node {
    listening(sim, store, &Arc::default()).await
}

/// The same, noting what the store's refusals tell.
pub(crate) async fn listening(sim: &SimRuntime, store: &MapBackend, told: &Arc<Told>) -> Node {
    let runtime = RuntimeHandle::new(sim.clone());
    let plan = FaultPlan::new(&runtime);
    let held_back = Arc::new(AtomicU64::new(0));
    let faulty = Faulty::new(store.clone(), &runtime, &plan);
    let listening = Listening {
        store: faulty,
        runtime: runtime.clone(),
        held_back: Arc::clone(&held_back),
        told: Arc::clone(told),
    };
    let tier = Tier::new(listening).breaker(BreakerOptions::disabled()).write_deadline(ms(100));
    let cache = Cache::builder(runtime)
        .tier(MemoryBackend::entries(1000))
        .tier(tier)
        .write_policy(tierkeep::composition::WritePolicy::OptimisticParallel { require_all: true })
        .build()
        .await
        .unwrap();
    let numbers = cache.region("n").no_expiry().build().unwrap();
    Node { cache, numbers, plan, held_back }
}

/// Notes the stamps of refusals. In the simulator, nothing comes between a store's answer and what the engine makes of
/// it.
struct Listening {
    store: Faulty<MapBackend>,
    runtime: RuntimeHandle,
    held_back: Arc<AtomicU64>,
    told: Arc<Told>,
}

impl Listening {
    fn hear<T>(&self, keys: &[CacheKey], answers: &[BackendResult<T>]) {
        for (key, answer) in keys.iter().zip(answers) {
            if let Some(stamp) = answer.as_ref().err().and_then(Error::superseded_by) {
                let number = key.as_str().rsplit(':').next().and_then(|number| number.parse().ok());
                self.told.hear(self.runtime.now(), number.expect("a key that ends in its number"), stamp);
            }
        }
    }
}

#[async_trait]
impl Backend for Listening {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.store.read(key).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.store.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.store.remove(key).await
    }

    fn label(&self) -> BackendLabel {
        self.store.label()
    }

    async fn read_many(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<CacheValue<Raw>>>> {
        let values = self.store.read_many(keys).await;
        self.runtime.sleep(ms(self.held_back.swap(0, Ordering::Relaxed))).await;
        values
    }

    async fn write_entries(&self, entries: Vec<(CacheKey, Entry)>) -> Vec<BackendResult<()>> {
        let keys: Vec<_> = entries.iter().map(|(key, _)| key.clone()).collect();
        let answers = self.store.write_entries(entries).await;
        self.hear(&keys, &answers);
        answers
    }

    async fn remove_entries(&self, entries: Vec<(CacheKey, Stamp)>) -> Vec<BackendResult<DeleteStatus>> {
        // A removal at zero carries no change of this process that could be refused.
        let keys: Vec<_> = entries.iter().map(|(key, _)| key.clone()).collect();
        let answers = self.store.remove_entries(entries.clone()).await;
        for ((_, stamp), (key, answer)) in entries.iter().zip(keys.into_iter().zip(&answers)) {
            if *stamp > Stamp::ZERO {
                self.hear(&[key], std::slice::from_ref(answer));
            }
        }
        answers
    }

    fn compares(&self) -> bool {
        self.store.compares()
    }

    fn shared(&self) -> bool {
        self.store.shared()
    }
}

impl Node {
    pub(crate) async fn get(&self, key: u64) -> Option<u64> {
        self.numbers.get(&key).await.map(|hit| *hit)
    }

    /// What one of its tiers shows.
    pub(crate) async fn at(&self, tier: &str, key: u64) -> Option<u64> {
        let hit = self.cache.get_from::<u64>(tier, &self.numbers.key(&key)).await.ok()?;
        hit.map(|hit| *hit)
    }

    pub(crate) fn tier(&self, label: &str) -> TierInspection {
        self.cache.inspect().tier(label).unwrap().clone()
    }

    /// Waits until nothing is under way or in quarantine at the store.
    pub(crate) async fn rest(&self, sim: &SimRuntime) {
        let runtime = RuntimeHandle::new(sim.clone());
        for _ in 0..10_000 {
            let tier = self.tier("map");
            if tier.quarantined == 0 && tier.calls == 0 && tier.ledger == 0 {
                return;
            }
            runtime.sleep(ms(20)).await;
        }
        panic!("never at rest: {:?}", self.tier("map"));
    }
}
