//! Write-behind: what is acknowledged before the store has it, shown meanwhile, and brought there.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tierkeep::composition::WritePolicy;
use tierkeep::runtime::{BlockingJob, BoxFuture, Instant, Runtime, RuntimeHandle};
use tierkeep::write_behind::{
    DeadLetter, DeadLetterSink, DeadReason, Overload, Redriven, Retry, WriteBehind,
};
use tierkeep::{
    Backend, BackendResult, BreakerOptions, Cache, CacheKey, CacheValue, DeleteStatus, Entry, Error,
    ErrorKind, KeyPart, MemoryBackend, Raw, Region, Tier, Timestamp, WriteBehindInspection, async_trait,
};
use tierkeep_sim::{Fault, FaultPlan, Faulty, MapBackend, Op};

use super::world::{NEVER, World};

/// Letters as they come.
#[derive(Clone, Default)]
struct Letters(Arc<Mutex<Vec<DeadLetter>>>);

impl Letters {
    fn letters(&self) -> Vec<DeadLetter> {
        self.0.lock().unwrap().clone()
    }
}

#[async_trait]
impl DeadLetterSink for Letters {
    async fn deliver(&self, letter: &DeadLetter) -> BackendResult<()> {
        self.0.lock().unwrap().push(letter.clone());
        Ok(())
    }
}

pub(crate) struct Bench {
    pub(crate) world: World,
    pub(crate) store: MapBackend,
    pub(crate) plan: FaultPlan,
    memory: MemoryBackend,
    letters: Letters,
    pub(crate) cache: Cache,
    pub(crate) region: Region<u64, u64>,
}

impl Bench {
    /// Memory over a store that writes behind as `behind` says.
    pub(crate) async fn new(world: World, behind: WriteBehind) -> Self {
        Self::with(world, behind, |tier| tier.breaker(BreakerOptions::disabled())).await
    }

    pub(crate) async fn with(world: World, behind: WriteBehind, tier: impl FnOnce(Tier) -> Tier) -> Self {
        let (store, memory) =
            (MapBackend::new().with_residual(Duration::from_millis(50)), MemoryBackend::entries(1000));
        let plan = FaultPlan::new(&world.runtime);
        let letters = Letters::default();
        let behind = behind.dead_letters(letters.clone());
        let low = Tier::new(Faulty::new(store.clone(), &world.runtime, &plan))
            .label("store")
            .read_deadline(NEVER)
            .write_behind(behind);
        let cache =
            Cache::builder(world.runtime.clone()).tier(memory.clone()).tier(tier(low)).build().await.unwrap();
        let region = cache.region("n").no_expiry().build().unwrap();
        Self { world, store, plan, memory, letters, cache, region }
    }

    pub(crate) fn queue(&self) -> WriteBehindInspection {
        let inspection = self.cache.inspect().tier("store").unwrap().write_behind.clone().unwrap();
        let counts = inspection.counts;
        assert_eq!(
            counts.accepted,
            counts.applied + counts.superseded + counts.dead + inspection.queued as u64,
            "every accepted write is accounted for: {inspection:?}"
        );
        inspection
    }

    pub(crate) fn stored(&self, key: u64) -> Option<Raw> {
        self.store.get(&self.region.key(&key))
    }

    /// What the tier shows, whatever memory has.
    pub(crate) async fn shown(&self, key: u64) -> Option<u64> {
        self.cache.get_from::<u64>("store", &self.region.key(&key)).await.ok().flatten().map(|hit| *hit)
    }

    pub(crate) fn evict(&self, key: u64) {
        self.memory.port().unwrap().remove(&self.region.key(&key));
    }
}

/// So late that a test decides when.
pub(crate) fn patient() -> WriteBehind {
    WriteBehind::memory().max_delay(NEVER)
}

pub(crate) fn eager() -> WriteBehind {
    let retry = Retry::default().backoff(Duration::from_millis(5), Duration::from_millis(20));
    WriteBehind::memory().max_delay(Duration::ZERO).retry(retry)
}

pub(crate) async fn a_write_is_acknowledged_before_the_store_has_it(world: World) {
    let bench = Bench::new(world, patient()).await;
    bench.region.set(&1, 10).await.unwrap();
    assert_eq!(bench.stored(1), None);
    assert_eq!(bench.queue().queued, 1);
    bench.cache.flush(NEVER).await.unwrap();
    assert!(bench.stored(1).is_some());
    let queue = bench.queue();
    assert_eq!((queue.queued, queue.counts.applied, queue.bytes), (0, 1, 0));
    assert_eq!(bench.shown(1).await, Some(10));
}

pub(crate) async fn every_read_sees_what_is_pending(world: World) {
    let bench = Bench::new(world, patient()).await;
    for key in 0..3 {
        bench.region.set(&key, key + 10).await.unwrap();
        bench.evict(key);
    }
    assert_eq!(bench.shown(1).await, Some(11));
    let hit = bench.region.get(&0).await.unwrap();
    assert_eq!((*hit, hit.tier().unwrap().as_str()), (10, "store"));
    let many = bench.region.get_many(&[0, 1, 2, 3]).await;
    assert_eq!(
        many.iter().map(|hit| hit.as_deref().copied()).collect::<Vec<_>>(),
        [Some(10), Some(11), Some(12), None]
    );
    bench.evict(2);
    assert!(bench.region.contains(&2).await);
    assert!(bench.region.remove(&2).await.unwrap(), "it was there, though only queued");
    assert!(!bench.region.contains(&2).await);
    assert_eq!(bench.plan.calls(Op::Write), 0, "nothing of this went to the store");
    bench.cache.flush(NEVER).await.unwrap();
    assert_eq!(bench.shown(2).await, None);
}

