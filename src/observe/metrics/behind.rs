//! The metrics of a tier that writes behind its callers.

use metrics::{Gauge, Label, counter, gauge};

use super::{Count, publish};
use crate::tier::WriteBehindInspection;

const BEHIND: [&str; 4] = ["accepted", "applied", "superseded", "dead"];
const BEHIND_OTHERS: [&str; 7] = [
    "tierkeep_write_behind_retries_total",
    "tierkeep_write_behind_splits_total",
    "tierkeep_write_behind_rejected_total",
    "tierkeep_write_behind_blocked_total",
    "tierkeep_write_behind_written_through_total",
    "tierkeep_write_behind_recovered_total",
    "tierkeep_dead_letters_undelivered_total",
];
const BEHIND_GAUGES: [&str; 8] = [
    "tierkeep_write_behind_queued",
    "tierkeep_write_behind_bytes",
    "tierkeep_write_behind_oldest_seconds",
    "tierkeep_write_behind_in_flight",
    "tierkeep_write_behind_retrying",
    "tierkeep_write_behind_draining",
    "tierkeep_write_behind_journal_bytes",
    "tierkeep_write_behind_journal_lag_seconds",
];

/// The queue of a write-behind tier.
pub(super) struct BehindCounts {
    writes: Vec<Count>,
    others: Vec<Count>,
    gauges: Vec<Gauge>,
}

impl BehindCounts {
    pub(super) fn new(base: &[Label]) -> Self {
        let outcome = |&outcome: &&'static str| {
            let mut labels = base.to_vec();
            labels.push(Label::from_static_parts("outcome", outcome));
            Count::new(counter!("tierkeep_write_behind_writes_total", labels))
        };
        Self {
            writes: BEHIND.iter().map(outcome).collect(),
            others: BEHIND_OTHERS.iter().map(|&name| Count::new(counter!(name, base.to_vec()))).collect(),
            gauges: BEHIND_GAUGES.iter().map(|&name| gauge!(name, base.to_vec())).collect(),
        }
    }

    pub(super) fn publish(&mut self, queue: &WriteBehindInspection) {
        let counts = queue.counts;
        publish(&mut self.writes, [counts.accepted, counts.applied, counts.superseded, counts.dead]);
        publish(
            &mut self.others,
            [
                counts.retries,
                counts.splits,
                counts.rejected,
                counts.blocked,
                counts.written_through,
                counts.recovered,
                queue.letters_undelivered,
            ],
        );
        #[cfg(feature = "disk")]
        let journal = queue.journal.as_ref().map_or((0, 0), |journal| (journal.disk_bytes, journal.lag_ms));
        #[cfg(not(feature = "disk"))]
        let journal = (0_u64, 0_u64);
        let levels = [
            queue.queued as f64,
            queue.bytes as f64,
            queue.oldest.as_secs_f64(),
            queue.in_flight as f64,
            queue.retrying as f64,
            f64::from(u8::from(queue.draining)),
            journal.0 as f64,
            journal.1 as f64 / 1000.0,
        ];
        for (gauge, level) in self.gauges.iter().zip(levels) {
            gauge.set(level);
        }
    }
}
