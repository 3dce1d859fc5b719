//! The store behind [`RedisBackend`](super::RedisBackend): what is read, written and removed, and how it is asked.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};

use super::driver::RedisDriver;
use super::failure;
use super::node::Node;
use super::shared::Shared;
use super::state::{Counts, RedisStats};
use super::stored::{self, Stored};
use super::target::Target;
use crate::backend::BackendResult;
use crate::codec::{Compressor, Format};
use crate::error::Result;
use crate::key::CacheKey;
use crate::value::{BackendLabel, DeleteStatus, Raw, Stamp, Timestamp};

pub(super) struct Store {
    pub(super) shared: Arc<Shared>,
    pub(super) options: StoreOptions,
    node: Arc<Node>,
}

pub(super) struct StoreOptions {
    pub(super) driver: RedisDriver,
    pub(super) label: BackendLabel,
    pub(super) format: Box<dyn Format>,
    pub(super) compressor: Box<dyn Compressor>,
}

/// What is to be stored under a key.
pub(super) struct Write {
    pub(super) key: CacheKey,
    pub(super) raw: Raw,
    pub(super) stamp: Stamp,
    pub(super) kept_until: Option<Timestamp>,
}

/// How long a value has to live, as the store is told.
#[derive(Debug, PartialEq)]
enum Life {
    Over,
    Millis(u64),
    Endless,
}

/// Beyond this the store's arithmetic would overflow; it is as good as for ever.
const ENDLESS: Duration = Duration::from_secs(10_000 * 365 * 24 * 3600);

impl Life {
    fn at(kept_until: Option<Timestamp>, now: Timestamp) -> Self {
        let Some(until) = kept_until else { return Self::Endless };
        match until.as_millis().checked_sub(now.as_millis()) {
            None | Some(0) => Self::Over,
            Some(left) if u128::from(left) >= ENDLESS.as_millis() => Self::Endless,
            Some(left) => Self::Millis(left),
        }
    }
}

impl Store {
    pub(super) fn new(shared: Arc<Shared>, target: Target, options: StoreOptions) -> Self {
        let node = Node::new(&shared, target);
        Self { shared, options, node }
    }

    pub(super) fn stats(&self) -> RedisStats {
        self.shared.counts.stats(self.node.state(), 1)
    }

    pub(super) async fn connect_now(&self) -> Result<()> {
        self.node.connect_now().await
    }

    // ---- reading

    pub(super) async fn read(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<Stored>>> {
        if keys.is_empty() {
            return Vec::new();
        }
        match self.fetch(keys).await {
            Ok(answers) => answers.into_iter().map(|answer| self.stored(answer)).collect(),
            Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn fetch(&self, keys: &[CacheKey]) -> Result<Vec<Value>> {
        let one = keys.len() == 1;
        let mut command = Cmd::with_capacity(keys.len() + 1, keys.len() * 64);
        command.arg(if one { "GET" } else { "MGET" });
        let mut name = Vec::with_capacity(64);
        for key in keys {
            name.clear();
            self.shared.keyspace.write(key, &mut name);
            command.arg(&name[..]);
        }
        match self.node.one(&command).await? {
            value if one => Ok(vec![value]),
            Value::Array(values) if values.len() == keys.len() => Ok(values),
            Value::ServerError(error) => Err(failure::refusal(&error)),
            _ => Err(failure::unexpected("MGET")),
        }
    }

    fn stored(&self, answer: Value) -> BackendResult<Option<Stored>> {
        match answer {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => Ok(Some(Stored::read(stored::raw(bytes)))),
            Value::ServerError(error) if failure::is_wrong_type(&error) => {
                Counts::one(&self.shared.counts.wrong_type);
                Err(failure::wrong_type())
            }
            Value::ServerError(error) => Err(failure::refusal(&error)),
            _ => Err(failure::unexpected("GET")),
        }
    }

    // ---- writing

    pub(super) async fn write(&self, writes: Vec<Write>) -> Vec<BackendResult<()>> {
        let count = writes.len();
        match self.send(writes).await {
            Ok(answers) => answers.into_iter().map(done).collect(),
            Err(error) => (0..count).map(|_| Err(error.clone())).collect(),
        }
    }

    async fn send(&self, writes: Vec<Write>) -> Result<Vec<Value>> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.shared.runtime()?.wall();
        let commands = writes.into_iter().map(|write| {
            let name = self.shared.keyspace.name(&write.key);
            match Life::at(write.kept_until, now) {
                Life::Over => unlink(&name),
                life => set(&name, &stored::value(write.raw, write.stamp), &life),
            }
        });
        self.node.many(commands.collect()).await
    }

    // ---- removing

    pub(super) async fn remove(&self, keys: &[CacheKey]) -> Vec<BackendResult<DeleteStatus>> {
        if keys.is_empty() {
            return Vec::new();
        }
        let commands = keys.iter().map(|key| unlink(&self.shared.keyspace.name(key)));
        match self.node.many(commands.collect()).await {
            Ok(answers) => answers.into_iter().map(removed).collect(),
            Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
        }
    }
}

fn set(name: &[u8], value: &[u8], life: &Life) -> Cmd {
    let mut command = Cmd::with_capacity(5, name.len() + value.len() + 16);
    command.arg("SET").arg(name).arg(value);
    if let Life::Millis(left) = life {
        command.arg("PX").arg(*left);
    }
    command
}

fn unlink(name: &[u8]) -> Cmd {
    let mut command = Cmd::with_capacity(2, name.len() + 8);
    command.arg("UNLINK").arg(name);
    command
}

fn done(answer: Value) -> BackendResult<()> {
    match answer {
        Value::Okay | Value::Int(_) => Ok(()),
        Value::ServerError(error) => Err(failure::refusal(&error)),
        _ => Err(failure::unexpected("SET")),
    }
}

fn removed(answer: Value) -> BackendResult<DeleteStatus> {
    match answer {
        Value::Int(0) => Ok(DeleteStatus::Missing),
        Value::Int(_) => Ok(DeleteStatus::Deleted(1)),
        Value::ServerError(error) => Err(failure::refusal(&error)),
        _ => Err(failure::unexpected("UNLINK")),
    }
}
