//! How a tier writes behind, as an application describes it.

use std::fmt;
#[cfg(feature = "disk")]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::dead_letter::{DeadLetterSink, LogLetters};
#[cfg(feature = "disk")]
use super::journal::{JournalSync, Place};
use crate::error::{Error, ErrorKind, Result};

/// Where accepted writes are kept until the store has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Durability {
    /// In memory only: they are lost with the process.
    Memory,
    /// In memory and in a journal.
    #[cfg(feature = "disk")]
    Journal { place: Place, sync: JournalSync },
}

/// What becomes of a write that finds the queue full. One whose key is queued already takes the older one's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overload {
    /// It waits for room, at most so long, then fails with [`ErrorKind::Overloaded`].
    Block(Duration),
    /// It fails with [`ErrorKind::Overloaded`]. The key reads as a miss in this tier until it has been made good.
    Reject,
    /// It is written to the store before it is acknowledged, as without write-behind.
    WriteThrough,
    /// The oldest queued write goes to the dead letters, and its key reads as a miss in this tier.
    DropOldest,
}

/// How often and how fast failed writes are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retry {
    /// The wait after the first failure; doubles with each further one, and is cut by up to half at random.
    /// Default: 100 ms.
    pub first: Duration,
    /// The longest wait. Default: 30 s.
    pub longest: Duration,
    /// After how many failures of its own a write goes to the dead letters; failures of a batch are split until it
    /// fails alone. What an open breaker holds back does not count, and a probe of its only if the store has answered
    /// it with an error: not if the store was away ([`ErrorKind::Unavailable`]) or silent ([`ErrorKind::Timeout`]).
    /// Default: 16 (some 4 minutes).
    pub attempts: u32,
    /// How old a write may be when it fails, or while the breaker is open, before it goes to the dead letters.
    /// Default: any age.
    pub age: Option<Duration>,
}

impl Default for Retry {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), longest: Duration::from_secs(30), attempts: 16, age: None }
    }
}

impl Retry {
    /// Sets [`first`](Self::first) and [`longest`](Self::longest).
    #[must_use]
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        (self.first, self.longest) = (first, longest);
        self
    }

    /// Sets [`attempts`](Self::attempts).
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Sets [`age`](Self::age).
    #[must_use]
    pub fn age(mut self, age: Duration) -> Self {
        self.age = Some(age);
        self
    }
}

/// Makes a tier write behind: see [`Tier::write_behind`](crate::Tier::write_behind).
///
/// How durable a queued write is has no default: the constructor says it.
#[derive(Clone)]
pub struct WriteBehind {
    pub(crate) options: WriteBehindOptions,
}

/// What a [`WriteBehind`] holds.
#[derive(Clone)]
pub(crate) struct WriteBehindOptions {
    pub(crate) durability: Durability,
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
    pub(crate) overload: Overload,
    /// `None`: as the tier's other calls.
    pub(crate) batch_keys: Option<usize>,
    pub(crate) batch_bytes: usize,
    pub(crate) max_delay: Duration,
    pub(crate) attempt_deadline: Option<Duration>,
    pub(crate) retry: Retry,
    pub(crate) sink: Arc<dyn DeadLetterSink>,
}

impl WriteBehind {
    fn new(durability: Durability) -> Self {
        Self {
            options: WriteBehindOptions {
                durability,
                entries: 100_000,
                bytes: 64 << 20,
                overload: Overload::Block(Duration::from_millis(500)),
                batch_keys: None,
                batch_bytes: 1 << 20,
                max_delay: Duration::from_millis(100),
                attempt_deadline: None,
                retry: Retry::default(),
                sink: Arc::new(LogLetters),
            },
        }
    }

    /// Queued writes are kept in memory: a process that crashes loses them.
    pub fn memory() -> Self {
        Self::new(Durability::Memory)
    }

    /// Queued writes are kept in memory and in a journal in `dir`, from which they are taken up again after a crash.
    /// The directory belongs to this tier of this cache alone. Needs the feature `disk`.
    ///
    /// A journal that cannot be written (a full disk) makes writes wait, or fail where the queue's overload policy is
    /// [`Overload::Reject`]; what is queued stays in memory and is applied all the same.
    #[cfg(feature = "disk")]
    pub fn journal(dir: impl Into<PathBuf>, sync: JournalSync) -> Self {
        Self::new(Durability::Journal { place: Place::Directory(dir.into()), sync })
    }

