//! What a write-behind tier tells of its queue while its store is slow, away, or well again.

use std::time::Duration;

use tierkeep::runtime::RuntimeHandle;
use tierkeep::write_behind::{Retry, WriteBehind};
use tierkeep::{BreakerOptions, Cache, MemoryBackend, WriteBehindInspection};
use tierkeep_sim::{Fault, Op};

use crate::support::{Store, exact, ms, numbers, run};

fn queue(cache: &Cache) -> WriteBehindInspection {
    cache.inspect().tier("store").unwrap().write_behind.clone().unwrap()
}

async fn cache(runtime: &RuntimeHandle, store: &Store) -> Cache {
    let retry = Retry::default().backoff(Duration::from_secs(8), Duration::from_secs(8)).attempts(3);
    let tier =
        store.tier("store").breaker(BreakerOptions::disabled()).write_deadline(Duration::from_secs(60));
    let tier = tier.write_behind(WriteBehind::memory().max_delay(Duration::from_secs(10)).retry(retry));
    let memory = MemoryBackend::entries(100);
    Cache::builder(runtime.clone()).tier(memory).tier(tier).build().await.unwrap()
}

#[test]
fn the_queue_tells_its_length_weight_age_and_what_is_under_way() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    run(&sim, async {
        let store = Store::new(&runtime);
        let cache = cache(&runtime, &store).await;
        let numbers = numbers(&cache);
        assert_eq!(queue(&cache), WriteBehindInspection::default());

        numbers.set(&1, 1).await.unwrap();
        let one = queue(&cache).bytes;
        runtime.sleep(Duration::from_secs(4)).await;
        numbers.set(&2, 2).await.unwrap();
        // A newer value does not make its key any younger.
        numbers.set(&1, 3).await.unwrap();
        let waiting = queue(&cache);
        assert_eq!((waiting.queued, waiting.bytes, waiting.oldest), (2, 2 * one, Duration::from_secs(4)));
        assert_eq!((waiting.in_flight, waiting.retrying, waiting.draining), (0, 0, false));

        // The first one's delay is over: it takes the other along, in a call that takes its time.
        store.plan.delays(Duration::from_secs(2)..=Duration::from_secs(2));
        store.plan.next_on(Op::Write, Fault::Delay, 1);
        runtime.sleep(Duration::from_secs(7)).await;
        let sent = queue(&cache);
        assert_eq!((sent.queued, sent.in_flight, sent.oldest), (2, 2, Duration::from_secs(11)));
        runtime.sleep(Duration::from_secs(2)).await;
        let done = queue(&cache);
        assert_eq!((done.queued, done.bytes, done.in_flight, done.oldest), (0, 0, 0, Duration::ZERO));
        assert_eq!((done.counts.accepted, done.counts.applied, done.counts.superseded), (3, 2, 1));
    });
}

#[test]
fn the_queue_tells_what_is_tried_again_and_that_it_is_being_drained() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    run(&sim, async {
        let store = Store::new(&runtime);
        let cache = cache(&runtime, &store).await;
        let numbers = numbers(&cache);
        store.plan.rate_on(Op::Write, Fault::Error, 1.0);
        for key in 0..2 {
            numbers.set(&key, 1).await.unwrap();
        }
        // Both failed together, were split, and have failed on their own once.
        runtime.sleep(Duration::from_secs(11)).await;
        let failed = queue(&cache);
        assert_eq!((failed.queued, failed.retrying, failed.in_flight), (2, 2, 0));
        assert_eq!((failed.counts.splits, failed.counts.retries, failed.counts.dead), (2, 2, 0));

        // A flush sends what is fresh at once, and tells that it waits.
        numbers.set(&2, 1).await.unwrap();
        assert!(!queue(&cache).draining);
        let flushed = cache.clone();
        let flush = runtime.spawn(async move { flushed.flush(Duration::from_secs(100)).await });
        runtime.sleep(ms(10)).await;
        let draining = queue(&cache);
        assert!(draining.draining && draining.retrying == 3 && draining.counts.retries == 3, "{draining:?}");
        store.plan.heal();
        flush.await.unwrap().unwrap();
        let done = queue(&cache);
        assert_eq!((done.queued, done.retrying, done.draining, done.counts.applied), (0, 0, false, 3));
    });
}

