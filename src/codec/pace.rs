//! How fast the codec works, as measured: what decides between a caller's task and the blocking pool.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::runtime::Instant;

/// Combinations of format, compressor, level and direction that are told apart; more of them keep to the first limits.
const SLOTS: usize = 32;

/// Up to here work is done in place and not timed: two readings of the clock would cost about as much.
pub(super) const SMALL: usize = 1 << 10;

/// Above here work goes to the pool, however fast it seems: the executor's caches are worth something too.
const LARGEST: usize = 256 << 10;

/// What one measurement counts for at most, so that a single interruption of a large job does not decide.
const WEIGHT: u64 = 64 << 10;

/// What all measurements count for at most; what is older fades.
const MEMORY: u64 = 256 << 10;

/// How many times longer than expected a measurement may be: what is above tells of an interruption. Work that has
/// become slower than that is followed step by step.
const SURPRISE: u64 = 4;

/// So much must have been measured before it counts.
const ENOUGH: u64 = 16 << 10;

/// The direction of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Encode,
    Decode,
    #[cfg(feature = "rkyv_format")]
    View,
}

/// What is being done, with which format and compressor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) way: Way,
    pub(super) format: u8,
    pub(super) compressor: u8,
    /// The compressor's level, which makes more of a difference than the compressor. 0 where it packs nothing.
    pub(super) level: i8,
}

/// Nanoseconds per byte for each [`Job`], from the latest measurements. Lock-free: a measurement that is lost to
/// another thread's is one measurement less.
#[derive(Debug)]
pub(super) struct Pace {
    budget: u64,
    slots: [Slot; SLOTS],
}

#[derive(Debug, Default)]
struct Slot {
    /// The [`Job`]; 0: free.
    job: AtomicU32,
    /// Nanoseconds in the upper half, the bytes they were for in the lower: in one word, so that they fit together.
    measured: AtomicU64,
}

/// What was measured of one combination of format, compressor and direction.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct CodecRate {
    /// `encode`, `decode` or `view`.
    pub work: &'static str,
    /// The format, by id.
    pub format: u8,
    /// The compressor, by id.
    pub compressor: u8,
    /// The level that it compresses with; 0 for what is not compressed here.
    pub level: i32,
    /// Nanoseconds for 1,024 plain bytes.
    pub nanos_per_kib: u64,
    /// Up to how many plain bytes the work is done in the caller's task; `None`: not enough was measured yet.
    pub inline_limit: Option<usize>,
}

impl Pace {
    pub(super) fn new(budget: Duration) -> Self {
        let budget = u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX);
        Self { budget, slots: Default::default() }
    }

    /// How many bytes fit the budget; `first` until enough was measured.
    pub(super) fn limit(&self, job: Job, first: usize) -> usize {
        self.slot(job).and_then(|slot| self.within(slot.read())).unwrap_or(first)
    }

    /// `bytes` took from `began` to `ended`.
    pub(super) fn note(&self, job: Job, bytes: usize, began: Instant, ended: Instant) {
        let nanos = ended.as_nanos().saturating_sub(began.as_nanos());
        // A clock that stood still (a simulator's, a paused one) has measured nothing.
        if nanos == 0 || bytes < SMALL {
            return;
        }
        let Some(slot) = self.slot(job) else { return };
        let (mut nanos, mut bytes) = (nanos, bytes as u64);
        if bytes > WEIGHT {
            nanos =
                (u128::from(nanos) * u128::from(WEIGHT) / u128::from(bytes)).try_into().unwrap_or(u64::MAX);
            bytes = WEIGHT;
        }
        let (mut old_nanos, mut old_bytes) = slot.read();
        if old_bytes >= ENOUGH {
            let expected = u128::from(old_nanos) * u128::from(bytes) / u128::from(old_bytes);
            nanos = nanos.min(u64::try_from(expected).unwrap_or(u64::MAX).saturating_mul(SURPRISE).max(1));
        }
        while old_bytes + bytes > MEMORY {
            (old_nanos, old_bytes) = (old_nanos / 2, old_bytes / 2);
        }
        let nanos = (old_nanos + nanos).min(u64::from(u32::MAX));
        slot.measured.store(nanos << 32 | (old_bytes + bytes), Ordering::Relaxed);
    }

    pub(super) fn rates(&self) -> Vec<CodecRate> {
        let used = self.slots.iter().filter(|slot| slot.job.load(Ordering::Relaxed) != 0);
        used.map(|slot| {
            let [way, format, compressor, level] = slot.job.load(Ordering::Relaxed).to_be_bytes();
            let (nanos, bytes) = slot.read();
            CodecRate {
                work: ["encode", "decode", "view"].get(usize::from(way) - 1).copied().unwrap_or("?"),
                format,
                compressor,
                level: level.cast_signed().into(),
                nanos_per_kib: nanos * 1024 / bytes.max(1),
                inline_limit: self.within((nanos, bytes)),
            }
        })
        .collect()
    }

    fn within(&self, (nanos, bytes): (u64, u64)) -> Option<usize> {
        if bytes < ENOUGH {
            return None;
        }
        let fit = u128::from(self.budget) * u128::from(bytes) / u128::from(nanos.max(1));
        Some(usize::try_from(fit).unwrap_or(usize::MAX).clamp(SMALL, LARGEST))
    }

    /// The slot of a job, taken if there is a free one.
    fn slot(&self, job: Job) -> Option<&Slot> {
        // Never 0.
        let code =
            u32::from_be_bytes([1 + job.way as u8, job.format, job.compressor, job.level.cast_unsigned()]);
        self.slots.iter().find(|slot| {
            let found = slot.job.load(Ordering::Relaxed);
            // Taken by another thread meanwhile, perhaps for the same job.
            found == code
                || found == 0
                    && slot
                        .job
                        .compare_exchange(0, code, Ordering::Relaxed, Ordering::Relaxed)
                        .map_or_else(|taken| taken == code, |_| true)
        })
    }
}

