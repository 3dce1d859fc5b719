//! One server for the whole suite; each test has a namespace of its own.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tierkeep::backend::{OpenContext, RedisBackend, RedisBuilder, RedisDriver};
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{
    Backend, CacheKey, DeleteStatus, Entry, KeyPart, Meta, Payload, Raw, Result, Stamp, Tier, Timestamp,
};
use tierkeep_smol::SmolRuntime;
use tierkeep_test_servers::{Client, RedisServer, Reply};

pub(crate) static SERVER: LazyLock<RedisServer> = LazyLock::new(|| RedisServer::start().unwrap());

/// A namespace that no other test has.
pub(crate) fn namespace() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A backend on a server, open on smol, and the server as redis-cli would see it.
pub(crate) struct World {
    pub(crate) redis: RedisBackend,
    pub(crate) namespace: String,
    pub(crate) runtime: RuntimeHandle,
    began: Timestamp,
    raw: Client,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub(crate) fn with(options: impl FnOnce(RedisBuilder) -> RedisBuilder) -> Self {
        Self::on(&SERVER, options)
    }

    pub(crate) fn on(server: &RedisServer, options: impl FnOnce(RedisBuilder) -> RedisBuilder) -> Self {
        let namespace = namespace();
        let redis = options(builder(server, &namespace)).build().unwrap();
        let runtime = RuntimeHandle::new(SmolRuntime::new());
        open(&redis, &runtime);
        let began = runtime.wall();
        Self { redis, namespace, runtime, began, raw: server.client().unwrap() }
    }

    /// Another process's backend over the same entries.
    pub(crate) fn other(&self) -> RedisBackend {
        let redis = builder(&SERVER, &self.namespace).build().unwrap();
        open(&redis, &self.runtime);
        redis
    }

    /// What the server says to a command.
    pub(crate) fn command(&mut self, args: &[&str]) -> Reply {
        self.raw.command(args).unwrap()
    }

    /// A key's name in the store.
    pub(crate) fn name(&self, key: &CacheKey) -> String {
        format!("{}:{key}", self.namespace)
    }

    pub(crate) fn wall(&self) -> Timestamp {
        self.runtime.wall()
    }

    /// A stamp of when this began; those with a greater `count` are later.
    pub(crate) fn stamp(&self, count: u16) -> Stamp {
        Stamp { time: (self.began.as_millis() << 16) + u64::from(count), node: 1 }
    }

    /// Writes what has no expiry.
    pub(crate) fn write(&self, key: &CacheKey, bytes: &'static str, stamp: Stamp) -> Result<()> {
        self.write_meta(key, bytes, Meta { stamp, ..Meta::default() })
    }

    pub(crate) fn write_meta(&self, key: &CacheKey, bytes: &'static str, meta: Meta) -> Result<()> {
        let entry = Entry::new(Payload::Bytes(Raw::from_static(bytes.as_bytes())), meta);
        smol::block_on(self.redis.write_entries(vec![(key.clone(), entry)])).remove(0)
    }

    pub(crate) fn remove(&self, key: &CacheKey, stamp: Stamp) -> Result<DeleteStatus> {
        smol::block_on(self.redis.remove_entries(vec![(key.clone(), stamp)])).remove(0)
    }

    /// What stands under a key, as text.
    pub(crate) fn read(&self, key: &CacheKey) -> Option<String> {
        read(&self.redis, key)
    }
}

pub(crate) fn builder(server: &RedisServer, namespace: &str) -> RedisBuilder {
    RedisBackend::builder(RedisDriver::Smol).url(&server.url()).namespace(namespace)
}

pub(crate) fn open(redis: &RedisBackend, runtime: &RuntimeHandle) {
    smol::block_on(redis.open(&OpenContext::new(runtime.clone()))).unwrap();
}

pub(crate) fn read(redis: &RedisBackend, key: &CacheKey) -> Option<String> {
    let value = smol::block_on(redis.read(key)).unwrap()?;
    Some(String::from_utf8(value.into_inner().to_vec()).unwrap())
}

pub(crate) fn key(id: u32) -> CacheKey {
    key_in("user", id)
}

pub(crate) fn key_in(region: &str, id: u32) -> CacheKey {
    CacheKey::new(region, 1, [KeyPart::flag(id.to_string())])
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Within this an answer comes, however busy the machine is.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A tier with deadlines that a busy machine keeps.
pub(crate) fn patient(redis: RedisBackend) -> Tier {
    Tier::new(redis).read_deadline(SOON).write_deadline(SOON)
}

/// Waits until `done`, for a minute and many looks.
pub(crate) async fn until(runtime: &RuntimeHandle, what: &str, mut done: impl AsyncFnMut() -> bool) {
    let (deadline, mut looks) = (runtime.now().after(SOON), 0);
    while !done().await {
        looks += 1;
        // A process that was stopped for a minute has not waited.
        assert!(looks < 200 || runtime.now() < deadline, "{what} took more than a minute");
        runtime.sleep(ms(5)).await;
    }
}
