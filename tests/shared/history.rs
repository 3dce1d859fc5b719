//! Two processes that write and one that reads, over one comparing store under faults, held against a history.
//!
//! What is promised: the store never goes back to an older value (of mutations that it confirmed), it ends with the
//! newest, and no process shows an older value than one it was told about: a writer by a refusal, the
//! reader by what it showed before.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tierkeep::runtime::{Instant, RuntimeHandle};
use tierkeep::{Plant, Stamp, plant};
use tierkeep_sim::history::History;
use tierkeep_sim::{Fault, MapBackend, SimRuntime, explore};

use crate::world::{Node, listening, ms};

const KEYS: u64 = 2;
const STEPS: u64 = 60;
const CALLERS: usize = 2;

/// What is known of all processes.
struct World {
    sim: SimRuntime,
    store: MapBackend,
    /// What the store may show.
    history: History,
    values: AtomicU64,
    checked: AtomicU64,
}

/// What one process has been told of each key.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<Vec<(Instant, u64, Stamp)>>);

impl Told {
    /// The newest by `now`.
    fn by(&self, now: Instant, key: u64) -> Stamp {
        let told = self.0.lock().unwrap();
        let known = told.iter().filter(|(from, of, _)| *from <= now && *of == key);
        known.map(|(_, _, stamp)| *stamp).max().unwrap_or_default()
    }

    /// The key's newest stamp counts from `from` on.
    pub(crate) fn hear(&self, from: Instant, key: u64, stamp: Stamp) {
        self.0.lock().unwrap().push((from, key, stamp));
    }
}

async fn caller(world: Arc<World>, node: Arc<Node>, told: Arc<Told>, writes: bool) {
    let runtime = RuntimeHandle::new(world.sim.clone());
    for _ in 0..STEPS {
        let key = runtime.random() % KEYS;
        match runtime.random() % 10 {
            0..4 if writes => change(&world, &node, &runtime, key).await,
            4..6 => {
                // Past the memory tier: what the store itself shows.
                let read = world.history.read();
                if let Some(value) = node.at("map", key).await {
                    world.history.check(key, value, read).unwrap();
                    world.checked.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ => {
                let before = told.by(runtime.now(), key);
                if let Some(hit) = node.numbers.get(&key).await {
                    assert!(
                        hit.meta().stamp >= before,
                        "key {key}: {:?} after {before:?}, which this process was told about",
                        hit.meta().stamp
                    );
                    if !writes {
                        // Of reads that overlap, one may show what the other's refill has not replaced yet.
                        told.hear(runtime.now().after(ms(100)), key, hit.meta().stamp);
                    }
                    world.checked.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        runtime.sleep(ms(runtime.random() % 40)).await;
    }
}

async fn change(world: &World, node: &Node, runtime: &RuntimeHandle, key: u64) {
    let value = world.values.fetch_add(1, Ordering::Relaxed);
    let removes = runtime.random().is_multiple_of(4);
    let change = world.history.begin(key, (!removes).then_some(value));
    // One clock, to the ms: what begins after another has ended has the later stamp.
    runtime.sleep(ms(2)).await;
    let confirmed = if removes {
        // A removal is a success with one tier: whether the store confirmed is not told.
        node.numbers.remove(&key).await.is_ok() && node.tier("map").quarantined == 0
    } else {
        node.numbers.set(&key, value).await.is_ok()
    };
    if confirmed { change.complete() } else { drop(change) }
}

/// Plays one seed; how many reads were checked.
async fn play(sim: SimRuntime) -> u64 {
    let runtime = RuntimeHandle::new(sim.clone());
    let world = Arc::new(World {
        store: MapBackend::comparing(),
        history: History::new(),
        values: AtomicU64::new(1),
        checked: AtomicU64::new(0),
        sim: sim.clone(),
    });
    let mut nodes = Vec::new();
    let mut callers = Vec::new();
    for writes in [true, true, false] {
        let told = Arc::new(Told::default());
        let node = Arc::new(listening(&sim, &world.store, &told).await);
        for fault in
            [Fault::Error, Fault::HangThenComplete, Fault::LostReply, Fault::AppliedButFails, Fault::Zombie]
        {
            node.plan.rate(fault, 0.04);
        }
        node.plan.rate(Fault::Delay, 0.3);
        for _ in 0..CALLERS {
            let (world, node, told) = (Arc::clone(&world), Arc::clone(&node), Arc::clone(&told));
            callers.push(runtime.spawn(caller(world, node, told, writes)));
        }
        nodes.push((node, told));
    }
    for caller in callers {
        caller.await.unwrap();
    }
    nodes.iter().for_each(|(node, _)| node.plan.heal());
    for (node, _) in &nodes {
        node.rest(&sim).await;
    }
    for key in 0..KEYS {
        let read = world.history.read();
        let shown = nodes[0].0.at("map", key).await;
        for (node, _) in &nodes {
            assert_eq!(shown, node.at("map", key).await, "key {key}: at rest, all see one store");
        }
        if let Some(value) = shown {
            world.history.check(key, value, read).unwrap();
        }
        let newest = world.store.stamp(&nodes[0].0.numbers.key(&key)).unwrap_or_default();
        for (node, told) in &nodes {
            assert!(
                told.by(runtime.now().after(ms(100)), key) <= newest,
                "key {key}: what was shown is not in the store's past"
            );
            let held = node.cache.get_from::<u64>("memory", &node.numbers.key(&key)).await.unwrap();
            assert!(held.is_none_or(|hit| hit.meta().stamp <= newest), "key {key}: newer than the store");
        }
    }
    world.checked.load(Ordering::Relaxed)
}

fn plays(seeds: std::ops::Range<u64>) -> u64 {
    let checked = AtomicU64::new(0);
    explore(seeds, |sim| {
        checked.fetch_add(sim.block_on(play(sim.runtime())).unwrap(), Ordering::Relaxed);
    });
    checked.into_inner()
}

#[test]
fn the_store_never_goes_back_and_no_process_shows_less_than_it_was_told() {
    let checked = plays(0..300);
    assert!(checked > 10_000, "only {checked} reads were checked");
    println!("seeds=300 reads_checked={checked}");
}

#[test]
fn a_planted_bug_is_noticed() {
    plant(Some(Plant::OutdatedStays));
    let caught = (0..100).find(|&seed| catch_unwind(AssertUnwindSafe(|| plays(seed..seed + 1))).is_err());
    plant(None);
    println!("planted: caught at seed {caught:?}");
    assert!(caught.is_some(), "it was not noticed");
}