    /// As [`journal`](Self::journal), in a log that a simulation can let crash.
    #[cfg(all(feature = "disk", feature = "testing"))]
    pub fn simulated(log: super::journal::SimulatedLog, sync: JournalSync) -> Self {
        Self::new(Durability::Journal { place: Place::Simulated(log), sync })
    }

    /// Sets how many keys may be queued. Default: 100,000.
    #[must_use]
    pub fn entries(mut self, entries: usize) -> Self {
        self.options.entries = entries;
        self
    }

    /// Sets how many bytes of values (lengths of frames, or stated weights of decoded values) may be queued.
    /// Dead letters that wait for their sink may weigh as much again, and so may those that it did not take.
    /// Default: 64 MiB.
    #[must_use]
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.options.bytes = bytes;
        self
    }

    /// Sets what becomes of a write that finds the queue full. Default: [`Overload::Block`] for 500 ms.
    #[must_use]
    pub fn overload(mut self, policy: Overload) -> Self {
        self.options.overload = policy;
        self
    }

    /// Sets how many keys are written in one call, at most. That many do not go before their delay is over. Default: the
    /// tier's [`batch_keys`](crate::TierOptions::batch_keys) (128; Redis 512).
    #[must_use]
    pub fn batch_keys(mut self, keys: usize) -> Self {
        self.options.batch_keys = Some(keys);
        self
    }

    /// Sets how many bytes are written in one call, at most, unless one value alone is larger. Default: 1 MiB.
    #[must_use]
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.options.batch_bytes = bytes;
        self
    }

    /// Sets how long a write waits for others to go with it, and for newer ones of its key to take its place. It waits
    /// for less when what waits takes more than half of the queue, when the queue is full, at a flush and at the
    /// shutdown. Zero: it is sent as soon as a call is free. Default: 100 ms.
    #[must_use]
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.options.max_delay = delay;
        self
    }

    /// Sets how long one try may take. Default: the tier's
    /// [`write_deadline`](crate::TierOptions::write_deadline).
    #[must_use]
    pub fn attempt_deadline(mut self, deadline: Duration) -> Self {
        self.options.attempt_deadline = Some(deadline);
        self
    }

    /// Sets how failed writes are tried again. Default: see [`Retry`].
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.options.retry = retry;
        self
    }

    /// Sets where writes go that could not be applied. Default: [`LogLetters`].
    #[must_use]
    pub fn dead_letters(mut self, sink: impl DeadLetterSink) -> Self {
        self.options.sink = Arc::new(sink);
        self
    }
}

impl WriteBehindOptions {
    pub(crate) fn is_journaled(&self) -> bool {
        self.durability != Durability::Memory
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let interval = match &self.durability {
            #[cfg(feature = "disk")]
            Durability::Journal { sync: JournalSync::Interval(every), .. } => every.is_zero(),
            _ => false,
        };
        let zero = [
            ("entries", self.entries == 0),
            ("bytes", self.bytes == 0),
            ("batch_keys", self.batch_keys == Some(0)),
            ("batch_bytes", self.batch_bytes == 0),
            ("attempt_deadline", self.attempt_deadline.is_some_and(|deadline| deadline.is_zero())),
            ("retry.first", self.retry.first.is_zero()),
            ("retry.attempts", self.retry.attempts == 0),
            ("retry.age", self.retry.age.is_some_and(|age| age.is_zero())),
            ("overload: Block", self.overload == Overload::Block(Duration::ZERO)),
            ("sync: Interval", interval),
        ];
        if let Some((name, _)) = zero.iter().find(|(_, zero)| *zero) {
            let message = format!("write-behind: `{name}` is zero; it must be at least 1");
            return Err(Error::new(ErrorKind::Config, message));
        }
        if self.retry.longest < self.retry.first {
            let message = "write-behind: `retry.longest` is shorter than `retry.first`";
            return Err(Error::new(ErrorKind::Config, message));
        }
        Ok(())
    }
}

impl fmt::Debug for WriteBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.options.fmt(f)
    }
}

impl fmt::Debug for WriteBehindOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteBehind")
            .field("durability", &self.durability)
            .field("entries", &self.entries)
            .field("bytes", &self.bytes)
            .field("overload", &self.overload)
            .field("batch_keys", &self.batch_keys)
            .field("batch_bytes", &self.batch_bytes)
            .field("max_delay", &self.max_delay)
            .field("attempt_deadline", &self.attempt_deadline)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}
