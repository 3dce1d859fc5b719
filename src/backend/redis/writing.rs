//! Writing and removing: plain commands, or a script that compares stamps first.

use std::ops::Range;
use std::time::Duration;

use redis::{Cmd, Value};

use super::failure;
use super::plain;
use super::script::STORE_IF_NEWER;
use super::servers::Keyed;
use super::state::Counts;
use super::store::Store;
use super::stored;
use crate::backend::BackendResult;
use crate::error::{Error, Result};
use crate::key::CacheKey;
use crate::value::{DeleteStatus, Raw, Stamp, Timestamp};

/// What is to be stored under a key.
pub(super) struct Write {
    pub(super) key: CacheKey,
    pub(super) raw: Raw,
    /// `None`: it comes without one, and is stored whatever stands there.
    pub(super) stamp: Option<Stamp>,
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

/// What a call of the script is to change. Names and lives stand in one text, so that no key allocates its own.
struct Changes<'s> {
    store: &'s Store,
    text: Vec<u8>,
    each: Vec<Change>,
}

/// One key's part in it.
struct Change {
    name: Range<usize>,
    slot: u16,
    /// Nothing: removes what has no stamp.
    bytes: Raw,
    /// In ms; nothing: for ever.
    life: Range<usize>,
    /// The milliseconds of the stamp of what the script can store at a glance; `None`: it has to look closely.
    simple: Option<u64>,
}

impl<'s> Changes<'s> {
    fn new(store: &'s Store, keys: usize) -> Self {
        Self { store, text: Vec::with_capacity(keys * 64), each: Vec::with_capacity(keys) }
    }

    /// `life`: in ms; `None`: for ever.
    fn push(&mut self, key: &CacheKey, bytes: Raw, life: Option<u64>) {
        let begin = self.text.len();
        self.store.shared.keyspace.write(key, &mut self.text);
        let end = self.text.len();
        if let Some(life) = life {
            self.text.extend_from_slice(itoa::Buffer::new().format(life).as_bytes());
        }
        let slot = self.store.servers.slot(&self.text[begin..end]);
        self.each.push(Change { name: begin..end, slot, bytes, life: end..self.text.len(), simple: None });
    }

    fn push_tombstone(&mut self, key: &CacheKey, stamp: Stamp) {
        self.push(key, stored::tombstone(stamp), Some(self.store.tombstone_life()));
    }

    /// The last one need not be looked at closely, if its bytes are as the script expects.
    fn at_a_glance(&mut self, stamp: Stamp) {
        if let Some(last) = self.each.last_mut() {
            last.simple = stored::is_plain_frame(&last.bytes).then_some(stamp.time >> 16);
        }
    }

    fn name(&self, place: usize) -> &[u8] {
        &self.text[self.each[place].name.clone()]
    }

    /// A value and its life.
    fn arguments(&self, place: usize) -> [&[u8]; 2] {
        let change = &self.each[place];
        [&change.bytes, &self.text[change.life.clone()]]
    }

    /// The places that go together: all, or those of a slot. Those that are looked at closely come last.
    fn groups(&self) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        if self.store.servers.has_slots() {
            let mut by_slot: std::collections::HashMap<u16, usize> = std::collections::HashMap::new();
            for (place, change) in self.each.iter().enumerate() {
                let group = *by_slot.entry(change.slot).or_insert(groups.len());
                groups.resize_with(groups.len().max(group + 1), Vec::new);
                groups[group].push(place);
            }
        } else if !self.each.is_empty() {
            groups.push((0..self.each.len()).collect());
        }
        for group in &mut groups {
            group.sort_by_key(|&place| self.each[place].simple.is_none());
        }
        groups
    }
}

/// What the script did about a key.
enum Outcome {
    /// Applied; whether there was a value.
    Applied(bool),
    Newer(Stamp),
}

