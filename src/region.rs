//! Regions: the entries of one value type under one kind of key.

use std::borrow::Borrow;
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::{Holds, Scope};
use crate::cache::{Cache, Shared, Types};
use crate::codec::{Typed, ValueType, Weigher};
use crate::composition::{Engine, Found, Reading, Refill};
use crate::error::{Error, ErrorKind, Result};
use crate::hit::{Hit, Lookup};
use crate::key::{CacheKey, KeyParts, KeyProbe, KeyWriter};
use crate::load::{Landed, Role};
use crate::observe::{Began, trace};
use crate::planted::{Plant, planted};
use crate::runtime::Instant;
use crate::value::{CacheValue, DeleteStatus, Meta, Object};

/// The entries of one value type `T`, under keys of type `K`. Cheap to clone.
///
/// A region is known to its cache by its name: opening it again gives the same entries; opening it with another type
/// is an error. Raise its [`version`](RegionBuilder::version) when the value's schema changes: old entries then read
/// as misses.
pub struct Region<T, K: ?Sized> {
    store: Store,
    cache: Cache,
    name: Arc<str>,
    /// `name:vN:`, what every key of the region begins with.
    prefix: Arc<str>,
    ttl: Option<Duration>,
    load_deadline: Duration,
    types: Types<T, K>,
}

/// Opens a [`Region`].
pub struct RegionBuilder<T, K: ?Sized> {
    cache: Cache,
    name: Arc<str>,
    version: u32,
    ttl: Option<Option<Duration>>,
    load_deadline: Duration,
    weigher: Option<Weigher<T>>,
    types: Types<T, K>,
}

impl<T, K: ?Sized> RegionBuilder<T, K>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    pub(crate) fn new(cache: Cache, name: &str) -> Self {
        Self {
            cache,
            name: name.into(),
            version: 1,
            ttl: None,
            load_deadline: Duration::from_secs(30),
            weigher: None,
            types: PhantomData,
        }
    }

    /// The version of the value's schema; entries of other versions are not seen. Default: 1.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// How long entries live, exact to the ms. There is no default: set this or [`no_expiry`](Self::no_expiry).
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(Some(ttl));
        self
    }

    /// Entries live until they are removed or evicted.
    #[must_use]
    pub fn no_expiry(mut self) -> Self {
        self.ttl = Some(None);
        self
    }

    /// How long a load may take, waiting for another caller's load of the key included. What the tiers need before
    /// and after it is bounded by their own deadlines. Default: 30 s.
    #[must_use]
    pub fn load_deadline(mut self, deadline: Duration) -> Self {
        self.load_deadline = deadline;
        self
    }

    /// Says how many bytes a value takes in memory, for tiers bounded by bytes. Default: its size in postcard plus
    /// that of the struct.
    #[must_use]
    pub fn weigher(mut self, weigher: impl Fn(&T) -> usize + Send + Sync + 'static) -> Self {
        self.weigher = Some(Arc::new(weigher));
        self
    }

    /// Opens the region.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an empty name, no statement about expiry, a zero TTL or a zero deadline;
    /// [`ErrorKind::TypeMismatch`] if the region is open with other types.
    pub fn build(self) -> Result<Region<T, K>> {
        let config =
            |message: &str| Err(Error::new(ErrorKind::Config, format!("region `{}`: {message}", self.name)));
        if self.name.is_empty() {
            return config("the name is empty");
        }
        let Some(ttl) = self.ttl else {
            return config("say how long entries live: `.ttl(…)` or `.no_expiry()`");
        };
        if ttl.is_some_and(|ttl| ttl.is_zero()) {
            return config("the TTL is zero; entries would be dead when they are written");
        }
        if self.load_deadline.is_zero() {
            return config("the load deadline is zero");
        }
        let shared = self.cache.register::<T, K>(&self.name)?;
        let mut prefix = String::new();
        KeyWriter::begin(&mut prefix, &self.name, self.version);
        Ok(Region {
            store: Store {
                engine: Arc::clone(self.cache.engine()),
                ty: Arc::new(Typed::new(self.weigher)),
                shared,
            },
            cache: self.cache,
            name: self.name,
            prefix: prefix.into(),
            ttl,
            load_deadline: self.load_deadline,
            types: PhantomData,
        })
    }
}

