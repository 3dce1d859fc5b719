//! Metrics: each is described, has its labels, and moves.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use ::metrics::{SharedString, Unit};
use futures_util::future::join_all;
use metrics_util::CompositeKey;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tierkeep::codec::{
    CodecOptions, Compressor, Format, PassthroughCompressor, RkyvFormat, ZstdCompressor, ZstdDictionary,
};
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{
    Backend, BackendResult, BreakerOptions, Cache, CacheKey, CacheValue, DeleteStatus, MemoryBackend, Raw,
    Region,
};
use tierkeep_sim::{Fault, MapBackend, Op};

use crate::support::{Store, exact, ms, numbers, run, served};

/// What the recorder has seen, over all snapshots: a snapshot empties the histograms.
#[derive(Default)]
struct Seen {
    described: BTreeMap<String, bool>,
    moved: BTreeSet<String>,
    /// The latest value of each, with its labels.
    values: BTreeMap<String, f64>,
}

impl Seen {
    fn look(&mut self, cache: &Cache, from: &Snapshotter) {
        cache.publish_metrics();
        for (key, unit, description, value) in from.snapshot().into_vec() {
            let name = key.key().name().to_owned();
            let mut labelled = name.clone();
            for label in key.key().labels() {
                labelled += &format!(",{}={}", label.key(), label.value());
            }
            let value = match value {
                DebugValue::Counter(count) => count as f64,
                DebugValue::Gauge(level) => level.into_inner(),
                DebugValue::Histogram(samples) => samples.len() as f64,
            };
            self.described.insert(name.clone(), unit.is_some() && description.is_some());
            if value > 0.0 {
                self.moved.insert(name);
            }
            *self.values.entry(labelled).or_default() = value;
        }
    }

    fn value(&self, labelled: &str) -> f64 {
        *self.values.get(labelled).unwrap_or_else(|| panic!("{labelled} is not among {:#?}", self.values))
    }
}

/// A store whose calls keep a thread of the blocking pool.
struct Busy(MapBackend);

#[async_trait::async_trait]
impl Backend for Busy {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.0.read(key).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.0.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.0.remove(key).await
    }

    fn running_jobs(&self) -> usize {
        1
    }
}

/// A store of archives, compressed as told, which hands its bytes back at odd addresses.
struct Odd(MapBackend, RkyvFormat, Box<dyn Compressor>);

#[async_trait::async_trait]
impl Backend for Odd {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        let odd = |raw: Raw| {
            let mut room = vec![0; raw.len() + 32];
            let start = room.as_ptr().align_offset(16) + 1;
            room[start..start + raw.len()].copy_from_slice(&raw);
            Raw::from(room).slice(start..start + raw.len())
        };
        Ok(self.0.read(key).await?.map(|value| value.map(odd)))
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.0.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.0.remove(key).await
    }

    fn value_format(&self) -> &dyn Format {
        &self.1
    }

    fn compressor(&self) -> &dyn Compressor {
        &*self.2
    }
}

/// Views an archive that has to be copied, and reads an entry whose dictionary is gone.
async fn odd_archives(runtime: &RuntimeHandle, mut look: impl FnMut(&Cache)) {
    let map = MapBackend::new();
    let text = "much of the same, ".repeat(20);
    let dictionary = ZstdDictionary::new(text.clone().into_bytes()).unwrap();
    let taught = ZstdCompressor::default().with_dictionary(&dictionary);
    for (key, compressor) in
        [(1, Box::new(taught) as Box<dyn Compressor>), (2, Box::new(PassthroughCompressor))]
    {
        let store = Odd(map.clone(), RkyvFormat::new().register::<String>(), compressor);
        let cache = Cache::builder(runtime.clone()).name("shop").tier(store).build().await.unwrap();
        let texts: Region<String, u64> = cache.region("odd").no_expiry().build().unwrap();
        texts.set(&key, text.clone()).await.unwrap();
        assert!(texts.read_archived(&key, |_, _| ()).await.is_some());
        // Of the other cache: that one's dictionary is not to be had.
        assert!(key == 1 || texts.get(&1).await.is_none());
        look(&cache);
    }
}

/// Starts a future, looks, and lets it end.
async fn midway<F: Future>(future: F, look: impl FnOnce()) -> F::Output {
    let mut future = pin!(future);
    let first = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
    look();
    match first {
        Poll::Ready(output) => output,
        Poll::Pending => future.await,
    }
}

