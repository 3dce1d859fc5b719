//! A tier that has not confirmed a key's last change does not answer for it.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{join_all, poll_fn};
use tierkeep::composition::WritePolicy;
use tierkeep::runtime::{ActorState, RestartPolicy};
use tierkeep::{BreakerOptions, BreakerState, MemoryBackend, Tier};

use crate::gate::{Call, Gate, Kind, Trap};
use crate::world::{
    builder, calm, evict, get, getting, healed, memory_over, ms, open, put, putting, removing, tier, under,
    under_seeds,
};

#[test]
pub(crate) fn a_memory_tier_that_could_not_apply_a_set_does_not_answer_through_its_port() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let slow_restart = RestartPolicy {
            backoff: Duration::from_secs(8),
            backoff_max: Duration::from_secs(8),
            ..RestartPolicy::default()
        };
        let memory = Tier::new(MemoryBackend::entries(100)).restart(slow_restart).write_deadline(ms(100));
        let (cache, region) = open(builder(&rt).tier(memory).tier(tier(&low))).await;
        put(&region, "k", "v1").await.unwrap();
        cache.crash_tier("memory");
        calm(&rt).await;
        assert_eq!(cache.inspect().tier("memory").unwrap().state, ActorState::Restarting);
        assert_eq!(get(&region, "k").await.unwrap(), "v1", "the port outlives the incarnation");
        put(&region, "k", "v2").await.unwrap();
        assert_eq!(cache.inspect().tier("memory").unwrap().state, ActorState::Restarting);
        assert_eq!(get(&region, "k").await.unwrap(), "v2");
        assert!(region.contains("k").await);
        region.remove("k").await.unwrap();
        assert_eq!(get(&region, "k").await, None);
        assert!(!region.contains("k").await);
        rt.sleep(Duration::from_secs(10)).await;
        healed(&rt, &cache, "memory").await;
        assert_eq!(get(&region, "k").await, None);
    });
}

#[test]
pub(crate) fn a_repair_waits_until_the_call_that_timed_out_can_no_longer_be_applied() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (cache, region, memory) = memory_over(&rt, &low).await;
        let key = region.key("k");
        let late = low.catch(Kind::Write, &key);
        let setter = putting(&rt, &region, "k", "v1");
        let mut late = late.sprung().await;
        setter.await.unwrap().unwrap();
        put(&region, "k", "v2").await.unwrap();
        rt.sleep(Duration::from_secs(10)).await;
        assert_eq!(low.calls(Kind::Write, &key), 1, "nothing else is written meanwhile");
        assert_eq!(cache.inspect().tier("low").unwrap().quarantined, 1);
        late.apply();
        evict(&memory, &key).await;
        assert_eq!(get(&region, "k").await, None);
        late.reply();
        healed(&rt, &cache, "low").await;
        assert_eq!(get(&region, "k").await.unwrap(), "v2");
    });
}

#[test]
pub(crate) fn a_late_call_that_wrote_what_is_wanted_needs_no_repair() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (cache, region, memory) = memory_over(&rt, &low).await;
        let key = region.key("k");
        let late = low.catch(Kind::Write, &key);
        let setter = putting(&rt, &region, "k", "v1");
        let late = late.sprung().await;
        setter.await.unwrap().unwrap();
        late.pass();
        healed(&rt, &cache, "low").await;
        evict(&memory, &key).await;
        assert_eq!(get(&region, "k").await.unwrap(), "v1");
        assert_eq!(low.calls(Kind::Write, &key), 1);
    });
}

#[test]
pub(crate) fn a_repair_that_is_late_itself_is_waited_for() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (cache, region, memory) = memory_over(&rt, &low).await;
        let key = region.key("k");
        let (refused, repair) = (low.catch(Kind::Write, &key), low.catch(Kind::Write, &key));
        let setter = putting(&rt, &region, "k", "v1");
        refused.sprung().await.fail();
        setter.await.unwrap().unwrap();
        let mut repair = repair.sprung().await;
        rt.sleep(Duration::from_secs(2)).await;
        put(&region, "k", "v2").await.unwrap();
        rt.sleep(Duration::from_secs(2)).await;
        repair.apply();
        evict(&memory, &key).await;
        assert_eq!(get(&region, "k").await, None);
        repair.reply();
        healed(&rt, &cache, "low").await;
        assert_eq!(get(&region, "k").await.unwrap(), "v2");
    });
}

