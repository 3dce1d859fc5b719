//! Whoever reads or writes is answered by its own deadline, wherever its call has got to by then: to the millisecond of
//! the simulator.

use std::future::pending;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tierkeep::runtime::RuntimeHandle;
use tierkeep::{
    Backend, BackendResult, BreakerOptions, Cache, CacheKey, CacheValue, DeleteStatus, ErrorKind,
    MemoryBackend, Raw, Region, Tier, async_trait,
};
use tierkeep_sim::{Fault, FaultPlan, Faulty, MapBackend, Op, Sim};
use tierkeep_tokio::TokioRuntime;

/// Answers no read.
struct Silent;

#[async_trait]
impl Backend for Silent {
    async fn read(&self, _: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        pending().await
    }

    async fn write(&self, _: &CacheKey, _: CacheValue<Raw>) -> BackendResult<()> {
        Ok(())
    }

    async fn remove(&self, _: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(DeleteStatus::Missing)
    }
}

const DEADLINE: Duration = Duration::from_millis(100);

#[test]
fn readers_behind_calls_that_hang_are_answered_one_by_one_as_their_deadlines_pass() {
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let runtime = RuntimeHandle::new(sim.runtime());
        let run = sim.block_on(async move {
            // One call, of one key: the others wait in the queue until its deadline, and longer than theirs.
            let tier = Tier::new(Silent).read_deadline(DEADLINE).concurrency(1).batch_keys(1);
            let cache = Cache::builder(runtime.clone()).tier(tier).build().await.unwrap();
            let region: Region<u64, u64> = cache.region("r").no_expiry().build().unwrap();
            // Once more after all have gone: the deadlines are watched anew.
            for _ in 0..2 {
                let mut readers = Vec::new();
                for id in [1, 2, 2, 3] {
                    let (region, clock) = (region.clone(), runtime.clone());
                    let read = async move {
                        let began = clock.now();
                        let error = region.try_get(&id).await.unwrap().degraded.remove(0);
                        (error.kind(), clock.now().since(began).as_millis())
                    };
                    readers.push(runtime.spawn(read));
                    runtime.sleep(Duration::from_millis(10)).await;
                }
                for reader in readers {
                    assert_eq!(reader.await.unwrap(), (ErrorKind::Timeout, DEADLINE.as_millis()));
                }
            }
            assert!(cache.shutdown(Duration::from_secs(10)).await.clean);
        });
        assert!(run.is_ok(), "seed {seed}: {run:?}");
    }
}

/// To the nearest; the simulator's tasks take some microseconds.
fn millis(time: Duration) -> u128 {
    (time.as_micros() + 500) / 1000
}

/// Confirms no write.
struct Deaf;

#[async_trait]
impl Backend for Deaf {
    async fn read(&self, _: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(None)
    }

    async fn write(&self, _: &CacheKey, _: CacheValue<Raw>) -> BackendResult<()> {
        pending().await
    }

    async fn remove(&self, _: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(DeleteStatus::Missing)
    }
}

#[test]
fn writers_behind_calls_that_hang_are_answered_one_by_one_as_their_deadlines_pass() {
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let runtime = RuntimeHandle::new(sim.runtime());
        let run = sim.block_on(async move {
            let tier = Tier::new(Deaf)
                .write_deadline(DEADLINE)
                .concurrency(1)
                .batch_keys(1)
                .breaker(BreakerOptions::disabled());
            let cache = Cache::builder(runtime.clone()).tier(tier).build().await.unwrap();
            let region: Region<u64, u64> = cache.region("r").no_expiry().build().unwrap();
            // Once more after all have gone: the deadlines are watched anew.
            for round in 0..2 {
                let mut writers = Vec::new();
                // The first is on its way; the second waits in the queue, and is sent before its deadline; the third waits
                // for the second, and is given up with it; the fourth waits in the queue.
                for id in [1, 2, 2, 3] {
                    let (region, clock) = (region.clone(), runtime.clone());
                    let write = async move {
                        let began = clock.now();
                        let error = region.set(&(10 * round + id), id).await.unwrap_err();
                        (error.kind(), millis(clock.now().since(began)))
                    };
                    writers.push(runtime.spawn(write));
                    runtime.sleep(Duration::from_millis(10)).await;
                }
                for (writer, waited) in writers.into_iter().zip([100, 100, 90, 100]) {
                    assert_eq!(writer.await.unwrap(), (ErrorKind::Timeout, waited));
                }
                assert_eq!(cache.inspect().tiers[0].quarantined, 3 * (round as usize + 1));
            }
        });
        assert!(run.is_ok(), "seed {seed}: {run:?}");
    }
}

