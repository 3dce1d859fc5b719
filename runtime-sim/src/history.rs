//! The oracle: what may be read of a key, given what was written to it and when (as CacheLib's value history).
//!
//! Two rules. A value is gone once a mutation that began after it was written has completed. And of mutations that
//! overlapped, the first read after them tells which one won: no other read after them may say otherwise.
//!
//! It is sound on one thread and on many, if each call is told around: a mutation is begun before the cache is called
//! and completed after it has returned, a read is begun before. One lock gives all of them one order, in which what a
//! caller saw end comes before what it sees begin. An application can hold its own cache against it:
//!
//! ```
//! use tierkeep::{Cache, MemoryBackend};
//! use tierkeep_sim::Sim;
//! use tierkeep_sim::history::History;
//!
//! let sim = Sim::new(1);
//! let runtime = sim.runtime();
//! let done = sim.block_on(async move {
//!     let cache = Cache::builder(runtime).tier(MemoryBackend::entries(10)).build().await?;
//!     let numbers = cache.region::<u64, u64>("number").no_expiry().build()?;
//!     let history = History::new();
//!
//!     let change = history.begin(7, Some(1000)); // key 7 is to hold value 1000
//!     numbers.set(&7, 1000).await?;
//!     change.complete();
//!
//!     let read = history.read();
//!     if let Some(hit) = numbers.get(&7).await {
//!         history.check(7, *hit, read).unwrap();
//!     }
//!
//!     history.begin(7, None).complete(); // as if it had been removed: the cache does not know
//!     let read = history.read();
//!     let stale = numbers.get(&7).await.expect("the cache still has it");
//!     assert!(history.check(7, *stale, read).is_err());
//!     Ok::<_, tierkeep::Error>(())
//! });
//! assert!(matches!(done, Ok(Ok(()))));
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tierkeep::Timestamp;

/// Something that must not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A read gave a value that a completed mutation had replaced before the read began.
    Superseded {
        /// Which key, which value, replaced by what; in words.
        what: String,
    },
    /// A read gave a value that nobody ever wrote under the key.
    Unknown {
        /// Which key and value.
        what: String,
    },
    /// A read gave a value past its expiry.
    Expired {
        /// Which key and value.
        what: String,
    },
    /// A call took longer than its deadlines allow.
    Late {
        /// Which call, how long.
        what: String,
    },
    /// At rest, two tiers hold different values of a key, or one that is not the newest.
    Disagree {
        /// Which key and tiers.
        what: String,
    },
    /// At rest, something is still under way.
    Restless {
        /// What.
        what: String,
    },
    /// An accepted write is neither applied nor superseded, dead or queued; or a store was written out of order.
    Unaccounted {
        /// Which tier, with its counts.
        what: String,
    },
    /// A call panicked, though nothing of its caller's did.
    Panic {
        /// Which call, with which message.
        what: String,
    },
    /// Nothing could go on, or everything went on for ever.
    Stall {
        /// The simulator's report.
        what: String,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superseded { what } => write!(f, "superseded value read: {what}"),
            Self::Unknown { what } => write!(f, "unknown value read: {what}"),
            Self::Expired { what } => write!(f, "expired value read: {what}"),
            Self::Late { what } => write!(f, "late: {what}"),
            Self::Disagree { what } => write!(f, "tiers disagree: {what}"),
            Self::Restless { what } => write!(f, "not at rest: {what}"),
            Self::Unaccounted { what } => write!(f, "unaccounted: {what}"),
            Self::Panic { what } => write!(f, "panic: {what}"),
            Self::Stall { what } => write!(f, "stall: {what}"),
        }
    }
}

/// A point in the order of everything that callers saw begin and end.
type Tick = u64;

/// A mutation's place in the history of its key.
type Entry = usize;

/// What was written to each key, and when. Keys and values are numbers: number yours, and never write one value twice
/// to a key. A check costs time in proportion to the key's mutations: keep a history for some hundreds of them per
/// key, then start another one with other keys.
#[derive(Debug, Default)]
pub struct History(Mutex<Records>);

/// A mutation under way. Dropped, it was given up by its caller: whether it was done is unknown.
#[derive(Debug)]
#[must_use = "dropping it says that the mutation was given up"]
pub struct Change<'h> {
    history: &'h History,
    key: u64,
    entry: Entry,
}

/// A read under way.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    began: Tick,
    wall: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Records {
    tick: Tick,
    keys: BTreeMap<u64, Vec<Mutation>>,
    /// Of a key, which mutation was read (first) though the other had completed before: the first is the newer one.
    newer: BTreeSet<(u64, Entry, Entry)>,
}

