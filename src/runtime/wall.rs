//! The operating system's wall clock, for runtimes: asked once a millisecond, not once a read.
//!
//! Reading it costs 30 to 100 ns, as much as the rest of a hit; the processor's counter costs a few. So a thread that
//! has read the clock keeps the answer while that cannot have changed: a [`Reading`] is good for three quarters of what
//! was left of its millisecond, by the counter. Within it the answer is exact, not merely close; and however long the
//! thread then works, sleeps or stands still, and wherever the clock is set meanwhile, no answer is more than a
//! millisecond of running time old.
//!
//! The counter is trusted only after it has been held against the operating system's monotonic clock, across a sleep,
//! on a thread of its own: where it is missing, slow (trapped by a hypervisor) or of varying speed, the operating
//! system is asked every time. The quarter kept back allows for a counter that slows down by as much.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::value::Timestamp;

/// The operating system's wall clock, exact to the millisecond; a clock set before 1970 reads as 1970.
///
/// What a [`Runtime`](super::Runtime) that runs on the operating system's time answers in
/// [`wall`](super::Runtime::wall). Costs about 10 ns where the processor has a steady counter (x86-64 with an invariant
/// TSC, AArch64), and an operating system's call elsewhere and in the first milliseconds of a process. Never blocks.
#[inline]
pub fn system_wall() -> Timestamp {
    let Some(Some(counter)) = COUNTER.get() else { return uncounted() };
    // Before the clock is asked: what passes between the two shortens the reading's life.
    let now = counter.ticks.raw();
    let last = LAST.get();
    if last.is_good_at(now) { last.wall } else { counter.read(now) }
}

thread_local! {
    static LAST: Cell<Reading> = const { Cell::new(Reading { at: 0, life: 0, wall: Timestamp::from_millis(0) }) };
}

/// `None` inside: not to be trusted. Empty: not yet known.
static COUNTER: OnceLock<Option<Counter>> = OnceLock::new();

/// What the clock said, and for how long that cannot have changed.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// The counter when it was read, or a little before.
    at: u64,
    /// For how many ticks it is good.
    life: u64,
    wall: Timestamp,
}

impl Reading {
    fn new(at: u64, since_epoch: Duration, ticks_per_milli: u64) -> Self {
        let into_milli = u64::from(since_epoch.subsec_nanos()) % NANOS;
        let left = (NANOS - into_milli) * 3 / 4;
        Self { at, life: ticks_per_milli * left / NANOS, wall: to_millis(since_epoch) }
    }

    /// A counter that has gone back (a processor that slept, another one) ends it too.
    #[inline]
    fn is_good_at(self, now: u64) -> bool {
        now.wrapping_sub(self.at) < self.life
    }
}

const NANOS: u64 = 1_000_000;

/// The processor's counter, found steady.
struct Counter {
    ticks: quanta::Clock,
    per_milli: u64,
}

impl Counter {
    #[cold]
    fn read(&self, now: u64) -> Timestamp {
        let reading = Reading::new(now, since_epoch(), self.per_milli);
        LAST.set(reading);
        reading.wall
    }

    /// Finds out the counter's speed, and whether it is steady and worth it. Takes some tens of milliseconds.
    fn find() -> Option<Self> {
        let ticks = quanta::Clock::new();
        if cost(|| ticks.raw()) * 3 / 2 > cost(|| since_epoch().as_secs()) {
            return None;
        }
        // Some rounds, since a busy machine may interrupt a measurement; two that agree are believed.
        let mut last = Self::speed(&ticks);
        for _ in 0..10 {
            let per_milli = Self::speed(&ticks);
            if per_milli > 0 && per_milli.abs_diff(last) < per_milli / 50 {
                return Some(Self { ticks, per_milli });
            }
            last = per_milli;
        }
        None
    }

