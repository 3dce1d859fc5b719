//! Reading: one GET or MGET to a single server, GETs to each node of a cluster, and what is made of the answers.

use std::sync::atomic::Ordering;
use std::time::Duration;

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
use crate::runtime::Instant;
use crate::value::{Raw, Stamp};

/// How long the replica may take before the primary is asked, and for how long it is left alone then.
const REPLICA_ANSWER: Duration = Duration::from_millis(20);
const REPLICA_REST: Duration = Duration::from_secs(1);

/// A value and its stamp.
pub(super) type Found = BackendResult<Option<(Raw, Stamp)>>;

impl Store {
    pub(super) async fn read(&self, keys: &[CacheKey]) -> Vec<Found> {
        if keys.is_empty() {
            return Vec::new();
        }
        let fetched = match self.fetch_replicated(keys).await {
            Some(found) => return found,
            None => self.fetch_any(keys, &self.servers).await,
        };
        let fetched = match fetched {
            // A connection that turned out to be gone: the next one may be there already. Reading twice does no harm.
            Err(error) if error.kind() == ErrorKind::Unavailable => self.fetch_any(keys, &self.servers).await,
            fetched => fetched,
        };
        fetched.unwrap_or_else(|error| keys.iter().map(|_| Err(error.clone())).collect())
    }

    /// From the replica, if there is one and it answers soon. One that does not is left alone for a while: the tier's
    /// deadline, and with it the breaker that holds for writes too, is not to pay for it.
    async fn fetch_replicated(&self, keys: &[CacheKey]) -> Option<Vec<Found>> {
        let (replica, runtime) = (self.replica.as_ref()?, self.shared.runtime().ok()?);
        let now = runtime.now();
        if now < Instant::from_nanos(self.replica_rests_until.load(Ordering::Relaxed)) {
            return None;
        }
        match runtime.deadline(now.after(REPLICA_ANSWER), self.fetch_any(keys, replica)).await {
            Some(fetched) => fetched.ok(),
            None => {
                self.replica_rests_until.store(now.after(REPLICA_REST).as_nanos(), Ordering::Relaxed);
                None
            }
        }
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
    #[cfg(feature = "cluster")]
    async fn fetch_by_slot(&self, keys: &[CacheKey]) -> Result<Vec<Result<Value>>> {
        let Servers::Cluster(cluster) = &*self.servers else { return Ok(Vec::new()) };
        let names: Vec<_> = keys.iter().map(|key| self.shared.keyspace.name(key)).collect();
        let slots: Vec<_> = names.iter().map(|name| self.servers.slot(name)).collect();
        let copies: Vec<_> = self.clears.slots().collect();
        let near = cluster.nearest(&copies, slots.iter().copied()).await?;
        let mut asked = near.clone();
        asked.sort_unstable();
        asked.dedup();
        let versions = asked.iter().map(|&copy| {
            let (name, slot) = self.clears.version_name(copy);
            Keyed { slot, command: get(name.as_bytes()) }
        });
        let values = names.iter().zip(slots).map(|(name, slot)| Keyed { slot, command: get(name) });
        let mut answers = self.servers.send(versions.chain(values).collect()).await;
        let mut values = answers.split_off(asked.len());
        for (copy, version) in asked.into_iter().zip(answers) {
            let seen = match version {
                Ok(version) => self.clears.see(copy, version, &self.servers).await,
                Err(error) => Err(error),
            };
            // Where a version cannot be had, neither can the values beside it: a clear may hide them. Other nodes' can.
            if let Err(error) = seen {
                let beside = near.iter().zip(&mut values).filter(|(near, _)| **near == copy);
                beside.for_each(|(_, value)| *value = Err(error.clone()));
            }
        }
        match values.first() {
            Some(Err(error)) if values.iter().all(Result::is_err) => Err(error.clone()),
            _ => Ok(values),
        }
    }

    #[cfg(not(feature = "cluster"))]
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
        let hidden: Vec<_> = keys.iter().map(|key| self.wipes.hides(key, &self.shared.keyspace)).collect();
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
        let found = keys.iter().zip(hidden).map(|(key, hidden)| {
            let (value, life) = pair().ok_or_else(|| failure::unexpected("GET"))?;
            let (value, life) = (self.bytes(value?)?.filter(|_| !hidden), life?);
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