#[test]
fn a_writer_who_waits_for_a_refill_that_waits_is_answered_as_its_deadline_passes() {
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let runtime = RuntimeHandle::new(sim.runtime());
        let run = sim.block_on(async move {
            let top = Tier::new(Deaf)
                .write_deadline(DEADLINE)
                .concurrency(1)
                .batch_keys(1)
                .breaker(BreakerOptions::disabled());
            let below = MemoryBackend::entries(10);
            let earlier = Cache::builder(runtime.clone()).tier(below.clone()).build().await.unwrap();
            let cached: Region<u64, u64> = earlier.region("r").no_expiry().build().unwrap();
            cached.set(&3, 30).await.unwrap();
            let cache = Cache::builder(runtime.clone()).tier(top).tier(below).build().await.unwrap();
            let region: Region<u64, u64> = cache.region("r").no_expiry().build().unwrap();
            // Two calls, one after the other, that keep the refill in the queue.
            for id in [1, 2] {
                let region = region.clone();
                drop(runtime.spawn(async move { region.set(&id, id).await }));
            }
            runtime.sleep(Duration::from_millis(1)).await;
            assert_eq!(*region.get(&3).await.unwrap(), 30);
            runtime.sleep(Duration::from_millis(10)).await;
            let began = runtime.now();
            region.set(&3, 31).await.unwrap();
            assert_eq!(millis(runtime.now().since(began)), 100, "for the tier above");
            assert_eq!(*region.get(&3).await.unwrap(), 31);
        });
        assert!(run.is_ok(), "seed {seed}: {run:?}");
    }
}

/// A call that probes whether the store has healed lets it be opened anew first, which may take longer than anyone waits.
#[test]
fn a_writer_whose_call_opens_the_store_anew_is_answered_as_its_deadline_passes() {
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let runtime = RuntimeHandle::new(sim.runtime());
        let run = sim.block_on(async move {
            let plan = FaultPlan::new(&runtime);
            let breaker = BreakerOptions {
                min_calls: 1,
                open: Duration::from_millis(20),
                open_max: Duration::from_millis(20),
                ..BreakerOptions::default()
            };
            let store = Faulty::new(MapBackend::new(), &runtime, &plan);
            let tier = Tier::new(store).label("store").write_deadline(DEADLINE).breaker(breaker);
            let cache = Cache::builder(runtime.clone()).tier(tier).build().await.unwrap();
            let region: Region<u64, u64> = cache.region("r").no_expiry().build().unwrap();
            // Opened by a read, so that no repair is the probe.
            plan.next_on(Op::Read, Fault::Error, 1);
            plan.next_on(Op::Reopen, Fault::Hang, 1);
            assert!(region.get(&1).await.is_none());
            assert_eq!(cache.inspect().tiers[0].breaker_opened, 1);
            runtime.sleep(Duration::from_millis(30)).await;
            let began = runtime.now();
            let error = region.set(&1, 1).await.unwrap_err();
            assert_eq!((error.kind(), millis(runtime.now().since(began))), (ErrorKind::Timeout, 100));
            assert_eq!(plan.count(Fault::Hang), 1);
        });
        assert!(run.is_ok(), "seed {seed}: {run:?}");
    }
}

/// Holds up the thread of its call until the other end of the channel is dropped, or for a minute.
struct Blocking(Mutex<Receiver<()>>);

#[async_trait]
impl Backend for Blocking {
    async fn read(&self, _: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(None)
    }

    async fn write(&self, _: &CacheKey, _: CacheValue<Raw>) -> BackendResult<()> {
        let _ = self.0.lock().unwrap().recv_timeout(Duration::from_secs(60));
        Ok(())
    }

    async fn remove(&self, _: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(DeleteStatus::Missing)
    }
}

#[test]
fn a_store_that_holds_up_its_thread_holds_up_no_deadline() {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    tokio.block_on(async {
        let (release, held) = channel();
        let tier = Tier::new(Blocking(Mutex::new(held))).write_deadline(DEADLINE).concurrency(1);
        let runtime = RuntimeHandle::new(TokioRuntime::current());
        let cache = Cache::builder(runtime.clone()).tier(tier).build().await.unwrap();
        let region: Region<u64, u64> = cache.region("r").no_expiry().build().unwrap();
        let writers: Vec<_> = (0..4)
            .map(|id| {
                let region = region.clone();
                runtime.spawn(async move { region.set(&id, id).await.unwrap_err().kind() })
            })
            .collect();
        for writer in writers {
            assert_eq!(writer.await.unwrap(), ErrorKind::Timeout, "though the first call has not returned");
        }
        drop(release);
    });
    tokio.shutdown_background();
}
