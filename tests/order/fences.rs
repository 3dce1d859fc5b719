//! What was read below is written above only if no mutation of the key began since.

use futures_channel::oneshot;
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Cache, MemoryBackend};

use crate::gate::{Gate, Kind};
use crate::world::{
    Strings, builder, calm, evict, gate_over, get, getting, healed, loading, memory_over, ms, open, put,
    putting, still, tier, under_seeds,
};

/// Memory over a gate that holds `k` as v1.
async fn v1_below(rt: &RuntimeHandle, low: &Gate) -> (Cache, Strings, MemoryBackend) {
    let (cache, region, memory) = memory_over(rt, low).await;
    put(&region, "k", "v1").await.unwrap();
    evict(&memory, &region.key("k")).await;
    (cache, region, memory)
}

#[test]
pub(crate) fn a_fence_taken_while_a_set_is_under_way_is_void() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (_cache, region, memory) = v1_below(&rt, &low).await;
        let key = region.key("k");
        let write = low.catch(Kind::Write, &key);
        let mut setter = putting(&rt, &region, "k", "v2");
        let write = write.sprung().await;
        calm(&rt).await;
        evict(&memory, &key).await;
        assert_eq!(get(&region, "k").await.unwrap(), "v1", "the set has not returned: either is right");
        calm(&rt).await; // a refill would be there by now
        still(&mut setter);
        write.pass();
        setter.await.unwrap().unwrap();
        assert_eq!(get(&region, "k").await.unwrap(), "v2");
    });
}

#[test]
pub(crate) fn a_load_that_a_removal_overtook_fills_nothing() {
    under_seeds(|rt| async move {
        let low = Gate::new("low");
        let (cache, region, _memory) = memory_over(&rt, &low).await;
        let (origin, loaded) = oneshot::channel();
        let loader = loading(&rt, &region, "k", loaded);
        calm(&rt).await;
        region.remove("k").await.unwrap();
        origin.send("v1").unwrap();
        assert_eq!(loader.await.unwrap(), "v1");
        calm(&rt).await;
        assert_eq!(get(&region, "k").await, None);
        assert_eq!(low.shows(&region.key("k")), None);
        let inspection = cache.inspect();
        assert_eq!(inspection.tiers.iter().map(|tier| tier.writes.fills).sum::<u64>(), 0);
    });
}

#[test]
pub(crate) fn a_fill_in_flight_is_the_keys_one_call() {
    under_seeds(|rt| async move {
        let (up, low) = (Gate::new("up"), Gate::new("low"));
        let (_cache, region) = open(builder(&rt).tier(gate_over(low.clone(), up.clone()))).await;
        let key = region.key("k");
        put(&region, "k", "v1").await.unwrap();
        up.forget(&key);
        let fill = up.catch(Kind::Write, &key);
        assert_eq!(get(&region, "k").await.unwrap(), "v1");
        let fill = fill.sprung().await;
        let setter = putting(&rt, &region, "k", "v2");
        calm(&rt).await;
        fill.pass();
        setter.await.unwrap().unwrap();
        assert_eq!(get(&region, "k").await.unwrap(), "v2");
        assert_eq!((up.shows(&key).unwrap(), low.shows(&key).unwrap()), ("v2".into(), "v2".into()));
    });
}

#[test]
pub(crate) fn a_fill_that_timed_out_quarantines_its_key() {
    under_seeds(|rt| async move {
        let (up, low) = (Gate::new("up"), Gate::new("low"));
        let (cache, region) = open(builder(&rt).tier(gate_over(low.clone(), up.clone()))).await;
        let key = region.key("k");
        put(&region, "k", "v1").await.unwrap();
        up.forget(&key);
        let fill = up.catch(Kind::Write, &key);
        assert_eq!(get(&region, "k").await.unwrap(), "v1");
        let mut fill = fill.sprung().await;
        rt.sleep(ms(600)).await;
        put(&region, "k", "v2").await.unwrap();
        fill.apply(); // v1 over whatever is there
        assert_eq!(get(&region, "k").await.unwrap(), "v2");
        fill.reply();
        healed(&rt, &cache, "up").await;
        assert_eq!(get(&region, "k").await.unwrap(), "v2");
        assert_eq!(up.shows(&key).unwrap(), "v2");
    });
}

#[test]
pub(crate) fn a_fill_that_waited_for_its_call_is_given_up_once_a_set_began() {
    under_seeds(|rt| async move {
        let (up, low) = (Gate::new("up"), Gate::new("low"));
        let two = tierkeep::Compose::over(tier(&up).concurrency(1), tier(&low));
        let (cache, region) = open(builder(&rt).tier(two)).await;
        let (key, other) = (region.key("k"), region.key("other"));
        put(&region, "k", "v1").await.unwrap();
        up.forget(&key);
        let busy = up.catch(Kind::Write, &other);
        let holder = putting(&rt, &region, "other", "xx");
        let busy = busy.sprung().await;
        assert_eq!(getting(&rt, &region, "k").await.unwrap().unwrap(), "v1");
        calm(&rt).await; // the fill waits behind the other key's write
        let setter = putting(&rt, &region, "k", "v2");
        calm(&rt).await;
        let writes = up.calls(Kind::Write, &key);
        busy.pass();
        holder.await.unwrap().unwrap();
        setter.await.unwrap().unwrap();
        assert_eq!(up.calls(Kind::Write, &key), writes + 1, "the set alone");
        assert_eq!(up.shows(&key).unwrap(), "v2");
        assert_eq!(cache.inspect().tier("up").unwrap().writes.fills, 0);
    });
}
