//! Dead letters: accepted writes that could not be applied, and where they go.

use async_trait::async_trait;
use serde::Serialize;

use crate::backend::BackendResult;
use crate::codec::frame;
use crate::error::{Error, Result};
use crate::key::CacheKey;
use crate::value::{BackendLabel, Entry, Payload, Raw, Stamp, Timestamp};

/// A write that was accepted and could not be applied.
///
/// [`Cache::redrive`](crate::Cache::redrive) queues it again.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The tier that could not apply it.
    pub tier: BackendLabel,
    /// Its key.
    pub key: CacheKey,
    /// What was to be stored; `None`: the key was to be removed.
    pub entry: Option<Entry>,
    /// Its number among the writes.
    pub stamp: Stamp,
    /// How often it failed on its own.
    pub attempts: u32,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// When it was given up.
    pub died: Timestamp,
    /// Why it was given up.
    pub reason: DeadReason,
    /// Why it failed last, if it ever did.
    pub error: Option<Error>,
}

/// Why a write was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeadReason {
    /// It failed as often as [`Retry::attempts`](super::Retry::attempts) says.
    Attempts,
    /// It failed when it was older than [`Retry::age`](super::Retry::age) says, or got that old while the breaker was
    /// open.
    Age,
    /// It made room for a newer one, as [`Overload::DropOldest`](super::Overload::DropOldest) says.
    Overload,
    /// A newer write of its key was refused, so that this one may not be shown any more, and will not be brought to the
    /// store either: its key is removed there.
    Displaced,
    /// Another process may have written its key later: the backplane may have missed that, so the tier dropped everything
    /// that was older.
    Unheard,
    /// The cache was shut down before it could be applied, and no journal keeps it.
    Shutdown,
}

impl DeadReason {
    /// The reason in a word, as it is serialised.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Age => "age",
            Self::Overload => "overload",
            Self::Displaced => "displaced",
            Self::Unheard => "unheard",
            Self::Shutdown => "shutdown",
        }
    }
}

impl DeadLetter {
    /// What its value weighs, in bytes.
    pub(super) fn weight(&self) -> usize {
        self.entry.as_ref().map_or(0, |entry| entry.payload.weight())
    }

    /// A letter made by hand (read back from a file, say): `frame` is what [`frame`](Self::frame) gave, `None` a
    /// removal.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) if it is no frame of this key.
    pub fn new(
        tier: impl Into<BackendLabel>,
        key: CacheKey,
        frame: Option<Raw>,
        stamp: Stamp,
    ) -> Result<Self> {
        let entry = match frame {
            Some(raw) => {
                let (header, _) = frame::open(&raw, &key)?;
                Some(Entry::new(Payload::Bytes(raw), header.meta))
            }
            None => None,
        };
        Ok(Self {
            tier: tier.into(),
            key,
            entry,
            stamp,
            attempts: 0,
            accepted: stamp.wall(),
            died: stamp.wall(),
            reason: DeadReason::Attempts,
            error: None,
        })
    }

    /// The bytes that were to be stored; `None` for a removal, and for a decoded value of an in-process tier.
    pub fn frame(&self) -> Option<&Raw> {
        match self.entry.as_ref().map(|entry| &entry.payload) {
            Some(Payload::Bytes(raw)) => Some(raw),
            _ => None,
        }
    }

    /// Whether the key was to be removed.
    pub fn is_removal(&self) -> bool {
        self.entry.is_none()
    }
}

/// Takes what a write-behind tier could not apply.
///
/// Letters come one at a time, in the order in which they died, in a background task. A delivery that fails, panics or
/// takes longer than 5 s is counted, told as an event, and the letter kept in memory among the last 1,024 that could not
/// be delivered ([`Cache::undelivered_letters`](crate::Cache::undelivered_letters)).
#[async_trait]
pub trait DeadLetterSink: Send + std::marker::Sync + 'static {
    /// Takes a letter.
    async fn deliver(&self, letter: &DeadLetter) -> BackendResult<()>;
}

/// The default sink: writes a line to the log for each letter, and so loses the value. Through `tracing` at level `WARN`
/// with the feature of that name, else to standard error. Neither has the key in it: keys may be secret.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogLetters;

#[async_trait]
impl DeadLetterSink for LogLetters {
    async fn deliver(&self, letter: &DeadLetter) -> BackendResult<()> {
        crate::observe::trace::dead_letter(letter);
        Ok(())
    }
}

/// What became of a letter that was queued again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Redriven {
    /// It is queued as it was when it was first accepted.
    Queued,
    /// Something newer is queued, stored or settled under its key: nothing is to be done.
    Superseded,
}
