//! What the tests of order share: caches over gates, and patience in virtual time.

use std::future::Future;
use std::time::Duration;

use futures_util::FutureExt;
use tierkeep::runtime::{RuntimeHandle, TaskHandle};
use tierkeep::{
    Backend, BreakerOptions, Cache, CacheBuilder, CacheKey, Composition, MemoryBackend, Region, Result, Tier,
};
use tierkeep_sim::explore;

use crate::gate::Gate;

/// How many schedules each test sees.
const SEEDS: u64 = 40;

pub(crate) type Strings = Region<String, str>;

/// Runs a test under many schedules. What it asserts holds in each.
pub(crate) fn under_seeds<F: Future<Output = ()>>(test: impl Fn(RuntimeHandle) -> F) {
    under(SEEDS, test);
}

/// The same, with a number of schedules.
pub(crate) fn under<F: Future<Output = ()>>(seeds: u64, test: impl Fn(RuntimeHandle) -> F) {
    explore(0..seeds, |sim| {
        let rt = RuntimeHandle::new(sim.runtime());
        sim.block_on(test(rt)).unwrap();
    });
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Lets everything that is ready run: virtual time passes only when nothing is.
pub(crate) async fn calm(rt: &RuntimeHandle) {
    rt.sleep(ms(5)).await;
}

/// A gate as a tier with a write deadline of 500 ms, patient readers and no breaker.
pub(crate) fn tier(gate: &Gate) -> Tier {
    Tier::new(gate.clone())
        .breaker(BreakerOptions::disabled())
        .read_deadline(Duration::from_secs(60))
        .write_deadline(ms(500))
}

pub(crate) fn gate_over(low: Gate, up: Gate) -> Composition {
    tierkeep::Compose::over(tier(&up), tier(&low))
}

pub(crate) fn builder(rt: &RuntimeHandle) -> CacheBuilder {
    Cache::builder(rt.clone())
}

pub(crate) async fn open(builder: CacheBuilder) -> (Cache, Strings) {
    let cache = builder.build().await.unwrap();
    let region = cache.region::<String, str>("r").no_expiry().build().unwrap();
    (cache, region)
}

/// A memory tier over a gate. The backend is given back so that a test can evict from it.
pub(crate) async fn memory_over(rt: &RuntimeHandle, low: &Gate) -> (Cache, Strings, MemoryBackend) {
    let memory = MemoryBackend::entries(100);
    let (cache, region) = open(builder(rt).tier(memory.clone()).tier(tier(low))).await;
    (cache, region, memory)
}

pub(crate) async fn evict(memory: &MemoryBackend, key: &CacheKey) {
    memory.remove(key).await.unwrap();
}

pub(crate) async fn get(region: &Strings, key: &str) -> Option<String> {
    region.get(key).await.map(|hit| (*hit).clone())
}

pub(crate) async fn put(region: &Strings, key: &str, value: &str) -> Result<()> {
    region.set(key, value.to_owned()).await
}

/// A `set` under way in a task of its own.
pub(crate) fn putting(
    rt: &RuntimeHandle,
    region: &Strings,
    key: &'static str,
    value: &'static str,
) -> TaskHandle<Result<()>> {
    let region = region.clone();
    rt.spawn(async move { put(&region, key, value).await })
}

/// A `get` under way in a task of its own.
pub(crate) fn getting(rt: &RuntimeHandle, region: &Strings, key: &'static str) -> TaskHandle<Option<String>> {
    let region = region.clone();
    rt.spawn(async move { get(&region, key).await })
}

/// A `remove` under way in a task of its own.
pub(crate) fn removing(rt: &RuntimeHandle, region: &Strings, key: &'static str) -> TaskHandle<Result<bool>> {
    let region = region.clone();
    rt.spawn(async move { region.remove(key).await })
}

/// A `get_or_load` under way, whose loader gives `value` when `origin` says so.
pub(crate) fn loading(
    rt: &RuntimeHandle,
    region: &Strings,
    key: &'static str,
    origin: futures_channel::oneshot::Receiver<&'static str>,
) -> TaskHandle<String> {
    let region = region.clone();
    rt.spawn(async move {
        let load = || async move { Ok::<_, std::io::Error>(origin.await.expect("answered").to_owned()) };
        (*region.get_or_load(key, load).await.unwrap()).clone()
    })
}

/// Whether a task is still under way.
#[track_caller]
pub(crate) fn still<T: std::fmt::Debug>(task: &mut TaskHandle<T>) {
    let over = task.now_or_never();
    assert!(over.is_none(), "it should still be under way, and returned {over:?}");
}

/// Waits until a tier has nothing in quarantine and nothing under way.
pub(crate) async fn healed(rt: &RuntimeHandle, cache: &Cache, label: &str) {
    for _ in 0..1000 {
        let inspection = cache.inspect();
        let tier = inspection.tier(label).expect("a tier of that name");
        if tier.quarantined == 0 && !tier.bypassed && tier.calls == 0 && tier.ledger == 0 {
            return;
        }
        rt.sleep(ms(20)).await;
    }
    panic!("never healed: {:?}", cache.inspect().tier(label));
}
