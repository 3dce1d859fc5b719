//! One server for the whole suite; each test has a namespace of its own.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tierkeep::backend::{OpenContext, RedisBackend, RedisBuilder, RedisDriver};
use tierkeep::runtime::{Runtime, RuntimeHandle};
use tierkeep::{Backend, CacheKey, Entry, KeyPart, Meta, Payload, Raw, Stamp, Timestamp};
use tierkeep_smol::SmolRuntime;
use tierkeep_test_servers::{Client, RedisServer, Reply};

pub static SERVER: LazyLock<RedisServer> = LazyLock::new(|| RedisServer::start().unwrap());

/// A namespace that no other test has.
pub fn namespace() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A backend on a server, open on smol, and the server as redis-cli would see it.
pub struct World {
    pub redis: RedisBackend,
    pub namespace: String,
    pub runtime: RuntimeHandle,
    pub raw: Client,
}

impl World {
    pub fn new() -> Self {
        Self::with(&SERVER, |builder| builder)
    }

    pub fn with(server: &RedisServer, options: impl FnOnce(RedisBuilder) -> RedisBuilder) -> Self {
        let namespace = namespace();
        let builder = RedisBackend::builder(RedisDriver::Smol).url(&server.url()).namespace(&namespace);
        let redis = options(builder).build().unwrap();
        let runtime = RuntimeHandle::new(SmolRuntime::new());
        smol::block_on(redis.open(&OpenContext::new(runtime.clone()))).unwrap();
        Self { redis, namespace, runtime, raw: server.client().unwrap() }
    }

    /// What stands in the store under a key's name.
    pub fn command(&mut self, args: &[&str]) -> Reply {
        self.raw.command(args).unwrap()
    }

    pub fn name(&self, key: &CacheKey) -> String {
        format!("{}:{key}", self.namespace)
    }

    pub fn wall(&self) -> Timestamp {
        self.runtime.wall()
    }

    /// A stamp of now; those with a greater `count` are later.
    pub fn stamp(&self, count: u16) -> Stamp {
        Stamp { time: (self.wall().as_millis() << 16) + u64::from(count), node: 1 }
    }

    pub fn write(&self, key: &CacheKey, bytes: &'static str, meta: Meta) -> tierkeep::Result<()> {
        let entry = Entry::new(Payload::Bytes(Raw::from_static(bytes.as_bytes())), meta);
        smol::block_on(self.redis.write_entries(vec![(key.clone(), entry)])).remove(0)
    }

    pub fn read(&self, key: &CacheKey) -> Option<Raw> {
        smol::block_on(self.redis.read(key)).unwrap().map(tierkeep::CacheValue::into_inner)
    }
}

pub fn key(id: u32) -> CacheKey {
    CacheKey::new("user", 1, [KeyPart::new("id", Some(id.to_string()))])
}

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
