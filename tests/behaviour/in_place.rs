//! Stores in process, whose calls are begun by whoever asks: what costs no task then, and what goes on in one after all.

use futures_util::FutureExt;
use futures_util::future::join_all;
use tierkeep::{Cache, ErrorKind, Region};
use tierkeep_sim::{Fault, FaultPlan, Faulty, MapBackend};

use super::store::{Store, patient};
use super::world::World;

async fn cache(world: &World, store: &Store) -> (Cache, Region<String, u64>) {
    let cache = Cache::builder(world.runtime.clone()).tier(store.tier()).build().await.unwrap();
    let region: Region<String, u64> = cache.region("greetings").no_expiry().build().unwrap();
    // The first value is checked, and the tier is up.
    region.set(&0, "hello".to_owned()).await.unwrap();
    (cache, region)
}

pub(crate) async fn a_store_in_process_answers_before_anyone_waits(world: World) {
    let store = Store::new("store").in_process();
    let (cache, region) = cache(&world, &store).await;
    let before = cache.inspect();
    region.set(&1, "hello".to_owned()).now_or_never().unwrap().unwrap();
    let hit = region.get(&1).now_or_never().unwrap().unwrap();
    assert_eq!((hit.as_str(), hit.tier().unwrap().as_str()), ("hello", "store"));
    region.remove(&1).now_or_never().unwrap().unwrap();
    assert!(region.get(&1).now_or_never().unwrap().is_none());
    let after = cache.inspect();
    let [before, after] = [before, after].map(|inspection| inspection.tiers[0].clone());
    assert_eq!((after.messages, after.reads.calls), (before.messages, before.reads.calls + 2));
    assert_eq!(after.writes.calls, before.writes.calls + 2);
}

pub(crate) async fn what_is_held_up_goes_on_without_its_caller(world: World) {
    let store = Store::new("store").in_process();
    let (cache, region) = cache(&world, &store).await;
    store.gate().close();
    // The caller looks once and goes away.
    assert!(region.set(&1, "given up".to_owned()).now_or_never().is_none());
    world.until("the call is in its task", || store.gate().waiting() == 1).await;
    assert!(region.get(&1).now_or_never().is_none_or(|hit| hit.is_none()), "nobody knows what it holds");
    store.gate().open();
    world.until("the key is settled", || cache.inspect().tiers[0].quarantined == 0).await;
    world.until("nothing is under way", || cache.inspect().tiers[0].calls == 0).await;
    assert!(store.holds(&region.key(&1)), "the write was not lost");
    assert_eq!(region.get(&1).await.unwrap().as_str(), "given up");
}

pub(crate) async fn a_read_that_is_held_up_is_made_again(world: World) {
    let store = Store::new("store").in_process();
    let (_cache, region) = cache(&world, &store).await;
    store.gate().close();
    let read = world.runtime.spawn({
        let region = region.clone();
        async move { region.get(&0).await.map(|hit| hit.as_str().to_owned()) }
    });
    // Not the caller's: that was dropped.
    world.until("the read is in its task", || store.gate().waiting() == 1).await;
    store.gate().open();
    assert_eq!(read.await.unwrap(), Some("hello".to_owned()));
}

pub(crate) async fn calls_that_fail_in_the_caller_s_hands_are_misses(world: World) {
    let plan = FaultPlan::new(&world.runtime);
    let backend = Faulty::new(MapBackend::new().in_process(), &world.runtime, &plan);
    let cache = Cache::builder(world.runtime.clone()).tier(patient(backend)).build().await.unwrap();
    let region: Region<String, u64> = cache.region("greetings").no_expiry().build().unwrap();
    region.set(&1, "hello".to_owned()).await.unwrap();
    for (fault, kind) in [(Fault::Error, ErrorKind::Backend), (Fault::Panic, ErrorKind::Panicked)] {
        plan.next(fault, 1);
        let lookup = region.try_get(&1).await.unwrap();
        let kinds: Vec<_> = lookup.degraded.iter().map(|error| error.kind()).collect();
        assert_eq!((lookup.hit.is_none(), kinds), (true, vec![kind]));
        assert_eq!(region.get(&1).await.unwrap().as_str(), "hello");
    }
    // A write that panics may have been applied: its key is made good before it is shown again.
    plan.next(Fault::Panic, 1);
    assert_eq!(region.set(&1, "again".to_owned()).await.unwrap_err().kind(), ErrorKind::Panicked);
    world.until("the key is made good", || cache.inspect().tiers[0].quarantined == 0).await;
    assert_eq!(region.get(&1).await.unwrap().as_str(), "again");
}

pub(crate) async fn writers_of_one_key_take_turns(world: World) {
    let store = Store::new("store").in_process();
    let (_cache, region) = cache(&world, &store).await;
    store.gate().close();
    let writers = (0..20).map(|n| {
        let region = region.clone();
        world.runtime.spawn(async move { region.set(&1, n.to_string()).await })
    });
    let writers: Vec<_> = writers.collect();
    world.until("one is held up", || store.gate().waiting() == 1).await;
    world.settle().await;
    assert_eq!(store.gate().waiting(), 1, "one attempt of a key is out at a time");
    store.gate().open();
    for written in join_all(writers).await {
        written.unwrap().unwrap();
    }
    let shown = region.get(&1).await.unwrap();
    let fresh = region.get(&1).await.unwrap();
    assert_eq!(shown.as_str(), fresh.as_str());
}
