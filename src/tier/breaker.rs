//! The circuit breaker: stops calling a backend that mostly fails, and finds out when it has healed.
//!
//! Closed, it lets every call through and counts outcomes over a sliding window. Too many failures open it: calls are
//! turned away until a delay has passed. Then it is half-open: one call goes through as a probe, whose success closes
//! the breaker and whose failure opens it for twice as long.
//!
//! A pure state machine: time and randomness are handed in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{Instant, jitter};

/// In how many steps the window slides.
const BUCKETS: usize = 10;

/// When a tier's breaker opens, and for how long.
///
/// Default: opens when at least 50 % of at least 20 calls within 10 s failed, for 1 s, doubling up to 30 s with each
/// failed probe. Delays have jitter: each is between half of the stated time and all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerOptions {
    /// Whether there is a breaker at all. Default: `true`.
    pub enabled: bool,
    /// The share of failures that opens it, 1 to 100 percent. Default: 50.
    pub failure_percent: u8,
    /// How many calls the window must hold before their outcomes mean something; at least 1. Default: 20.
    pub min_calls: u32,
    /// Over which time outcomes are counted; slides in tenths. Default: 10 s.
    pub window: Duration,
    /// How long it stays open at first; doubles with each failed probe. Default: 1 s.
    pub open: Duration,
    /// The longest it stays open before the next probe. Default: 30 s.
    pub open_max: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            failure_percent: 50,
            min_calls: 20,
            window: Duration::from_secs(10),
            open: Duration::from_secs(1),
            open_max: Duration::from_secs(30),
        }
    }
}

impl BreakerOptions {
    /// No breaker: every call goes through, whatever became of those before.
    pub fn disabled() -> Self {
        Self { enabled: false, ..Self::default() }
    }

    /// Whether the options can work.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the option: a percentage outside 1 to 100, no minimum of calls, a window under
    /// 10 ns, an open time of zero, or a maximum below it.
    pub fn validate(&self) -> Result<()> {
        let wrong = |message: &'static str| Err(Error::new(ErrorKind::Config, message));
        if !self.enabled {
            return Ok(());
        }
        if !(1..=100).contains(&self.failure_percent) {
            return wrong("breaker.failure_percent must be between 1 and 100");
        }
        if self.min_calls == 0 {
            return wrong("breaker.min_calls must be at least 1");
        }
        if self.window.as_nanos() < BUCKETS as u128 {
            return wrong("breaker.window must be at least 10 ns");
        }
        if self.open.is_zero() {
            return wrong("breaker.open must be longer than zero");
        }
        if self.open_max < self.open {
            return wrong("breaker.open_max must be at least breaker.open");
        }
        Ok(())
    }
}

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BreakerState {
    /// Calls go through.
    Closed,
    /// Calls are turned away, or the next one becomes the probe.
    Open,
    /// A probe is under way; other calls are turned away.
    HalfOpen,
}

/// Whether a call may go to the backend.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Send it, and [`record`](Breaker::record) its outcome under this epoch.
    Yes(Epoch),
    /// Send it as the probe, and settle the permit with its outcome.
    Probe(ProbePermit),
    /// Do not send it. Asking again before `until` is useless; while a probe is under way, which ends at an unknown
    /// time, `until` is one `open` time from now.
    No {
        /// When to ask again at the earliest.
        until: Instant,
    },
}

/// Between which two openings a call was sent.
///
/// Calls sent before the breaker opened may end after it has closed again, all in failure: they tell of the outage
/// that is over. Their epoch is past, so they neither count in the new window nor reopen the breaker; nor can they
/// touch it while it is open or half-open, when only the probe decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

/// A tier's circuit breaker. Shared by reference between the tasks that call one backend.
#[derive(Debug)]
pub(crate) struct Breaker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: BreakerOptions,
    watch: Watch,
    /// How often it has opened, shifted by [`STATE_BITS`], and the state: written under `core`'s lock. One relaxed
    /// load decides a call while closed, for the word alone is the decision; all else is read under the lock.
    gate: AtomicU64,
    core: Mutex<Core>,
}

