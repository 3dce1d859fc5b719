//! Tasks that behave alike on every runtime: dropping a handle detaches, `abort` cancels, a panic is a value.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::{AbortHandle, Abortable};

/// Why a task gave no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskError {
    /// It panicked, with this message.
    Panicked(String),
    /// It was aborted, or its runtime was shut down.
    Aborted,
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(message) => write!(f, "task panicked: {message}"),
            Self::Aborted => f.write_str("task aborted"),
        }
    }
}

impl std::error::Error for TaskError {}

/// A spawned task. Await it for the result; drop it to let the task run on by itself.
#[derive(Debug)]
pub struct TaskHandle<T> {
    result: oneshot::Receiver<Result<T, TaskError>>,
    abort: Option<AbortHandle>,
}

impl<T> TaskHandle<T> {
    /// Cancels the task at its next await. A blocking job that has started cannot be cancelled.
    pub fn abort(&self) {
        if let Some(abort) = &self.abort {
            abort.abort();
        }
    }
}

impl<T> Future for TaskHandle<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A cancelled channel means that the task was dropped before its end.
        self.result.poll_unpin(cx).map(|result| result.unwrap_or(Err(TaskError::Aborted)))
    }
}

pub(super) fn guard<F: Future>(future: F) -> (impl Future<Output = ()>, TaskHandle<F::Output>) {
    let (sender, result) = oneshot::channel();
    let (abort, registration) = AbortHandle::new_pair();
    let task = Abortable::new(
        async move {
            let output = AssertUnwindSafe(future).catch_unwind().await;
            // Nobody may be listening any more.
            let _ = sender.send(output.map_err(|panic| TaskError::Panicked(panic_message(&*panic))));
        },
        registration,
    )
    .map(drop);
    (task, TaskHandle { result, abort: Some(abort) })
}

pub(super) fn guard_blocking<T>(job: impl FnOnce() -> T + Send) -> (impl FnOnce() + Send, TaskHandle<T>)
where
    T: Send,
{
    let (sender, result) = oneshot::channel();
    let job = move || {
        let output = std::panic::catch_unwind(AssertUnwindSafe(job));
        let _ = sender.send(output.map_err(|panic| TaskError::Panicked(panic_message(&*panic))));
    };
    (job, TaskHandle { result, abort: None })
}

/// The text of a panic, as far as it has one.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&'static str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
