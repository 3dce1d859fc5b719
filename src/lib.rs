//! Tierkeep: an actor-based, runtime-agnostic, tiered cache engine.

pub mod backend;
mod cache;
pub mod codec;
pub mod composition;
mod error;
mod hit;
mod key;
mod key_format;
mod load;
mod observe;
mod order;
mod planted;
mod region;
pub mod runtime;
mod tier;
mod value;

/// What an implementation of [`Backend`] is annotated with.
pub use async_trait::async_trait;
pub use backend::{Backend, BackendResult, CacheBackend, MemoryBackend};
pub use cache::{Cache, CacheBuilder};
pub use composition::{Compose, Composition, CompositionBackend};
pub use error::{Error, ErrorKind, Result};
pub use hit::{Hit, Lookup};
#[cfg(feature = "testing")]
pub use key::deterministic_hashing;
pub use key::{CacheKey, KeyHash, KeyHasher, KeyPart, KeyParts, KeyProbe, KeyWriter};
pub use key_format::CacheKeyFormat;
pub use observe::{Inspection, TierInspection};
#[cfg(feature = "testing")]
pub use planted::{Plant, plant};
pub use region::{Region, RegionBuilder};
pub use tier::{BreakerOptions, BreakerState, ErrorPolicy, ReadCounts, Tier, TierOptions, WriteCounts};
pub use value::{
    BackendLabel, CacheValue, DeleteStatus, Entry, Freshness, Meta, Object, Payload, Raw, Stamp, Timestamp,
};
