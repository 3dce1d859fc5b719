//! A cache under stress: its rounds, its rest, and what was wrong.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tierkeep::composition::{ReadPolicy, WritePolicy};
use tierkeep::runtime::{ActorState, RuntimeHandle};
use tierkeep::{Cache, Region};
use tierkeep_sim::history::History;

use super::tiers::{self, ms};

/// Tasks at work at once.
const TASKS: u64 = 8;
/// Operations after which a round's keys and history are left for new ones.
const ROUND: u64 = 400;
/// Per round: keys that are set and removed.
pub(crate) const SETS: u64 = 3;
/// Per round: rows of a database that are loaded and invalidated.
pub(crate) const ROWS: u64 = 2;
/// How long the cache may take to come to rest; it takes about two residual times of the store.
const REST: Duration = Duration::from_secs(60);

/// Which cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Memory over a failing store over a synchronous one; sequential reads, parallel writes.
    FaultsAbove,
    /// Memory over disk over a failing store; all are read, the first write wins.
    FaultsBelow,
}

impl Shape {
    pub(crate) const ALL: [Self; 2] = [Self::FaultsAbove, Self::FaultsBelow];
}

/// What a run showed.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) violations: Vec<String>,
    pub(crate) ops: u64,
    pub(crate) hits: u64,
    pub(crate) faults: u64,
    pub(crate) fills: u64,
    /// How long it worked and rested.
    pub(crate) took: (Duration, Duration),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { violations, ops, hits, faults, fills, took } = self;
        let violations = violations.len();
        write!(f, "ops={ops} hits={hits} faults={faults} fills={fills} violations={violations} took {took:?}")
    }
}

pub(crate) struct World {
    pub(crate) runtime: RuntimeHandle,
    pub(crate) cache: Cache,
    pub(crate) sets: Region<u64, u64>,
    pub(crate) rows: Region<u64, u64>,
    round: Mutex<Arc<Round>>,
    rounds: usize,
    next_value: AtomicU64,
    pub(crate) hits: AtomicU64,
    pub(crate) violations: Mutex<Vec<String>>,
}

/// A few keys and their history. New ones come again and again, since a check takes longer the longer a history is.
pub(crate) struct Round {
    number: u64,
    pub(crate) history: History,
    pub(crate) database: Mutex<HashMap<u64, u64>>,
    ops: AtomicU64,
}

/// Planned panics are part of the work; a failing test still says where it stands.
pub(crate) fn quiet() {
    std::panic::set_hook(Box::new(|panic| {
        if panic.location().is_some_and(|location| location.file().contains("tests/stress")) {
            eprintln!("{panic}");
        }
    }));
}

/// Works for some rounds, then lets the cache come to rest and looks into every tier.
pub(crate) async fn run(runtime: &RuntimeHandle, shape: Shape, rounds: usize) -> Report {
    let (remote, faults) = tiers::remote(runtime);
    let builder = Cache::builder(runtime.clone()).fence_stripes(16).refill_lane(16).tier(tiers::memory());
    let (builder, _dir) = match shape {
        Shape::FaultsAbove => (builder.tier(remote).tier(tiers::shelf()), None),
        Shape::FaultsBelow => {
            let (disk, dir) = tiers::disk();
            let builder = builder.tier(disk).tier(remote);
            (builder.read_policy(ReadPolicy::Parallel).write_policy(WritePolicy::Race), dir)
        }
    };
    let cache = builder.build().await.unwrap();
    let world = Arc::new(World {
        sets: cache.region("set").no_expiry().build().unwrap(),
        rows: cache.region("row").no_expiry().load_deadline(Duration::from_secs(2)).build().unwrap(),
        runtime: runtime.clone(),
        cache,
        round: Mutex::new(Arc::new(Round::new(0, &mut 0))),
        rounds,
        next_value: AtomicU64::new(ROWS + 1),
        hits: AtomicU64::new(0),
        violations: Mutex::default(),
    });
    let seed = runtime.random();
    let began = runtime.now();
    let tasks: Vec<_> =
        (0..TASKS).map(|task| runtime.spawn(Arc::clone(&world).work(seed.wrapping_add(task)))).collect();
    let mut ops = 0;
    for task in tasks {
        ops += task.await.expect("a task that ends");
    }
    faults.heal();
    let worked = runtime.now();
    world.rest().await;
    world.converge().await;
    let inspection = world.cache.inspect();
    let report = Report {
        violations: std::mem::take(&mut *world.violations.lock().unwrap()),
        ops,
        hits: world.hits.load(Ordering::Relaxed),
        faults: faults.total(),
        took: (worked.since(began), runtime.now().since(worked)),
        fills: inspection.tiers.iter().map(|tier| tier.writes.fills).sum(),
    };
    // A busy disk may take long to sync.
    let shutdown = world.cache.shutdown(Duration::from_secs(300)).await;
    assert!(shutdown.clean, "{shutdown:?}");
    println!("{} {shape:?}: shut down in {:?}", runtime.name(), shutdown.elapsed);
    report
}

