//! A reader is answered by its own deadline, wherever its read has got to by then: to the millisecond of the simulator.

use std::future::pending;
use std::time::Duration;

use tierkeep::runtime::RuntimeHandle;
use tierkeep::{
    Backend, BackendResult, Cache, CacheKey, CacheValue, DeleteStatus, ErrorKind, Raw, Region, Tier,
    async_trait,
};
use tierkeep_sim::Sim;

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
