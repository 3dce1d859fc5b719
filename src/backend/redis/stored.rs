//! What stands under a key: a frame as the engine made it, or one of this backend's own records.
//!
//! The engine's frames carry their stamp. What comes without one (values written through the bare [`Backend`] interface)
//! is put behind a stamp, and a removal that must outlive what it removed leaves a tombstone. All three have the stamp
//! at the same place, where the scripts find it:
//!
//! ```text
//! magic    2   C7, then T: a frame, V: a value behind its stamp, D: a tombstone
//! header   4   a frame's own; of the others 01 00 00 00
//! stamp   12   time u64, node u32, little-endian (of a frame with a dictionary: after its id)
//! ```
//!
//! [`Backend`]: crate::Backend

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::frame;
use crate::value::{Raw, Stamp};

const VALUE: [u8; 6] = [0xC7, b'V', 1, 0, 0, 0];
const TOMBSTONE: [u8; 6] = [0xC7, b'D', 1, 0, 0, 0];

/// Bytes before a value behind its stamp.
const HEAD: usize = 18;

/// What a reader makes of the bytes under a key.
#[derive(Debug, PartialEq)]
pub(super) enum Stored {
    /// A frame, or a value behind its stamp.
    Value(Raw, Stamp),
    /// The key was removed by the mutation with this stamp.
    Tombstone,
    /// Something else, for the engine to count.
    Foreign(Raw),
}

impl Stored {
    pub(super) fn read(raw: Raw) -> Self {
        if let Some(stamp) = frame::peek_stamp(&raw) {
            return Self::Value(raw, stamp);
        }
        match (own_stamp(&raw, VALUE), own_stamp(&raw, TOMBSTONE)) {
            (Some(stamp), _) => Self::Value(raw.slice(HEAD..), stamp),
            (_, Some(_)) => Self::Tombstone,
            _ => Self::Foreign(raw),
        }
    }
}

/// An entry as it is stored: a frame of that stamp as it is, anything else behind the stamp.
pub(super) fn value(raw: Raw, stamp: Stamp) -> Raw {
    if frame::peek_stamp(&raw) == Some(stamp) {
        return raw;
    }
    let mut out = BytesMut::with_capacity(HEAD + raw.len());
    put_head(&mut out, VALUE, stamp);
    out.extend_from_slice(&raw);
    out.freeze()
}

/// Whether the stamp stands at its usual place: the script looks nowhere else at a glance.
pub(super) fn is_plain_frame(raw: &[u8]) -> bool {
    raw.len() > 22 && raw.starts_with(b"\xC7T\x01") && raw[3] % 16 < 8
}

pub(super) fn tombstone(stamp: Stamp) -> Raw {
    let mut out = BytesMut::with_capacity(HEAD);
    put_head(&mut out, TOMBSTONE, stamp);
    out.freeze()
}

pub(super) fn is_tombstone(raw: &[u8]) -> bool {
    own_stamp(raw, TOMBSTONE).is_some()
}

fn put_head(out: &mut BytesMut, magic: [u8; 6], stamp: Stamp) {
    out.extend_from_slice(&magic);
    out.put_u64_le(stamp.time);
    out.put_u32_le(stamp.node);
}

fn own_stamp(raw: &[u8], magic: [u8; 6]) -> Option<Stamp> {
    read_stamp(raw.strip_prefix(&magic)?.first_chunk::<12>()?)
}

/// A stamp of 12 bytes.
pub(super) fn read_stamp(stamp: &[u8]) -> Option<Stamp> {
    let stamp: &[u8; 12] = stamp.try_into().ok()?;
    let (time, node) = stamp.split_first_chunk::<8>()?;
    Some(Stamp { time: u64::from_le_bytes(*time), node: u32::from_le_bytes(*node.first_chunk()?) })
}

/// A reply as bytes, without a copy.
pub(super) fn raw(bytes: Vec<u8>) -> Raw {
    Bytes::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Encoded;
    use crate::key::CacheKey;
    use crate::value::Meta;

    const STAMP: Stamp = Stamp { time: 0x0102_0304_0506_0708, node: 9 };

    #[test]
    fn what_is_stored_reads_back_with_its_stamp() {
        let bytes = Raw::from_static(b"\x00value");
        let stored = value(bytes.clone(), STAMP);
        assert_eq!(stored.len(), HEAD + bytes.len());
        assert_eq!(Stored::read(stored), Stored::Value(bytes.clone(), STAMP));
        assert_eq!(Stored::read(tombstone(STAMP)), Stored::Tombstone);
        assert_eq!(Stored::read(bytes.clone()), Stored::Foreign(bytes));
        assert_eq!(Stored::read(Raw::new()), Stored::Foreign(Raw::new()));
    }

    #[test]
    fn a_frame_is_stored_as_it_is() {
        let key = CacheKey::new("k", 1, []);
        let frame = Encoded::plain(Encoded::buffer_in(Vec::new(), 0), 0, 1)
            .seal(&key, &Meta { stamp: STAMP, ..Meta::default() });
        assert_eq!(value(frame.clone(), STAMP), frame);
        assert_eq!(Stored::read(frame.clone()), Stored::Value(frame.clone(), STAMP));
        let other = Stamp { node: 1, ..STAMP };
        assert_eq!(Stored::read(value(frame.clone(), other)), Stored::Value(frame, other));
    }
}
