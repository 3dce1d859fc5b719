//! How a simulation behaves.

use std::ops::RangeInclusive;
use std::time::Duration;

use tierkeep::Timestamp;

/// How a simulation behaves; give it to [`Sim::with`](crate::Sim::with).
#[derive(Debug, Clone)]
pub struct SimOptions {
    pub(crate) seed: u64,
    pub(crate) poll_cost: Duration,
    pub(crate) blocking_delay: RangeInclusive<Duration>,
    pub(crate) blocking_threads: usize,
    pub(crate) step_limit: u64,
    pub(crate) parallelism: usize,
    pub(crate) wall: Timestamp,
    pub(crate) trace_capacity: usize,
}

impl SimOptions {
    /// The defaults, under `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            poll_cost: Duration::from_micros(2),
            blocking_delay: Duration::from_micros(10)..=Duration::from_millis(2),
            blocking_threads: 8,
            step_limit: 50_000_000,
            parallelism: 2,
            wall: Timestamp::from_millis(1_767_225_600_000),
            trace_capacity: 64,
        }
    }

    /// The most virtual time that one poll of a task takes; each takes a seeded part of it. Default: 2 µs, so that
    /// deadlines pass while tasks are ready, as they do in life. Zero makes virtual time exact: it then passes only
    /// when nothing is ready.
    #[must_use]
    pub fn poll_cost(mut self, most: Duration) -> Self {
        self.poll_cost = most;
        self
    }

    /// How long a blocking job takes, in virtual time. Default: 10 µs to 2 ms.
    #[must_use]
    pub fn blocking_delay(mut self, range: RangeInclusive<Duration>) -> Self {
        self.blocking_delay = range;
        self
    }

    /// How many blocking jobs are under way at a time; more wait, and are started in seeded order. Default: 8; at
    /// least 1.
    #[must_use]
    pub fn blocking_threads(mut self, threads: usize) -> Self {
        self.blocking_threads = threads.max(1);
        self
    }

    /// How many steps (polls, timers, jobs) one call into the simulation may take before it gives up with
    /// [`StallReason::StepLimit`](crate::StallReason::StepLimit). Default: 50 million.
    #[must_use]
    pub fn step_limit(mut self, steps: u64) -> Self {
        self.step_limit = steps;
        self
    }

    /// What `Runtime::parallelism` says. Default: 2.
    #[must_use]
    pub fn parallelism(mut self, cores: usize) -> Self {
        self.parallelism = cores.max(1);
        self
    }

    /// The wall clock when the simulation starts. Default: 2026-01-01 00:00 UTC.
    #[must_use]
    pub fn wall(mut self, at: Timestamp) -> Self {
        self.wall = at;
        self
    }

    /// How many of the latest steps are kept for [`SimRuntime::recent`](crate::SimRuntime::recent) and for stall
    /// reports. Default: 64. The trace hash covers all steps whatever this is.
    #[must_use]
    pub fn trace_capacity(mut self, steps: usize) -> Self {
        self.trace_capacity = steps;
        self
    }
}
