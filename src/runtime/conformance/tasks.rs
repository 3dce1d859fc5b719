//! Tasks and blocking jobs: results, panics, aborts, and handles that are dropped.
#![expect(missing_docs, reason = "the name of a case says what must hold")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt;
use futures_util::future::join_all;

use super::probe::scripted_panic;
use super::stage::within;
use crate::runtime::{RuntimeHandle, TaskError};

pub async fn a_task_gives_its_result(runtime: RuntimeHandle) {
    let task = runtime.spawn(async { String::from("done") });
    assert_eq!(within(&runtime, "the result", task).await, Ok(String::from("done")));
}

pub async fn a_panic_in_a_task_is_a_value(runtime: RuntimeHandle) {
    let task = runtime.spawn(async { scripted_panic() });
    let result: Result<(), TaskError> = within(&runtime, "the panic", task).await;
    assert_eq!(result, Err(TaskError::Panicked("scripted".into())));
    let task = runtime.spawn(async { 1 });
    assert_eq!(within(&runtime, "a task after the panic", task).await, Ok(1));
}

pub async fn abort_cancels_a_task_and_drops_it(runtime: RuntimeHandle) {
    let (held, dropped) = oneshot::channel::<()>();
    let (starts, started) = oneshot::channel();
    let task = runtime.spawn(async move {
        let _held = held;
        let _ = starts.send(());
        std::future::pending::<()>().await;
    });
    assert_eq!(within(&runtime, "its start", started).await, Ok(()));
    task.abort();
    assert!(within(&runtime, "the drop of the future", dropped).await.is_err());
    assert_eq!(within(&runtime, "the result", task).await, Err(TaskError::Aborted));
}

pub async fn abort_after_the_end_does_no_harm(runtime: RuntimeHandle) {
    let (ends, ended) = oneshot::channel();
    let task = runtime.spawn(async move {
        let _ = ends.send(());
    });
    assert_eq!(within(&runtime, "its end", ended).await, Ok(()));
    let sentinel = runtime.spawn(async {});
    assert_eq!(within(&runtime, "another task", sentinel).await, Ok(()));
    task.abort();
    // Whichever came first; but it ends.
    let result = within(&runtime, "the result", task).await;
    assert!(matches!(result, Ok(()) | Err(TaskError::Aborted)));
}

pub async fn dropping_a_handle_detaches(runtime: RuntimeHandle) {
    let (reply, answer) = oneshot::channel();
    let timer = runtime.sleep(Duration::from_millis(2));
    drop(runtime.spawn(async move {
        timer.await;
        let _ = reply.send(1);
    }));
    assert_eq!(within(&runtime, "the detached task", answer).await, Ok(1));
}

pub async fn tasks_spawn_tasks(runtime: RuntimeHandle) {
    let inner = runtime.clone();
    let task = runtime.spawn(async move {
        let tasks = (0..10).map(|n| {
            let innermost = inner.clone();
            inner.spawn(async move { innermost.spawn(async move { n }).await })
        });
        join_all(tasks).await.into_iter().map(|n| n?).sum::<Result<u32, TaskError>>()
    });
    assert_eq!(within(&runtime, "the sum", task).await, Ok(Ok(45)));
}

pub async fn tasks_wake_each_other(runtime: RuntimeHandle) {
    let (mut ping, mut pinged) = mpsc::channel(0);
    let (mut pong, mut ponged) = mpsc::channel(0);
    drop(runtime.spawn(async move {
        while let Some(n) = pinged.next().await {
            let _ = pong.start_send(n + 1);
        }
    }));
    for n in 0..100 {
        assert!(ping.try_send(n).is_ok());
        assert_eq!(within(&runtime, "the answer", ponged.next()).await, Some(n + 1));
    }
}

pub async fn a_blocking_job_gives_its_result(runtime: RuntimeHandle) {
    let job = runtime.spawn_blocking(|| 42);
    assert_eq!(within(&runtime, "the result", job).await, Ok(42));
}

pub async fn a_panic_in_a_blocking_job_is_a_value(runtime: RuntimeHandle) {
    let job = runtime.spawn_blocking(|| scripted_panic());
    let result: Result<(), TaskError> = within(&runtime, "the panic", job).await;
    assert_eq!(result, Err(TaskError::Panicked("scripted".into())));
    let job = runtime.spawn_blocking(|| 1);
    assert_eq!(within(&runtime, "a job after the panic", job).await, Ok(1));
}

pub async fn a_blocking_job_outlives_its_handle(runtime: RuntimeHandle) {
    for abort in [false, true] {
        let (reply, answer) = oneshot::channel();
        let job = runtime.spawn_blocking(move || {
            let _ = reply.send(1);
        });
        if abort {
            job.abort();
        }
        drop(job);
        assert_eq!(within(&runtime, "the job", answer).await, Ok(1));
    }
}

pub async fn many_blocking_jobs_all_run(runtime: RuntimeHandle) {
    let ran = Arc::new(AtomicUsize::new(0));
    let jobs: Vec<_> = (0..200)
        .map(|n| {
            let ran = ran.clone();
            runtime.spawn_blocking(move || {
                ran.fetch_add(1, Ordering::SeqCst);
                n
            })
        })
        .collect();
    let results = within(&runtime, "all jobs", join_all(jobs)).await;
    assert_eq!(results, (0..200).map(Ok).collect::<Vec<_>>());
    assert_eq!(ran.load(Ordering::SeqCst), 200, "each runs once");
}
