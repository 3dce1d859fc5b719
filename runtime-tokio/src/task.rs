//! Tasks, blocking jobs and timers of tokio.

use tierkeep::runtime::{BlockingJob, BoxFuture};
use tokio::runtime::Handle;
use tokio::time::Instant;

pub(crate) fn execute(handle: &Handle, task: BoxFuture<'static, ()>) {
    // Dropping the handle detaches.
    drop(handle.spawn(task));
}

pub(crate) fn execute_blocking(handle: &Handle, job: BlockingJob) {
    drop(handle.spawn_blocking(job));
}

/// `None` is later than tokio's clock can say.
pub(crate) fn sleep_until(handle: &Handle, deadline: Option<Instant>) -> BoxFuture<'static, ()> {
    // A timer belongs to the runtime in which it is created.
    let _entered = handle.enter();
    match deadline {
        Some(deadline) => Box::pin(tokio::time::sleep_until(deadline)),
        None => Box::pin(std::future::pending()),
    }
}
