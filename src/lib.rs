//! Tierkeep: an actor-based, runtime-agnostic, tiered cache engine.
//!
//! A [`Cache`] is made of tiers, the fastest first. Each is a supervised actor around a [`Backend`]: one that fails,
//! hangs or panics reads as a miss, while the others serve, and comes back by itself. Applications read and write
//! through a [`Region`], the entries of one type under one kind of key.
//!
//! ```
//! use std::time::Duration;
//! use tierkeep::{Cache, MemoryBackend, Region};
//! use tierkeep_tokio::TokioRuntime;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = Cache::builder(TokioRuntime::current()).tier(MemoryBackend::entries(10_000)).build().await?;
//! let lengths: Region<usize, str> = cache.region("length").ttl(Duration::from_secs(60)).build()?;
//!
//! let measure = async || Ok::<_, std::io::Error>("tea".len());
//! let length = lengths.get_or_load("tea", measure).await?;
//! assert_eq!(*length, 3);
//!
//! let again = lengths.get("tea").await.ok_or("it was just loaded")?;
//! assert_eq!(again.tier().map(|tier| tier.as_str()), Some("memory"));
//! assert!(cache.shutdown(Duration::from_secs(10)).await.clean);
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//!
//! | for | see |
//! |---|---|
//! | building, inspecting and ending a cache | [`Cache`], [`CacheBuilder`], [`Inspection`], [`composition::ShutdownReport`] |
//! | reading, writing and loading | [`Region`], [`Hit`], [`Lookup`] |
//! | keys | [`KeyParts`] for types of your own, [`CacheKey`] for what they become |
//! | tiers and their limits | [`Tier`], [`TierOptions`], [`BreakerOptions`] |
//! | stores | [`MemoryBackend`], `backend::DiskBackend` (feature `disk`), `MokaBackend` (feature `moka`), `backend::RedisBackend` (features `redis-tokio`, `redis-smol`), [`Backend`] for your own; [`CacheBackend`] for typed calls of one |
//! | composing by value | [`Compose`], [`Composition`], [`CompositionBackend`] |
//! | watching and operating | [`Cache::events`], [`Cache::health`], [`Cache::hot_keys`], [`Cache::bypass`], [`Region::peek`] |
//! | which tiers are asked and awaited | [`composition::ReadPolicy`], [`composition::WritePolicy`], [`composition::RefillPolicy`], [`Compose`] |
//! | what is written | [`codec`]: formats, compressors, limits |
//! | failures | [`Error`], [`ErrorKind`], [`Lookup::degraded`] |
//! | runtimes | the crates `tierkeep-tokio`, `tierkeep-async-std`, `tierkeep-smol` and `tierkeep-sim`; [`runtime`] for your own |
//!
//! # What a reader may rely on
//!
//! When [`set`](Region::set), [`remove`](Region::remove) or [`clear`](Region::clear) has returned, no read through this
//! cache gives an older value, whatever was under way. This holds within a process; two caches over one store count as
//! two processes.
//!
//! Futures may be dropped at any time; what that means for a change under way is said at each of them.
//!
//! # Features
//!
//! | feature | what it brings |
//! |---|---|
//! | `disk` (default) | `backend::DiskBackend` |
//! | `backplane` | `backplane`: processes that share a store tell each other what they write |
//! | `moka` | `MokaBackend`: time-to-idle, a removal listener, a weigher |
//! | `redis-tokio`, `redis-smol` | `backend::RedisBackend`, inside tokio or inside smol and async-std (`redis`, which they share, does nothing alone); `redis-tokio-tls`, `redis-smol-tls`, `cluster`, `sentinel` for more ways to reach a store |
//! | `gzip`, `zstd` | compressors; with `zstd`, dictionaries that regions train |
//! | `bincode`, `ron`, `rkyv_format` | formats, beside postcard and JSON |
//! | `metrics`, `tracing` | what the cache does, through these facades |
//! | `uuid` | UUIDs as keys |
//! | `testing` | for tests: the conformance suite for runtimes, the contract suite for backends, hooks that crash actors |
//!
//! Each adds; none changes what is there without it.

// The engine never panics on its own account, and says why a size fits. Tests may be shorter.
#![warn(clippy::unwrap_used, clippy::cast_possible_truncation)]

#[cfg(feature = "rkyv_format")]
mod archived;
pub mod backend;
#[cfg(feature = "backplane")]
pub mod backplane;
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
#[cfg_attr(not(feature = "testing"), expect(dead_code, unreachable_pub, reason = "public with `testing`"))]
mod planted;
mod region;
pub mod runtime;
mod store;
mod sync;
mod tier;
mod value;
pub mod write_behind;

/// What an implementation of [`Backend`] is annotated with.
pub use async_trait::async_trait;
#[cfg(feature = "moka")]
pub use backend::MokaBackend;
pub use backend::{Backend, BackendResult, CacheBackend, MemoryBackend};
pub use cache::{Cache, CacheBuilder};
pub use composition::{Compose, Composition, CompositionBackend};
pub use error::{Error, ErrorKind, Result};
#[cfg(feature = "rkyv_format")]
pub use hit::HitInfo;
pub use hit::{Hit, Lookup};
#[cfg(feature = "testing")]
pub use key::deterministic_hashing;
pub use key::{CacheKey, KeyHash, KeyHasher, KeyPart, KeyParts, KeyProbe, KeyWriter};
pub use key_format::CacheKeyFormat;
pub use observe::{
    BypassCause, Event, EventKind, EventStream, Health, HealthCause, HealthReason, HealthStatus, HotKey,
    Inspection, TierInspection,
};
#[cfg(feature = "testing")]
pub use order::FenceCounts;
#[cfg(feature = "testing")]
pub use planted::{Plant, plant, plant_everywhere};
pub use region::{Region, RegionBuilder};
pub use tier::{
    BreakerOptions, BreakerState, ErrorPolicy, ReadCounts, Tier, TierOptions, WriteBehindCounts,
    WriteBehindInspection, WriteCounts,
};
pub use value::{
    BackendLabel, CacheValue, DeleteStatus, Entry, Freshness, Meta, Object, Packed, Payload, Raw, Stamp,
    Timestamp,
};

/// Runs the README's code with the doctests.
#[cfg(all(doctest, feature = "disk"))]
#[doc = include_str!("../README.md")]
struct Readme;
