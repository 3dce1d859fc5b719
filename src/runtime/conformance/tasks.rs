//! Tasks and blocking jobs: results, panics, aborts, and handles that are dropped.
#![expect(missing_docs, reason = "the name of a case says what must hold")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_channel::{mpsc, oneshot};
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};

use super::probe::scripted_panic;
use super::stage::within;
use crate::backend::{Backend, BackendResult, Blocking, BlockingBackend, OpenContext};
use crate::key::CacheKey;
use crate::runtime::{RuntimeHandle, TaskError};
use crate::value::{CacheValue, DeleteStatus, Raw};

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

/// Counts how many of its calls run at once.
#[derive(Clone, Default)]
struct Busy {
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    ran: Arc<AtomicUsize>,
}

impl BlockingBackend for Busy {
    fn read(&self, _: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        // Long enough for others to be let in if they wrongly are; where jobs run one by one, it shows nothing.
        std::hint::black_box((0..20_000_u64).fold(0, |sum: u64, n| sum.rotate_left(5) ^ n));
        self.ran.fetch_add(1, Ordering::SeqCst);
        self.running.fetch_sub(1, Ordering::SeqCst);
        Ok(None)
    }

    fn write(&self, _: &CacheKey, _: CacheValue<Raw>) -> BackendResult<()> {
        Ok(())
    }

    fn remove(&self, _: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(DeleteStatus::Missing)
    }
}

pub async fn no_more_blocking_jobs_run_than_there_are_permits(runtime: RuntimeHandle) {
    let busy = Busy::default();
    let store = Blocking::new(busy.clone()).with_permits(2);
    assert!(store.open(&OpenContext::new(runtime.clone())).await.is_ok());
    let key = CacheKey::new("busy", 1, []);
    let reads = join_all((0..50).map(|_| store.read(&key)));
    let results = within(&runtime, "all reads", reads).await;
    assert!(results.iter().all(|result| matches!(result, Ok(None))));
    assert_eq!(busy.ran.load(Ordering::SeqCst), 50, "each runs once");
    assert!(busy.most.load(Ordering::SeqCst) <= 2, "a job ran without a permit");
    assert_eq!(store.running_jobs(), 0, "each permit is given back");
}

pub async fn a_permit_outlives_a_caller_that_gives_up(runtime: RuntimeHandle) {
    let busy = Busy::default();
    let store = Blocking::new(busy.clone()).with_permits(1);
    assert!(store.open(&OpenContext::new(runtime.clone())).await.is_ok());
    let key = CacheKey::new("busy", 1, []);
    {
        // Polled once, the job is handed over; its caller goes.
        let mut read = store.read(&key);
        let _ = (&mut read).now_or_never();
    }
    // The next one waits for the permit of the job, not of the caller, and gets it.
    assert!(matches!(within(&runtime, "the next read", store.read(&key)).await, Ok(None)));
    assert_eq!(busy.ran.load(Ordering::SeqCst), 2, "the abandoned job ran too");
    assert_eq!(busy.most.load(Ordering::SeqCst), 1, "the two never ran at once");
}
