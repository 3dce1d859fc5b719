//! Tierkeep on smol: tasks, timers and blocking threads of smol, actors on the engine's own host.
//!
//! ```
//! use std::time::Duration;
//! use tierkeep::{Cache, MemoryBackend, Region};
//! use tierkeep_smol::SmolRuntime;
//!
//! smol::block_on(async {
//!     let cache = Cache::builder(SmolRuntime::new()).tier(MemoryBackend::entries(1_000)).build().await?;
//!     let names: Region<String, u32> = cache.region("name").ttl(Duration::from_secs(60)).build()?;
//!     names.set(&7, "Ada".to_owned()).await?;
//!     assert_eq!(names.get(&7).await.as_deref().map(String::as_str), Some("Ada"));
//!     assert!(cache.shutdown(Duration::from_secs(10)).await.clean);
//!     Ok::<_, tierkeep::Error>(())
//! })?;
//! # Ok::<_, tierkeep::Error>(())
//! ```

// The engine never panics on its own account, and says why a size fits. Tests may be shorter.
#![warn(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod clock;
mod task;

use std::sync::Arc;

use smol::Executor;
use tierkeep::Timestamp;
use tierkeep::runtime::{BlockingJob, BoxFuture, Instant, Runtime, system_wall};

/// smol's timers and blocking pool, with its global executor or one of your own.
#[derive(Debug, Clone)]
pub struct SmolRuntime {
    executor: Option<Arc<Executor<'static>>>,
    clock: clock::Clock,
}

impl SmolRuntime {
    /// A handle to smol's global executor, which starts by itself (with `SMOL_THREADS` threads, by default one). The
    /// monotonic clock starts now.
    pub fn new() -> Self {
        Self { executor: None, clock: clock::Clock::start() }
    }

    /// Runs tasks on `executor`, which you drive with its `run` for as long as the cache is used. The monotonic clock
    /// starts now.
    pub fn on(executor: Arc<Executor<'static>>) -> Self {
        Self { executor: Some(executor), clock: clock::Clock::start() }
    }
}

impl Default for SmolRuntime {
    fn default() -> Self {
        Self::new()
    }
}

impl Runtime for SmolRuntime {
    fn name(&self) -> &'static str {
        "smol"
    }

    fn execute(&self, task: BoxFuture<'static, ()>) {
        task::execute(self.executor.as_deref(), task);
    }

    fn execute_blocking(&self, job: BlockingJob) {
        task::execute_blocking(job);
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        task::sleep(deadline.since(self.now()))
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn wall(&self) -> Timestamp {
        system_wall()
    }

    fn random(&self) -> u64 {
        fastrand::u64(..)
    }
}