#[test]
pub(crate) fn a_repair_overtaken_by_a_set_is_followed_by_another() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (cache, region, memory) = memory_over(&rt, &low).await;
        let key = region.key("k");
        let (refused, repair) = (low.catch(Kind::Write, &key), low.catch(Kind::Write, &key));
        let setter = putting(&rt, &region, "k", "v1");
        refused.sprung().await.fail();
        setter.await.unwrap().unwrap();
        let repair = repair.sprung().await;
        put(&region, "k", "v2").await.unwrap();
        repair.pass();
        evict(&memory, &key).await;
        assert_ne!(get(&region, "k").await.as_deref(), Some("v1"));
        healed(&rt, &cache, "low").await;
        assert_eq!(get(&region, "k").await.unwrap(), "v2");
    });
}

#[test]
pub(crate) fn an_overflowing_quarantine_bypasses_the_tier_until_it_has_been_cleared() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let memory = MemoryBackend::entries(100);
        let (cache, region) = open(builder(&rt).tier(memory.clone()).tier(tier(&low).quarantine(2))).await;
        let keys = ["a", "b", "c", "d"];
        for key in keys {
            put(&region, key, "v1").await.unwrap();
        }
        low.fail(Kind::Write, true);
        low.fail(Kind::Clear, true);
        for key in ["a", "b", "c"] {
            put(&region, key, "v2").await.unwrap();
        }
        for key in keys {
            evict(&memory, &region.key(key)).await;
        }
        let stands = || cache.inspect().tier("low").unwrap().clone();
        assert!(stands().bypassed);
        assert_eq!(stands().quarantined, 0, "memory is bounded");
        for key in keys {
            assert_eq!(get(&region, key).await, None, "{key}: the whole tier is a miss");
        }
        put(&region, "a", "v3").await.unwrap();
        low.fail(Kind::Write, false);
        rt.sleep(Duration::from_secs(30)).await;
        assert!(stands().bypassed, "it answers, but has not recorded the clear");
        low.fail(Kind::Clear, false);
        healed(&rt, &cache, "low").await;
        assert_eq!(low.shows(&region.key("a")).unwrap(), "v1", "what must not be read");
        evict(&memory, &region.key("a")).await;
        for key in keys {
            assert_eq!(get(&region, key).await, None, "{key}: what the tier may have missed stays hidden");
        }
        put(&region, "a", "v4").await.unwrap();
        evict(&memory, &region.key("a")).await;
        assert_eq!(get(&region, "a").await.unwrap(), "v4", "it serves again");
    });
}

#[test]
pub(crate) fn a_bypassed_tier_is_not_cleared_while_a_call_may_still_be_applied() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let memory = MemoryBackend::entries(100);
        let (cache, region) = open(builder(&rt).tier(memory.clone()).tier(tier(&low).quarantine(1))).await;
        let late = low.catch(Kind::Write, &region.key("a"));
        let setter = putting(&rt, &region, "a", "v1");
        let late = late.sprung().await;
        setter.await.unwrap().unwrap();
        low.fail(Kind::Write, true);
        put(&region, "b", "v1").await.unwrap();
        low.fail(Kind::Write, false);
        rt.sleep(Duration::from_secs(10)).await;
        assert!(cache.inspect().tier("low").unwrap().bypassed);
        assert_eq!(low.clears(), 0);
        put(&region, "a", "v2").await.unwrap();
        late.pass();
        healed(&rt, &cache, "low").await;
        evict(&memory, &region.key("a")).await;
        assert_eq!(get(&region, "a").await, None);
    });
}

#[test]
pub(crate) fn a_tier_with_an_open_breaker_quarantines_at_once() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let breaker = BreakerOptions { min_calls: 1, failure_percent: 1, ..BreakerOptions::default() };
        let memory = MemoryBackend::entries(100);
        let (cache, region) = open(builder(&rt).tier(memory.clone()).tier(tier(&low).breaker(breaker))).await;
        let key = region.key("k");
        put(&region, "k", "v1").await.unwrap();
        low.fail(Kind::Read, true);
        assert_eq!(get(&region, "x").await, None);
        low.fail(Kind::Read, false);
        assert_eq!(cache.inspect().tier("low").unwrap().breaker, BreakerState::Open);
        let repair = low.catch(Kind::Write, &key);
        let began = rt.now();
        put(&region, "k", "v2").await.unwrap();
        assert!(rt.now().since(began) < ms(10), "nothing was waited for");
        assert_eq!(cache.inspect().tier("low").unwrap().quarantined, 1);
        evict(&memory, &key).await;
        rt.sleep(Duration::from_secs(5)).await; // the breaker lets a probe through: the read or the repair
        assert_eq!(low.shows(&key).unwrap(), "v1", "what must not be read");
        assert_eq!(get(&region, "k").await, None);
        repair.sprung().await.pass();
        healed(&rt, &cache, "low").await;
        rt.sleep(Duration::from_secs(60)).await;
        assert_eq!(get(&region, "k").await.unwrap(), "v2");
    });
}

