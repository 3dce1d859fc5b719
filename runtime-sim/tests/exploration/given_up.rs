//! What becomes of changes that were given up when the process is killed.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tierkeep::runtime::RuntimeHandle;
use tierkeep::write_behind::{
    DeadLetter, DeadLetterSink, JournalSync, Overload, Redriven, Retry, SimulatedLog, WriteBehind,
};
use tierkeep::{
    BackendResult, BreakerOptions, Cache, Error, ErrorKind, MemoryBackend, Region, Tier,
    WriteBehindInspection,
};
use tierkeep_sim::{Fault, FaultPlan, Faulty, MapBackend, Op, Sim};

const NEVER: Duration = Duration::from_secs(3600);
/// Less than the engine's patience with a sink, and more than anything else takes here.
const A_WHILE: Duration = Duration::from_secs(4);

/// What outlives the process.
struct Disk {
    log: SimulatedLog,
    store: MapBackend,
}

struct Process {
    runtime: RuntimeHandle,
    plan: FaultPlan,
    cache: Cache,
    region: Region<u64, u64>,
}

impl Disk {
    async fn start(&self, sim: &Sim, sink: impl DeadLetterSink) -> Process {
        let runtime = RuntimeHandle::new(sim.runtime());
        let plan = FaultPlan::new(&runtime);
        let behind = WriteBehind::simulated(self.log.clone(), JournalSync::Always)
            .max_delay(Duration::ZERO)
            .overload(Overload::DropOldest)
            .retry(Retry::default().attempts(1))
            .dead_letters(sink);
        let store = Tier::new(Faulty::new(self.store.clone(), &runtime, &plan))
            .label("store")
            .write_deadline(NEVER)
            .breaker(BreakerOptions::disabled())
            .write_behind(behind);
        let builder = Cache::builder(runtime.clone()).tier(MemoryBackend::entries(100)).tier(store);
        let cache = builder.build().await.unwrap();
        let region = cache.region("n").no_expiry().build().unwrap();
        Process { runtime, plan, cache, region }
    }
}

impl Process {
    fn queue(&self) -> WriteBehindInspection {
        self.cache.inspect().tier("store").unwrap().write_behind.clone().unwrap()
    }

    async fn sleep(&self) {
        self.runtime.sleep(A_WHILE).await;
    }
}

/// Never returns.
struct Slow;

#[async_trait]
impl DeadLetterSink for Slow {
    async fn deliver(&self, _: &DeadLetter) -> BackendResult<()> {
        pending().await
    }
}

/// Has the letter, and says that it has not.
#[derive(Clone, Default)]
struct Mistaken(Arc<Mutex<Vec<DeadLetter>>>);

#[async_trait]
impl DeadLetterSink for Mistaken {
    async fn deliver(&self, letter: &DeadLetter) -> BackendResult<()> {
        self.0.lock().unwrap().push(letter.clone());
        Err(Error::new(ErrorKind::Backend, "no answer"))
    }
}

/// The change was given up before the journal had written it, and its letter is not delivered: were its key removed from
/// the store now, the kill would leave neither it nor what it has replaced.
#[test]
fn what_a_change_that_was_given_up_has_replaced_is_removed_once_the_journal_has_that() {
    let disk = Disk { log: SimulatedLog::new(), store: MapBackend::comparing() };
    let first = Sim::new(1);
    let lived = first.block_on(async {
        let process = disk.start(&first, Slow).await;
        process.region.set(&1, 1).await.unwrap();
        process.cache.flush(NEVER).await.unwrap();
        disk.log.fail(u32::MAX);
        process.plan.next_on(Op::Write, Fault::AppliedButFails, 1);
        let second = process.runtime.now().after(A_WHILE);
        let unacknowledged = process.runtime.deadline(second, process.region.set(&1, 2)).await;
        assert!(unacknowledged.is_none(), "the journal cannot be written: {unacknowledged:?}");
        assert_eq!(process.queue().letters_waiting, 1);
        disk.log.kill();
    });
    lived.unwrap();
    disk.log.fail(0);
    let next = Sim::new(2);
    let shown = next.block_on(async { disk.start(&next, Slow).await.region.get(&1).await.map(|hit| *hit) });
    assert_eq!(shown.unwrap(), Some(2));
}

#[test]
fn a_letter_that_nobody_is_said_to_have_takes_nothing_from_the_journal_that_was_redriven() {
    let disk = Disk { log: SimulatedLog::new(), store: MapBackend::comparing() };
    let first = Sim::new(1);
    let lived = first.block_on(async {
        let letters = Mistaken::default();
        let process = disk.start(&first, letters.clone()).await;
        process.plan.next_on(Op::Write, Fault::Error, 1);
        process.region.set(&1, 1).await.unwrap();
        process.sleep().await;
        assert_eq!(process.queue().letters_undelivered, 1);
        process.plan.next_on(Op::Write, Fault::Hang, 1);
        let letter = letters.0.lock().unwrap()[0].clone();
        assert_eq!(process.cache.redrive(&letter).await.unwrap(), Redriven::Queued);
        assert_eq!(process.cache.undelivered_letters().len(), 1);
        process.sleep().await;
        assert_eq!(process.queue().queued, 1);
        disk.log.kill();
    });
    lived.unwrap();
    let next = Sim::new(2);
    let shown = next.block_on(async { disk.start(&next, Slow).await.region.get(&1).await.map(|hit| *hit) });
    assert_eq!(shown.unwrap(), Some(1));
}
