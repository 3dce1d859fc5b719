//! The bench for faults: one faulty tier among healthy ones, and an oracle over everything that is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tierkeep::runtime::{ActorState, RestartPolicy, TaskHandle};
use tierkeep::{
    Backend, BreakerOptions, BreakerState, Cache, ErrorKind, Hit, Lookup, MemoryBackend, Region, Tier,
    TierInspection,
};

use super::store::{Store, patient};
use super::world::World;

/// How many keys are at stake.
pub(crate) const KEYS: u64 = 6;

/// The faulty tier's deadlines.
pub(crate) const DEADLINE: Duration = Duration::from_millis(40);

/// Where the faulty tier stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// Under a memory tier.
    Below,
    /// Between a memory tier and a healthy store.
    Middle,
    /// Over a healthy store.
    Top,
}

impl Position {
    /// Runs `case` with the faulty tier in every position, side by side: most of it is waiting.
    pub(crate) async fn each(case: impl AsyncFn(Self)) {
        join_all([Self::Below, Self::Middle, Self::Top].map(|position| case(position))).await;
    }
}

/// The faulty tier as the tests treat it: given up on soon, restarted soon, retried soon.
pub(crate) fn frail(backend: impl Backend) -> Tier {
    Tier::new(backend)
        .read_deadline(DEADLINE)
        .write_deadline(DEADLINE)
        .breaker(BreakerOptions {
            min_calls: 12,
            open: Duration::from_millis(20),
            open_max: Duration::from_millis(40),
            ..BreakerOptions::default()
        })
        .restart(RestartPolicy {
            limit: 3,
            window: Duration::from_secs(60),
            backoff: Duration::from_millis(2),
            backoff_max: Duration::from_millis(4),
            retry: Duration::from_millis(20),
        })
}

pub(crate) struct Bench {
    pub(crate) world: World,
    pub(crate) position: Position,
    pub(crate) cache: Cache,
    pub(crate) store: Store,
    pub(crate) subject: Subject,
}

/// What is read and written, under the eyes of the oracle.
#[derive(Clone)]
pub(crate) struct Subject {
    region: Region<u64, u64>,
    memory: Option<MemoryBackend>,
    /// Per key, the newest version whose `set` has returned.
    floor: Arc<[AtomicU64]>,
}

/// A reader that goes on in the background.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    task: TaskHandle<u64>,
}

impl Bench {
    /// A cache with `tier`, which works on `store`, in its `position`. Every tier but a memory tier holds version 1 of
    /// every key, from an earlier process.
    pub(crate) async fn new(world: &World, position: Position, store: &Store, tier: Tier) -> Self {
        let deep = Store::new("deep");
        for store in [store, &deep] {
            let earlier = Cache::builder(world.runtime.clone()).tier(store.tier()).build().await.unwrap();
            let region = region(&earlier);
            for key in 0..KEYS {
                region.set(&key, 1).await.unwrap();
            }
        }
        let memory = (position != Position::Top).then(|| MemoryBackend::entries(1000));
        let mut builder = Cache::builder(world.runtime.clone());
        if let Some(memory) = &memory {
            builder = builder.tier(patient(memory.clone()));
        }
        builder = builder.tier(tier.label("faulty"));
        if position != Position::Below {
            builder = builder.tier(deep.tier());
        }
        let cache = builder.build().await.unwrap();
        let floor = (0..KEYS).map(|_| AtomicU64::new(1)).collect();
        let subject = Subject { region: region(&cache), memory, floor };
        Self { world: world.clone(), position, cache, store: store.clone(), subject }
    }

    /// How the faulty tier stands.
    pub(crate) fn faulty(&self) -> TierInspection {
        self.cache.inspect().tier("faulty").unwrap().clone()
    }

    /// Before anything is wrong, the faulty tier answers.
    pub(crate) async fn serves(&self) {
        for key in 0..KEYS {
            self.hit_from_faulty(key, 1).await;
        }
    }

    /// The first read to meet the fault: answered by the healthy tiers within the faulty one's deadline, and told.
    pub(crate) async fn first_read(&self, kind: ErrorKind) {
        self.subject.evict(0).await;
        let began = self.world.runtime.now();
        let lookup = self.subject.read(0).await;
        self.world.assert_within(began, DEADLINE, "a read past a faulty tier");
        let told: Vec<_> =
            lookup.degraded.iter().map(|e| (e.tier().unwrap().as_str().to_owned(), e.kind())).collect();
        assert_eq!(told, [("faulty".to_owned(), kind)], "{:?}", self.position);
        self.answered_by_the_others(0, lookup.hit);
    }

    fn answered_by_the_others(&self, key: u64, hit: Option<Hit<u64>>) {
        let newest = self.subject.floor(key);
        match (self.position, hit) {
            (Position::Below, hit) => assert!(hit.is_none(), "nobody else has it: {hit:?}"),
            (position, hit) => {
                let hit = hit.unwrap_or_else(|| panic!("{position:?}: the tier below has it"));
                assert_eq!((*hit, hit.tier().unwrap().as_str()), (newest, "deep"));
            }
        }
    }

