//! Single flight: what becomes of concurrent loads of one key.
//!
//! A topmost memory tier is read without waiting, so polling a call once is enough to make it lead or join.

use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tierkeep::runtime::TaskError;
use tierkeep::{Cache, Hit, MemoryBackend, Region, Result};
use tierkeep_sim::{Fault, FaultPlan, Faulty};

use super::bench::frail;
use super::store::{Gate, Store, patient};
use super::world::{NEVER, World};

type Call = Pin<Box<dyn Future<Output = Result<Hit<u64>>> + Send>>;

/// An origin that answers when it is let.
struct Origin {
    loads: AtomicUsize,
    gate: Gate,
}

impl Origin {
    fn new() -> Arc<Self> {
        Arc::new(Self { loads: AtomicUsize::new(0), gate: Gate::new() })
    }

    fn loads(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }

    /// A call of `get_or_load` for key 1 that asks this origin.
    fn call<E>(self: &Arc<Self>, region: &Region<u64, u64>, answer: Result<u64, E>) -> Call
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Sync + 'static,
    {
        let (region, origin) = (region.clone(), Arc::clone(self));
        Box::pin(async move {
            let load = async || {
                origin.loads.fetch_add(1, Ordering::SeqCst);
                origin.gate.pass().await;
                answer
            };
            region.get_or_load(&1, load).await
        })
    }

    fn gives(self: &Arc<Self>, region: &Region<u64, u64>, value: u64) -> Call {
        self.call(region, Ok::<_, Infallible>(value))
    }
}

/// Polls a call once, so that it leads or joins.
fn begin(mut call: Call) -> Call {
    assert!((&mut call).now_or_never().is_none(), "it waits");
    call
}

async fn cache(world: &World, store: &Store) -> (Cache, Region<u64, u64>) {
    let cache = Cache::builder(world.runtime.clone())
        .tier(patient(MemoryBackend::entries(100)))
        .tier(store.tier())
        .build()
        .await
        .unwrap();
    let region = cache.region("r").no_expiry().load_deadline(NEVER).build().unwrap();
    (cache, region)
}

/// Over memory alone, whose reads never wait.
async fn in_memory(world: &World) -> (Cache, Region<u64, u64>) {
    let tier = patient(MemoryBackend::entries(100));
    let cache = Cache::builder(world.runtime.clone()).tier(tier).build().await.unwrap();
    let region = cache.region("r").no_expiry().load_deadline(NEVER).build().unwrap();
    (cache, region)
}

pub(crate) async fn concurrent_callers_run_one_load(world: World) {
    let store = Store::new("store");
    let (cache, region) = cache(&world, &store).await;
    let origin = Origin::new();
    origin.gate.close();
    let callers: Vec<_> = (0..100).map(|_| world.runtime.spawn(origin.gives(&region, 7))).collect();
    world.until("one of them loads", || origin.loads() == 1).await;
    assert_eq!(cache.inspect().loads, 1);
    origin.gate.open();
    for answer in join_all(callers).await {
        assert_eq!(*answer.unwrap().unwrap(), 7);
    }
    assert_eq!((origin.loads(), cache.inspect().loads), (1, 0));
    world.until("the store has it", || store.holds(&region.key(&1))).await;
}

pub(crate) async fn a_cancelled_leader_is_replaced(world: World) {
    let (cache, region) = in_memory(&world).await;
    let (lost, origin) = (Origin::new(), Origin::new());
    lost.gate.close();
    let leader = begin(lost.gives(&region, 6));
    let waiters: Vec<_> = (0..5).map(|_| begin(origin.gives(&region, 7))).collect();
    assert_eq!((lost.loads(), origin.loads()), (1, 0));
    drop(leader);
    for answer in join_all(waiters).await {
        assert_eq!(*answer.unwrap(), 7);
    }
    assert_eq!(origin.loads(), 1, "one of them took over for all");
    assert_eq!(cache.inspect().loads, 0);
}

pub(crate) async fn a_panicking_leader_is_replaced(world: World) {
    let (cache, region) = in_memory(&world).await;
    let gate = Arc::new(Gate::new());
    gate.close();
    let (closed, loading) = (Arc::clone(&gate), region.clone());
    let leader = world.runtime.spawn(async move {
        let panics = async || -> Result<u64, Infallible> {
            closed.pass().await;
            std::panic::panic_any("asked for by a test")
        };
        loading.get_or_load(&1, panics).await
    });
    world.until("the leader loads", || gate.waiting() == 1).await;
    let origin = Origin::new();
    let waiters: Vec<_> = (0..5).map(|_| begin(origin.gives(&region, 7))).collect();
    gate.open();
    assert!(matches!(leader.await, Err(TaskError::Panicked(_))));
    for answer in join_all(waiters).await {
        assert_eq!(*answer.unwrap(), 7);
    }
    assert_eq!((origin.loads(), cache.inspect().loads), (1, 0));
}

#[derive(Debug)]
struct Unreachable;

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the origin is unreachable")
    }
}

impl std::error::Error for Unreachable {}

pub(crate) async fn an_error_is_shared_and_not_kept(world: World) {
    let (_, region) = in_memory(&world).await;
    let origin = Origin::new();
    origin.gate.close();
    let callers: Vec<_> = (0..10).map(|_| begin(origin.call(&region, Err(Unreachable)))).collect();
    origin.gate.open();
    for answer in join_all(callers).await {
        let error = answer.unwrap_err();
        assert!(error.is_load() && error.key() == Some(&region.key(&1)), "{error:?}");
        assert!(std::error::Error::source(&error).unwrap().is::<Unreachable>());
    }
    assert_eq!(origin.loads(), 1);
    assert_eq!(*origin.gives(&region, 7).await.unwrap(), 7, "the next one tries again");
}

