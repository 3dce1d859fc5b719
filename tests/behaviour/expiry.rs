//! How long entries live. Exact to the ms where the test sets the clock, which is in the simulator.

use std::time::Duration;

use tierkeep::{Cache, MemoryBackend, Region, Timestamp};

use super::store::{Store, patient};
use super::world::World;

const TTL: Duration = Duration::from_millis(5_000);

struct Tiers {
    cache: Cache,
    region: Region<u64, u64>,
    memory: MemoryBackend,
    store: Store,
}

/// Memory, capped if asked for, over a store.
async fn tiers(world: &World, cap: Option<Duration>, ttl: Duration) -> Tiers {
    let (memory, store) = (MemoryBackend::entries(100), Store::new("store"));
    let mut top = patient(memory.clone());
    if let Some(cap) = cap {
        top = top.ttl_cap(cap);
    }
    let cache = Cache::builder(world.runtime.clone()).tier(top).tier(store.tier()).build().await.unwrap();
    let region = cache.region("r").ttl(ttl).build().unwrap();
    Tiers { cache, region, memory, store }
}

/// The time between `from` and the clock, which the test has set.
fn life(from: Timestamp, ttl: Duration) -> Timestamp {
    from.after(ttl)
}

pub(crate) async fn an_entry_dies_at_its_millisecond(world: World) {
    let Some(sim) = world.sim() else { return };
    let Tiers { cache, region, memory, .. } = tiers(&world, None, TTL).await;
    region.set(&1, 11).await.unwrap();
    let expire = region.get(&1).await.unwrap().meta().expire.unwrap();
    sim.set_wall(Timestamp::from_millis(expire.as_millis() - 1));
    // Both tiers still have it, in its last millisecond.
    let hit = region.get(&1).await.unwrap();
    assert_eq!(hit.tier().unwrap().as_str(), "memory");
    assert!(hit.ttl().unwrap() <= Duration::from_millis(1));
    tierkeep::Backend::remove(&memory, &region.key(&1)).await.unwrap();
    sim.set_wall(Timestamp::from_millis(expire.as_millis() - 1));
    assert_eq!(region.get(&1).await.unwrap().tier().unwrap().as_str(), "store");
    world.until("memory is refilled", || cache.inspect().tiers[0].writes.fills == 1).await;
    sim.set_wall(expire);
    assert!(region.get(&1).await.is_none());
    assert!(!region.contains(&1).await);
    assert!(cache.inspect().tiers[1].reads.expired >= 1);
}

pub(crate) async fn an_entry_dies(world: World) {
    let Tiers { cache, region, .. } = tiers(&world, None, Duration::from_millis(30)).await;
    region.set(&1, 11).await.unwrap();
    world.until_some("it expires", async || region.get(&1).await.is_none().then_some(())).await;
    assert!(!region.contains(&1).await);
    assert!(cache.inspect().tiers[1].reads.expired > 0);
    // A new value lives anew. On a busy machine not for long enough to be read.
    region.set_for(&1, 12, TTL * 100).await.unwrap();
    assert_eq!(*region.get(&1).await.unwrap(), 12);
}

pub(crate) async fn a_set_can_have_its_own_ttl(world: World) {
    let Tiers { region, .. } = tiers(&world, None, TTL).await;
    region.set_for(&1, 11, TTL * 2).await.unwrap();
    region.set(&2, 22).await.unwrap();
    let [one, two] = [region.get(&1).await.unwrap(), region.get(&2).await.unwrap()];
    assert_eq!(one.meta().expire, Some(life(one.meta().created, TTL * 2)));
    assert_eq!(two.meta().expire, Some(life(two.meta().created, TTL)));
}

