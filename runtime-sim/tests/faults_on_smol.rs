//! Faults need no simulator: the same wrapper on real threads and timers.

use std::time::Duration;

use tierkeep::runtime::{RuntimeHandle, TaskError};
use tierkeep::{Backend, CacheKey, CacheValue, Raw};
use tierkeep_sim::{Fault, FaultPlan, Faulty, MapBackend};
use tierkeep_smol::SmolRuntime;

#[test]
fn faults_strike_on_a_real_runtime() {
    let runtime = RuntimeHandle::new(SmolRuntime::new());
    let plan = FaultPlan::new(&runtime);
    let store = MapBackend::new();
    let backend = std::sync::Arc::new(Faulty::new(store.clone(), &runtime, &plan));
    let brief = Duration::from_millis(1);
    plan.delays(brief..=brief);
    plan.late(brief..=brief);
    let key = CacheKey::new("user", 1, []);
    let write = |bytes: &'static [u8]| {
        let (backend, key) = (std::sync::Arc::clone(&backend), key.clone());
        let value = CacheValue::new(Raw::from_static(bytes), None, None);
        runtime.spawn(async move { backend.write(&key, value).await.is_ok() })
    };
    smol::block_on(async {
        for (fault, answer, bytes) in [
            (Fault::Error, Ok(false), None),
            (Fault::Delay, Ok(true), Some(&b"delay"[..])),
            (Fault::HangThenComplete, Ok(true), Some(b"late")),
            (Fault::AppliedButFails, Ok(false), Some(b"applied")),
            (Fault::Panic, Err(TaskError::Panicked("injected panic in Write".to_owned())), Some(b"applied")),
        ] {
            plan.next(fault, 1);
            assert_eq!(write(bytes.unwrap_or_default()).await, answer, "{fault:?}");
            assert_eq!(store.get(&key).as_deref(), bytes, "{fault:?}");
        }
        // It never answers, but its effect can be waited for.
        plan.next(Fault::Zombie, 1);
        let zombie = write(b"zombie");
        while store.get(&key).as_deref() != Some(b"zombie") {
            smol::future::yield_now().await;
        }
        zombie.abort();
        assert_eq!(zombie.await, Err(TaskError::Aborted));
    });
    assert_eq!(plan.total(), 6);
}
