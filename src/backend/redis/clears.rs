//! Clears: marks in the store that hide what was written at or before them, in every process, and the deletion of
//! what they hide, afterwards and in the background.
//!
//! The marks are a hash, from region to the time of its clear, and beside it a version that every clear changes. Each
//! batch of reads brings the version along; where it is not the one known here, the marks are read before anything is
//! answered. In a cluster there are copies over the whole range of slots, so that each node has one at hand and none
//! depends on another.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use redis::Value;

use super::failure;
use super::script::RECORD_CLEAR;
use super::servers::{Keyed, Servers};
use super::shared::Shared;
use crate::backend::{BackendResult, Scope};
use crate::error::Result;
use crate::key::CacheKey;
use crate::value::Stamp;

/// Past this many regions on record, a further clear counts for all of them.
pub(super) const MAX_REGIONS: usize = 4096;

/// Copies of the marks in a cluster: each covers a 64th of the slots.
#[cfg(feature = "cluster")]
pub(super) const COPIES: usize = 64;

pub(super) struct Clears {
    marks: ArcSwap<Marks>,
    names: Vec<Names>,
}

/// One copy's names and slot.
struct Names {
    marks: String,
    version: String,
    slot: u16,
}

#[derive(Clone, Default)]
struct Marks {
    /// The versions that these marks include, by copy; `None`: there has been no clear.
    versions: Vec<Option<Vec<u8>>>,
    all: u64,
    regions: HashMap<Arc<str>, u64>,
}

impl Marks {
    fn is_empty(&self) -> bool {
        self.all == 0 && self.regions.is_empty()
    }

    fn covering(&self, region: &str) -> u64 {
        self.regions.get(region).copied().unwrap_or(0).max(self.all)
    }

    fn note(&mut self, region: &str, time: u64) {
        if region.is_empty() {
            self.all = self.all.max(time);
            let all = self.all;
            self.regions.retain(|_, mark| *mark > all);
        } else if let Some(mark) = self.regions.get_mut(region) {
            *mark = time.max(*mark);
        } else {
            self.regions.insert(region.into(), time);
        }
    }
}

impl Clears {
    pub(super) fn new(shared: &Shared, servers: &Servers) -> Self {
        let names: Vec<_> = tags(servers)
            .into_iter()
            .map(|tag| {
                let marks = shared.keyspace.reserved(&format!("clears{tag}"));
                Names { slot: servers.slot(marks.as_bytes()), version: format!("{marks}:version"), marks }
            })
            .collect();
        let marks = Marks { versions: vec![None; names.len()], ..Marks::default() };
        Self { marks: ArcSwap::from_pointee(marks), names }
    }

    /// The name under which a copy's version stands, and its slot.
    pub(super) fn version_name(&self, copy: usize) -> (&str, u16) {
        let names = &self.names[copy];
        (&names.version, names.slot)
    }

    /// The copies' slots, in their order.
    #[cfg(feature = "cluster")]
    pub(super) fn slots(&self) -> impl Iterator<Item = u16> {
        self.names.iter().map(|names| names.slot)
    }

    /// Whether a clear that is known here hides an entry.
    pub(super) fn hides(&self, key: &CacheKey, stamp: Stamp) -> bool {
        let marks = self.marks.load();
        // Mostly there are none, and the region need not be looked for.
        let covering = if marks.is_empty() { 0 } else { marks.covering(key.prefix()) };
        stamp.time <= covering
    }

    /// A stamp for what comes without one: after every clear that is known here, before any later one.
    pub(super) fn unstamped(&self, key: &CacheKey) -> Stamp {
        Stamp { time: self.marks.load().covering(key.prefix()) + 1, node: 0 }
    }

    /// Takes note of the version that came along with a read; reads the marks if it is another than is known here.
    pub(super) async fn see(&self, copy: usize, version: Value, servers: &Servers) -> Result<()> {
        let version = match version {
            Value::Nil => None,
            Value::BulkString(version) => Some(version),
            Value::ServerError(error) => return Err(failure::refusal(&error)),
            _ => return Err(failure::unexpected("the version of the clears")),
        };
        // Gone (evicted, or everything was flushed): what is known stays known.
        if version.is_none() || self.marks.load().versions[copy] == version {
            return Ok(());
        }
        self.learn(copy, servers).await
    }

