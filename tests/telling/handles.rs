//! A disabled cache, the largest value of a tier, and peeking.

use std::time::Duration;

use tierkeep::composition::WritePolicy;
use tierkeep::runtime::{Runtime, RuntimeHandle};
use tierkeep::{Cache, ErrorKind, HealthStatus, MemoryBackend, Region, Tier};
use tierkeep_sim::{Fault, Op, SimRuntime};
use tierkeep_tokio::TokioRuntime;

use crate::support::{Store, exact, ms, numbers, run};

async fn never_holds_anything(runtime: impl Runtime) {
    let cache = Cache::disabled(runtime);
    let region = numbers(&cache);
    region.set(&1, 1).await.unwrap();
    assert!(region.get(&1).await.is_none() && region.peek(&1).is_none() && !region.contains(&1).await);
    assert!(!region.remove(&1).await.unwrap());
    for loads in 1..=3 {
        let loaded =
            region.get_or_load(&1, || async move { Ok::<u64, std::io::Error>(loads) }).await.unwrap();
        assert_eq!(*loaded, loads, "each call loads");
    }
    region.clear().await.unwrap();
    cache.clear().await.unwrap();
    assert_eq!(cache.health().status, HealthStatus::Ready);
    assert!(cache.inspect().tiers.is_empty());
    assert!(cache.shutdown(Duration::from_secs(1)).await.clean);
    assert_eq!(region.set(&1, 1).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_disabled_cache_never_holds_anything() {
    let sim = exact();
    let runtime: SimRuntime = sim.runtime();
    run(&sim, never_holds_anything(runtime));
}

#[tokio::test]
async fn a_disabled_cache_never_holds_anything_on_tokio() {
    never_holds_anything(TokioRuntime::current()).await;
}

fn texts(cache: &Cache) -> Region<String, u64> {
    cache.region("t").ttl(Duration::from_secs(3600)).build().unwrap()
}

#[test]
fn a_value_too_large_for_a_tier_skips_it_and_removes_what_is_there() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let store = Store::new(&runtime);
    run(&sim, async {
        let cache = Cache::builder(runtime.clone())
            .tier(MemoryBackend::entries(100))
            .tier(store.tier("store").max_value(200))
            .build()
            .await
            .unwrap();
        let region = texts(&cache);
        region.set(&1, "small".to_owned()).await.unwrap();
        assert_eq!(store.entries.len(), 1);
        let large = "x".repeat(1000);
        region.set(&1, large.clone()).await.unwrap();
        assert!(store.entries.is_empty(), "the older value is gone");
        assert_eq!(*region.get(&1).await.unwrap(), large, "memory has it");
        assert_eq!(cache.inspect().tier("store").unwrap().writes.oversized, 1);
        let loaded = region.get_or_load(&2, || async { Ok::<_, std::io::Error>("y".repeat(1000)) }).await;
        assert_eq!(loaded.unwrap().len(), 1000);
        runtime.sleep(ms(100)).await;
        assert!(store.entries.is_empty(), "nor is it filled with one that was loaded");
    });
}

#[test]
fn a_value_too_large_for_the_memory_tier_is_not_refilled_there() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let store = Store::new(&runtime);
    run(&sim, async {
        let memory = Tier::new(MemoryBackend::entries(100)).max_value(200);
        let cache =
            Cache::builder(runtime.clone()).tier(memory).tier(store.tier("store")).build().await.unwrap();
        let region = texts(&cache);
        region.set(&1, "x".repeat(1000)).await.unwrap();
        assert_eq!(region.get(&1).await.unwrap().tier().unwrap().as_str(), "store");
        runtime.sleep(ms(100)).await;
        assert!(region.peek(&1).is_none());
        region.set(&1, "x".to_owned()).await.unwrap();
        assert!(region.peek(&1).is_some());
    });
}

#[test]
fn a_value_too_large_for_every_tier_is_an_error_and_leaves_nothing_old() {
    for policy in [
        WritePolicy::default(),
        WritePolicy::OptimisticParallel { require_all: true },
        WritePolicy::Sequential,
        WritePolicy::Race,
        WritePolicy::WriteAround,
    ] {
        let sim = exact();
        let runtime = RuntimeHandle::new(sim.runtime());
        let (upper, lower) = (Store::new(&runtime), Store::new(&runtime));
        run(&sim, async {
            let cache = Cache::builder(runtime.clone())
                .tier(upper.tier("upper").max_value(200))
                .tier(lower.tier("lower").max_value(200))
                .write_policy(policy)
                .build()
                .await
                .unwrap();
            let region = texts(&cache);
            region.set(&1, "small".to_owned()).await.unwrap();
            // The loser of a race confirms as well.
            runtime.sleep(ms(10)).await;
            let refused = region.set(&1, "x".repeat(1000)).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::TooLarge, "{policy:?}");
            assert!(region.get(&1).await.is_none(), "{policy:?}");
        });
    }
}

/// A tier that skips a value confirms nothing: its removal is no success.
#[test]
fn a_tier_that_skips_a_value_does_not_confirm_it() {
    for policy in [WritePolicy::default(), WritePolicy::Race] {
        let sim = exact();
        let runtime = RuntimeHandle::new(sim.runtime());
        let (upper, lower) = (Store::new(&runtime), Store::new(&runtime));
        run(&sim, async {
            let cache = Cache::builder(runtime.clone())
                .tier(upper.tier("upper").max_value(200))
                .tier(lower.tier("lower"))
                .write_policy(policy)
                .build()
                .await
                .unwrap();
            lower.plan.next_on(Op::Write, Fault::Error, 1);
            let refused = texts(&cache).set(&1, "x".repeat(1000)).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Backend, "{policy:?}");
        });
    }
}

#[test]
fn peeking_waits_for_nothing_and_refills_nothing() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let store = Store::new(&runtime);
    run(&sim, async {
        let cache = Cache::builder(runtime.clone())
            .tier(store.tier("store"))
            .tier(MemoryBackend::entries(100))
            .build()
            .await
            .unwrap();
        let region = numbers(&cache);
        assert!(region.peek(&1).is_none());
        region.set(&1, 1).await.unwrap();
        let calls = store.plan.calls(Op::Read);
        let hit = region.peek(&1).expect("memory has it, though it is not the topmost tier");
        assert_eq!((*hit, hit.tier().unwrap().as_str()), (1, "memory"));
        store.entries.wipe();
        region.peek(&1);
        runtime.sleep(ms(100)).await;
        assert!(store.entries.is_empty());
        assert_eq!(store.plan.calls(Op::Read), calls);
    });
}
