//! The one place here that reads a clock.

use std::sync::Barrier;
use std::time::{Duration, Instant};

/// A moment to measure from.
#[derive(Debug, Clone, Copy)]
pub struct Watch(Instant);

impl Watch {
    /// Starts now.
    #[expect(clippy::disallowed_methods, reason = "benches measure real time")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// How long ago that was.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// A moment to measure this thread's own time from: what it spends waiting for a processor does not count.
#[derive(Debug, Clone, Copy)]
pub struct CpuWatch(Duration);

impl CpuWatch {
    /// Starts now, on this thread.
    pub fn start() -> Self {
        Self(Self::now())
    }

    /// For how long this thread has run since then.
    pub fn elapsed(self) -> Duration {
        Self::now() - self.0
    }

    fn now() -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        // A thread's own time is never negative.
        Duration::try_from(time).unwrap_or_default()
    }
}

/// What all threads of this process have run for so far.
pub fn process_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Runs `work` on several threads at once and returns what each gave: they begin together.
///
/// # Panics
/// If a thread does: a wrong result aborts the bench.
pub fn on_threads<T: Send>(threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let (begin, work) = (&Barrier::new(threads), &work);
    std::thread::scope(|scope| {
        let start = |thread| {
            scope.spawn(move || {
                begin.wait();
                work(thread)
            })
        };
        let running: Vec<_> = (0..threads).map(start).collect();
        running.into_iter().map(|thread| thread.join().expect("a bench thread panicked")).collect()
    })
}