impl<T, K: ?Sized> Region<T, K>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// The value under `key`, or `None`. Cannot fail: a broken tier is a miss.
    ///
    /// Cancel-safe. A hit in a topmost memory tier completes at once, without an allocation, a message or a copy.
    pub async fn get<Q>(&self, key: &Q) -> Option<Hit<T>>
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized,
    {
        match self.at_once(key) {
            Ok(hit) => Some(hit),
            // Boxed, so that a hit does not carry the state of the long way.
            Err(key) => Box::pin(self.store.read(&key)).await,
        }
    }

    /// As [`get`](Self::get), naming the tiers that could not answer. Cancel-safe.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] after shutdown, and the failure of a tier whose
    /// [`ErrorPolicy`](crate::ErrorPolicy) is `Fail`.
    pub async fn try_get<Q>(&self, key: &Q) -> Result<Lookup<T>>
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized,
    {
        let key = self.key(key);
        self.store.engine.note_read(&key.probe());
        self.store.try_get(&key).await
    }

    /// The values under `keys`, in their order. Lower tiers are asked in batches. Cancel-safe.
    pub async fn get_many<'a, Q>(&self, keys: impl IntoIterator<Item = &'a Q>) -> Vec<Option<Hit<T>>>
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized + 'a,
    {
        // Many are sent before any is awaited, so the tiers' actors see them together; not all, since their mailboxes
        // are bounded.
        let keys: Vec<_> = keys.into_iter().map(|key| self.key(key)).collect();
        let window = self.store.engine.window();
        let reads: Vec<_> = keys.iter().map(|key| self.store.get(key)).collect();
        stream::iter(reads).buffered(window).collect().await
    }

    /// Stores a value for the region's TTL, in the tiers and with the confirmation that the write policy asks for.
    ///
    /// When it returns, in success or failure, no read gives an older value. Dropped before it completes, the value
    /// may or may not be stored; tiers that have not confirmed it read as misses until they are made good.
    ///
    /// # Errors
    /// What the confirming tier reports ([`Timeout`](ErrorKind::Timeout), [`Unavailable`](ErrorKind::Unavailable),
    /// [`Overloaded`](ErrorKind::Overloaded), [`Backend`](ErrorKind::Backend), …); [`Encode`](ErrorKind::Encode) if the
    /// value cannot be encoded or would not read back; [`TooLarge`](ErrorKind::TooLarge);
    /// [`Closed`](ErrorKind::Closed) after shutdown. Errors before the value is numbered change nothing.
    pub async fn set<Q>(&self, key: &Q, value: impl Into<Arc<T>>) -> Result<()>
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized,
    {
        self.store.set(&self.key(key), value.into(), self.ttl).await
    }

    /// As [`set`](Self::set), for another TTL than the region's.
    ///
    /// # Errors
    /// As [`set`](Self::set); [`ErrorKind::Config`] if `ttl` is zero.
    pub async fn set_for<Q>(&self, key: &Q, value: impl Into<Arc<T>>, ttl: Duration) -> Result<()>
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized,
    {
        self.store.set(&self.key(key), value.into(), Some(ttl)).await
    }

    /// Stores several values; the results are in their order. Each stands for itself: some may fail.
    pub async fn set_many<'a, Q>(&self, entries: impl IntoIterator<Item = (&'a Q, T)>) -> Vec<Result<()>>
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized + 'a,
    {
        let entries: Vec<_> =
            entries.into_iter().map(|(key, value)| (self.key(key), Arc::new(value))).collect();
        let window = self.store.engine.window();
        let writes: Vec<_> =
            entries.iter().map(|(key, value)| self.store.set(key, Arc::clone(value), self.ttl)).collect();
        stream::iter(writes).buffered(window).collect().await
    }

    /// Removes the value under `key` from every tier; returns whether some tier had it.
    ///
    /// When it returns, in success or failure, no read gives the removed value.
    ///
    /// # Errors
    /// The first tier's failure if no tier confirmed; [`Closed`](ErrorKind::Closed) after shutdown.
    pub async fn remove<Q>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized,
    {
        self.store.remove(&self.key(key)).await.map(|status| status != DeleteStatus::Missing)
    }

    /// Whether some tier has a value under `key`. Nothing is refilled. Cancel-safe.
    pub async fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized,
    {
        self.store.engine.contains(&self.key(key), &self.store.ty).await
    }

    /// The value under `key` if an in-process tier has it: without waiting, without a message, without a refill, and
    /// not counted among the region's reads. What only another tier holds is not found.
    pub fn peek<Q>(&self, key: &Q) -> Option<Hit<T>>
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized,
    {
        self.with_probe(key, |probe| self.store.hit(self.store.engine.peek_all(probe, &*self.store.ty)?))
    }

    /// Removes every entry of the region, of every version. (Past 4,096 prefixes cleared in the life of a cache, a
    /// further one clears them all.) When it returns, no read gives a value written before.
    ///
    /// # Errors
    /// As [`Cache::clear`].
    pub async fn clear(&self) -> Result<()> {
        let prefix = self.prefix.split(':').next().unwrap_or_default();
        self.store.engine.clear(Scope::Prefix(prefix.into())).await
    }

    /// The value under `key`, loaded by `loader` if no tier has it.
    ///
    /// Concurrent calls for a key run one loader between them. If the one who runs it is dropped or panics, another
    /// takes over with its own. A mutation of the key meanwhile lets those who asked before have the result, but it
    /// is not stored, and whoever asks later loads anew. Loaded values are stored in the background, except in a
    /// topmost memory tier, where the next call finds them. After shutdown the loader still runs, and nothing is
    /// stored.
    ///
    /// # Errors
    /// [`ErrorKind::Load`] with the loader's error as its source, the same for all who waited;
    /// [`ErrorKind::Timeout`] past the [load deadline](RegionBuilder::load_deadline);
    /// [`ErrorKind::Encode`] for the region's first value if it would not read back.
    pub async fn get_or_load<Q, F, Fut, E>(&self, key: &Q, loader: F) -> Result<Hit<T>>
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match self.at_once(key) {
            Ok(hit) => Ok(hit),
            Err(key) => Box::pin(self.store.get_or_load(&key, self.ttl, self.load_deadline, loader)).await,
        }
    }

    /// The region's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cache it belongs to.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The key under which the tiers hold the entry.
    pub fn key<Q>(&self, key: &Q) -> CacheKey
    where
        K: Borrow<Q>,
        Q: KeyParts + ?Sized,
    {
        self.with_probe(key, |probe| probe.to_key())
    }

    /// The topmost tier's answer if it can give one at once; otherwise the key, built.
    fn at_once<Q: KeyParts + ?Sized>(&self, key: &Q) -> Result<Hit<T>, CacheKey> {
        self.with_probe(key, |probe| self.store.at_once(probe).ok_or_else(|| probe.to_key()))
    }

    /// Builds the key's text in a buffer of this thread: a look-up allocates nothing.
    fn with_probe<Q: KeyParts + ?Sized, R>(&self, key: &Q, f: impl FnOnce(&KeyProbe<'_>) -> R) -> R {
        thread_local! {
            static TEXT: RefCell<String> = const { RefCell::new(String::new()) };
        }
        // Taken out, not borrowed: a key that itself asks a cache finds an empty buffer, not a panic.
        let mut text = TEXT.take();
        text.clear();
        text.push_str(&self.prefix);
        key.write(&mut KeyWriter::resume(&mut text));
        let result = f(&KeyProbe::from_canonical(&text));
        TEXT.set(text);
        result
    }
}

