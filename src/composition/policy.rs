//! Policies: which tiers are asked, whose confirmation is awaited, and what is refilled.
//!
//! A policy never decides whether a key is settled: a tier that is not waited for quarantines the key until it
//! confirms. They work over any number of tiers; tier 1 is the topmost.

use std::fmt;
use std::sync::Arc;

use crate::key::CacheKey;
use crate::value::{BackendLabel, Meta};

/// In which order tiers are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReadPolicy {
    /// From the top down, until one has the key. The default.
    #[default]
    Sequential,
    /// All at once; the first hit wins.
    Race,
    /// All at once, and all are awaited; the newest stamp wins, and among equals the later expiry ("never" is last).
    Parallel,
}

/// Whose confirmation makes a `set` succeed. A `remove` is sent to all tiers at once and goes by the same word: every
/// tier's (`Sequential`, `require_all`), the lowest tier's (`WriteAround`), or any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WritePolicy {
    /// One tier after another from the top; the first failure is the result, and the tiers below it drop the key.
    Sequential,
    /// All at once. Succeeds when at least one tier confirmed, or, with `require_all`, when every one did.
    OptimisticParallel {
        /// Whether every tier has to confirm.
        require_all: bool,
    },
    /// All at once; returns at the first confirmation. In the others the key is in quarantine until they confirm.
    Race,
    /// Only the lowest tier stores the value; those above drop the key and are refilled by reads.
    WriteAround,
}

impl Default for WritePolicy {
    fn default() -> Self {
        Self::OptimisticParallel { require_all: false }
    }
}

/// Whether a hit in a lower tier is written to those above that missed.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum RefillPolicy {
    /// Always. The default.
    #[default]
    Always,
    /// Never.
    Never,
    /// If the predicate says so.
    When(Arc<dyn Fn(&RefillContext<'_>) -> bool + Send + Sync>),
}

impl RefillPolicy {
    /// Refills what `predicate` accepts. It runs on every hit below the top tier: keep it short. A panic in it counts
    /// as "no".
    pub fn when(predicate: impl Fn(&RefillContext<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self::When(Arc::new(predicate))
    }
}

impl fmt::Debug for RefillPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Always => "Always",
            Self::Never => "Never",
            Self::When(_) => "When(..)",
        })
    }
}

/// The policies of a composition, to be set together or shared between compositions.
///
/// ```
/// use tierkeep::composition::{CompositionPolicy, ReadPolicy, RefillPolicy};
///
/// let policy = CompositionPolicy::new().read(ReadPolicy::Race).refill(RefillPolicy::Never);
/// assert_eq!(policy.read_policy(), ReadPolicy::Race);
/// ```
#[derive(Debug, Clone, Default)]
pub struct CompositionPolicy {
    pub(crate) read: ReadPolicy,
    pub(crate) write: WritePolicy,
    pub(crate) refill: RefillPolicy,
}

impl CompositionPolicy {
    /// The defaults: sequential reads, optimistic-parallel writes, every hit refilled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the read policy.
    #[must_use]
    pub fn read(mut self, policy: ReadPolicy) -> Self {
        self.read = policy;
        self
    }

    /// Sets the write policy.
    #[must_use]
    pub fn write(mut self, policy: WritePolicy) -> Self {
        self.write = policy;
        self
    }

    /// Sets the refill policy.
    #[must_use]
    pub fn refill(mut self, policy: RefillPolicy) -> Self {
        self.refill = policy;
        self
    }

    /// The read policy.
    pub fn read_policy(&self) -> ReadPolicy {
        self.read
    }

    /// The write policy.
    pub fn write_policy(&self) -> WritePolicy {
        self.write
    }

    /// The refill policy.
    pub fn refill_policy(&self) -> &RefillPolicy {
        &self.refill
    }
}

/// What a refill predicate decides about.
#[derive(Debug)]
#[non_exhaustive]
pub struct RefillContext<'a> {
    /// The key that was read.
    pub key: &'a CacheKey,
    /// The tier that had it.
    pub from: &'a BackendLabel,
    /// When it was written and how long it lives.
    pub meta: &'a Meta,
}
