//! The blocking workers: how much codec work runs at once, and how much may wait.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;

use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{RuntimeHandle, panic_message};

/// Runs jobs on the runtime's blocking pool: at most `workers` at once, at most `queue` waiting, first come first
/// served. What does not fit is refused at once.
///
/// A worker is free again when its *job* has returned, never when the caller gives up. A caller that is dropped while
/// it waits gives its place up. The queue holds jobs, not callers: one that is not polled delays nobody.
pub struct CodecPool {
    runtime: RuntimeHandle,
    workers: usize,
    queue: usize,
    state: Mutex<State>,
    rejected: AtomicU64,
}

#[derive(Default)]
struct State {
    running: usize,
    waiting: VecDeque<(u64, Job)>,
    next_id: u64,
}

type Job = Box<dyn FnOnce(Permit) + Send>;

impl CodecPool {
    /// A pool of `workers` (at least 1) with room for `queue` waiting jobs.
    pub fn new(runtime: RuntimeHandle, workers: usize, queue: usize) -> Arc<Self> {
        let (workers, state, rejected) = (workers.max(1), Mutex::default(), AtomicU64::new(0));
        Arc::new(Self { runtime, workers, queue, state, rejected })
    }

    /// Runs `job`. Dropping the future before the job has started takes it out of the queue; afterwards the job runs
    /// to its end and its result is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] at once if the queue is full; [`ErrorKind::Panicked`] if the job panics;
    /// [`ErrorKind::Closed`] if the runtime drops it.
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        let mut place = self.submit(Box::new(move |permit| {
            let output = catch_unwind(AssertUnwindSafe(job));
            drop(permit);
            // Nobody may be listening any more.
            let _ = sender.send(output.map_err(|panic| panicked(&panic_message(&*panic))));
        }))?;
        let result = receiver.await;
        place.waiting = false;
        result.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Closed, "the runtime was shut down before the codec's job ran"))
        })
    }

    /// Runs `job` and waits for nothing. If the queue is full it is dropped, here and now, and counted as refused.
    pub(super) fn run_detached(self: &Arc<Self>, job: impl FnOnce() + Send + 'static) {
        let place = self.submit(Box::new(move |permit| {
            // Nobody is left to be told.
            let _ = catch_unwind(AssertUnwindSafe(job));
            drop(permit);
        }));
        if let Ok(mut place) = place {
            place.waiting = false;
        }
    }

    /// How many jobs run now.
    pub fn running(&self) -> usize {
        self.state().running
    }

    /// How many jobs wait now.
    pub fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// How many jobs were refused so far.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// How many jobs may run at once.
    pub fn workers(&self) -> usize {
        self.workers
    }

    fn submit(self: &Arc<Self>, job: Job) -> Result<Place> {
        let mut state = self.state();
        let id = state.next_id;
        state.next_id += 1;
        if state.running < self.workers {
            state.running += 1;
            drop(state);
            self.start(job);
            return Ok(Place { pool: Arc::clone(self), id, waiting: false });
        }
        if state.waiting.len() >= self.queue {
            // The job drops what it captured: not under the lock.
            drop(state);
            self.rejected.fetch_add(1, Ordering::Relaxed);
            let message = format!("{} codec jobs are waiting already", self.queue);
            return Err(Error::new(ErrorKind::Overloaded, message));
        }
        state.waiting.push_back((id, job));
        Ok(Place { pool: Arc::clone(self), id, waiting: true })
    }

    /// Hands a job over whose worker is already counted.
    fn start(self: &Arc<Self>, job: Job) {
        let permit = Permit(Arc::clone(self));
        self.runtime.execute_blocking(Box::new(move || job(permit)));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No user code runs under the lock, so a poisoned state is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CodecPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("CodecPool")
            .field("workers", &self.workers)
            .field("running", &state.running)
            .field("waiting", &state.waiting.len())
            .finish_non_exhaustive()
    }
}

/// One worker, in use. Dropping it passes the worker on to the next in the queue.
struct Permit(Arc<CodecPool>);

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.0.state();
        let next = state.waiting.pop_front();
        if next.is_none() {
            state.running -= 1;
        }
        drop(state);
        if let Some((_, job)) = next {
            self.0.start(job);
        }
    }
}

/// A caller's place in the queue.
struct Place {
    pool: Arc<CodecPool>,
    id: u64,
    waiting: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.waiting {
            let mut state = self.pool.state();
            let found = state.waiting.binary_search_by_key(&self.id, |&(id, _)| id);
            // Dropped after the lock: what the job captured is not ours.
            let abandoned = found.ok().and_then(|index| state.waiting.remove(index));
            drop(state);
            drop(abandoned);
        }
    }
}

pub(super) fn panicked(message: &str) -> Error {
    Error::new(
        ErrorKind::Panicked,
        format!("a format, compressor or serde implementation panicked: {message}"),
    )
}
