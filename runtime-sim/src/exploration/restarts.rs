//! Restarts of a cache that writes behind over a journal: the process is killed, or the machine loses power, at any await,
//! and what had been acknowledged has to be there when the next process has opened the journal.
//!
//! The journal is the engine's own down to its medium, which is a log in memory: fjall's files and threads cannot be
//! simulated. Those are for `tests/write_behind`, which kills real processes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::join_all;
use tierkeep::runtime::{Runtime, RuntimeHandle};
use tierkeep::write_behind::{
    DeadLetter, DeadLetterSink, JournalSync, Overload, Retry, SimulatedLog, WriteBehind,
};
use tierkeep::{
    Backend, BackendResult, BreakerOptions, Cache, CacheKey, EventKind, MemoryBackend, Region, Tier,
    Timestamp,
};

use super::behind::unaccounted;
use super::scenario::{chance, millis};
use super::world::lock;
use crate::faults::{Fault, FaultPlan, Faulty};
use crate::map_backend::MapBackend;
use crate::options::SimOptions;
use crate::rng::Rng;
use crate::sim::Sim;

const WRITERS: u64 = 3;
const KEYS: u64 = 9;
/// What blocking jobs may take here, several of which one sync may have to wait for.
const ONE_SYNC: Duration = Duration::from_millis(20);

const WRITE_DEADLINE: Duration = Duration::from_millis(20);
/// When nothing more is written.
const LAST: &str = "at the end";
const RESIDUAL: Duration = Duration::from_millis(40);

/// What a seed has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restarts {
    /// What was wrong.
    pub violations: Vec<String>,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Writes that were found in the journal.
    pub recovered: u64,
    /// Dead letters that were redriven.
    pub redriven: u64,
    /// Ends of processes, by a kill or by the machine losing power.
    pub crashes: u64,
}

/// One write of a key: each value is written once.
#[derive(Debug, Clone, Copy)]
struct Write {
    n: u64,
    removes: bool,
    acknowledged: Option<Timestamp>,
}

/// A number, and what makes it larger or smaller.
type Value = (u64, Vec<u8>);

/// What outlives a process.
struct World {
    seed: u64,
    rng: Rng,
    log: SimulatedLog,
    sync: JournalSync,
    store: MapBackend,
    writes: Arc<Mutex<BTreeMap<u64, Vec<Write>>>>,
    letters: Letters,
    /// Keys of letters for which there was no room, as events have told: a journal does not keep those either.
    let_go: BTreeSet<CacheKey>,
    wall: Timestamp,
    /// Whether the journal could not be written for a while, ever: what was acknowledged before is in memory alone.
    disk_failed: bool,
    result: Restarts,
}

/// Letters as a durable sink keeps them.
#[derive(Clone, Default)]
struct Letters(Arc<Mutex<Vec<DeadLetter>>>);

/// One process's way to them: it takes its time.
struct Slow {
    letters: Letters,
    runtime: RuntimeHandle,
    most: Duration,
}

#[async_trait]
impl DeadLetterSink for Slow {
    async fn deliver(&self, letter: &DeadLetter) -> BackendResult<()> {
        self.runtime.sleep(self.most).await;
        lock(&self.letters.0).push(letter.clone());
        Ok(())
    }
}

/// Plays the restarts of `seed`.
pub fn restarts(seed: u64) -> Restarts {
    let mut rng = Rng::new(seed ^ 0x0f0f_7e57);
    let interval = millis(&mut rng, 1, 50);
    let mut world = World {
        seed,
        log: SimulatedLog::new(),
        sync: if chance(&mut rng, 0.6) { JournalSync::Always } else { JournalSync::Interval(interval) },
        store: if chance(&mut rng, 0.5) { MapBackend::comparing() } else { MapBackend::new() },
        writes: Arc::default(),
        letters: Letters::default(),
        let_go: BTreeSet::new(),
        wall: Timestamp::from_millis(1_767_225_600_000),
        disk_failed: false,
        result: Restarts::default(),
        rng,
    };
    let processes = 1 + world.rng.below(4);
    for process in 0..processes {
        world.live(process);
    }
    world.rest(processes);
    world.result
}

