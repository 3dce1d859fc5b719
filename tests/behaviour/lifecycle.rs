//! How a cache begins and ends.

use std::time::Duration;

use futures_util::future::join_all;
use tierkeep::runtime::ActorState;
use tierkeep::{Cache, ErrorKind, ErrorPolicy, MemoryBackend, Region};
use tierkeep_sim::{Fault, FaultPlan, Faulty};

use super::bench::frail;
use super::store::{Store, patient};
use super::world::{NEVER, World};

async fn cache(world: &World, store: &Store) -> (Cache, Region<u64, u64>) {
    let cache = Cache::builder(world.runtime.clone())
        .tier(patient(MemoryBackend::entries(100)))
        .tier(store.tier())
        .build()
        .await
        .unwrap();
    let region = cache.region("r").no_expiry().build().unwrap();
    (cache, region)
}

pub(crate) async fn shutdown_of_a_healthy_cache_is_clean(world: World) {
    let store = Store::new("store");
    let (cache, region) = cache(&world, &store).await;
    region.set(&1, 11).await.unwrap();
    let report = cache.shutdown(NEVER).await;
    assert!(report.clean, "{report:?}");
    let tiers: Vec<_> = report.tiers.iter().map(|tier| (tier.label.as_str(), tier.flushed)).collect();
    assert_eq!(tiers, [("memory", true), ("store", true)]);
    let inspection = cache.inspect();
    assert!(inspection.closed);
    assert!(inspection.tiers.iter().all(|tier| tier.state == ActorState::Stopped), "{inspection:?}");
    assert!(store.holds(&region.key(&1)));
}

pub(crate) async fn shutdown_names_the_stuck_tier(world: World) {
    let store = Store::with_residual("store", NEVER);
    let cache = Cache::builder(world.runtime.clone())
        .tier(patient(MemoryBackend::entries(100)))
        .tier(patient(store.clone()).write_deadline(Duration::from_millis(10)))
        .build()
        .await
        .unwrap();
    let region: Region<u64, u64> = cache.region("r").no_expiry().build().unwrap();
    store.gate().close();
    region.set(&1, 11).await.unwrap();
    let began = world.runtime.now();
    let within = Duration::from_millis(50);
    let report = cache.shutdown(within).await;
    world.assert_within(began, within, "a shutdown");
    assert!(!report.clean && report.elapsed >= within, "{report:?}");
    let [memory, stuck] = &report.tiers[..] else { panic!("{report:?}") };
    assert_eq!((memory.unanswered, memory.stuck_calls, memory.quarantined), (0, 0, 0));
    assert_eq!((stuck.label.as_str(), stuck.quarantined, stuck.stuck_calls), ("store", 1, 1));
    store.gate().open();
}

pub(crate) async fn shutdown_finishes_what_is_queued(world: World) {
    let store = Store::new("store");
    let cache = Cache::builder(world.runtime.clone())
        .tier(store.tier().concurrency(1).batch_keys(2))
        .build()
        .await
        .unwrap();
    let region: Region<u64, u64> = cache.region("r").no_expiry().build().unwrap();
    store.gate().close();
    let writes: Vec<_> = (0..20)
        .map(|key| {
            let region = region.clone();
            world.runtime.spawn(async move { region.set(&key, key).await })
        })
        .collect();
    let queued = || {
        let tier = &cache.inspect().tiers[0];
        store.gate().waiting() > 0 && tier.ledger == 20
    };
    world.until("all are under way", queued).await;
    let ending = cache.clone();
    let ending = world.runtime.spawn(async move { ending.shutdown(NEVER).await });
    world.until("the cache is closed", || cache.inspect().closed).await;
    store.gate().open();
    for written in join_all(writes).await {
        written.unwrap().unwrap();
    }
    assert!(ending.await.unwrap().clean);
    assert_eq!(store.map().len(), 20);
}

