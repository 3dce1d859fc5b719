//! Redis as a tier; [`RedisBackend`] says how it behaves.
//!
//! A batch goes `store` (with `reading`, `writing` and `clears`) -> `servers` -> `node`; `script` is what runs inside the
//! server, `stored` what stands there, `keyspace` under which name.

#[cfg(feature = "backplane")]
mod backplane;
mod builder;
mod clears;
#[cfg(feature = "cluster")]
mod cluster;
mod connect;
mod credentials;
mod deletions;
mod driver;
mod failure;
mod keyspace;
mod node;
mod plain;
mod reading;
mod script;
#[cfg(feature = "sentinel")]
mod sentinel;
mod servers;
mod shared;
#[cfg(feature = "cluster")]
mod slots;
mod state;
mod store;
mod stored;
mod target;
mod turns;
mod wipes;
mod writing;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

#[cfg(feature = "backplane")]
pub use backplane::RedisBackplane;
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

/// How long after it was given up a write may be applied by a store that does not compare stamps: TCP gives up earlier.
const RESIDUAL: Duration = Duration::from_secs(30);

/// A tier in Redis (or Valkey): shared by processes, asked in batches, calm while it is away. Clones share the connections.
///
/// ```no_run
/// use std::time::Duration;
/// use tierkeep::backend::{RedisBackend, RedisDriver};
/// use tierkeep::{Cache, MemoryBackend, Region};
/// # #[cfg(feature = "redis-tokio")]
/// # async fn example() -> tierkeep::Result<()> {
/// use tierkeep_tokio::TokioRuntime;
///
/// let redis = RedisBackend::builder(RedisDriver::Tokio)
///     .url("redis://cache.internal/0")
///     .namespace("shop")
///     .build()?;
/// let watched = redis.clone();
/// let cache = Cache::builder(TokioRuntime::current())
///     .tier(MemoryBackend::entries(10_000))
///     .tier(redis)
///     .build()
///     .await?;
/// let users: Region<String, u64> = cache.region("user").ttl(Duration::from_secs(300)).build()?;
/// users.set(&7, "Ada".to_owned()).await?; // under `shop:user:v1:7`, for 300,000 ms
/// println!("{:?}", watched.stats().state);
/// # Ok(())
/// # }
/// ```
///
/// # Connections
///
/// The first call connects. A connection that is lost, or from which nothing comes back, is replaced in the background,
/// with backoff and jitter; until then calls fail at once, which the engine turns into misses. So a cache starts and
/// serves while the store is down. [`stats`](Self::stats) tells how it fares. Credentials are asked for at each
/// connection ([`RedisBuilder::credentials_from`]). The driver, tokio's or smol's, is chosen with [`RedisDriver`]; a cache
/// on another runtime is refused when it is built.
///
/// One connection to each server carries all calls. In a cluster (feature `cluster`) a batch is split by node, its
/// parts travel at the same time, and redirections are followed; behind sentinels (`sentinel`) each connection
/// asks for the master. TLS is rustls (`redis-tokio-tls`, `redis-smol-tls`).
///
/// # What is stored
///
/// One string per entry, under the namespace, a colon and the key: the [frame](crate::codec::frame) as the engine makes
/// it, with `PX` from the time until which it is kept, to the millisecond. Nothing is written that is dead already; what
/// it would have replaced is removed. Bytes that are no frame are misses that the engine counts, and another type of
/// Redis value is a miss; the next write replaces either. The backend's own records begin with `!` after the namespace.
///
/// # Clears
///
/// A clear records a mark; every process sees it with its next read and treats what was written at or before it as
/// absent. Then the entries it hides are deleted in the background, by `SCAN` and `UNLINK` in pieces of 500. Keys outside
/// of the namespace are never touched, nor those inside of it that are not the cache's. A server that goes down within
/// that time loses no clear, only the deletion: what is hidden stays until it expires.
///
/// # Order across processes
///
/// A write or a removal is applied by a script, only if nothing newer stands there, going by
/// [`Stamp`](crate::Stamp): neither a process that is late nor a command that was given up can undo what came after it.
/// A removal leaves a tombstone ([`RedisBuilder::tombstone_life`]), and so does an entry that lives shorter than one, so that
/// its stamp outlives it. What is under way for longer than a tombstone lives meets nothing that refuses it: on Linux the
/// system gives up a connection whose peer has acknowledged nothing for 20 s (two thirds of a shorter tombstone life),
/// elsewhere TCP may go on for minutes. A server that had received a command and stood still for that long executes it
/// all the same. Stamps follow the processes' clocks: two writes that no process saw one after the other are
/// ordered by them, so that clocks which differ by a second may let the earlier of two writes within that second win.
///
/// It costs the server some 0.9 µs of its thread per key over a `SET`, which takes 0.75 (in batches of 128, parsing included);
/// [`RedisBuilder::compare_stamps`] turns it off. An entry that lives shorter than a tombstone leaves a guard beside it,
/// `namespace:!g:{key}`, which a write looks for where nothing stands: in a cluster, in the key's own slot. Guards are not
/// among the script's declared keys, which servers other than Redis and Valkey may insist on: declaring them would cost
/// the server a tenth to a quarter more for every key, guarded or not.
///
/// # Plain values
///
/// With [`RedisBuilder::plain_values`] the string is the bare value in the tier's format (choose one that others read, such
/// as [`JsonFormat`](crate::codec::JsonFormat)), and its life the key's own. Lost with the frame are: stamps, and with them the order across
/// processes and the marks of clears; stale and retain times; the checksum; the key's fingerprint; compression. What is
/// read counts as written at the moment of the read.
///
/// A clear then deletes what it finds, in the background if that takes more than 100 ms. Until it is done, the process
/// that cleared reads the region as absent, but for what it has written itself since; others see what has not been
/// deleted yet. What another process writes meanwhile may be deleted too. It goes over the keys once, and once more only
/// after a lost connection, since a server that was replaced knows nothing of where it stood. It is tried until it
/// succeeds, for as long as the process lives: what is left then stays until it expires.
///
/// # Eviction
///
/// Size `maxmemory` so that evictions are rare, and choose a `volatile-*` policy: marks of clears have no expiry, and
/// survive it. An `allkeys-*` policy may evict them: then what a clear hid and had not been deleted yet would come back in
/// a process that starts later. Any policy may evict a tombstone, and with it the memory that something newer was
/// there: for the rest of its life a command that was given up could bring an older value back. `volatile-ttl` evicts
/// tombstones before all values that live longer than they do: prefer `volatile-lfu` or `volatile-lru`. Under `noeviction`
/// writes fail once the memory is full and their keys read as misses; removals work, and a clear deletes what it hides
/// before it is recorded: it fails, and the engine asks again.
///
/// # Permissions
///
/// An ACL user needs `~namespace:*` and the commands `mget get set mset pexpireat unlink getrange eval evalsha scan hset
/// hget hlen hexists hvals hgetall del time ping`; in another database than 0 `select`, with sentinels `role`, in a
/// cluster `cluster|info`, `cluster|slots` and `asking`, for plain values `pttl`; for the backplane `publish`, `subscribe` and its channel,
/// `&namespace:!backplane`.
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

    async fn remove_entries(&self, entries: Vec<(CacheKey, Stamp)>) -> Vec<BackendResult<DeleteStatus>> {
        self.0.remove_stamped(&entries).await
    }

    async fn clear(&self, scope: &Scope, stamp: Stamp) -> BackendResult<()> {
        self.0.clear(scope, stamp).await
    }

    fn tier_options(&self) -> TierOptions {
        TierOptions {
            read_deadline: Duration::from_millis(50),
            write_deadline: Duration::from_millis(250),
            mailbox: 4096,
            // A key more costs a call little: the fewer calls, the fewer turns of the connection's task.
            batch_keys: 512,
            // The script takes the server longer than a look: its next call should come before this one's keys are settled.
            write_batch_keys: self.0.options.compare.then_some(128),
            concurrency: 2,
            ..TierOptions::default()
        }
    }

    fn residual(&self) -> Option<Duration> {
        // Where stamps are compared, what arrives late is refused.
        Some(if self.0.options.compare { Duration::ZERO } else { RESIDUAL })
    }

    fn suits(&self, runtime: &RuntimeHandle) -> BackendResult<()> {
        self.0.options.driver.suits(runtime)
    }

    async fn open(&self, context: &OpenContext) -> BackendResult<()> {
        self.0.open(context).await
    }

    fn compares(&self) -> bool {
        self.0.options.compare
    }

    fn shared(&self) -> bool {
        true
    }

    fn authoritative(&self) -> bool {
        self.0.replica.is_none()
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