impl Slot {
    fn read(&self) -> (u64, u64) {
        let measured = self.measured.load(Ordering::Relaxed);
        (measured >> 32, measured & u64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: Job = Job { way: Way::Encode, format: 1, compressor: 2, level: 3 };

    fn note(pace: &Pace, bytes: usize, nanos: u64) {
        pace.note(JOB, bytes, Instant::from_nanos(5), Instant::from_nanos(5 + nanos));
    }

    #[test]
    fn the_limit_is_what_fits_the_budget() {
        let pace = Pace::new(Duration::from_micros(30));
        assert_eq!(pace.limit(JOB, 77), 77, "nothing was measured");
        note(&pace, 8 << 10, 8 << 10);
        assert_eq!(pace.limit(JOB, 77), 77, "too little was measured");
        note(&pace, 8 << 10, 8 << 10);
        assert_eq!(pace.limit(JOB, 77), 30_000);
        assert_eq!(pace.limit(Job { format: 2, ..JOB }, 77), 77, "each format has its own");
    }

    #[test]
    fn each_level_of_a_compressor_has_its_own_limit() {
        let pace = Pace::new(Duration::from_micros(30));
        let slow = Job { level: -19, ..JOB };
        (0..4).for_each(|_| note(&pace, 64 << 10, 64 << 10));
        (0..4).for_each(|_| {
            pace.note(slow, 64 << 10, Instant::from_nanos(0), Instant::from_nanos(640 << 10));
        });
        assert_eq!((pace.limit(JOB, 77), pace.limit(slow, 77)), (30_000, 3_000));
        let levels: Vec<_> =
            pace.rates().iter().map(|rate| (rate.work, rate.compressor, rate.level)).collect();
        assert_eq!(levels, [("encode", 2, 3), ("encode", 2, -19)]);
    }

    #[test]
    fn the_limit_follows_what_is_measured_lately() {
        let pace = Pace::new(Duration::from_micros(30));
        (0..20).for_each(|_| note(&pace, 64 << 10, 64 << 10));
        (0..20).for_each(|_| note(&pace, 64 << 10, 640 << 10));
        let limit = pace.limit(JOB, 77);
        assert!((3_000..3_100).contains(&limit), "{limit}");
    }

    #[test]
    fn one_interruption_of_a_large_job_does_not_decide() {
        let pace = Pace::new(Duration::from_micros(30));
        (0..20).for_each(|_| note(&pace, 16 << 10, 16 << 10));
        // Ten milliseconds off the processor in a job of four.
        note(&pace, 4 << 20, (4 << 20) + 10_000_000);
        assert!(pace.limit(JOB, 77) > 15_000, "{}", pace.limit(JOB, 77));
    }

    #[test]
    fn one_interruption_of_a_small_job_does_not_decide() {
        let pace = Pace::new(Duration::from_micros(30));
        (0..40).for_each(|_| note(&pace, 6 << 10, 6 << 10));
        note(&pace, 6 << 10, 4_000_000);
        assert!(pace.limit(JOB, 77) > 25_000, "{}", pace.limit(JOB, 77));
    }

    #[test]
    fn what_has_become_slow_is_followed() {
        let pace = Pace::new(Duration::from_micros(30));
        (0..40).for_each(|_| note(&pace, 6 << 10, 6 << 10));
        (0..100).for_each(|_| note(&pace, 6 << 10, 200 * (6 << 10)));
        assert_eq!(pace.limit(JOB, 77), SMALL);
    }

    #[test]
    fn what_has_become_fast_again_is_followed() {
        let pace = Pace::new(Duration::from_micros(30));
        (0..40).for_each(|_| note(&pace, 6 << 10, 200 * (6 << 10)));
        assert_eq!(pace.limit(JOB, 77), SMALL);
        (0..400).for_each(|_| note(&pace, 6 << 10, 6 << 10));
        assert!(pace.limit(JOB, 77) > 25_000, "{}", pace.limit(JOB, 77));
    }

    #[test]
    fn the_limit_stays_within_its_bounds() {
        let (slow, fast) = (Pace::new(Duration::from_micros(30)), Pace::new(Duration::from_micros(30)));
        note(&slow, 64 << 10, u64::MAX / 2);
        note(&fast, 64 << 10, 1);
        assert_eq!((slow.limit(JOB, 77), fast.limit(JOB, 77)), (SMALL, LARGEST));
    }

    #[test]
    fn a_clock_that_stands_still_measures_nothing() {
        let pace = Pace::new(Duration::from_micros(30));
        (0..20).for_each(|_| note(&pace, 64 << 10, 0));
        assert_eq!(pace.limit(JOB, 77), 77);
    }

    #[test]
    fn more_combinations_than_slots_keep_to_the_first_limits() {
        let pace = Pace::new(Duration::from_micros(30));
        for format in 0..=255 {
            let job = Job { format, ..JOB };
            pace.note(job, 64 << 10, Instant::from_nanos(0), Instant::from_nanos(64 << 10));
        }
        assert_eq!(pace.limit(Job { format: 31, ..JOB }, 77), 30_000);
        assert_eq!(pace.limit(Job { format: 32, ..JOB }, 77), 77);
        assert_eq!(pace.rates().len(), SLOTS);
    }
}
