//! The simulation as the engine sees it, and the hooks by which a test moves its world.

use std::fmt;
use std::sync::Arc;

use tierkeep::Timestamp;
use tierkeep::runtime::host::spawn_on_flume;
use tierkeep::runtime::{ActorSpec, Address, BlockingJob, BoxFuture, Instant, Runtime, RuntimeHandle};

use crate::core::Core;
use crate::timer::Sleep;
use crate::trace::TraceEvent;

/// The runtime of a [`Sim`](crate::Sim). Cheap to clone; usable from tasks, to spawn and to move the world.
///
/// After its `Sim` is dropped it drops what it is given to run, and its timers never fire.
#[derive(Clone)]
pub struct SimRuntime {
    pub(crate) core: Arc<Core>,
}

impl SimRuntime {
    /// The seed, to repeat this run with.
    pub fn seed(&self) -> u64 {
        self.core.options.seed
    }

    /// A hash over every decision so far: tasks spawned and polled, timers fired, jobs run, numbers drawn, and when.
    /// Two runs of one program under one seed agree in it.
    pub fn trace_hash(&self) -> u64 {
        self.core.lock().trace.hash()
    }

    /// The latest steps, oldest first: where two runs that should agree part. See
    /// [`SimOptions::trace_capacity`](crate::SimOptions::trace_capacity).
    pub fn recent(&self) -> Vec<TraceEvent> {
        self.core.lock().trace.recent()
    }

    /// Sets the wall clock. Monotonic time and timers are not touched, as in life.
    pub fn set_wall(&self, at: Timestamp) {
        self.core.lock().set_wall(at);
    }

    /// Moves the wall clock by `millis`, back if negative; it reads no less than 0.
    pub fn jump_wall(&self, millis: i64) {
        self.core.lock().jump_wall(millis);
    }

    /// Holds all blocking jobs, those under way too: none returns, as if the disk hung. `false` lets them go; those
    /// that are overdue return at once.
    pub fn hold_blocking(&self, hold: bool) {
        self.core.lock().blocking.hold(hold);
    }

    /// How many blocking jobs have been handed over and have not run.
    pub fn pending_blocking(&self) -> usize {
        self.core.lock().blocking.len()
    }

    /// How many tasks have not ended.
    pub fn pending_tasks(&self) -> usize {
        self.core.lock().tasks.len()
    }

    /// How many timers are waited for.
    pub fn pending_timers(&self) -> usize {
        self.core.lock().timers.len()
    }

    /// How many tasks and blocking jobs panicked through to the simulator. What the engine spawns contains its own
    /// panics and is not counted.
    pub fn panics(&self) -> u64 {
        self.core.lock().panics
    }
}

impl Runtime for SimRuntime {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn execute(&self, task: BoxFuture<'static, ()>) {
        self.core.spawn(task);
    }

    fn execute_blocking(&self, job: BlockingJob) {
        self.core.submit(job);
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        Box::pin(Sleep::new(Arc::clone(&self.core), deadline))
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.core.lock().now)
    }

    fn wall(&self) -> Timestamp {
        self.core.lock().wall()
    }

    fn random(&self) -> u64 {
        self.core.lock().draw()
    }

    fn parallelism(&self) -> usize {
        self.core.options.parallelism
    }

    /// On the engine's own host, whose task is named after the actor in stall reports.
    fn spawn_actor(&self, runtime: &RuntimeHandle, spec: ActorSpec) -> Address {
        self.core.lock().next_name = Some(Arc::clone(&spec.name));
        let address = spawn_on_flume(runtime, spec);
        self.core.lock().next_name = None;
        address
    }
}

impl fmt::Debug for SimRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.core.lock();
        f.debug_struct("SimRuntime")
            .field("seed", &self.core.options.seed)
            .field("now", &state.now)
            .field("tasks", &state.tasks.len())
            .finish_non_exhaustive()
    }
}
