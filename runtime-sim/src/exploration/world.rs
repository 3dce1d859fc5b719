//! Plays a scenario and watches.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tierkeep::codec::CodecOptions;
use tierkeep::composition::{ReadPolicy, RefillPolicy, WritePolicy};
use tierkeep::runtime::{ActorState, RuntimeHandle, TaskError};
use tierkeep::{Cache, EventKind, EventStream, FenceCounts, Hit, Region, Timestamp};

use super::behind::{self, BehindPlan};
use super::scenario::{Loader, Scenario, Step, StepKind, TierPlan};
use super::tiers::{RESTARTS, Stores, build};
use crate::faults::{Fault, FaultPlan};
use crate::history::{Change, History, Read, Violation};
use crate::options::SimOptions;
use crate::sim::Sim;

/// Polls, timers and jobs beyond its deadlines that a call may be held up by, in virtual time.
const SLACK: Duration = Duration::from_millis(10);
/// For how long a step tries to crash an actor often enough.
const CRASHING: Duration = Duration::from_millis(500);
/// What a loader that panics says.
const LOADER_PANICS: &str = "the loader panics";
/// What goes wrong besides the faults of stores, by the names it is counted under.
const ENGINE_FAULTS: [&str; 8] = [
    "full_mailbox",
    "bypass",
    "breaker_open",
    "late_call",
    "crash_tier",
    "crash_supervisor",
    "restart_limit",
    "wall_jump",
];
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

/// Loads of one value of a row.
#[derive(Default)]
struct Loads {
    pending: usize,
    /// From when on what they brought is expired, at the latest.
    dead_from: Option<Timestamp>,
}

#[derive(Default)]
struct Watch {
    /// The database: what each row holds.
    database: HashMap<u64, u64>,
    /// By row and value: when it was loaded.
    loads: HashMap<(u64, u64), Loads>,
    next_value: u64,
    /// Mutations under way, and all there have been.
    mutating: usize,
    mutations: u64,
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

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
        Fault::Torn => "torn",
        Fault::RefuseOpen => "refuse_open",
        Fault::FailReopen => "fail_reopen",
    }
}

type Plans = Arc<Mutex<Vec<FaultPlan>>>;

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

impl Watch {
    fn fresh(&mut self) -> u64 {
        self.next_value += 1;
        self.next_value
    }

    /// A loaded value is gone when the last load of it is older than its TTL.
    fn check_life(&self, key: u64, value: u64, wall: Option<Timestamp>) -> Result<(), Violation> {
        let Some(loads) = self.loads.get(&(key, value)) else { return Ok(()) };
        match (loads.dead_from, wall) {
            (Some(dead_from), Some(wall)) if loads.pending == 0 && wall >= dead_from => {
                let (dead_from, wall) = (dead_from.as_millis(), wall.as_millis());
                let what =
                    format!("key {key}: loaded value {value} was dead from {dead_from}, read from {wall} on");
                Err(Violation::Expired { what })
            }
            _ => Ok(()),
        }
    }

    fn strike(&mut self, fault: &'static str, n: u64) {
        *self.outcome.faults.entry(fault).or_default() += n;
    }
}

/// A load of a value under way.
struct Loading<'w> {
    world: &'w World,
    key: u64,
    value: u64,
}

/// A mutation under way.
struct Mutating<'w>(&'w World);

impl<'w> Mutating<'w> {
    fn begin(world: &'w World) -> Self {
        let mut watch = world.watch();
        watch.mutating += 1;
        watch.mutations += 1;
        Self(world)
    }
}

impl Drop for Mutating<'_> {
    fn drop(&mut self) {
        self.0.watch().mutating -= 1;
    }
}