impl<T, K: ?Sized> Clone for Region<T, K> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            cache: self.cache.clone(),
            name: Arc::clone(&self.name),
            prefix: Arc::clone(&self.prefix),
            types: PhantomData,
            ..*self
        }
    }
}

impl<T, K: ?Sized> fmt::Debug for Region<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("name", &self.name).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

impl<T, K: ?Sized> fmt::Debug for RegionBuilder<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The engine as seen by one value type: what regions and the cache's own `get` and `set` share.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) engine: Arc<Engine>,
    pub(crate) ty: Arc<dyn ValueType>,
    pub(crate) shared: Shared,
}

impl Store {
    fn peek<T: Send + Sync + 'static>(&self, probe: &KeyProbe<'_>) -> Option<Hit<T>> {
        self.hit(self.engine.peek(probe, &*self.ty)?)
    }

    /// A caller's read, as far as the topmost port can answer it.
    fn at_once<T: Send + Sync + 'static>(&self, probe: &KeyProbe<'_>) -> Option<Hit<T>> {
        self.engine.note_read(probe);
        let began = Began::sampled(&self.engine.runtime);
        let hit = self.peek(probe)?;
        self.shared.meter.hit_at_once(began, &self.engine.runtime);
        Some(hit)
    }

    pub(crate) async fn get<T: Send + Sync + 'static>(&self, key: &CacheKey) -> Option<Hit<T>> {
        match self.at_once(&key.probe()) {
            Some(hit) => Some(hit),
            None => Box::pin(self.read(key)).await,
        }
    }

    async fn read<T: Send + Sync + 'static>(&self, key: &CacheKey) -> Option<Hit<T>> {
        if self.engine.is_closed() {
            return None;
        }
        self.reading(key).await.found.and_then(|found| self.hit(found))
    }

    /// The long way of a caller's read.
    async fn reading(&self, key: &CacheKey) -> Reading {
        let began = Began::now(&self.engine.runtime);
        let reading = self.engine.read(key, &self.ty).await;
        self.shared.meter.read(reading.found.is_some(), began, &self.engine.runtime);
        reading
    }

    pub(crate) async fn try_get<T: Send + Sync + 'static>(&self, key: &CacheKey) -> Result<Lookup<T>> {
        self.engine.check_open()?;
        let Reading { found, degraded, failed, .. } = self.reading(key).await;
        match (found.and_then(|found| self.hit(found)), failed) {
            (None, Some(error)) => Err(error),
            (hit, _) => Ok(Lookup { hit, degraded }),
        }
    }

    pub(crate) async fn set<T: Send + Sync + 'static>(
        &self,
        key: &CacheKey,
        value: Arc<T>,
        ttl: Option<Duration>,
    ) -> Result<()> {
        if ttl.is_some_and(|ttl| ttl.is_zero()) {
            let message = "the TTL is zero; use `remove` to remove an entry";
            return Err(Error::new(ErrorKind::Config, message).for_key(key));
        }
        let object: Object = value;
        self.check(&object).await.map_err(|error| error.for_key(key))?;
        let began = Began::now(&self.engine.runtime);
        let result = self.engine.set(key, &object, &self.ty, self.life(ttl)).await;
        self.shared.meter.wrote(result.is_ok(), began, &self.engine.runtime);
        result
    }

    pub(crate) async fn remove(&self, key: &CacheKey) -> Result<DeleteStatus> {
        let began = Began::now(&self.engine.runtime);
        let result = self.engine.remove(key).await;
        self.shared.meter.wrote(result.is_ok(), began, &self.engine.runtime);
        result
    }

    /// As [`set`](Self::set), with the stamps that the value comes with.
    pub(crate) async fn set_value<T: Send + Sync + 'static>(
        &self,
        key: &CacheKey,
        value: CacheValue<Arc<T>>,
    ) -> Result<()> {
        let life = Meta { expire: value.expire(), stale: value.stale(), ..self.life(None) };
        let object: Object = value.into_inner();
        self.check(&object).await.map_err(|error| error.for_key(key))?;
        self.engine.set(key, &object, &self.ty, life).await
    }

    /// # Errors
    /// As [`Region::get_or_load`].
    async fn get_or_load<T, F, Fut, E>(
        &self,
        key: &CacheKey,
        ttl: Option<Duration>,
        within: Duration,
        loader: F,
    ) -> Result<Hit<T>>
    where
        T: Send + Sync + 'static,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let deadline = self.engine.runtime.now().after(within);
        let mut loader = Some(loader);
        loop {
            // Its fence is taken before anything is read, and so before the load.
            let reading = if self.engine.is_closed() { None } else { Some(self.reading(key).await) };
            let fence = reading.as_ref().and_then(|reading| reading.fence);
            if let Some(hit) = reading.and_then(|reading| reading.found).and_then(|found| self.hit(found)) {
                return Ok(hit);
            }
            let lead = match self.engine.flights.enter(key) {
                Role::Lead(lead) => lead,
                Role::Join(flight) => match self.engine.runtime.deadline(deadline, flight.wait()).await {
                    Some(Some(landed)) => {
                        self.shared.meter.joined();
                        return self.landed(landed);
                    }
                    Some(None) => continue,
                    None => return Err(late(within).for_key(key)),
                },
            };
            if let Some(hit) = self.peek(&key.probe()) {
                // Another flight landed between the read and this one.
                return Ok(hit);
            }
            let Some(loader) = loader.take() else { return Err(late(within).for_key(key)) };
            let life = self.life(ttl);
            // Numbered before the load, which may read something older than what is written meanwhile.
            let stamp = self.engine.order.clock.mint(life.created);
            let began = Began::now(&self.engine.runtime);
            let landed = trace::load(key, self.load(key, loader, deadline, within)).await;
            self.shared.meter.loaded(landed.is_ok(), began, &self.engine.runtime);
            let landed = landed.map(|object| (object, life));
            let landed = landed.map(|(object, life)| (object, Meta { stamp, ..self.renewed(life, ttl) }));
            lead.land(landed.clone());
            let fence = if planted(Plant::FenceAtFill) {
                self.engine.order.fences.take(key.hash_u64())
            } else {
                fence
            };
            if let (Ok((object, meta)), Some(fence)) = (&landed, fence) {
                let refill = Refill {
                    key: key.clone(),
                    object: Arc::clone(object),
                    ty: Arc::clone(&self.ty),
                    meta: *meta,
                    fence,
                    tiers: Vec::new(),
                };
                self.engine.fill(refill).await;
            }
            // Only now: until the topmost tier has the value, whoever asks finds the landed flight.
            drop(lead);
            return self.landed(landed);
        }
    }

    async fn load<T, F, Fut, E>(
        &self,
        key: &CacheKey,
        loader: F,
        deadline: Instant,
        within: Duration,
    ) -> Result<Object>
    where
        T: Send + Sync + 'static,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let loaded = self.engine.runtime.deadline(deadline, loader()).await;
        let value = loaded.ok_or_else(|| late(within).for_key(key))?.map_err(|source| {
            Error::new(ErrorKind::Load, "the loader reported an error").with_source(source).for_key(key)
        })?;
        let object: Object = Arc::new(value);
        self.check(&object).await.map_err(|error| error.for_key(key))?;
        Ok(object)
    }

    fn landed<T: Send + Sync + 'static>(&self, landed: Landed) -> Result<Hit<T>> {
        let (object, meta) = landed?;
        match Arc::downcast::<T>(object) {
            Ok(value) => Ok(Hit::new(value, None, meta, self.engine.runtime.wall())),
            Err(_) => Err(Error::new(ErrorKind::TypeMismatch, "a load of this key gave another type")),
        }
    }

    pub(crate) fn hit<T: Send + Sync + 'static>(&self, found: Found) -> Option<Hit<T>> {
        let label = self.engine.route.load().tiers.get(found.tier).map(|tier| tier.core.label.clone());
        let value = Arc::downcast::<T>(found.object).ok()?;
        Some(Hit::new(value, label, found.meta, found.now))
    }

    /// The stamps of a value made now; the number comes later.
    fn life(&self, ttl: Option<Duration>) -> Meta {
        self.renewed(Meta::default(), ttl)
    }

    fn renewed(&self, meta: Meta, ttl: Option<Duration>) -> Meta {
        let now = self.engine.runtime.wall();
        let ttl = match ttl {
            Some(ttl) if planted(Plant::TtlInSeconds) => {
                Some(Duration::from_secs(ttl.as_secs())).filter(|t| !t.is_zero())
            }
            ttl => ttl,
        };
        Meta { created: now, expire: ttl.map(|ttl| now.after(ttl)), ..meta }
    }

    /// Checks the first value of a region in every byte tier: one that does not read back is an error of the type,
    /// not a miss for ever.
    async fn check(&self, object: &Object) -> Result<()> {
        if self.shared.checked.load(Ordering::Relaxed) {
            return Ok(());
        }
        for tier in &self.engine.route.load_full().written {
            if tier.core.holds == Holds::Bytes {
                let (object, ty) = (Arc::clone(object), Arc::clone(&self.ty));
                match self.engine.codecs.check(object, ty, Arc::clone(&tier.core.backend)).await {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::Encode => {
                        return Err(error.at_tier(&tier.core.label));
                    }
                    // No room to check it now says nothing about the type: the next value is checked.
                    Err(_) => return Ok(()),
                }
            }
        }
        self.shared.checked.store(true, Ordering::Relaxed);
        Ok(())
    }
}

fn late(within: Duration) -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!("not loaded within the load deadline of {} ms", within.as_millis()),
    )
}
