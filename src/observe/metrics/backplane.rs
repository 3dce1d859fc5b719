//! The metrics of a backplane, where there is one: its counts, whether it hears, and whom.

use metrics::{Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

use super::{Count, label, publish};
use crate::backplane::{BackplaneState, Link};

const COUNTERS: [(&str, &str); 8] = [
    ("tierkeep_backplane_messages_total", "Messages published, heartbeats included"),
    ("tierkeep_backplane_publish_failures_total", "Attempts to publish that failed"),
    ("tierkeep_backplane_told_total", "Keys and clears told to other processes"),
    ("tierkeep_backplane_heard_total", "Keys and clears heard of from other processes"),
    ("tierkeep_backplane_entries_dropped_total", "Entries dropped for what was heard"),
    ("tierkeep_backplane_overflows_total", "Overflows of the queue of what is to be told"),
    ("tierkeep_backplane_gaps_total", "Stretches of messages that were missed"),
    ("tierkeep_backplane_drops_total", "Times that everything unshared was dropped"),
];
const GAUGES: [(&str, &str); 3] = [
    ("tierkeep_backplane_up", "1 if what other processes write is heard, otherwise 0"),
    ("tierkeep_backplane_peers", "Other processes that are heard"),
    ("tierkeep_backplane_queued", "Keys and clears that wait to be told"),
];

pub(super) struct BackplaneCounts {
    counts: Vec<Count>,
    gauges: Vec<Gauge>,
}

impl BackplaneCounts {
    pub(super) fn new(cache: &str) -> Self {
        for (name, what) in COUNTERS {
            describe_counter!(name, Unit::Count, what);
        }
        for (name, what) in GAUGES {
            describe_gauge!(name, Unit::Count, what);
        }
        let labels = || vec![label("cache", cache)];
        Self {
            counts: COUNTERS.iter().map(|&(name, _)| Count::new(counter!(name, labels()))).collect(),
            gauges: GAUGES.iter().map(|&(name, _)| gauge!(name, labels())).collect(),
        }
    }

    pub(super) fn publish(&mut self, link: &Link) {
        let now = link.inspect();
        publish(
            &mut self.counts,
            [
                now.published,
                now.publish_failures,
                now.told,
                now.heard,
                now.dropped,
                now.overflows,
                now.gaps,
                now.drops,
            ],
        );
        let up = f64::from(u8::from(now.state == BackplaneState::Up));
        for (gauge, value) in self.gauges.iter().zip([up, now.peers as f64, now.queued as f64]) {
            gauge.set(value);
        }
    }
}