#[test]
fn every_metric_is_described_and_moves() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let store = Store::new(&runtime);
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let mut seen = Seen::default();
    ::metrics::with_local_recorder(&recorder, || {
        run(&sim, async {
            let tier = store
                .tier("store")
                .concurrency(1)
                .mailbox(64)
                .quarantine(3)
                .breaker(BreakerOptions { min_calls: 20, ..BreakerOptions::default() });
            let cache = Cache::builder(runtime.clone())
                .name("shop")
                .tier(MemoryBackend::bytes(20_000))
                .tier(tier)
                .tier(Busy(MapBackend::new()))
                .refill_lane(1)
                .codec(CodecOptions::default().workers(1).queue(1).max_value(200_000))
                .build()
                .await
                .unwrap();
            let region = numbers(&cache);
            for key in 0..200_u64 {
                region.set(&key, key).await.unwrap();
            }
            for key in 0..200_u64 {
                region.get(&key).await;
            }
            let all: Vec<u64> = (0..200).collect();
            while !seen.moved.contains("tierkeep_refills_queued") {
                region.get_many(&all).await;
                seen.look(&cache, &snapshots);
            }
            store.plan.rate_on(Op::Read, Fault::Delay, 1.0);
            let reads = join_all((0..4).map(|_| region.get(&1000)));
            midway(reads, || seen.look(&cache, &snapshots)).await;
            let reads = join_all((1000..1300).map(|key| {
                let region = &region;
                async move { region.get(&key).await }
            }));
            midway(
                async {
                    futures_util::future::join(reads, async {
                        runtime.sleep(ms(1)).await;
                        seen.look(&cache, &snapshots);
                    })
                    .await
                },
                || {},
            )
            .await;
            store.plan.heal();
            // More changes than callers may queue themselves while a call is out: the rest waits in the mailbox.
            store.plan.rate_on(Op::Write, Fault::Delay, 1.0);
            let sets = join_all((3000..3600).map(|key| {
                let region = &region;
                async move { region.set(&key, key).await }
            }));
            futures_util::future::join(sets, async {
                runtime.sleep(ms(1)).await;
                seen.look(&cache, &snapshots);
            })
            .await;
            store.plan.heal();
            let load = region.get_or_load(&2000, || async {
                runtime.sleep(ms(5)).await;
                Ok::<_, std::io::Error>(1)
            });
            futures_util::future::join(load, async {
                runtime.sleep(ms(4)).await;
                seen.look(&cache, &snapshots);
            })
            .await
            .0
            .unwrap();

            busy_codec(&sim, &runtime, &cache, || seen.look(&cache, &snapshots)).await;
            odd_archives(&runtime, |cache| seen.look(cache, &snapshots)).await;

            store.plan.late(Duration::from_secs(1)..=Duration::from_secs(1));
            store.plan.next_on(Op::Write, Fault::HangThenComplete, 1);
            region.set(&1, 5).await.unwrap();
            seen.look(&cache, &snapshots);
            runtime.sleep(Duration::from_secs(30)).await;
            store.plan.rate_on(Op::Write, Fault::Error, 1.0);
            for key in 0..8 {
                region.set(&key, 6).await.unwrap();
                seen.look(&cache, &snapshots);
            }
            store.plan.heal();
            served(&runtime, &cache, "store").await;
            store.plan.rate_on(Op::Read, Fault::Error, 1.0);
            for key in 3000..3030 {
                region.get(&key).await;
            }
            seen.look(&cache, &snapshots);
            store.plan.heal();
            cache.crash_tier("store");
            runtime.sleep(Duration::from_secs(60)).await;
            seen.look(&cache, &snapshots);
        });
    });
    let undescribed: Vec<_> = seen.described.iter().filter(|(_, described)| !**described).collect();
    assert!(undescribed.is_empty(), "{undescribed:?}");
    let still: Vec<_> = seen.described.keys().filter(|name| !seen.moved.contains(*name)).collect();
    assert!(still.is_empty(), "never moved: {still:?}");
    assert_eq!(seen.described.len(), 44, "a metric was added or lost: {:#?}", seen.described.keys());
}

