//! A clear hides everything up to its stamp, at once and everywhere.

use std::time::Duration;

use tierkeep::MemoryBackend;
use tierkeep::runtime::RestartPolicy;

use crate::gate::{Gate, Kind};
use crate::world::{
    builder, calm, evict, get, healed, memory_over, ms, open, put, putting, tier, under_seeds,
};

#[test]
fn a_clear_hides_a_write_that_is_applied_after_it() {
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
fn a_clear_hides_what_waits_to_be_written() {
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
fn a_clear_that_found_no_room_is_recorded_later() {
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
fn a_clear_that_is_dropped_with_its_mailbox_is_recorded_later() {
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
fn a_clear_whose_caller_goes_away_is_recorded_all_the_same() {
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
