//! The stated bound, under losses: once a change has been confirmed, nobody shows anything older for longer than
//! `silence` + `heartbeat` + `jitter` (4.5 s by default), whatever messages are lost.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tierkeep::backplane::LocalBackplane;
use tierkeep::runtime::{Instant, RuntimeHandle};
use tierkeep::{Plant, Stamp, plant};
use tierkeep_sim::{Fault, MapBackend, SimRuntime, explore};

use crate::backplane::{Process, process};
use crate::world::ms;

const BOUND: Duration = ms(4500);
const KEYS: u64 = 4;

#[derive(Default)]
struct Confirmed(Mutex<Vec<(Instant, u64, Stamp)>>);

impl Confirmed {
    /// What must show, at least, to who asks at `now`.
    fn by(&self, now: Instant, key: u64) -> Stamp {
        let confirmed = self.0.lock().unwrap();
        let due = confirmed.iter().filter(|(at, of, _)| *of == key && at.after(BOUND) <= now);
        due.map(|(_, _, stamp)| *stamp).max().unwrap_or_default()
    }
}

async fn caller(
    runtime: RuntimeHandle,
    store: MapBackend,
    process: Arc<Process>,
    confirmed: Arc<Confirmed>,
    checked: Arc<AtomicU64>,
) {
    for n in 0..150 {
        let key = runtime.random() % KEYS;
        if runtime.random() % 10 == 0 {
            if process.numbers.set(&key, n).await.is_ok() {
                let stamp = store.stamp(&process.numbers.key(&key)).unwrap();
                confirmed.0.lock().unwrap().push((runtime.now(), key, stamp));
            }
        } else {
            let due = confirmed.by(runtime.now(), key);
            if let Some(hit) = process.numbers.get(&key).await {
                let shown = hit.meta().stamp;
                assert!(shown >= due, "key {key}: {shown:?} shown, {due:?} confirmed for {BOUND:?}");
                checked.fetch_add(1, Ordering::Relaxed);
            }
        }
        runtime.sleep(ms(runtime.random() % 400)).await;
    }
}

async fn play(sim: SimRuntime) -> u64 {
    let runtime = RuntimeHandle::new(sim.clone());
    let (store, hub) = (MapBackend::comparing(), LocalBackplane::new());
    let (confirmed, checked) = (Arc::new(Confirmed::default()), Arc::new(AtomicU64::new(0)));
    let mut callers = Vec::new();
    for _ in 0..3 {
        let process = Arc::new(process(&sim, &store, &hub).await);
        process.line.lossy.store(runtime.random() % 400, Ordering::Relaxed);
        process.line.delay.store(runtime.random() % 100, Ordering::Relaxed);
        for fault in [Fault::Error, Fault::LostReply, Fault::Zombie] {
            process.plan.rate(fault, 0.01);
        }
        for _ in 0..2 {
            let (store, process) = (store.clone(), Arc::clone(&process));
            let caller =
                caller(runtime.clone(), store, process, Arc::clone(&confirmed), Arc::clone(&checked));
            callers.push(runtime.spawn(caller));
        }
    }
    for caller in callers {
        if runtime.random() % 4 == 0 {
            hub.disconnect();
        }
        caller.await.unwrap();
    }
    checked.load(Ordering::Relaxed)
}

fn plays(seeds: std::ops::Range<u64>) -> u64 {
    let checked = AtomicU64::new(0);
    explore(seeds, |sim| {
        checked.fetch_add(sim.block_on(play(sim.runtime())).unwrap(), Ordering::Relaxed);
    });
    checked.into_inner()
}

#[test]
fn nothing_older_shows_past_the_bound_whatever_is_lost() {
    let checked = plays(0..100);
    assert!(checked > 10_000, "only {checked} reads were checked");
    println!("seeds=100 reads_checked={checked} bound={BOUND:?}");
}

#[test]
fn planted_bugs_are_noticed() {
    for bug in [Plant::HeardIgnored, Plant::GapIgnored] {
        plant(Some(bug));
        let caught = (0..100).find(|&seed| catch_unwind(AssertUnwindSafe(|| plays(seed..seed + 1))).is_err());
        plant(None);
        println!("planted {bug:?}: caught at seed {caught:?}");
        assert!(caught.is_some(), "{bug:?} was not noticed");
    }
}