#[derive(Debug)]
struct Mutation {
    began: Tick,
    /// When it returned; only then does it replace what came before.
    completed: Option<Tick>,
    /// When it returned or its caller gave it up: what begins later is newer than it.
    left: Option<Tick>,
    value: Option<u64>,
    /// From when on its value is expired, at the latest.
    dead_from: Option<Timestamp>,
}

impl History {
    /// A history in which nothing was ever written.
    pub fn new() -> Self {
        Self::default()
    }

    /// A mutation of `key` is about to be called; `None`: a removal, or a clear that covers it.
    pub fn begin(&self, key: u64, value: Option<u64>) -> Change<'_> {
        let mut records = self.lock();
        let began = records.tick();
        let mutations = records.keys.entry(key).or_default();
        mutations.push(Mutation { began, completed: None, left: None, value, dead_from: None });
        Change { history: self, key, entry: mutations.len() - 1 }
    }

    /// A read is about to be called.
    pub fn read(&self) -> Read {
        Read { began: self.lock().tick(), wall: None }
    }

    /// As [`read`](Self::read), which must also not give what was expired at `wall`.
    pub fn read_at(&self, wall: Timestamp) -> Read {
        Read { wall: Some(wall), ..self.read() }
    }

    /// Checks a value that a read of `key` gave.
    ///
    /// # Errors
    /// What is wrong: [`Superseded`](Violation::Superseded), [`Unknown`](Violation::Unknown) or
    /// [`Expired`](Violation::Expired).
    pub fn check(&self, key: u64, value: u64, read: Read) -> Result<(), Violation> {
        self.lock().check(key, value, read, false)
    }

    /// As [`check`](Self::check), for a key whose mutations count in the order in which they began, as rows of a
    /// database do that are written under one lock with [`begin`](Self::begin) and then loaded.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_row(&self, key: u64, value: u64, read: Read) -> Result<(), Violation> {
        self.lock().check(key, value, read, true)
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Change<'_> {
    /// The call returned, in success or failure.
    pub fn complete(self) {
        self.end(None);
    }

    /// The call returned, and its value is expired from `wall` on, at the latest.
    pub fn complete_until(self, wall: Timestamp) {
        self.end(Some(wall));
    }

    fn end(&self, dead_from: Option<Timestamp>) {
        let mut records = self.history.lock();
        let now = records.tick();
        let mutation = records.mutation(self.key, self.entry);
        mutation.completed = Some(now);
        mutation.left = Some(now);
        mutation.dead_from = dead_from;
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        let mut records = self.history.lock();
        let now = records.tick();
        // No effect on one that completed.
        records.mutation(self.key, self.entry).left.get_or_insert(now);
    }
}

impl Records {
    fn tick(&mut self) -> Tick {
        self.tick += 1;
        self.tick
    }

    fn mutation(&mut self, key: u64, entry: Entry) -> &mut Mutation {
        &mut self.keys.entry(key).or_default()[entry]
    }

    fn check(
        &mut self,
        key: u64,
        value: u64,
        Read { began, wall }: Read,
        in_order: bool,
    ) -> Result<(), Violation> {
        let mutations = self.keys.get(&key).map(Vec::as_slice).unwrap_or_default();
        let Some(read) = mutations.iter().position(|mutation| mutation.value == Some(value)) else {
            return Err(Violation::Unknown { what: format!("key {key}: value {value}") });
        };
        let written = &mutations[read];
        let completed = |mutation: &Mutation| mutation.completed.is_some_and(|end| end < began);
        let left = if in_order { Some(written.began) } else { written.left };
        let replaced =
            left.and_then(|left| mutations.iter().find(|newer| newer.began > left && completed(newer)));
        let lost = (0..mutations.len()).find(|&other| self.newer.contains(&(key, other, read)));
        let lost = lost.map(|winner| &mutations[winner]).filter(|winner| completed(winner));
        if let Some(newer) = replaced.or(lost) {
            let what = format!(
                "key {key}: value {value} (written {}..{}) was replaced by {:?} ({}..{}) before the read began at {began}",
                written.began,
                written.left.unwrap_or(0),
                newer.value,
                newer.began,
                newer.completed.unwrap_or(0),
            );
            return Err(Violation::Superseded { what });
        }
        if completed(written) {
            let settled = (0..mutations.len()).filter(|&other| other != read && completed(&mutations[other]));
            self.newer.extend(settled.map(|other| (key, read, other)));
        }
        let written = &self.keys[&key][read];
        if let (Some(dead_from), Some(wall)) = (written.dead_from, wall)
            && wall >= dead_from
        {
            let (dead_from, wall) = (dead_from.as_millis(), wall.as_millis());
            let what = format!("key {key}: value {value} was dead from {dead_from}, read from {wall} on");
            return Err(Violation::Expired { what });
        }
        Ok(())
    }
}