pub(crate) async fn of_several_writes_of_a_key_the_newest_is_sent(world: World) {
    let bench = Bench::new(world, patient()).await;
    for value in 0..20 {
        bench.region.set(&1, value).await.unwrap();
    }
    bench.cache.flush(NEVER).await.unwrap();
    assert_eq!(bench.plan.calls(Op::Write), 1);
    assert_eq!(bench.shown(1).await, Some(19));
    let counts = bench.queue().counts;
    assert_eq!((counts.accepted, counts.applied, counts.superseded), (20, 1, 19));
}

pub(crate) async fn writes_go_in_batches(world: World) {
    let bench = Bench::new(world, patient().batch_keys(10)).await;
    for key in 0..40 {
        bench.region.set(&key, key).await.unwrap();
    }
    bench.cache.flush(NEVER).await.unwrap();
    assert_eq!(bench.plan.calls(Op::Write), 4);
}

pub(crate) async fn full_batches_wait_for_newer_values_too(world: World) {
    let bench = Bench::new(world, patient().batch_keys(2)).await;
    for value in 0..3 {
        for key in 0..10 {
            bench.region.set(&key, value).await.unwrap();
        }
        bench.world.settle().await;
    }
    assert_eq!(bench.plan.calls(Op::Write), 0);
    assert_eq!(bench.queue().counts.superseded, 20);
    bench.cache.flush(NEVER).await.unwrap();
    assert_eq!(bench.plan.calls(Op::Write), 5);
}

pub(crate) async fn a_queue_that_is_more_than_half_full_waits_no_longer(world: World) {
    for behind in [patient().entries(11), patient().bytes(11 * 200)] {
        let bench = Bench::new(world.clone(), behind.batch_keys(2)).await;
        let names: Region<Vec<u8>, u64> = bench.cache.region("blob").no_expiry().build().unwrap();
        for key in 0..5 {
            names.set(&key, vec![1; 150]).await.unwrap();
        }
        bench.world.settle().await;
        assert_eq!(bench.plan.calls(Op::Write), 0, "{:?}", bench.queue());
        for key in 5..8 {
            names.set(&key, vec![1; 150]).await.unwrap();
        }
        bench.world.until("some are sent", || bench.queue().queued <= 5).await;
        bench.world.settle().await;
        assert!(bench.queue().queued >= 4, "what remains waits: {:?}", bench.queue());
    }
}

pub(crate) async fn a_lone_write_goes_after_the_delay(world: World) {
    let bench = Bench::new(world, WriteBehind::memory().max_delay(Duration::from_millis(20))).await;
    bench.region.set(&1, 1).await.unwrap();
    bench.world.until("it is applied", || bench.queue().queued == 0).await;
    assert!(bench.stored(1).is_some());
}

pub(crate) async fn a_clear_takes_what_is_pending(world: World) {
    let bench = Bench::new(world, patient()).await;
    bench.region.set(&1, 1).await.unwrap();
    bench.region.clear().await.unwrap();
    assert_eq!(bench.queue().queued, 0);
    assert_eq!(bench.shown(1).await, None);
    bench.region.set(&1, 2).await.unwrap();
    bench.cache.flush(NEVER).await.unwrap();
    assert_eq!(bench.shown(1).await, Some(2));
}

pub(crate) async fn a_failed_write_is_tried_again(world: World) {
    let bench = Bench::new(world, eager()).await;
    bench.plan.next_on(Op::Write, Fault::Error, 3);
    bench.region.set(&1, 1).await.unwrap();
    bench.world.until("it is applied", || bench.queue().queued == 0).await;
    assert_eq!(bench.queue().counts.retries, 3);
    assert_eq!(bench.shown(1).await, Some(1));
}

pub(crate) async fn a_write_that_never_succeeds_is_a_dead_letter(world: World) {
    let bench = Bench::new(world, eager().retry(Retry::default().attempts(1))).await;
    bench.region.set(&1, 1).await.unwrap();
    bench.cache.flush(NEVER).await.unwrap();
    bench.plan.next_on(Op::Write, Fault::Error, 1);
    bench.region.set(&1, 2).await.unwrap();
    bench.world.until("it is given up", || !bench.letters.letters().is_empty()).await;
    let letter = bench.letters.letters().remove(0);
    assert_eq!((letter.reason, letter.attempts), (DeadReason::Attempts, 1));
    assert_eq!(letter.error.as_ref().map(tierkeep::Error::kind), Some(ErrorKind::Backend));
    bench.evict(1);
    assert_eq!(bench.shown(1).await, None, "what it should have replaced does not come back");
    assert_eq!(bench.cache.redrive(&letter).await.unwrap(), Redriven::Queued);
    assert_eq!(bench.shown(1).await, Some(2));
    bench.cache.flush(NEVER).await.unwrap();
    assert_eq!(bench.shown(1).await, Some(2));
    bench.region.set(&1, 3).await.unwrap();
    assert_eq!(bench.cache.redrive(&letter).await.unwrap(), Redriven::Superseded);
    bench.cache.flush(NEVER).await.unwrap();
    assert_eq!(bench.cache.redrive(&letter).await.unwrap(), Redriven::Superseded);
    bench.queue();
}

