//! The ten interleavings that broke other caches, by name.

use std::time::Duration;

use futures_channel::oneshot;
use tierkeep::backend::DiskBackend;
use tierkeep::composition::WritePolicy;
use tierkeep::runtime::{ActorState, RestartPolicy, RuntimeHandle};
use tierkeep::{ErrorKind, MemoryBackend};
use tierkeep_sim::explore;

use crate::gate::{Gate, Kind};
use crate::world::{
    builder, calm, evict, get, getting, healed, loading, memory_over, ms, open, put, putting, still, tier,
    under_seeds,
};

#[test]
pub(crate) fn a_refill_captured_before_a_set_is_not_applied_after_it() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (cache, region, memory) = memory_over(&rt, &low).await;
        let key = region.key("k");
        put(&region, "k", "v1").await.unwrap();
        evict(&memory, &key).await;
        let read = low.catch(Kind::Read, &key);
        let reader = getting(&rt, &region, "k");
        let mut read = read.sprung().await;
        read.apply(); // it has seen v1
        put(&region, "k", "v2").await.unwrap();
        evict(&memory, &key).await;
        read.reply();
        assert_eq!(reader.await.unwrap().unwrap(), "v1", "it began before the set: either is right");
        calm(&rt).await;
        assert_eq!(get(&region, "k").await.unwrap(), "v2");
        assert_eq!(cache.inspect().tier("memory").unwrap().writes.fills_void, 1);
    });
}

#[test]
pub(crate) fn a_set_confirmed_above_and_refused_below_is_a_miss_below_until_made_good() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (cache, region, memory) = memory_over(&rt, &low).await;
        let key = region.key("k");
        put(&region, "k", "v1").await.unwrap();
        low.fail(Kind::Write, true);
        put(&region, "k", "v2").await.unwrap();
        evict(&memory, &key).await;
        assert_eq!(low.shows(&key).unwrap(), "v1", "what must not be read");
        assert_eq!(get(&region, "k").await, None);
        low.fail(Kind::Write, false);
        healed(&rt, &cache, "low").await;
        assert_eq!(get(&region, "k").await.unwrap(), "v2");
    });
}

#[test]
pub(crate) fn a_key_removed_while_the_lower_tier_is_down_is_not_read_through_it() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let down_at_once = RestartPolicy { limit: 0, ..RestartPolicy::default() };
        let memory = MemoryBackend::entries(100);
        let (cache, region) =
            open(builder(&rt).tier(memory.clone()).tier(tier(&low).restart(down_at_once))).await;
        let key = region.key("k");
        put(&region, "k", "v1").await.unwrap();
        cache.crash_tier("low");
        calm(&rt).await;
        assert_eq!(cache.inspect().tier("low").unwrap().state, ActorState::Down);
        assert!(region.remove("k").await.unwrap(), "memory had it");
        let repair = low.catch(Kind::Remove, &key);
        rt.sleep(Duration::from_secs(60)).await;
        assert_eq!(cache.inspect().tier("low").unwrap().state, ActorState::Running);
        assert_eq!(low.shows(&key).unwrap(), "v1", "what must not be read");
        assert_eq!(get(&region, "k").await, None);
        repair.sprung().await.pass();
        healed(&rt, &cache, "low").await;
        assert_eq!(get(&region, "k").await, None);
        assert_eq!(low.shows(&key), None);
    });
}

#[test]
pub(crate) fn of_two_mutations_of_one_key_only_one_is_in_flight() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (_cache, region) = open(builder(&rt).tier(tier(&low).concurrency(4))).await;
        let key = region.key("k");
        let (first, mut second) = (low.catch(Kind::Write, &key), low.catch(Kind::Write, &key));
        let older = putting(&rt, &region, "k", "v1");
        let first = first.sprung().await;
        let newer = putting(&rt, &region, "k", "v2");
        calm(&rt).await;
        // A store may take two calls in either order: here it would take the second one first.
        match second.sprung_by_now() {
            Some(second) => {
                second.pass();
                first.pass();
            }
            None => {
                first.pass();
                second.sprung().await.pass();
            }
        }
        older.await.unwrap().unwrap();
        newer.await.unwrap().unwrap();
        assert_eq!(get(&region, "k").await.unwrap(), "v2");
    });
}

