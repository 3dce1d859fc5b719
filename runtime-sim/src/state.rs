//! Everything a simulation knows, behind one lock. Nothing here runs or drops what a user wrote: it is handed out to
//! be run or dropped after the lock is released, so whatever it does may come back in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

use tierkeep::Timestamp;
use tierkeep::runtime::{BlockingJob, BoxFuture, Instant};

use crate::blocking::Blocking;
use crate::core::TaskWaker;
use crate::options::SimOptions;
use crate::rng::{Rng, nanos};
use crate::stall::WaitingTask;
use crate::timer::TimerKey;
use crate::trace::{Trace, TraceStep};

pub(crate) struct State {
    /// Decides the schedule. Apart from `draws`, so that what the program draws is not what orders it.
    rng: Rng,
    draws: Rng,
    pub(crate) now: u64,
    /// The wall clock at virtual time zero, in ms. Signed: a test may step it back behind its start.
    wall_at_zero: i128,
    poll_cost: u64,
    last_id: u64,
    pub(crate) main: Option<Arc<TaskWaker>>,
    pub(crate) tasks: BTreeMap<u64, Task>,
    pub(crate) ready: Vec<u64>,
    pub(crate) timers: BTreeMap<TimerKey, Waker>,
    pub(crate) blocking: Blocking,
    pub(crate) trace: Trace,
    pub(crate) panics: u64,
    pub(crate) next_name: Option<Arc<str>>,
    pub(crate) closed: bool,
}

pub(crate) struct Task {
    /// Out while it is being polled.
    pub(crate) future: Option<BoxFuture<'static, ()>>,
    pub(crate) waker: Arc<TaskWaker>,
    name: Option<Arc<str>>,
    spawned: u64,
    polled: Option<u64>,
}

/// What to do next, outside the lock.
pub(crate) enum Step {
    Main,
    Poll {
        id: u64,
        future: BoxFuture<'static, ()>,
        waker: Waker,
    },
    Wake(Waker),
    Job(BlockingJob),
    /// Nothing is ready and nothing is pending.
    Idle,
    /// What comes next lies beyond the limit, where the clock now stands.
    TimeUp,
}

impl State {
    pub(crate) fn new(options: &SimOptions) -> Self {
        let mut rng = Rng::new(options.seed);
        Self {
            draws: Rng::new(rng.next()),
            rng,
            now: 0,
            wall_at_zero: i128::from(options.wall.as_millis()),
            poll_cost: nanos(options.poll_cost),
            last_id: 0,
            main: None,
            tasks: BTreeMap::new(),
            ready: Vec::new(),
            timers: BTreeMap::new(),
            blocking: Blocking::new(options.blocking_threads, options.blocking_delay.clone()),
            trace: Trace::new(options.trace_capacity),
            panics: 0,
            next_name: None,
            closed: false,
        }
    }

    pub(crate) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(crate) fn spawn(&mut self, waker: Arc<TaskWaker>, future: BoxFuture<'static, ()>) {
        let id = waker.id;
        self.trace.note(self.now, TraceStep::Spawn(id));
        let name = self.next_name.take();
        let task = Task { future: Some(future), waker, name, spawned: self.now, polled: None };
        self.tasks.insert(id, task);
        self.ready.push(id);
    }

    pub(crate) fn submit(&mut self, job: BlockingJob) {
        let id = self.next_id();
        self.trace.note(self.now, TraceStep::Submit(id));
        self.blocking.submit(id, job, self.now, &mut self.rng);
    }

    pub(crate) fn draw(&mut self) -> u64 {
        let value = self.draws.next();
        self.trace.note(self.now, TraceStep::Random(value));
        value
    }

    /// A key under which a timer fires; equal deadlines fire in seeded order.
    pub(crate) fn timer_key(&mut self, deadline: Instant) -> TimerKey {
        TimerKey { deadline: deadline.as_nanos(), tie: self.rng.next(), id: self.next_id() }
    }

    pub(crate) fn wall(&self) -> Timestamp {
        let millis = self.wall_at_zero + i128::from(self.now / 1_000_000);
        Timestamp::from_millis(u64::try_from(millis.max(0)).unwrap_or(u64::MAX))
    }

    pub(crate) fn set_wall(&mut self, at: Timestamp) {
        self.wall_at_zero = i128::from(at.as_millis()) - i128::from(self.now / 1_000_000);
    }

    pub(crate) fn jump_wall(&mut self, millis: i64) {
        self.wall_at_zero += i128::from(millis);
    }

    /// Decides what happens next; no later than `limit`, if there is one.
    pub(crate) fn next(&mut self, limit: Option<u64>) -> Step {
        if limit.is_some_and(|limit| self.now > limit) {
            return Step::TimeUp;
        }
        let due = self.next_due();
        // What is due goes before what is ready: it only joins the ready, among which the seed decides.
        if due.is_none_or(|due| due > self.now)
            && let Some(step) = self.pick()
        {
            return step;
        }
        match due {
            None => Step::Idle,
            Some(due) => match limit {
                Some(limit) if due > limit => {
                    self.now = limit;
                    Step::TimeUp
                }
                _ => {
                    self.now = self.now.max(due);
                    self.fire()
                }
            },
        }
    }

    fn next_due(&self) -> Option<u64> {
        let timer = self.timers.keys().next().map(|key| key.deadline);
        timer.into_iter().chain(self.blocking.next_due()).min()
    }

    fn fire(&mut self) -> Step {
        let timer = self.timers.keys().next().map(|key| key.deadline);
        let job = self.blocking.next_due();
        let timer_first = match (timer, job) {
            (Some(timer), Some(job)) if timer == job => self.rng.below(2) == 0,
            (Some(timer), Some(job)) => timer < job,
            (timer, _) => timer.is_some(),
        };
        if timer_first {
            if let Some((key, waker)) = self.timers.pop_first() {
                self.trace.note(self.now, TraceStep::Timer(Instant::from_nanos(key.deadline)));
                return Step::Wake(waker);
            }
        } else if let Some((id, job)) = self.blocking.finish(self.now, &mut self.rng) {
            self.trace.note(self.now, TraceStep::Job(id));
            return Step::Job(job);
        }
        Step::Idle
    }

    /// Takes a ready task, any.
    fn pick(&mut self) -> Option<Step> {
        while !self.ready.is_empty() {
            let id = self.ready.swap_remove(self.rng.index(self.ready.len()));
            let step = if let Some(main) = self.main.as_ref().filter(|main| main.id == id) {
                main.unqueue();
                Step::Main
            } else if let Some(task) = self.tasks.get_mut(&id)
                && let Some(future) = task.future.take()
            {
                task.waker.unqueue();
                task.polled = Some(self.now);
                Step::Poll { id, future, waker: Waker::from(Arc::clone(&task.waker)) }
            } else {
                continue; // it ended after it was woken
            };
            if self.poll_cost > 0 {
                self.now = self.now.saturating_add(self.rng.below(self.poll_cost + 1));
            }
            self.trace.note(self.now, TraceStep::Poll(id));
            return Some(step);
        }
        None
    }

    pub(crate) fn waiting(&self) -> Vec<WaitingTask> {
        let tasks = self.tasks.iter().map(|(&id, task)| WaitingTask {
            id,
            name: task.name.clone(),
            spawned: Instant::from_nanos(task.spawned),
            polled: task.polled.map(Instant::from_nanos),
        });
        tasks.collect()
    }
}
