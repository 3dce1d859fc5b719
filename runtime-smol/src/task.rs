//! Tasks, blocking jobs and timers of smol.

use std::time::Duration;

use smol::Executor;
use tierkeep::runtime::{BlockingJob, BoxFuture};

#[expect(clippy::disallowed_methods, reason = "this is the runtime seam")]
pub(crate) fn execute(executor: Option<&Executor<'static>>, task: BoxFuture<'static, ()>) {
    let task = match executor {
        Some(executor) => executor.spawn(task),
        None => smol::spawn(task),
    };
    // Dropping smol's handle would cancel.
    task.detach();
}

pub(crate) fn execute_blocking(job: BlockingJob) {
    smol::unblock(job).detach();
}

pub(crate) fn sleep(duration: Duration) -> BoxFuture<'static, ()> {
    if duration.is_zero() {
        return Box::pin(std::future::ready(()));
    }
    let timer = smol::Timer::after(duration);
    Box::pin(async move {
        timer.await;
    })
}
