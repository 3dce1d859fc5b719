//! Values whose destructors do more than free memory: they run under no lock of the engine's, and break nothing.

use std::cell::{Cell, RefCell};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use tierkeep::backend::Scope;
use tierkeep::runtime::RestartPolicy;
use tierkeep::{
    Backend, Cache, CacheKey, Entry, KeyPart, MemoryBackend, Meta, Payload, Region, Stamp, Tier, Timestamp,
};

use crate::world::{builder, calm, healed, open, under, under_seeds};

thread_local! {
    static CACHE: RefCell<Option<Cache>> = const { RefCell::new(None) };
    static ARMED: Cell<bool> = const { Cell::new(false) };
}

/// Asks the cache how it stands when it is dropped, which takes every lock there is.
#[derive(Serialize, Deserialize)]
struct Curious(u8);

impl Drop for Curious {
    fn drop(&mut self) {
        CACHE.with_borrow(|cache| drop(cache.as_ref().map(Cache::inspect)));
    }
}

/// Lets the values that outlive a test be.
struct Forgotten;

impl Drop for Forgotten {
    fn drop(&mut self) {
        drop(CACHE.take());
    }
}

/// Panics once when it is dropped, if armed.
#[derive(Serialize, Deserialize)]
struct Bomb(u8);

impl Drop for Bomb {
    fn drop(&mut self) {
        if ARMED.take() {
            // Without the hook's backtrace.
            resume_unwind(Box::new("a destructor's panic"));
        }
    }
}

#[test]
pub(crate) fn a_destructor_may_ask_the_cache() {
    under(10, |rt| async move {
        let down_at_once = RestartPolicy { limit: 0, ..RestartPolicy::default() };
        let memory = Tier::new(MemoryBackend::entries(10)).restart(down_at_once);
        let (cache, _) = open(builder(&rt).tier(memory)).await;
        let region: Region<Curious, str> = cache.region("curious").no_expiry().build().unwrap();
        CACHE.set(Some(cache.clone()));
        let _forgotten = Forgotten;
        for i in 0..3 {
            region.set("k", Curious(i)).await.unwrap(); // displaced in the store
        }
        region.remove("k").await.unwrap();
        cache.crash_tier("memory");
        calm(&rt).await;
        for i in 3..6 {
            assert!(region.set("k", Curious(i)).await.is_err()); // displaced in the quarantine
        }
        rt.sleep(Duration::from_secs(60)).await;
        healed(&rt, &cache, "memory").await;
        assert_eq!(region.get("k").await.unwrap().0, 5);
    });
}

#[test]
pub(crate) fn a_destructor_that_panics_costs_a_quarantine_at_most() {
    under_seeds(|rt| async move {
        let (cache, _) = open(builder(&rt).tier(MemoryBackend::entries(10))).await;
        let region: Region<Bomb, str> = cache.region("bomb").no_expiry().build().unwrap();
        region.set("k", Bomb(1)).await.unwrap();
        ARMED.set(true);
        drop(region.set("k", Bomb(2)).await);
        assert!(!ARMED.get(), "it went off");
        healed(&rt, &cache, "memory").await;
        assert_eq!(region.get("k").await.unwrap().0, 2);
        assert_eq!(cache.inspect().tier("memory").unwrap().restarts, 0);
    });
}

/// A memory tier with two values that panic as they go, and one that does not.
fn bombs() -> MemoryBackend {
    struct Always;
    impl Drop for Always {
        fn drop(&mut self) {
            resume_unwind(Box::new("a destructor's panic"));
        }
    }
    let memory = MemoryBackend::entries(10);
    let port = memory.port().unwrap();
    let meta = Meta { expire: Some(Timestamp::from_millis(1)), ..Meta::default() };
    let put = |name: &'static str, value: tierkeep::Object| {
        port.put(CacheKey::new("k", 0, [KeyPart::flag(name)]), Entry::new(Payload::Object(value, 1), meta));
    };
    put("a", Arc::new(Always));
    put("b", Arc::new(Always));
    put("c", Arc::new(()));
    memory
}

#[test]
fn destructors_that_panic_hold_up_no_sweep() {
    let memory = bombs();
    assert_eq!(memory.sweep(Timestamp::from_millis(2)), 3);
    assert_eq!(memory.usage().entries, Some(0));
}

#[test]
fn destructors_that_panic_hold_up_no_clear() {
    let memory = bombs();
    let clear = memory.clear(&Scope::All, Stamp { time: 1, node: 0 });
    clear.now_or_never().expect("one piece").unwrap();
    assert_eq!(memory.usage().entries, Some(0));
}
