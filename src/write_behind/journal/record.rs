//! What stands in the journal: records that can be told from any other bytes, wherever they are found.
//!
//! ```text
//! "TKWB"   u8 kind   u32 length of the body   body   u64 XXH3 of kind, length and body
//! ```
//!
//! Each carries its own key, number and checksum, so that it can be read out of a store that cannot be opened any
//! more. What is forgotten leaves a trace of the same kind (the notes of a batch), so that reading it all again does
//! not bring back what was applied long ago.

use twox_hash::XxHash3_64;

use crate::backend::disk::record::Reader;
use crate::key::CacheKey;
use crate::tier::message::Change;
use crate::value::{Entry, Meta, Payload, Raw, Stamp, Timestamp};

const MAGIC: &[u8; 4] = b"TKWB";
const HEAD: usize = 4 + 1 + 4;
const CHECKSUM: usize = 8;

const SET: u8 = 1;
const REMOVE: u8 = 2;
const NOTES: u8 = 3;

/// A change that a tier has accepted and not yet applied.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) key: CacheKey,
    pub(crate) stamp: Stamp,
    /// A set's payload is bytes: the journal keeps frames, not objects.
    pub(crate) change: Change,
    /// When it was accepted first.
    pub(crate) accepted: Timestamp,
}

impl Record {
    /// Whether its life was over at `now`, so that applying it would store nothing.
    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        match &self.change {
            Change::Set(entry) => entry.meta.kept_until().is_some_and(|at| at <= now),
            Change::Remove => false,
        }
    }

    /// What it takes in the journal, about: key, payload and about 100 bytes around them.
    pub(super) fn weight(&self) -> u64 {
        (2 * self.key.as_str().len() + self.change.weight() + 100) as u64
    }
}

/// What a batch says about records of earlier ones.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// Every record with a lower number is settled.
    pub(super) floor: u64,
    /// Of the keys with these fingerprints, the records up to these numbers are settled.
    pub(super) settled: Vec<(u64, u64)>,
}

/// A piece of the journal, taken apart.
#[derive(Debug)]
pub(super) enum Piece {
    /// A record and its number: later ones are higher.
    Record(u64, Record),
    Notes(Notes),
}

/// The bytes of a record.
pub(super) fn encode(number: u64, record: &Record) -> Vec<u8> {
    let payload: &[u8] = match &record.change {
        Change::Set(Entry { payload: Payload::Bytes(frame), .. }) => frame,
        Change::Set(_) | Change::Remove => &[],
    };
    let key = record.key.as_str().as_bytes();
    let kind = if matches!(record.change, Change::Remove) { REMOVE } else { SET };
    let mut out = begin(kind, 96 + key.len() + payload.len());
    for number in [number, record.stamp.time, record.accepted.as_millis()] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&record.stamp.node.to_le_bytes());
    if let Change::Set(Entry { meta, .. }) = &record.change {
        out.extend_from_slice(&meta.created.as_millis().to_le_bytes());
        for time in [meta.stale, meta.expire, meta.retain] {
            out.push(u8::from(time.is_some()));
            out.extend_from_slice(&time.unwrap_or_default().as_millis().to_le_bytes());
        }
    }
    // A key is at most 64 KiB.
    out.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(payload);
    finish(out)
}

/// The bytes of a batch's notes.
pub(super) fn encode_notes(notes: &Notes) -> Vec<u8> {
    let mut out = begin(NOTES, 8 + 16 * notes.settled.len());
    out.extend_from_slice(&notes.floor.to_le_bytes());
    for (fingerprint, number) in &notes.settled {
        out.extend_from_slice(&fingerprint.to_le_bytes());
        out.extend_from_slice(&number.to_le_bytes());
    }
    finish(out)
}

fn begin(kind: u8, room: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + room + CHECKSUM);
    out.extend_from_slice(MAGIC);
    out.push(kind);
    out.extend_from_slice(&[0; 4]);
    out
}

fn finish(mut out: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(out.len() - HEAD).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(5..HEAD) {
        place.copy_from_slice(&length.to_le_bytes());
    }
    let checksum = XxHash3_64::oneshot(out.get(4..).unwrap_or_default());
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// Takes the piece at the front of `bytes` apart and says how long it is; `None` if there is no whole, sound one.
pub(super) fn decode(bytes: &[u8]) -> Option<(Piece, usize)> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let length = u32::from_le_bytes(*rest.get(1..)?.first_chunk()?) as usize;
    let sound = rest.get(..length.checked_add(5)?)?;
    let checksum = u64::from_le_bytes(*rest.get(sound.len()..)?.first_chunk()?);
    if XxHash3_64::oneshot(sound) != checksum {
        return None;
    }
    let body = Reader(sound.get(5..)?);
    let piece = match *sound.first()? {
        NOTES => Piece::Notes(decode_notes(body)?),
        kind @ (SET | REMOVE) => {
            let (number, record) = decode_record(kind == SET, body)?;
            Piece::Record(number, record)
        }
        _ => return None,
    };
    Some((piece, HEAD + length + CHECKSUM))
}