    /// Ticks in a millisecond, taken asleep: a counter that stops with the processor must not pass.
    #[expect(clippy::disallowed_methods, reason = "this is the runtime seam, on a thread of its own")]
    fn speed(ticks: &quanta::Clock) -> u64 {
        let (from, began) = (ticks.raw(), Instant::now());
        thread::sleep(Duration::from_millis(10));
        let (to, passed) = (ticks.raw(), began.elapsed());
        let speed = u128::from(to.saturating_sub(from)) * 1_000_000 / passed.as_nanos().max(1);
        u64::try_from(speed).unwrap_or_default()
    }
}

/// The clock as long as the counter is not known, and where it is not to be trusted.
#[cold]
#[expect(clippy::disallowed_methods, reason = "this is the runtime seam")]
fn uncounted() -> Timestamp {
    static ASKED: AtomicBool = AtomicBool::new(false);
    if !ASKED.load(Ordering::Relaxed) && !ASKED.swap(true, Ordering::Relaxed) {
        // Not here: the caller may be an executor. Without threads there is no counter.
        let found = thread::Builder::new()
            .name("tierkeep-clock".into())
            .spawn(|| COUNTER.get_or_init(Counter::find).is_some());
        drop(found);
    }
    to_millis(since_epoch())
}

#[expect(clippy::disallowed_methods, reason = "this is the runtime seam")]
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn to_millis(since_epoch: Duration) -> Timestamp {
    Timestamp::from_millis(since_epoch.as_secs() * 1_000 + u64::from(since_epoch.subsec_millis()))
}

/// What the cheapest of some rounds of `read` takes, in ns per hundred.
#[expect(clippy::disallowed_methods, reason = "this is the runtime seam")]
fn cost(read: impl Fn() -> u64) -> u128 {
    let round = |_| {
        let began = Instant::now();
        for _ in 0..100 {
            black_box(read());
        }
        began.elapsed().as_nanos()
    };
    (0..5).map(round).min().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PER_MILLI: u64 = 2_600_000;

    /// Every so many nanoseconds of a second, with the counter running as it should, slower and faster.
    #[test]
    fn a_reading_ends_with_its_millisecond_at_the_latest() {
        for nanos in (0..3_000_000).step_by(997) {
            let since_epoch = Duration::new(7, nanos);
            let reading = Reading::new(1_000, since_epoch, PER_MILLI);
            assert_eq!(reading.wall.as_millis(), 7_000 + u64::from(nanos / 1_000_000));
            for percent in [76, 100, 133] {
                let speed = PER_MILLI * percent / 100;
                let lived = Duration::from_nanos(reading.life * NANOS / speed);
                assert!(
                    to_millis(since_epoch + lived) == reading.wall || reading.life == 0,
                    "{nanos} {percent}"
                );
                assert!(lived < Duration::from_millis(1));
            }
        }
    }

    #[test]
    fn a_counter_that_went_back_ends_a_reading() {
        let reading = Reading::new(1_000_000, Duration::from_secs(7), PER_MILLI);
        assert!(reading.is_good_at(1_000_000) && reading.is_good_at(1_000_000 + PER_MILLI / 2));
        assert!(!reading.is_good_at(1_000_000 + PER_MILLI) && !reading.is_good_at(999_999));
        assert!(!reading.is_good_at(0) && !reading.is_good_at(u64::MAX));
    }

    #[test]
    fn it_never_leaves_the_operating_systems_clock() {
        COUNTER.get_or_init(Counter::find);
        let read = || {
            for round in 0..300_000 {
                let before = to_millis(since_epoch());
                let wall = system_wall();
                let after = to_millis(since_epoch());
                // A step of the clock in the middle is no business of this test.
                assert!(before <= wall && wall <= after || after < before, "{before:?} {wall:?} {after:?}");
                if round % 10_000 == 0 {
                    // Away for some milliseconds, as a process without work is.
                    thread::park_timeout(Duration::from_millis(3));
                }
            }
        };
        thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(read))));
    }
}