impl<'w> Loading<'w> {
    fn begin(world: &'w World, key: u64, value: u64) -> Self {
        world.watch().loads.entry((key, value)).or_default().pending += 1;
        Self { world, key, value }
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        let dead_from = self.world.scenario.ttl.map(|ttl| self.world.runtime.wall().after(ttl));
        let mut watch = self.world.watch();
        let loads = watch.loads.entry((self.key, self.value)).or_default();
        loads.pending -= 1;
        loads.dead_from = loads.dead_from.max(dead_from);
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "something".to_owned())
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
        let (world, kind) = (Arc::clone(self), step.kind.clone());
        let act = async move { world.act(&kind).await };
        let ended = match step.patience {
            None => match self.runtime.spawn(act).await {
                Ok(()) => Some(Ok(())),
                Err(TaskError::Panicked(message)) => Some(Err(message)),
                Err(TaskError::Aborted) => Some(Err("aborted".to_owned())),
            },
            Some(patience) => {
                let guarded = futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(act));
                let ended = self.runtime.deadline(began.after(patience), guarded).await;
                ended.map(|ended| ended.map_err(|panic| message(&*panic)))
            }
        };
        let Some(ended) = ended else { return };
        let took = self.runtime.now().since(began);
        if took > self.allowed(&step.kind) {
            let what = format!("step {} ({:?}) took {took:?}", step.id, step.kind);
            self.violation(Violation::Late { what });
        }
        if let Err(message) = ended {
            // A caller gets the panic of its own loader, and no other.
            let own = matches!(step.kind, StepKind::Load(_, Loader::Panics(_))) && message == LOADER_PANICS;
            if !own {
                let what = format!("step {} ({:?}): {message}", step.id, step.kind);
                self.violation(Violation::Panic { what });
            }
        }
    }

    /// How long a step may take.
    fn allowed(&self, kind: &StepKind) -> Duration {
        let tiers = &self.scenario.tiers;
        let reads = || tiers.iter().map(|tier| tier.read_deadline);
        let writes = || {
            let block = |tier: &TierPlan| tier.behind.as_ref().map(BehindPlan::longest).unwrap_or_default();
            // Written through, it may wait for the mailbox too.
            tiers.iter().map(move |tier| tier.write_deadline + block(tier))
        };
        let in_turn: Duration = reads().sum();
        let read = match self.scenario.read {
            ReadPolicy::Sequential => in_turn,
            _ => reads().max().unwrap_or_default(),
        };
        let write = writes().max().unwrap_or_default();
        SLACK
            + match kind {
                StepKind::Get(_) => read,
                StepKind::Contains(_) => in_turn,
                // One call for each of the two regions.
                StepKind::GetMany(_) => read * 2,
                StepKind::Set(_) | StepKind::SetFor(..) | StepKind::SetMany(_)
                    if self.scenario.write == WritePolicy::Sequential =>
                {
                    writes().sum()
                }
                // A last read may begin before the load's deadline, and tiers with a port are filled in turn.
                StepKind::Load(..) => self.scenario.load_deadline + read + writes().sum::<Duration>(),
                StepKind::CrashLoop(_) => CRASHING,
                _ => write,
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
            StepKind::Set(key) => self.set(&[*key], None).await,
            StepKind::SetFor(key, ttl) => self.set(&[*key], Some(*ttl)).await,
            StepKind::SetMany(keys) => self.set(keys, None).await,
            StepKind::Remove(key) => {
                // Of a row it says nothing: the next load may bring the same value back.
                let _mutating = Mutating::begin(self);
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
                let alone = self.alone();
                let _ = self.cache.clear().await;
                self.complete(changes);
                if alone.is_some() && alone == self.alone() {
                    self.check_cleared();
                }
            }
            StepKind::CrashTier(tier) => {
                self.crash(*tier);
            }
            StepKind::CrashLoop(tier) => {
                let end = self.runtime.now().after(CRASHING);
                let mut left = RESTARTS + 1;
                while left > 0 && self.runtime.now() < end {
                    left -= u32::from(self.crash(*tier));
                    self.runtime.sleep(Duration::from_millis(1)).await;
                }
            }
            StepKind::CrashSupervisor => {
                let struck = self.cache.crash_supervisor();
                self.watch().strike("crash_supervisor", u64::from(struck));
            }
            StepKind::JumpWall(millis) => {
                self.watch().strike("wall_jump", 1);
                self.sim.jump_wall(*millis);
            }
        }
    }

    /// How many mutations there have been, if none is under way.
    fn alone(&self) -> Option<u64> {
        let watch = self.watch();
        (watch.mutating == 0).then_some(watch.mutations)
    }

    /// Everything was cleared, and nothing came meanwhile: nothing is queued.
    fn check_cleared(&self) {
        for tier in self.cache.inspect().tiers {
            let queued = tier.write_behind.map_or(0, |queue| queue.queued);
            if queued > 0 {
                let what = format!("{}: {queued} writes are queued after a clear", tier.label);
                self.violation(Violation::Unaccounted { what });
            }
        }
    }

    /// Ends the cache, and holds what its stores have against the history as the next process would find it; then ends
    /// that one in the midst of its work.
    async fn outlive(&self, plans: &Plans, stores: &Stores) {
        for wrong in behind::end(&self.cache, Duration::from_secs(10), true).await {
            self.violation(wrong);
        }
        for (index, store) in lock(stores).iter() {
            for what in store.disordered().into_iter().filter(|_| !self.scenario.lying) {
                self.violation(Violation::Disagree {
                    what: format!("t{index} was written out of order: {what}"),
                });
            }
        }
        let mut scenario = self.scenario.clone();
        scenario.tiers.iter_mut().for_each(|tier| tier.rates.clear());
        let Ok(next) = open(&scenario, &self.runtime, plans, stores).await else {
            return self.violation(Violation::Restless { what: "the next cache did not build".to_owned() });
        };
        let (Ok(set_rows), Ok(_)) = (region(&next, &scenario, "set"), region(&next, &scenario, "db")) else {
            return self.violation(Violation::Restless { what: "a region did not open again".to_owned() });
        };
        for key in 0..scenario.sets {
            let read = self.begin_read();
            let hit = set_rows.get(&key).await;
            self.check(key, hit.as_ref(), read);
        }
        for (plan, rates) in lock(plans).iter().rev().zip(self.scenario.tiers.iter().rev().map(|t| &t.rates))
        {
            rates.iter().for_each(|&(fault, rate)| plan.rate(fault, rate));
        }
        let rows = (0..4 * scenario.sets).map(|n| (n % scenario.sets, Row { id: n, padding: Vec::new() }));
        for (key, row) in rows {
            let _ = set_rows.set(&key, row).await;
        }
        let within = Duration::from_millis(self.runtime.random() % 60);
        for wrong in behind::end(&next, within, false).await {
            self.violation(wrong);
        }
    }

    fn crash(&self, tier: usize) -> bool {
        let struck = self.cache.crash_tier(&format!("t{tier}"));
        self.watch().strike("crash_tier", u64::from(struck));
        struck
    }

    async fn set(&self, keys: &[u64], ttl: Option<Duration>) {
        let _mutating = Mutating::begin(self);
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
            let _ = match ttl {
                Some(ttl) => self.set_rows.set_for(&key, row(value), ttl).await,
                None => self.set_rows.set(&key, row(value)).await,
            };
        } else {
            let _ = self.set_rows.set_many(rows.iter().map(|(key, value)| (key, row(*value)))).await;
        }
        self.complete_for(changes, ttl.or(self.scenario.ttl));
    }

    /// As an application does: the database first, then the cache.
    async fn update(&self, key: u64) {
        let _mutating = Mutating::begin(self);
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
        let read = self.begin_read();
        let runtime = self.runtime.clone();
        // Until this returns or is dropped, what it loads may be stored.
        let pending = Mutex::new(None);
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
                        std::panic::panic_any(LOADER_PANICS);
                    }
                    Loader::Reads(before, after) => {
                        runtime.sleep(before).await;
                        let id = self.watch().database.get(&key).copied().unwrap_or(0);
                        *lock(&pending) = Some(Loading::begin(self, key, id));
                        runtime.sleep(after).await;
                        Ok(Row { id, padding: Vec::new() })
                    }
                }
            })
            .await;
        drop(pending);
        self.check(key, loaded.as_ref().ok(), read);
    }

    fn begin_read(&self) -> (Read, Option<Timestamp>) {
        // Expiry is not checked while the wall clock jumps.
        match self.scenario.jumps {
            true => (self.history.read(), None),
            false => {
                let wall = self.runtime.wall();
                (self.history.read_at(wall), Some(wall))
            }
        }
    }

    fn begin_clear(&self) -> Vec<Change<'_>> {
        (0..self.scenario.sets).map(|key| self.history.begin(key, None)).collect()
    }

    fn complete<'h>(&self, changes: impl IntoIterator<Item = Change<'h>>) {
        self.complete_for(changes, self.scenario.ttl);
    }

    fn complete_for<'h>(&self, changes: impl IntoIterator<Item = Change<'h>>, ttl: Option<Duration>) {
        self.watch().outcome.checked += 1;
        let dead_from = ttl.map(|ttl| self.runtime.wall().after(ttl));
        for change in changes {
            match dead_from {
                Some(wall) => change.complete_until(wall),
                None => change.complete(),
            }
        }
    }

    fn check(&self, key: u64, hit: Option<&Hit<Row>>, (read, wall): (Read, Option<Timestamp>)) {
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
            self.history.check_row(key, hit.id, read).and_then(|()| watch.check_life(key, hit.id, wall))
        };
        if let Err(violation) = checked {
            let from = hit.tier().map_or("a load", |tier| tier.as_str()).to_owned();
            let violation = match violation {
                Violation::Superseded { what } => {
                    Violation::Superseded { what: format!("{what}, from {from}") }
                }
                Violation::Expired { what } => Violation::Expired { what: format!("{what}, from {from}") },
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
            for wrong in behind::unaccounted(&self.cache) {
                self.violation(wrong);
            }
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
            let queued = tier.write_behind.as_ref().map_or(0, |queue| queue.queued + queue.letters_waiting);
            if busy + queued > 0 || tier.bypassed || tier.state != ActorState::Running {
                restless.push(format!(
                    "{}: {:?} behind={queued} mailbox={} queued={} calls={} quarantined={} ledger={} jobs={} bypassed={}",
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
        let mut events = lock(&self.events);
        while let Some(event) = events.try_next() {
            watch.strike("restart_limit", u64::from(matches!(event.kind, EventKind::TierDown { .. })));
        }
        for tier in &inspection.tiers {
            watch.strike("full_mailbox", tier.reads.overloaded + tier.writes.waited);
            watch.strike("bypass", tier.writes.bypasses);
            watch.strike("breaker_open", tier.breaker_opened);
            watch.strike("late_call", tier.writes.late);
            if let Some(error) = tier.last_error.as_ref().filter(|error| !is_planned(error)) {
                let what = format!("the actor of {}: {error}", tier.label);
                watch.outcome.violations.push(Violation::Panic { what });
            }
            watch.outcome.fills += tier.writes.fills;
            watch.outcome.fills_void += tier.writes.fills_void;
        }
    }
}

/// Whether an actor failed because a step or a fault wanted it to.
fn is_planned(error: &str) -> bool {
    error.contains("crash asked for by a test") || error.contains("injected ")
}
