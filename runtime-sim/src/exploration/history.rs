//! The oracle: what may be read of a key, given what was written to it and when (as CacheLib's value history).

use std::collections::BTreeMap;
use std::fmt;

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
            Self::Stall { what } => write!(f, "stall: {what}"),
        }
    }
}

/// A point in the order of everything that callers saw begin and end.
pub(super) type Tick = u64;

/// A mutation's place in the history of its key.
pub(super) type Entry = usize;

#[derive(Debug, Default)]
pub(super) struct History {
    tick: Tick,
    keys: BTreeMap<u64, Vec<Mutation>>,
}

#[derive(Debug)]
struct Mutation {
    began: Tick,
    /// When it returned; only then does it replace what came before.
    completed: Option<Tick>,
    /// When it returned or its caller gave it up: what begins later is newer than it.
    left: Option<Tick>,
    value: Option<u64>,
    /// Wall ms from which on its value is expired, at the latest.
    dead_from: Option<u64>,
}

impl History {
    pub(super) fn tick(&mut self) -> Tick {
        self.tick += 1;
        self.tick
    }

    /// A mutation begins; `None`: a removal.
    pub(super) fn begin(&mut self, key: u64, value: Option<u64>) -> Entry {
        let began = self.tick();
        let mutations = self.keys.entry(key).or_default();
        mutations.push(Mutation { began, completed: None, left: None, value, dead_from: None });
        mutations.len() - 1
    }

    /// It returned, in success or failure.
    pub(super) fn complete(&mut self, key: u64, entry: Entry) {
        let now = self.tick();
        let mutation = self.mutation(key, entry);
        mutation.completed = Some(now);
        mutation.left = Some(now);
    }

    /// Its caller gave it up: whether it was done is unknown.
    pub(super) fn abandon(&mut self, key: u64, entry: Entry) {
        let now = self.tick();
        self.mutation(key, entry).left = Some(now);
    }

    /// Its value is expired from `wall` on, at the latest.
    pub(super) fn expires(&mut self, key: u64, entry: Entry, wall: u64) {
        self.mutation(key, entry).dead_from = Some(wall);
    }

    fn mutation(&mut self, key: u64, entry: Entry) -> &mut Mutation {
        &mut self.keys.entry(key).or_default()[entry]
    }

    /// Checks a value that a read of `key` gave, which began at `began` and at `wall` (if the wall clock is steady).
    pub(super) fn check(
        &self,
        key: u64,
        value: u64,
        began: Tick,
        wall: Option<u64>,
    ) -> Result<(), Violation> {
        let mutations = self.keys.get(&key).map(Vec::as_slice).unwrap_or_default();
        let Some(written) = mutations.iter().find(|mutation| mutation.value == Some(value)) else {
            return Err(Violation::Unknown { what: format!("key {key}: value {value}") });
        };
        let replaced = written.left.and_then(|left| {
            mutations
                .iter()
                .find(|newer| newer.began > left && newer.completed.is_some_and(|end| end < began))
        });
        if let Some(newer) = replaced {
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
        if let (Some(dead_from), Some(wall)) = (written.dead_from, wall)
            && wall >= dead_from
        {
            let what = format!("key {key}: value {value} was dead from {dead_from}, read from {wall} on");
            return Err(Violation::Expired { what });
        }
        Ok(())
    }
}
