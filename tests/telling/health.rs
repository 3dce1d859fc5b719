//! One answer for a readiness probe.

use std::time::Duration;

use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Cache, HealthCause, HealthStatus, MemoryBackend};
use tierkeep_sim::{Fault, Op};

use crate::support::{Store, exact, ms, numbers, run, served};

fn causes(cache: &Cache) -> (HealthStatus, Vec<HealthCause>) {
    let health = cache.health();
    (health.status, health.reasons.iter().map(|reason| reason.cause).collect())
}

#[test]
fn follows_a_lower_tier_from_ready_to_degraded_and_back() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let store = Store::new(&runtime);
    run(&sim, async {
        let cache = Cache::builder(runtime.clone())
            .tier(MemoryBackend::entries(10))
            .tier(store.tier("store"))
            .build()
            .await
            .unwrap();
        let region = numbers(&cache);
        assert_eq!(causes(&cache), (HealthStatus::Ready, vec![]));
        store.plan.rate_on(Op::Read, Fault::Error, 1.0);
        for key in 0..4 {
            region.get(&key).await;
        }
        assert_eq!(causes(&cache), (HealthStatus::Degraded, vec![HealthCause::BreakerOpen]));
        let json = serde_json::to_value(cache.health()).unwrap();
        assert_eq!(json["status"], "degraded");
        assert_eq!(json["reasons"][0]["tier"], "store");
        assert_eq!(json["reasons"][0]["cause"], "breaker_open");
        assert_eq!(cache.health().http_status(), 200);
        store.plan.heal();
        runtime.sleep(ms(1100)).await;
        region.get(&1).await;
        assert_eq!(causes(&cache), (HealthStatus::Ready, vec![]));
        for _ in 0..2 {
            cache.crash_tier("store");
            runtime.sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(causes(&cache), (HealthStatus::Degraded, vec![HealthCause::Down]));
        let error = cache.health().reasons[0].error.clone().expect("why it failed");
        assert!(error.contains("crash asked for by a test"), "{error}");
        runtime.sleep(Duration::from_secs(40)).await;
        assert_eq!(causes(&cache), (HealthStatus::Ready, vec![]));
        cache.shutdown(Duration::from_secs(1)).await;
        assert_eq!(causes(&cache), (HealthStatus::Down, vec![HealthCause::ShutDown]));
        assert_eq!(cache.health().http_status(), 503);
    });
}

#[test]
fn is_down_without_a_required_tier_or_without_any() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let store = Store::new(&runtime);
    run(&sim, async {
        let cache = Cache::builder(runtime.clone())
            .tier(MemoryBackend::entries(10))
            .tier(store.tier("store").required(true))
            .build()
            .await
            .unwrap();
        cache.bypass("memory", true).unwrap();
        assert_eq!(causes(&cache), (HealthStatus::Degraded, vec![HealthCause::BypassedByOperator]));
        cache.bypass("memory", false).unwrap();
        served(&runtime, &cache, "memory").await;
        cache.bypass("store", true).unwrap();
        assert_eq!(causes(&cache), (HealthStatus::Down, vec![HealthCause::BypassedByOperator]));
        cache.bypass("store", false).unwrap();
        served(&runtime, &cache, "store").await;
        assert_eq!(causes(&cache).0, HealthStatus::Ready);

        let alone = Cache::builder(runtime.clone()).tier(store.tier("store")).build().await.unwrap();
        alone.bypass("store", true).unwrap();
        assert_eq!(causes(&alone).0, HealthStatus::Down);
    });
}

#[test]
fn too_many_decode_failures_degrade() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let store = Store::new(&runtime);
    run(&sim, async {
        let cache = Cache::builder(runtime.clone()).tier(store.tier("store")).build().await.unwrap();
        let region = numbers(&cache);
        region.set(&1, 1).await.unwrap();
        store.entries.put(region.key(&1), vec![0; 40]);
        for _ in 0..5 {
            region.get(&1).await;
        }
        assert_eq!(causes(&cache), (HealthStatus::Degraded, vec![HealthCause::DecodeFailures]));
    });
}
