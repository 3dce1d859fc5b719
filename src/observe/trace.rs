//! Spans and events for `tracing` (feature `tracing`); without it, nothing at all.
//!
//! A span that serves several callers, as a batch does, *follows from* each of them: OpenTelemetry shows these as
//! links. Hits through a port have no span. Keys are not recorded, only their prefix: they may say who asks.

#[cfg(feature = "tracing")]
pub(crate) use on::*;

#[cfg(not(feature = "tracing"))]
pub(crate) use off::*;

#[cfg(feature = "tracing")]
mod on {
    use tracing::instrument::Instrumented;
    use tracing::{Instrument, Span, debug_span, info, warn};

    use crate::key::CacheKey;
    use crate::observe::EventKind;
    use crate::value::BackendLabel;
    use crate::write_behind::DeadLetter;

    /// Where a caller stands, carried into the batch that serves it.
    #[derive(Debug, Clone)]
    pub(crate) struct Caller(Option<tracing::Id>);

    impl Caller {
        pub(crate) fn here() -> Self {
            Self(Span::current().id())
        }
    }

    pub(crate) fn read<F: Future>(key: &CacheKey, work: F) -> Instrumented<F> {
        work.instrument(debug_span!("tierkeep.read", region = key.prefix()))
    }

    pub(crate) fn write<F: Future>(op: &'static str, key: &CacheKey, work: F) -> Instrumented<F> {
        work.instrument(debug_span!("tierkeep.write", op, region = key.prefix()))
    }

    pub(crate) fn load<F: Future>(key: &CacheKey, work: F) -> Instrumented<F> {
        work.instrument(debug_span!("tierkeep.load", region = key.prefix()))
    }

    /// A call to a backend, on behalf of `callers`.
    pub(crate) fn call<'a, F: Future>(
        op: &'static str,
        tier: &BackendLabel,
        keys: usize,
        callers: impl IntoIterator<Item = &'a Caller>,
        work: F,
    ) -> Instrumented<F> {
        let span = debug_span!(parent: None, "tierkeep.call", op, tier = tier.as_str(), keys);
        for Caller(caller) in callers {
            span.follows_from(caller.clone());
        }
        work.instrument(span)
    }

    pub(crate) fn event(tier: &BackendLabel, kind: &EventKind) {
        let tier = tier.as_str();
        match kind {
            EventKind::TierUp => info!(tier, "the tier is up"),
            EventKind::TierDown { retry } => warn!(tier, ?retry, "the tier is down"),
            EventKind::TierRestarting { delay } => warn!(tier, ?delay, "the tier is being restarted"),
            EventKind::TierStopped => info!(tier, "the tier has stopped"),
            EventKind::BreakerOpened => warn!(tier, "the breaker has opened"),
            EventKind::BreakerHalfOpen => info!(tier, "the breaker lets a probe through"),
            EventKind::BreakerClosed => info!(tier, "the breaker has closed"),
            EventKind::BypassBegan { by } => warn!(tier, ?by, "the tier is bypassed"),
            EventKind::BypassEnded => info!(tier, "the tier is no longer bypassed"),
            EventKind::DecodeFailuresRose => warn!(tier, "too many entries cannot be decoded"),
            EventKind::DecodeFailuresFell => info!(tier, "entries can be decoded again"),
            EventKind::JournalDamaged => warn!(tier, "the write-behind journal was damaged"),
            EventKind::QueueFilled => warn!(tier, "the write-behind queue is full"),
            EventKind::QueueDrained => info!(tier, "the write-behind queue is empty"),
            EventKind::DeadLetterUndelivered { .. } => warn!(tier, "a dead letter was not taken by its sink"),
            #[cfg(feature = "backplane")]
            EventKind::BackplaneUp => info!(tier, "the backplane is heard"),
            #[cfg(feature = "backplane")]
            EventKind::BackplaneDown => warn!(tier, "the backplane is not heard"),
            #[cfg(feature = "backplane")]
            EventKind::DroppedAll { cause } => info!(tier, ?cause, "the tier dropped what may be stale"),
            // Too many for a log, or written to it by the sink.
            EventKind::Evicted { .. } | EventKind::Expired { .. } | EventKind::DeadLettered { .. } => {}
        }
    }

    pub(crate) fn dead_letter(letter: &DeadLetter) {
        let error = letter.error.clone().map(|error| error.redacted().to_string()).unwrap_or_default();
        warn!(
            tier = letter.tier.as_str(),
            region = letter.key.prefix(),
            reason = letter.reason.as_str(),
            attempts = letter.attempts,
            error,
            "a queued write could not be applied"
        );
    }

    pub(crate) fn dropped_queue(tier: &BackendLabel, writes: usize) {
        warn!(tier = tier.as_str(), writes, "the cache was dropped with queued writes: shut it down first");
    }
}

#[cfg(not(feature = "tracing"))]
mod off {
    use crate::key::CacheKey;
    use crate::observe::EventKind;
    use crate::value::BackendLabel;
    use crate::write_behind::DeadLetter;

    #[derive(Debug, Clone)]
    pub(crate) struct Caller;

    impl Caller {
        pub(crate) fn here() -> Self {
            Self
        }
    }

    pub(crate) fn read<F: Future>(_: &CacheKey, work: F) -> F {
        work
    }

    pub(crate) fn write<F: Future>(_: &'static str, _: &CacheKey, work: F) -> F {
        work
    }

    pub(crate) fn load<F: Future>(_: &CacheKey, work: F) -> F {
        work
    }

    pub(crate) fn call<'a, F: Future>(
        _: &'static str,
        _: &BackendLabel,
        _: usize,
        _: impl IntoIterator<Item = &'a Caller>,
        work: F,
    ) -> F {
        work
    }

    pub(crate) fn event(_: &BackendLabel, _: &EventKind) {}

    pub(crate) fn dead_letter(letter: &DeadLetter) {
        let (tier, reason, attempts) = (&letter.tier, letter.reason.as_str(), letter.attempts);
        let error = letter.error.clone().map(|error| error.redacted().to_string()).unwrap_or_default();
        eprintln!("tierkeep: dead letter of tier `{tier}`: {reason} after {attempts} attempts; {error}");
    }

    pub(crate) fn dropped_queue(tier: &BackendLabel, writes: usize) {
        eprintln!(
            "tierkeep: tier `{tier}` was dropped with {writes} queued writes; shut the cache down first"
        );
    }
}