pub(crate) async fn a_full_queue_rejects(world: World) {
    let bench = Bench::new(world, patient().entries(2).overload(Overload::Reject)).await;
    bench.plan.rate_on(Op::Write, Fault::Error, 1.0);
    bench.region.set(&1, 1).await.unwrap();
    bench.region.set(&2, 1).await.unwrap();
    let error = bench.region.set(&3, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    bench.region.set(&2, 2).await.unwrap();
    let queue = bench.queue();
    assert_eq!((queue.queued, queue.counts.rejected, queue.full), (2, 1, true));
}

pub(crate) async fn a_full_queue_blocks_until_there_is_room(world: World) {
    let bench = Bench::new(world.clone(), patient().entries(1).overload(Overload::Block(NEVER))).await;
    bench.plan.rate_on(Op::Write, Fault::Error, 1.0);
    bench.region.set(&1, 1).await.unwrap();
    let region = bench.region.clone();
    let second = world.runtime.spawn(async move { region.set(&2, 2).await });
    world.until("it waits", || bench.queue().waiting == 1).await;
    bench.plan.heal();
    bench.cache.flush(NEVER).await.unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(bench.shown(2).await, Some(2));
}

pub(crate) async fn a_full_queue_blocks_no_longer_than_it_says(world: World) {
    let longest = Duration::from_millis(30);
    let bench = Bench::new(world, patient().entries(1).overload(Overload::Block(longest))).await;
    bench.plan.rate_on(Op::Write, Fault::Error, 1.0);
    bench.region.set(&1, 1).await.unwrap();
    let began = bench.world.runtime.now();
    assert_eq!(bench.region.set(&2, 2).await.unwrap_err().kind(), ErrorKind::Overloaded);
    bench.world.assert_within(began, longest, "waiting for room");
    assert_eq!(bench.queue().counts.rejected, 1);
}

pub(crate) async fn a_full_queue_writes_through(world: World) {
    let bench = Bench::new(world, patient().entries(1).overload(Overload::WriteThrough)).await;
    bench.plan.next_on(Op::Write, Fault::Hang, 1);
    bench.region.set(&1, 1).await.unwrap();
    bench.world.until("it is on its way", || bench.plan.calls(Op::Write) == 1).await;
    bench.region.set(&2, 2).await.unwrap();
    assert!(bench.stored(2).is_some() && bench.stored(1).is_none());
    assert_eq!(bench.queue().counts.written_through, 1);
}

pub(crate) async fn a_full_queue_drops_the_oldest(world: World) {
    let bench = Bench::new(world, patient().entries(2).overload(Overload::DropOldest)).await;
    // Both or none are on their way: of one that is, and one that waits, the latter would go.
    bench.plan.rate_on(Op::Write, Fault::Hang, 1.0);
    for key in 1..=3 {
        bench.region.set(&key, key).await.unwrap();
    }
    bench.world.until("its letter comes", || !bench.letters.letters().is_empty()).await;
    let letter = bench.letters.letters().remove(0);
    assert_eq!((&letter.key, letter.reason), (&bench.region.key(&1), DeadReason::Overload));
    assert!(letter.frame().is_some());
    let queue = bench.queue();
    assert_eq!((queue.queued, queue.counts.dead), (2, 1));
    assert_eq!((bench.shown(2).await, bench.shown(3).await), (Some(2), Some(3)));
}

/// A sink that never answers.
struct Stuck;

#[async_trait]
impl DeadLetterSink for Stuck {
    async fn deliver(&self, _: &DeadLetter) -> BackendResult<()> {
        std::future::pending().await
    }
}

pub(crate) async fn letters_that_wait_weigh_no_more_than_the_queue_may(world: World) {
    const BYTES: usize = 2_000;
    let plan = FaultPlan::new(&world.runtime);
    plan.rate_on(Op::Write, Fault::Error, 1.0);
    let store = Faulty::new(MapBackend::new(), &world.runtime, &plan);
    let behind = patient().bytes(BYTES).overload(Overload::DropOldest).dead_letters(Stuck);
    let cache = Cache::builder(world.runtime.clone())
        .tier(MemoryBackend::entries(10))
        .tier(Tier::new(store).label("store").breaker(BreakerOptions::disabled()).write_behind(behind))
        .build()
        .await
        .unwrap();
    let blobs: Region<Vec<u8>, u64> = cache.region("blob").no_expiry().build().unwrap();
    for key in 0..100 {
        blobs.set(&key, vec![1; 150]).await.unwrap();
    }
    let queue = cache.inspect().tier("store").unwrap().write_behind.clone().unwrap();
    assert!(queue.counts.dead > 80 && queue.letters_waiting <= BYTES / 150, "{queue:?}");
    let letters = queue.letters_waiting as u64 + queue.letters_undelivered + queue.letters_delivered;
    assert_eq!(letters, queue.counts.dead, "each letter is counted: {queue:?}");
    assert!(cache.undelivered_letters().len() <= BYTES / 150);
}

/// A blob of another weight than what is queued, so that it needs room that there is not.
async fn overweight(bench: &Bench, len: usize) -> Region<Vec<u8>, u64> {
    // From the start: a queue that gets full is sent at once.
    bench.plan.rate_on(Op::Write, Fault::Error, 1.0);
    let blobs: Region<Vec<u8>, u64> = bench.cache.region("blob").no_expiry().build().unwrap();
    blobs.set(&1, vec![1; 10]).await.unwrap();
    blobs.set(&2, vec![2; 500]).await.unwrap();
    let refused = blobs.set(&1, vec![3; len]).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Overloaded);
    blobs
}

async fn blob(bench: &Bench, blobs: &Region<Vec<u8>, u64>, id: u64) -> Option<u8> {
    bench.cache.get_from::<Vec<u8>>("store", &blobs.key(&id)).await.ok().flatten().map(|hit| hit[0])
}