impl World {
    fn sim(&self, process: u64) -> Sim {
        Sim::with(SimOptions::new(self.seed.wrapping_mul(31).wrapping_add(process)).wall(self.wall))
    }

    /// One process, from its start to its sudden end.
    fn live(&mut self, process: u64) {
        let sim = self.sim(process);
        let runtime = RuntimeHandle::new(sim.runtime());
        let faults = FaultPlan::new(&runtime);
        let rates = [
            (Fault::Error, 0.2),
            (Fault::Delay, 0.2),
            (Fault::Hang, 0.02),
            (Fault::HangThenComplete, 0.05),
            (Fault::LostReply, 0.05),
            (Fault::AppliedButFails, 0.05),
        ];
        // Some past the write deadline, none past the residual time.
        faults.late(Duration::from_millis(5)..=WRITE_DEADLINE + RESIDUAL / 2);
        let severity = self.rng.unit();
        for (fault, rate) in rates {
            faults.rate(fault, rate * severity);
        }
        let behind = self.behind(&runtime);
        let life = millis(&mut self.rng, 1, 300);
        let full_disk = chance(&mut self.rng, 0.2).then(|| u32::try_from(1 + self.rng.below(3)).unwrap_or(1));
        let power = chance(&mut self.rng, 0.5);
        let kept = self.rng.next();
        let draws: Vec<u64> = (0..WRITERS).map(|_| self.rng.next()).collect();
        let ended = sim.block_on(async {
            let store = Tier::new(Faulty::new(self.store.clone(), &runtime, &faults));
            let cache = open(&runtime, tier(store).write_behind(behind)).await;
            let region = numbers(&cache);
            let mut events = cache.events_with(1 << 16);
            faults.enable(false);
            self.check(&cache, &region, "after a restart").await;
            faults.enable(true);
            let before = acknowledged(&self.writes);
            self.disk_failed |= full_disk.is_some();
            if let Some(batches) = full_disk {
                self.log.fail(batches);
            }
            let writers = draws.into_iter().enumerate().map(|(writer, draw)| {
                write(runtime.clone(), region.clone(), Arc::clone(&self.writes), writer as u64, draw)
            });
            // Dropped where they stand, as all else is.
            let _ = runtime.deadline(runtime.now().after(life), join_all(writers)).await;
            self.result.acknowledged += acknowledged(&self.writes) - before;
            self.result.violations.extend(unaccounted(&cache).into_iter().map(|wrong| format!("{wrong:?}")));
            while let Some(Some(event)) = events.next().now_or_never() {
                if let EventKind::DeadLetterUndelivered { key } = event.kind {
                    self.let_go.insert(key);
                }
            }
            match power {
                true => {
                    self.log.power_off(|unsynced| usize::try_from(kept % (unsynced as u64 + 1)).unwrap_or(0))
                }
                false => self.log.kill(),
            }
            self.log.fail(0);
        });
        if let Err(stall) = ended {
            self.result.violations.push(format!("stalled: {stall}"));
        }
        self.result.crashes += 1;
        self.wall = sim.wall().after(Duration::from_millis(1));
    }

