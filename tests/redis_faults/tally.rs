//! Counts of what callers got.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Debug, Default)]
pub(crate) struct Tally {
    calls: AtomicU64,
    memory_hits: AtomicU64,
    redis_hits: AtomicU64,
    loaded: AtomicU64,
    misses: AtomicU64,
    degraded: AtomicU64,
    errors: AtomicU64,
    over_deadline: AtomicU64,
    slowest_us: AtomicU64,
    latest_us: AtomicU64,
}

/// A moment's counts, or what came between two.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) calls: u64,
    pub(crate) memory_hits: u64,
    pub(crate) redis_hits: u64,
    pub(crate) loaded: u64,
    pub(crate) misses: u64,
    /// Reads that some tier could not answer, whatever the others did.
    pub(crate) degraded: u64,
    pub(crate) errors: u64,
    pub(crate) over_deadline: u64,
    pub(crate) slowest: Duration,
    /// By how much an answer was later than its deadline, and than the runtime's timers were.
    pub(crate) latest: Duration,
}

impl Tally {
    pub(crate) fn answered(&self, took: Duration, late: Duration, too_late: bool) {
        one(&self.calls);
        for (most, time) in [(&self.slowest_us, took), (&self.latest_us, late)] {
            most.fetch_max(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        if too_late {
            one(&self.over_deadline);
        }
    }

    /// From which tier; `None`: it was loaded.
    pub(crate) fn hit(&self, tier: Option<&str>) {
        one(match tier {
            Some("redis") => &self.redis_hits,
            Some(_) => &self.memory_hits,
            None => &self.loaded,
        });
    }

    pub(crate) fn missed(&self) {
        one(&self.misses);
    }

    pub(crate) fn degraded(&self) {
        one(&self.degraded);
    }

    pub(crate) fn failed(&self) {
        one(&self.errors);
    }

    pub(crate) fn counts(&self) -> Counts {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            calls: get(&self.calls),
            memory_hits: get(&self.memory_hits),
            redis_hits: get(&self.redis_hits),
            loaded: get(&self.loaded),
            misses: get(&self.misses),
            degraded: get(&self.degraded),
            errors: get(&self.errors),
            over_deadline: get(&self.over_deadline),
            slowest: Duration::from_micros(get(&self.slowest_us)),
            latest: Duration::from_micros(get(&self.latest_us)),
        }
    }
}

fn one(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

impl Counts {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            calls: self.calls - before.calls,
            memory_hits: self.memory_hits - before.memory_hits,
            redis_hits: self.redis_hits - before.redis_hits,
            loaded: self.loaded - before.loaded,
            misses: self.misses - before.misses,
            degraded: self.degraded - before.degraded,
            errors: self.errors - before.errors,
            over_deadline: self.over_deadline - before.over_deadline,
            slowest: self.slowest,
            latest: self.latest,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            calls,
            memory_hits,
            redis_hits,
            loaded,
            misses,
            degraded,
            errors,
            over_deadline,
            slowest,
            latest,
        } = self;
        let hits = memory_hits + redis_hits;
        let (slowest, latest) = (slowest.as_millis(), latest.as_millis());
        write!(
            f,
            "calls={calls} hits={hits} (redis={redis_hits}) loaded={loaded} misses={misses} degraded={degraded} "
        )?;
        write!(f, "errors={errors} over_deadline={over_deadline} slowest_ms={slowest} latest_ms={latest}")
    }
}
