//! Composing tiers into one cache: `memory.compose(redis, runtime)`, or `memory.over(disk).over(redis)`.

use std::fmt;
use std::future::IntoFuture;
use std::time::Duration;

use super::backend::CompositionBackend;
use super::policy::{CompositionPolicy, ReadPolicy, RefillPolicy, WritePolicy};
use crate::cache::Cache;
use crate::codec::CodecOptions;
use crate::error::Result;
use crate::runtime::{BoxFuture, RuntimeHandle};
use crate::tier::Tier;

/// Tiers in order, the fastest first, and the policies over them: what [`CacheBuilder::tier`] takes.
///
/// Composing compositions flattens them: there is one route over all tiers, and the policies of the one that is
/// composed last (the outermost) hold.
///
/// ```
/// use tierkeep::{Compose, backend::MemoryBackend, composition::ReadPolicy};
///
/// let hot = MemoryBackend::entries(100).label("hot");
/// let warm = MemoryBackend::entries(10_000).label("warm");
/// let composition = hot.over(warm).read(ReadPolicy::Race);
/// assert_eq!(composition.tiers().len(), 2);
/// ```
///
/// [`CacheBuilder::tier`]: crate::CacheBuilder::tier
#[derive(Debug, Clone, Default)]
pub struct Composition {
    pub(crate) tiers: Vec<Tier>,
    pub(crate) policy: CompositionPolicy,
}

impl Composition {
    /// The tiers, topmost first.
    pub fn tiers(&self) -> &[Tier] {
        &self.tiers
    }

    /// The policies.
    pub fn policy(&self) -> &CompositionPolicy {
        &self.policy
    }

    /// Caps the life of entries in the tiers above one that other processes write, where the application has not.
    /// `fallback`: the cap while no backplane tells of their writes, if there is one.
    pub(crate) fn cap_above_shared(&mut self, cap: Duration, fallback: Option<Duration>) {
        let shared = self.tiers.iter().rposition(|tier| tier.backend.shared()).unwrap_or(0);
        for tier in self.tiers[..shared].iter_mut().filter(|tier| !tier.backend.shared()) {
            if tier.options.ttl_cap.is_none() {
                tier.options.ttl_cap = Some(cap);
                tier.fallback_cap = fallback;
            }
        }
    }

    /// Sets all policies.
    #[must_use]
    pub fn with_policy(mut self, policy: CompositionPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the read policy. Default: [`ReadPolicy::Sequential`].
    #[must_use]
    pub fn read(mut self, policy: ReadPolicy) -> Self {
        self.policy.read = policy;
        self
    }

    /// Sets the write policy. Default: [`WritePolicy::OptimisticParallel`], satisfied by one tier.
    #[must_use]
    pub fn write(mut self, policy: WritePolicy) -> Self {
        self.policy.write = policy;
        self
    }

    /// Sets the refill policy. Default: [`RefillPolicy::Always`].
    #[must_use]
    pub fn refill(mut self, policy: RefillPolicy) -> Self {
        self.policy.refill = policy;
        self
    }
}

impl<T: Into<Tier>> From<T> for Composition {
    fn from(tier: T) -> Self {
        Self { tiers: vec![tier.into()], ..Self::default() }
    }
}

impl From<CompositionBuilder> for Composition {
    /// Its runtime is the outermost's.
    fn from(builder: CompositionBuilder) -> Self {
        builder.composition
    }
}

/// Puts one tier or composition above another. Every [`Backend`](crate::Backend) can.
pub trait Compose: Into<Composition> {
    /// `self` above `lower`, to be started on `runtime` by awaiting it. Keeps `self`'s policies.
    ///
    /// Nested calls build one flat route, however they are nested; the outermost runtime and policies hold.
    ///
    /// ```
    /// use tierkeep::{CacheKey, CacheValue, Compose, MemoryBackend};
    /// # use tierkeep_smol::SmolRuntime;
    /// # fn main() -> tierkeep::Result<()> {
    /// # smol::block_on(async {
    /// # let runtime = SmolRuntime::new();
    /// # let [l1, l2, l3] = ["l1", "l2", "l3"].map(|label| MemoryBackend::entries(100).label(label));
    ///
    /// let cache = l1.compose(l2.compose(l3, runtime.clone()), runtime).await?;
    ///
    /// let key = CacheKey::new("user", 1, []);
    /// cache.set::<String>(&key, CacheValue::new("Ada".to_owned(), None, None)).await?;
    /// assert_eq!(cache.get::<String>(&key).await?.unwrap().data().as_str(), "Ada");
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    fn compose(self, lower: impl Into<Composition>, runtime: impl Into<RuntimeHandle>) -> CompositionBuilder {
        let (composition, codec) = (self.over(lower), CodecOptions::default());
        CompositionBuilder { composition, runtime: runtime.into(), codec }
    }

    /// As [`compose`](Self::compose), under `policy`.
    fn compose_with(
        self,
        lower: impl Into<Composition>,
        runtime: impl Into<RuntimeHandle>,
        policy: CompositionPolicy,
    ) -> CompositionBuilder {
        self.compose(lower, runtime).with_policy(policy)
    }

    /// `self` above `lower`, as tiers for a [`CacheBuilder`](crate::CacheBuilder). Keeps `self`'s policies.
    fn over(self, lower: impl Into<Composition>) -> Composition {
        let mut composition = self.into();
        composition.tiers.extend(lower.into().tiers);
        composition
    }
}

impl<T: Into<Composition>> Compose for T {}

/// A composition and the runtime it is to run on. Awaiting it starts the tiers and gives the running
/// [`CompositionBackend`].
///
/// # Errors
/// When awaited, as [`CacheBuilder::build`](crate::CacheBuilder::build).
#[must_use = "a composition does nothing until it is awaited"]
pub struct CompositionBuilder {
    composition: Composition,
    runtime: RuntimeHandle,
    codec: CodecOptions,
}

impl CompositionBuilder {
    /// Sets all policies.
    pub fn with_policy(mut self, policy: CompositionPolicy) -> Self {
        self.composition.policy = policy;
        self
    }

    /// Sets the read policy. Default: [`ReadPolicy::Sequential`].
    pub fn read(mut self, policy: ReadPolicy) -> Self {
        self.composition = self.composition.read(policy);
        self
    }

    /// Sets the write policy. Default: [`WritePolicy::OptimisticParallel`], satisfied by one tier.
    pub fn write(mut self, policy: WritePolicy) -> Self {
        self.composition = self.composition.write(policy);
        self
    }

    /// Sets the refill policy. Default: [`RefillPolicy::Always`].
    pub fn refill(mut self, policy: RefillPolicy) -> Self {
        self.composition = self.composition.refill(policy);
        self
    }

    /// Sets limits of the codec, and makes formats and compressors of your own known.
    pub fn codec(mut self, options: CodecOptions) -> Self {
        self.codec = options;
        self
    }

    /// The tiers, topmost first.
    pub fn tiers(&self) -> &[Tier] {
        self.composition.tiers()
    }

    /// The policies.
    pub fn policy(&self) -> &CompositionPolicy {
        self.composition.policy()
    }
}

impl IntoFuture for CompositionBuilder {
    type Output = Result<CompositionBackend>;
    type IntoFuture = BoxFuture<'static, Result<CompositionBackend>>;

    fn into_future(self) -> Self::IntoFuture {
        let builder = Cache::builder(self.runtime).tier(self.composition).codec(self.codec);
        Box::pin(async move { builder.build().await.map(CompositionBackend::new) })
    }
}

impl fmt::Debug for CompositionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompositionBuilder").field("composition", &self.composition).finish_non_exhaustive()
    }
}