    async fn learn(&self, copy: usize, servers: &Servers) -> Result<()> {
        let names = &self.names[copy];
        let mut get = redis::cmd("GET");
        get.arg(&names.version);
        let mut all = redis::cmd("HGETALL");
        all.arg(&names.marks);
        // The version first: the marks are then at least as new.
        let commands = [get, all, redis::cmd("TIME")].map(|command| Keyed { slot: names.slot, command });
        let mut answers = servers.send(commands.into()).await.into_iter();
        let (Some(version), Some(marks), Some(time)) = (answers.next(), answers.next(), answers.next())
        else {
            return Err(failure::unexpected("the marks of the clears"));
        };
        let version = match version? {
            Value::BulkString(version) => Some(version),
            Value::Nil => None,
            Value::ServerError(error) => return Err(failure::refusal(&error)),
            _ => return Err(failure::unexpected("the version of the clears")),
        };
        let mut found = read_marks(marks?)?;
        // As the script that records them: one from a clock far ahead would hide all that is written until then.
        let latest = latest_believed(&time?);
        found.retain(|(_, time)| *time <= latest);
        self.marks.rcu(|marks| {
            let mut marks = Marks::clone(marks);
            for (region, time) in &found {
                marks.note(region, *time);
            }
            marks.versions[copy].clone_from(&version);
            marks
        });
        Ok(())
    }

    /// Records a clear in every copy. Returns up to which stamp it counts: the store takes a time that is more than an
    /// hour ahead of its own clock for its own.
    pub(super) async fn record(
        &self,
        scope: &Scope,
        stamp: Stamp,
        servers: &Servers,
    ) -> BackendResult<Stamp> {
        let region = match scope {
            Scope::Prefix(region) => &**region,
            Scope::All => "",
        };
        let (time, limit) = (format!("{:016x}", stamp.time), MAX_REGIONS.to_string());
        let version = format!("{time}-{:08x}-{region}", stamp.node);
        let calls = || {
            let call = |names: &Names| {
                let keys = [names.marks.as_bytes(), names.version.as_bytes()];
                let arguments = [region, &time, &version, &limit].map(str::as_bytes);
                let command = RECORD_CLEAR.call(keys.into_iter(), arguments.into_iter());
                Keyed { slot: names.slot, command }
            };
            self.names.iter().map(call).collect()
        };
        let mut counts = 0;
        for answer in servers.run(&RECORD_CLEAR, calls).await {
            match answer? {
                Value::BulkString(time) => {
                    counts = read_time(&time).ok_or_else(|| failure::unexpected("a clear"))?.max(counts);
                }
                Value::ServerError(error) => return Err(failure::refusal(&error)),
                _ => return Err(failure::unexpected("a clear")),
            }
        }
        self.marks.rcu(|marks| {
            let mut marks = Marks::clone(marks);
            marks.note(region, counts);
            marks
        });
        Ok(Stamp { time: counts, ..stamp })
    }
}

/// What follows the names of the marks: nothing, or hash tags that spread the copies over the slots.
fn tags(servers: &Servers) -> Vec<String> {
    match servers {
        Servers::One(_) => vec![String::new()],
        #[cfg(feature = "cluster")]
        Servers::Cluster(_) => {
            super::slots::spread(COPIES).into_iter().map(|tag| format!("{{{tag}}}")).collect()
        }
    }
}

fn read_marks(value: Value) -> Result<Vec<(String, u64)>> {
    let pairs = match value {
        Value::Array(items) => {
            let mut pairs = Vec::with_capacity(items.len() / 2);
            let mut items = items.into_iter();
            while let (Some(region), Some(time)) = (items.next(), items.next()) {
                pairs.push((region, time));
            }
            pairs
        }
        Value::Map(pairs) => pairs,
        Value::ServerError(error) => return Err(failure::refusal(&error)),
        _ => return Err(failure::unexpected("the marks of the clears")),
    };
    let read = |(region, time): (Value, Value)| {
        let (Value::BulkString(region), Value::BulkString(time)) = (region, time) else { return None };
        Some((String::from_utf8(region).ok()?, read_time(&time)?))
    };
    // What is damaged hides nothing: reads do not fail for ever because of it.
    Ok(pairs.into_iter().filter_map(read).collect())
}

/// A stamp's time, of 16 hex digits.
fn read_time(text: &[u8]) -> Option<u64> {
    let digits = text.len() == 16 && text.iter().all(u8::is_ascii_hexdigit);
    digits.then(|| u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()).flatten()
}

/// The latest time that is believed, an hour after the store's answer to TIME; where it gives none, any is.
fn latest_believed(time: &Value) -> u64 {
    let Value::Array(parts) = time else { return u64::MAX };
    let Some(Value::BulkString(seconds)) = parts.first() else { return u64::MAX };
    let seconds = std::str::from_utf8(seconds).ok().and_then(|text| text.parse::<u64>().ok());
    seconds.map_or(u64::MAX, |seconds| seconds.saturating_add(3700).saturating_mul(1000) << 16)
}
