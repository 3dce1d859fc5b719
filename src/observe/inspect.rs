//! `cache.inspect()`: how every part of a cache stands, as one serialisable value.

use std::sync::atomic::Ordering;

use serde::Serialize;

use super::events::BypassCause;
use crate::backend::Usage;
use crate::codec::{CodecRate, CodecStats};
use crate::composition::Engine;
use crate::error::Error;
use crate::runtime::ActorState;
use crate::tier::{BreakerState, ReadCounts, WriteBehindInspection, WriteCounts};
use crate::value::BackendLabel;

/// How a cache stands. A snapshot: its parts are read one after another.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// Its name, as the builder was given it.
    pub name: String,
    /// The runtime that it runs on.
    pub runtime: &'static str,
    /// Whether it has been shut down.
    pub closed: bool,
    /// The tiers, topmost first.
    pub tiers: Vec<TierInspection>,
    /// Refills that wait in their lane.
    pub refills_queued: usize,
    /// Refills that were dropped because the lane was full.
    pub refills_dropped: u64,
    /// Loads under way that can be joined.
    pub loads: usize,
    /// Encoding and decoding.
    pub codec: CodecStats,
    /// The backplane, if there is one.
    #[cfg(feature = "backplane")]
    pub backplane: Option<crate::backplane::BackplaneInspection>,
    /// How fast the codec was found to be, by format and compressor, and up to which size it therefore works in the
    /// caller's task.
    pub codec_rates: Vec<CodecRate>,
    /// The dictionaries that regions train.
    #[cfg(feature = "zstd")]
    pub dictionaries: Vec<crate::codec::DictionaryInspection>,
}

/// How a tier stands.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct TierInspection {
    /// Its name.
    pub label: BackendLabel,
    /// How its actor fares.
    pub state: ActorState,
    /// How often its actor has been restarted.
    pub restarts: u64,
    /// Why its actor failed last, if it ever did.
    pub last_error: Option<String>,
    /// Why a call to its backend failed last, if one ever did.
    pub last_failure: Option<String>,
    /// Where its breaker stands.
    pub breaker: BreakerState,
    /// How often its breaker has opened.
    pub breaker_opened: u64,
    /// Messages that wait in its mailbox.
    pub mailbox: usize,
    /// Messages its actor has handled.
    pub messages: u64,
    /// Operations taken from the mailbox that wait for a call.
    pub queued: usize,
    /// Calls that have not returned, late ones included.
    pub calls: usize,
    /// Jobs of its backend that run on the blocking pool.
    pub blocking_jobs: usize,
    /// Keys in quarantine: they read as a miss here until the tier confirms their last change.
    pub quarantined: usize,
    /// Whether the whole tier reads as a miss.
    pub bypassed: bool,
    /// Why, if it does.
    pub bypass_cause: Option<BypassCause>,
    /// Whether it is only read.
    pub read_only: bool,
    /// Of a read-only tier: the keys that were set or removed above it, of which it shows only later values.
    pub overruled: usize,
    /// Whether too many of its entries cannot be decoded.
    pub decode_alarm: bool,
    /// Keys with something under way.
    pub ledger: usize,
    /// What its store holds, as far as it says.
    pub usage: Usage,
    /// Reads by outcome.
    pub reads: ReadCounts,
    /// Mutations, fills and repairs.
    pub writes: WriteCounts,
    /// Its queue, if it writes behind.
    pub write_behind: Option<WriteBehindInspection>,
}

impl Inspection {
    pub(crate) fn of(engine: &Engine) -> Self {
        let route = engine.route.load_full();
        let tiers = route.tiers.iter().map(|tier| {
            let core = &tier.core;
            let health = core.health();
            TierInspection {
                label: core.label.clone(),
                state: health.state,
                restarts: health.restarts,
                last_error: health.last_error.map(in_full),
                last_failure: health.last_failure.map(in_full),
                breaker: core.breaker().state(),
                breaker_opened: core.breaker().opened_total(),
                mailbox: tier.address.len(),
                messages: core.counters.messages.load(Ordering::Relaxed),
                queued: core.queued(),
                calls: core.calls(),
                blocking_jobs: core.running_jobs(),
                quarantined: core.quarantined(),
                bypassed: core.is_bypassed(),
                bypass_cause: core.bypass_cause(),
                read_only: core.options.read_only,
                overruled: core.overruled.len(),
                decode_alarm: core.decodes.is_alarmed(),
                ledger: core.ledger_keys(),
                usage: core.usage(),
                reads: core.counters.reads(),
                writes: core.counters.writes(),
                write_behind: core.inspect_behind(),
            }
        });
        Self {
            name: engine.name.to_string(),
            runtime: engine.runtime.name(),
            closed: engine.is_closed(),
            tiers: tiers.collect(),
            refills_queued: engine.lane.len(),
            refills_dropped: engine.refills_dropped.load(Ordering::Relaxed),
            loads: engine.flights.len(),
            codec: engine.codecs.stats(),
            #[cfg(feature = "backplane")]
            backplane: engine.link.as_ref().map(|link| link.inspect()),
            codec_rates: engine.codecs.rates(),
            #[cfg(feature = "zstd")]
            dictionaries: engine.codecs.dictionaries().inspect(),
        }
    }

    /// The tier with this name.
    pub fn tier(&self, label: &str) -> Option<&TierInspection> {
        self.tiers.iter().find(|tier| tier.label.as_str() == label)
    }
}

fn in_full(error: Error) -> String {
    match std::error::Error::source(&error) {
        Some(source) => format!("{error} ({source})"),
        None => error.to_string(),
    }
}
