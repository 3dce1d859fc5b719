//! A clear hides everything up to its stamp, at once and everywhere.

use std::time::Duration;

use futures_channel::oneshot;
use tierkeep::MemoryBackend;
use tierkeep::runtime::RestartPolicy;

use crate::gate::{Gate, Kind};
use crate::world::{
    builder, calm, evict, get, healed, loading, memory_over, ms, open, put, putting, tier, under_seeds,
};

#[test]
pub(crate) fn a_clear_hides_a_write_that_is_applied_after_it() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (cache, region, memory) = memory_over(&rt, &low).await;
        let key = region.key("k");
        let late = low.catch(Kind::Write, &key);
        let setter = putting(&rt, &region, "k", "v1");
        let late = late.sprung().await;
        setter.await.unwrap().unwrap();
        region.clear().await.unwrap();
        late.pass();
        healed(&rt, &cache, "low").await;
        evict(&memory, &key).await;
        assert_eq!(low.shows(&key).unwrap(), "v1", "what must not be read");
        assert_eq!(get(&region, "k").await, None);
        put(&region, "k", "v2").await.unwrap();
        evict(&memory, &key).await;
        assert_eq!(get(&region, "k").await.unwrap(), "v2");
    });
}

#[test]
pub(crate) fn a_clear_hides_what_waits_to_be_written() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (_cache, region, memory) = memory_over(&rt, &low).await;
        let key = region.key("k");
        let first = low.catch(Kind::Write, &key);
        let one = putting(&rt, &region, "k", "v1");
        let first = first.sprung().await;
        let two = putting(&rt, &region, "k", "v2");
        calm(&rt).await;
        region.clear().await.unwrap();
        first.pass();
        one.await.unwrap().unwrap();
        two.await.unwrap().unwrap();
        assert_eq!(get(&region, "k").await, None);
        evict(&memory, &key).await;
        assert_eq!(get(&region, "k").await, None);
    });
}

#[test]
pub(crate) fn a_clear_that_found_no_room_is_recorded_later() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let slow_restart = RestartPolicy {
            backoff: Duration::from_secs(8),
            backoff_max: Duration::from_secs(8),
            ..RestartPolicy::default()
        };
        let lower = tier(&low).mailbox(1).restart(slow_restart);
        let (cache, region) = open(builder(&rt).tier(MemoryBackend::entries(100)).tier(lower)).await;
        put(&region, "k", "v1").await.unwrap();
        cache.crash_tier("low");
        calm(&rt).await;
        put(&region, "k", "v2").await.unwrap(); // takes the one place
        assert!(region.clear().await.unwrap_err().is_timeout());
        assert_eq!(low.clears(), 0);
        rt.sleep(Duration::from_secs(20)).await;
        assert_eq!(low.clears(), 1, "the tier is told again until it has recorded it");
        assert_eq!(get(&region, "k").await, None);
    });
}

#[test]
pub(crate) fn a_clear_that_is_dropped_with_its_mailbox_is_recorded_later() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let down_soon = RestartPolicy {
            limit: 1,
            backoff: Duration::from_secs(2),
            retry: Duration::from_secs(5),
            ..RestartPolicy::default()
        };
        let (cache, region) = open(
            builder(&rt)
                .tier(MemoryBackend::entries(100))
                .tier(tier(&low).restart(down_soon).write_deadline(Duration::from_secs(60))),
        )
        .await;
        cache.crash_tier("low");
        calm(&rt).await;
        low.refuse_to_open(true);
        let error = region.clear().await.unwrap_err(); // queued, then dropped as the tier goes down
        assert_eq!(error.kind(), tierkeep::ErrorKind::Restarted);
        assert_eq!(low.clears(), 0);
        low.refuse_to_open(false);
        rt.sleep(Duration::from_secs(20)).await;
        assert_eq!(low.clears(), 1);
    });
}

#[test]
pub(crate) fn a_clear_whose_caller_goes_away_is_recorded_all_the_same() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let slow_restart = RestartPolicy { backoff: Duration::from_secs(2), ..RestartPolicy::default() };
        let lower = tier(&low).mailbox(1).restart(slow_restart);
        let (cache, region) = open(builder(&rt).tier(lower)).await;
        cache.crash_tier("low");
        calm(&rt).await;
        let first = putting(&rt, &region, "k", "v1");
        calm(&rt).await;
        assert!(rt.deadline(rt.now().after(ms(50)), region.clear()).await.is_none());
        drop(first.await.unwrap());
        rt.sleep(Duration::from_secs(20)).await;
        assert_eq!(low.clears(), 1);
    });
}

/// A clear that comes while a bypassed tier is being cleared is newer than what is being recorded.
#[test]
pub(crate) fn a_clear_that_meets_the_recovery_of_its_tier_is_recorded_after_it() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (cache, region) =
            open(builder(&rt).tier(MemoryBackend::entries(100)).tier(tier(&low).quarantine(1))).await;
        let recovery = low.catch_clear();
        low.fail(Kind::Write, true);
        put(&region, "a", "v1").await.unwrap();
        put(&region, "b", "v1").await.unwrap();
        low.fail(Kind::Write, false);
        assert!(cache.inspect().tier("low").unwrap().bypassed);
        let recovery = recovery.sprung().await;
        low.fail(Kind::Clear, true);
        assert!(region.clear().await.is_err());
        low.fail(Kind::Clear, false);
        recovery.pass();
        healed(&rt, &cache, "low").await;
        rt.sleep(Duration::from_secs(10)).await;
        assert_eq!(low.clears(), 3, "the recovery's, the one that failed, and its repetition");
    });
}

#[test]
pub(crate) fn who_asks_after_a_clear_joins_no_load_from_before_it() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (_cache, region, _memory) = memory_over(&rt, &low).await;
        let (origin, loaded) = oneshot::channel();
        let before = loading(&rt, &region, "k", loaded);
        calm(&rt).await;
        region.clear().await.unwrap();
        let (fresh_origin, fresh) = oneshot::channel();
        let after = loading(&rt, &region, "k", fresh);
        calm(&rt).await;
        origin.send("v1").unwrap();
        assert_eq!(before.await.unwrap(), "v1");
        fresh_origin.send("v2").expect("it runs its own loader");
        assert_eq!(after.await.unwrap(), "v2");
    });
}
