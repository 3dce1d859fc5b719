//! Generations: what writes fill one after another and what is dropped whole, the oldest first.
//!
//! Only ever the *oldest* generation goes: a newer one may hold the tombstone or the overwrite that hides what an
//! older one still has, so dropping it out of turn would bring old values back.
//!
//! Each lives in a *slot*, a keyspace of fjall that is emptied and used again. (Making and deleting a keyspace per
//! generation fills fjall's own catalogue with tables that it lets go of only when it is closed: 1 GB after 500
//! generations.) Records name their generation, so what is left in a slot of an earlier one is never mistaken.

use std::sync::{Arc, Mutex, PoisonError};

use fjall::{AbstractTree as _, Keyspace};

use super::record::{Header, Order, Reader};
use crate::value::{Stamp, Timestamp};

/// What a record costs beside its key and value: about fjall's own per-item header in journal and table.
const RECORD_OVERHEAD: u64 = 32;

/// The entries of a stretch of time.
pub(super) struct Generation {
    pub(super) id: u32,
    pub(super) slot: Slot,
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

    /// Of a generation found on disk. Even 0 bytes do not mean that it is empty: its records may be in a buffer yet.
    pub(super) fn found(bytes: u64, kept_until: Option<Timestamp>) -> Self {
        Self { bytes, kept_until, stamp: Stamp::ZERO }
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
    pub(super) fn new(id: u32, slot: Slot, summary: Summary) -> Arc<Self> {
        Arc::new(Self { id, slot, summary: Mutex::new(summary) })
    }

    /// What is kept about it under its slot's key: its id and, once it is closed, from when on all of it is dead.
    pub(super) fn encode(&self, closed: bool) -> Vec<u8> {
        let kept_until = self.summary().kept_until.filter(|_| closed);
        let mut out = self.id.to_le_bytes().to_vec();
        out.extend_from_slice(&kept_until.map_or(u64::MAX, Timestamp::as_millis).to_le_bytes());
        out
    }

    /// Reads what [`encode`](Self::encode) kept.
    pub(super) fn decode(bytes: &[u8]) -> Option<(u32, Option<Timestamp>)> {
        let mut rest = Reader(bytes);
        let (id, millis) = (rest.u32()?, rest.u64()?);
        Some((id, (millis != u64::MAX).then_some(Timestamp::from_millis(millis))))
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
        self.summary().bytes.max(self.slot.keyspace.disk_space())
    }
}

/// What a record takes of the capacity.
pub(super) fn cost(key: &str, header: &Header, frame: &[u8]) -> u64 {
    RECORD_OVERHEAD + (key.len() + header.size() + frame.len()) as u64
}

/// A keyspace that holds one generation after another.
#[derive(Clone)]
pub(super) struct Slot {
    pub(super) number: u32,
    pub(super) keyspace: Keyspace,
}

impl Slot {
    /// The keyspace's name.
    pub(super) fn name(number: u32) -> String {
        format!("slot-{number}")
    }

    /// The number in a keyspace's name; `None` if it is not a slot's.
    pub(super) fn parse_name(name: &str) -> Option<u32> {
        name.strip_prefix("slot-")?.parse().ok()
    }

    /// Throws away what is in it.
    pub(super) fn empty(&self) -> fjall::Result<()> {
        // `clear` alone forgets its tables without deleting their files until the database is opened again;
        // `drop_range` deletes them, but leaves buffers, and what the journal has of them, to `clear`.
        self.keyspace.tree.drop_range::<&[u8], _>(..)?;
        self.keyspace.clear()
    }

    /// Where it is kept which generation is in it.
    pub(super) fn key(&self) -> String {
        format!("slot/{}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_dead_only_once_its_longest_lived_entry_is() {
        let header = |kept_until| Header {
            tombstone: false,
            generation: 1,
            epoch: 1,
            order: Order::Clears(0),
            kept_until,
            stale: None,
        };
        let mut known = Summary::EMPTY;
        known.add(&header(Some(Timestamp::from_millis(7))), 10);
        known.add(&Header { tombstone: true, ..header(None) }, 10);
        known.add(&header(Some(Timestamp::from_millis(5))), 10);
        assert_eq!(known.kept_until, Some(Timestamp::from_millis(7)));
        known.add(&header(None), 10);
        known.add(&header(Some(Timestamp::from_millis(9))), 10);
        assert_eq!(known.kept_until, None, "one that lives for ever keeps its generation");
        // After a crash a closed generation may still be in the journal only.
        assert_eq!(Summary::found(0, None).kept_until, None);
    }
}
