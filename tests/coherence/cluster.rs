//! The backplane over a cluster: its bus carries what is published to whichever node another process listens at.

use std::time::Duration;

use tierkeep::backend::{RedisBackend, RedisDriver};
use tierkeep::composition::WritePolicy;
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Cache, MemoryBackend, Region};
use tierkeep_smol::SmolRuntime;
use tierkeep_test_servers::RedisCluster;
use tierkeep_tokio::TokioRuntime;

async fn open(runtime: &RuntimeHandle, driver: RedisDriver, urls: &[String]) -> (Cache, Region<u64, u64>) {
    let redis = RedisBackend::builder(driver).cluster(urls).namespace("cluster").build().unwrap();
    let cache = Cache::builder(runtime.clone())
        .tier(MemoryBackend::entries(1000))
        .tier(redis.clone())
        .write_policy(WritePolicy::OptimisticParallel { require_all: true })
        .backplane(redis.backplane())
        .build()
        .await
        .unwrap();
    let numbers = cache.region("n").no_expiry().build().unwrap();
    (cache, numbers)
}

/// Asks until the answer is as wanted; the runner's own patience is the limit.
async fn until(
    runtime: &RuntimeHandle,
    numbers: &Region<u64, u64>,
    key: u64,
    tier: Option<&str>,
    value: u64,
) {
    loop {
        if let Some(hit) = numbers.get(&key).await
            && *hit == value
            && tier.is_none_or(|tier| hit.tier().is_some_and(|label| label.as_str() == tier))
        {
            return;
        }
        runtime.sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn what_is_written_through_one_node_is_heard_at_another() {
    smol::block_on(heard(RuntimeHandle::new(SmolRuntime::new()), RedisDriver::Smol));
}

#[test]
fn what_is_written_through_one_node_is_heard_at_another_on_tokio() {
    let tokio = tokio::runtime::Runtime::new().unwrap();
    tokio.block_on(async { heard(TokioRuntime::current().into(), RedisDriver::Tokio).await });
}

async fn heard(runtime: RuntimeHandle, driver: RedisDriver) {
    let cluster = RedisCluster::start().unwrap();
    let urls = cluster.urls();
    let caches = [
        open(&runtime, driver, &urls).await,
        open(&runtime, driver, &urls).await,
        open(&runtime, driver, &urls).await,
    ];
    for (cache, _) in &caches {
        while cache.inspect().backplane.unwrap().peers < 2 {
            runtime.sleep(Duration::from_millis(5)).await;
        }
    }
    let drops = || caches.each_ref().map(|(cache, _)| cache.inspect().backplane.unwrap().gaps);
    let before = drops();
    // Keys of all masters, written by each in turn.
    for round in 0..30 {
        let key = round % 10;
        let writer = usize::try_from(round % 3).unwrap();
        while caches[writer].1.set(&key, round * 2 + 1).await.is_err() {}
        for (_, numbers) in &caches {
            until(&runtime, numbers, key, Some("memory"), round * 2 + 1).await;
        }
        while caches[writer].1.set(&key, round * 2 + 2).await.is_err() {}
        for (_, numbers) in &caches {
            until(&runtime, numbers, key, None, round * 2 + 2).await;
        }
    }
    assert_eq!(drops(), before, "nothing was missed: it was told, and not found by dropping everything");
}
