//! Who hears of a cache or holds its entries may do as it likes: ask it back, or panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::Stream;
use tierkeep::backend::{Holds, Port, Usage};
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{
    Backend, BackendLabel, BackendResult, Cache, CacheKey, CacheValue, DeleteStatus, EventKind, EventStream,
    MemoryBackend, Raw, Tier, Timestamp,
};
use tierkeep_sim::{Fault, Op};

use crate::support::{Store, exact, ms, numbers, run, served};

/// Asks the cache how it stands whenever an event comes, which takes every lock there is; then panics.
struct Curious {
    cache: Cache,
    asked: AtomicUsize,
}

impl Wake for Curious {
    fn wake(self: Arc<Self>) {
        self.cache.inspect();
        self.asked.fetch_add(1, Ordering::SeqCst);
        std::panic::resume_unwind(Box::new("a listener's panic"));
    }
}

/// Takes what there is, and has `curious` woken by the next event.
fn listen(events: &mut EventStream, curious: &Arc<Curious>) -> Vec<EventKind> {
    let waker = Waker::from(Arc::clone(curious));
    let mut context = Context::from_waker(&waker);
    let mut kinds = Vec::new();
    while let std::task::Poll::Ready(Some(event)) = std::pin::Pin::new(&mut *events).poll_next(&mut context) {
        kinds.push(event.kind);
    }
    kinds
}

#[test]
fn a_listener_may_ask_the_cache_from_its_waker_and_panic() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let store = Store::new(&runtime);
    run(&sim, async {
        let tier = store.tier("store").quarantine(2);
        let cache = Cache::builder(runtime.clone()).tier(tier).build().await.unwrap();
        let region = numbers(&cache);
        let curious = Arc::new(Curious { cache: cache.clone(), asked: AtomicUsize::new(0) });
        let asked = || curious.asked.load(Ordering::SeqCst);
        let mut events = cache.events();
        assert_eq!(listen(&mut events, &curious), []);
        cache.bypass("store", true).unwrap();
        assert_eq!(asked(), 1, "by an operator");
        listen(&mut events, &curious);
        cache.bypass("store", false).unwrap();
        served(&runtime, &cache, "store").await;
        assert_eq!((asked(), listen(&mut events, &curious)), (2, vec![EventKind::BypassEnded]));
        store.plan.next_on(Op::Write, Fault::Error, 3);
        for key in 0..3 {
            let _ = region.set(&key, 1).await;
        }
        assert_eq!(asked(), 3, "by an overflow");
        served(&runtime, &cache, "store").await;
        listen(&mut events, &curious);
        let before = asked();
        store.plan.next_on(Op::Read, Fault::Error, 20);
        for key in 0..20 {
            assert!(region.get(&key).await.is_none());
        }
        assert_eq!(asked(), before + 1, "by the breaker");
        assert!(listen(&mut events, &curious).contains(&EventKind::BreakerOpened));
        // What is left of the failures goes to the probes.
        while region.set(&1, 2).await.is_err() || region.get(&1).await.is_none() {
            runtime.sleep(Duration::from_secs(60)).await;
        }
    });
}

/// A memory tier whose every short answer is a panic, but for every other sweep.
struct Rude(MemoryBackend, AtomicUsize);

#[async_trait]
impl Backend for Rude {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.0.read(key).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.0.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.0.remove(key).await
    }

    fn label(&self) -> BackendLabel {
        Backend::label(&self.0)
    }

    fn holds(&self) -> Holds {
        self.0.holds()
    }

    fn port(&self) -> Option<Arc<dyn Port>> {
        self.0.port()
    }

    fn usage(&self) -> Usage {
        std::panic::resume_unwind(Box::new("usage"))
    }

    fn running_jobs(&self) -> usize {
        std::panic::resume_unwind(Box::new("jobs"))
    }

    fn sweep(&self, now: Timestamp) -> usize {
        if self.1.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
            std::panic::resume_unwind(Box::new("sweep"));
        }
        self.0.sweep(now)
    }
}

#[test]
fn a_backend_that_panics_when_asked_is_swept_all_the_same() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    run(&sim, async {
        let memory = MemoryBackend::entries(10);
        let tier = Tier::new(Rude(memory.clone(), AtomicUsize::new(0)));
        let cache = Cache::builder(runtime.clone()).tier(tier).build().await.unwrap();
        let region = cache.region::<u64, u64>("n").ttl(ms(10)).build().unwrap();
        region.set(&1, 1).await.unwrap();
        runtime.sleep(Duration::from_secs(5)).await;
        assert_eq!(memory.usage().entries, Some(0), "swept");
        let inspection = cache.inspect();
        let tier = inspection.tier("memory").unwrap();
        assert_eq!((tier.restarts, tier.blocking_jobs), (0, 0));
        assert!(tier.last_failure.is_some(), "and it is told why");
    });
}

#[test]
fn what_expires_at_once_is_swept_within_a_few_moments() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    run(&sim, async {
        let memory = MemoryBackend::entries(100_000);
        let cache = Cache::builder(runtime.clone()).tier(memory.clone()).build().await.unwrap();
        let region = cache.region::<u64, u64>("n").ttl(ms(10)).build().unwrap();
        for key in 0..3_000 {
            region.set(&key, 1).await.unwrap();
        }
        // One round of sweeping, which takes 256 at a time.
        runtime.sleep(ms(1_500)).await;
        assert_eq!(memory.usage().entries, Some(0));
    });
}

#[test]
fn a_damaged_record_is_no_fault_of_the_store() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    run(&sim, async {
        let breaker = tierkeep::BreakerOptions { min_calls: 4, ..Default::default() };
        let cache =
            Cache::builder(runtime.clone()).tier(Tier::new(Damaged).breaker(breaker)).build().await.unwrap();
        let region = numbers(&cache);
        for key in 0..20 {
            assert!(region.get(&key).await.is_none());
        }
        let inspection = cache.inspect();
        let tier = inspection.tier("damaged").unwrap();
        assert_eq!(tier.breaker_opened, 0);
        assert!(tier.decode_alarm);
    });
}

/// A store whose records are all damaged.
struct Damaged;

#[async_trait]
impl Backend for Damaged {
    async fn read(&self, _: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Err(tierkeep::Error::new(tierkeep::ErrorKind::Decode, "a damaged record"))
    }

    async fn write(&self, _: &CacheKey, _: CacheValue<Raw>) -> BackendResult<()> {
        Ok(())
    }

    async fn remove(&self, _: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(DeleteStatus::Missing)
    }

    fn label(&self) -> BackendLabel {
        "damaged".into()
    }
}