#[test]
pub(crate) fn a_full_mailbox_quarantines_when_the_deadline_passes() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let slow_restart = RestartPolicy {
            backoff: Duration::from_secs(8),
            backoff_max: Duration::from_secs(8),
            ..RestartPolicy::default()
        };
        let memory = MemoryBackend::entries(100);
        let lower = tier(&low).mailbox(1).restart(slow_restart);
        let (cache, region) = open(builder(&rt).tier(memory.clone()).tier(lower)).await;
        for key in ["a", "b", "c"] {
            put(&region, key, "v1").await.unwrap();
        }
        cache.crash_tier("low");
        calm(&rt).await;
        let sets = ["a", "b", "c"].map(|key| putting(&rt, &region, key, "v2"));
        for set in sets {
            set.await.unwrap().unwrap();
        }
        let stands = cache.inspect();
        assert_eq!(stands.tier("low").unwrap().state, ActorState::Restarting);
        assert_eq!(stands.tier("low").unwrap().quarantined, 3);
        let gone = removing(&rt, &region, "a").await.unwrap().unwrap();
        assert!(gone, "memory had it");
        for key in ["a", "b", "c"] {
            evict(&memory, &region.key(key)).await;
            assert_eq!(getting(&rt, &region, key).await.unwrap(), None);
        }
        rt.sleep(Duration::from_secs(10)).await;
        healed(&rt, &cache, "low").await;
        assert_eq!(get(&region, "a").await, None);
        assert_eq!(get(&region, "b").await.unwrap(), "v2");
        assert_eq!(get(&region, "c").await.unwrap(), "v2");
    });
}

/// The tiers have confirmed and forgotten the key by the time the race's caller looks: it settles nothing a second
/// time, over what came after.
#[test]
pub(crate) fn the_end_of_a_race_leaves_later_writes_alone() {
    under_seeds(|rt| async move {
        let (one, two) = (Gate::new("one"), Gate::new("two"));
        let tiers = tierkeep::Compose::over(tier(&one), tier(&two)).write(WritePolicy::Race);
        let (cache, region) = open(builder(&rt).tier(tiers)).await;
        let key = region.key("k");
        let mut racing = pin!(put(&region, "k", "v1"));
        let over = poll_fn(|cx| Poll::Ready(racing.as_mut().poll(cx).is_ready())).await;
        assert!(!over);
        calm(&rt).await; // both have confirmed, and its caller has not looked yet
        assert_eq!((one.calls(Kind::Write, &key), two.calls(Kind::Write, &key)), (1, 1));
        put(&region, "k", "v2").await.unwrap();
        healed(&rt, &cache, "one").await;
        healed(&rt, &cache, "two").await;
        let later = [one.catch(Kind::Write, &key), two.catch(Kind::Write, &key)];
        let setter = putting(&rt, &region, "k", "v3");
        let later: Vec<Call> = join_all(later.map(Trap::sprung)).await;
        racing.await.unwrap();
        assert!(cache.inspect().tiers.iter().all(|tier| tier.quarantined == 0));
        later.into_iter().for_each(Call::pass);
        setter.await.unwrap().unwrap();
        healed(&rt, &cache, "one").await;
        assert_eq!(get(&region, "k").await.unwrap(), "v3");
    });
}

#[test]
pub(crate) fn races_of_one_key_end_in_agreement() {
    under(400, |rt| async move {
        let (one, two) = (Gate::new("one"), Gate::new("two"));
        let tiers = tierkeep::Compose::over(tier(&one), tier(&two)).write(WritePolicy::Race);
        let (cache, region) = open(builder(&rt).tier(tiers)).await;
        let racing = putting(&rt, &region, "k", "v1");
        for value in ["v2", "v3"] {
            drop(put(&region, "k", value).await);
            drop(get(&region, "k").await);
        }
        drop(racing.await.unwrap());
        healed(&rt, &cache, "one").await;
        healed(&rt, &cache, "two").await;
        let key = region.key("k");
        assert_eq!(one.shows(&key), two.shows(&key));
    });
}
