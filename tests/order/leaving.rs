//! Callers that go away, tiers that go down, caches that end: everything settles and nothing is left over.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{join_all, poll_fn};
use tierkeep::codec::CodecOptions;
use tierkeep::composition::WritePolicy;
use tierkeep::runtime::{ActorState, RestartPolicy};
use tierkeep::{MemoryBackend, Tier};

use crate::gate::{Gate, Kind};
use crate::world::{
    builder, calm, evict, get, healed, memory_over, ms, open, put, putting, tier, under, under_seeds,
};

/// Polls a future `polls` times, then drops it. Whether it came to its end.
async fn dropped_after<T>(polls: usize, future: impl Future<Output = T>) -> bool {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(true),
            // Again at once and not when woken: it is dropped wherever it stands.
            Poll::Pending => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    })
    .await
}

#[test]
pub(crate) fn a_set_dropped_at_any_await_leaves_nothing_behind() {
    let policies = [
        WritePolicy::Sequential,
        WritePolicy::OptimisticParallel { require_all: true },
        WritePolicy::Race,
        WritePolicy::WriteAround,
    ];
    for policy in policies {
        for polls in 0..12 {
            under(8, |rt| async move {
                let low = Gate::new("low");
                let memory = MemoryBackend::entries(100);
                let (cache, region) = open(
                    builder(&rt)
                        .tier(Tier::new(memory.clone()).mailbox(1))
                        .tier(tier(&low).mailbox(1).concurrency(1))
                        .write_policy(policy)
                        .fence_stripes(1),
                )
                .await;
                drop(put(&region, "k", "v1").await);
                dropped_after(polls, put(&region, "k", "v2")).await;
                dropped_after(polls, region.remove("gone")).await;
                calm(&rt).await;
                healed(&rt, &cache, "memory").await;
                healed(&rt, &cache, "low").await;
                let read = get(&region, "k").await;
                evict(&memory, &region.key("k")).await;
                assert_eq!(get(&region, "k").await, read, "the tiers agree");
                assert!(read.is_none_or(|value| value == "v1" || value == "v2"));
                calm(&rt).await;
                let fills = cache.inspect().tier("memory").unwrap().writes.fills;
                evict(&memory, &region.key("k")).await;
                drop(put(&region, "k", "v3").await);
                healed(&rt, &cache, "low").await;
                healed(&rt, &cache, "memory").await;
                evict(&memory, &region.key("k")).await;
                assert_eq!(get(&region, "k").await.unwrap(), "v3");
                calm(&rt).await;
                assert!(
                    cache.inspect().tier("memory").unwrap().writes.fills > fills,
                    "no stripe is left busy"
                );
            });
        }
    }
}

/// The tier below has not been sent anything when its turn has not come: it forgets what it holds.
#[test]
pub(crate) fn a_set_dropped_while_the_tier_above_writes_leaves_nothing_older_below() {
    for polls in 0..6 {
        under(8, |rt| async move {
            let (cache, region) = open(
                builder(&rt)
                    .tier(tier(&Gate::new("high")))
                    .tier(MemoryBackend::entries(100))
                    .write_policy(WritePolicy::Sequential),
            )
            .await;
            put(&region, "k", "v1").await.unwrap();
            dropped_after(polls, put(&region, "k", "v2")).await;
            calm(&rt).await;
            healed(&rt, &cache, "high").await;
            healed(&rt, &cache, "memory").await;
            let key = region.key("k");
            let above = cache.get_from::<String>("high", &key).await.unwrap().map(|hit| hit.into_arc());
            let below = cache.get_from::<String>("memory", &key).await.unwrap().map(|hit| hit.into_arc());
            assert!(below.is_none() || below == above, "{above:?} over {below:?}");
        });
    }
}

#[test]
pub(crate) fn callers_dropped_while_the_codec_pool_works_leave_nothing_behind() {
    for polls in 0..10 {
        under(8, |rt| async move {
            let (low, memory) = (Gate::new("low"), MemoryBackend::entries(100));
            // One worker, and everything goes to it.
            let codec = CodecOptions::default().workers(1).inline_encode(0).inline_decode(0);
            let (cache, region) = open(builder(&rt).tier(memory.clone()).tier(tier(&low)).codec(codec)).await;
            put(&region, "k", "v1").await.unwrap();
            let several = join_all((0..3).map(|_| put(&region, "k", "v2")));
            dropped_after(polls, several).await;
            evict(&memory, &region.key("k")).await;
            dropped_after(polls, join_all((0..3).map(|_| get(&region, "k")))).await;
            calm(&rt).await;
            healed(&rt, &cache, "low").await;
            let codec = cache.inspect().codec;
            assert_eq!((codec.running, codec.waiting), (0, 0), "after {polls} polls");
            assert_eq!((codec.inline_encodes, codec.inline_decodes), (0, 0));
            let read = get(&region, "k").await;
            assert!(read.as_ref().is_none_or(|value| value == "v1" || value == "v2"), "{read:?}");
            evict(&memory, &region.key("k")).await;
            assert_eq!(get(&region, "k").await, read, "the tiers agree");
            put(&region, "k", "v3").await.unwrap();
            evict(&memory, &region.key("k")).await;
            assert_eq!(get(&region, "k").await.unwrap(), "v3", "the worker is free");
        });
    }
}

