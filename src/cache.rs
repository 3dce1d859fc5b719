//! The cache as an application holds it.

use std::any::TypeId;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::Scope;
use crate::codec::{CodecOptions, value_type};
use crate::composition::{
    Compose, Composition, Engine, EngineOptions, ReadPolicy, RefillPolicy, ShutdownReport, WritePolicy,
};
use crate::error::{Error, ErrorKind, Result};
use crate::hit::{Hit, Lookup};
use crate::key::CacheKey;
use crate::observe::Inspection;
use crate::region::{RegionBuilder, Store};
use crate::runtime::RuntimeHandle;
use crate::value::{CacheValue, DeleteStatus};

/// Several tiers as one cache. Cheap to clone; all clones are the same cache.
///
/// Dropping the last clone (regions count) stops the tiers after what they have queued; [`shutdown`](Self::shutdown)
/// also waits, flushes and reports.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<Engine>,
    regions: Mutex<HashMap<Arc<str>, Known>>,
    /// Types written under keys made by hand, and whether the first value of each was found to read back.
    checked: Mutex<HashMap<TypeId, Arc<AtomicBool>>>,
}

/// What a region's name stands for.
#[derive(Clone)]
struct Known {
    value: TypeId,
    value_name: &'static str,
    key_name: &'static str,
    checked: Arc<AtomicBool>,
}

/// Builds a [`Cache`].
#[derive(Debug)]
pub struct CacheBuilder {
    runtime: RuntimeHandle,
    composition: Composition,
    options: EngineOptions,
}

impl Cache {
    /// Starts a cache on `runtime`: add tiers from the fastest to the slowest, then [`build`](CacheBuilder::build).
    pub fn builder(runtime: impl Into<RuntimeHandle>) -> CacheBuilder {
        CacheBuilder {
            runtime: runtime.into(),
            composition: Composition::default(),
            options: EngineOptions { codec: CodecOptions::default(), stripes: 4096, refill_lane: 1024 },
        }
    }

