//! Tierkeep: an actor-based, runtime-agnostic, tiered cache engine.

pub mod backend;
pub mod codec;
mod error;
mod key;
pub mod runtime;
mod tier;
mod value;

pub use backend::{Backend, BackendResult, MemoryBackend};
pub use error::{Error, ErrorKind, Result};
#[cfg(feature = "testing")]
pub use key::deterministic_hashing;
pub use key::{CacheKey, KeyHash, KeyHasher, KeyPart, KeyParts, KeyProbe, KeyWriter};
pub use tier::{BreakerOptions, BreakerState};
pub use value::{
    BackendLabel, CacheValue, DeleteStatus, Entry, Freshness, Meta, Object, Payload, Raw, Stamp, Timestamp,
};
