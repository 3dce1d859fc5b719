//! What the simulator did, as a hash over everything and a list of the latest steps.

use std::collections::VecDeque;

use tierkeep::runtime::Instant;

/// One step of a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceEvent {
    /// When, in virtual time.
    pub at: Instant,
    /// What.
    pub step: TraceStep,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TraceStep {
    /// A task was spawned under this number.
    Spawn(u64),
    /// The task was polled.
    Poll(u64),
    /// A timer with this deadline fired.
    Timer(Instant),
    /// A blocking job was handed over.
    Submit(u64),
    /// The blocking job ran.
    Job(u64),
    /// A random number was drawn through the runtime.
    Random(u64),
}

#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    recent: VecDeque<TraceEvent>,
    capacity: usize,
}

impl Trace {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, recent: VecDeque::new(), capacity }
    }

    pub(crate) fn note(&mut self, at: u64, step: TraceStep) {
        let (tag, value) = match step {
            TraceStep::Spawn(id) => (1, id),
            TraceStep::Poll(id) => (2, id),
            TraceStep::Timer(deadline) => (3, deadline.as_nanos()),
            TraceStep::Submit(id) => (4, id),
            TraceStep::Job(id) => (5, id),
            TraceStep::Random(value) => (6, value),
        };
        for word in [at, tag, value] {
            // Multiply and rotate: order matters, and every bit of a word reaches the whole hash within a few steps.
            self.hash = (self.hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        if self.capacity > 0 {
            if self.recent.len() == self.capacity {
                self.recent.pop_front();
            }
            self.recent.push_back(TraceEvent { at: Instant::from_nanos(at), step });
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn recent(&self) -> Vec<TraceEvent> {
        self.recent.iter().copied().collect()
    }
}
