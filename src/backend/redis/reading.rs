//! Reading: one GET or MGET to a single server, GETs to each node of a cluster, and what is made of the answers.

use redis::{Cmd, Value};

use super::failure;
use super::plain;
use super::servers::{Keyed, Servers};
use super::state::Counts;
use super::store::Store;
use super::stored::{self, Stored};
use crate::backend::BackendResult;
use crate::error::{ErrorKind, Result};
use crate::key::CacheKey;
use crate::value::{Raw, Stamp};

/// A value and its stamp.
pub(super) type Found = BackendResult<Option<(Raw, Stamp)>>;

impl Store {
    pub(super) async fn read(&self, keys: &[CacheKey]) -> Vec<Found> {
        if keys.is_empty() {
            return Vec::new();
        }
        let first = self.replica.as_ref().unwrap_or(&self.servers);
        let fetched = match self.fetch_any(keys, first).await {
            // A connection that turned out to be gone: the next one may be there already. Reading twice does no harm.
            Err(error) if error.kind() == ErrorKind::Unavailable || self.replica.is_some() => {
                self.fetch_any(keys, &self.servers).await
            }
            fetched => fetched,
        };
        fetched.unwrap_or_else(|error| keys.iter().map(|_| Err(error.clone())).collect())
    }

    async fn fetch_any(&self, keys: &[CacheKey], from: &Servers) -> Result<Vec<Found>> {
        if self.options.plain { self.read_plain(keys, from).await } else { self.fetch(keys, from).await }
    }

    async fn fetch(&self, keys: &[CacheKey], from: &Servers) -> Result<Vec<Found>> {
        let answers = match from.has_slots() {
            false => self.fetch_at_once(keys, from).await?,
            true => self.fetch_by_slot(keys).await?,
        };
        Ok(keys.iter().zip(answers).map(|(key, answer)| self.found(key, answer?)).collect())
    }

    /// The version of the clears and all values in one command. MGET costs a server less than as many GETs, and
    /// a client less to send and to read, from two keys on.
    async fn fetch_at_once(&self, keys: &[CacheKey], from: &Servers) -> Result<Vec<Result<Value>>> {
        let mut command = Cmd::with_capacity(keys.len() + 2, (keys.len() + 1) * 64);
        command.arg("MGET").arg(self.clears.version_name(0).0);
        let mut name = Vec::with_capacity(64);
        for key in keys {
            name.clear();
            self.shared.keyspace.write(key, &mut name);
            command.arg(&name[..]);
        }
        let answer = from.send(vec![Keyed { slot: 0, command }]).await.pop();
        match answer.unwrap_or_else(|| Err(failure::unexpected("MGET")))? {
            Value::Array(mut values) if values.len() == keys.len() + 1 => {
                let version = std::mem::take(&mut values[0]);
                self.clears.see(0, version, &self.servers).await?;
                Ok(values.into_iter().skip(1).map(Ok).collect())
            }
            Value::ServerError(error) => Err(failure::refusal(&error)),
            _ => Err(failure::unexpected("MGET")),
        }
    }

    /// A GET for each key, since hardly any two share a slot, and the version of the clears from each node concerned.
    #[cfg(feature = "redis-cluster")]
    async fn fetch_by_slot(&self, keys: &[CacheKey]) -> Result<Vec<Result<Value>>> {
        let Servers::Cluster(cluster) = &*self.servers else { return Ok(Vec::new()) };
        let names: Vec<_> = keys.iter().map(|key| self.shared.keyspace.name(key)).collect();
        let slots: Vec<_> = names.iter().map(|name| self.servers.slot(name)).collect();
        let copies: Vec<_> = self.clears.slots().collect();
        let near = cluster.nearest(&copies, slots.iter().copied()).await?;
        let versions = near.iter().map(|&copy| {
            let (name, slot) = self.clears.version_name(copy);
            Keyed { slot, command: get(name.as_bytes()) }
        });
        let values = names.iter().zip(slots).map(|(name, slot)| Keyed { slot, command: get(name) });
        let mut answers = self.servers.send(versions.chain(values).collect()).await;
        let values = answers.split_off(near.len());
        let mut unseen = None;
        for (copy, version) in near.into_iter().zip(answers) {
            // Where a version cannot be had, neither can the values beside it.
            match version {
                Ok(version) => self.clears.see(copy, version, &self.servers).await?,
                Err(error) => unseen = Some(error),
            }
        }
        match unseen {
            Some(error) if values.iter().all(Result::is_err) => Err(error),
            _ => Ok(values),
        }
    }

    #[cfg(not(feature = "redis-cluster"))]
    async fn fetch_by_slot(&self, keys: &[CacheKey]) -> Result<Vec<Result<Value>>> {
        self.fetch_at_once(keys, &self.servers).await
    }

    fn found(&self, key: &CacheKey, answer: Value) -> Found {
        let Some(raw) = self.bytes(answer)? else { return Ok(None) };
        match Stored::read(raw) {
            Stored::Value(_, stamp) if self.clears.hides(key, stamp) => Ok(None),
            Stored::Value(raw, stamp) => Ok(Some((raw, stamp))),
            // For the engine to count as what it is.
            Stored::Foreign(raw) => Ok(Some((raw, Stamp::ZERO))),
            Stored::Tombstone => Ok(None),
        }
    }

    fn bytes(&self, answer: Value) -> BackendResult<Option<Raw>> {
        match answer {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => Ok(Some(stored::raw(bytes))),
            Value::ServerError(error) if failure::is_wrong_type(&error) => {
                Counts::one(&self.shared.counts.wrong_type);
                Err(failure::wrong_type())
            }
            Value::ServerError(error) => Err(failure::refusal(&error)),
            _ => Err(failure::unexpected("GET")),
        }
    }

    // ---- plain values

    async fn read_plain(&self, keys: &[CacheKey], from: &Servers) -> Result<Vec<Found>> {
        let runtime = self.shared.runtime()?;
        // From before they are read: a clear that begins meanwhile hides them.
        let began = runtime.wall();
        let commands = keys.iter().flat_map(|key| {
            let name = self.shared.keyspace.name(key);
            let slot = self.servers.slot(&name);
            let mut life = redis::cmd("PTTL");
            life.arg(&name);
            [get(&name), life].map(|command| Keyed { slot, command })
        });
        let answers = from.send(commands.collect()).await;
        if let Some(Err(error)) = answers.first()
            && answers.iter().all(Result::is_err)
        {
            return Err(error.clone());
        }
        let mut answers = answers.into_iter();
        let now = runtime.wall();
        let mut pair = || Some((answers.next()?, answers.next()?));
        let found = keys.iter().map(|key| {
            let (value, life) = pair().ok_or_else(|| failure::unexpected("GET"))?;
            let (value, life) = (self.bytes(value?)?, life?);
            Ok(value.and_then(|value| plain::frame(key, &value, &life, &*self.options.format, began, now)))
        });
        Ok(found.collect())
    }
}

fn get(name: &[u8]) -> Cmd {
    let mut command = Cmd::with_capacity(2, name.len() + 3);
    command.arg("GET").arg(name);
    command
}
