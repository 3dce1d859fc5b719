//! Tierkeep on async-std: tasks, timers and blocking threads of async-std, actors on the engine's own host.
//!
//! ```
//! use std::time::Duration;
//! use tierkeep::{Cache, MemoryBackend, Region};
//! use tierkeep_async_std::AsyncStdRuntime;
//!
//! async_std::task::block_on(async {
//!     let cache = Cache::builder(AsyncStdRuntime::new()).tier(MemoryBackend::entries(1_000)).build().await?;
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

use tierkeep::Timestamp;
use tierkeep::runtime::{BlockingJob, BoxFuture, Instant, Runtime, system_wall};

/// async-std's global executor, timers and blocking pool.
#[derive(Debug, Clone)]
pub struct AsyncStdRuntime {
    clock: clock::Clock,
}

impl AsyncStdRuntime {
    /// A handle to async-std's global runtime, which starts by itself. The monotonic clock starts now.
    pub fn new() -> Self {
        Self { clock: clock::Clock::start() }
    }
}

impl Default for AsyncStdRuntime {
    fn default() -> Self {
        Self::new()
    }
}

impl Runtime for AsyncStdRuntime {
    fn name(&self) -> &'static str {
        "async-std"
    }

    fn execute(&self, task: BoxFuture<'static, ()>) {
        task::execute(task);
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
