//! The runtime seam: everything the engine wants from an async runtime, and nothing else.
//!
//! An application passes a runtime as a value (`TokioRuntime`, `AsyncStdRuntime`, `SmolRuntime`, or the simulator's);
//! it is never detected and never a type parameter. The engine reads no clock, draws no randomness and starts no
//! task or thread but through this trait, which is what lets the simulator drive all of it.

mod actor;
#[cfg(feature = "testing")]
pub mod conformance;
mod flume_host;
pub mod host;
mod restart;
mod task;
mod wall;

pub use actor::{
    ActorEvent, ActorFactory, ActorSpec, ActorState, ActorWatch, Address, Envelope, Handler, Mailbox,
    RejectReason, Rejected,
};
pub(crate) use restart::jitter;
pub use restart::{RestartCounter, RestartDecision, RestartPolicy};
pub(crate) use task::panic_message;
pub use task::{TaskError, TaskHandle};
pub use wall::system_wall;

use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt;

use crate::value::Timestamp;

/// A boxed future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A job for the blocking pool.
pub type BlockingJob = Box<dyn FnOnce() + Send>;

/// Monotonic time: nanoseconds since the runtime started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// From nanoseconds since the runtime started.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the runtime started.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Later by `duration`; saturates.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// The time from `earlier` to this; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// What the engine needs from a runtime. Implement it to bring your own, and run
/// `tierkeep::runtime::conformance` (feature `testing`) against it.
pub trait Runtime: fmt::Debug + Send + Sync + 'static {
    /// The runtime's name, for `inspect()`.
    fn name(&self) -> &'static str;

    /// Runs a task to its end in the background. The engine has already made it abortable and panic-safe.
    fn execute(&self, task: BoxFuture<'static, ()>);

    /// Runs a job on a thread that may block. Jobs that were handed over always run, whatever becomes of the caller.
    fn execute_blocking(&self, job: BlockingJob);

    /// Completes at `deadline` or as soon after as the timer allows; at once if it has passed.
    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()>;

    /// The monotonic clock.
    fn now(&self) -> Instant;

    /// The wall clock, for stamps that outlive the process.
    fn wall(&self) -> Timestamp;

    /// 64 random bits, for jitter.
    fn random(&self) -> u64;

    /// How many cores tasks run on: sizes the codec pool.
    fn parallelism(&self) -> usize {
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    }

    /// Starts a supervised actor. The default hosts it on a flume mailbox, on this runtime's tasks and timers;
    /// `runtime` is a handle to `self`.
    fn spawn_actor(&self, runtime: &RuntimeHandle, spec: ActorSpec) -> Address {
        flume_host::spawn(runtime, spec)
    }
}

/// A shared [`Runtime`] with the conveniences that need no method of their own. Cheap to clone.
#[derive(Clone)]
pub struct RuntimeHandle(Arc<dyn Runtime>);

impl RuntimeHandle {
    /// Shares `runtime`.
    pub fn new(runtime: impl Runtime) -> Self {
        Self(Arc::new(runtime))
    }

    /// Spawns a task. Dropping the handle detaches the task; [`TaskHandle::abort`] cancels it; a panic in it becomes
    /// [`TaskError::Panicked`].
    pub fn spawn<F>(&self, future: F) -> TaskHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (task, handle) = task::guard(future);
        self.0.execute(Box::pin(task));
        handle
    }

    /// Spawns a task whose end nobody waits for: without a handle, so cheaper. A panic in it ends it and is dropped.
    pub(crate) fn detach(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.0.execute(Box::pin(AssertUnwindSafe(future).catch_unwind().map(drop)));
    }

    /// As [`detach`](Self::detach), but polled once here and now: what ends at once costs no task.
    pub(crate) fn begin(&self, future: impl Future<Output = ()> + Send + 'static) {
        let mut task: BoxFuture<'static, ()> = Box::pin(AssertUnwindSafe(future).catch_unwind().map(drop));
        // The task polls it again as soon as it runs, with a waker of its own: none is missed.
        if task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            self.0.execute(task);
        }
    }

    /// Runs `job` on the blocking pool. The job runs to its end even if the handle is dropped or aborted.
    pub fn spawn_blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> TaskHandle<T> {
        let (job, handle) = task::guard_blocking(job);
        self.0.execute_blocking(Box::new(job));
        handle
    }

    /// Completes after `duration`.
    pub fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep_until(self.0.now().after(duration))
    }

    /// Runs `future` until `deadline`; `None` if it did not finish in time. Dropping the result drops `future`.
    pub async fn deadline<F: Future>(&self, deadline: Instant, future: F) -> Option<F::Output> {
        let (mut future, mut timer) = (std::pin::pin!(future), None);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            // Armed only for what does not end at once.
            let timer: &mut BoxFuture<'_, ()> = timer.get_or_insert_with(|| self.0.sleep_until(deadline));
            timer.as_mut().poll(cx).map(|()| None)
        })
        .await
    }

    /// Starts a supervised actor.
    pub fn spawn_actor(&self, spec: ActorSpec) -> Address {
        self.0.spawn_actor(self, spec)
    }
}

impl Deref for RuntimeHandle {
    type Target = dyn Runtime;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl fmt::Debug for RuntimeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<R: Runtime> From<R> for RuntimeHandle {
    fn from(runtime: R) -> Self {
        Self::new(runtime)
    }
}