pub(crate) async fn a_refused_write_leaves_what_was_accepted_queued(world: World) {
    let bench = Bench::new(world, patient().bytes(1_000).overload(Overload::Reject)).await;
    let blobs = overweight(&bench, 900).await;
    let queue = bench.queue();
    assert_eq!((queue.queued, queue.counts.superseded), (2, 0), "the older one was acknowledged: {queue:?}");
    assert_eq!(blob(&bench, &blobs, 1).await, None, "memory may have shown the newer one");
    bench.world.settle().await;
    assert_eq!(bench.queue().queued, 2, "the store has neither");
    bench.plan.heal();
    bench.cache.flush(NEVER).await.unwrap();
    let queue = bench.queue();
    assert_eq!((queue.queued, queue.counts.superseded, queue.counts.applied), (0, 1, 1), "{queue:?}");
    assert_eq!(blob(&bench, &blobs, 1).await, Some(3), "the repair brought it");
}

pub(crate) async fn a_newer_write_takes_the_place_of_one_behind_a_refused_one(world: World) {
    let bench = Bench::new(world, patient().bytes(1_000).overload(Overload::Reject)).await;
    let blobs = overweight(&bench, 900).await;
    blobs.set(&1, vec![4; 10]).await.unwrap();
    assert_eq!(blob(&bench, &blobs, 1).await, Some(4));
    assert_eq!(bench.queue().counts.superseded, 1);
    bench.plan.heal();
    bench.cache.flush(NEVER).await.unwrap();
    assert_eq!(blob(&bench, &blobs, 1).await, Some(4));
    let queue = bench.queue();
    assert_eq!((queue.counts.accepted, queue.counts.superseded, queue.counts.applied), (3, 1, 2));
}

pub(crate) async fn a_cancelled_write_leaves_what_was_accepted_queued(world: World) {
    let bench = Bench::new(world.clone(), patient().bytes(1_000).overload(Overload::Block(NEVER))).await;
    bench.plan.rate_on(Op::Write, Fault::Error, 1.0);
    let blobs: Region<Vec<u8>, u64> = bench.cache.region("blob").no_expiry().build().unwrap();
    blobs.set(&1, vec![1; 10]).await.unwrap();
    blobs.set(&2, vec![2; 500]).await.unwrap();
    let waits = blobs.set(&1, vec![3; 900]);
    assert!(world.runtime.deadline(world.runtime.now(), Box::pin(waits)).await.is_none());
    bench.world.settle().await;
    let queue = bench.queue();
    assert_eq!((queue.queued, queue.counts.superseded), (2, 0), "{queue:?}");
}

pub(crate) async fn what_a_refused_write_displaced_for_good_is_a_dead_letter(world: World) {
    let bench = Bench::new(world, patient().bytes(1_000).overload(Overload::Reject)).await;
    bench.plan.rate_on(Op::Write, Fault::Error, 1.0);
    let large: Region<Vec<u8>, u64> = bench.cache.region("large").no_expiry().build().unwrap();
    large.set(&0, vec![0; 10]).await.unwrap();
    for id in 1..3 {
        assert!(large.set(&id, vec![0; 6 << 20]).await.is_err());
    }
    // One more than is kept for repairs, so that its repair removes the key instead.
    let blobs = overweight(&bench, 6 << 20).await;
    bench.world.until("its letter comes", || !bench.letters.letters().is_empty()).await;
    let letter = bench.letters.letters().remove(0);
    assert_eq!((&letter.key, letter.reason), (&blobs.key(&1), DeadReason::Displaced));
    let queue = bench.queue();
    assert_eq!((queue.queued, queue.counts.superseded, queue.counts.dead), (2, 0, 1), "{queue:?}");
}

pub(crate) async fn a_bypass_hands_out_what_refused_writes_displaced(world: World) {
    let behind = patient().bytes(1_000).overload(Overload::Reject);
    let bench =
        Bench::with(world, behind, |tier| tier.breaker(BreakerOptions::disabled()).quarantine(1)).await;
    let blobs = overweight(&bench, 900).await;
    assert!(blobs.set(&3, vec![5; 900]).await.is_err());
    bench.world.until("its letter comes", || !bench.letters.letters().is_empty()).await;
    assert_eq!(bench.letters.letters()[0].key, blobs.key(&1));
    let queue = bench.queue();
    assert_eq!((queue.queued, queue.counts.superseded, queue.counts.dead), (1, 0, 1), "{queue:?}");
}

pub(crate) async fn a_shutdown_hands_out_what_a_refused_write_stands_before(world: World) {
    let bench = Bench::new(world, patient().bytes(1_000).overload(Overload::Reject)).await;
    let blobs = overweight(&bench, 900).await;
    let report = bench.cache.shutdown(Duration::from_secs(3)).await;
    let behind = report.tiers[1].write_behind.unwrap();
    assert_eq!((behind.accepted, behind.superseded, behind.dead), (2, 0, 2), "{behind:?}");
    let letters = bench.letters.letters();
    assert!(letters.iter().any(|letter| letter.key == blobs.key(&1)), "{letters:?}");
}

pub(crate) async fn a_repair_that_never_succeeds_holds_up_no_flush(world: World) {
    // It must not have died before the newer one is refused.
    let pause = Duration::from_millis(400);
    let retry = Retry::default().attempts(3).backoff(pause, pause);
    let bench = Bench::new(world, patient().bytes(1_000).overload(Overload::Reject).retry(retry)).await;
    let blobs = overweight(&bench, 900).await;
    bench.cache.flush(Duration::from_secs(60)).await.unwrap();
    let queue = bench.queue();
    assert_eq!((queue.queued, queue.counts.dead), (0, 2), "{queue:?}");
    bench.world.until("the letters come", || bench.letters.letters().len() == 2).await;
    let letters = bench.letters.letters();
    let displaced = letters.iter().find(|letter| letter.key == blobs.key(&1)).unwrap();
    assert_eq!((displaced.reason, displaced.attempts), (DeadReason::Displaced, 3));
    bench.plan.heal();
    let repaired = || bench.cache.inspect().tier("store").unwrap().quarantined == 0;
    bench.world.until("the newer one is repaired all the same", repaired).await;
    assert_eq!(blob(&bench, &blobs, 1).await, Some(3));
}