    /// The last process: the store is healed, letters are redriven, everything is brought to the store.
    fn rest(&mut self, process: u64) {
        let sim = self.sim(process);
        let runtime = RuntimeHandle::new(sim.runtime());
        let behind = self
            .behind(&runtime)
            .entries(1000)
            .bytes(1 << 20)
            .overload(Overload::Reject)
            .retry(Retry::default());
        let ended = sim.block_on(async {
            let cache = open(&runtime, tier(Tier::new(self.store.clone())).write_behind(behind)).await;
            let region = numbers(&cache);
            self.check(&cache, &region, LAST).await;
            let letters = lock(&self.letters.0).clone();
            for letter in letters {
                if let Err(error) = cache.redrive(&letter).await {
                    self.result.violations.push(format!("{:?} was not redriven: {error}", letter.key));
                }
                self.result.redriven += 1;
            }
            if let Err(error) = cache.flush(Duration::from_secs(60)).await {
                self.result.violations.push(format!("not flushed: {error}"));
            }
            let queue = cache.inspect().tiers[1].write_behind.clone().unwrap_or_default();
            if queue.queued > 0 || !cache.shutdown(Duration::from_secs(60)).await.clean {
                self.result.violations.push(format!("not at rest: {queue:?}"));
            }
            self.result.violations.extend(unaccounted(&cache).into_iter().map(|wrong| format!("{wrong:?}")));
        });
        if let Err(stall) = ended {
            self.result.violations.push(format!("stalled: {stall}"));
        }
        self.wall = sim.wall().after(Duration::from_millis(1));
        // And it is in the store itself.
        let sim = self.sim(process + 1);
        let runtime = RuntimeHandle::new(sim.runtime());
        let ended = sim.block_on(async {
            let cache = open(&runtime, tier(Tier::new(self.store.clone()))).await;
            let region = numbers(&cache);
            self.check(&cache, &region, "in the store").await;
        });
        if let Err(stall) = ended {
            self.result.violations.push(format!("stalled: {stall}"));
        }
    }

    fn behind(&mut self, runtime: &RuntimeHandle) -> WriteBehind {
        let rng = &mut self.rng;
        let most = millis(rng, 0, 50);
        let sink = Slow { letters: self.letters.clone(), runtime: runtime.clone(), most };
        let first = Duration::from_micros(500 + rng.below(5_000));
        let retry = Retry::default().backoff(first, first * 8).attempts([1, 4, 1000, 1000][rng.index(4)]);
        let block = Overload::Block(millis(rng, 1, 30));
        WriteBehind::simulated(self.log.clone(), self.sync)
            .entries([1, 2, 100, 100][rng.index(4)])
            .bytes([300, 600, 1 << 20][rng.index(3)])
            .overload([block, Overload::Reject, Overload::WriteThrough, Overload::DropOldest][rng.index(4)])
            .batch_keys([1, 2, 8][rng.index(3)])
            .max_delay([Duration::ZERO, millis(rng, 1, 60)][rng.index(2)])
            .retry(retry)
            .dead_letters(sink)
    }

    /// Compares every key with what was acknowledged; from here on what is there is what was written last.
    async fn check(&mut self, cache: &Cache, region: &Region<Value, u64>, when: &str) {
        let queue = cache.inspect().tiers.get(1).and_then(|tier| tier.write_behind.clone());
        self.result.recovered += queue.map_or(0, |queue| queue.counts.recovered);
        let letters: Vec<_> = lock(&self.letters.0).iter().map(|letter| letter.key.clone()).collect();
        let dead: BTreeSet<_> = letters.into_iter().chain(self.let_go.iter().cloned()).collect();
        let keys: Vec<_> = lock(&self.writes).keys().copied().collect();
        for key in keys {
            let found = match region.try_get(&key).await {
                Ok(lookup) if lookup.degraded.is_empty() => lookup.hit.map(|hit| hit.0),
                other => {
                    self.result.violations.push(format!("{when}: key {key} cannot be read: {other:?}"));
                    continue;
                }
            };
            let mut writes = lock(&self.writes);
            let Some(writes) = writes.get_mut(&key) else { continue };
            self.result.acknowledged +=
                writes.iter().filter(|write| write.acknowledged.is_some()).count() as u64;
            // What was given up may have left anything older; where letters are redriven they say what comes back.
            // And what a failing disk kept from being synced goes with the machine, while what it should have forgotten stays.
            let excused = self.disk_failed && self.sync != JournalSync::Always;
            if !excused
                && !dead.contains(&region.key(&key))
                && let Some(wrong) = self.lost(writes, found)
            {
                self.result.violations.push(format!("{when}: key {key} holds {found:?}: {wrong}"));
            }
            let resurfaces = self.store.compares() && when != LAST;
            rebase(writes, found, self.sync == JournalSync::Always, resurfaces);
        }
    }