pub(crate) async fn a_waiter_has_a_deadline(world: World) {
    let (cache, region) = in_memory(&world).await;
    let within = Duration::from_millis(20);
    let hurried: Region<u64, u64> = cache.region("r").no_expiry().load_deadline(within).build().unwrap();
    let origin = Origin::new();
    origin.gate.close();
    let leader = begin(origin.gives(&region, 7));
    let began = world.runtime.now();
    let error = begin(origin.gives(&hurried, 8)).await.unwrap_err();
    world.assert_within(began, within, "a waiter");
    assert!(error.is_timeout(), "{error:?}");
    origin.gate.open();
    assert_eq!(*leader.await.unwrap(), 7, "the leader is not disturbed");
    assert_eq!(origin.loads(), 1);
}

pub(crate) async fn a_leader_has_a_deadline(world: World) {
    let (cache, _) = in_memory(&world).await;
    let within = Duration::from_millis(20);
    let hurried: Region<u64, u64> = cache.region("r").no_expiry().load_deadline(within).build().unwrap();
    let hangs = || pending::<Result<u64, Infallible>>();
    let error = hurried.get_or_load(&1, hangs).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(cache.inspect().loads, 0);
    assert_eq!(*Origin::new().gives(&hurried, 7).await.unwrap(), 7);
}

pub(crate) async fn a_remove_parts_joiners_before_and_after(world: World) {
    let store = Store::new("store");
    let (_, region) = in_memory(&world).await;
    let parted = parted_by(&region, async || assert!(!region.remove(&1).await.unwrap()));
    parted.await;
    // With a store below, a loaded value takes longer to be stored everywhere.
    let (cache, region) = cache(&world, &store).await;
    let (old, new) = (Origin::new(), Origin::new());
    old.gate.close();
    let leader = world.runtime.spawn(old.gives(&region, 1));
    world.until("it loads", || old.loads() == 1).await;
    region.remove(&1).await.unwrap();
    assert_eq!(*new.gives(&region, 2).await.unwrap(), 2);
    old.gate.open();
    assert_eq!(*leader.await.unwrap().unwrap(), 1);
    world.settle().await;
    assert_eq!(*region.get(&1).await.unwrap(), 2);
    world.until("the store has it", || store.holds(&region.key(&1))).await;
    let alone = Cache::builder(world.runtime.clone()).tier(store.tier()).build().await.unwrap();
    let stored: Region<u64, u64> = alone.region("r").no_expiry().build().unwrap();
    assert_eq!(*stored.get(&1).await.unwrap(), 2);
    assert!(cache.inspect().tiers.iter().any(|tier| tier.writes.fills_void > 0));
}

pub(crate) async fn a_clear_parts_joiners_before_and_after(world: World) {
    let (_, region) = in_memory(&world).await;
    parted_by(&region, async || region.clear().await.unwrap()).await;
    let (_, region) = in_memory(&world).await;
    parted_by(&region, async || region.cache().clear().await.unwrap()).await;
}

/// A load is overtaken by `mutate`: who joined before gets its result, who asks later loads anew, and only that is
/// kept.
async fn parted_by(region: &Region<u64, u64>, mutate: impl AsyncFnOnce()) {
    let (old, new) = (Origin::new(), Origin::new());
    old.gate.close();
    new.gate.close();
    let leader = begin(old.gives(region, 1));
    let before = begin(old.gives(region, 1));
    mutate().await;
    let after = begin(new.gives(region, 2));
    let joiner = begin(new.gives(region, 2));
    assert_eq!((old.loads(), new.loads()), (1, 1));
    old.gate.open();
    assert_eq!((*leader.await.unwrap(), *before.await.unwrap()), (1, 1));
    assert!(region.get(&1).await.is_none(), "what was overtaken is not stored");
    new.gate.open();
    assert_eq!((*after.await.unwrap(), *joiner.await.unwrap()), (2, 2));
    assert_eq!((old.loads(), new.loads()), (1, 1));
    assert_eq!(*region.get(&1).await.unwrap(), 2);
}

pub(crate) async fn a_set_overtakes_a_load(world: World) {
    let (_, region) = in_memory(&world).await;
    let origin = Origin::new();
    origin.gate.close();
    let leader = begin(origin.gives(&region, 1));
    region.set(&1, 2).await.unwrap();
    origin.gate.open();
    assert_eq!(*leader.await.unwrap(), 1, "who asked before may have it");
    assert_eq!(*region.get(&1).await.unwrap(), 2, "but it replaces nothing newer");
    assert_eq!(*origin.gives(&region, 3).await.unwrap(), 2);
    assert_eq!(origin.loads(), 1);
}

pub(crate) async fn a_broken_tier_does_not_stop_a_load(world: World) {
    let plan = FaultPlan::new(&world.runtime);
    let store = Store::new("store");
    let faulty = frail(Faulty::new(store.clone(), &world.runtime, &plan));
    let cache = Cache::builder(world.runtime.clone())
        .tier(patient(MemoryBackend::entries(100)))
        .tier(faulty)
        .build()
        .await
        .unwrap();
    let region: Region<u64, u64> = cache.region("r").no_expiry().load_deadline(NEVER).build().unwrap();
    for fault in [Fault::Error, Fault::Panic, Fault::Hang] {
        plan.heal();
        plan.rate(fault, 1.0);
        region.remove(&1).await.unwrap();
        let origin = Origin::new();
        assert_eq!(*origin.gives(&region, 7).await.unwrap(), 7, "{fault:?}");
        assert_eq!(*origin.gives(&region, 8).await.unwrap(), 7, "{fault:?}: from memory");
        assert_eq!(origin.loads(), 1);
    }
}
