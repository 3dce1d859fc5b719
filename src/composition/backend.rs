//! A running composition behind a backend's typed calls.

use std::future::Future;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::{BackendResult, CacheBackend};
use crate::cache::Cache;
use crate::key::CacheKey;
use crate::value::{CacheValue, DeleteStatus};

/// Several tiers as one backend: what `l1.compose(l2, runtime).await?` gives. Cheap to clone.
///
/// It is a [`Cache`] seen through the calls of [`CacheBackend`]; regions, loading, clearing, inspection and shutdown are
/// on [`cache`](Self::cache). Unlike on a bare backend, calls are ordered, bounded in time and encode on the runtime's
/// blocking pool; what has expired is a miss, and so is a tier that fails.
#[derive(Debug, Clone)]
pub struct CompositionBackend {
    cache: Cache,
}

impl CompositionBackend {
    pub(super) fn new(cache: Cache) -> Self {
        Self { cache }
    }

    /// The cache that it is.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The cache that it is.
    pub fn into_cache(self) -> Cache {
        self.cache
    }

    /// The value under `key` with its expiry stamps, shared with the cache. Cancel-safe.
    ///
    /// # Errors
    /// As [`Cache::try_get`].
    pub async fn get<T>(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Arc<T>>>>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let hit = self.cache.try_get::<T>(key).await?.hit;
        Ok(hit.map(|hit| {
            let meta = hit.meta();
            CacheValue::new(hit.into_arc(), meta.expire, meta.stale)
        }))
    }

    /// Stores `value`, a `T` or an `Arc<T>`, until it expires. When it returns, in success or failure, no read gives an
    /// older value.
    ///
    /// # Errors
    /// As [`Region::set`](crate::Region::set).
    pub fn set<T>(
        &self,
        key: &CacheKey,
        value: CacheValue<impl Into<Arc<T>>>,
    ) -> impl Future<Output = BackendResult<()>> + Send
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        self.cache.set_value::<T>(key, value.map(Into::into))
    }

    /// Removes the value under `key` from every tier, and says how many of them had it.
    ///
    /// # Errors
    /// As [`Region::remove`](crate::Region::remove).
    pub async fn delete(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.cache.remove(key).await
    }
}

impl CacheBackend for CompositionBackend {
    async fn get<T>(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Arc<T>>>>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        Self::get(self, key).await
    }

    fn set<T>(
        &self,
        key: &CacheKey,
        value: CacheValue<impl Into<Arc<T>>>,
    ) -> impl Future<Output = BackendResult<()>> + Send
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        Self::set::<T>(self, key, value)
    }

    async fn delete(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        Self::delete(self, key).await
    }
}

impl From<CompositionBackend> for Cache {
    fn from(backend: CompositionBackend) -> Self {
        backend.into_cache()
    }
}
