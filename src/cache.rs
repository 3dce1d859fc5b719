//! The cache as an application holds it.

mod builder;

pub use builder::CacheBuilder;

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::Scope;
use crate::codec::{ValueType, value_type};
use crate::composition::{Composition, Engine, EngineOptions, ShutdownReport};
use crate::error::{Error, ErrorKind, Result};
use crate::hit::{Hit, Lookup};
use crate::key::{CacheKey, KeyHash};
use crate::observe::{CAPACITY, EventStream, Health, HotKey, Inspection, RegionMeter};
use crate::region::RegionBuilder;
use crate::runtime::RuntimeHandle;
use crate::store::Store;
use crate::value::{CacheValue, DeleteStatus};
use crate::write_behind::{DeadLetter, Redriven};

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
    /// The engine as each type sees it that goes by keys made by hand.
    stores: ArcSwap<HashMap<TypeId, Arc<Store>, KeyHash>>,
    /// Counts what goes by keys made by hand.
    untyped: Arc<RegionMeter>,
}

/// What a region's name stands for.
#[derive(Clone)]
struct Known {
    value: TypeId,
    value_name: &'static str,
    key_name: &'static str,
    shared: Shared,
}

/// What all openings of a region share.
#[derive(Clone)]
pub(crate) struct Shared {
    /// Whether the first value written was found to read back.
    pub(crate) checked: Arc<AtomicBool>,
    pub(crate) meter: Arc<RegionMeter>,
}

impl Cache {
    /// Starts a cache on `runtime`: add tiers from the fastest to the slowest, then [`build`](CacheBuilder::build).
    pub fn builder(runtime: impl Into<RuntimeHandle>) -> CacheBuilder {
        CacheBuilder {
            runtime: runtime.into(),
            composition: Composition::default(),
            options: EngineOptions::default(),
        }
    }

    /// A cache that never holds anything: reads miss, `get_or_load` loads (one load per key at a time), and what is
    /// set or removed succeeds without effect. For switching caching off by configuration, and for tests.
    pub fn disabled(runtime: impl Into<RuntimeHandle>) -> Cache {
        let engine = Engine::assemble(runtime.into(), Composition::default(), EngineOptions::default());
        Self::on(engine.unwrap_or_else(|error| unreachable!("the defaults are valid: {error}")))
    }

    fn on(engine: Arc<Engine>) -> Self {
        let untyped = engine.telling.meter.region("(by key)");
        Self {
            inner: Arc::new(Inner { engine, regions: Mutex::default(), stores: ArcSwap::default(), untyped }),
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
        let (engine, meter) = (&self.inner.engine, &self.inner.untyped);
        match engine.hit_at_once(&key.probe(), meter) {
            Some(hit) => Some(hit),
            None => engine.get_below(key, value_type::<T>, meter).await,
        }
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
        self.store::<T>().set(key, Arc::new(value), ttl).await
    }

    /// Stores an entry with the stamps it comes with.
    pub(crate) async fn set_value<T>(&self, key: &CacheKey, value: CacheValue<Arc<T>>) -> Result<()>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        self.store::<T>().set_value(key, value).await
    }