pub(crate) async fn a_poison_entry_stands_alone_in_the_end(world: World) {
    let retry = Retry::default().attempts(2).backoff(Duration::from_millis(5), Duration::from_millis(5));
    let bench = Bench::new(world, patient().batch_keys(64).retry(retry)).await;
    bench.plan.next_on(Op::Write, Fault::Panic, 1);
    for key in 0..64 {
        bench.region.set(&key, key).await.unwrap();
    }
    bench.cache.flush(NEVER).await.unwrap();
    let counts = bench.queue().counts;
    assert_eq!((counts.applied, counts.dead), (64, 0));
    assert!(counts.splits >= 64, "the batch that failed was split: {counts:?}");
}

/// A store that takes no batch with a certain key in it.
struct Poisoned {
    store: MapBackend,
    poison: CacheKey,
}

#[async_trait]
impl Backend for Poisoned {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.store.read(key).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.store.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.store.remove(key).await
    }

    async fn write_entries(&self, entries: Vec<(CacheKey, Entry)>) -> Vec<BackendResult<()>> {
        if entries.iter().any(|(key, _)| *key == self.poison) {
            return entries.iter().map(|_| Err(Error::new(ErrorKind::Backend, "poison"))).collect();
        }
        self.store.write_entries(entries).await
    }
}

pub(crate) async fn a_poison_key_among_many_delays_the_others_by_less_than_a_retry(world: World) {
    const KEYS: u64 = 10_000;
    let retry = Duration::from_secs(20);
    let key = |n: u64| CacheKey::new("n", 1, [KeyPart::flag(n.to_string())]);
    let store = MapBackend::new();
    let poisoned = Poisoned { store: store.clone(), poison: key(KEYS / 2) };
    let behind = patient().retry(Retry::default().backoff(retry, retry));
    let cache = Cache::builder(world.runtime.clone())
        .tier(MemoryBackend::entries(10))
        .tier(Tier::new(poisoned).label("store").write_behind(behind))
        .build()
        .await
        .unwrap();
    let began = world.runtime.now();
    for n in 0..KEYS {
        cache.set(&key(n), n, None).await.unwrap();
    }
    let flush = {
        let cache = cache.clone();
        world.runtime.spawn(async move { cache.flush(NEVER).await })
    };
    world.until("all others are applied", || store.len() as u64 == KEYS - 1).await;
    let took = world.runtime.now().since(began);
    assert!(took < retry / 2, "the others were delayed by {took:?}");
    drop(flush);
}

pub(crate) async fn a_store_away_for_longer_than_the_queue_holds(world: World) {
    const ROOM: u64 = 20;
    for overload in [
        Overload::Block(Duration::from_millis(1)),
        Overload::Reject,
        Overload::WriteThrough,
        Overload::DropOldest,
    ] {
        let behind = eager().entries(20).retry(
            Retry::default().attempts(u32::MAX).backoff(Duration::from_millis(5), Duration::from_millis(10)),
        );
        let bench = Bench::new(world.clone(), behind.overload(overload)).await;
        bench.plan.rate_on(Op::Write, Fault::Error, 1.0);
        let mut failed = 0;
        for key in 0..3 * ROOM {
            failed += u64::from(bench.region.set(&key, key).await.is_err());
            assert!(bench.queue().queued as u64 <= ROOM, "{overload:?}");
        }
        let counts = bench.queue().counts;
        match overload {
            Overload::DropOldest => assert_eq!((failed, counts.dead), (0, 2 * ROOM)),
            Overload::WriteThrough => assert_eq!(counts.written_through, 2 * ROOM),
            _ => assert_eq!((failed, counts.rejected), (2 * ROOM, 2 * ROOM), "{overload:?}"),
        }
        bench.plan.heal();
        bench.cache.flush(NEVER).await.unwrap();
        assert_eq!(bench.queue().counts.applied, ROOM, "{overload:?}");
    }
}

pub(crate) async fn an_open_breaker_pauses_the_drain(world: World) {
    let breaker = BreakerOptions {
        min_calls: 3,
        open: Duration::from_millis(50),
        open_max: Duration::from_millis(100),
        ..BreakerOptions::default()
    };
    let bench = Bench::with(world, eager().batch_keys(8), |tier| tier.breaker(breaker)).await;
    bench.plan.rate_on(Op::Write, Fault::Error, 1.0);
    for key in 0..50 {
        bench.region.set(&key, key).await.unwrap();
    }
    bench
        .world
        .until("the breaker opens", || bench.cache.inspect().tier("store").unwrap().breaker_opened > 1)
        .await;
    assert_eq!(bench.queue().counts.dead, 0);
    assert_eq!(bench.shown(7).await, Some(7), "what is pending shows while the store is away");
    bench.plan.heal();
    bench.world.until("all are applied", || bench.queue().queued == 0).await;
    assert_eq!(bench.queue().counts.applied, 50);
}

/// Opens soon, and asks again soon.
fn touchy() -> BreakerOptions {
    BreakerOptions {
        min_calls: 3,
        open: Duration::from_millis(10),
        open_max: Duration::from_millis(20),
        ..BreakerOptions::default()
    }
}

