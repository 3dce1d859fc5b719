use std::future::{pending, poll_fn};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use futures_util::future::join_all;
use tierkeep::runtime::{Runtime, RuntimeHandle, TaskError};
use tierkeep_sim::{Sim, SimOptions, StallReason};

use crate::{Log, handle, step_aside};

#[test]
fn a_stall_tells_who_waits() {
    let sim = Sim::new(9);
    let runtime = handle(&sim);
    let stall = sim
        .block_on(async {
            drop(runtime.spawn(pending::<()>()));
            drop(runtime.spawn(async {}));
            runtime.sleep(Duration::from_secs(1)).await;
            pending::<()>().await;
        })
        .unwrap_err();
    assert_eq!(stall.reason, StallReason::Deadlock);
    assert_eq!(stall.seed, 9);
    assert!(stall.now.as_nanos() >= 1_000_000_000);
    assert_eq!(stall.tasks.len(), 1);
    assert!(stall.tasks[0].polled.is_some());
    assert!(!stall.recent.is_empty());
    let text = stall.to_string();
    assert!(text.contains("seed 9") && text.contains("1 tasks and 0 blocking jobs wait"), "{text}");
}

#[test]
fn a_livelock_hits_the_step_limit() {
    let sim = Sim::with(SimOptions::new(1).step_limit(10_000));
    drop(handle(&sim).spawn(async {
        loop {
            step_aside().await;
        }
    }));
    let stall = sim.block_on(pending::<()>()).unwrap_err();
    assert_eq!(stall.reason, StallReason::StepLimit);
    let stall = sim.run_until_idle(Duration::MAX).unwrap_err();
    assert_eq!(stall.reason, StallReason::StepLimit);
}

#[test]
fn entering_from_within_is_an_error_and_leaves_the_outer_run_intact() {
    let sim = Sim::new(1);
    let inner = sim.block_on(async {
        let inner = sim.block_on(async {});
        handle(&sim).sleep(Duration::from_secs(1)).await;
        inner
    });
    assert_eq!(inner.unwrap().unwrap_err().reason, StallReason::Reentered);
    sim.block_on(async {}).unwrap();
}

#[test]
fn a_panic_of_the_main_future_leaves_the_simulation_usable() {
    let sim = Sim::new(1);
    let run =
        std::panic::AssertUnwindSafe(|| sim.block_on(async { std::panic::resume_unwind(Box::new(())) }));
    assert!(std::panic::catch_unwind(run).is_err());
    sim.block_on(handle(&sim).sleep(Duration::from_secs(1))).unwrap();
}

#[test]
fn panicking_tasks_are_contained() {
    let sim = Sim::new(1);
    let runtime = handle(&sim);
    let task = runtime.spawn(async { std::panic::resume_unwind(Box::new("oops")) });
    assert_eq!(sim.block_on(task).unwrap(), Err::<(), _>(TaskError::Panicked("oops".to_owned())));
    sim.runtime().execute(Box::pin(async { std::panic::resume_unwind(Box::new("bare")) }));
    sim.run_until_idle(Duration::from_secs(1)).unwrap();
    assert_eq!((sim.panics(), sim.pending_tasks()), (1, 0));
}

#[test]
fn aborted_tasks_drop_what_they_hold() {
    let sim = Sim::new(1);
    let held = Arc::new(());
    let inside = Arc::clone(&held);
    let task = handle(&sim).spawn(async move {
        pending::<()>().await;
        drop(inside);
    });
    sim.run_until_idle(Duration::from_secs(1)).unwrap();
    task.abort();
    assert_eq!(sim.block_on(task).unwrap(), Err(TaskError::Aborted));
    sim.run_until_idle(Duration::from_secs(1)).unwrap();
    assert_eq!((Arc::strong_count(&held), sim.pending_tasks()), (1, 0));
}

/// Comes back into the simulation from its drop.
struct Reenters(RuntimeHandle, Arc<AtomicUsize>);

impl Drop for Reenters {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
        drop(self.0.spawn(async {}));
        drop(self.0.sleep(Duration::from_secs(1)));
        self.0.execute_blocking(Box::new(|| ()));
        assert!(self.0.random() != self.0.random());
    }
}

#[test]
fn dropping_the_simulation_releases_everything() {
    let held = Arc::new(());
    let drops = Arc::new(AtomicUsize::new(0));
    let sim = Sim::new(1);
    let runtime = handle(&sim);
    sim.hold_blocking(true);
    for _ in 0..10 {
        // Each holds the runtime that holds it, a timer, and something that reenters when dropped.
        let (inside, mine) = (Arc::clone(&held), runtime.clone());
        let guard = Reenters(runtime.clone(), Arc::clone(&drops));
        drop(runtime.spawn(async move {
            mine.sleep(Duration::from_secs(3600)).await;
            drop((inside, guard));
        }));
        let (inside, mine) = (Arc::clone(&held), runtime.clone());
        drop(runtime.spawn_blocking(move || drop((inside, mine))));
        // Never polled.
        let (inside, mine) = (Arc::clone(&held), runtime.clone());
        runtime.execute(Box::pin(async move { drop((inside, mine)) }));
    }
    sim.run_until_idle(Duration::ZERO).unwrap();
    drop(sim);
    assert_eq!(Arc::strong_count(&held), 1);
    assert_eq!(drops.load(Ordering::Relaxed), 10);

    // A runtime that outlives its simulation runs nothing and keeps nothing.
    let inside = Arc::clone(&held);
    let task = runtime.spawn(async move { drop(inside) });
    assert_eq!(Arc::strong_count(&held), 1);
    assert_eq!(Sim::new(2).block_on(task).unwrap(), Err(TaskError::Aborted));
}

#[test]
fn wakes_from_other_threads_are_taken() {
    let sim = Sim::new(1);
    let kept: Arc<Mutex<Option<Waker>>> = Arc::default();
    let woken = Log::new();
    let (slot, log) = (Arc::clone(&kept), woken.clone());
    drop(handle(&sim).spawn(poll_fn(move |cx| {
        if slot.lock().unwrap().replace(cx.waker().clone()).is_some() {
            log.push(());
            return Poll::Ready(());
        }
        Poll::Pending
    })));
    sim.run_until_idle(Duration::from_secs(1)).unwrap();
    assert!(woken.all().is_empty());
    let waker = kept.lock().unwrap().clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            waker.wake_by_ref();
            waker.wake_by_ref();
        });
    });
    sim.run_until_idle(Duration::from_secs(1)).unwrap();
    assert_eq!(woken.all().len(), 1);
    waker.wake(); // after the task has ended: nothing to do
    sim.run_until_idle(Duration::from_secs(1)).unwrap();
    drop(sim);
    kept.lock().unwrap().take().unwrap().wake(); // after everything has ended
}

#[test]
fn ten_thousand_tasks_talk_and_end() {
    let sim = Sim::new(1);
    let runtime = handle(&sim);
    let counts = sim.block_on(async {
        let tasks: Vec<_> = (0..10_000)
            .map(|task| {
                let inner = runtime.clone();
                runtime.spawn(async move {
                    for _ in 0..5 {
                        inner.sleep(Duration::from_micros(task % 100)).await;
                        step_aside().await;
                    }
                    1_u32
                })
            })
            .collect();
        join_all(tasks).await.into_iter().map(Result::unwrap).sum::<u32>()
    });
    assert_eq!(counts.unwrap(), 10_000);
    sim.run_until_idle(Duration::from_secs(1)).unwrap();
    assert_eq!((sim.pending_tasks(), sim.pending_timers()), (0, 0));
}