#[test]
pub(crate) fn a_reader_dropped_at_any_await_leaves_nothing_behind() {
    for polls in 0..8 {
        under(8, |rt| async move {
            let low = Gate::new("low");
            let (cache, region, memory) = memory_over(&rt, &low).await;
            put(&region, "k", "v1").await.unwrap();
            evict(&memory, &region.key("k")).await;
            dropped_after(polls, region.get("k")).await;
            calm(&rt).await;
            let stands = cache.inspect();
            let low = stands.tier("low").unwrap();
            assert_eq!((low.calls, low.queued, low.mailbox), (0, 0, 0));
            assert_eq!(get(&region, "k").await.unwrap(), "v1");
        });
    }
}

/// What an incarnation drained and did not send, when none follows it for long.
#[test]
pub(crate) fn a_tier_that_goes_down_lets_go_of_what_it_had_drained() {
    under_seeds(|rt| async move {
        let (low, broken) = (Gate::new("low"), Gate::new("broken"));
        let memory = MemoryBackend::entries(100);
        let down_at_once = RestartPolicy { limit: 0, ..RestartPolicy::default() };
        let (cache, region) = open(
            builder(&rt)
                .tier(memory.clone())
                .tier(tier(&low))
                .tier(tier(&broken).restart(down_at_once))
                .fence_stripes(1),
        )
        .await;
        put(&region, "a", "v1").await.unwrap();
        broken.refuse_to_open(true);
        // In one burst: the mutation is drained, and the incarnation dies before it is sent.
        let setting = put(&region, "b", "v1");
        let mut setting = pin!(setting);
        let first = poll_fn(|cx| Poll::Ready(setting.as_mut().poll(cx).is_ready())).await;
        cache.crash_tier("broken");
        assert!(!first);
        setting.await.unwrap();
        calm(&rt).await;
        let stands = cache.inspect();
        let tier = stands.tier("broken").unwrap();
        assert_eq!(tier.state, ActorState::Down);
        assert_eq!(tier.queued, 0, "nothing waits for an incarnation that may never come");
        evict(&memory, &region.key("a")).await;
        assert_eq!(get(&region, "a").await.unwrap(), "v1");
        calm(&rt).await;
        assert_eq!(cache.inspect().tier("memory").unwrap().writes.fills, 1, "the stripe is free");
        broken.refuse_to_open(false);
        rt.sleep(Duration::from_secs(60)).await;
        healed(&rt, &cache, "broken").await;
        assert_eq!(broken.shows(&region.key("b")).unwrap(), "v1");
    });
}

#[test]
pub(crate) fn a_crash_between_drain_and_call_loses_nothing() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (cache, region) =
            open(builder(&rt).tier(tier(&low).write_deadline(Duration::from_secs(5)))).await;
        let sets = ["a", "b", "c"].map(|key| putting(&rt, &region, key, "v1"));
        cache.crash_tier("low");
        for set in sets {
            set.await.unwrap().unwrap();
        }
        for key in ["a", "b", "c"] {
            assert_eq!(get(&region, key).await.unwrap(), "v1");
        }
        healed(&rt, &cache, "low").await;
    });
}

#[test]
pub(crate) fn a_restart_finds_a_full_queue_and_sends_it() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let lower = tier(&low).concurrency(1).batch_keys(1).write_deadline(Duration::from_secs(30));
        let (cache, region) = open(builder(&rt).tier(lower)).await;
        let busy = low.catch(Kind::Write, &region.key("a"));
        let keys = ["a", "b", "c", "d", "e", "f"];
        let first = putting(&rt, &region, "a", "v1");
        let busy = busy.sprung().await;
        let sets = ["b", "c", "d", "e", "f"].map(|key| putting(&rt, &region, key, "v1"));
        calm(&rt).await;
        assert!(cache.inspect().tier("low").unwrap().queued >= 2, "no more is taken from the mailbox");
        cache.crash_tier("low");
        rt.sleep(Duration::from_secs(1)).await;
        busy.pass();
        first.await.unwrap().unwrap();
        for set in sets {
            set.await.unwrap().unwrap();
        }
        rt.sleep(Duration::from_secs(1)).await;
        assert_eq!(cache.inspect().tier("low").unwrap().restarts, 1);
        for key in keys {
            assert_eq!(get(&region, key).await.unwrap(), "v1");
        }
    });
}

#[test]
pub(crate) fn a_shutdown_makes_good_what_it_can() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (cache, region, _memory) = memory_over(&rt, &low).await;
        let refused = low.catch(Kind::Write, &region.key("k"));
        let setter = putting(&rt, &region, "k", "v1");
        let refused = refused.sprung().await;
        low.fail(Kind::Write, true);
        refused.fail();
        setter.await.unwrap().unwrap();
        let began = rt.now();
        let stopping = cache.shutdown(Duration::from_secs(30));
        let healing = async {
            rt.sleep(ms(500)).await;
            low.fail(Kind::Write, false);
        };
        let (report, ()) = futures_util::future::join(stopping, healing).await;
        assert!(report.clean, "{report:?}");
        assert_eq!(low.shows(&region.key("k")).unwrap(), "v1");
        assert!(rt.now().since(began) < Duration::from_secs(20));
    });
}
