//! `cache.health()`: one answer for a readiness probe.

use serde::Serialize;

use super::events::BypassCause;
use crate::composition::Engine;
use crate::runtime::ActorState;
use crate::tier::{BreakerState, TierCore};
use crate::value::BackendLabel;

/// Whether a cache is fit to serve, and what is wrong with it if not.
///
/// Over HTTP, answer a readiness probe with [`http_status`](Self::http_status) and this value as JSON: 200 for
/// `ready` and for `degraded` (some tier reads as a miss; the application works, slower), 503 for `down` (shut down,
/// no tier serves, or a [`required`](crate::Tier::required) one does not). Keep it out of liveness probes: a restart
/// of the process heals no store, and loses what memory holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// The short answer.
    pub status: HealthStatus,
    /// What is wrong, topmost tier first; empty when ready.
    pub reasons: Vec<HealthReason>,
}

/// The short answer to "is it fit to serve".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HealthStatus {
    /// Every tier serves.
    Ready,
    /// Some tier does not serve, or not fully.
    Degraded,
    /// The cache has been shut down, none of its tiers serves, or a required one does not.
    Down,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HealthReason {
    /// The tier; `None`: the cache as a whole.
    pub tier: Option<BackendLabel>,
    /// What is wrong with it.
    pub cause: HealthCause,
    /// Why its actor failed last, where that is the cause.
    pub error: Option<String>,
}

/// What can be wrong with a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HealthCause {
    /// The cache has been shut down.
    ShutDown,
    /// It has not come up yet.
    Starting,
    /// Its actor failed and is being restarted.
    Restarting,
    /// Its actor failed too often; it is tried again now and then.
    Down,
    /// Its actor has stopped.
    Stopped,
    /// Its breaker turns calls away.
    BreakerOpen,
    /// Its breaker is trying whether the backend has healed.
    BreakerHalfOpen,
    /// It is bypassed by an operator.
    BypassedByOperator,
    /// It is bypassed until it has been cleared.
    Bypassed,
    /// Too many of its calls never returned.
    Stuck,
    /// Too many of its entries cannot be decoded.
    DecodeFailures,
    /// Its write-behind queue is full.
    QueueFull,
    /// The backplane is not heard: what other processes write shows later.
    BackplaneDown,
}

impl HealthCause {
    /// Whether the tier gives no values at all.
    fn stops_serving(self) -> bool {
        // While it restarts, ports still answer and messages queue.
        !matches!(self, Self::Restarting | Self::DecodeFailures | Self::BreakerHalfOpen | Self::QueueFull)
    }
}

impl Health {
    /// The status for a readiness probe: 200 when ready or degraded, 503 when down.
    pub fn http_status(&self) -> u16 {
        if self.status == HealthStatus::Down { 503 } else { 200 }
    }

    pub(crate) fn of(engine: &Engine) -> Self {
        if engine.is_closed() {
            let reason = HealthReason { tier: None, cause: HealthCause::ShutDown, error: None };
            return Self { status: HealthStatus::Down, reasons: vec![reason] };
        }
        let route = engine.route.load_full();
        let mut reasons = Vec::new();
        let (mut serving, mut missing) = (0, false);
        for tier in &route.tiers {
            let causes = causes(&tier.core);
            if causes.iter().any(|cause| cause.stops_serving()) {
                missing |= tier.core.options.required;
            } else {
                serving += 1;
            }
            reasons.extend(causes.into_iter().map(|cause| reason(&tier.core, cause)));
        }
        #[cfg(feature = "backplane")]
        if engine.link.as_ref().is_some_and(|link| !link.is_up()) {
            let error = engine.link.as_ref().and_then(|link| link.inspect().last_error);
            reasons.push(HealthReason { tier: None, cause: HealthCause::BackplaneDown, error });
        }
        let none_serves = serving == 0 && !route.tiers.is_empty();
        let status = match reasons.is_empty() {
            true => HealthStatus::Ready,
            false if none_serves || missing => HealthStatus::Down,
            false => HealthStatus::Degraded,
        };
        Self { status, reasons }
    }
}

fn causes(core: &TierCore) -> Vec<HealthCause> {
    let mut causes = Vec::new();
    causes.extend(match core.health().state {
        ActorState::Running => None,
        ActorState::Starting => Some(HealthCause::Starting),
        ActorState::Restarting => Some(HealthCause::Restarting),
        ActorState::Down => Some(HealthCause::Down),
        ActorState::Stopped => Some(HealthCause::Stopped),
    });
    causes.extend(match core.breaker().state() {
        BreakerState::Closed => None,
        BreakerState::Open => Some(HealthCause::BreakerOpen),
        BreakerState::HalfOpen => Some(HealthCause::BreakerHalfOpen),
    });
    causes.extend(match core.bypass_cause() {
        None => None,
        Some(BypassCause::Operator) => Some(HealthCause::BypassedByOperator),
        Some(BypassCause::QuarantineOverflow) => Some(HealthCause::Bypassed),
    });
    causes.extend(core.is_stuck().then_some(HealthCause::Stuck));
    causes.extend(core.decodes.is_alarmed().then_some(HealthCause::DecodeFailures));
    causes.extend(core.is_queue_full().then_some(HealthCause::QueueFull));
    causes
}

fn reason(core: &TierCore, cause: HealthCause) -> HealthReason {
    let failed = matches!(
        cause,
        HealthCause::Starting | HealthCause::Restarting | HealthCause::Down | HealthCause::Stopped
    );
    let error = core.health().last_error.filter(|_| failed).map(|error| error.to_string());
    HealthReason { tier: Some(core.label.clone()), cause, error }
}