pub(crate) async fn a_poison_key_alone_dies_though_it_is_every_probe(world: World) {
    let retry = Retry::default().attempts(6).backoff(Duration::from_millis(5), Duration::from_millis(5));
    let bench = Bench::with(world, eager().retry(retry), |tier| tier.breaker(touchy())).await;
    bench.plan.rate_on(Op::Write, Fault::Error, 1.0);
    bench.region.set(&1, 1).await.unwrap();
    bench.world.until("it is given up", || !bench.letters.letters().is_empty()).await;
    let letter = bench.letters.letters().remove(0);
    assert_eq!((letter.reason, letter.attempts), (DeadReason::Attempts, 6));
}

pub(crate) async fn a_store_that_does_not_answer_kills_nothing_by_its_probes(world: World) {
    let retry = Retry::default().attempts(6).backoff(Duration::from_millis(5), Duration::from_millis(5));
    let bench = Bench::with(world, eager().retry(retry), |tier| {
        tier.breaker(touchy()).write_deadline(Duration::from_millis(5))
    })
    .await;
    bench.plan.rate_on(Op::Write, Fault::Hang, 1.0);
    bench.region.set(&1, 1).await.unwrap();
    let opened = || bench.cache.inspect().tier("store").unwrap().breaker_opened;
    bench.world.until("it was probed often", || opened() > 8).await;
    assert_eq!((bench.queue().queued, bench.queue().counts.dead), (1, 0));
    bench.plan.heal();
    bench.cache.flush(NEVER).await.unwrap();
    assert_eq!(bench.queue().counts.applied, 1);
}

pub(crate) async fn another_key_than_the_failing_one_is_the_probe(world: World) {
    let store = MapBackend::new();
    let key = |n: u64| CacheKey::new("n", 1, [KeyPart::flag(n.to_string())]);
    let poisoned = Poisoned { store: store.clone(), poison: key(0) };
    let retry =
        Retry::default().attempts(u32::MAX).backoff(Duration::from_millis(5), Duration::from_millis(5));
    let breaker = BreakerOptions { open_max: Duration::from_secs(60), ..touchy() };
    let cache = Cache::builder(world.runtime.clone())
        .tier(MemoryBackend::entries(10))
        .tier(Tier::new(poisoned).label("store").breaker(breaker).write_behind(eager().retry(retry)))
        .build()
        .await
        .unwrap();
    cache.set(&key(0), 0, None).await.unwrap();
    let opened = || cache.inspect().tier("store").unwrap().breaker_opened;
    world.until("the breaker opens", || opened() > 0).await;
    for n in 1..5 {
        cache.set(&key(n), n, None).await.unwrap();
    }
    let before = opened();
    world.until("the others are applied", || store.len() == 4).await;
    assert!(opened() <= before + 2, "the first probe after they came was one of them");
}

pub(crate) async fn what_gets_too_old_while_the_breaker_is_open_is_given_up(world: World) {
    // The first one must not die before the breaker has opened, however slow the machine.
    let age = Duration::from_millis(if world.sim().is_some() { 100 } else { 2_000 });
    let breaker =
        BreakerOptions { open: Duration::from_secs(40), open_max: Duration::from_secs(40), ..touchy() };
    let retry =
        Retry::default().attempts(u32::MAX).backoff(Duration::from_millis(5), Duration::from_millis(5));
    let bench = Bench::with(world, eager().retry(retry.age(age)), |tier| tier.breaker(breaker)).await;
    bench.plan.rate_on(Op::Write, Fault::Error, 1.0);
    bench.region.set(&1, 1).await.unwrap();
    bench
        .world
        .until("the breaker opens", || bench.cache.inspect().tier("store").unwrap().breaker_opened > 0)
        .await;
    let began = bench.world.runtime.now();
    // This one has never been tried.
    bench.region.set(&2, 2).await.unwrap();
    bench.world.until("both are given up", || bench.letters.letters().len() == 2).await;
    // `until` looks every 20 ms.
    bench.world.assert_within(began, age + Duration::from_millis(20), "giving up");
    assert!(bench.letters.letters().iter().all(|letter| letter.reason == DeadReason::Age));
    assert_eq!(bench.queue().queued, 0);
}

pub(crate) async fn a_shutdown_drains(world: World) {
    let bench = Bench::new(world, patient()).await;
    for key in 0..10 {
        bench.region.set(&key, key).await.unwrap();
    }
    let report = bench.cache.shutdown(Duration::from_secs(20)).await;
    assert!(report.clean, "{report:?}");
    let behind = report.tiers[1].write_behind.unwrap();
    assert_eq!((behind.accepted, behind.applied, behind.lost), (10, 10, 0));
    assert_eq!(bench.store.len(), 10);
}

pub(crate) async fn a_shutdown_with_the_store_away_hands_out_letters(world: World) {
    let retry =
        Retry::default().attempts(u32::MAX).backoff(Duration::from_millis(5), Duration::from_millis(20));
    let bench = Bench::new(world, eager().retry(retry)).await;
    bench.plan.rate_on(Op::Write, Fault::Error, 1.0);
    for key in 0..10 {
        bench.region.set(&key, key).await.unwrap();
    }
    let report = bench.cache.shutdown(Duration::from_secs(1)).await;
    assert!(!report.clean);
    let behind = report.tiers[1].write_behind.unwrap();
    assert_eq!((behind.accepted, behind.dead, behind.lost), (10, 10, 10));
    // In what is left of the time, an eighth, or soon after it on a busy machine.
    bench.world.until("the letters come", || bench.letters.letters().len() == 10).await;
    let letters = bench.letters.letters();
    assert!(letters.iter().all(|letter| letter.reason == DeadReason::Shutdown));
}

