//! What a tier counts.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::error::ErrorKind;
use crate::observe::Striped;

macro_rules! counters {
    ($($field:ident),* $(,)?) => {
        /// Live counters of one tier.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $field: AtomicU64,)*
            /// Hits that ended at the port: both a hit and a port read, counted once.
            pub(crate) port_hits: Striped,
        }
    };
}

counters! {
    hits, misses, expired, cleared, quarantined, decode_failed, wrong_type,
    timeouts, overloaded, unavailable, restarted, panicked, failed,
    port_reads, messages, read_calls, read_keys, joined_reads,
    applied, superseded, outdated, unconfirmed, waited, write_calls, write_keys,
    fills, fills_void, fills_dropped, repairs, repair_failures, bypasses, late, swept,
    oversized, bytes_read, bytes_written,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        // Counters order nothing.
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn one(counter: &AtomicU64) {
        Self::add(counter, 1);
    }

    /// Counts a read that a failure turned into a miss.
    pub(crate) fn degraded(&self, kind: ErrorKind) {
        Self::one(match kind {
            ErrorKind::Timeout => &self.timeouts,
            ErrorKind::Overloaded => &self.overloaded,
            ErrorKind::Unavailable | ErrorKind::Closed => &self.unavailable,
            ErrorKind::Restarted => &self.restarted,
            ErrorKind::Panicked => &self.panicked,
            ErrorKind::Decode | ErrorKind::TooLarge => &self.decode_failed,
            ErrorKind::TypeMismatch => &self.wrong_type,
            _ => &self.failed,
        });
    }

    pub(crate) fn reads(&self) -> ReadCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let port_hits = self.port_hits.sum();
        ReadCounts {
            hits: get(&self.hits) + port_hits,
            misses: get(&self.misses),
            expired: get(&self.expired),
            cleared: get(&self.cleared),
            quarantined: get(&self.quarantined),
            decode_failed: get(&self.decode_failed),
            wrong_type: get(&self.wrong_type),
            timeouts: get(&self.timeouts),
            overloaded: get(&self.overloaded),
            unavailable: get(&self.unavailable),
            restarted: get(&self.restarted),
            panicked: get(&self.panicked),
            failed: get(&self.failed),
            through_port: get(&self.port_reads) + port_hits,
            calls: get(&self.read_calls),
            keys_in_calls: get(&self.read_keys),
            joined: get(&self.joined_reads),
            bytes: get(&self.bytes_read),
        }
    }

    pub(crate) fn writes(&self) -> WriteCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WriteCounts {
            applied: get(&self.applied),
            superseded: get(&self.superseded),
            outdated: get(&self.outdated),
            unconfirmed: get(&self.unconfirmed),
            waited: get(&self.waited),
            calls: get(&self.write_calls),
            keys_in_calls: get(&self.write_keys),
            fills: get(&self.fills),
            fills_void: get(&self.fills_void),
            fills_dropped: get(&self.fills_dropped),
            repairs: get(&self.repairs),
            repair_failures: get(&self.repair_failures),
            bypasses: get(&self.bypasses),
            late: get(&self.late),
            swept: get(&self.swept),
            oversized: get(&self.oversized),
            bytes: get(&self.bytes_written),
        }
    }
}

/// Reads of a tier by outcome. Everything but `hits` was a miss to the caller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReadCounts {
    /// Answered with a value.
    pub hits: u64,
    /// The tier does not hold the key.
    pub misses: u64,
    /// Held, but past its expiry.
    pub expired: u64,
    /// Held, but hidden by a clear.
    pub cleared: u64,
    /// Not asked, because the key (or the whole tier) is in quarantine.
    pub quarantined: u64,
    /// Held, but the bytes could not be decoded.
    pub decode_failed: u64,
    /// Held as a value of another type.
    pub wrong_type: u64,
    /// No answer within the read deadline.
    pub timeouts: u64,
    /// The mailbox was full.
    pub overloaded: u64,
    /// The tier was down, or its breaker open.
    pub unavailable: u64,
    /// Lost with an incarnation of the actor.
    pub restarted: u64,
    /// The backend (or a format) panicked.
    pub panicked: u64,
    /// The backend reported an error.
    pub failed: u64,
    /// Of all of these, those answered by the port, without the mailbox.
    pub through_port: u64,
    /// Backend calls that read.
    pub calls: u64,
    /// Keys in those calls.
    pub keys_in_calls: u64,
    /// Reads that joined one of the same key that was not yet sent.
    pub joined: u64,
    /// Bytes of the frames read. Hits of decoded values have none.
    pub bytes: u64,
}

impl ReadCounts {
    /// All reads of the tier.
    pub fn total(&self) -> u64 {
        self.hits + self.misses + self.expired + self.cleared + self.degraded()
    }

    /// Reads that a failure of the tier turned into a miss.
    pub fn degraded(&self) -> u64 {
        self.quarantined
            + self.decode_failed
            + self.wrong_type
            + self.timeouts
            + self.overloaded
            + self.unavailable
            + self.restarted
            + self.panicked
            + self.failed
    }

    /// Hits by all reads, from 0 to 1; 0 without reads.
    pub fn hit_ratio(&self) -> f64 {
        if self.total() == 0 { 0.0 } else { self.hits as f64 / self.total() as f64 }
    }
}

/// Mutations, fills and repairs of a tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WriteCounts {
    /// Mutations that the tier confirmed.
    pub applied: u64,
    /// Mutations dropped because a newer one of the key was settled.
    pub superseded: u64,
    /// Mutations, fills and repairs that the store refused because another process has written the key later.
    pub outdated: u64,
    /// Mutations that the tier did not confirm: their keys went into quarantine.
    pub unconfirmed: u64,
    /// Mutations that found the mailbox full and waited for room.
    pub waited: u64,
    /// Backend calls that write.
    pub calls: u64,
    /// Keys in those calls.
    pub keys_in_calls: u64,
    /// Refills and loaded values stored.
    pub fills: u64,
    /// Fills given up because a mutation of the key (or of its stripe) came between.
    pub fills_void: u64,
    /// Fills given up because of load or failure.
    pub fills_dropped: u64,
    /// Quarantined keys made good.
    pub repairs: u64,
    /// Repairs that have to be tried again.
    pub repair_failures: u64,
    /// Times that the quarantine overflowed and the whole tier was bypassed.
    pub bypasses: u64,
    /// Calls that returned after their deadline.
    pub late: u64,
    /// Expired entries deleted.
    pub swept: u64,
    /// Values that were not stored because they are over [`TierOptions::max_value`](crate::TierOptions::max_value).
    pub oversized: u64,
    /// Bytes sent to the store: lengths of frames, or stated weights of decoded values.
    pub bytes: u64,
}
