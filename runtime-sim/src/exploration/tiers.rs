//! The tiers of a scenario.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use tierkeep::backend::{Blocking, BlockingBackend, MemoryBackend};
use tierkeep::runtime::{RestartPolicy, RuntimeHandle};
use tierkeep::{BackendResult, BreakerOptions, CacheKey, CacheValue, DeleteStatus, Raw, Tier};

use super::scenario::{Kind, TierPlan};
use super::witness::Witness;
use super::world::lock;
use crate::faults::{FaultPlan, Faulty};
use crate::map_backend::MapBackend;

/// How often a tier's actor is restarted within the window of its policy.
pub(super) const RESTARTS: u32 = 3;

/// The stores of write-behind tiers, by the tier's index.
pub(super) type Stores = Mutex<BTreeMap<usize, Witness>>;

pub(super) fn build(
    plan: &TierPlan,
    index: usize,
    runtime: &RuntimeHandle,
    plans: &Mutex<Vec<FaultPlan>>,
    stores: &Stores,
) -> Tier {
    let mut tier = match plan.kind {
        Kind::Entries(n) => Tier::new(MemoryBackend::entries(n)),
        Kind::Bytes(n) => Tier::new(MemoryBackend::bytes(n)),
        Kind::Blocking => Tier::new(Blocking::new(Shelf::default())),
        Kind::Remote => {
            let faults = FaultPlan::new(runtime);
            for &(fault, rate) in &plan.rates {
                faults.rate(fault, rate);
            }
            lock(plans).push(faults.clone());
            match &plan.behind {
                // One that the next cache finds as this one leaves it.
                Some(_) => {
                    let store = lock(stores).entry(index).or_default().clone();
                    Tier::new(Faulty::new(store, runtime, &faults))
                }
                None if plan.immediate => {
                    Tier::new(Faulty::new(MapBackend::new().in_process(), runtime, &faults))
                }
                None => Tier::new(Faulty::new(MapBackend::new(), runtime, &faults)),
            }
        }
    };
    tier = tier
        .label(format!("t{index}"))
        .read_deadline(plan.read_deadline)
        .write_deadline(plan.write_deadline)
        .mailbox(plan.mailbox)
        .batch_keys(plan.batch_keys)
        .concurrency(plan.concurrency)
        .quarantine(plan.quarantine)
        .open_deadline(Duration::from_millis(500))
        .sweep_interval(Duration::from_millis(50))
        .breaker(BreakerOptions {
            min_calls: 5,
            open: Duration::from_millis(20),
            open_max: Duration::from_secs(1),
            ..BreakerOptions::default()
        })
        .restart(RestartPolicy {
            limit: RESTARTS,
            window: Duration::from_secs(1),
            backoff: Duration::from_millis(2),
            backoff_max: Duration::from_millis(50),
            retry: Duration::from_millis(200),
        });
    if let Some(behind) = &plan.behind {
        tier = tier.write_behind(behind.build());
    }
    match plan.ttl_cap {
        Some(cap) => tier.ttl_cap(cap),
        None => tier,
    }
}

/// A synchronous store.
#[derive(Default)]
struct Shelf(Mutex<BTreeMap<CacheKey, CacheValue<Raw>>>);

impl BlockingBackend for Shelf {
    fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(lock(&self.0).get(key).cloned())
    }

    fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        lock(&self.0).insert(key.clone(), value);
        Ok(())
    }

    fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(match lock(&self.0).remove(key) {
            Some(_) => DeleteStatus::Deleted(1),
            None => DeleteStatus::Missing,
        })
    }
}
