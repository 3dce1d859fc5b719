//! The tiers under stress: small deadlines, small mailboxes, a store that fails.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use tierkeep::backend::{Blocking, BlockingBackend};
use tierkeep::runtime::{RestartPolicy, RuntimeHandle};
use tierkeep::{BackendResult, BreakerOptions, CacheKey, CacheValue, DeleteStatus, MemoryBackend, Raw, Tier};
use tierkeep_sim::{Fault, FaultPlan, Faulty, MapBackend};

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// So small that most reads go below.
pub(crate) fn memory() -> Tier {
    common(Tier::new(MemoryBackend::entries(2)).label("memory"))
}

/// A store that errs, hangs, panics, applies late and loses replies.
pub(crate) fn remote(runtime: &RuntimeHandle) -> (Tier, FaultPlan) {
    let faults = FaultPlan::new(runtime);
    faults.rate(Fault::Delay, 0.3);
    for fault in [Fault::Error, Fault::Panic, Fault::AppliedButFails, Fault::Corrupt] {
        faults.rate(fault, 0.02);
    }
    for fault in [Fault::Hang, Fault::HangThenComplete, Fault::LostReply, Fault::Zombie] {
        faults.rate(fault, 0.002);
    }
    faults.delays(ms(0)..=ms(1));
    faults.late(ms(10)..=ms(40));
    // Far beyond the latest of them, whatever the machine is busy with.
    let store = MapBackend::new().with_residual(Duration::from_secs(1));
    let tier = Tier::new(Faulty::new(store, runtime, &faults)).label("remote");
    (common(tier).mailbox(16), faults)
}

/// A synchronous store on the blocking pool.
pub(crate) fn shelf() -> Tier {
    common(Tier::new(Blocking::new(Shelf::default())).label("low"))
}

/// The disk tier in a directory that is given back to be kept.
#[cfg(feature = "disk")]
pub(crate) fn disk() -> (Tier, Option<tempfile::TempDir>) {
    let dir = tempfile::tempdir().unwrap();
    let disk = tierkeep::backend::DiskBackend::builder(dir.path()).build().unwrap();
    (common(Tier::new(disk).label("low")), Some(dir))
}

#[cfg(not(feature = "disk"))]
pub(crate) fn disk() -> (Tier, Option<tempfile::TempDir>) {
    (shelf(), None)
}

fn common(tier: Tier) -> Tier {
    tier.read_deadline(ms(10))
        .write_deadline(ms(10))
        .batch_keys(4)
        .sweep_interval(ms(20))
        .breaker(BreakerOptions {
            min_calls: 20,
            open: ms(5),
            open_max: ms(100),
            ..BreakerOptions::default()
        })
        .restart(RestartPolicy {
            limit: 5,
            window: ms(500),
            backoff: ms(1),
            backoff_max: ms(20),
            retry: ms(100),
        })
}

#[derive(Default)]
struct Shelf(Mutex<BTreeMap<CacheKey, CacheValue<Raw>>>);

impl BlockingBackend for Shelf {
    fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.0.lock().unwrap().get(key).cloned())
    }

    fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.0.lock().unwrap().insert(key.clone(), value);
        Ok(())
    }

    fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        let removed = self.0.lock().unwrap().remove(key);
        Ok(if removed.is_some() { DeleteStatus::Deleted(1) } else { DeleteStatus::Missing })
    }
}