pub(crate) async fn a_shutdown_tries_once_more_what_waits_to_be_tried_again(world: World) {
    let long = Duration::from_secs(60);
    let bench = Bench::new(world, eager().retry(Retry::default().backoff(long, long))).await;
    bench.plan.next_on(Op::Write, Fault::Error, 1);
    bench.region.set(&1, 1).await.unwrap();
    bench.world.until("it has failed", || bench.queue().counts.retries == 1).await;
    let report = bench.cache.shutdown(Duration::from_secs(5)).await;
    let behind = report.tiers[1].write_behind.unwrap();
    assert_eq!((behind.applied, behind.lost), (1, 0), "{report:?}");
}

/// Two keys on their way to the store, of which the first was written again meanwhile.
async fn overwritten_in_flight(world: World) -> Bench {
    let bench = Bench::new(world, eager()).await;
    bench.plan.delays(Duration::from_millis(400)..=Duration::from_millis(450));
    bench.plan.rate_on(Op::Write, Fault::Delay, 1.0);
    bench.region.set_many([(&1, 1), (&2, 2)]).await.into_iter().for_each(|set| set.unwrap());
    bench.world.until("both are on their way", || bench.queue().in_flight == 2).await;
    bench.region.set(&1, 3).await.unwrap();
    bench
}

pub(crate) async fn a_flush_waits_for_what_was_written_anew_in_flight(world: World) {
    let bench = overwritten_in_flight(world).await;
    bench.cache.flush(NEVER).await.unwrap();
    assert_eq!(bench.queue().queued, 0);
    bench.evict(1);
    assert_eq!(bench.shown(1).await, Some(3));
}

pub(crate) async fn a_shutdown_waits_for_what_was_written_anew_in_flight(world: World) {
    let bench = overwritten_in_flight(world).await;
    let report = bench.cache.shutdown(Duration::from_secs(5)).await;
    let behind = report.tiers[1].write_behind.unwrap();
    assert_eq!((behind.applied, behind.superseded, behind.lost), (2, 1, 0), "{report:?}");
}

/// A store that compares needs not wait for an older attempt that may still be applied.
pub(crate) async fn what_was_accepted_behind_a_call_that_never_returns_is_sent_to_a_store_that_compares(
    world: World,
) {
    let plan = FaultPlan::new(&world.runtime);
    let store = MapBackend::comparing();
    let behind =
        eager().entries(1).attempt_deadline(Duration::from_millis(20)).overload(Overload::WriteThrough);
    let low = Tier::new(Faulty::new(store.clone(), &world.runtime, &plan))
        .label("store")
        .breaker(BreakerOptions::disabled())
        .write_deadline(Duration::from_millis(400))
        .write_behind(behind);
    let builder = Cache::builder(world.runtime.clone()).tier(MemoryBackend::entries(1000)).tier(low);
    let cache = builder.build().await.unwrap();
    let region: Region<u64, u64> = cache.region("n").no_expiry().build().unwrap();
    let queued = || cache.inspect().tier("store").unwrap().write_behind.clone().unwrap().queued;
    // The first fills the queue for a while; the second finds it full, is written through, and never returns; the third
    // is accepted meanwhile.
    plan.next_on(Op::Write, Fault::Hang, 2);
    region.set(&1, 1).await.unwrap();
    let through = region.set(&2, 2);
    let accepted = async {
        world.until("both are on their way", || plan.count(Fault::Hang) == 2).await;
        world.until("there is room", || queued() == 0).await;
        region.set(&2, 3).await.unwrap();
        assert_eq!(queued(), 1, "it waits for the call to end");
    };
    let _ = futures_util::future::join(through, accepted).await;
    cache.flush(NEVER).await.unwrap();
    assert_eq!(cache.get_from::<u64>("store", &region.key(&2)).await.unwrap().map(|hit| *hit), Some(3));
}

/// Panics before there is a future.
struct Careless(Arc<AtomicUsize>);

impl DeadLetterSink for Careless {
    fn deliver<'a, 'b, 'c>(&'a self, _: &'b DeadLetter) -> BoxFuture<'c, BackendResult<()>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("careless")
    }
}

pub(crate) async fn a_sink_that_panics_is_asked_once_a_letter(world: World) {
    let asked = Arc::new(AtomicUsize::new(0));
    // A full queue waits for nothing: the store must be away, or it takes some of them.
    let plan = FaultPlan::new(&world.runtime);
    plan.rate_on(Op::Write, Fault::Error, 1.0);
    let behind =
        patient().entries(1).overload(Overload::DropOldest).dead_letters(Careless(Arc::clone(&asked)));
    let store = Tier::new(Faulty::new(MapBackend::new(), &world.runtime, &plan))
        .label("store")
        .breaker(BreakerOptions::disabled())
        .write_behind(behind);
    let builder = Cache::builder(world.runtime.clone()).tier(MemoryBackend::entries(1000)).tier(store);
    let cache = builder.build().await.unwrap();
    let region: Region<u64, u64> = cache.region("n").no_expiry().build().unwrap();
    for key in 0..4 {
        region.set(&key, key).await.unwrap();
    }
    let queue = || cache.inspect().tier("store").unwrap().write_behind.clone().unwrap();
    world.until("each letter was tried", || queue().letters_undelivered == 3).await;
    assert_eq!((asked.load(Ordering::Relaxed), cache.undelivered_letters().len()), (3, 3));
}

pub(crate) async fn an_older_attempt_that_hangs_is_waited_for(world: World) {
    let bench = Bench::with(world, eager(), |tier| {
        tier.breaker(BreakerOptions::disabled()).write_deadline(Duration::from_millis(20))
    })
    .await;
    bench.plan.late(Duration::from_millis(30)..=Duration::from_millis(40));
    bench.plan.next_on(Op::Write, Fault::Zombie, 1);
    bench.region.set(&1, 1).await.unwrap();
    bench.world.until("it is on its way", || bench.plan.count(Fault::Zombie) == 1).await;
    bench.region.set(&1, 2).await.unwrap();
    bench.world.until("the newer one is applied", || bench.queue().queued == 0).await;
    bench.world.settle().await;
    assert_eq!(bench.shown(1).await, Some(2));
}

