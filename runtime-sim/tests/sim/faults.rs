use std::future::Future;
use std::time::Duration;

use tierkeep::backend::OpenContext;
use tierkeep::runtime::{RuntimeHandle, TaskError, TaskHandle};
use tierkeep::{Backend, BackendResult, Cache, CacheKey, CacheValue, DeleteStatus, KeyPart, Raw};
use tierkeep_sim::{Fault, FaultPlan, Faulty, MapBackend, Op, Sim};

use crate::handle;

struct World {
    sim: Sim,
    runtime: RuntimeHandle,
    plan: FaultPlan,
    store: MapBackend,
    backend: std::sync::Arc<Faulty<MapBackend>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let sim = Sim::new(seed);
        let runtime = handle(&sim);
        let plan = FaultPlan::new(&runtime);
        let store = MapBackend::new();
        let backend = std::sync::Arc::new(Faulty::new(store.clone(), &runtime, &plan));
        Self { sim, runtime, plan, store, backend }
    }

    fn write(&self, id: u32, bytes: &'static [u8]) -> TaskHandle<BackendResult<()>> {
        let backend = std::sync::Arc::clone(&self.backend);
        self.runtime.spawn(async move { backend.write(&key(id), value(bytes)).await })
    }

    /// What `future` gives within a virtual second; `None`: nothing.
    fn within_a_second<F: Future>(&self, future: F) -> Option<F::Output> {
        let end = self.runtime.now().after(Duration::from_secs(1));
        self.sim.block_on(self.runtime.deadline(end, future)).unwrap()
    }
}

fn key(id: u32) -> CacheKey {
    CacheKey::new("user", 1, [KeyPart::new("id", Some(id.to_string()))])
}

fn value(bytes: &'static [u8]) -> CacheValue<Raw> {
    CacheValue::new(Raw::from_static(bytes), None, None)
}

#[test]
fn without_faults_everything_passes() {
    let w = World::new(1);
    let keys = [key(1), key(2)];
    w.sim
        .block_on(async {
            let b = &w.backend;
            b.open(&OpenContext::new(w.runtime.clone())).await.unwrap();
            for result in b.write_many(vec![(key(1), value(b"a")), (key(2), value(b"b"))]).await {
                result.unwrap();
            }
            let read = b.read_many(&keys).await;
            assert_eq!(read.len(), 2);
            assert_eq!(*read[1].as_ref().unwrap().as_ref().unwrap().data(), &b"b"[..]);
            assert_eq!(b.remove(&key(1)).await.unwrap(), DeleteStatus::Deleted(1));
            assert_eq!(b.remove_many(&keys).await[0].as_ref().unwrap(), &DeleteStatus::Missing);
            assert!(b.read_entries(&keys).await[0].as_ref().unwrap().is_none());
            b.flush().await.unwrap();
            b.reopen().await.unwrap();
        })
        .unwrap();
    assert_eq!(w.plan.total(), 0);
    assert_eq!((w.plan.calls(Op::Write), w.plan.calls(Op::Read)), (1, 2));
    assert_eq!(w.runtime.now().as_nanos() / 1_000_000, 0, "no delay");
}

#[test]
fn error_does_nothing_and_says_so() {
    let w = World::new(1);
    w.plan.next(Fault::Error, 1);
    assert!(w.within_a_second(w.write(1, b"a")).unwrap().unwrap().is_err());
    assert!(w.store.is_empty());
    assert!(w.within_a_second(w.write(1, b"a")).unwrap().unwrap().is_ok());
    assert_eq!(w.plan.count(Fault::Error), 1);
}

#[test]
fn a_delayed_call_that_is_dropped_does_nothing() {
    let w = World::new(1);
    w.plan.delays(Duration::from_secs(2)..=Duration::from_secs(3));
    w.plan.next(Fault::Delay, 2);
    let cut = w.write(1, b"a");
    w.sim.run_for(Duration::from_secs(1)).unwrap();
    cut.abort();
    let whole = w.write(2, b"b");
    assert!(w.sim.block_on(whole).unwrap().unwrap().is_ok());
    w.sim.run_for(Duration::from_secs(10)).unwrap();
    assert_eq!((w.store.get(&key(1)), w.store.len()), (None, 1));
}