    /// Opens the region `name`: the entries of one value type, under one kind of key.
    pub fn region<T, K: ?Sized>(&self, name: &str) -> RegionBuilder<T, K>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        RegionBuilder::new(self.clone(), name)
    }

    /// Reads an entry under a key made by hand. `None`: no tier has it, fresh, as a `T`.
    pub async fn get<T>(&self, key: &CacheKey) -> Option<Hit<T>>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        self.store::<T>().get(key).await
    }

    /// As [`get`](Self::get), naming the tiers that could not answer.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] after shutdown, and the failure of a tier whose
    /// [`ErrorPolicy`](crate::ErrorPolicy) is `Fail`.
    pub async fn try_get<T>(&self, key: &CacheKey) -> Result<Lookup<T>>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        self.store::<T>().try_get(key).await
    }

    /// Stores an entry under a key made by hand, for `ttl` (`None`: until it is removed or evicted).
    ///
    /// # Errors
    /// As [`Region::set`](crate::Region::set).
    pub async fn set<T>(&self, key: &CacheKey, value: T, ttl: Option<Duration>) -> Result<()>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        self.checking_store::<T>().set(key, Arc::new(value), ttl).await
    }

    /// Stores an entry with the stamps it comes with.
    pub(crate) async fn set_value<T>(&self, key: &CacheKey, value: CacheValue<Arc<T>>) -> Result<()>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        self.checking_store::<T>().set_value(key, value).await
    }

    /// Removes an entry from every tier, and says how many of them had it.
    ///
    /// # Errors
    /// As [`Region::remove`](crate::Region::remove).
    pub async fn remove(&self, key: &CacheKey) -> Result<DeleteStatus> {
        self.inner.engine.remove(key).await
    }

    /// Removes every entry of every region. When it returns, no read gives a value written before.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] after shutdown; otherwise the first failure of a tier to record it. Even then nothing
    /// cleared is read again through this cache; the tier is told again until it has recorded the clear, but a
    /// process that ends before may leave entries behind in a store that outlives it.
    pub async fn clear(&self) -> Result<()> {
        self.inner.engine.clear(Scope::All).await
    }

    /// How every part of the cache stands.
    pub fn inspect(&self) -> Inspection {
        Inspection::of(&self.inner.engine)
    }

    /// Ends the cache: refuses new calls, drops refills, lets the tiers finish what is queued within `deadline`,
    /// flushes them, stops them and reports. Afterwards reads miss and mutations fail with [`ErrorKind::Closed`].
    /// Ten seconds is a sensible deadline. Dropped early, the cache is closed but not everything may be flushed.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        self.inner.engine.shutdown(deadline).await
    }

    /// Reads an entry from one tier alone, as a read of the cache would see it there: for tests.
    ///
    /// # Errors
    /// Why the tier could not say.
    #[cfg(feature = "testing")]
    pub async fn get_from<T>(&self, tier: &str, key: &CacheKey) -> Result<Option<Hit<T>>>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let store = self.store::<T>();
        let found = self.inner.engine.read_from(tier, key, &store.ty).await?;
        Ok(found.and_then(|found| store.hit(found)))
    }

    /// Crashes the actor of a tier, as a bug in it would: for tests.
    #[cfg(feature = "testing")]
    pub fn crash_tier(&self, label: &str) {
        use crate::runtime::Envelope;
        for tier in &self.inner.engine.route.load().tiers {
            if tier.core.label.as_str() == label {
                // A tier that is down cannot crash any further.
                let _ = tier.address.try_send(Envelope::new(crate::tier::Message::Crash));
            }
        }
    }

    /// Crashes the supervisor, as a bug in it would: for tests.
    #[cfg(feature = "testing")]
    pub fn crash_supervisor(&self) {
        use crate::runtime::Envelope;
        let _ = self.inner.engine.supervisor.try_send(Envelope::new(crate::composition::Report::Crash));
    }

    /// Begins to watch which fences are void in vain: for tests. Slows every read that leaves the topmost tier.
    #[cfg(feature = "testing")]
    pub fn watch_fences(&self) {
        self.inner.engine.order.fences.witness.watch();
    }

    /// How often fences were void since [`watch_fences`](Self::watch_fences), and how often in vain: for tests.
    #[cfg(feature = "testing")]
    pub fn fence_counts(&self) -> crate::FenceCounts {
        self.inner.engine.order.fences.witness.counts()
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.inner.engine
    }

    fn store<T>(&self) -> Store
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        Store { engine: Arc::clone(&self.inner.engine), ty: value_type::<T>(), checked: Arc::default() }
    }

    /// As [`store`](Self::store), remembering which types were found to read back.
    fn checking_store<T>(&self) -> Store
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let mut checked = self.inner.checked.lock().unwrap_or_else(PoisonError::into_inner);
        Store { checked: Arc::clone(checked.entry(TypeId::of::<T>()).or_default()), ..self.store::<T>() }
    }

    /// Registers a region; returns what all openings of it share.
    ///
    /// # Errors
    /// [`ErrorKind::TypeMismatch`] if the name stands for another value or key type.
    pub(crate) fn register<T: 'static, K: ?Sized>(&self, name: &Arc<str>) -> Result<Arc<AtomicBool>> {
        let mut regions = self.inner.regions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = regions.entry(Arc::clone(name)).or_insert_with(|| Known {
            value: TypeId::of::<T>(),
            value_name: std::any::type_name::<T>(),
            key_name: std::any::type_name::<K>(),
            checked: Arc::default(),
        });
        let (value_name, key_name) = (std::any::type_name::<T>(), std::any::type_name::<K>());
        if known.value != TypeId::of::<T>() || known.key_name != key_name {
            return Err(Error::new(
                ErrorKind::TypeMismatch,
                format!(
                    "region `{name}` holds `{}` by `{}` and cannot be opened as `{value_name}` by `{key_name}`; \
                     choose another name",
                    known.value_name, known.key_name,
                ),
            ));
        }
        Ok(Arc::clone(&known.checked))
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = self.inner.engine.route.load();
        let labels: Vec<_> = route.tiers.iter().map(|tier| tier.core.label.as_str()).collect();
        f.debug_struct("Cache").field("tiers", &labels).finish_non_exhaustive()
    }
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

    /// Starts the cache. Tiers that do not come up are misses until they do, unless they are
    /// [`required`](crate::Tier::required).
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming what cannot work: no tiers, two tiers of one label, a zero where there must be
    /// something, a format or compressor that could not be read back. [`ErrorKind::Unavailable`] if a required tier
    /// does not come up.
    pub async fn build(mut self) -> Result<Cache> {
        let composition = &self.composition;
        if composition.tiers.is_empty() {
            return Err(config("a cache needs at least one tier; add one with `.tier(…)`"));
        }
        let mut labels = HashSet::new();
        for tier in &composition.tiers {
            tier.validate()?;
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
        Ok(Cache { inner: Arc::new(Inner { engine, regions: Mutex::default(), checked: Mutex::default() }) })
    }
}

fn config(message: impl Into<Arc<str>>) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// Marks which types a handle is for, without owning any.
pub(crate) type Types<T, K> = PhantomData<(fn() -> T, fn(&K))>;
