//! cachet 0.16: a memory tier with a memory fallback, values shared by `Arc` so that a hit copies nothing.

use std::sync::Arc;

use cachet::{Cache, CacheEntry};
use tick::Clock;
use tierkeep::CacheKey;

use crate::values::TTL;

/// Two tiers under our own keys: they are cheap to clone, which cachet does on every read, and hash in a nanosecond.
pub type Composed<T> = Cache<CacheKey, Arc<T>>;

/// Composes two memory tiers. Must be called within tokio.
pub fn compose<T: Send + Sync + 'static>(upper: u64, lower: u64) -> Composed<T> {
    let clock = Clock::new_tokio();
    let below = Cache::builder::<CacheKey, Arc<T>>(clock.clone())
        .memory_with(|memory| memory.max_capacity(lower))
        .ttl(TTL);
    Cache::builder::<CacheKey, Arc<T>>(clock)
        .memory_with(|memory| memory.max_capacity(upper))
        .ttl(TTL)
        .fallback(below)
        .build()
}

/// Reads a value.
///
/// # Panics
/// If the cache fails: memory does not.
pub async fn get<T: Send + Sync + 'static>(cache: &Composed<T>, key: &CacheKey) -> Option<Arc<T>> {
    cache.get(key).await.expect("a cache in memory").map(CacheEntry::into_value)
}

/// Stores a value for the TTL that all sides use.
///
/// # Panics
/// If the cache fails: memory does not.
pub async fn set<T: Send + Sync + 'static>(cache: &Composed<T>, key: &CacheKey, value: T) {
    let entry = CacheEntry::expires_after(Arc::new(value), TTL);
    cache.insert(key.clone(), entry).await.expect("a cache in memory");
}
