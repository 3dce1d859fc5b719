//! What stands under a key: a small local header and the frame.
//!
//! ```text
//! u8 version << 4 | flags   u32 generation   u32 epoch   order: 8 or 12 bytes   [u64 kept-until ms]   [u64 stale ms]   frame …
//! ```

use crate::value::{Stamp, Timestamp};

const VERSION: u8 = 1 << 4;
const VERSION_MASK: u8 = 0xF0;
const TOMBSTONE: u8 = 1;
const KEPT: u8 = 1 << 1;
const STALE: u8 = 1 << 2;
const STAMPED: u8 = 1 << 3;

/// Where a record stands against the clears of the opening that wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The engine's stamp.
    Stamp(Stamp),
    /// Written without a stamp: how many clears this opening had seen by then.
    Clears(u64),
}

/// The local part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Marks the key as removed; there is no frame.
    pub(super) tombstone: bool,
    /// The generation that it was written to: a record of another one is a leftover in a reused keyspace.
    pub(super) generation: u32,
    /// Which opening of the store wrote it.
    pub(super) epoch: u32,
    pub(super) order: Order,
    /// From when on it counts as absent; `None`: never.
    pub(super) kept_until: Option<Timestamp>,
    /// The stale hint that came with it.
    pub(super) stale: Option<Timestamp>,
}

impl Header {
    /// Whether its life is over at `now`.
    pub(super) fn is_dead(&self, now: Timestamp) -> bool {
        self.tombstone || self.kept_until.is_some_and(|at| at <= now)
    }

    /// How many bytes it takes before the frame.
    pub(super) fn size(&self) -> usize {
        let order = if matches!(self.order, Order::Stamp(_)) { 12 } else { 8 };
        1 + 4 + 4 + order + 8 * (usize::from(self.kept_until.is_some()) + usize::from(self.stale.is_some()))
    }

    /// The record's bytes: this header, then `frame`.
    pub(super) fn encode(&self, frame: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size() + frame.len());
        let mut flags = VERSION;
        flags |= if self.tombstone { TOMBSTONE } else { 0 };
        flags |= if self.kept_until.is_some() { KEPT } else { 0 };
        flags |= if self.stale.is_some() { STALE } else { 0 };
        flags |= if matches!(self.order, Order::Stamp(_)) { STAMPED } else { 0 };
        out.push(flags);
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        match self.order {
            Order::Stamp(stamp) => {
                out.extend_from_slice(&stamp.time.to_le_bytes());
                out.extend_from_slice(&stamp.node.to_le_bytes());
            }
            Order::Clears(count) => out.extend_from_slice(&count.to_le_bytes()),
        }
        for time in [self.kept_until, self.stale].into_iter().flatten() {
            out.extend_from_slice(&time.as_millis().to_le_bytes());
        }
        out.extend_from_slice(frame);
        out
    }

    /// Takes a record apart; `None` if it is not one that [`encode`](Self::encode) made.
    pub(super) fn decode(record: &[u8]) -> Option<(Self, &[u8])> {
        let mut rest = Reader(record);
        let flags = rest.u8()?;
        if flags & VERSION_MASK != VERSION {
            return None;
        }
        let (generation, epoch) = (rest.u32()?, rest.u32()?);
        let order = if flags & STAMPED != 0 {
            Order::Stamp(Stamp { time: rest.u64()?, node: rest.u32()? })
        } else {
            Order::Clears(rest.u64()?)
        };
        let kept_until = if flags & KEPT != 0 { Some(Timestamp::from_millis(rest.u64()?)) } else { None };
        let stale = if flags & STALE != 0 { Some(Timestamp::from_millis(rest.u64()?)) } else { None };
        Some((
            Self { tombstone: flags & TOMBSTONE != 0, generation, epoch, order, kept_until, stale },
            rest.0,
        ))
    }
}

/// Reads little-endian numbers off the front of a slice.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_header_reads_back_and_no_prefix_of_one_does() {
        for tombstone in [false, true] {
            for kept_until in [None, Some(Timestamp::from_millis(7)), Some(Timestamp::MAX)] {
                for stale in [None, Some(Timestamp::from_millis(3))] {
                    for order in [Order::Clears(9), Order::Stamp(Stamp { time: u64::MAX, node: 5 })] {
                        let header =
                            Header { tombstone, generation: 3, epoch: u32::MAX, order, kept_until, stale };
                        let bytes = header.encode(b"");
                        assert_eq!(bytes.len(), header.size());
                        assert_eq!(Header::decode(&bytes), Some((header, &b""[..])));
                        for end in 0..bytes.len() {
                            assert_eq!(Header::decode(&bytes[..end]), None, "cut at {end}");
                        }
                        assert_eq!(Header::decode(&header.encode(b"frame")).unwrap().1, b"frame");
                    }
                }
            }
        }
        assert_eq!(Header::decode(&[0; 64]), None, "another version");
    }
}
