//! How a cache is put together: tiers, policies and limits, checked before anything starts.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Cache, config};
use crate::codec::CodecOptions;
use crate::composition::{
    Compose, Composition, Engine, EngineOptions, ReadPolicy, RefillPolicy, WritePolicy,
};
use crate::error::Result;
use crate::runtime::RuntimeHandle;

/// How long tiers above a shared one keep an entry that another process may have replaced, unless they say otherwise.
const SHARED_CAP: Duration = Duration::from_secs(30);

/// The same where other processes tell what they write.
#[cfg(feature = "backplane")]
const TOLD_CAP: Duration = Duration::from_secs(300);

/// Builds a [`Cache`].
#[derive(Debug)]
pub struct CacheBuilder {
    pub(super) runtime: RuntimeHandle,
    pub(super) composition: Composition,
    pub(super) options: EngineOptions,
}

impl CacheBuilder {
    /// Adds a tier below those added before. Takes a backend, a [`Tier`](crate::Tier), or a [`Composition`], which is
    /// flattened (its policies count only if it is the first).
    #[must_use]
    pub fn tier(mut self, tier: impl Into<Composition>) -> Self {
        let tier = tier.into();
        self.composition =
            if self.composition.tiers.is_empty() { self.adopt(tier) } else { self.composition.over(tier) };
        self
    }

    /// Has the cache tell other processes what it writes to the shared tier, and hear what they write: see
    /// [`backplane`](crate::backplane). Tiers above a shared one then keep entries for 5 min, unless they say otherwise.
    #[cfg(feature = "backplane")]
    #[must_use]
    pub fn backplane(mut self, transport: impl crate::backplane::Backplane) -> Self {
        self.options.backplane.transport = Some(Arc::new(transport));
        self
    }

    /// Sets how the [backplane](Self::backplane) is used. Default: see
    /// [`BackplaneOptions`](crate::backplane::BackplaneOptions).
    #[cfg(feature = "backplane")]
    #[must_use]
    pub fn backplane_options(mut self, options: crate::backplane::BackplaneOptions) -> Self {
        self.options.backplane.options = options;
        self
    }

    /// How long unshared tiers above a shared one keep an entry, and how long while the backplane is away.
    fn shared_caps(&self) -> (Duration, Option<Duration>) {
        #[cfg(feature = "backplane")]
        if self.options.backplane.transport.is_some() {
            return (TOLD_CAP, Some(self.options.backplane.options.fallback_cap));
        }
        (SHARED_CAP, None)
    }

    fn adopt(&self, first: Composition) -> Composition {
        let (own, mut policy) = (&self.composition.policy, first.policy);
        // What was set on the builder holds over what the composition brought.
        if own.read != ReadPolicy::default() {
            policy.read = own.read;
        }
        if own.write != WritePolicy::default() {
            policy.write = own.write;
        }
        if !matches!(own.refill, RefillPolicy::Always) {
            policy.refill = own.refill.clone();
        }
        Composition { tiers: first.tiers, policy }
    }

    /// Sets the read policy. Default: [`ReadPolicy::Sequential`].
    #[must_use]
    pub fn read_policy(mut self, policy: ReadPolicy) -> Self {
        self.composition.policy.read = policy;
        self
    }

    /// Sets the write policy. Default: [`WritePolicy::OptimisticParallel`], satisfied by one tier.
    #[must_use]
    pub fn write_policy(mut self, policy: WritePolicy) -> Self {
        self.composition.policy.write = policy;
        self
    }

    /// Sets the refill policy. Default: [`RefillPolicy::Always`].
    #[must_use]
    pub fn refill_policy(mut self, policy: RefillPolicy) -> Self {
        self.composition.policy.refill = policy;
        self
    }

    /// Sets limits of the codec, and makes formats and compressors of your own known.
    #[must_use]
    pub fn codec(mut self, options: CodecOptions) -> Self {
        self.options.codec = options;
        self
    }

    /// Sets how many refills may wait; more are dropped and counted. Default: 1,024.
    #[must_use]
    pub fn refill_lane(mut self, refills: usize) -> Self {
        self.options.refill_lane = refills;
        self
    }

    /// Sets how many stripes tell mutations of different keys apart; two keys of one stripe cost each other a refill
    /// now and then. 8 bytes each. Default: 4,096.
    #[must_use]
    pub fn fence_stripes(mut self, stripes: usize) -> Self {
        self.options.stripes = stripes;
        self
    }

    /// Names the cache in its metrics (label `cache`) and in [`inspect`](Cache::inspect), to tell several caches of a
    /// process apart. Default: `cache`.
    #[must_use]
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.options.name = name.into();
        self
    }

    /// Samples which keys are read most, for [`Cache::hot_keys`]. Costs a read a thread-local counter (about a
    /// nanosecond), one read in 64 some hundred nanoseconds and a lock, and the memory of 1,024 keys. Default: off.
    #[must_use]
    pub fn hot_keys(mut self, on: bool) -> Self {
        self.options.hot_keys = on;
        self
    }

    /// Starts the cache. Tiers that do not come up are misses until they do, unless they are
    /// [`required`](crate::Tier::required).
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) naming what cannot work: no tiers, two tiers of one label, a zero where there must be
    /// something, a format or compressor that could not be read back. [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if a required tier
    /// does not come up.
    pub async fn build(mut self) -> Result<Cache> {
        let (cap, fallback) = self.shared_caps();
        self.composition.cap_above_shared(cap, fallback);
        let composition = &self.composition;
        if composition.tiers.is_empty() {
            return Err(config("a cache needs at least one tier; add one with `.tier(…)`"));
        }
        if let Some(top) = composition.tiers.first().filter(|tier| tier.write_behind.is_some()) {
            let message = "the topmost tier cannot write behind: nothing above it has the value meanwhile; put a \
                           memory tier above it";
            return Err(config(message).at_tier(&top.label));
        }
        let mut labels = HashSet::new();
        for tier in &composition.tiers {
            tier.validate(&self.runtime)?;
            if !labels.insert(tier.label.as_str()) {
                let message = format!("two tiers are labelled `{}`; name one with `Tier::label`", tier.label);
                return Err(config(message));
            }
            self.options.codec = self.options.codec.backend(&tier.backend);
        }
        if self.options.refill_lane == 0 || self.options.stripes == 0 {
            return Err(config("`refill_lane` and `fence_stripes` must be at least 1"));
        }
        let engine = Engine::start(self.runtime, self.composition, self.options).await?;
        Ok(Cache::on(engine))
    }
}
