//! Redis (and Valkey) as a tier: shared by processes, reached by batches, calm while it is away.
//!
//! ```no_run
//! use std::time::Duration;
//! use tierkeep::backend::{RedisBackend, RedisDriver};
//! use tierkeep::{Cache, MemoryBackend, Region, Tier};
//! # #[cfg(feature = "redis-tokio")]
//! # async fn example() -> tierkeep::Result<()> {
//! use tierkeep_tokio::TokioRuntime;
//!
//! let redis = RedisBackend::builder(RedisDriver::Tokio).url("redis://cache.internal/0").namespace("shop").build()?;
//! let watched = redis.clone();
//! let cache = Cache::builder(TokioRuntime::current())
//!     .tier(Tier::new(MemoryBackend::entries(10_000)).ttl_cap(Duration::from_secs(30)))
//!     .tier(redis)
//!     .build()
//!     .await?;
//! let users: Region<String, u64> = cache.region("user").ttl(Duration::from_secs(300)).build()?;
//! users.set(&7, "Ada".to_owned()).await?; // SET shop:user:v1:7 … PX 300000
//! println!("{:?}", watched.stats().state);
//! # Ok(())
//! # }
//! ```

mod builder;
mod clears;
#[cfg(feature = "redis-cluster")]
mod cluster;
mod connect;
mod credentials;
mod driver;
mod failure;
mod keyspace;
mod node;
mod plain;
mod reading;
mod script;
#[cfg(feature = "redis-sentinel")]
mod sentinel;
mod servers;
mod shared;
#[cfg(feature = "redis-cluster")]
mod slots;
mod state;
mod store;
mod stored;
mod target;
mod writing;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use builder::RedisBuilder;
pub use credentials::{Credentials, CredentialsProvider};
pub use driver::RedisDriver;
pub use state::{ConnectionState, RedisStats};
use store::Store;
use writing::Write;

use super::{Backend, BackendResult, OpenContext, Scope};
use crate::codec::{Compressor, Format};
use crate::error::{Error, ErrorKind};
use crate::key::CacheKey;
use crate::key_format::CacheKeyFormat;
use crate::runtime::RuntimeHandle;
use crate::tier::TierOptions;
use crate::value::{BackendLabel, CacheValue, DeleteStatus, Entry, Meta, Payload, Raw, Stamp};

/// A tier in Redis. See the [module](self). Clones share the connections.
#[derive(Clone)]
pub struct RedisBackend(Arc<Store>);

impl RedisBackend {
    /// A builder of backends whose connections `driver` drives.
    pub fn builder(driver: RedisDriver) -> RedisBuilder {
        RedisBuilder::new(driver)
    }

    /// How the connections fare. Waits for nothing.
    pub fn stats(&self) -> RedisStats {
        self.0.stats()
    }
}

#[async_trait]
impl Backend for RedisBackend {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        one(self.read_many(std::slice::from_ref(key)).await)
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        one(self.write_many(vec![(key.clone(), value)]).await)
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        one(self.0.remove(std::iter::once(key)).await)
    }

    fn label(&self) -> BackendLabel {
        self.0.options.label.clone()
    }

    fn value_format(&self) -> &dyn Format {
        &*self.0.options.format
    }

    fn compressor(&self) -> &dyn Compressor {
        &*self.0.options.compressor
    }

    fn key_format(&self) -> &CacheKeyFormat {
        self.0.shared.keyspace.format()
    }

    async fn read_many(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<CacheValue<Raw>>>> {
        let answers = self.0.read(keys).await;
        answers
            .into_iter()
            .map(|answer| Ok(answer?.map(|(raw, _)| CacheValue::new(raw, None, None))))
            .collect()
    }

    async fn write_many(&self, entries: Vec<(CacheKey, CacheValue<Raw>)>) -> Vec<BackendResult<()>> {
        let writes = entries.into_iter().map(|(key, value)| {
            let kept_until = value.expire();
            Write { key, raw: value.into_inner(), stamp: None, kept_until }
        });
        self.0.write(writes.collect()).await
    }

    async fn remove_many(&self, keys: &[CacheKey]) -> Vec<BackendResult<DeleteStatus>> {
        self.0.remove(keys.iter()).await
    }

    async fn read_entries(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<Entry>>> {
        let answers = self.0.read(keys).await;
        answers.into_iter().map(|answer| Ok(answer?.map(entry))).collect()
    }

    async fn write_entries(&self, entries: Vec<(CacheKey, Entry)>) -> Vec<BackendResult<()>> {
        if entries.iter().any(|(_, entry)| matches!(entry.payload, Payload::Object(..))) {
            let error = Error::new(ErrorKind::Unsupported, "the Redis tier stores bytes, not objects");
            return entries.iter().map(|_| Err(error.clone())).collect();
        }
        let writes = entries.into_iter().filter_map(|(key, entry)| match entry.payload {
            Payload::Bytes(raw) => {
                Some(Write { key, raw, stamp: Some(entry.meta.stamp), kept_until: entry.meta.kept_until() })
            }
            Payload::Object(..) => None,
        });
        self.0.write(writes.collect()).await
    }

    async fn clear(&self, scope: &Scope, stamp: Stamp) -> BackendResult<()> {
        self.0.clear(scope, stamp).await
    }

    fn tier_options(&self) -> TierOptions {
        TierOptions {
            read_deadline: Duration::from_millis(50),
            write_deadline: Duration::from_millis(250),
            mailbox: 4096,
            concurrency: 2,
            ..TierOptions::default()
        }
    }

    fn residual(&self) -> Option<Duration> {
        // Where stamps are compared, what arrives late is refused; else it may be applied as long as TCP keeps trying.
        Some(if self.0.options.compare { Duration::ZERO } else { Duration::from_secs(30) })
    }

    fn suits(&self, runtime: &RuntimeHandle) -> BackendResult<()> {
        self.0.options.driver.suits(runtime)
    }

    async fn open(&self, context: &OpenContext) -> BackendResult<()> {
        self.0.open(context).await
    }

    async fn reopen(&self) -> BackendResult<()> {
        self.0.servers.connect_now().await
    }
}

fn entry((raw, stamp): (Raw, Stamp)) -> Entry {
    Entry::new(Payload::Bytes(raw), Meta { stamp, ..Meta::default() })
}

/// The answer of a batch of one.
fn one<T>(mut answers: Vec<BackendResult<T>>) -> BackendResult<T> {
    answers.pop().unwrap_or_else(|| Err(failure::unexpected("a batch of one")))
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither addresses nor credentials.
        f.debug_struct("RedisBackend")
            .field("label", &self.0.options.label)
            .field("state", &self.stats().state)
            .finish_non_exhaustive()
    }
}
