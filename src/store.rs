//! The engine as seen by one value type: reads, writes and loads of typed values.

use std::borrow::Borrow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::backend::Holds;
use crate::cache::Shared;
use crate::codec::ValueType;
use crate::composition::{Engine, Found, Reading, Refill};
use crate::error::{Error, ErrorKind, Result};
use crate::hit::{Hit, Lookup};
use crate::key::{CacheKey, KeyProbe};
use crate::load::{Landed, Role};
use crate::observe::{Began, RegionMeter, trace};
use crate::planted::{Plant, planted};
use crate::runtime::Instant;
use crate::value::{CacheValue, DeleteStatus, Meta, Object};

/// The engine as seen by one value type: what regions and the cache's own `get` and `set` share.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) engine: Arc<Engine>,
    pub(crate) ty: Arc<dyn ValueType>,
    pub(crate) shared: Shared,
}

impl Engine {
    /// A caller's read, as far as the topmost port can answer it.
    #[inline]
    pub(crate) fn hit_at_once<T: Send + Sync + 'static>(
        &self,
        probe: &KeyProbe<'_>,
        meter: &RegionMeter,
    ) -> Option<Hit<T>> {
        self.note_read(probe);
        let began = Began::sampled(&self.runtime);
        let hit = self.peek(probe)?;
        meter.hit_at_once(began, &self.runtime);
        Some(hit)
    }

    /// A caller's read that the topmost port could not answer. `ty` is asked for where something has to be decoded.
    pub(crate) async fn get_below<T, Y>(
        &self,
        key: &CacheKey,
        ty: impl FnOnce() -> Y,
        meter: &RegionMeter,
    ) -> Option<Hit<T>>
    where
        T: Send + Sync + 'static,
        Y: Borrow<Arc<dyn ValueType>>,
    {
        let began = Began::now(&self.runtime);
        if let Some(hit) = self.read_at_once(key) {
            meter.read(hit.is_some(), began, &self.runtime);
            return hit;
        }
        if self.is_closed() {
            return None;
        }
        let ty = ty();
        // Boxed, so that a hit does not carry the state of what waits.
        let found = if self.asks_last() {
            Box::pin(self.find(key, ty.borrow())).await
        } else {
            Box::pin(self.read(key, ty.borrow())).await.found
        };
        meter.read(found.is_some(), began, &self.runtime);
        found.and_then(|found| self.hit(found))
    }

    fn hit<T: Send + Sync + 'static>(&self, found: Found) -> Option<Hit<T>> {
        let label = self.cores.get(found.tier).map(|core| core.label.clone());
        let value = Arc::downcast::<T>(found.object).ok()?;
        Some(Hit::new(value, label, found.meta, found.now))
    }
}

impl Store {
    /// A caller's read, as far as the topmost port can answer it.
    #[inline]
    pub(crate) fn at_once<T: Send + Sync + 'static>(&self, probe: &KeyProbe<'_>) -> Option<Hit<T>> {
        self.engine.hit_at_once(probe, &self.shared.meter)
    }

    pub(crate) async fn get<T: Send + Sync + 'static>(&self, key: &CacheKey) -> Option<Hit<T>> {
        match self.at_once(&key.probe()) {
            Some(hit) => Some(hit),
            None => self.get_below(key).await,
        }
    }

    /// A caller's read that the topmost port could not answer.
    pub(crate) async fn get_below<T: Send + Sync + 'static>(&self, key: &CacheKey) -> Option<Hit<T>> {
        self.engine.get_below(key, || &self.ty, &self.shared.meter).await
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
        let (began, life) = (Began::now(&self.engine.runtime), self.life(ttl));
        let result = self.engine.set(key, object, &self.ty, &life).await;
        #[cfg(feature = "zstd")]
        self.tend_dictionary(&life);
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
        self.engine.set(key, object, &self.ty, &life).await
    }

    /// # Errors
    /// As [`Region::get_or_load`].
    pub(crate) async fn get_or_load<T, F, Fut, E>(
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
            if let Some(hit) = self.engine.peek(&key.probe()) {
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
                #[cfg(feature = "zstd")]
                self.tend_dictionary(meta);
            }
            // Only now: until the topmost tier has the value, whoever asks finds the landed flight.
            drop(lead);
            return self.landed(landed);
        }
    }

    /// After a write of an entry with this life: what is to be done about the region's dictionary.
    #[cfg(feature = "zstd")]
    fn tend_dictionary(&self, life: &Meta) {
        if let Some(dictionary) = self.ty.dictionary() {
            self.engine.tend_dictionary(dictionary, life);
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
        self.engine.hit(found)
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
        // Boxed, so that later values do not carry its state.
        Box::pin(self.check_first(object)).await
    }

    async fn check_first(&self, object: &Object) -> Result<()> {
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