    /// Reads until something shows in the inspection. Every read is answered; a failure is named as one of `kinds`.
    pub(crate) async fn read_until(
        &self,
        what: &str,
        kinds: &[ErrorKind],
        shows: impl Fn(&TierInspection) -> bool,
    ) {
        self.world
            .until_some(what, async || {
                join_all((0..KEYS).map(async |key| {
                    self.subject.evict(key).await;
                    for error in self.subject.read(key).await.degraded {
                        assert_eq!(error.tier().unwrap().as_str(), "faulty");
                        assert!(kinds.contains(&error.kind()), "{error:?}");
                    }
                }))
                .await;
                shows(&self.faulty()).then_some(())
            })
            .await;
    }

    /// Sets every key to `version`: the healthy tiers confirm.
    pub(crate) async fn overwrite(&self, version: u64) {
        let began = self.world.runtime.now();
        join_all((0..KEYS).map(|key| self.subject.set(key, version))).await;
        self.world.assert_within(began, DEADLINE, "a write past a faulty tier");
    }

    /// That a mutation was not confirmed is counted. Its caller may know before the tier has counted it.
    pub(crate) async fn unconfirmed(&self) {
        self.world.until("it is counted", || self.faulty().writes.unconfirmed > 0).await;
    }

    /// While the faulty tier has not confirmed a key, it is not read there.
    pub(crate) async fn is_quarantined(&self, key: u64) {
        self.subject.evict(key).await;
        let lookup = self.subject.read(key).await;
        let kinds: Vec<_> = lookup.degraded.iter().map(tierkeep::Error::kind).collect();
        assert_eq!(kinds, [ErrorKind::Unavailable], "{:?}", self.position);
        self.answered_by_the_others(key, lookup.hit);
        assert!(self.faulty().reads.quarantined > 0);
    }

    /// Reads in the background until told to stop, evicting from memory as it goes, so that every tier is asked.
    pub(crate) fn watch(&self) -> Watch {
        let (subject, runtime) = (self.subject.clone(), self.world.runtime.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = self.world.runtime.spawn(async move {
            let mut reads = 0;
            loop {
                for key in 0..KEYS {
                    if reads % 5 == 0 {
                        subject.evict(key).await;
                    }
                    subject.read(key).await;
                    reads += 1;
                }
                if stopped.load(Ordering::SeqCst) {
                    return reads;
                }
                runtime.sleep(Duration::from_millis(2)).await;
            }
        });
        Watch { stop, task }
    }

    /// The fault is over: the tier makes good what it missed, and serves again, all by itself. Nothing older than
    /// what was set last is left in its store.
    pub(crate) async fn recovers(&self) {
        self.world
            .until_some("the tier is whole again", async || {
                for key in 0..KEYS {
                    // The breaker wants traffic to find out.
                    self.subject.evict(key).await;
                    self.subject.read(key).await;
                }
                let tier = self.faulty();
                let whole = tier.state == ActorState::Running
                    && tier.breaker == BreakerState::Closed
                    && (tier.quarantined, tier.bypassed) == (0, false);
                whole.then_some(())
            })
            .await;
        for key in 0..KEYS {
            self.hit_from_faulty(key, self.subject.floor(key)).await;
        }
        // As another process would find it.
        let later = Cache::builder(self.world.runtime.clone()).tier(self.store.tier()).build().await.unwrap();
        for key in 0..KEYS {
            assert_eq!(*region(&later).get(&key).await.unwrap(), self.subject.floor(key));
        }
    }

    /// Tries more than once: on a busy machine even a healthy store may miss so short a deadline.
    async fn hit_from_faulty(&self, key: u64, version: u64) {
        let faulty = async || {
            self.subject.evict(key).await;
            let hit = self.subject.read(key).await.hit?;
            (hit.tier()?.as_str() == "faulty").then_some(*hit)
        };
        let found = self.world.until_some("a hit from the tier that was faulty", faulty).await;
        assert_eq!(found, version, "{:?}", self.position);
    }
}

fn region(cache: &Cache) -> Region<u64, u64> {
    cache.region("bench").no_expiry().build().unwrap()
}

impl Subject {
    fn floor(&self, key: u64) -> u64 {
        self.floor[usize::try_from(key).unwrap()].load(Ordering::SeqCst)
    }

    /// Reads, and checks that the answer is no older than what had been set before.
    pub(crate) async fn read(&self, key: u64) -> Lookup<u64> {
        let floor = self.floor(key);
        let lookup = self.region.try_get(&key).await.unwrap();
        if let Some(hit) = &lookup.hit {
            assert!(**hit >= floor, "key {key} read {hit:?} after version {floor} was set");
        }
        lookup
    }

    pub(crate) async fn set(&self, key: u64, version: u64) {
        self.region.set(&key, version).await.unwrap();
        self.floor[usize::try_from(key).unwrap()].fetch_max(version, Ordering::SeqCst);
    }

    /// Takes a key from the memory tier behind the engine's back, as an eviction does.
    pub(crate) async fn evict(&self, key: u64) {
        if let Some(memory) = &self.memory {
            memory.remove(&self.region.key(&key)).await.unwrap();
        }
    }
}

impl Watch {
    /// Ends it: it has read, and seen nothing old.
    pub(crate) async fn saw_nothing_old(self) {
        self.stop.store(true, Ordering::SeqCst);
        assert!(self.task.await.unwrap() > 0);
    }
}
