//! Tiers taken out of service by hand.

use std::time::Duration;

use tierkeep::runtime::RuntimeHandle;
use tierkeep::{BypassCause, Cache, ErrorKind, MemoryBackend};
use tierkeep_sim::{Fault, Op, explore};

use crate::support::{Store, exact, ms, numbers, run, served};

#[test]
fn a_bypassed_tier_is_neither_read_nor_written() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let (upper, lower) = (Store::new(&runtime), Store::new(&runtime));
    run(&sim, async {
        let cache = Cache::builder(runtime.clone())
            .tier(upper.tier("upper"))
            .tier(lower.tier("lower"))
            .build()
            .await
            .unwrap();
        let region = numbers(&cache);
        region.set(&1, 1).await.unwrap();
        cache.bypass("lower", true).unwrap();
        assert_eq!(cache.inspect().tier("lower").unwrap().bypass_cause, Some(BypassCause::Operator));
        let (reads, writes) = (lower.plan.calls(Op::Read), lower.plan.calls(Op::Write));
        region.set(&1, 2).await.expect("the upper tier confirms");
        assert_eq!(region.get(&1).await.as_deref(), Some(&2));
        upper.entries.wipe();
        assert!(region.get(&1).await.is_none(), "only the bypassed tier has the key, and an old value");
        runtime.sleep(Duration::from_secs(60)).await;
        assert!(cache.inspect().tier("lower").unwrap().bypassed, "until it is told otherwise");
        assert_eq!((lower.plan.calls(Op::Read), lower.plan.calls(Op::Write)), (reads, writes));

        cache.bypass("lower", false).unwrap();
        served(&runtime, &cache, "lower").await;
        assert!(region.get(&1).await.is_none(), "what it missed stays hidden");
        region.set(&1, 3).await.unwrap();
        upper.entries.wipe();
        assert_eq!(region.get(&1).await.as_deref(), Some(&3), "it serves again");
        assert_eq!(cache.bypass("no such tier", true).unwrap_err().kind(), ErrorKind::Config);
    });
}

#[test]
fn a_bypassed_memory_tier_answers_through_no_port() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    run(&sim, async {
        let cache = Cache::builder(runtime.clone()).tier(MemoryBackend::entries(10)).build().await.unwrap();
        let region = numbers(&cache);
        region.set(&1, 1).await.unwrap();
        cache.bypass("memory", true).unwrap();
        assert!(region.get(&1).await.is_none() && region.peek(&1).is_none());
        let refused = region.set(&1, 2).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "no tier is left to confirm");
        cache.bypass("memory", false).unwrap();
        served(&runtime, &cache, "memory").await;
        assert!(region.get(&1).await.is_none() && region.peek(&1).is_none());
        region.set(&1, 3).await.unwrap();
        assert_eq!(region.peek(&1).as_deref(), Some(&3));
    });
}

#[test]
fn bypassed_again_while_it_recovers_it_stays_bypassed() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let store = Store::new(&runtime);
    run(&sim, async {
        let cache = Cache::builder(runtime.clone()).tier(store.tier("store")).build().await.unwrap();
        let region = numbers(&cache);
        region.set(&1, 1).await.unwrap();
        cache.bypass("store", true).unwrap();
        store.plan.delays(ms(200)..=ms(200));
        store.plan.next_on(Op::Clear, Fault::Delay, 1);
        cache.bypass("store", false).unwrap();
        while store.plan.calls(Op::Clear) == 0 {
            runtime.sleep(ms(1)).await;
        }
        cache.bypass("store", true).unwrap();
        runtime.sleep(Duration::from_secs(30)).await;
        assert_eq!(cache.inspect().tiers[0].bypass_cause, Some(BypassCause::Operator));
        cache.bypass("store", false).unwrap();
        served(&runtime, &cache, "store").await;
        assert!(region.get(&1).await.is_none());
    });
}

/// Writers, readers and an operator at once: what a read gives is never older than what was set before it began.
#[test]
fn switching_a_bypass_never_brings_an_older_value_back() {
    explore(0..60, |sim| {
        let runtime = RuntimeHandle::new(sim.runtime());
        let (upper, lower) = (Store::new(&runtime), Store::new(&runtime));
        for plan in [&upper.plan, &lower.plan] {
            plan.rate(Fault::Delay, 0.2);
            plan.rate(Fault::AppliedButFails, 0.05);
            plan.rate(Fault::Zombie, 0.02);
        }
        run(sim, async {
            let quick = |tier: tierkeep::Tier| tier.read_deadline(ms(50)).write_deadline(ms(50));
            let cache = Cache::builder(runtime.clone())
                .tier(quick(upper.tier("upper")))
                .tier(quick(lower.tier("lower")))
                .build()
                .await
                .unwrap();
            let region = numbers(&cache);
            let (operator, clock) = (cache.clone(), runtime.clone());
            let switching = runtime.spawn(async move {
                for round in 0..40_u64 {
                    clock.sleep(ms(1 + (clock.random() % 60))).await;
                    let label = if clock.random() % 2 == 0 { "upper" } else { "lower" };
                    operator.bypass(label, round % 3 != 2).unwrap();
                }
                operator.bypass("upper", false).unwrap();
                operator.bypass("lower", false).unwrap();
            });
            for value in 1..150_u64 {
                // Not confirmed is as well: it is settled all the same.
                let _ = region.set(&1, value).await;
                runtime.sleep(ms(runtime.random() % 20)).await;
                if let Some(hit) = region.get(&1).await {
                    assert_eq!(*hit, value, "an older value came back");
                }
            }
            switching.await.unwrap();
            for plan in [&upper.plan, &lower.plan] {
                plan.heal();
            }
            runtime.sleep(Duration::from_secs(120)).await;
            if let Some(hit) = region.get(&1).await {
                assert_eq!(*hit, 149, "an older value came back in the end");
            }
            assert!(cache.inspect().tiers.iter().all(|tier| tier.bypass_cause.is_none()), "all serve again");
        });
    });
}