#[test]
pub(crate) fn a_late_reply_after_a_restart_does_not_bring_its_value_back() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (cache, region, memory) = memory_over(&rt, &low).await;
        let key = region.key("k");
        let late = low.catch(Kind::Write, &key);
        let older = putting(&rt, &region, "k", "v1");
        let late = late.sprung().await;
        cache.crash_tier("low");
        older.await.unwrap().unwrap(); // by the memory tier, and quarantine below
        assert!(cache.inspect().tier("low").unwrap().restarts > 0);
        put(&region, "k", "v2").await.unwrap();
        rt.sleep(Duration::from_secs(2)).await;
        late.pass();
        evict(&memory, &key).await;
        assert_ne!(get(&region, "k").await.as_deref(), Some("v1"));
        healed(&rt, &cache, "low").await;
        assert_eq!(get(&region, "k").await.unwrap(), "v2");
    });
}

#[test]
pub(crate) fn a_clear_voids_the_refill_and_the_load_that_it_overtakes() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (cache, region, memory) = memory_over(&rt, &low).await;
        put(&region, "k", "v1").await.unwrap();
        evict(&memory, &region.key("k")).await;
        let read = low.catch(Kind::Read, &region.key("k"));
        let reader = getting(&rt, &region, "k");
        let mut read = read.sprung().await;
        read.apply();
        let (origin, loaded) = oneshot::channel();
        let loader = loading(&rt, &region, "l", loaded);
        calm(&rt).await;
        region.clear().await.unwrap();
        read.reply();
        origin.send("l1").unwrap();
        assert_eq!(loader.await.unwrap(), "l1", "who asked before may have it");
        reader.await.unwrap();
        calm(&rt).await;
        assert_eq!(get(&region, "k").await, None);
        assert_eq!(get(&region, "l").await, None);
        assert!(cache.inspect().tier("memory").unwrap().writes.fills == 0);
    });
}

#[test]
pub(crate) fn a_load_overtaken_by_a_remove_serves_those_who_joined_before_it_only() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (_cache, region, memory) = memory_over(&rt, &low).await;
        let (origin, loaded) = oneshot::channel();
        let leader = loading(&rt, &region, "k", loaded);
        calm(&rt).await;
        let (unused, never) = oneshot::channel();
        let before = loading(&rt, &region, "k", never);
        calm(&rt).await;
        region.remove("k").await.unwrap();
        let (fresh_origin, fresh) = oneshot::channel();
        let after = loading(&rt, &region, "k", fresh);
        calm(&rt).await;
        origin.send("v1").unwrap();
        assert_eq!(leader.await.unwrap(), "v1");
        assert_eq!(before.await.unwrap(), "v1", "it joined");
        assert!(unused.is_canceled(), "and so ran no loader of its own");
        calm(&rt).await;
        assert_eq!(get(&region, "k").await, None, "what was loaded before the removal is not kept");
        fresh_origin.send("v2").expect("who came after the removal runs its own loader");
        assert_eq!(after.await.unwrap(), "v2");
        calm(&rt).await;
        evict(&memory, &region.key("k")).await;
        assert_eq!(get(&region, "k").await.unwrap(), "v2");
    });
}

