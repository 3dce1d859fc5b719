//! The simulated blocking pool: jobs under way on a bounded number of threads, and those that wait for one.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use tierkeep::runtime::BlockingJob;

use crate::rng::{Rng, nanos};

pub(crate) struct Blocking {
    /// By when it is done, a seeded tie-break, and its number.
    running: BTreeMap<(u64, u64, u64), BlockingJob>,
    waiting: Vec<(u64, BlockingJob)>,
    threads: usize,
    delay: RangeInclusive<Duration>,
    held: bool,
}

impl Blocking {
    pub(crate) fn new(threads: usize, delay: RangeInclusive<Duration>) -> Self {
        Self { running: BTreeMap::new(), waiting: Vec::new(), threads, delay, held: false }
    }

    pub(crate) fn submit(&mut self, id: u64, job: BlockingJob, now: u64, rng: &mut Rng) {
        self.waiting.push((id, job));
        self.start(now, rng);
    }

    /// Held jobs keep their threads, as jobs that hang do.
    pub(crate) fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// When the next job is done.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.running.keys().next().map(|key| key.0).filter(|_| !self.held)
    }

    /// Takes the job that is done first, and starts one that waits.
    pub(crate) fn finish(&mut self, now: u64, rng: &mut Rng) -> Option<(u64, BlockingJob)> {
        let (key, job) = self.running.pop_first()?;
        self.start(now, rng);
        Some((key.2, job))
    }

    pub(crate) fn len(&self) -> usize {
        self.running.len() + self.waiting.len()
    }

    /// Takes all jobs, unrun.
    pub(crate) fn take(&mut self) -> Vec<BlockingJob> {
        let running = std::mem::take(&mut self.running).into_values();
        running.chain(self.waiting.drain(..).map(|(_, job)| job)).collect()
    }

    fn start(&mut self, now: u64, rng: &mut Rng) {
        while self.running.len() < self.threads && !self.waiting.is_empty() {
            let (id, job) = self.waiting.swap_remove(rng.index(self.waiting.len()));
            let due = now.saturating_add(nanos(rng.duration(&self.delay)));
            self.running.insert((due, rng.next(), id), job);
        }
    }
}
