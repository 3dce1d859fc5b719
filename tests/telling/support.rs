//! Caches over stores that fail on demand, in a simulation.

use std::time::Duration;

use tierkeep::runtime::{RestartPolicy, RuntimeHandle};
use tierkeep::{BreakerOptions, Cache, EventKind, EventStream, Region, Tier};
use tierkeep_sim::{FaultPlan, Faulty, MapBackend, Sim, SimOptions};

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A simulation in which time passes only while nothing is ready.
pub(crate) fn exact() -> Sim {
    Sim::with(SimOptions::new(1).poll_cost(Duration::ZERO))
}

pub(crate) fn run<F: Future>(sim: &Sim, future: F) -> F::Output {
    sim.block_on(future).expect("it can go on")
}

/// A store, the tier on it, and what goes wrong with it.
pub(crate) struct Store {
    pub(crate) entries: MapBackend,
    pub(crate) plan: FaultPlan,
    runtime: RuntimeHandle,
}

impl Store {
    pub(crate) fn new(runtime: &RuntimeHandle) -> Self {
        let (entries, plan) = (MapBackend::new(), FaultPlan::new(runtime));
        Self { entries, plan, runtime: runtime.clone() }
    }

    /// A tier on this store: its breaker opens after four failures, it is down after one restart.
    pub(crate) fn tier(&self, label: &'static str) -> Tier {
        let breaker = BreakerOptions { min_calls: 4, ..BreakerOptions::default() };
        let restart = RestartPolicy { limit: 1, ..RestartPolicy::default() };
        let backend = Faulty::new(self.entries.clone(), &self.runtime, &self.plan);
        Tier::new(backend).label(label).breaker(breaker).restart(restart)
    }
}

pub(crate) fn numbers(cache: &Cache) -> Region<u64, u64> {
    cache.region("n").ttl(Duration::from_secs(3600)).build().expect("a sound region")
}

/// The kinds of all events that wait.
pub(crate) fn kinds(events: &mut EventStream) -> Vec<EventKind> {
    std::iter::from_fn(|| events.try_next()).map(|event| event.kind).collect()
}

/// Waits until the tier is no longer bypassed.
pub(crate) async fn served(runtime: &RuntimeHandle, cache: &Cache, label: &str) {
    while cache.inspect().tier(label).expect("a tier").bypassed {
        runtime.sleep(ms(10)).await;
    }
}
