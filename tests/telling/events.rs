//! The event stream: what is told, in which order, to whom.

use std::time::Duration;

use tierkeep::runtime::RuntimeHandle;
use tierkeep::{BypassCause, Cache, EventKind, MemoryBackend};
use tierkeep_sim::{Fault, Op};
use tierkeep_tokio::TokioRuntime;

use crate::support::{Store, exact, kinds, ms, numbers, run, served};

#[test]
fn a_breaker_tells_each_of_its_states_in_order() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let store = Store::new(&runtime);
    run(&sim, async {
        let cache = Cache::builder(runtime.clone()).tier(store.tier("store")).build().await.unwrap();
        let (region, mut events) = (numbers(&cache), cache.events());
        store.plan.rate_on(Op::Read, Fault::Error, 1.0);
        for key in 0..4 {
            assert!(region.get(&key).await.is_none());
        }
        assert_eq!(kinds(&mut events), [EventKind::BreakerOpened]);
        runtime.sleep(ms(1100)).await;
        region.get(&1).await;
        assert_eq!(kinds(&mut events), [EventKind::BreakerHalfOpen, EventKind::BreakerOpened]);
        store.plan.heal();
        runtime.sleep(ms(2100)).await;
        region.get(&1).await;
        assert_eq!(kinds(&mut events), [EventKind::BreakerHalfOpen, EventKind::BreakerClosed]);
    });
}

#[test]
fn restarts_going_down_and_coming_back_are_told() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let store = Store::new(&runtime);
    run(&sim, async {
        let cache = Cache::builder(runtime.clone()).tier(store.tier("store")).build().await.unwrap();
        let mut events = cache.events();
        cache.crash_tier("store");
        let first = events.next().await.expect("an event");
        assert_eq!(first.tier.as_str(), "store");
        assert!(matches!(first.kind, EventKind::TierRestarting { delay } if delay <= ms(100)), "{first:?}");
        assert_eq!(events.next().await.map(|event| event.kind), Some(EventKind::TierUp));
        cache.crash_tier("store");
        let down = events.next().await.expect("an event");
        assert!(matches!(down.kind, EventKind::TierDown { .. }), "past its limit of one restart: {down:?}");
        assert!(down.at >= first.at);
        assert_eq!(events.next().await.map(|event| event.kind), Some(EventKind::TierUp), "tried again");
        cache.shutdown(Duration::from_secs(10)).await;
        assert_eq!(events.next().await.map(|event| event.kind), Some(EventKind::TierStopped));
        assert_eq!(events.next().await, None, "the stream ends with the cache");
        assert_eq!(cache.events().next().await, None, "and so does one opened later");
    });
}

#[test]
fn a_quarantine_that_overflows_tells_when_the_bypass_begins_and_ends() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let store = Store::new(&runtime);
    run(&sim, async {
        let tier = store.tier("store").quarantine(2).breaker(tierkeep::BreakerOptions::disabled());
        let cache = Cache::builder(runtime.clone()).tier(tier).build().await.unwrap();
        let (region, mut events) = (numbers(&cache), cache.events());
        store.plan.rate_on(Op::Write, Fault::Error, 1.0);
        for key in 0..3 {
            assert!(region.set(&key, 1).await.is_err());
        }
        store.plan.heal();
        served(&runtime, &cache, "store").await;
        let by = BypassCause::QuarantineOverflow;
        assert_eq!(kinds(&mut events), [EventKind::BypassBegan { by }, EventKind::BypassEnded]);
    });
}

#[test]
fn every_eviction_and_every_expiry_of_a_memory_tier_is_told_once() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    run(&sim, async {
        let cache = Cache::builder(runtime.clone()).tier(MemoryBackend::entries(10)).build().await.unwrap();
        let region = numbers(&cache);
        let mut events = cache.events_with(10_000);
        for key in 0..50_u64 {
            region.set_for(&key, key, Duration::from_secs(5)).await.unwrap();
        }
        let evicted: Vec<_> = kinds(&mut events)
            .into_iter()
            .map(|kind| match kind {
                EventKind::Evicted { key } => key,
                other => panic!("not an eviction: {other:?}"),
            })
            .collect();
        assert_eq!(Some(evicted.len() as u64), cache.inspect().tiers[0].usage.evictions);
        assert!(evicted.len() >= 40);
        let left: Vec<_> = (0..50_u64).filter(|key| region.peek(key).is_some()).collect();
        assert!(left.iter().all(|key| !evicted.contains(&region.key(key))), "nothing evicted is still there");
        runtime.sleep(Duration::from_secs(10)).await;
        let expired = kinds(&mut events);
        assert_eq!(expired.len(), left.len());
        assert!(left.iter().all(|key| expired.contains(&EventKind::Expired { key: region.key(key) })));
    });
}

#[test]
fn failures_to_decode_raise_an_alarm_that_falls_when_they_are_over() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let store = Store::new(&runtime);
    run(&sim, async {
        let cache = Cache::builder(runtime.clone()).tier(store.tier("store")).build().await.unwrap();
        let (region, mut events) = (numbers(&cache), cache.events());
        region.set(&1, 1).await.unwrap();
        store.plan.rate_on(Op::Read, Fault::Corrupt, 1.0);
        for _ in 0..5 {
            assert!(region.get(&1).await.is_none());
        }
        assert_eq!(kinds(&mut events), [EventKind::DecodeFailuresRose], "five of at most a hundred");
        assert!(cache.inspect().tiers[0].decode_alarm);
        store.plan.heal();
        for _ in 0..200 {
            assert!(region.get(&1).await.is_some());
        }
        assert_eq!(kinds(&mut events), [EventKind::DecodeFailuresFell]);
    });
}

#[test]
fn each_listener_has_its_own_queue_and_counts_what_it_missed() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    run(&sim, async {
        let cache = Cache::builder(runtime.clone()).tier(MemoryBackend::entries(10)).build().await.unwrap();
        let region = numbers(&cache);
        for key in 0..50_u64 {
            region.set(&key, key).await.unwrap();
        }
        let (mut small, mut large) = (cache.events_with(3), cache.events());
        assert_eq!((small.try_next(), small.missed()), (None, 0), "what was before is not told");
        for key in 50..70_u64 {
            region.set(&key, key).await.unwrap();
        }
        let all = kinds(&mut large);
        assert_eq!(all.len(), 20);
        assert_eq!((large.missed(), small.missed()), (0, 17));
        assert_eq!(kinds(&mut small), all[17..], "the newest are kept");
        drop(large);
        region.set(&70, 70).await.unwrap();
        assert_eq!(kinds(&mut small).len(), 1);
    });
}

#[tokio::test]
async fn a_listener_on_tokio_is_woken_from_another_task() {
    let runtime = RuntimeHandle::new(TokioRuntime::current());
    let cache = Cache::builder(runtime.clone()).tier(MemoryBackend::entries(10)).build().await.unwrap();
    let mut events = cache.events();
    let listening = runtime.spawn(async move {
        let mut heard = Vec::new();
        while let Some(event) = futures_util::StreamExt::next(&mut events).await {
            heard.push(event.kind);
        }
        heard
    });
    // Lets the listener wait first.
    tokio::task::yield_now().await;
    cache.bypass("memory", true).unwrap();
    cache.bypass("memory", false).unwrap();
    served(&runtime, &cache, "memory").await;
    cache.shutdown(Duration::from_secs(10)).await;
    let by = BypassCause::Operator;
    let heard = listening.await.unwrap();
    assert_eq!(heard, [EventKind::BypassBegan { by }, EventKind::BypassEnded, EventKind::TierStopped]);
}
