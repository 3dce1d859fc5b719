//! What a read gives back.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::error::Error;
use crate::value::{BackendLabel, Freshness, Meta, Packed, Rare, Stamps, Timestamp};

/// A cached value: derefs to `T`, shares it, and knows where it came from.
pub struct Hit<T> {
    value: Arc<T>,
    tier: Option<BackendLabel>,
    now: Timestamp,
    stamps: Stamps,
    rare: Option<Arc<Rare>>,
}

impl<T> Hit<T> {
    pub(crate) fn new(value: Arc<T>, tier: Option<BackendLabel>, meta: Meta, now: Timestamp) -> Self {
        let (stamps, rare) = Stamps::pack(&meta);
        Self { value, tier, now, stamps, rare: rare.map(Arc::new) }
    }

    /// The value, shared with the cache.
    pub fn value(&self) -> &Arc<T> {
        &self.value
    }

    /// The value, shared with the cache.
    pub fn into_arc(self) -> Arc<T> {
        self.value
    }

    /// The tier that had it; `None` if it was loaded for this call.
    pub fn tier(&self) -> Option<&BackendLabel> {
        self.tier.as_ref()
    }

    /// How old the value was when it was read.
    pub fn age(&self) -> Duration {
        self.now.since(self.meta().created)
    }

    /// What was left of its life when it was read; `None`: it never expires.
    pub fn ttl(&self) -> Option<Duration> {
        self.stamps.expire.map(|at| at.since(self.now))
    }

    /// How it stood towards its stamps when it was read.
    pub fn freshness(&self) -> Freshness {
        self.meta().freshness(self.now)
    }

    /// Its stamps.
    pub fn meta(&self) -> Meta {
        self.stamps.meta(self.rare.as_deref())
    }
}

impl<T: Send + Sync + 'static> Hit<T> {
    /// A hit in a store in process; `None` if what it holds is not a `T`.
    #[inline]
    pub(crate) fn of(packed: Packed, tier: BackendLabel, now: Timestamp) -> Option<Self> {
        let (object, stamps, rare) = packed.into_object()?;
        Some(Self { value: object.downcast().ok()?, tier: Some(tier), now, stamps, rare })
    }
}

impl<T> Clone for Hit<T> {
    fn clone(&self) -> Self {
        let Self { value, tier, now, stamps, rare } = self;
        Self { value: Arc::clone(value), tier: tier.clone(), now: *now, stamps: *stamps, rare: rare.clone() }
    }
}

impl<T> Deref for Hit<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// So that a hit can be stored again, `region.set(&key, hit)`, without a copy.
impl<T> From<Hit<T>> for Arc<T> {
    fn from(hit: Hit<T>) -> Self {
        hit.value
    }
}

impl<T: fmt::Display> fmt::Display for Hit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T: fmt::Debug> fmt::Debug for Hit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hit").field("value", &self.value).field("tier", &self.tier).finish_non_exhaustive()
    }
}

impl<T: Serialize> Serialize for Hit<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

/// Where a value that is read in place came from, and how long it lives: what a [`Hit`] knows besides the value.
#[cfg(feature = "rkyv_format")]
#[derive(Debug, Clone)]
pub struct HitInfo {
    tier: BackendLabel,
    meta: Meta,
    now: Timestamp,
}

#[cfg(feature = "rkyv_format")]
impl HitInfo {
    pub(crate) fn new(tier: BackendLabel, meta: Meta, now: Timestamp) -> Self {
        Self { tier, meta, now }
    }

    /// The tier that had it.
    pub fn tier(&self) -> &BackendLabel {
        &self.tier
    }

    /// How old the value was when it was read.
    pub fn age(&self) -> Duration {
        self.now.since(self.meta.created)
    }

    /// What was left of its life when it was read; `None`: it never expires.
    pub fn ttl(&self) -> Option<Duration> {
        self.meta.expire.map(|at| at.since(self.now))
    }

    /// How it stood towards its stamps when it was read.
    pub fn freshness(&self) -> Freshness {
        self.meta.freshness(self.now)
    }

    /// Its stamps.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }
}

/// A read with everything it met on its way.
#[derive(Debug)]
#[non_exhaustive]
pub struct Lookup<T> {
    /// The value, if some tier had it.
    pub hit: Option<Hit<T>>,
    /// Tiers that could not answer and so counted as a miss, with the reason.
    pub degraded: Vec<Error>,
}

impl<T> Clone for Lookup<T> {
    fn clone(&self) -> Self {
        Self { hit: self.hit.clone(), degraded: self.degraded.clone() }
    }
}
