//! Why a simulation went no further.

use std::fmt;
use std::sync::Arc;

use tierkeep::runtime::Instant;

use crate::trace::TraceEvent;

/// A simulation that cannot go on, and what was waiting when it stopped.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Stall {
    /// Why it stopped.
    pub reason: StallReason,
    /// The seed to repeat it with.
    pub seed: u64,
    /// The virtual time.
    pub now: Instant,
    /// The tasks that have not ended, oldest first; the main future is not among them.
    pub tasks: Vec<WaitingTask>,
    /// How many blocking jobs have not run.
    pub jobs: usize,
    /// The latest steps, oldest first.
    pub recent: Vec<TraceEvent>,
}

/// Why a simulation cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StallReason {
    /// No task is ready and no timer or blocking job is pending, while the main future is.
    Deadlock,
    /// The step limit was reached: most likely tasks wake each other for ever.
    StepLimit,
    /// The simulation was entered from within itself, or from two threads at a time.
    Reentered,
}

/// A task that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitingTask {
    /// Its number, as in the trace.
    pub id: u64,
    /// The actor it runs, if it is one's.
    pub name: Option<Arc<str>>,
    /// When it was spawned.
    pub spawned: Instant,
    /// When it was last polled; `None`: never.
    pub polled: Option<Instant>,
}

impl fmt::Display for StallReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deadlock => "no ready task and no timer",
            Self::StepLimit => "step limit reached",
            Self::Reentered => "entered from within itself",
        })
    }
}

impl fmt::Display for WaitingTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.id)?;
        if let Some(name) = &self.name {
            write!(f, " `{name}`")?;
        }
        match self.polled {
            Some(at) => write!(f, " last polled at {} ns", at.as_nanos()),
            None => f.write_str(" never polled"),
        }
    }
}

/// How many tasks a report names.
const NAMED: usize = 16;

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seed, now) = (self.seed, self.now.as_nanos());
        write!(f, "simulation with seed {seed} stopped at {now} ns: {}", self.reason)?;
        write!(f, "; {} tasks and {} blocking jobs wait", self.tasks.len(), self.jobs)?;
        for task in self.tasks.iter().take(NAMED) {
            write!(f, "\n  {task}")?;
        }
        if self.tasks.len() > NAMED {
            f.write_str("\n  …")?;
        }
        Ok(())
    }
}

impl std::error::Error for Stall {}
