//! The tier on moka, by itself and in a cache.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tierkeep::backend::{MokaBackend, RemovalCause};
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{
    Backend, Cache, CacheKey, CacheValue, DeleteStatus, Entry, ErrorKind, EventKind, KeyPart, MemoryBackend,
    Meta, Payload, Raw, Stamp,
};
use tierkeep_tokio::TokioRuntime;

use crate::support::{exact, kinds, ms, numbers, run};

fn key(i: u64) -> CacheKey {
    CacheKey::new("k", 1, [KeyPart::flag(i.to_string())])
}

fn object(value: u64, weight: u32) -> Entry {
    Entry::new(Payload::Object(Arc::new(value), weight), Meta::default())
}

#[test]
fn keeps_objects_and_bytes_as_they_were_given() {
    let sim = exact();
    run(&sim, async {
        let backend = MokaBackend::entries(10);
        let port = backend.port().unwrap();
        let meta = Meta { stamp: Stamp { time: 7, node: 3 }, ..Meta::default() };
        port.put(key(1), Entry::new(Payload::Object(Arc::new(5_u64), 8), meta));
        let entry = port.get(&key(1).probe()).unwrap();
        assert_eq!((entry.meta, entry.payload.weight()), (meta, 8));
        assert!(port.contains(&key(1).probe()) && !port.contains(&key(2).probe()));
        assert_eq!(backend.read(&key(1)).await.unwrap_err().kind(), ErrorKind::Unsupported);
        let raw = CacheValue::new(Raw::from_static(b"x"), None, None);
        backend.clone().write(&key(2), raw.clone()).await.unwrap();
        assert_eq!(backend.read(&key(2)).await.unwrap(), Some(raw), "clones share their entries");
        assert!(matches!(backend.remove(&key(2)).await, Ok(DeleteStatus::Deleted(1))));
        assert!(matches!(backend.remove(&key(2)).await, Ok(DeleteStatus::Missing)));
        for wrong in
            [MokaBackend::entries(0), MokaBackend::bytes(0), MokaBackend::entries(1).time_to_idle(ms(0))]
        {
            assert_eq!(wrong.validate().unwrap_err().kind(), ErrorKind::Config);
        }
        let for_ever = MokaBackend::entries(1).time_to_idle(Duration::MAX);
        assert_eq!(for_ever.validate().unwrap_err().kind(), ErrorKind::Config);
        assert!(for_ever.port().is_some(), "and moka does not panic about it");
    });
}

#[test]
fn stays_within_its_bound_and_tells_the_listener_why_entries_leave() {
    let left = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&left);
    let backend = MokaBackend::entries(10)
        .lru()
        .on_removal(move |key, cause| heard.lock().unwrap().push((key.clone(), cause)));
    let port = backend.port().unwrap();
    for i in 0..100 {
        port.put(key(i), object(i, 0));
    }
    backend.sweep(tierkeep::Timestamp::from_millis(0));
    assert_eq!((backend.usage().entries, backend.usage().evictions), (Some(10), Some(90)));
    assert!(left.lock().unwrap().iter().all(|(_, cause)| *cause == RemovalCause::Evicted));
    assert!(port.contains(&key(99).probe()) && !port.contains(&key(1).probe()), "LRU: the newest stay");
    left.lock().unwrap().clear();
    port.put(key(99), object(1, 0));
    port.remove(&key(99));
    backend.sweep(tierkeep::Timestamp::from_millis(0));
    let causes: Vec<_> = left.lock().unwrap().iter().map(|(_, cause)| *cause).collect();
    assert_eq!(causes, [RemovalCause::Replaced, RemovalCause::Removed]);
}

/// In real time: moka has a clock of its own.
#[tokio::test]
async fn reads_keep_an_entry_and_idleness_removes_it() {
    let (runtime, mut idle) = (RuntimeHandle::new(TokioRuntime::current()), ms(50));
    // Anew with a longer one whenever a busy machine held a read up.
    while !stays_while_read_and_goes_when_idle(&runtime, idle).await {
        idle *= 2;
    }
}

/// Whether every read came in time: only then the entry has to be there.
async fn stays_while_read_and_goes_when_idle(runtime: &RuntimeHandle, idle: Duration) -> bool {
    let left = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&left);
    let backend = MokaBackend::entries(10)
        .time_to_idle(idle)
        .on_removal(move |key, cause| heard.lock().unwrap().push((key.clone(), cause)));
    let port = backend.port().unwrap();
    port.put(key(1), object(1, 0));
    let (written, mut read) = (tokio::time::Instant::now(), tokio::time::Instant::now());
    // Four times the time to idle.
    while written.elapsed() < 4 * idle {
        runtime.sleep(ms(5)).await;
        let found = port.get(&key(1).probe()).is_some();
        if read.elapsed() >= idle / 2 {
            return false;
        }
        assert!(found, "it was read less than {idle:?} ago");
        read = tokio::time::Instant::now();
    }
    assert!(left.lock().unwrap().is_empty());
    while left.lock().unwrap().is_empty() {
        assert!(written.elapsed() < 4 * idle + Duration::from_secs(60), "it was never removed");
        runtime.sleep(ms(5)).await;
        backend.sweep(tierkeep::Timestamp::from_millis(0));
    }
    assert_eq!(*left.lock().unwrap(), [(key(1), RemovalCause::Expired)]);
    assert!(port.get(&key(1).probe()).is_none());
    assert_eq!(backend.usage().entries, Some(0));
    true
}

#[test]
fn a_listener_that_panics_is_called_again() {
    let backend = MokaBackend::entries(10).on_removal(|_, _| panic!("of the listener"));
    let port = backend.port().unwrap();
    for i in 0..5 {
        port.put(key(i), object(i, 0));
        port.remove(&key(i));
    }
    assert_eq!(backend.listener_panics(), 5);
    port.put(key(1), object(1, 0));
    assert!(port.contains(&key(1).probe()), "and the tier works on");
}