/// Hears of every change of state.
pub(crate) struct Watch {
    /// Notes a change. Under the breaker's lock, so that changes are noted in their order.
    pub(crate) note: Box<dyn Fn(BreakerState) + Send + Sync>,
    /// Tells what was noted. Called after every note, once the lock is released: who hears it may ask the breaker.
    pub(crate) tell: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

const STATE_BITS: u32 = 2;
const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;

#[derive(Debug)]
struct Core {
    window: Window,
    /// When an open breaker lets a probe through.
    until: Instant,
    /// How many probes in a row have failed.
    failed_probes: u32,
}

impl Breaker {
    #[cfg(test)]
    pub(crate) fn new(options: BreakerOptions) -> Self {
        Self::watched(options, Watch { note: Box::new(|_| {}), tell: Box::new(|| {}) })
    }

    pub(crate) fn watched(options: BreakerOptions, watch: Watch) -> Self {
        let core = Core { window: Window::new(options.window), until: Instant::default(), failed_probes: 0 };
        Self(Arc::new(Shared { options, watch, gate: AtomicU64::new(CLOSED), core: Mutex::new(core) }))
    }

    /// Asks to send a call at `now`. One atomic load while closed.
    pub(crate) fn allow(&self, now: Instant) -> Admission {
        let shared = &self.0;
        if let Some(epoch) = shared.closed_epoch() {
            return Admission::Yes(epoch);
        }
        let core = shared.lock();
        // Another thread may have changed the state before we had the lock.
        match shared.state() {
            CLOSED => Admission::Yes(Epoch(shared.openings())),
            OPEN if now < core.until => Admission::No { until: core.until },
            OPEN => {
                shared.set(shared.openings(), HALF_OPEN);
                drop(core);
                (shared.watch.tell)();
                Admission::Probe(ProbePermit { breaker: Some(shared.clone()), granted: now })
            }
            _ => Admission::No { until: now.after(shared.options.open) },
        }
    }

    /// The epoch of a call that begins now; `None`: it is not closed. One atomic load.
    pub(crate) fn closed(&self) -> Option<Epoch> {
        self.0.closed_epoch()
    }

    /// Counts the outcome of a call that was let through under `epoch` and ended at `now`; `count` operations went in
    /// it. `random` are 64 random bits for the jitter. Returns whether this opened the breaker.
    pub(crate) fn record(&self, epoch: Epoch, ok: bool, count: u32, now: Instant, random: u64) -> bool {
        let shared = &self.0;
        if !shared.options.enabled || shared.closed_epoch() != Some(epoch) {
            return false;
        }
        let mut core = shared.lock();
        if shared.closed_epoch() != Some(epoch) {
            return false;
        }
        core.window.add(ok, count, now);
        let opens = core.window.is_failing(&shared.options);
        if opens {
            shared.open(&mut core, now, Some(random));
            drop(core);
            (shared.watch.tell)();
        }
        opens
    }

    /// Where it stands. Open until a call has been let through as the probe, however much time has passed.
    pub(crate) fn state(&self) -> BreakerState {
        named(self.0.state())
    }

    /// How often it has opened, failed probes included.
    pub(crate) fn opened_total(&self) -> u64 {
        self.0.openings()
    }
}

fn named(state: u64) -> BreakerState {
    match state {
        CLOSED => BreakerState::Closed,
        OPEN => BreakerState::Open,
        _ => BreakerState::HalfOpen,
    }
}

impl Shared {
    fn state(&self) -> u64 {
        self.gate.load(Ordering::Relaxed) & ((1 << STATE_BITS) - 1)
    }

    fn openings(&self) -> u64 {
        self.gate.load(Ordering::Relaxed) >> STATE_BITS
    }

    /// The current epoch, if the breaker is closed.
    fn closed_epoch(&self) -> Option<Epoch> {
        let gate = self.gate.load(Ordering::Relaxed);
        (gate & ((1 << STATE_BITS) - 1) == CLOSED).then_some(Epoch(gate >> STATE_BITS))
    }

