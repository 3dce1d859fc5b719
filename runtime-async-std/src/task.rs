//! Tasks, blocking jobs and timers of async-std.

use std::time::Duration;

use tierkeep::runtime::{BlockingJob, BoxFuture};

#[expect(clippy::disallowed_methods, reason = "this is the runtime seam")]
pub(crate) fn execute(task: BoxFuture<'static, ()>) {
    // Dropping the handle detaches.
    drop(async_std::task::spawn(task));
}

pub(crate) fn execute_blocking(job: BlockingJob) {
    drop(async_std::task::spawn_blocking(job));
}

#[expect(clippy::disallowed_methods, reason = "this is the runtime seam")]
pub(crate) fn sleep(duration: Duration) -> BoxFuture<'static, ()> {
    if duration.is_zero() {
        return Box::pin(std::future::ready(()));
    }
    Box::pin(async_std::task::sleep(duration))
}
