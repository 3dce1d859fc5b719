//! Where a case runs: a runtime, and what a test may do about time and threads on it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, Once};
use std::time::Duration;

use tierkeep::Timestamp;
use tierkeep::runtime::{Instant, RuntimeHandle};
use tierkeep_async_std::AsyncStdRuntime;
use tierkeep_sim::{Sim, SimRuntime, explore};
use tierkeep_smol::SmolRuntime;
use tierkeep_tokio::TokioRuntime;

/// A test: it panics if the engine does not behave.
pub(crate) type Case = fn(World) -> Pin<Box<dyn Future<Output = ()>>>;

/// Past this, what is waited for is taken to never come. Only a failing test waits so long.
const GUARD: Duration = Duration::from_secs(90);

/// Longer than any test: a healthy tier never misses it, however busy the machine is.
pub(crate) const NEVER: Duration = Duration::from_secs(300);

/// How many schedules the simulator tries.
const SEEDS: u64 = 8;

/// A runtime to run on.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) runtime: RuntimeHandle,
    sim: Option<SimRuntime>,
}

impl World {
    fn real(runtime: impl Into<RuntimeHandle>) -> Self {
        quiet();
        Self { runtime: runtime.into(), sim: None }
    }

    /// The simulator, where time is exact and the wall clock can be set.
    pub(crate) fn sim(&self) -> Option<&SimRuntime> {
        self.sim.as_ref()
    }

    /// Waits until `done`.
    pub(crate) async fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        self.until_some(what, async || done().then_some(())).await;
    }

    /// Tries until there is a result.
    pub(crate) async fn until_some<T>(&self, what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
        let guard = self.runtime.now().after(GUARD);
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(result) = attempt().await {
                return result;
            }
            assert!(self.runtime.now() < guard, "waited in vain: {what}");
            self.runtime.sleep(pause).await;
            pause = (pause * 5 / 4).min(Duration::from_millis(20));
        }
    }

    /// Lets background work come to rest, before a look at what must *not* have happened. In the simulator that is
    /// certain; elsewhere it only gives a wrong engine time to show.
    pub(crate) async fn settle(&self) {
        let time = if self.sim.is_some() { Duration::from_secs(2) } else { Duration::from_millis(10) };
        self.runtime.sleep(time).await;
    }

    /// No more than `limit` has passed since `began`. In the simulator, whose time does not depend on the machine, to
    /// the millisecond; elsewhere a busy machine is allowed for, and only what hangs is found.
    pub(crate) fn assert_within(&self, began: Instant, limit: Duration, what: &str) {
        let slack = if self.sim.is_some() { Duration::from_millis(5) } else { Duration::from_secs(20) };
        let took = self.runtime.now().since(began);
        assert!(took <= limit + slack, "{what} took {took:?} of {limit:?}");
    }

    pub(crate) fn wall(&self) -> Timestamp {
        self.runtime.wall()
    }

    /// Something by which to hang threads of the blocking pool.
    pub(crate) fn stall(&self) -> Stall {
        Stall(Arc::new(StallState {
            sim: self.sim.clone(),
            closed: Mutex::new(false),
            opened: Condvar::new(),
        }))
    }
}

/// While closed, jobs of the blocking pool that [`pass`](Self::pass) it hang. In the simulator, where there are no
/// threads to hang, all jobs are held instead.
#[derive(Clone)]
pub(crate) struct Stall(Arc<StallState>);

struct StallState {
    sim: Option<SimRuntime>,
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Stall {
    pub(crate) fn close(&self, close: bool) {
        match &self.0.sim {
            Some(sim) => sim.hold_blocking(close),
            None => *self.0.closed.lock().unwrap() = close,
        }
        self.0.opened.notify_all();
    }

    pub(crate) fn pass(&self) {
        let closed = self.0.closed.lock().unwrap();
        drop(self.0.opened.wait_while(closed, |closed| *closed).unwrap());
    }
}

/// Keeps the test's own crashes, of which there are hundreds, out of its output.
fn quiet() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let asked_for = |message: &&str| message.contains("asked for by a test");
            if !info.payload().downcast_ref::<&str>().is_some_and(asked_for) {
                report(info);
            }
        }));
    });
}

pub(crate) fn on_tokio(case: Case) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_time().build().unwrap();
    runtime.block_on(case(World::real(TokioRuntime::new(runtime.handle().clone()))));
}

pub(crate) fn on_tokio_current_thread(case: Case) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(case(World::real(TokioRuntime::new(runtime.handle().clone()))));
}

pub(crate) fn on_async_std(case: Case) {
    async_std::task::block_on(case(World::real(AsyncStdRuntime::new())));
}

pub(crate) fn on_smol(case: Case) {
    smol::block_on(case(World::real(SmolRuntime::new())));
}

pub(crate) fn on_sim(case: Case) {
    quiet();
    explore(0..SEEDS, |sim: &Sim| {
        let world = World { runtime: RuntimeHandle::new(sim.runtime()), sim: Some(sim.runtime()) };
        if let Err(stall) = sim.block_on(case(world)) {
            panic!("{stall}");
        }
    });
}
