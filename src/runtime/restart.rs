//! When a failed actor is made anew: the one restart counter that both hosts ask.

use std::collections::VecDeque;
use std::time::Duration;

use super::Instant;

/// How often and how fast a failed actor is restarted.
///
/// Default: 5 restarts within 10 s, after 0.1 s doubling to 10 s with jitter; past that the actor is down and tried
/// again every 30 s, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// How many restarts within `window` before the actor is down.
    pub limit: u32,
    /// Over which time restarts are counted.
    pub window: Duration,
    /// The delay before the first restart; doubles with each one in the window.
    pub backoff: Duration,
    /// The longest delay before a restart.
    pub backoff_max: Duration,
    /// While down: the time between attempts.
    pub retry: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            limit: 5,
            window: Duration::from_secs(10),
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            retry: Duration::from_secs(30),
        }
    }
}

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartDecision {
    /// Make a new incarnation after this delay; keep the mailbox.
    Restart(Duration),
    /// Answer what is queued, reject what comes, try again after this delay.
    Down(Duration),
}

/// Counts an actor's failures and decides what to do about each.
#[derive(Debug)]
pub struct RestartCounter {
    policy: RestartPolicy,
    failures: VecDeque<Instant>,
    down: bool,
}

impl RestartCounter {
    /// Starts counting under `policy`.
    pub fn new(policy: RestartPolicy) -> Self {
        Self { policy, failures: VecDeque::new(), down: false }
    }

    /// Decides about a failure at `now`. `random` are 64 random bits for the jitter (the upper half of the delay).
    pub fn failed(&mut self, now: Instant, random: u64) -> RestartDecision {
        while self.failures.front().is_some_and(|&at| now.since(at) >= self.policy.window) {
            self.failures.pop_front();
        }
        if self.down || self.failures.len() >= self.policy.limit as usize {
            self.down = true;
            return RestartDecision::Down(jitter(self.policy.retry, random));
        }
        let doublings = u32::try_from(self.failures.len()).unwrap_or(u32::MAX).min(20);
        self.failures.push_back(now);
        let delay = self.policy.backoff.saturating_mul(1 << doublings).min(self.policy.backoff_max);
        RestartDecision::Restart(jitter(delay, random))
    }

    /// Notes that an incarnation took over. After a time down, counting starts afresh.
    pub fn started(&mut self) {
        if std::mem::take(&mut self.down) {
            self.failures.clear();
        }
    }
}

/// Between half of `delay` and all of it, so that actors that failed together do not return together.
pub(crate) fn jitter(delay: Duration, random: u64) -> Duration {
    let half = delay / 2;
    let share = u32::try_from(random >> 32).unwrap_or(u32::MAX);
    half + Duration::from_nanos(
        u64::try_from(half.as_nanos() * u128::from(share) / u128::from(u32::MAX)).unwrap_or(u64::MAX),
    )
}
