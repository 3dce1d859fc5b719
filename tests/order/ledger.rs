//! What is dropped, what waits and what settles with what.

use std::time::Duration;

use tierkeep::composition::WritePolicy;

use crate::gate::{Gate, Kind};
use crate::world::{
    builder, calm, evict, gate_over, get, getting, healed, memory_over, ms, open, put, putting, removing,
    still, tier, under, under_seeds,
};

#[test]
pub(crate) fn a_mutation_that_arrives_after_a_newer_one_settled_is_dropped() {
    under_seeds(|rt| async move {
        let (up, low) = (Gate::new("up"), Gate::new("low"));
        let tiers = gate_over(low.clone(), up.clone()).write(WritePolicy::Sequential);
        let (cache, region) = open(builder(&rt).tier(tiers)).await;
        let key = region.key("k");
        let first = up.catch(Kind::Write, &key);
        let older = putting(&rt, &region, "k", "v1"); // numbered, but not yet sent to the lower tier
        let first = first.sprung().await;
        let newer = removing(&rt, &region, "k"); // sent to both at once
        calm(&rt).await;
        first.pass();
        older.await.unwrap().unwrap();
        newer.await.unwrap().unwrap();
        calm(&rt).await;
        assert_eq!(get(&region, "k").await, None);
        assert_eq!(low.shows(&key), None);
        healed(&rt, &cache, "low").await;
    });
}

/// A set is numbered and not yet sent below when an older removal arrives there.
#[test]
pub(crate) fn a_mutation_is_not_dropped_for_a_newer_one_that_has_not_settled() {
    under_seeds(|rt| async move {
        let (up, low) = (Gate::new("up"), Gate::new("low"));
        let tiers = gate_over(low.clone(), up.clone()).write(WritePolicy::Sequential);
        let (cache, region) = open(builder(&rt).tier(tiers)).await;
        let key = region.key("k");
        put(&region, "k", "v1").await.unwrap();
        cache.crash_tier("low");
        calm(&rt).await;
        let older = removing(&rt, &region, "k"); // waits in the lower tier's mailbox
        calm(&rt).await;
        let newer = up.catch(Kind::Write, &key);
        let setter = putting(&rt, &region, "k", "v2");
        let newer = newer.sprung().await;
        older.await.unwrap().unwrap();
        assert_eq!(get(&region, "k").await, None);
        newer.pass();
        setter.await.unwrap().unwrap();
        assert_eq!(get(&region, "k").await.unwrap(), "v2");
    });
}

#[test]
pub(crate) fn overtaken_mutations_settle_with_their_successor_and_not_before() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (cache, region) = open(builder(&rt).tier(tier(&low))).await;
        let key = region.key("k");
        let (v0, v2) = (low.catch(Kind::Write, &key), low.catch(Kind::Write, &key));
        let first = putting(&rt, &region, "k", "v0");
        let v0 = v0.sprung().await;
        let mut overtaken = putting(&rt, &region, "k", "v1");
        calm(&rt).await;
        let mut newest = putting(&rt, &region, "k", "v2");
        calm(&rt).await;
        still(&mut overtaken); // merely minted, the newer one settles nothing
        v0.pass();
        first.await.unwrap().unwrap();
        let v2 = v2.sprung().await;
        calm(&rt).await;
        still(&mut overtaken);
        still(&mut newest);
        assert_eq!(low.shows(&key).unwrap(), "v0");
        v2.pass();
        overtaken.await.unwrap().unwrap();
        newest.await.unwrap().unwrap();
        assert_eq!(get(&region, "k").await.unwrap(), "v2");
        assert_eq!(low.calls(Kind::Write, &key), 2, "the one overtaken was never sent");
        assert_eq!(cache.inspect().tier("low").unwrap().writes.superseded, 1);
    });
}

#[test]
pub(crate) fn a_read_joins_none_that_was_sent_before_it() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (cache, region) = open(builder(&rt).tier(tier(&low))).await;
        let key = region.key("k");
        put(&region, "k", "v1").await.unwrap();
        let early = low.catch(Kind::Read, &key);
        let before = getting(&rt, &region, "k");
        let mut early = early.sprung().await;
        early.apply();
        put(&region, "k", "v2").await.unwrap();
        let after = getting(&rt, &region, "k");
        calm(&rt).await;
        early.reply();
        assert_eq!(before.await.unwrap().unwrap(), "v1");
        assert_eq!(after.await.unwrap().unwrap(), "v2");
        assert_eq!(cache.inspect().tier("low").unwrap().reads.joined, 0);
    });
}

#[test]
pub(crate) fn reads_that_wait_for_a_call_join() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (cache, region) = open(builder(&rt).tier(tier(&low).concurrency(1))).await;
        put(&region, "k", "v1").await.unwrap();
        let busy = low.catch(Kind::Read, &region.key("other"));
        let other = getting(&rt, &region, "other");
        let busy = busy.sprung().await;
        let (one, two) = (getting(&rt, &region, "k"), getting(&rt, &region, "k"));
        calm(&rt).await;
        busy.pass();
        other.await.unwrap();
        assert_eq!(one.await.unwrap().unwrap(), "v1");
        assert_eq!(two.await.unwrap().unwrap(), "v1");
        assert_eq!(low.calls(Kind::Read, &region.key("k")), 1);
        assert_eq!(cache.inspect().tier("low").unwrap().reads.joined, 1);
    });
}