pub(crate) async fn a_second_shutdown_is_harmless(world: World) {
    let (cache, _) = cache(&world, &Store::new("store")).await;
    let [first, second] =
        [cache.clone(), cache.clone()].map(|cache| async move { cache.shutdown(NEVER).await });
    let (first, second) = futures_util::future::join(first, second).await;
    assert!(first.clean && second.clean, "side by side");
    assert!(cache.shutdown(NEVER).await.clean, "and again");
}

pub(crate) async fn after_shutdown_reads_miss_and_mutations_are_refused(world: World) {
    let (cache, region) = cache(&world, &Store::new("store")).await;
    region.set(&1, 11).await.unwrap();
    cache.shutdown(NEVER).await;
    assert!(region.get(&1).await.is_none());
    assert!(region.get_many(&[1, 2]).await.iter().all(Option::is_none));
    assert!(!region.contains(&1).await);
    let closed = [
        region.try_get(&1).await.map(drop).unwrap_err(),
        region.set(&1, 12).await.unwrap_err(),
        region.remove(&1).await.unwrap_err(),
        region.clear().await.unwrap_err(),
        cache.clear().await.unwrap_err(),
        region.set_many([(&1, 13)]).await.remove(0).unwrap_err(),
    ];
    for error in closed {
        assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}");
    }
    // An application that is ending still gets its value.
    let loaded = region.get_or_load(&1, async || Ok::<_, std::io::Error>(14)).await.unwrap();
    assert_eq!((*loaded, loaded.tier()), (14, None));
}

pub(crate) async fn dropping_every_handle_stops_the_actors(world: World) {
    let store = Store::new("store");
    let (cache, region) = cache(&world, &store).await;
    region.set(&1, 11).await.unwrap();
    assert!(store.handles() > 1);
    drop((cache, region));
    // Its actors, tasks and cores are gone when nobody holds its backend any more.
    world.until("everything is let go", || store.handles() == 1).await;
    if let Some(sim) = world.sim() {
        world.settle().await;
        assert_eq!(sim.pending_tasks(), 0);
    }
}

pub(crate) async fn a_region_keeps_the_cache_alive(world: World) {
    let store = Store::new("store");
    let (cache, region) = cache(&world, &store).await;
    drop(cache);
    world.settle().await;
    region.set(&1, 11).await.unwrap();
    assert_eq!(*region.get(&1).await.unwrap(), 11);
    drop(region);
    world.until("everything is let go", || store.handles() == 1).await;
}

pub(crate) async fn a_required_tier_that_stays_down_fails_the_build(world: World) {
    let plan = FaultPlan::new(&world.runtime);
    plan.rate(Fault::RefuseOpen, 1.0);
    let store = Store::new("store");
    let faulty = || frail(Faulty::new(store.clone(), &world.runtime, &plan)).label("needed");
    let memory = || patient(MemoryBackend::entries(100));
    let builder = Cache::builder(world.runtime.clone()).tier(memory()).tier(faulty().required(true));
    let error = builder.build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.tier().unwrap().as_str(), "needed");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("injected RefuseOpen"));
    world.until("nothing of it is left", || store.handles() == 1).await;
    assert!(Cache::builder(world.runtime.clone()).tier(memory()).tier(faulty()).build().await.is_ok());
}

pub(crate) async fn a_failing_tier_can_fail_the_read(world: World) {
    let plan = FaultPlan::new(&world.runtime);
    let store = Store::new("store");
    let faulty = patient(Faulty::new(store.clone(), &world.runtime, &plan)).on_error(ErrorPolicy::Fail);
    let cache = Cache::builder(world.runtime.clone()).tier(faulty).build().await.unwrap();
    let region: Region<u64, u64> = cache.region("r").no_expiry().build().unwrap();
    region.set(&1, 11).await.unwrap();
    plan.rate(Fault::Error, 1.0);
    let error = region.try_get(&1).await.unwrap_err();
    assert_eq!((error.kind(), error.tier().unwrap().as_str()), (ErrorKind::Backend, "store"));
    assert_eq!(error.key(), Some(&region.key(&1)));
    assert!(region.get(&1).await.is_none(), "to `get` it is still a miss");
    plan.heal();
    assert_eq!(*region.try_get(&1).await.unwrap().hit.unwrap(), 11);
}