#[test]
fn no_weigher_breaks_the_bound() {
    let entries = |backend: &MokaBackend| {
        let port = backend.port().unwrap();
        for i in 0..1000 {
            port.put(key(i), object(i, 100));
        }
        backend.sweep(tierkeep::Timestamp::from_millis(0));
        backend.usage().entries.unwrap()
    };
    assert_eq!(entries(&MokaBackend::bytes(100).weigher(|_, _| 0)), 100, "zero counts as one");
    assert_eq!(entries(&MokaBackend::bytes(1 << 20).weigher(|_, _| u64::MAX)), 0, "all too heavy");
    let own = entries(&MokaBackend::bytes(100_000));
    assert!((150..250).contains(&own), "about 500 bytes each: {own}");
    assert_eq!(entries(&MokaBackend::bytes(100_000).weigher(|_, _| panic!("of the weigher"))), own);
    assert_eq!(entries(&MokaBackend::bytes(100_000).weigher(|_, payload| payload as u64)), 1000);
}

#[test]
fn a_clear_removes_what_it_covers_and_nothing_newer() {
    let sim = exact();
    run(&sim, async {
        let backend = MokaBackend::entries(10_000);
        let port = backend.port().unwrap();
        let written = |i: u64, time| {
            let meta = Meta { stamp: Stamp { time, node: 0 }, ..Meta::default() };
            Entry::new(Payload::Object(Arc::new(i), 0), meta)
        };
        for i in 0..1000 {
            port.put(key(i), written(i, i));
        }
        let other = CacheKey::new("other", 1, [KeyPart::flag("x")]);
        port.put(other.clone(), written(1, 1));
        let scope = tierkeep::backend::Scope::Prefix("k".into());
        backend.clear(&scope, Stamp { time: 799, node: u32::MAX }).await.unwrap();
        let left = (0..1000).filter(|&i| port.contains(&key(i).probe())).count();
        assert_eq!(left, 200);
        assert!(port.contains(&other.probe()));
    });
}

#[test]
fn expiry_is_decided_by_the_engines_clock() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    run(&sim, async {
        let cache = Cache::builder(runtime.clone()).tier(MokaBackend::entries(10)).build().await.unwrap();
        let region = numbers(&cache);
        region.set_for(&1, 1, Duration::from_secs(5)).await.unwrap();
        region.set_for(&2, 2, Duration::from_secs(50)).await.unwrap();
        runtime.sleep(Duration::from_secs(4)).await;
        assert_eq!(region.get(&1).await.as_deref(), Some(&1));
        runtime.sleep(Duration::from_secs(2)).await;
        assert!(region.get(&1).await.is_none(), "no real time has passed");
        assert_eq!(region.peek(&2).as_deref(), Some(&2));
    });
}

#[test]
fn evictions_are_events_of_the_cache() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    run(&sim, async {
        let cache =
            Cache::builder(runtime.clone()).tier(MokaBackend::entries(10).lru()).build().await.unwrap();
        let (region, mut events) = (numbers(&cache), cache.events());
        for key in 0..50 {
            region.set(&key, key).await.unwrap();
        }
        runtime.sleep(Duration::from_secs(3)).await;
        let evicted = kinds(&mut events);
        assert_eq!(evicted.len(), 40);
        assert!(evicted.contains(&EventKind::Evicted { key: region.key(&0) }));
    });
}

#[tokio::test]
async fn serves_above_a_lower_tier_on_tokio() {
    let runtime = RuntimeHandle::new(TokioRuntime::current());
    let store = tierkeep_sim::MapBackend::new();
    let cache =
        Cache::builder(runtime).tier(MokaBackend::bytes(1 << 20)).tier(store.clone()).build().await.unwrap();
    let region = numbers(&cache);
    for key in 0..100 {
        region.set(&key, key).await.unwrap();
    }
    store.wipe();
    for key in 0..100 {
        let hit = region.get(&key).await.unwrap();
        assert_eq!((*hit, hit.tier().unwrap().as_str()), (key, "moka"));
    }
    region.clear().await.unwrap();
    assert!(region.get(&1).await.is_none());
}

/// Prints the table in `MokaBackend`'s documentation.
#[test]
#[ignore = "prints a table; needs the traces"]
fn hit_ratios() {
    let folder = std::env::var("TIERKEEP_TRACES").unwrap_or_else(|_| "traces".into());
    for (name, capacities) in [("web12", [137, 687, 2751]), ("orm-busy", [763, 3817, 15_269])] {
        let path = std::path::Path::new(&folder).join(format!("{name}.trace.zst"));
        let Ok(packed) = std::fs::read(&path) else {
            println!("{name} skipped: there is no {}", path.display());
            continue;
        };
        let bytes = zstd::decode_all(&packed[..]).expect("a packed trace");
        let trace: Vec<u32> =
            bytes.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]])).collect();
        for capacity in capacities {
            let memory = hit_ratio(&MemoryBackend::entries(capacity), &trace);
            let moka = hit_ratio(&MokaBackend::entries(capacity as u64), &trace);
            println!("| {name} | {capacity} | {memory:.3} | {moka:.3} |");
        }
    }
}

fn hit_ratio(backend: &dyn Backend, trace: &[u32]) -> f64 {
    let port = backend.port().unwrap();
    let hits = trace.iter().filter(|&&request| {
        let key = key(u64::from(request));
        let hit = port.get(&key.probe()).is_some();
        if !hit {
            port.put(key, object(0, 0));
        }
        hit
    });
    hits.count() as f64 / trace.len() as f64
}
