//! What is sent: the notes of one process, numbered.
//!
//! `TKB`, a version byte, then postcard. What cannot be read is taken for a lost message of somebody's: a newer version
//! of this crate may have more to say than an older one understands.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::value::{Raw, Stamp};

const MAGIC: [u8; 4] = *b"TKB\x01";

/// One message. Without notes it is a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Packet {
    /// Who sends it, drawn at random by each cache.
    pub(crate) node: u64,
    /// The number of this message if it has notes, otherwise of the last one that had. From 1.
    pub(crate) number: u64,
    /// Whether the sender will send no more.
    pub(crate) leaving: bool,
    pub(crate) notes: Vec<Note>,
}

/// What one mutation of the shared store means to the other processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) action: Action,
    pub(crate) stamp: Stamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Action {
    /// The key was written: what is older than the stamp is to go.
    Invalidate(String),
    /// The key was removed: the same.
    Remove(String),
    /// A region, or everything, was cleared up to the stamp.
    Clear(Option<String>),
    /// Notes were dropped: everything may be old.
    Resync,
}

impl Packet {
    pub(crate) fn encode(&self) -> Result<Raw> {
        let bytes = postcard::to_extend(self, MAGIC.to_vec());
        bytes
            .map(Raw::from)
            .map_err(|error| Error::new(ErrorKind::Encode, "a backplane message").with_source(error))
    }

    pub(crate) fn decode(raw: &[u8]) -> Result<Self> {
        let unread = || Error::new(ErrorKind::Decode, "not a backplane message of this version");
        let payload = raw.strip_prefix(&MAGIC).ok_or_else(unread)?;
        postcard::from_bytes(payload).map_err(|error| unread().with_source(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Packet {
        let stamp = Stamp { time: 7 << 16, node: 3 };
        let notes = vec![
            Note { action: Action::Invalidate("user:v1:7".into()), stamp },
            Note { action: Action::Clear(Some("user".into())), stamp },
            Note { action: Action::Resync, stamp },
        ];
        Packet { node: u64::MAX, number: 12, leaving: false, notes }
    }

    #[test]
    fn what_is_sent_is_what_is_heard() {
        let raw = packet().encode().unwrap();
        assert_eq!(Packet::decode(&raw).unwrap(), packet());
    }

    #[test]
    fn hostile_bytes_are_an_error() {
        let raw = packet().encode().unwrap();
        for cut in 0..raw.len() {
            assert!(Packet::decode(&raw[..cut]).is_err(), "cut at {cut}");
        }
        // A length that promises more than there is.
        let huge = [&MAGIC[..], &[1, 1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
        assert!(Packet::decode(&huge).is_err());
        assert!(Packet::decode(b"hello").is_err());
    }
}