pub(crate) async fn a_failure_of_an_older_attempt_is_not_the_newer_change_s(world: World) {
    let behind = eager().retry(Retry::default().attempts(1));
    let bench = Bench::with(world, behind, |tier| {
        tier.breaker(BreakerOptions::disabled()).write_deadline(Duration::from_millis(20))
    })
    .await;
    bench.plan.late(Duration::from_millis(30)..=Duration::from_millis(40));
    bench.plan.next_on(Op::Write, Fault::Zombie, 1);
    bench.region.set(&1, 1).await.unwrap();
    bench.world.until("it is on its way", || bench.plan.count(Fault::Zombie) == 1).await;
    bench.region.set(&1, 2).await.unwrap();
    bench.world.until("nothing is queued", || bench.queue().queued == 0).await;
    let counts = bench.queue().counts;
    assert_eq!((counts.applied, counts.superseded, counts.dead), (1, 1, 0), "{counts:?}");
}

/// A runtime that loses tasks, as one does that is shut down before the cache is.
#[derive(Debug, Clone)]
struct Losing(RuntimeHandle, Arc<AtomicUsize>);

impl Runtime for Losing {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn execute(&self, task: BoxFuture<'static, ()>) {
        let lost = self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if lost.is_err() {
            self.0.execute(task);
        }
    }

    fn execute_blocking(&self, job: BlockingJob) {
        self.0.execute_blocking(job);
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        self.0.sleep_until(deadline)
    }

    fn now(&self) -> Instant {
        self.0.now()
    }

    fn wall(&self) -> Timestamp {
        self.0.wall()
    }

    fn random(&self) -> u64 {
        self.0.random()
    }
}

pub(crate) async fn a_call_whose_task_is_lost_is_tried_again(world: World) {
    let losing = Losing(world.runtime.clone(), Arc::default());
    let mut lossy = world.clone();
    lossy.runtime = RuntimeHandle::new(losing.clone());
    let bench = Bench::new(lossy, patient()).await;
    bench.region.set(&1, 1).await.unwrap();
    bench.world.settle().await;
    losing.1.store(1, Ordering::SeqCst);
    bench.cache.flush(Duration::from_secs(20)).await.unwrap();
    assert_eq!(losing.1.load(Ordering::SeqCst), 0, "a task was lost");
    assert!(bench.stored(1).is_some());
    assert_eq!(bench.queue().counts.applied, 1);
}

pub(crate) async fn who_waits_for_room_is_told_of_the_shutdown(world: World) {
    let retry = Retry::default().attempts(u32::MAX);
    let behind = eager().retry(retry).entries(1).overload(Overload::Block(NEVER));
    let bench = Bench::new(world.clone(), behind).await;
    bench.plan.rate_on(Op::Write, Fault::Error, 1.0);
    bench.region.set(&1, 1).await.unwrap();
    let region = bench.region.clone();
    let second = world.runtime.spawn(async move { region.set(&2, 2).await });
    world.until("it waits", || bench.queue().waiting == 1).await;
    let began = world.runtime.now();
    bench.cache.shutdown(Duration::from_secs(1)).await;
    assert_eq!(second.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    world.assert_within(began, Duration::from_secs(2), "the end of the waiting");
}

pub(crate) async fn no_policy_acknowledges_what_is_not_queued(world: World) {
    let policies = [
        WritePolicy::Race,
        WritePolicy::Sequential,
        WritePolicy::WriteAround,
        WritePolicy::OptimisticParallel { require_all: false },
    ];
    for policy in policies {
        let label = format!("{policy:?}");
        let behind = patient().entries(1).overload(Overload::Reject);
        // A full queue is sent at once: the store takes nothing.
        let plan = FaultPlan::new(&world.runtime);
        plan.rate(Fault::Error, 1.0);
        let store = Faulty::new(MapBackend::new(), &world.runtime, &plan);
        let cache = Cache::builder(world.runtime.clone())
            .tier(MemoryBackend::entries(1000))
            .tier(Tier::new(store).label("store").write_behind(behind))
            .tier(Tier::new(MapBackend::new()).label("last"))
            .write_policy(policy)
            .build()
            .await
            .unwrap();
        let region: Region<u64, u64> = cache.region("n").no_expiry().build().unwrap();
        region.set(&1, 1).await.unwrap();
        let refused = region.set(&2, 2).await.expect_err("the queue has it not");
        assert_eq!(refused.kind(), ErrorKind::Overloaded, "{label}");
    }
}

pub(crate) async fn what_cannot_work_is_said_at_build(world: World) {
    let built = |tiers: Vec<Tier>| {
        let builder = Cache::builder(world.runtime.clone());
        tiers.into_iter().fold(builder, |builder, tier| builder.tier(tier)).build()
    };
    let behind = || WriteBehind::memory();
    let memory = || Tier::new(MemoryBackend::entries(10));
    let store = || Tier::new(MapBackend::new());
    for tiers in [
        vec![store().write_behind(behind())],
        vec![memory(), store().read_only(true).write_behind(behind())],
        vec![memory(), store().write_behind(behind().entries(0))],
        vec![memory(), store().write_behind(behind().overload(Overload::Block(Duration::ZERO)))],
        vec![memory(), store().write_behind(behind().retry(Retry::default().attempts(0)))],
    ] {
        assert_eq!(built(tiers).await.unwrap_err().kind(), ErrorKind::Config);
    }
}
