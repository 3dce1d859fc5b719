//! The simulation's shared heart: the lock, the wakers that lead back to it, and running what it decided.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Wake};

use tierkeep::runtime::{BlockingJob, BoxFuture};

use crate::options::SimOptions;
use crate::state::{State, Step};

pub(crate) struct Core {
    state: Mutex<State>,
    pub(crate) options: SimOptions,
    pub(crate) entered: AtomicBool,
}

/// Wakes one task, from any thread. Weak, so that a waker kept somewhere keeps no simulation alive.
pub(crate) struct TaskWaker {
    pub(crate) id: u64,
    core: Weak<Core>,
    queued: AtomicBool,
}

impl TaskWaker {
    /// From here on a wake queues the task again. Called before the poll, so that a wake during it is not lost.
    pub(crate) fn unqueue(&self) {
        self.queued.store(false, Ordering::Release);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel)
            && let Some(core) = self.core.upgrade()
        {
            core.lock().ready.push(self.id);
        }
    }
}

impl Core {
    pub(crate) fn new(options: SimOptions) -> Arc<Self> {
        let state = Mutex::new(State::new(&options));
        Arc::new(Self { state, options, entered: AtomicBool::new(false) })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A waker for a new task that is queued at once.
    pub(crate) fn waker(self: &Arc<Self>) -> Arc<TaskWaker> {
        let id = self.lock().next_id();
        Arc::new(TaskWaker { id, core: Arc::downgrade(self), queued: AtomicBool::new(true) })
    }

    pub(crate) fn spawn(self: &Arc<Self>, future: BoxFuture<'static, ()>) {
        let waker = self.waker();
        let mut state = self.lock();
        if state.closed {
            drop(state);
            contained(|| drop(future));
        } else {
            state.spawn(waker, future);
        }
    }

    pub(crate) fn submit(&self, job: BlockingJob) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            contained(|| drop(job));
        } else {
            state.submit(job);
        }
    }

    /// Does what was decided, without the lock.
    pub(crate) fn run(&self, step: Step) {
        let calm = match step {
            Step::Poll { id, future, waker } => self.poll(id, future, &mut Context::from_waker(&waker)),
            Step::Wake(waker) => contained(|| waker.wake()),
            Step::Job(job) => contained(job),
            Step::Main | Step::Idle | Step::TimeUp => true,
        };
        if !calm {
            self.lock().panics += 1;
        }
    }

    fn poll(&self, id: u64, mut future: BoxFuture<'static, ()>, cx: &mut Context<'_>) -> bool {
        let mut pending = false;
        let calm = contained(|| pending = future.as_mut().poll(cx).is_pending());
        if pending {
            let mut state = self.lock();
            if let Some(task) = state.tasks.get_mut(&id) {
                task.future = Some(future);
                return calm;
            }
        } else {
            // The entry goes first: what the future's drop looks at no longer shows it.
            let task = self.lock().tasks.remove(&id);
            drop(task);
        }
        contained(|| drop(future)) && calm
    }

    /// Drops all tasks, timers and jobs, and takes no more. Ends the cycle of tasks that hold the runtime that holds
    /// them.
    pub(crate) fn close(&self) {
        let (tasks, timers, jobs) = {
            let mut state = self.lock();
            state.closed = true;
            state.ready.clear();
            let tasks = std::mem::take(&mut state.tasks);
            (tasks, std::mem::take(&mut state.timers), state.blocking.take())
        };
        for task in tasks.into_values() {
            contained(|| drop(task));
        }
        for job in jobs {
            contained(|| drop(job));
        }
        for waker in timers.into_values() {
            contained(|| drop(waker));
        }
    }
}

/// Runs what a user wrote; whether it did so without a panic.
fn contained(run: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(run)).is_ok()
}
