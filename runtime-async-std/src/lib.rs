//! Tierkeep on async-std: tasks, timers and blocking threads of async-std, actors on the engine's own host.
//!
//! ```
//! use tierkeep::runtime::RuntimeHandle;
//! use tierkeep_async_std::AsyncStdRuntime;
//!
//! let runtime = RuntimeHandle::new(AsyncStdRuntime::new());
//! let answer = async_std::task::block_on(runtime.spawn(async { 6 * 7 }));
//! assert_eq!(answer, Ok(42));
//! ```

mod clock;
mod task;

use tierkeep::Timestamp;
use tierkeep::runtime::{BlockingJob, BoxFuture, Instant, Runtime};

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
        clock::wall()
    }

    fn random(&self) -> u64 {
        fastrand::u64(..)
    }
}