    fn set(&self, openings: u64, state: u64) {
        self.gate.store(openings << STATE_BITS | state, Ordering::Relaxed);
        (self.watch.note)(named(state));
    }

    fn open(&self, core: &mut Core, now: Instant, random: Option<u64>) {
        // 2^20 times the shortest sensible delay is beyond any maximum.
        let delay =
            self.options.open.saturating_mul(1 << core.failed_probes.min(20)).min(self.options.open_max);
        core.until = now.after(random.map_or(delay, |random| jitter(delay, random)));
        self.set(self.openings() + 1, OPEN);
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        // Nothing under this lock can panic halfway through a change.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right and duty to settle the one probe. Dropped unsettled (its call was cancelled or panicked), it counts as a
/// failure: the breaker opens again, from the time the probe was granted, so it can never be stuck half-open.
#[derive(Debug)]
#[must_use = "dropping the permit counts as a failed probe"]
pub(crate) struct ProbePermit {
    /// `None` once settled.
    breaker: Option<Arc<Shared>>,
    granted: Instant,
}

impl ProbePermit {
    /// Closes the breaker, with an empty window.
    pub(crate) fn succeeded(mut self) {
        if let Some(shared) = self.breaker.take() {
            let mut core = shared.lock();
            core.failed_probes = 0;
            core.window.clear();
            shared.set(shared.openings(), CLOSED);
            drop(core);
            (shared.watch.tell)();
        }
    }

    /// Opens the breaker again from `now` on, for twice as long as before; `random` are 64 random bits for the jitter.
    pub(crate) fn failed(mut self, now: Instant, random: u64) {
        self.reopen(now, Some(random));
    }

    fn reopen(&mut self, from: Instant, random: Option<u64>) {
        if let Some(shared) = self.breaker.take() {
            let mut core = shared.lock();
            core.failed_probes = core.failed_probes.saturating_add(1);
            shared.open(&mut core, from, random);
            drop(core);
            (shared.watch.tell)();
        }
    }
}

impl Drop for ProbePermit {
    fn drop(&mut self) {
        self.reopen(self.granted, None);
    }
}

/// Outcomes over the last stretch of time, in [`BUCKETS`] pieces.
#[derive(Debug)]
struct Window {
    /// The width of a bucket, in ns.
    width: u64,
    /// The number of the newest bucket, counted from time zero.
    newest: u64,
    buckets: [Outcomes; BUCKETS],
}

#[derive(Debug, Clone, Copy, Default)]
struct Outcomes {
    ok: u64,
    failed: u64,
}

impl Window {
    fn new(length: Duration) -> Self {
        let width = u64::try_from(length.as_nanos() / BUCKETS as u128).unwrap_or(u64::MAX).max(1);
        Self { width, newest: 0, buckets: Default::default() }
    }

    fn clear(&mut self) {
        self.buckets = Default::default();
    }

    fn add(&mut self, ok: bool, count: u32, now: Instant) {
        let number = now.as_nanos() / self.width;
        // Buckets that come into the window lose what they held a window ago. A `now` slightly behind the newest
        // bucket (threads race) counts there.
        for passed in 0..number.saturating_sub(self.newest).min(BUCKETS as u64) {
            *self.bucket(number - passed) = Outcomes::default();
        }
        self.newest = self.newest.max(number);
        let bucket = self.bucket(self.newest);
        let counter = if ok { &mut bucket.ok } else { &mut bucket.failed };
        *counter += u64::from(count);
    }

    fn bucket(&mut self, number: u64) -> &mut Outcomes {
        #[expect(clippy::cast_possible_truncation, reason = "below BUCKETS")]
        let index = (number % BUCKETS as u64) as usize;
        &mut self.buckets[index]
    }

    fn is_failing(&self, options: &BreakerOptions) -> bool {
        let failed: u64 = self.buckets.iter().map(|bucket| bucket.failed).sum();
        let calls = failed + self.buckets.iter().map(|bucket| bucket.ok).sum::<u64>();
        calls >= u64::from(options.min_calls)
            && u128::from(failed) * 100 >= u128::from(calls) * u128::from(options.failure_percent)
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