#[test]
pub(crate) fn a_key_for_which_too_many_wait_is_quarantined_at_once() {
    under(2, |rt| async move {
        let low = Gate::new("low");
        let (cache, region) =
            open(builder(&rt).tier(tier(&low).write_deadline(Duration::from_secs(60)))).await;
        let slow = low.catch(Kind::Write, &region.key("k"));
        let first = putting(&rt, &region, "k", "v0");
        let slow = slow.sprung().await;
        let sets: Vec<_> = (0..5000).map(|_| putting(&rt, &region, "k", "v1")).collect();
        let began = rt.now();
        let settled = futures_util::future::join_all(sets).await;
        assert!(rt.now().since(began) < Duration::from_secs(1), "before the call returned");
        // Those that come later are superseded, or quarantined as well.
        assert!(settled.iter().filter(|set| set.as_ref().unwrap().is_err()).count() > 4096);
        assert_eq!(get(&region, "k").await, None);
        slow.pass();
        first.await.unwrap().unwrap();
        healed(&rt, &cache, "low").await;
        assert_eq!(get(&region, "k").await.unwrap(), "v1");
    });
}

/// The caller of an overtaken mutation gives up while its successor is on its way: the key must come to show the
/// successor, whichever of the two the store was last asked to write.
#[test]
pub(crate) fn an_overtaken_mutation_that_times_out_does_not_undo_its_successor() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (cache, region, memory) = memory_over(&rt, &low).await;
        let key = region.key("k");
        let (v0, v2) = (low.catch(Kind::Write, &key), low.catch(Kind::Write, &key));
        let first = putting(&rt, &region, "k", "v0");
        let v0 = v0.sprung().await;
        let overtaken = putting(&rt, &region, "k", "v1");
        rt.sleep(ms(400)).await;
        let newest = putting(&rt, &region, "k", "v2");
        calm(&rt).await;
        v0.pass();
        first.await.unwrap().unwrap();
        let v2 = v2.sprung().await;
        overtaken.await.unwrap().unwrap(); // by memory; below its deadline has passed
        v2.pass();
        newest.await.unwrap().unwrap();
        evict(&memory, &key).await;
        assert_ne!(get(&region, "k").await.as_deref(), Some("v1"));
        healed(&rt, &cache, "low").await;
        assert_eq!(get(&region, "k").await.unwrap(), "v2");
    });
}

/// As before, with the successor still waiting for its call.
#[test]
pub(crate) fn an_overtaken_mutation_that_times_out_does_not_lose_its_successor() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (cache, region) = open(builder(&rt).tier(tier(&low).concurrency(1).batch_keys(1))).await;
        let (key, other) = (region.key("k"), region.key("other"));
        let v0 = low.catch(Kind::Write, &key);
        let first = putting(&rt, &region, "k", "v0");
        let v0 = v0.sprung().await;
        let overtaken = putting(&rt, &region, "k", "v1");
        rt.sleep(ms(300)).await;
        let busy = low.catch(Kind::Write, &other);
        let holder = putting(&rt, &region, "other", "xx");
        let newest = putting(&rt, &region, "k", "v2");
        calm(&rt).await;
        v0.pass();
        first.await.unwrap().unwrap();
        let busy = busy.sprung().await;
        assert!(overtaken.await.unwrap().unwrap_err().is_timeout());
        busy.pass();
        holder.await.unwrap().unwrap();
        newest.await.unwrap().unwrap();
        assert_ne!(get(&region, "k").await.as_deref(), Some("v1"));
        healed(&rt, &cache, "low").await;
        assert_eq!(get(&region, "k").await.unwrap(), "v2");
    });
}

/// Nobody waits for the successor, and its own call is late as well.
#[test]
pub(crate) fn a_late_successor_is_what_its_key_comes_to_show() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (cache, region) = open(builder(&rt).tier(tier(&low))).await;
        let key = region.key("k");
        let (v0, v2) = (low.catch(Kind::Write, &key), low.catch(Kind::Write, &key));
        let first = putting(&rt, &region, "k", "v0");
        let v0 = v0.sprung().await;
        let overtaken = putting(&rt, &region, "k", "v1");
        rt.sleep(ms(400)).await;
        let newest = putting(&rt, &region, "k", "v2");
        calm(&rt).await;
        newest.abort();
        v0.pass();
        first.await.unwrap().unwrap();
        let v2 = v2.sprung().await;
        assert!(overtaken.await.unwrap().unwrap_err().is_timeout());
        rt.sleep(ms(600)).await;
        v2.pass();
        healed(&rt, &cache, "low").await;
        assert_eq!(get(&region, "k").await.unwrap(), "v2");
    });
}