#[cfg(feature = "metrics")]
#[test]
fn what_inspection_tells_of_a_queue_is_published() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let published = |cache: &Cache| {
        cache.publish_metrics();
        let of = |(key, _, _, value): (metrics_util::CompositeKey, _, _, DebugValue)| {
            let name = key.key().name().strip_prefix("tierkeep_write_behind_")?.to_owned();
            match value {
                DebugValue::Gauge(level) => Some((name, level.into_inner())),
                DebugValue::Counter(count) => Some((name, count as f64)),
                DebugValue::Histogram(_) => None,
            }
        };
        let known: std::collections::HashMap<_, _> =
            snapshots.snapshot().into_vec().into_iter().filter_map(of).collect();
        [
            "queued",
            "bytes",
            "oldest_seconds",
            "in_flight",
            "retrying",
            "draining",
            "retries_total",
            "splits_total",
        ]
        .map(|name| known[name])
    };
    metrics::with_local_recorder(&recorder, || {
        run(&sim, async {
            let store = Store::new(&runtime);
            let cache = cache(&runtime, &store).await;
            let numbers = numbers(&cache);
            store.plan.rate_on(Op::Write, Fault::Error, 1.0);
            for key in 0..2 {
                numbers.set(&key, 1).await.unwrap();
            }
            let bytes = queue(&cache).bytes as f64;
            runtime.sleep(Duration::from_secs(4)).await;
            assert_eq!(published(&cache), [2.0, bytes, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
            runtime.sleep(Duration::from_secs(7)).await;
            assert_eq!(published(&cache), [2.0, bytes, 11.0, 0.0, 2.0, 0.0, 2.0, 2.0]);
            store.plan.heal();
            store.plan.delays(Duration::from_secs(20)..=Duration::from_secs(20));
            store.plan.next_on(Op::Write, Fault::Delay, 2);
            let flushed = cache.clone();
            let flush = runtime.spawn(async move { flushed.flush(Duration::from_secs(100)).await });
            runtime.sleep(Duration::from_secs(10)).await;
            // Counters tell what came since the last look.
            assert_eq!(published(&cache), [2.0, bytes, 21.0, 2.0, 0.0, 1.0, 0.0, 0.0]);
            flush.await.unwrap().unwrap();
            assert_eq!(published(&cache), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        });
    });
}

/// The journal's clock is the system's.
#[cfg(feature = "disk")]
#[test]
fn a_journal_tells_how_long_it_has_not_been_synced() {
    use tierkeep::write_behind::JournalSync;
    let directory = tempfile::tempdir().unwrap();
    let runtime = RuntimeHandle::new(tierkeep_smol::SmolRuntime::new());
    smol::block_on(async {
        let hour = Duration::from_secs(3600);
        let behind = WriteBehind::journal(directory.path(), JournalSync::Interval(hour)).max_delay(hour);
        let tier = Store::new(&runtime).tier("store").write_behind(behind);
        let memory = MemoryBackend::entries(100);
        let cache = Cache::builder(runtime.clone()).tier(memory).tier(tier).build().await.unwrap();
        let numbers = numbers(&cache);
        let journal = || queue(&cache).journal.unwrap();
        assert_eq!((journal().records, journal().lag_ms), (0, 0));
        numbers.set(&1, 1).await.unwrap();
        // It grows: a journal that is never synced is seen.
        while journal().lag_ms < 20 {
            runtime.sleep(ms(1)).await;
        }
        assert_eq!((journal().records, journal().writes), (1, 1));
        cache.flush(hour).await.unwrap();
        while journal().lag_ms > 0 {
            runtime.sleep(ms(1)).await;
        }
        assert!(cache.shutdown(hour).await.clean);
    });
}
