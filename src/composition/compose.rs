//! Composing tiers into one cache: `memory.compose(disk).compose(redis)`.

use super::policy::{ReadPolicy, RefillPolicy, WritePolicy};
use crate::tier::Tier;

/// Tiers in order, the fastest first, and the policies over them.
///
/// Composing compositions flattens them: there is one route over all tiers, and the policies of the one that is
/// composed last (the outermost) hold.
///
/// ```
/// use tierkeep::{Compose, backend::MemoryBackend, composition::ReadPolicy};
///
/// let hot = MemoryBackend::entries(100).label("hot");
/// let warm = MemoryBackend::entries(10_000).label("warm");
/// let composition = hot.compose(warm).read(ReadPolicy::Race);
/// assert_eq!(composition.tiers().len(), 2);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Composition {
    pub(crate) tiers: Vec<Tier>,
    pub(crate) read: ReadPolicy,
    pub(crate) write: WritePolicy,
    pub(crate) refill: RefillPolicy,
}

impl Composition {
    /// The tiers, topmost first.
    pub fn tiers(&self) -> &[Tier] {
        &self.tiers
    }

    /// Sets the read policy. Default: [`ReadPolicy::Sequential`].
    #[must_use]
    pub fn read(mut self, policy: ReadPolicy) -> Self {
        self.read = policy;
        self
    }

    /// Sets the write policy. Default: [`WritePolicy::OptimisticParallel`], satisfied by one tier.
    #[must_use]
    pub fn write(mut self, policy: WritePolicy) -> Self {
        self.write = policy;
        self
    }

    /// Sets the refill policy. Default: [`RefillPolicy::Always`].
    #[must_use]
    pub fn refill(mut self, policy: RefillPolicy) -> Self {
        self.refill = policy;
        self
    }
}

impl<T: Into<Tier>> From<T> for Composition {
    fn from(tier: T) -> Self {
        Self { tiers: vec![tier.into()], ..Self::default() }
    }
}

/// Puts one tier or composition above another.
pub trait Compose: Into<Composition> {
    /// `self` above `lower`. Keeps `self`'s policies.
    fn compose(self, lower: impl Into<Composition>) -> Composition {
        let mut composition = self.into();
        composition.tiers.extend(lower.into().tiers);
        composition
    }
}

impl<T: Into<Composition>> Compose for T {}
