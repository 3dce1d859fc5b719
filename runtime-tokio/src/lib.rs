//! Tierkeep on tokio: tasks, timers and blocking threads of tokio, actors hosted and supervised by kameo.
//!
//! ```
//! use std::time::Duration;
//! use tierkeep::{Cache, MemoryBackend, Region};
//! use tierkeep_tokio::TokioRuntime;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> tierkeep::Result<()> {
//! let cache = Cache::builder(TokioRuntime::current()).tier(MemoryBackend::entries(1_000)).build().await?;
//! let names: Region<String, u32> = cache.region("name").ttl(Duration::from_secs(60)).build()?;
//! names.set(&7, "Ada".to_owned()).await?;
//! assert_eq!(names.get(&7).await.as_deref().map(String::as_str), Some("Ada"));
//! assert!(cache.shutdown(Duration::from_secs(10)).await.clean);
//! # Ok(())
//! # }
//! ```

// The engine never panics on its own account, and says why a size fits. Tests may be shorter.
#![warn(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod clock;
mod host;
mod task;

use tierkeep::runtime::{ActorSpec, Address, BlockingJob, BoxFuture, Instant, Runtime, RuntimeHandle};
use tierkeep::{Error, ErrorKind, Timestamp};
use tokio::runtime::Handle;

/// A tokio runtime, by its handle: it neither owns nor outlives the runtime.
///
/// The runtime must have its timers enabled (`enable_time` or `enable_all`; `#[tokio::main]` and `#[tokio::test]` do
/// so): tokio panics where a timer is created without them. Both clocks follow `tokio::time`, so `pause` and
/// `advance` work in tests. When the runtime shuts down, its actors stop.
#[derive(Debug, Clone)]
pub struct TokioRuntime {
    handle: Handle,
    clock: clock::Clock,
}

impl TokioRuntime {
    /// The runtime that this is called in. See [`try_current`](Self::try_current) for one that does not panic.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, as `Handle::current` does.
    #[track_caller]
    pub fn current() -> Self {
        Self::new(Handle::current())
    }

    /// The runtime that this is called in.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] outside of a tokio runtime.
    pub fn try_current() -> Result<Self, Error> {
        let handle = Handle::try_current().map_err(|source| {
            Error::new(ErrorKind::Config, "called outside of a tokio runtime").with_source(source)
        })?;
        Ok(Self::new(handle))
    }

    /// The runtime behind `handle`. The monotonic clock starts now.
    pub fn new(handle: Handle) -> Self {
        let clock = clock::Clock::start(&handle);
        Self { handle, clock }
    }
}

impl Runtime for TokioRuntime {
    fn name(&self) -> &'static str {
        "tokio"
    }

    fn execute(&self, task: BoxFuture<'static, ()>) {
        task::execute(&self.handle, task);
    }

    fn execute_blocking(&self, job: BlockingJob) {
        task::execute_blocking(&self.handle, job);
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        task::sleep_until(&self.handle, self.clock.at(deadline))
    }

    fn now(&self) -> Instant {
        self.clock.now(&self.handle)
    }

    fn wall(&self) -> Timestamp {
        self.clock.wall(&self.handle)
    }

    fn random(&self) -> u64 {
        fastrand::u64(..)
    }

    /// How many worker threads the runtime has.
    fn parallelism(&self) -> usize {
        self.handle.metrics().num_workers().max(1)
    }

    /// Starts a kameo actor under a kameo supervisor of its own.
    fn spawn_actor(&self, runtime: &RuntimeHandle, spec: ActorSpec) -> Address {
        host::spawn(&self.handle, runtime, spec)
    }
}