#[test]
fn hang_never_returns_and_does_nothing() {
    let w = World::new(1);
    w.plan.next(Fault::Hang, 1);
    assert!(w.within_a_second(w.write(1, b"a")).is_none());
    w.sim.run_for(Duration::from_secs(100)).unwrap();
    assert!(w.store.is_empty());
}

#[test]
fn hang_then_complete_answers_late_and_applies_without_its_caller() {
    let w = World::new(1);
    w.plan.late(Duration::from_secs(2)..=Duration::from_secs(4));
    w.plan.next(Fault::HangThenComplete, 2);
    let (dropped, awaited) = (w.write(1, b"a"), w.write(2, b"b"));
    w.sim.run_for(Duration::from_secs(1)).unwrap();
    dropped.abort();
    assert!(w.store.is_empty());
    assert!(w.sim.block_on(awaited).unwrap().unwrap().is_ok());
    assert!(w.sim.run_until_idle(Duration::from_secs(10)).is_ok());
    assert_eq!(w.store.len(), 2);
}

#[test]
fn a_zombie_applies_late_and_never_answers() {
    let w = World::new(1);
    w.plan.late(Duration::from_secs(2)..=Duration::from_secs(4));
    w.plan.next(Fault::Zombie, 1);
    let zombie = w.write(1, b"old");
    assert!(w.within_a_second(zombie).is_none());
    assert!(w.within_a_second(w.write(1, b"new")).unwrap().unwrap().is_ok());
    w.sim.run_for(Duration::from_secs(5)).unwrap();
    assert_eq!(w.store.get(&key(1)).unwrap(), &b"old"[..], "it overwrote what came after it");
}

#[test]
fn a_lost_reply_applies_at_once() {
    let w = World::new(1);
    w.plan.next(Fault::LostReply, 1);
    assert!(w.within_a_second(w.write(1, b"a")).is_none());
    assert_eq!(w.store.len(), 1);
}