    /// What is wrong with what was found of a key.
    fn lost(&self, writes: &[Write], found: Option<u64>) -> Option<String> {
        let last = writes.iter().rposition(|write| write.leaves(found));
        if last.is_none() && found.is_some() {
            return Some(format!("nobody wrote that: {writes:?}"));
        }
        let newer = &writes[last.map_or(0, |last| last + 1)..];
        let may_be_lost = |at: Timestamp| match self.sync {
            JournalSync::Interval(interval) => {
                self.disk_failed || at.after(interval * 2 + ONE_SYNC) >= self.wall
            }
            _ => false,
        };
        let lost = newer.iter().find(|write| write.acknowledged.is_some_and(|at| !may_be_lost(at)))?;
        Some(format!("{lost:?} was acknowledged, under {:?}: {writes:?}", self.sync))
    }
}

impl Write {
    /// Whether this is what it leaves.
    fn leaves(&self, found: Option<u64>) -> bool {
        match found {
            Some(value) => !self.removes && self.n == value,
            None => self.removes,
        }
    }
}

/// Forgets what may not come back: what is older than the last write that was acknowledged or, where that may have been
/// lost, than what was found. What is newer was begun and not acknowledged: it may have reached a store that compares, and
/// show once the store was asked.
///
/// `resurfaces`: what the store refused may show once more until it refuses it again, where a loss of power has undone that
/// the journal forgot it.
fn rebase(writes: &mut Vec<Write>, found: Option<u64>, durable: bool, resurfaces: bool) {
    if durable {
        let last = writes.iter().rposition(|write| write.acknowledged.is_some()).unwrap_or(0);
        writes.drain(..last);
        return;
    }
    // Values differ, but any of the removals may be the one that was found.
    let first = match writes.iter().position(|write| write.leaves(found)) {
        Some(first) => first + 1,
        None => 0,
    };
    let base = Write { n: found.unwrap_or_default(), removes: found.is_none(), acknowledged: None };
    let mut newer = writes.split_off(first);
    if resurfaces {
        writes.push(base);
    } else {
        *writes = vec![base];
    }
    writes.append(&mut newer);
    writes.iter_mut().for_each(|write| write.acknowledged = None);
}

fn tier(tier: Tier) -> Tier {
    tier.label("store")
        .read_deadline(Duration::from_millis(50))
        .write_deadline(WRITE_DEADLINE)
        .residual(RESIDUAL)
        .breaker(BreakerOptions {
            min_calls: 5,
            open: Duration::from_millis(20),
            open_max: Duration::from_secs(1),
            ..BreakerOptions::default()
        })
}

fn acknowledged(writes: &Mutex<BTreeMap<u64, Vec<Write>>>) -> u64 {
    lock(writes).values().flatten().filter(|write| write.acknowledged.is_some()).count() as u64
}

async fn open(runtime: &RuntimeHandle, tier: Tier) -> Cache {
    let cache = Cache::builder(runtime.clone()).tier(MemoryBackend::entries(100)).tier(tier).build().await;
    cache.unwrap_or_else(|error| unreachable!("the cache is well built: {error}"))
}

fn numbers(cache: &Cache) -> Region<Value, u64> {
    let region = cache.region("n").no_expiry().build();
    region.unwrap_or_else(|error| unreachable!("the region is well built: {error}"))
}

/// Writes its own keys, one after the other, for ever.
async fn write(
    runtime: RuntimeHandle,
    region: Region<Value, u64>,
    writes: Arc<Mutex<BTreeMap<u64, Vec<Write>>>>,
    writer: u64,
    draw: u64,
) {
    let mut rng = Rng::new(draw);
    loop {
        let key = writer + WRITERS * rng.below(KEYS / WRITERS);
        let (n, removes) = (rng.next(), chance(&mut rng, 0.15));
        lock(&writes).entry(key).or_default().push(Write { n, removes, acknowledged: None });
        let done = match removes {
            true => region.remove(&key).await.map(drop),
            false => region.set(&key, (n, vec![0; rng.index(300)])).await,
        };
        if done.is_ok()
            && let Some(write) = lock(&writes).get_mut(&key).and_then(|writes| writes.last_mut())
        {
            write.acknowledged = Some(runtime.wall());
        }
        runtime.sleep(Duration::from_micros(rng.below(6_000))).await;
    }
}
