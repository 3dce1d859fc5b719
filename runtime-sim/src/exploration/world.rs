//! Plays a scenario and watches.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tierkeep::backend::{Blocking, BlockingBackend, MemoryBackend};
use tierkeep::codec::CodecOptions;
use tierkeep::composition::RefillPolicy;
use tierkeep::runtime::{ActorState, RestartPolicy, RuntimeHandle};
use tierkeep::{
    BackendResult, BreakerOptions, Cache, CacheKey, CacheValue, DeleteStatus, FenceCounts, Hit, Raw, Region,
    Tier,
};

use super::scenario::{Kind, Loader, Scenario, Step, StepKind, TierPlan};
use crate::faults::{Fault, FaultPlan, Faulty};
use crate::history::{Change, History, Read, Violation};
use crate::map_backend::MapBackend;
use crate::options::SimOptions;
use crate::sim::Sim;

/// Polls, timers and jobs beyond the deadlines' sum that a call may be held up by, in virtual time.
const SLACK: Duration = Duration::from_millis(100);
/// How long a cache may take to come to rest once the faults have stopped: residual times, breakers, back-offs.
const REST: Duration = Duration::from_secs(400);

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
    /// Faults that struck, by kind; crashes and full mailboxes among them.
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
    watch: Mutex<Watch>,
}

#[derive(Default)]
struct Watch {
    /// The database: what each row holds.
    database: HashMap<u64, u64>,
    next_value: u64,
    outcome: Outcome,
}

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
    for plan in lock(&plans).iter() {
        for fault in Fault::ALL {
            *outcome.faults.entry(name(fault)).or_default() += FaultPlan::count(plan, fault);
        }
    }
    outcome.trace = sim.trace_hash();
    outcome
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name(fault: Fault) -> &'static str {
    match fault {
        Fault::Error => "error",
        Fault::Delay => "delay",
        Fault::Hang => "hang",
        Fault::HangThenComplete => "hang_then_complete",
        Fault::Panic => "panic",
        Fault::LostReply => "lost_reply",
        Fault::AppliedButFails => "applied_but_fails",
        Fault::ReportedButNotApplied => "reported_but_not_applied",
        Fault::Zombie => "zombie",
        Fault::Corrupt => "corrupt",
        Fault::RefuseOpen => "refuse_open",
        Fault::FailReopen => "fail_reopen",
    }
}

async fn play(scenario: Scenario, sim: crate::SimRuntime, plans: Arc<Mutex<Vec<FaultPlan>>>) -> Outcome {
    let runtime = RuntimeHandle::new(sim.clone());
    let mut builder = Cache::builder(runtime.clone())
        .read_policy(scenario.read)
        .write_policy(scenario.write)
        .refill_policy(if scenario.refill { RefillPolicy::Always } else { RefillPolicy::Never })
        .fence_stripes(scenario.stripes)
        .refill_lane(scenario.refill_lane)
        .codec(CodecOptions::default());
    for (index, plan) in scenario.tiers.iter().enumerate() {
        builder = builder.tier(build(plan, index, &runtime, &plans));
    }
    let cache = match builder.build().await {
        Ok(cache) => cache,
        Err(error) => return broken(format!("the cache did not build: {error}")),
    };
    cache.watch_fences();
    let open = |name: &str| {
        let region = cache.region::<Row, u64>(name).load_deadline(Duration::from_secs(2));
        match scenario.ttl {
            Some(ttl) => region.ttl(ttl).build(),
            None => region.no_expiry().build(),
        }
    };
    let (Ok(set_rows), Ok(db_rows)) = (open("set"), open("db")) else {
        return broken("a region did not open".to_owned());
    };
    let (history, mut watch) = (History::new(), Watch::default());
    for key in scenario.sets..scenario.keys {
        let value = watch.fresh();
        watch.database.insert(key, value);
        history.begin(key, Some(value)).complete();
    }
    let watch = Mutex::new(watch);
    let world = Arc::new(World { scenario, runtime, sim, cache, set_rows, db_rows, history, watch });
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
    let _ = world.cache.shutdown(Duration::from_secs(10)).await;
    std::mem::take(&mut lock(&world.watch).outcome)
}

