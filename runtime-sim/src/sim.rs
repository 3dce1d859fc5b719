//! The simulation as a test holds it.

use std::future::Future;
use std::ops::Deref;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tierkeep::runtime::Runtime;

use crate::core::Core;
use crate::options::SimOptions;
use crate::rng::nanos;
use crate::runtime::SimRuntime;
use crate::stall::{Stall, StallReason};
use crate::state::Step;

/// A simulation: the world in which a test's program runs. It derefs to its [`SimRuntime`], whose methods move the
/// clocks and hold the blocking jobs.
///
/// Dropping it drops all its tasks, and its blocking jobs unrun, as the end of a process does.
#[derive(Debug)]
pub struct Sim {
    runtime: SimRuntime,
}

/// How a [`Sim::run_until_idle`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Nothing is ready and nothing is pending; tasks may still wait for each other, or for blocking jobs on hold.
    Idle,
    /// The time was up with timers or jobs still to come.
    TimeUp,
}

impl Sim {
    /// A simulation with the default options.
    ///
    /// Fixes the seed of the engine's key hashes for this process, unless a key was hashed before.
    pub fn new(seed: u64) -> Self {
        Self::with(SimOptions::new(seed))
    }

    /// A simulation with these options. As [`new`](Self::new) otherwise.
    pub fn with(options: SimOptions) -> Self {
        tierkeep::deterministic_hashing();
        Self { runtime: SimRuntime { core: Core::new(options) } }
    }

    /// The runtime to hand to the program under test.
    pub fn runtime(&self) -> SimRuntime {
        self.runtime.clone()
    }

    /// Runs `future`, and with it all tasks, until it is done. Tasks that are not done then go on in the next call.
    ///
    /// # Errors
    ///
    /// A [`Stall`] when it cannot be done: nothing is ready or pending, or the step limit is reached. `future` is
    /// dropped then. A panic of `future` itself is the caller's.
    pub fn block_on<F: Future>(&self, future: F) -> Result<F::Output, Stall> {
        let _entered = self.enter()?;
        let mut future = pin!(future);
        let waker = self.core().waker();
        {
            let mut state = self.core().lock();
            state.ready.push(waker.id);
            state.main = Some(Arc::clone(&waker));
        }
        let waker = Waker::from(waker);
        let mut cx = Context::from_waker(&waker);
        for _ in 0..self.core().options.step_limit {
            let step = self.core().lock().next(None);
            match step {
                Step::Main => {
                    if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                        return Ok(output);
                    }
                }
                Step::Idle | Step::TimeUp => return Err(self.stall(StallReason::Deadlock)),
                step => self.core().run(step),
            }
        }
        Err(self.stall(StallReason::StepLimit))
    }

    /// Runs the tasks until nothing is ready or pending, or for `most` of virtual time if that is sooner: for
    /// background work to drain.
    ///
    /// # Errors
    ///
    /// A [`Stall`] when the step limit is reached.
    pub fn run_until_idle(&self, most: Duration) -> Result<Drained, Stall> {
        let _entered = self.enter()?;
        let limit = self.core().lock().now.saturating_add(nanos(most));
        for _ in 0..self.core().options.step_limit {
            let step = self.core().lock().next(Some(limit));
            match step {
                Step::Idle => return Ok(Drained::Idle),
                Step::TimeUp => return Ok(Drained::TimeUp),
                step => self.core().run(step),
            }
        }
        Err(self.stall(StallReason::StepLimit))
    }

    /// Runs the tasks for `duration` of virtual time, which passes even if they have nothing to do.
    ///
    /// # Errors
    ///
    /// A [`Stall`] when the step limit is reached.
    pub fn run_for(&self, duration: Duration) -> Result<(), Stall> {
        let end = self.runtime.now().after(duration);
        self.run_until_idle(duration)?;
        let mut state = self.core().lock();
        state.now = state.now.max(end.as_nanos());
        Ok(())
    }

    fn core(&self) -> &Arc<Core> {
        &self.runtime.core
    }

    fn enter(&self) -> Result<Entered<'_>, Stall> {
        if self.core().entered.swap(true, Ordering::AcqRel) {
            return Err(self.stall(StallReason::Reentered));
        }
        Ok(Entered(self.core()))
    }

    fn stall(&self, reason: StallReason) -> Stall {
        let state = self.core().lock();
        Stall {
            reason,
            seed: self.core().options.seed,
            now: tierkeep::runtime::Instant::from_nanos(state.now),
            tasks: state.waiting(),
            jobs: state.blocking.len(),
            recent: state.trace.recent(),
        }
    }
}

impl Deref for Sim {
    type Target = SimRuntime;

    fn deref(&self) -> &SimRuntime {
        &self.runtime
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.core().close();
    }
}

/// A run under way; ends it on every way out, a panic of the main future included.
struct Entered<'a>(&'a Core);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let main = self.0.lock().main.take();
        drop(main);
        self.0.entered.store(false, Ordering::Release);
    }
}