impl Store {
    pub(super) async fn write(&self, writes: Vec<Write>) -> Vec<BackendResult<()>> {
        if self.options.compare && writes.iter().all(|write| write.stamp.is_some()) {
            return self.compare_and_write(writes).await;
        }
        let now = match self.shared.runtime() {
            Ok(runtime) => runtime.wall(),
            Err(error) => return writes.iter().map(|_| Err(error.clone())).collect(),
        };
        let prepared: Vec<_> = writes.into_iter().map(|write| self.plainly(write, now)).collect();
        let mut answers = Vec::with_capacity(prepared.len());
        let mut commands = Vec::with_capacity(prepared.len());
        for command in prepared {
            answers.push(command.map(|command| commands.push(command)));
        }
        let mut sent = self.servers.send(commands).await.into_iter();
        for answer in answers.iter_mut().filter(|answer| answer.is_ok()) {
            *answer = sent.next().unwrap_or_else(|| Err(failure::unexpected("SET"))).and_then(done);
        }
        answers
    }

    /// A write by a plain command.
    fn plainly(&self, write: Write, now: Timestamp) -> BackendResult<Keyed> {
        let name = self.shared.keyspace.name(&write.key);
        let bytes = if self.options.plain {
            self.wipes.wrote(&write.key, &name, write.stamp);
            plain::value(write.raw, &*self.options.format)?
        } else {
            let stamp = write.stamp.unwrap_or_else(|| self.clears.unstamped(&write.key));
            stored::value(write.raw, stamp)
        };
        let command = match Life::at(write.kept_until, now) {
            Life::Over => unlink(&name),
            life => set(&name, &bytes, &life),
        };
        Ok(Keyed { slot: self.servers.slot(&name), command })
    }

