//! Generations: the keyspaces that writes fill one after another and that are deleted whole, the oldest first.
//!
//! Only ever the *oldest* generation goes: a newer one may hold the tombstone or the overwrite that hides what an
//! older one still has, so dropping it out of turn would bring old values back.

use std::sync::{Arc, Mutex, PoisonError};

use fjall::Keyspace;

use super::record::{Header, Order, Reader};
use crate::value::{Stamp, Timestamp};

/// What a record costs beside its key and value: about fjall's own per-item header in journal and table.
const RECORD_OVERHEAD: u64 = 32;

/// One keyspace of entries.
pub(super) struct Generation {
    pub(super) id: u64,
    pub(super) keyspace: Keyspace,
    summary: Mutex<Summary>,
}

/// What is known of a generation's records without reading them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Summary {
    /// Bytes written to it, overwritten ones included.
    pub(super) bytes: u64,
    /// From when on all its records are dead; `None`: never, or not known.
    pub(super) kept_until: Option<Timestamp>,
    /// The highest stamp of a record of this opening.
    pub(super) stamp: Stamp,
}

impl Summary {
    /// Of a generation without records.
    pub(super) const EMPTY: Self =
        Self { bytes: 0, kept_until: Some(Timestamp::from_millis(0)), stamp: Stamp::ZERO };

    /// Of a generation found on disk, of which only the size is known.
    pub(super) fn found(bytes: u64) -> Self {
        // Even 0 bytes do not mean that it is empty: its records may still be in a buffer.
        Self { bytes, kept_until: None, stamp: Stamp::ZERO }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        self.kept_until.map_or(u64::MAX, Timestamp::as_millis).to_le_bytes().to_vec()
    }

    /// Adds what [`encode`](Self::encode) kept.
    pub(super) fn with_encoded(mut self, bytes: &[u8]) -> Self {
        if let Some(millis) = Reader(bytes).u64().filter(|&millis| millis != u64::MAX) {
            self.kept_until = Some(Timestamp::from_millis(millis));
        }
        self
    }

    fn add(&mut self, header: &Header, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        if !header.tombstone {
            // `None` (never) wins over every time.
            self.kept_until = self.kept_until.zip(header.kept_until).map(|(a, b)| a.max(b));
        }
        if let Order::Stamp(stamp) = header.order {
            self.stamp = self.stamp.max(stamp);
        }
    }
}

impl Generation {
    pub(super) fn new(id: u64, keyspace: Keyspace, summary: Summary) -> Arc<Self> {
        Arc::new(Self { id, keyspace, summary: Mutex::new(summary) })
    }

    /// The keyspace's name; sorts as the ids do.
    pub(super) fn name(id: u64) -> String {
        format!("g{id:016x}")
    }

    /// The id in a keyspace's name; `None` if it is not a generation's.
    pub(super) fn parse_name(name: &str) -> Option<u64> {
        u64::from_str_radix(name.strip_prefix('g')?, 16).ok()
    }

    /// Where its summary is kept once it is closed.
    pub(super) fn summary_key(id: u64) -> String {
        format!("generation/{id:016x}")
    }

    pub(super) fn summary(&self) -> Summary {
        *self.summary.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a record that is about to be written.
    pub(super) fn count(&self, header: &Header, bytes: u64) {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner).add(header, bytes);
    }

    /// What it takes of the capacity: what was written to it, or what it takes on disk if that is more.
    pub(super) fn size(&self) -> u64 {
        self.summary().bytes.max(self.keyspace.disk_space())
    }
}

/// What a record takes of the capacity.
pub(super) fn cost(key: &str, record: &[u8]) -> u64 {
    RECORD_OVERHEAD + key.len() as u64 + record.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_found_without_tables_is_not_taken_for_dead() {
        // After a crash a closed generation may still be in the journal only.
        assert_eq!(Summary::found(0).kept_until, None);
        assert_eq!(Summary::found(0).with_encoded(&Summary::found(0).encode()).kept_until, None);
        let mut known = Summary::EMPTY;
        let header = |kept_until| Header {
            tombstone: false,
            epoch: 1,
            order: Order::Clears(0),
            kept_until,
            stale: None,
        };
        known.add(&header(Some(Timestamp::from_millis(7))), 10);
        known.add(&Header { tombstone: true, ..header(None) }, 10);
        known.add(&header(Some(Timestamp::from_millis(5))), 10);
        let kept = Summary::found(0).with_encoded(&known.encode());
        assert_eq!(kept.kept_until, Some(Timestamp::from_millis(7)));
        known.add(&header(None), 10);
        known.add(&header(Some(Timestamp::from_millis(9))), 10);
        assert_eq!(known.kept_until, None, "one that lives for ever keeps its generation");
    }
}
