//! Plays a scenario and watches.

mod checks;
mod faults;
mod steps;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tierkeep::codec::CodecOptions;
use tierkeep::composition::RefillPolicy;
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Cache, EventStream, FenceCounts, Region};

use faults::{ENGINE_FAULTS, name};
use watch::Watch;

use super::scenario::Scenario;
use super::tiers::{Stores, build};
use crate::faults::{Fault, FaultPlan};
use crate::history::{History, Violation};
use crate::options::SimOptions;
use crate::sim::Sim;

/// What a scenario showed.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Outcome {
    /// What must not happen and did.
    pub violations: Vec<Violation>,
    /// Reads whose result was held against the history, and mutations that were awaited.
    pub checked: u64,
    /// Hits among them.
    pub hits: u64,
    /// Faults that struck, by kind, every kind named; crashes and full mailboxes among them.
    pub faults: BTreeMap<&'static str, u64>,
    /// Refills and loaded values that were stored.
    pub fills: u64,
    /// Those given up because their fence was void.
    pub fills_void: u64,
    /// Fences: how many were asked for, void, and void in vain (because of another key of their stripe).
    pub fences: FenceCounts,
    /// A hash over everything the simulator decided.
    pub trace: u64,
}

/// The value under test: known by its number.
#[derive(Serialize, Deserialize, Clone)]
struct Row {
    id: u64,
    padding: Vec<u8>,
}

struct World {
    scenario: Scenario,
    runtime: RuntimeHandle,
    sim: crate::SimRuntime,
    cache: Cache,
    set_rows: Region<Row, u64>,
    db_rows: Region<Row, u64>,
    history: History,
    events: Mutex<EventStream>,
    watch: Mutex<Watch>,
}

type Plans = Arc<Mutex<Vec<FaultPlan>>>;

/// Plays a scenario to its end.
pub fn run(scenario: &Scenario) -> Outcome {
    let sim = Sim::with(SimOptions::new(scenario.seed));
    let plans = Arc::new(Mutex::new(Vec::new()));
    let played = sim.block_on(play(scenario.clone(), sim.runtime(), Arc::clone(&plans)));
    let mut outcome = match played {
        Ok(outcome) => outcome,
        Err(stall) => {
            Outcome { violations: vec![Violation::Stall { what: stall.to_string() }], ..Outcome::default() }
        }
    };
    for fault in ENGINE_FAULTS.into_iter().chain(Fault::ALL.map(name)) {
        outcome.faults.entry(fault).or_default();
    }
    for plan in lock(&plans).iter() {
        for fault in Fault::ALL {
            *outcome.faults.entry(name(fault)).or_default() += FaultPlan::count(plan, fault);
        }
    }
    outcome.trace = sim.trace_hash();
    outcome
}

async fn play(scenario: Scenario, sim: crate::SimRuntime, plans: Plans) -> Outcome {
    let runtime = RuntimeHandle::new(sim.clone());
    let stores = Stores::default();
    let cache = match open(&scenario, &runtime, &plans, &stores).await {
        Ok(cache) => cache,
        Err(error) => return broken(format!("the cache did not build: {error}")),
    };
    cache.watch_fences();
    let events = Mutex::new(cache.events_with(usize::MAX));
    let (Ok(set_rows), Ok(db_rows)) = (region(&cache, &scenario, "set"), region(&cache, &scenario, "db"))
    else {
        return broken("a region did not open".to_owned());
    };
    let (history, mut watch) = (History::new(), Watch::default());
    for key in scenario.sets..scenario.keys {
        let value = watch.fresh();
        watch.database.insert(key, value);
        history.begin(key, Some(value)).complete();
    }
    let watch = Mutex::new(watch);
    let world = Arc::new(World { scenario, runtime, sim, cache, set_rows, db_rows, history, events, watch });
    let callers: Vec<_> = (0..world.scenario.callers)
        .map(|caller| world.runtime.spawn(Arc::clone(&world).caller(caller)))
        .collect();
    for caller in callers {
        if let Err(error) = caller.await {
            world.violation(Violation::Stall { what: format!("a caller ended: {error}") });
        }
    }
    for plan in lock(&plans).iter() {
        plan.heal();
    }
    world.rest().await;
    world.converge().await;
    world.count_engine();
    if world.scenario.tiers.iter().any(|tier| tier.behind.is_some()) {
        world.outlive(&plans, &stores).await;
    } else {
        let _ = world.cache.shutdown(Duration::from_secs(10)).await;
    }
    std::mem::take(&mut lock(&world.watch).outcome)
}

async fn open(
    scenario: &Scenario,
    runtime: &RuntimeHandle,
    plans: &Plans,
    stores: &Stores,
) -> tierkeep::Result<Cache> {
    let mut builder = Cache::builder(runtime.clone())
        .read_policy(scenario.read)
        .write_policy(scenario.write)
        .refill_policy(if scenario.refill { RefillPolicy::Always } else { RefillPolicy::Never })
        .fence_stripes(scenario.stripes)
        .refill_lane(scenario.refill_lane)
        .codec(CodecOptions::default());
    for (index, plan) in scenario.tiers.iter().enumerate() {
        builder = builder.tier(build(plan, index, runtime, plans, stores));
    }
    builder.build().await
}

fn region(cache: &Cache, scenario: &Scenario, name: &str) -> tierkeep::Result<Region<Row, u64>> {
    let region = cache.region::<Row, u64>(name).load_deadline(scenario.load_deadline);
    match scenario.ttl {
        Some(ttl) => region.ttl(ttl).build(),
        None => region.no_expiry().build(),
    }
}

fn broken(what: String) -> Outcome {
    Outcome { violations: vec![Violation::Restless { what }], ..Outcome::default() }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    fn watch(&self) -> MutexGuard<'_, Watch> {
        lock(&self.watch)
    }

    fn violation(&self, violation: Violation) {
        self.watch().outcome.violations.push(violation);
    }

    fn region(&self, key: u64) -> &Region<Row, u64> {
        if key < self.scenario.sets { &self.set_rows } else { &self.db_rows }
    }
}
