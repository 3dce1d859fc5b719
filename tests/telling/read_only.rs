//! Tiers that are only read.

use std::time::Duration;

use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Cache, ErrorKind, MemoryBackend};
use tierkeep_sim::Op;

use crate::support::{Store, exact, ms, numbers, run};

/// The store's owner, and a cache that reads it under its own memory tier.
async fn owner_and_reader(runtime: &RuntimeHandle, store: &Store, limit: usize) -> (Cache, Cache) {
    let own = Cache::builder(runtime.clone()).tier(store.tier("store")).build().await.unwrap();
    let read = Cache::builder(runtime.clone())
        .tier(MemoryBackend::entries(100))
        .tier(store.tier("store").read_only(true).quarantine(limit))
        .build()
        .await
        .unwrap();
    (own, read)
}

#[test]
fn is_read_and_never_touched() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let store = Store::new(&runtime);
    run(&sim, async {
        let (own, read) = owner_and_reader(&runtime, &store, 100).await;
        let (theirs, ours) = (numbers(&own), numbers(&read));
        for key in 0..10 {
            theirs.set(&key, key).await.unwrap();
        }
        own.shutdown(Duration::from_secs(1)).await;
        let before = store.entries.contents();
        let calls = |op| store.plan.calls(op);
        let (writes, flushes) = (calls(Op::Write), calls(Op::Flush));
        for key in 0..10 {
            assert_eq!(ours.get(&key).await.as_deref(), Some(&key));
        }
        ours.set(&1, 100).await.unwrap();
        ours.remove(&2).await.unwrap();
        let loaded = ours.get_or_load(&50, || async { Ok::<_, std::io::Error>(50) }).await.unwrap();
        assert_eq!(*loaded, 50);
        read.bypass("store", true).unwrap();
        read.bypass("store", false).unwrap();
        runtime.sleep(Duration::from_secs(10)).await;
        ours.clear().await.unwrap();
        read.shutdown(Duration::from_secs(1)).await;
        assert_eq!(store.entries.contents(), before);
        let after = (calls(Op::Write), calls(Op::Remove), calls(Op::Clear), calls(Op::Flush));
        assert_eq!(after, (writes, 0, 0, flushes), "no call but reads");
    });
}

#[test]
fn never_shows_a_value_older_than_what_was_set_or_removed_above_it() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let store = Store::new(&runtime);
    run(&sim, async {
        let (own, read) = owner_and_reader(&runtime, &store, 100).await;
        let (theirs, ours) = (numbers(&own), numbers(&read));
        for key in [1, 2, 3] {
            theirs.set(&key, 10).await.unwrap();
        }
        runtime.sleep(ms(5)).await;
        ours.set(&1, 11).await.unwrap();
        ours.remove(&2).await.unwrap();
        // Neither is in memory any more; another key still comes from below.
        read.bypass("memory", true).unwrap();
        for (key, value) in [(1, None), (2, None), (3, Some(10))] {
            assert_eq!(ours.get(&key).await.map(|hit| *hit), value, "key {key}");
        }
        assert_eq!(read.inspect().tier("store").unwrap().overruled, 2);
        runtime.sleep(ms(5)).await;
        theirs.set(&1, 12).await.unwrap();
        assert_eq!(ours.get(&1).await.as_deref(), Some(&12), "the owner's later value shows");
        assert!(ours.get(&2).await.is_none());
        ours.clear().await.unwrap();
        assert!(ours.get(&1).await.is_none() && ours.get(&3).await.is_none(), "a clear hides it here");
        assert_eq!(theirs.get(&3).await.as_deref(), Some(&10), "and only here");
    });
}

#[test]
fn past_its_limit_hides_everything_older() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let store = Store::new(&runtime);
    run(&sim, async {
        let (own, read) = owner_and_reader(&runtime, &store, 3).await;
        let (theirs, ours) = (numbers(&own), numbers(&read));
        for key in 0..10 {
            theirs.set(&key, 10).await.unwrap();
        }
        runtime.sleep(ms(5)).await;
        for key in 0..4 {
            ours.set(&key, 11).await.unwrap();
        }
        assert_eq!(read.inspect().tier("store").unwrap().overruled, 0, "forgotten, and bounded");
        read.bypass("memory", true).unwrap();
        for key in 0..10 {
            assert!(ours.get(&key).await.is_none(), "key {key}");
        }
        runtime.sleep(ms(5)).await;
        theirs.set(&1, 12).await.unwrap();
        assert_eq!(ours.get(&1).await.as_deref(), Some(&12));
    });
}

#[test]
fn with_nothing_but_read_only_tiers_a_set_fails_and_still_settles() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let store = Store::new(&runtime);
    run(&sim, async {
        let own = Cache::builder(runtime.clone()).tier(store.tier("store")).build().await.unwrap();
        let tier = store.tier("store").read_only(true);
        let read = Cache::builder(runtime.clone()).tier(tier).build().await.unwrap();
        let (theirs, ours) = (numbers(&own), numbers(&read));
        theirs.set(&1, 10).await.unwrap();
        runtime.sleep(ms(5)).await;
        assert_eq!(ours.get(&1).await.as_deref(), Some(&10));
        assert_eq!(ours.set(&1, 11).await.unwrap_err().kind(), ErrorKind::Unsupported);
        assert!(ours.get(&1).await.is_none(), "no read gives an older value, though the set failed");
    });
}