#[test]
fn a_broken_off_batch_is_done_in_part() {
    let done: std::collections::BTreeSet<usize> = (0..100)
        .map(|seed| {
            let w = World::new(seed);
            w.plan.next(Fault::LostReply, 1);
            let entries = (0..4).map(|id| (key(id), value(b"a"))).collect();
            assert!(w.within_a_second(w.backend.write_many(entries)).is_none());
            w.store.len()
        })
        .collect();
    assert_eq!(done.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn applied_but_fails_and_reported_but_not_applied_lie_in_opposite_ways() {
    let w = World::new(1);
    w.plan.next(Fault::AppliedButFails, 1);
    w.plan.next(Fault::ReportedButNotApplied, 2);
    assert!(w.within_a_second(w.write(1, b"a")).unwrap().unwrap().is_err());
    assert!(w.within_a_second(w.write(2, b"b")).unwrap().unwrap().is_ok());
    assert_eq!(w.within_a_second(w.backend.remove(&key(1))).unwrap().unwrap(), DeleteStatus::Deleted(1));
    assert_eq!(w.store.contents().into_keys().collect::<Vec<_>>(), [key(1)]);
}

#[test]
fn a_panic_is_the_callers() {
    let w = World::new(1);
    w.plan.next(Fault::Panic, 1);
    let result = w.within_a_second(w.write(1, b"a")).unwrap();
    assert_eq!(result.unwrap_err(), TaskError::Panicked("injected panic in Write".to_owned()));
    assert!(w.store.is_empty());
}

#[test]
fn corrupt_reads_differ_and_the_store_stays_whole() {
    for seed in 0..100 {
        let w = World::new(seed);
        w.store.put(key(1), &b"payload"[..]);
        w.store.put(key(2), &b""[..]);
        w.plan.next(Fault::Corrupt, 2);
        let read = w.within_a_second(w.backend.read_many(&[key(1), key(2)])).unwrap();
        for (result, whole) in read.into_iter().zip([&b"payload"[..], b""]) {
            assert_ne!(result.unwrap().unwrap().into_inner(), whole, "seed {seed}");
        }
        assert_eq!(w.store.get(&key(1)).unwrap(), &b"payload"[..]);
    }
}

#[test]
fn a_torn_entry_is_half_stored_and_reads_as_a_counted_miss() {
    let w = World::new(1);
    let store = w.store.clone();
    w.plan.next(Fault::Torn, 1);
    assert!(w.within_a_second(w.write(7, b"payload")).unwrap().unwrap().is_err());
    assert_eq!(store.get(&key(7)).unwrap(), &b"pay"[..]);
    assert_eq!(w.plan.count(Fault::Torn), 1);

    let (runtime, whole) = (w.runtime.clone(), key(8));
    let reads = w.within_a_second(async {
        let cache = Cache::builder(runtime).tier(store.clone()).build().await.unwrap();
        cache.set(&whole, 5_u64, None).await.unwrap();
        let frame = store.get(&whole).unwrap();
        store.put(whole.clone(), frame.slice(..frame.len() / 2));
        assert!(cache.get::<u64>(&whole).await.is_none());
        cache.inspect().tiers[0].reads
    });
    assert_eq!(reads.unwrap().decode_failed, 1);
}

#[test]
fn in_a_batch_single_entries_fail_and_the_others_keep_their_places() {
    let w = World::new(3);
    w.plan.rate_on(Op::Write, Fault::Error, 0.5);
    let entries = (0..100).map(|id| (key(id), value(b"a"))).collect();
    let results = w.within_a_second(w.backend.write_many(entries)).unwrap();
    assert_eq!(results.len(), 100);
    for (id, result) in (0..).zip(&results) {
        assert_eq!(result.is_ok(), w.store.get(&key(id)).is_some(), "entry {id}");
    }
    assert!((20..80).contains(&w.store.len()));
    assert_eq!(w.plan.count(Fault::Error), 100 - w.store.len() as u64);
}

#[test]
fn opening_and_reopening_fail_when_told() {
    let w = World::new(1);
    w.plan.next(Fault::FailReopen, 1);
    w.plan.next(Fault::RefuseOpen, 1);
    let context = OpenContext::new(w.runtime.clone());
    assert!(w.within_a_second(w.write(1, b"a")).unwrap().unwrap().is_ok(), "neither concerns it");
    assert!(w.within_a_second(w.backend.reopen()).unwrap().is_err());
    assert!(w.within_a_second(w.backend.open(&context)).unwrap().is_err());
    assert!(w.within_a_second(w.backend.open(&context)).unwrap().is_ok());
    assert!(w.within_a_second(w.backend.reopen()).unwrap().is_ok());
}

#[test]
fn rates_hold_until_healed_or_disabled() {
    let w = World::new(1);
    w.plan.rate(Fault::Error, 1.0);
    w.plan.enable(false);
    assert!(w.within_a_second(w.write(1, b"a")).unwrap().unwrap().is_ok());
    w.plan.enable(true);
    assert!(w.within_a_second(w.write(1, b"a")).unwrap().unwrap().is_err());
    assert!(w.within_a_second(w.backend.flush()).unwrap().is_ok(), "rates are for reads, writes, removals");
    w.plan.heal();
    assert!(w.within_a_second(w.write(1, b"a")).unwrap().unwrap().is_ok());
}

#[test]
fn a_call_takes_the_first_scripted_fault_that_fits_it() {
    let w = World::new(1);
    w.plan.next_on(Op::Read, Fault::Error, 1);
    w.plan.next_on(Op::Write, Fault::Hang, 1);
    w.plan.next(Fault::Error, 1);
    assert!(w.within_a_second(w.write(1, b"a")).is_none());
    assert!(w.within_a_second(w.write(1, b"a")).unwrap().unwrap().is_err());
    assert!(w.within_a_second(w.write(1, b"a")).unwrap().unwrap().is_ok());
    assert!(w.within_a_second(w.backend.read(&key(1))).unwrap().is_err());
    assert!(w.within_a_second(w.backend.read(&key(1))).unwrap().is_ok());
}
