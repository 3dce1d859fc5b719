//! What each metric is, for whoever looks at them.

use metrics::Unit;

/// Says what each metric is, and in which unit. All have a label `cache`, the cache's name.
pub(super) fn describe() {
    use Unit::{Bytes, Count, Seconds};
    for (name, unit, what) in [
        (
            "tierkeep_reads_total",
            Count,
            "Reads of a tier by outcome; all but `hit` were a miss to the caller",
        ),
        ("tierkeep_port_reads_total", Count, "Reads answered without the tier's mailbox"),
        ("tierkeep_reads_joined_total", Count, "Reads that joined one of the same key not yet sent"),
        (
            "tierkeep_writes_total",
            Count,
            "Mutations of a tier by outcome; `unconfirmed` ones quarantine their key",
        ),
        ("tierkeep_fills_total", Count, "Refills and loaded values, stored, void by a fence, or dropped"),
        ("tierkeep_repairs_total", Count, "Repairs of quarantined keys by outcome"),
        ("tierkeep_calls_total", Count, "Calls to the tier's backend"),
        ("tierkeep_bytes_total", Bytes, "Bytes read from and written to the tier's backend"),
        (
            "tierkeep_bypasses_total",
            Count,
            "Times that too many keys were in quarantine and the tier was bypassed",
        ),
        ("tierkeep_late_calls_total", Count, "Calls that returned after their deadline"),
        ("tierkeep_restarts_total", Count, "Restarts of the tier's actor"),
        ("tierkeep_breaker_opened_total", Count, "Times that the tier's breaker opened"),
        (
            "tierkeep_write_behind_writes_total",
            Count,
            "Writes of a write-behind tier: accepted is the sum of the others and what is queued",
        ),
        ("tierkeep_write_behind_retries_total", Count, "Failed tries of a queued write on its own"),
        ("tierkeep_write_behind_splits_total", Count, "Queued writes tried again in a smaller batch"),
        ("tierkeep_write_behind_rejected_total", Count, "Writes that a full queue turned away"),
        ("tierkeep_write_behind_blocked_total", Count, "Writes that waited for room in a full queue"),
        ("tierkeep_write_behind_written_through_total", Count, "Writes that went past a full queue"),
        (
            "tierkeep_write_behind_recovered_total",
            Count,
            "Writes that an earlier process left in the journal",
        ),
        ("tierkeep_dead_letters_undelivered_total", Count, "Dead letters that their sink did not take"),
        ("tierkeep_evictions_total", Count, "Entries that the tier evicted for want of room"),
        ("tierkeep_region_reads_total", Count, "Reads of a region by outcome"),
        ("tierkeep_region_writes_total", Count, "Sets and removals of a region by outcome"),
        ("tierkeep_loads_total", Count, "Loads of a region: run, failed, or joined by a waiting caller"),
        ("tierkeep_refills_dropped_total", Count, "Refills dropped because their lane was full"),
        ("tierkeep_codec_jobs_total", Count, "Values encoded and decoded, in place or on the blocking pool"),
        ("tierkeep_codec_failures_total", Count, "Values that could not be encoded or decoded"),
        ("tierkeep_codec_rejected_total", Count, "Codec jobs refused because the pool's queue was full"),
        ("tierkeep_archived_views_total", Count, "Archives read where they are, without decoding them"),
        (
            "tierkeep_dictionaries_total",
            Count,
            "Dictionaries by outcome: `trained`, `in_vain` (no better), `loaded` from a tier, `unknown` (a miss)",
        ),
        (
            "tierkeep_archived_copies_total",
            Count,
            "Archives copied to a suitable address before they were read",
        ),
    ] {
        metrics::describe_counter!(name, unit, what);
    }
    for (name, unit, what) in [
        ("tierkeep_tier_up", Count, "1 while the tier's actor runs"),
        ("tierkeep_breaker_state", Count, "0 closed, 1 half-open, 2 open"),
        ("tierkeep_bypassed", Count, "1 while the whole tier reads as a miss"),
        ("tierkeep_mailbox_messages", Count, "Messages that wait for the tier's actor"),
        ("tierkeep_queued_operations", Count, "Operations that wait for a call"),
        ("tierkeep_calls_in_flight", Count, "Calls that have not returned, late ones included"),
        ("tierkeep_blocking_jobs", Count, "Jobs of the backend on the blocking pool"),
        ("tierkeep_quarantined_keys", Count, "Keys whose last change the tier has not confirmed"),
        ("tierkeep_write_behind_queued", Count, "Writes that are accepted and not yet applied"),
        ("tierkeep_write_behind_bytes", Bytes, "What their values weigh"),
        ("tierkeep_write_behind_oldest_seconds", Seconds, "For how long the oldest has been queued"),
        ("tierkeep_write_behind_in_flight", Count, "Queued writes on their way to the store"),
        ("tierkeep_write_behind_retrying", Count, "Queued writes that have failed and are tried again"),
        (
            "tierkeep_write_behind_draining",
            Count,
            "1 while a flush or the shutdown has everything sent at once",
        ),
        ("tierkeep_write_behind_journal_bytes", Bytes, "What the journal's files take"),
        ("tierkeep_write_behind_journal_lag_seconds", Seconds, "Age of the oldest change not yet synced"),
        ("tierkeep_entries", Count, "Entries that the tier holds, as far as it knows"),
        ("tierkeep_held_bytes", Bytes, "What they weigh, as far as it knows"),
        ("tierkeep_refills_queued", Count, "Refills that wait in their lane"),
        ("tierkeep_loads_in_flight", Count, "Loads that can be joined"),
        ("tierkeep_codec_waiting", Count, "Jobs that wait for the codec's pool"),
    ] {
        metrics::describe_gauge!(name, unit, what);
    }
    for (name, unit, what) in [
        ("tierkeep_tier_read_seconds", Seconds, "From asking a tier's actor to its answer"),
        (
            "tierkeep_tier_write_seconds",
            Seconds,
            "From sending a mutation to a tier until it is settled there",
        ),
        ("tierkeep_call_seconds", Seconds, "Calls to the tier's backend"),
        ("tierkeep_batch_keys", Count, "Keys in one call to the tier's backend"),
        ("tierkeep_region_read_seconds", Seconds, "Reads of a region; hits through a port from a sample"),
        ("tierkeep_region_write_seconds", Seconds, "Sets and removals of a region"),
        ("tierkeep_load_seconds", Seconds, "Loads of a region"),
        ("tierkeep_codec_seconds", Seconds, "Encoding, decoding, and the compression within them"),
    ] {
        metrics::describe_histogram!(name, unit, what);
    }
}