#[test]
pub(crate) fn each_entry_of_a_partial_set_many_stands_for_itself() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (cache, region) = open(builder(&rt).tier(tier(&low))).await;
        for key in ["a", "b", "c"] {
            put(&region, key, "v1").await.unwrap();
        }
        let (refused, mut repair) =
            (low.catch(Kind::Write, &region.key("b")), low.catch(Kind::Write, &region.key("b")));
        let setting = rt.spawn({
            let region = region.clone();
            async move { region.set_many(["a", "b", "c"].map(|key| (key, "v2".to_owned()))).await }
        });
        refused.sprung().await.fail();
        let results = setting.await.unwrap();
        assert!(results[0].is_ok() && results[2].is_ok());
        assert_eq!(results[1].as_ref().unwrap_err().kind(), ErrorKind::Backend);
        let read = region.get_many(["a", "b", "c"]).await;
        let read: Vec<_> = read.iter().map(|hit| hit.as_ref().map(|hit| hit.as_str())).collect();
        assert_eq!(read, [Some("v2"), None, Some("v2")]);
        calm(&rt).await;
        repair.sprung_by_now().expect("the refused one is written again").pass();
        healed(&rt, &cache, "low").await;
        assert_eq!(get(&region, "b").await.unwrap(), "v2");
    });
}

#[test]
pub(crate) fn a_race_loser_that_finishes_last_is_a_miss_until_it_has() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let memory = MemoryBackend::entries(100);
        let (cache, region) =
            open(builder(&rt).tier(memory.clone()).tier(tier(&low)).write_policy(WritePolicy::Race)).await;
        let key = region.key("k");
        put(&region, "k", "v1").await.unwrap();
        healed(&rt, &cache, "low").await;
        healed(&rt, &cache, "memory").await;
        let loser = low.catch(Kind::Write, &key);
        put(&region, "k", "v2").await.unwrap();
        evict(&memory, &key).await;
        assert_eq!(low.shows(&key).unwrap(), "v1", "what must not be read");
        assert_eq!(get(&region, "k").await, None);
        loser.sprung().await.pass();
        healed(&rt, &cache, "low").await;
        assert_eq!(get(&region, "k").await.unwrap(), "v2");
    });
}

#[test]
pub(crate) fn an_entry_of_an_earlier_process_whose_clock_was_ahead_is_older_than_all_of_this_one() {
    explore(0..8, |sim| {
        let rt = RuntimeHandle::new(sim.runtime());
        let dir = tempfile::tempdir().unwrap();
        let disk = || DiskBackend::builder(dir.path()).capacity_bytes(8 << 20).build().unwrap();
        sim.jump_wall(3_600_000);
        sim.block_on(async {
            let (cache, region) = open(builder(&rt).tier(disk())).await;
            for key in ["cleared", "set", "read"] {
                put(&region, key, "v1").await.unwrap();
            }
            assert!(cache.shutdown(Duration::from_secs(10)).await.clean);
        })
        .unwrap();
        sim.run_until_idle(Duration::from_secs(1)).unwrap();
        sim.jump_wall(-3_600_000);
        sim.block_on(async {
            let memory = MemoryBackend::entries(100);
            let (_cache, region) = open(builder(&rt).tier(memory.clone()).tier(disk())).await;
            assert_eq!(get(&region, "read").await.unwrap(), "v1");
            assert_eq!(get(&region, "cleared").await.unwrap(), "v1");
            put(&region, "set", "v2").await.unwrap();
            calm(&rt).await; // the refill into memory
            evict(&memory, &region.key("set")).await;
            assert_eq!(get(&region, "set").await.unwrap(), "v2");
            region.clear().await.unwrap();
            for key in ["cleared", "set", "read"] {
                assert_eq!(get(&region, key).await, None, "{key}");
            }
            put(&region, "cleared", "v3").await.unwrap();
            evict(&memory, &region.key("cleared")).await;
            assert_eq!(get(&region, "cleared").await.unwrap(), "v3");
        })
        .unwrap();
    });
}

#[test]
pub(crate) fn a_test_can_tell_whether_a_task_is_under_way() {
    under_seeds(|rt| async move {
        let mut task = rt.spawn(std::future::pending::<()>());
        still(&mut task);
        rt.sleep(ms(1)).await;
        still(&mut task);
    });
}