    /// Removes an entry from every tier, and says how many of them had it.
    ///
    /// # Errors
    /// As [`Region::remove`](crate::Region::remove).
    pub async fn remove(&self, key: &CacheKey) -> Result<DeleteStatus> {
        self.store::<()>().remove(key).await
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

    /// Whether the cache is fit to serve, for a readiness probe: see [`Health`].
    pub fn health(&self) -> Health {
        Health::of(&self.inner.engine)
    }

    /// What happens to the tiers from now on, as a stream that holds the newest 1,024 events that have not been taken.
    /// Any number of listeners; without one, telling costs an atomic load.
    pub fn events(&self) -> EventStream {
        self.events_with(CAPACITY)
    }

    /// As [`events`](Self::events), holding up to `capacity` events (at least 1).
    pub fn events_with(&self, capacity: usize) -> EventStream {
        self.inner.engine.telling.events.subscribe(capacity)
    }

    /// Takes the tier named `label` out of service, or lets it serve again: for operators.
    ///
    /// While it is bypassed, reads of it miss (but for what a write-behind tier has queued, and goes on taking in),
    /// nothing is stored in it, and a mutation is settled there without its
    /// confirmation (so a cache of this tier alone reports [`ErrorKind::Unavailable`]). Before it serves again it is
    /// cleared, in the background, and whatever was written up to then is absent: it never shows what it missed.
    /// [`EventKind::BypassEnded`](crate::EventKind::BypassEnded) and [`inspect`](Self::inspect) tell when it does. A
    /// read-only tier keeps its entries.
    ///
    /// The tier is cleared once every call to its backend has returned or is past its residual time. A call that does
    /// neither ([`TierOptions::residual`](crate::TierOptions::residual)) keeps it bypassed:
    /// [`inspect`](Self::inspect) then shows it bypassed for no operator, with `calls` above zero.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if there is no such tier; [`ErrorKind::Closed`] after shutdown.
    pub fn bypass(&self, label: &str, on: bool) -> Result<()> {
        self.inner.engine.check_open()?;
        let route = self.inner.engine.route.load_full();
        let tier = route.tiers.iter().find(|tier| tier.core.label.as_str() == label);
        let tier = tier.ok_or_else(|| config(format!("there is no tier labelled `{label}`")))?;
        tier.core.hold_bypass(on);
        Ok(())
    }

    /// The `n` keys read most, the hottest first, from a sample of one in 64 reads. Empty unless the cache was built
    /// with [`hot_keys`](CacheBuilder::hot_keys).
    pub fn hot_keys(&self, n: usize) -> Vec<HotKey> {
        self.inner.engine.telling.hot_keys.as_ref().map(|keys| keys.top(n)).unwrap_or_default()
    }

    /// Brings the metrics up to date now; they also are every second. For a scrape that wants no lag.
    #[cfg(feature = "metrics")]
    pub fn publish_metrics(&self) {
        self.inner.engine.telling.meter.publish(&self.inner.engine);
    }

    /// Waits until every write that write-behind tiers have accepted by now is applied (or superseded, or a dead letter),
    /// at most so long, then has the stores make durable what they hold. Nothing waits for others to go with it meanwhile;
    /// what has failed still waits until it is tried again.
    ///
    /// Cancel-safe: dropped, it changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] naming the tier and how many writes are still queued there; what a store's own flush
    /// reports; [`ErrorKind::Closed`] after shutdown.
    pub async fn flush(&self, within: Duration) -> Result<()> {
        self.inner.engine.flush(within).await
    }

    /// Queues a dead letter again at its tier, as the write that it was: older than everything written since. If
    /// something newer of its key is queued, settled or stored in any tier, it is [`Superseded`](Redriven::Superseded). A
    /// newer write that has left no trace (a removal long since applied, a value that has expired) is not seen: redrive
    /// soon, or write anew. With a journal this waits until the letter is in it, whatever the overload policy says.
    ///
    /// Dropped, it may have queued the letter; to redrive it again does no harm.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if its tier is not here or does not write behind; [`ErrorKind::Overloaded`] if the queue is
    /// full; why the store could not be read; [`ErrorKind::Closed`] after shutdown. The letter is then as dead as before.
    pub async fn redrive(&self, letter: &DeadLetter) -> Result<Redriven> {
        self.inner.engine.redrive(letter).await
    }

    /// Takes the dead letters that their sinks did not take: the newest 1,024 of each tier. They are handed out once.
    pub fn undelivered_letters(&self) -> Vec<DeadLetter> {
        let route = self.inner.engine.route.load_full();
        route.written.iter().flat_map(|tier| tier.core.undelivered_letters()).collect()
    }

    /// Ends the cache: refuses new calls, drops refills, brings to their stores what write-behind tiers have queued, lets the tiers finish what is queued within `deadline`,
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

    /// Crashes the actor of a tier, as a bug in it would: for tests. Whether it was up and had room to be told.
    #[cfg(feature = "testing")]
    pub fn crash_tier(&self, label: &str) -> bool {
        use crate::runtime::Envelope;
        let route = self.inner.engine.route.load();
        let tier = route.tiers.iter().find(|tier| tier.core.label.as_str() == label);
        // A tier that is down cannot crash any further.
        tier.is_some_and(|tier| tier.address.try_send(Envelope::new(crate::tier::Message::Crash)).is_ok())
    }

    /// Crashes the supervisor, as a bug in it would: for tests. Whether it was up and had room to be told.
    #[cfg(feature = "testing")]
    pub fn crash_supervisor(&self) -> bool {
        use crate::runtime::Envelope;
        self.inner.engine.supervisor.try_send(Envelope::new(crate::composition::Report::Crash)).is_ok()
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

    fn store<T>(&self) -> Arc<Store>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let known = self.inner.stores.load().get(&TypeId::of::<T>()).cloned();
        known.unwrap_or_else(|| self.new_store(TypeId::of::<T>(), value_type::<T>()))
    }

    #[cold]
    fn new_store(&self, id: TypeId, ty: Arc<dyn ValueType>) -> Arc<Store> {
        let shared = Shared { checked: Arc::default(), meter: Arc::clone(&self.inner.untyped) };
        let store = Arc::new(Store { engine: Arc::clone(&self.inner.engine), ty, shared });
        self.inner.stores.rcu(|stores| {
            let mut stores = HashMap::clone(stores);
            // Another thread may have been first.
            stores.entry(id).or_insert_with(|| Arc::clone(&store));
            stores
        });
        self.inner.stores.load().get(&id).cloned().unwrap_or(store)
    }

    /// Registers a region; returns what all openings of it share.
    ///
    /// # Errors
    /// [`ErrorKind::TypeMismatch`] if the name stands for another value or key type.
    pub(crate) fn register<T: 'static, K: ?Sized>(&self, name: &Arc<str>) -> Result<Shared> {
        let mut regions = self.inner.regions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = regions.entry(Arc::clone(name)).or_insert_with(|| Known {
            value: TypeId::of::<T>(),
            value_name: std::any::type_name::<T>(),
            key_name: std::any::type_name::<K>(),
            shared: Shared { checked: Arc::default(), meter: self.inner.engine.telling.meter.region(name) },
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
        Ok(known.shared.clone())
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = self.inner.engine.route.load();
        let labels: Vec<_> = route.tiers.iter().map(|tier| tier.core.label.as_str()).collect();
        f.debug_struct("Cache").field("tiers", &labels).finish_non_exhaustive()
    }
}

fn config(message: impl Into<Arc<str>>) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// Marks which types a handle is for, without owning any.
pub(crate) type Types<T, K> = PhantomData<(fn() -> T, fn(&K))>;
