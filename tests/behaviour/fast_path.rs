//! What makes a hit in memory cheap: nobody else is troubled with it.

use tierkeep::{Cache, MemoryBackend, Region};

use super::store::{Store, patient};
use super::world::{NEVER, World};

async fn cache(world: &World) -> (Cache, Region<String, u64>) {
    let cache = Cache::builder(world.runtime.clone())
        .tier(patient(MemoryBackend::entries(100)).sweep_interval(NEVER))
        .tier(Store::new("store").tier())
        .build()
        .await
        .unwrap();
    let region = cache.region("greetings").no_expiry().build().unwrap();
    (cache, region)
}

/// Reads a thousand times, and sees that only the port's counters move.
async fn only_the_port_is_asked(world: &World, cache: &Cache, region: &Region<String, u64>, messages: u64) {
    // The sweep with which every cache begins among them.
    world.until("memory is at rest", || cache.inspect().tiers[0].messages == messages).await;
    let before = cache.inspect();
    for _ in 0..1000 {
        assert_eq!(**region.get(&1).await.unwrap(), *"hello");
    }
    let after = cache.inspect();
    assert_eq!(after.codec, before.codec);
    for (before, after) in before.tiers.iter().zip(&after.tiers) {
        assert_eq!((after.messages, after.mailbox), (before.messages, 0), "{}", before.label);
        assert_eq!(after.reads.calls, before.reads.calls);
    }
    let [memory, store] = [0, 1].map(|tier| (before.tiers[tier].reads, after.tiers[tier].reads));
    assert_eq!(memory.1.through_port, memory.0.through_port + 1000);
    assert_eq!(memory.1.hits, memory.0.hits + 1000);
    assert_eq!(store.0, store.1);
}

pub(crate) async fn hits_in_memory_touch_neither_mailbox_nor_codec(world: World) {
    let (cache, region) = cache(&world).await;
    region.set(&1, "hello".to_owned()).await.unwrap();
    assert_eq!(cache.inspect().codec.inline_encodes, 1, "for the store alone");
    // Written by the caller, not by the actor.
    only_the_port_is_asked(&world, &cache, &region, 1).await;
}

pub(crate) async fn refilled_objects_are_hits_in_memory_too(world: World) {
    let store = Store::new("store");
    let before = Cache::builder(world.runtime.clone()).tier(store.tier()).build().await.unwrap();
    let region: Region<String, u64> = before.region("greetings").no_expiry().build().unwrap();
    region.set(&1, "hello".to_owned()).await.unwrap();

    let cache = Cache::builder(world.runtime.clone())
        .tier(patient(MemoryBackend::bytes(1 << 20)).sweep_interval(NEVER))
        .tier(store.tier())
        .build()
        .await
        .unwrap();
    let region: Region<String, u64> = cache.region("greetings").no_expiry().build().unwrap();
    assert_eq!(region.get(&1).await.unwrap().tier().unwrap().as_str(), "store");
    world.until("the refill is there", || cache.inspect().tiers[0].writes.fills == 1).await;
    assert_eq!(cache.inspect().codec.inline_decodes, 1, "by the read that refilled it");
    // Weighed first, the fill takes the lane and the mailbox.
    only_the_port_is_asked(&world, &cache, &region, 2).await;
}