fn decode_record(set: bool, mut body: Reader<'_>) -> Option<(u64, Record)> {
    let (number, time, accepted) = (body.u64()?, body.u64()?, Timestamp::from_millis(body.u64()?));
    let stamp = Stamp { time, node: body.u32()? };
    let mut meta = Meta { stamp, ..Meta::default() };
    if set {
        meta.created = Timestamp::from_millis(body.u64()?);
        for place in [&mut meta.stale, &mut meta.expire, &mut meta.retain] {
            let there = body.u8()? != 0;
            *place = Some(Timestamp::from_millis(body.u64()?)).filter(|_| there);
        }
    }
    let length = body.u32()? as usize;
    let (key, payload) = body.0.split_at_checked(length)?;
    let key = CacheKey::from_canonical(std::str::from_utf8(key).ok()?);
    let change = if set {
        // Copied: a slice would keep a whole block of the store in memory.
        Change::Set(Entry::new(Payload::Bytes(Raw::copy_from_slice(payload)), meta))
    } else {
        Change::Remove
    };
    Some((number, Record { key, stamp, change, accepted }))
}

fn decode_notes(mut body: Reader<'_>) -> Option<Notes> {
    let floor = body.u64()?;
    let mut settled = Vec::with_capacity(body.0.len() / 16);
    while !body.0.is_empty() {
        settled.push((body.u64()?, body.u64()?));
    }
    Some(Notes { floor, settled })
}

/// Finds every sound piece in `bytes`, whatever stands between them. Returns how many began and were not sound.
pub(super) fn scan(bytes: &[u8], mut found: impl FnMut(Piece)) -> usize {
    let mut broken = 0;
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&byte| byte == MAGIC[0]) {
        rest = rest.get(at..).unwrap_or_default();
        let step = match decode(rest) {
            Some((piece, length)) => {
                found(piece);
                length
            }
            None => {
                broken += usize::from(rest.starts_with(MAGIC));
                1
            }
        };
        rest = rest.get(step..).unwrap_or_default();
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let key = CacheKey::from_canonical("user:v1:id=7");
        let stamp = Stamp { time: 5 << 16, node: 9 };
        let meta = Meta {
            stamp,
            created: Timestamp::from_millis(1),
            stale: None,
            expire: Some(Timestamp::from_millis(77)),
            retain: Some(Timestamp::MAX),
        };
        let set = Change::Set(Entry::new(Payload::Bytes(Raw::from_static(b"TKWB frame")), meta));
        let accepted = Timestamp::from_millis(4);
        [set, Change::Remove].map(|change| Record { key: key.clone(), stamp, change, accepted }).to_vec()
    }

    #[test]
    fn every_record_reads_back_and_no_part_or_flip_of_one_does() {
        for record in records() {
            let bytes = encode(3, &record);
            let (piece, length) = decode(&bytes).unwrap();
            assert_eq!(length, bytes.len());
            let Piece::Record(3, back) = piece else { panic!("{piece:?}") };
            assert_eq!(format!("{back:?}"), format!("{record:?}"));
            for end in 0..bytes.len() {
                assert!(decode(&bytes[..end]).is_none(), "cut at {end}");
            }
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(&flipped).is_none(), "bit {bit}");
            }
        }
        let notes = Notes { floor: 4, settled: vec![(1, 2), (3, 4)] };
        let (Piece::Notes(back), _) = decode(&encode_notes(&notes)).unwrap() else { panic!() };
        assert_eq!(back, notes);
    }

    #[test]
    fn pieces_are_found_between_other_bytes() {
        let mut bytes = b"T TK TKWB some other store's header".to_vec();
        for (number, record) in (1..).zip(records()) {
            bytes.extend_from_slice(&encode(number, &record));
            bytes.extend_from_slice(b"\0\0TKWB");
        }
        let mut numbers = Vec::new();
        let broken = scan(&bytes, |piece| {
            if let Piece::Record(number, _) = piece {
                numbers.push(number);
            }
        });
        assert_eq!((numbers, broken), (vec![1, 2], 3));
    }
}