impl Round {
    fn new(number: u64, next_value: &mut u64) -> Self {
        let round =
            Self { number, history: History::new(), database: Mutex::default(), ops: AtomicU64::new(0) };
        for key in round.row_keys() {
            *next_value += 1;
            round.history.begin(key, Some(*next_value)).complete();
            round.database.lock().unwrap().insert(key, *next_value);
        }
        round
    }

    fn first(&self) -> u64 {
        self.number * (SETS + ROWS)
    }

    pub(crate) fn set_keys(&self) -> std::ops::Range<u64> {
        self.first()..self.first() + SETS
    }

    pub(crate) fn row_keys(&self) -> std::ops::Range<u64> {
        self.first() + SETS..self.first() + SETS + ROWS
    }
}

impl World {
    pub(crate) fn fresh(&self) -> u64 {
        self.next_value.fetch_add(1, Ordering::Relaxed)
    }

    /// The round that the next operation belongs to; `None`: it was the last.
    pub(crate) fn round(&self) -> Option<Arc<Round>> {
        let mut round = self.round.lock().unwrap();
        if round.ops.fetch_add(1, Ordering::Relaxed) >= ROUND {
            if round.number + 1 >= self.rounds as u64 {
                return None;
            }
            let mut value = self.next_value.fetch_add(ROWS, Ordering::Relaxed) - 1;
            *round = Arc::new(Round::new(round.number + 1, &mut value));
        }
        Some(Arc::clone(&round))
    }

    pub(crate) fn violation(&self, what: impl fmt::Display) {
        self.violations.lock().unwrap().push(what.to_string());
    }

    /// Waits until nothing is under way any more.
    async fn rest(&self) {
        let end = self.runtime.now().after(REST);
        let round = Arc::clone(&self.round.lock().unwrap());
        loop {
            let restless = self.restless();
            if restless.is_empty() {
                return;
            }
            if self.runtime.now() > end {
                return self.violation(format!("not at rest: {restless:?}"));
            }
            self.runtime.sleep(ms(20)).await;
            // A breaker that is open closes only when somebody calls.
            for key in round.set_keys() {
                self.sets.contains(&key).await;
            }
        }
    }

    fn restless(&self) -> Vec<String> {
        let inspection = self.cache.inspect();
        let busy = inspection.tiers.iter().filter(|tier| {
            let under_way = tier.mailbox + tier.queued + tier.calls + tier.ledger + tier.blocking_jobs;
            under_way + tier.quarantined > 0 || tier.bypassed || tier.state != ActorState::Running
        });
        let mut restless: Vec<_> = busy.map(|tier| format!("{tier:?}")).collect();
        if inspection.refills_queued + inspection.loads > 0 {
            restless.push(format!("refills={} loads={}", inspection.refills_queued, inspection.loads));
        }
        restless
    }

    /// At rest, the tiers that hold a key hold the same: in the last round nothing that was replaced, in all rounds
    /// the row that the database has.
    async fn converge(&self) {
        let labels: Vec<_> = self.cache.inspect().tiers.iter().map(|tier| tier.label.clone()).collect();
        let last = Arc::clone(&self.round.lock().unwrap());
        for key in 0..(last.number + 1) * (SETS + ROWS) {
            let is_row = key % (SETS + ROWS) >= SETS;
            let name = if is_row { self.rows.key(&key) } else { self.sets.key(&key) };
            let mut held = Vec::new();
            for label in &labels {
                let read = last.history.read();
                if let Ok(Some(hit)) = self.cache.get_from::<u64>(label.as_str(), &name).await {
                    if key >= last.first() {
                        self.judge(&last, key, *hit, read, label.as_str());
                    }
                    held.push((label.to_string(), *hit));
                }
            }
            if held.windows(2).any(|pair| pair[0].1 != pair[1].1) {
                self.violation(format!("the tiers disagree about key {key}: {held:?}"));
            }
        }
    }

    pub(crate) fn judge(
        &self,
        round: &Round,
        key: u64,
        value: u64,
        read: tierkeep_sim::history::Read,
        from: &str,
    ) {
        let checked = if round.row_keys().contains(&key) {
            round.history.check_row(key, value, read)
        } else {
            round.history.check(key, value, read)
        };
        if let Err(violation) = checked {
            self.violation(format!("{violation}, from {from}"));
        }
    }
}