fn broken(what: String) -> Outcome {
    Outcome { violations: vec![Violation::Restless { what }], ..Outcome::default() }
}

fn build(plan: &TierPlan, index: usize, runtime: &RuntimeHandle, plans: &Mutex<Vec<FaultPlan>>) -> Tier {
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
            Tier::new(Faulty::new(MapBackend::new(), runtime, &faults))
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
            limit: 3,
            window: Duration::from_secs(1),
            backoff: Duration::from_millis(2),
            backoff_max: Duration::from_millis(50),
            retry: Duration::from_millis(200),
        });
    match plan.ttl_cap {
        Some(cap) => tier.ttl_cap(cap),
        None => tier,
    }
}

impl Watch {
    fn fresh(&mut self) -> u64 {
        self.next_value += 1;
        self.next_value
    }

    fn strike(&mut self, fault: &'static str, n: u64) {
        *self.outcome.faults.entry(fault).or_default() += n;
    }
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

    async fn caller(self: Arc<Self>, caller: usize) {
        for step in self.scenario.steps.iter().filter(|step| step.caller == caller) {
            self.runtime.sleep(step.pause).await;
            self.step(step).await;
        }
    }

    async fn step(self: &Arc<Self>, step: &Step) {
        let began = self.runtime.now();
        let done = match step.patience {
            None => {
                // In a task of its own, where a loader may panic.
                let (world, kind) = (Arc::clone(self), step.kind.clone());
                let task = self.runtime.spawn(async move { world.act(&kind).await });
                let _ = task.await;
                true
            }
            Some(patience) => {
                let deadline = self.runtime.now().after(patience);
                let (world, kind) = (Arc::clone(self), step.kind.clone());
                let task = async move { world.act(&kind).await };
                let guarded = futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(task));
                self.runtime.deadline(deadline, guarded).await.is_some()
            }
        };
        let took = self.runtime.now().since(began);
        if done && took > self.allowed(&step.kind) {
            let what = format!("step {} ({:?}) took {took:?}", step.id, step.kind);
            self.violation(Violation::Late { what });
        }
    }

    /// How long a step may take.
    fn allowed(&self, kind: &StepKind) -> Duration {
        let tiers = &self.scenario.tiers;
        let reads: Duration = tiers.iter().map(|tier| tier.read_deadline).sum();
        let writes: Duration = tiers.iter().map(|tier| tier.write_deadline).sum();
        SLACK
            + match kind {
                StepKind::Get(_) | StepKind::GetMany(_) | StepKind::Contains(_) => reads,
                // A joiner of an abandoned flight reads again before it leads.
                StepKind::Load(..) => Duration::from_secs(2) + reads * 4 + writes,
                _ => writes,
            }
    }

    async fn act(&self, kind: &StepKind) {
        match kind {
            StepKind::Get(key) => {
                let read = self.begin_read();
                let hit = self.region(*key).get(key).await;
                self.check(*key, hit.as_ref(), read);
            }
            StepKind::GetMany(keys) => {
                let read = self.begin_read();
                let (set, row): (Vec<u64>, Vec<u64>) =
                    keys.iter().partition(|&&key| key < self.scenario.sets);
                for keys in [set, row] {
                    let Some(&first) = keys.first() else { continue };
                    let hits = self.region(first).get_many(&keys).await;
                    for (key, hit) in keys.iter().zip(&hits) {
                        self.check(*key, hit.as_ref(), read);
                    }
                }
            }
            StepKind::Contains(key) => {
                self.region(*key).contains(key).await;
            }
            StepKind::Set(key) => self.set(&[*key]).await,
            StepKind::SetMany(keys) => self.set(keys).await,
            StepKind::Remove(key) => {
                // Of a row it says nothing: the next load may bring the same value back.
                let change = (*key < self.scenario.sets).then(|| self.history.begin(*key, None));
                let _ = self.region(*key).remove(key).await;
                self.complete(change);
            }
            StepKind::Update(key) => self.update(*key).await,
            StepKind::Load(key, loader) => self.load(*key, *loader).await,
            StepKind::ClearRegion => {
                let changes = self.begin_clear();
                let _ = self.set_rows.clear().await;
                self.complete(changes);
            }
            StepKind::ClearAll => {
                let changes = self.begin_clear();
                let _ = self.cache.clear().await;
                self.complete(changes);
            }
            StepKind::CrashTier(tier) => {
                self.watch().strike("crash_tier", 1);
                self.cache.crash_tier(&format!("t{tier}"));
            }
            StepKind::CrashSupervisor => {
                self.watch().strike("crash_supervisor", 1);
                self.cache.crash_supervisor();
            }
            StepKind::JumpWall(millis) => {
                self.watch().strike("wall_jump", 1);
                self.sim.jump_wall(*millis);
            }
        }
    }

    async fn set(&self, keys: &[u64]) {
        let mut unique: Vec<u64> = keys.to_vec();
        unique.sort_unstable();
        unique.dedup();
        let rows: Vec<(u64, u64)> = {
            let mut watch = self.watch();
            unique.iter().map(|&key| (key, watch.fresh())).collect()
        };
        let changes: Vec<_> = rows.iter().map(|&(key, value)| self.history.begin(key, Some(value))).collect();
        let row =
            |value: u64| Row { id: value, padding: vec![0xab; usize::try_from(value % 97).unwrap_or(0)] };
        if let [(key, value)] = rows[..] {
            let _ = self.set_rows.set(&key, row(value)).await;
        } else {
            let _ = self.set_rows.set_many(rows.iter().map(|(key, value)| (key, row(*value)))).await;
        }
        self.complete(changes);
    }

    /// As an application does: the database first, then the cache.
    async fn update(&self, key: u64) {
        let value = self.watch().fresh();
        let change = self.history.begin(key, Some(value));
        // From here on loads may see the new row, although the old one is still cached.
        self.watch().database.insert(key, value);
        let _ = self.db_rows.remove(&key).await;
        // Without an expiry: its value lives from whenever it is loaded.
        change.complete();
        self.watch().outcome.checked += 1;
    }

    async fn load(&self, key: u64, loader: Loader) {
        let read = self.history.read();
        let runtime = self.runtime.clone();
        let loaded = self
            .db_rows
            .get_or_load(&key, || async {
                match loader {
                    Loader::Fails(after) => {
                        runtime.sleep(after).await;
                        Err(std::io::Error::other("the database is away"))
                    }
                    Loader::Panics(after) => {
                        runtime.sleep(after).await;
                        std::panic::panic_any("the loader panics");
                    }
                    Loader::Reads(before, after) => {
                        runtime.sleep(before).await;
                        let id = self.watch().database.get(&key).copied().unwrap_or(0);
                        runtime.sleep(after).await;
                        Ok(Row { id, padding: Vec::new() })
                    }
                }
            })
            .await;
        self.check(key, loaded.as_ref().ok(), read);
    }

    fn begin_read(&self) -> Read {
        // Expiry is not checked while the wall clock jumps.
        if self.scenario.jumps { self.history.read() } else { self.history.read_at(self.runtime.wall()) }
    }

    fn begin_clear(&self) -> Vec<Change<'_>> {
        (0..self.scenario.sets).map(|key| self.history.begin(key, None)).collect()
    }

    fn complete<'h>(&self, changes: impl IntoIterator<Item = Change<'h>>) {
        self.watch().outcome.checked += 1;
        let dead_from = self.scenario.ttl.map(|ttl| self.runtime.wall().after(ttl));
        for change in changes {
            match dead_from {
                Some(wall) => change.complete_until(wall),
                None => change.complete(),
            }
        }
    }

    fn check(&self, key: u64, hit: Option<&Hit<Row>>, read: Read) {
        let mut watch = self.watch();
        watch.outcome.checked += 1;
        let Some(hit) = hit else { return };
        watch.outcome.hits += 1;
        if self.scenario.lying {
            return;
        }
        let checked = if key < self.scenario.sets {
            self.history.check(key, hit.id, read)
        } else {
            self.history.check_row(key, hit.id, read)
        };
        if let Err(violation) = checked {
            let from = hit.tier().map_or("a load", |tier| tier.as_str()).to_owned();
            let violation = match violation {
                Violation::Superseded { what } => {
                    Violation::Superseded { what: format!("{what}, from {from}") }
                }
                other => other,
            };
            watch.outcome.violations.push(violation);
        }
    }

    /// Waits until nothing is under way any more.
    async fn rest(&self) {
        let end = self.runtime.now().after(REST);
        loop {
            let restless = self.restless();
            if restless.is_empty() {
                return;
            }
            if self.runtime.now() > end {
                return self.violation(Violation::Restless { what: restless.join("; ") });
            }
            self.runtime.sleep(Duration::from_millis(500)).await;
            // A breaker that is open closes only when somebody calls.
            for key in 0..self.scenario.keys {
                self.region(key).contains(&key).await;
            }
        }
    }

    fn restless(&self) -> Vec<String> {
        let inspection = self.cache.inspect();
        let mut restless = Vec::new();
        for tier in &inspection.tiers {
            let busy =
                tier.mailbox + tier.queued + tier.calls + tier.quarantined + tier.ledger + tier.blocking_jobs;
            if busy > 0 || tier.bypassed || tier.state != ActorState::Running {
                restless.push(format!(
                    "{}: {:?} mailbox={} queued={} calls={} quarantined={} ledger={} jobs={} bypassed={}",
                    tier.label,
                    tier.state,
                    tier.mailbox,
                    tier.queued,
                    tier.calls,
                    tier.quarantined,
                    tier.ledger,
                    tier.blocking_jobs,
                    tier.bypassed
                ));
            }
        }
        if inspection.refills_queued + inspection.loads > 0 {
            restless.push(format!("refills={} loads={}", inspection.refills_queued, inspection.loads));
        }
        restless
    }

    /// At rest, every tier that holds a key holds the same, and nothing that was replaced.
    async fn converge(&self) {
        if self.scenario.lying {
            return;
        }
        for key in 0..self.scenario.keys {
            let mut held: Vec<(String, u64)> = Vec::new();
            let read = self.begin_read();
            for index in 0..self.scenario.tiers.len() {
                let label = format!("t{index}");
                let name = self.region(key).key(&key);
                if let Ok(Some(hit)) = self.cache.get_from::<Row>(&label, &name).await {
                    self.check(key, Some(&hit), read);
                    held.push((label, hit.id));
                }
            }
            if held.windows(2).any(|pair| pair[0].1 != pair[1].1) {
                self.violation(Violation::Disagree { what: format!("key {key}: {held:?}") });
            }
            let row = self.watch().database.get(&key).copied();
            if let Some(row) = row
                && held.iter().any(|(_, value)| *value != row)
            {
                self.violation(Violation::Disagree {
                    what: format!("key {key}: {held:?}, the database has {row}"),
                });
            }
        }
    }

    fn count_engine(&self) {
        let inspection = self.cache.inspect();
        let mut watch = self.watch();
        watch.outcome.fences = self.cache.fence_counts();
        for tier in &inspection.tiers {
            watch.strike("full_mailbox", tier.reads.overloaded);
            watch.strike("bypass", tier.writes.bypasses);
            watch.strike("breaker_open", tier.breaker_opened);
            watch.strike("late_call", tier.writes.late);
            watch.outcome.fills += tier.writes.fills;
            watch.outcome.fills_void += tier.writes.fills_void;
        }
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