    async fn compare_and_write(&self, writes: Vec<Write>) -> Vec<BackendResult<()>> {
        let now = match self.shared.runtime() {
            Ok(runtime) => runtime.wall(),
            Err(error) => return writes.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut changes = Changes::new(self, writes.len());
        for write in writes {
            let stamp = write.stamp.unwrap_or_default();
            match Life::at(write.kept_until, now) {
                Life::Over => changes.push_tombstone(&write.key, stamp),
                Life::Millis(left) => {
                    changes.push(&write.key, stored::value(write.raw, stamp), Some(left));
                    // What lives shorter leaves a guard.
                    if left >= self.tombstone_life() {
                        changes.at_a_glance(stamp);
                    }
                }
                Life::Endless => {
                    changes.push(&write.key, stored::value(write.raw, stamp), None);
                    changes.at_a_glance(stamp);
                }
            }
        }
        let outcomes = self.apply(&changes).await;
        outcomes.into_iter().map(|outcome| self.unless_newer(outcome?).map(drop)).collect()
    }

    /// Removes on behalf of mutations with these stamps, leaving tombstones where stamps are compared.
    pub(super) async fn remove_stamped(
        &self,
        entries: &[(CacheKey, Stamp)],
    ) -> Vec<BackendResult<DeleteStatus>> {
        if !self.options.compare {
            return self.remove(entries.iter().map(|(key, _)| key)).await;
        }
        let mut changes = Changes::new(self, entries.len());
        for (key, stamp) in entries {
            match *stamp {
                Stamp::ZERO => changes.push(key, Raw::new(), None),
                stamp => changes.push_tombstone(key, stamp),
            }
        }
        let outcomes = self.apply(&changes).await;
        let status = |there| if there { DeleteStatus::Deleted(1) } else { DeleteStatus::Missing };
        outcomes.into_iter().map(|outcome| self.unless_newer(outcome?).map(status)).collect()
    }

    /// In ms.
    fn tombstone_life(&self) -> u64 {
        u64::try_from(self.options.tombstones.as_millis()).unwrap_or(u64::MAX)
    }

    fn unless_newer(&self, outcome: Outcome) -> BackendResult<bool> {
        match outcome {
            Outcome::Applied(there) => Ok(there),
            Outcome::Newer(stamp) => {
                Counts::one(&self.shared.counts.newer_found);
                Err(Error::superseded(Some(stamp)))
            }
        }
    }

    /// Runs the script: one call, or one for each slot of a cluster.
    async fn apply(&self, changes: &Changes<'_>) -> Vec<BackendResult<Outcome>> {
        let groups = changes.groups();
        let guards = self.shared.keyspace.reserved("g:");
        let guard_life = self.tombstone_life().to_string();
        let calls = || {
            let call = |group: &Vec<usize>| {
                let simple = group.iter().filter_map(|&place| changes.each[place].simple);
                let (count, least) =
                    (simple.clone().count().to_string(), simple.min().unwrap_or(0).to_string());
                let arguments = [&guards, &guard_life, &count, &least]
                    .map(|text| text.as_bytes())
                    .into_iter()
                    .chain(group.iter().flat_map(|&place| changes.arguments(place)));
                let names = group.iter().map(|&place| changes.name(place));
                let command = STORE_IF_NEWER.call(names, arguments);
                Keyed { slot: group.first().map_or(0, |&place| changes.each[place].slot), command }
            };
            groups.iter().map(call).collect()
        };
        let answers = self.servers.run(&STORE_IF_NEWER, calls).await;
        let mut outcomes: Vec<Option<BackendResult<Outcome>>> = Vec::new();
        outcomes.resize_with(changes.each.len(), || None);
        for (group, answer) in groups.iter().zip(answers) {
            match answer {
                Ok(Value::Array(answers)) if answers.is_empty() => {
                    group.iter().for_each(|&place| outcomes[place] = Some(Ok(Outcome::Applied(true))));
                }
                Ok(Value::Array(answers)) => {
                    for (&place, answer) in group.iter().zip(answers) {
                        outcomes[place] = Some(outcome(answer));
                    }
                }
                Ok(Value::ServerError(error)) => {
                    group.iter().for_each(|&place| outcomes[place] = Some(Err(failure::refusal(&error))));
                }
                Ok(_) => {}
                Err(error) => group.iter().for_each(|&place| outcomes[place] = Some(Err(error.clone()))),
            }
        }
        let unanswered = || Err(failure::unexpected("a write"));
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unanswered)).collect()
    }

    // ---- without a stamp

    pub(super) async fn remove(
        &self,
        keys: impl Iterator<Item = &CacheKey>,
    ) -> Vec<BackendResult<DeleteStatus>> {
        let commands: Vec<_> = keys
            .flat_map(|key| {
                let name = self.shared.keyspace.name(key);
                // A tombstone goes too, and was no value.
                let mut head = redis::cmd("GETRANGE");
                head.arg(&name).arg(0).arg(17);
                let slot = self.servers.slot(&name);
                [head, unlink(&name)].map(|command| Keyed { slot, command })
            })
            .collect();
        let mut answers = self.servers.send(commands).await.into_iter();
        let mut pair = move || Some((answers.next()?, answers.next()?));
        std::iter::from_fn(move || pair().map(|(head, gone)| removed(&head, gone?))).collect()
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

fn removed(head: &Result<Value>, answer: Value) -> BackendResult<DeleteStatus> {
    let no_value = matches!(head, Ok(Value::BulkString(head)) if stored::is_tombstone(head));
    match answer {
        Value::Int(0) => Ok(DeleteStatus::Missing),
        Value::Int(_) if no_value => Ok(DeleteStatus::Missing),
        Value::Int(_) => Ok(DeleteStatus::Deleted(1)),
        Value::ServerError(error) => Err(failure::refusal(&error)),
        _ => Err(failure::unexpected("UNLINK")),
    }
}

fn outcome(answer: Value) -> BackendResult<Outcome> {
    match answer {
        Value::Int(there) => Ok(Outcome::Applied(there != 0)),
        Value::BulkString(stamp) => {
            stored::read_stamp(&stamp).map(Outcome::Newer).ok_or_else(|| failure::unexpected("a write"))
        }
        Value::ServerError(error) => Err(failure::refusal(&error)),
        _ => Err(failure::unexpected("a write")),
    }
}