pub(crate) async fn an_upper_tier_s_cap_cuts_a_longer_life(world: World) {
    let cap = Duration::from_millis(1_000);
    let Tiers { cache, region, memory, .. } = tiers(&world, Some(cap), TTL).await;
    let before = world.wall();
    region.set(&1, 11).await.unwrap();
    let capped = region.get(&1).await.unwrap().meta().expire.unwrap();
    assert!(capped >= before.after(cap) && capped <= world.wall().after(cap), "counted from the write");
    tierkeep::Backend::remove(&memory, &region.key(&1)).await.unwrap();
    let hit = region.get(&1).await.unwrap();
    assert_eq!(hit.tier().unwrap().as_str(), "store");
    assert_eq!(hit.meta().expire, Some(life(hit.meta().created, TTL)), "the store's life is whole");
    // A refill starts the cap anew.
    world.until("memory is refilled", || cache.inspect().tiers[0].writes.fills == 1).await;
    let refilled = region.get(&1).await.unwrap();
    assert_eq!(refilled.tier().unwrap().as_str(), "memory");
    assert!(refilled.meta().expire.unwrap() >= capped && refilled.meta().expire < hit.meta().expire);
    if let Some(sim) = world.sim() {
        sim.set_wall(refilled.meta().expire.unwrap());
        assert_eq!(region.get(&1).await.unwrap().tier().unwrap().as_str(), "store");
    }
}

pub(crate) async fn an_upper_tier_s_cap_never_adds_life(world: World) {
    let Tiers { cache, region, memory, .. } = tiers(&world, Some(TTL * 10), TTL).await;
    region.set(&1, 11).await.unwrap();
    let expire = region.get(&1).await.unwrap().meta().expire;
    tierkeep::Backend::remove(&memory, &region.key(&1)).await.unwrap();
    assert_eq!(region.get(&1).await.unwrap().meta().expire, expire, "the same in the store");
    world.until("memory is refilled", || cache.inspect().tiers[0].writes.fills == 1).await;
    let refilled = region.get(&1).await.unwrap();
    assert_eq!(refilled.tier().unwrap().as_str(), "memory");
    assert_eq!(refilled.meta().expire, expire, "what remained of its life below");
}

pub(crate) async fn without_expiry_entries_stay(world: World) {
    let Tiers { cache, memory, .. } = tiers(&world, None, TTL).await;
    let region: Region<u64, u64> = cache.region("forever").no_expiry().build().unwrap();
    region.set(&1, 11).await.unwrap();
    if let Some(sim) = world.sim() {
        sim.jump_wall(1_000 * 365 * 86_400_000);
    }
    let hit = region.get(&1).await.unwrap();
    assert_eq!((*hit, hit.ttl(), hit.meta().expire), (11, None, None));
    tierkeep::Backend::remove(&memory, &region.key(&1)).await.unwrap();
    assert_eq!(region.get(&1).await.unwrap().tier().unwrap().as_str(), "store");
}

pub(crate) async fn expired_objects_are_swept(world: World) {
    let memory = MemoryBackend::entries(100);
    let tier = patient(memory.clone()).sweep_interval(Duration::from_millis(5));
    let cache = Cache::builder(world.runtime.clone()).tier(tier).build().await.unwrap();
    let region: Region<u64, u64> = cache.region("r").ttl(Duration::from_millis(10)).build().unwrap();
    for key in 0..50 {
        region.set(&key, key).await.unwrap();
    }
    let entries = || tierkeep::Backend::usage(&memory).entries;
    world.until("nobody asks, and they go", || entries() == Some(0)).await;
    assert_eq!(cache.inspect().tiers[0].writes.swept, 50);
}

pub(crate) async fn a_wall_clock_that_steps_back_revives_nothing_older(world: World) {
    let Some(sim) = world.sim() else { return };
    let Tiers { cache, region, memory, store } = tiers(&world, None, TTL * 1000).await;
    region.set(&1, 11).await.unwrap();
    sim.jump_wall(-60_000);
    region.set(&1, 12).await.unwrap();
    tierkeep::Backend::remove(&memory, &region.key(&1)).await.unwrap();
    assert_eq!(*region.get(&1).await.unwrap(), 12);
    region.clear().await.unwrap();
    assert!(region.get(&1).await.is_none());
    sim.jump_wall(-60_000);
    assert!(region.get(&1).await.is_none(), "a clear holds whatever the clock says");
    assert!(store.holds(&region.key(&1)));
    region.set(&1, 13).await.unwrap();
    assert_eq!(*region.get(&1).await.unwrap(), 13);
    drop(cache);
}