/// Fills the codec's one worker and its queue, and asks for more.
async fn busy_codec(sim: &tierkeep_sim::Sim, runtime: &RuntimeHandle, cache: &Cache, look: impl FnOnce()) {
    let texts: Region<String, u64> = cache.region("t").ttl(Duration::from_secs(60)).build().unwrap();
    texts.set(&0, String::new()).await.unwrap();
    texts.set(&0, "x".repeat(300_000)).await.unwrap_err();
    sim.hold_blocking(true);
    let sets = join_all([1, 2, 3].map(|key| {
        let texts = &texts;
        async move { texts.set(&key, "x".repeat(100_000)).await }
    }));
    let looking = async {
        runtime.sleep(ms(1)).await;
        look();
        sim.hold_blocking(false);
    };
    futures_util::future::join(sets, looking).await;
}

#[test]
fn counts_are_what_happened() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let store = Store::new(&runtime);
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let mut seen = Seen::default();
    ::metrics::with_local_recorder(&recorder, || {
        run(&sim, async {
            let cache = Cache::builder(runtime.clone())
                .name("shop")
                .tier(MemoryBackend::entries(100))
                .tier(store.tier("store"))
                .build()
                .await
                .unwrap();
            let region = numbers(&cache);
            region.set(&1, 1).await.unwrap();
            for _ in 0..640 {
                region.get(&1).await.unwrap();
            }
            region.get(&2).await;
            store.plan.next_on(Op::Read, Fault::Error, 1);
            region.get(&3).await;
            region.remove(&1).await.unwrap();
            seen.look(&cache, &snapshots);
        });
    });
    for (labelled, expected) in [
        ("tierkeep_reads_total,cache=shop,tier=memory,outcome=hit", 640.0),
        ("tierkeep_port_reads_total,cache=shop,tier=memory", 642.0),
        ("tierkeep_reads_total,cache=shop,tier=memory,outcome=miss", 2.0),
        ("tierkeep_reads_total,cache=shop,tier=store,outcome=miss", 1.0),
        ("tierkeep_reads_total,cache=shop,tier=store,outcome=failed", 1.0),
        ("tierkeep_writes_total,cache=shop,tier=store,outcome=applied", 2.0),
        ("tierkeep_region_reads_total,cache=shop,region=n,outcome=hit", 640.0),
        ("tierkeep_region_reads_total,cache=shop,region=n,outcome=miss", 2.0),
        ("tierkeep_region_writes_total,cache=shop,region=n,outcome=ok", 2.0),
        ("tierkeep_region_read_seconds,cache=shop,region=n", 642.0),
        ("tierkeep_call_seconds,cache=shop,tier=store,op=read", 2.0),
        ("tierkeep_batch_keys,cache=shop,tier=store,op=write", 2.0),
        ("tierkeep_tier_up,cache=shop,tier=store", 1.0),
    ] {
        assert_eq!(seen.value(labelled), expected, "{labelled}");
    }
}

#[test]
fn metrics_are_published_by_themselves() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let store = Store::new(&runtime);
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    ::metrics::with_local_recorder(&recorder, || {
        run(&sim, async {
            let cache = Cache::builder(runtime.clone()).tier(store.tier("store")).build().await.unwrap();
            numbers(&cache).set(&1, 1).await.unwrap();
            runtime.sleep(Duration::from_secs(2)).await;
            let written = snapshots.snapshot().into_vec().into_iter().any(|(key, .., value)| {
                key.key().name() == "tierkeep_bytes_total" && !matches!(value, DebugValue::Counter(0))
            });
            assert!(written);
        });
    });
}

#[test]
fn a_cache_that_was_shut_down_publishes_no_more() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let store = Store::new(&runtime);
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    ::metrics::with_local_recorder(&recorder, || {
        run(&sim, async {
            let builder = Cache::builder(runtime.clone()).name("shop").tier(store.tier("store"));
            let cache = builder.build().await.unwrap();
            numbers(&cache).set(&1, 1).await.unwrap();
            cache.shutdown(ms(1_000)).await;
            let labels = [("cache", "shop"), ("tier", "store")];
            ::metrics::gauge!("tierkeep_tier_up", &labels).set(42.0);
            // It is held still.
            runtime.sleep(Duration::from_secs(10)).await;
            let up = |(key, .., value): (CompositeKey, Option<Unit>, Option<SharedString>, DebugValue)| {
                (key.key().name() == "tierkeep_tier_up").then_some(value)
            };
            let shown: Vec<_> = snapshots.snapshot().into_vec().into_iter().filter_map(up).collect();
            assert_eq!(shown, [DebugValue::Gauge(42.0.into())]);
            drop(cache);
        });
    });
}
