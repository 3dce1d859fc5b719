//! A read or a mutation of a cache whose tiers are all in process, or a mutation of one whose other tiers write behind or
//! are asked by calls: done in one go, by the caller. A mutation is announced, numbered and carried out, or queued.
//!
//! The same steps as in [`write`](super::write), in the same order; as nothing is awaited between them, nothing has to be
//! kept for the case that the caller goes away. What a tier does not take at once goes the long way.

use std::sync::Arc;

use futures_util::future::join_all;

use super::engine::Engine;
use super::policy::{ReadPolicy, RefillPolicy, WritePolicy};
use super::write::{Sent, nothing, send_to};
use crate::backend::Holds;
use crate::codec::{Encoded, ValueType};
use crate::error::{Error, ErrorKind, Result};
use crate::hit::Hit;
use crate::key::CacheKey;
use crate::observe::Began;
use crate::order::Write;
use crate::tier::{Change, Counters, Fill, Mutation, Settled, Settlement, TierCore};
use crate::value::{DeleteStatus, Entry, Meta, Object, Payload, Stamp};

/// What the tiers have made of a mutation.
#[derive(Default)]
struct Tally {
    confirmed: bool,
    copies: u32,
    failure: Option<Error>,
    /// A queue does not have it: then it is not acknowledged, whoever else confirmed it.
    unqueued: Option<Error>,
}

impl Tally {
    fn take(&mut self, core: &TierCore, settled: Settled) {
        match settled {
            Ok(settlement) => {
                self.confirmed = true;
                match settlement {
                    Settlement::Removed(DeleteStatus::Deleted(copies)) => self.copies += copies,
                    Settlement::Queued { held: true } => self.copies += 1,
                    _ => {}
                }
            }
            Err(error) if core.behind.is_some() => self.unqueued = self.unqueued.take().or(Some(error)),
            Err(error) => self.failure = self.failure.take().or(Some(error)),
        }
    }

    fn result(self, require_all: bool) -> Result<u32> {
        match (self.unqueued, self.failure) {
            (Some(error), _) => Err(error),
            (None, Some(error)) if require_all || !self.confirmed => Err(error),
            (None, None) if !self.confirmed => nothing().map(|_| 0),
            _ => Ok(self.copies),
        }
    }
}

/// What has to be made of a value before it is queued, where every tier is in process, writes behind or is asked by calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Queueing {
    /// The tier that stores bytes: one at most.
    encoded: Option<usize>,
    /// Whether some tier of objects is bounded by their weight.
    weighed: bool,
}

/// How a value is queued in such a cache; `None`: these tiers take the long way.
pub(super) fn queueing(cores: &[Arc<TierCore>]) -> Option<Queueing> {
    let mut queueing = Queueing::default();
    let mut queues = false;
    for (index, core) in cores.iter().enumerate() {
        let takes = core.authoritative && core.options.max_value.is_none() && !core.options.read_only;
        // What is written down first has to be waited for.
        let journaled = core.behind.as_ref().is_some_and(|behind| behind.is_journaled());
        if !takes || journaled {
            return None;
        }
        queues |= core.behind.is_some() || core.port.is_none();
        match core.holds {
            Holds::Objects { weighed } => queueing.weighed |= weighed,
            Holds::Bytes if queueing.encoded.is_none() => queueing.encoded = Some(index),
            Holds::Bytes => return None,
        }
    }
    queues.then_some(queueing)
}

/// A mutation whose tiers have been told: what they made of it so far, and those that have yet to answer. Mostly that is
/// one, which needs no allocation.
pub(super) struct Left<'a> {
    tally: Tally,
    first: Option<(usize, Sent<'a>)>,
    others: Vec<(usize, Sent<'a>)>,
    require_all: bool,
}

impl<'a> Left<'a> {
    fn push(&mut self, index: usize, sent: Sent<'a>) {
        match self.first {
            None => self.first = Some((index, sent)),
            Some(_) => self.others.push((index, sent)),
        }
    }
}

/// Whether a tier takes any value as it is, without being waited for.
pub(super) fn is_plain(core: &TierCore) -> bool {
    core.port.is_some()
        && core.holds == Holds::Objects { weighed: false }
        && core.behind.is_none()
        && core.authoritative
        && core.options.max_value.is_none()
        && !core.options.read_only
}

impl Engine {
    /// Whether removals go this way.
    pub(super) fn removes_at_once(&self) -> bool {
        (self.plain || self.queueing.is_some()) && self.policy_at_once().is_some()
    }

    fn policy_at_once(&self) -> Option<bool> {
        match self.write_policy {
            WritePolicy::OptimisticParallel { require_all } => Some(require_all),
            _ => None,
        }
    }

    /// What the tiers have of a key, topmost first, with the refill of those above: `None` if that takes the long way.
    pub(crate) fn read_at_once<T: Send + Sync + 'static>(&self, key: &CacheKey) -> Option<Option<Hit<T>>> {
        let usual = self.read_policy == ReadPolicy::Sequential
            && matches!(self.refill_policy, RefillPolicy::Always)
            // A span for each read.
            && !cfg!(feature = "tracing");
        if !usual || !self.plain || self.is_closed() || self.cores.iter().any(|core| !core.is_open()) {
            return None;
        }
        // Before anything is read: a mutation from here on voids the refill.
        let fence = self.order.fences.take(key.hash_u64());
        let probe = key.probe();
        let find = |(index, core): (usize, &Arc<TierCore>)| Some((index, core.port.as_ref()?.get(&probe)?));
        let found = self.cores.iter().enumerate().find_map(find);
        let missed = found.as_ref().map_or(self.cores.len(), |(index, _)| *index);
        let hit = match found {
            None => None,
            Some((index, Entry { payload: Payload::Object(object, _), meta, .. })) => {
                let (core, now) = (&self.cores[index], self.runtime.wall());
                let hidden = self.order.hides(&probe, meta.stamp) || core.hides(&probe, meta.stamp.time);
                if hidden || meta.is_expired(now) {
                    return None;
                }
                let value = Arc::clone(&object).downcast::<T>().ok()?;
                Counters::one(&core.counters.port_reads);
                Counters::one(&core.counters.hits);
                for above in self.cores[..index].iter().filter(|_| fence.is_some()) {
                    let meta = meta.capped(above.ttl_cap(), now);
                    let entry = Entry::new(Payload::Object(Arc::clone(&object), 0), meta);
                    let fill = fence.map(|fence| Fill { key: key.clone(), entry, fence, done: None });
                    if fill.and_then(|fill| above.fill_at_once(fill)).is_some() {
                        Counters::one(&above.counters.fills_dropped);
                    }
                }
                Some(Hit::new(value, Some(core.label.clone()), meta, now))
            }
            Some(_) => return None,
        };
        for core in &self.cores[..missed] {
            Counters::one(&core.counters.port_reads);
            Counters::one(&core.counters.misses);
        }
        Some(hit)
    }

    /// Begins to store a value. `None`, with nothing done: it goes the long way, since the policy or the tiers ask for it,
    /// the value is too large to be encoded here and now, or a tier has to do without it.
    ///
    /// # Errors
    /// The value's own, with nothing changed.
    pub(super) fn set_at_once(
        &self,
        key: &CacheKey,
        object: &Object,
        ty: &dyn ValueType,
        life: Meta,
    ) -> Result<Option<Left<'_>>> {
        let Some(require_all) = self.policy_at_once() else { return Ok(None) };
        let made = match self.queueing {
            _ if self.plain => Some((0, None)),
            Some(queueing) => self.make_at_once(key, object, ty, queueing)?,
            None => None,
        };
        let Some((weight, mut encoded)) = made else { return Ok(None) };
        let change = |core: &TierCore, stamp: Stamp| {
            let meta = Meta { stamp, ..life }.capped(core.ttl_cap(), life.created);
            let payload = match (core.holds, encoded.take()) {
                (Holds::Bytes, Some(encoded)) => Payload::Bytes(encoded.seal(key, &meta)),
                (_, left) => {
                    encoded = left;
                    Payload::Object(Arc::clone(object), weight)
                }
            };
            Change::Set(Entry::new(payload, meta))
        };
        Ok(Some(self.change_at_once(key, require_all, change)))
    }

    /// What the tiers store of a value: its weight and its bytes, as far as they ask for these.
    fn make_at_once(
        &self,
        key: &CacheKey,
        object: &Object,
        ty: &dyn ValueType,
        Queueing { encoded, weighed }: Queueing,
    ) -> Result<Option<(u32, Option<Encoded>)>> {
        let weight = if weighed { self.codecs.weigh_at_once(object, ty) } else { Some(0) };
        let Some(weight) = weight else { return Ok(None) };
        let Some(index) = encoded else { return Ok(Some((weight, None))) };
        let core = &self.cores[index];
        match self.codecs.encode_at_once(object, ty, &*core.backend) {
            Some(Ok(encoded)) => Ok(Some((weight, Some(encoded)))),
            // The value's own doing: nothing is changed.
            Some(Err(error)) if matches!(error.kind(), ErrorKind::Encode | ErrorKind::TooLarge) => {
                Err(error.at_tier(&core.label).for_key(key))
            }
            _ => Ok(None),
        }
    }

    pub(super) async fn remove_at_once(&self, key: &CacheKey) -> Result<DeleteStatus> {
        let require_all = self.policy_at_once() == Some(true);
        let mut left = self.change_at_once(key, require_all, |_, _| Change::Remove);
        let copies = self.await_left(&mut left).await?;
        Ok(if copies > 0 { DeleteStatus::Deleted(copies) } else { DeleteStatus::Missing })
    }

    /// Announces, numbers and carries out a change; returns what is on its way through mailboxes.
    fn change_at_once(
        &self,
        key: &CacheKey,
        require_all: bool,
        mut change: impl FnMut(&TierCore, Stamp) -> Change,
    ) -> Left<'_> {
        for core in &self.cores {
            core.announce(key);
        }
        let write = Write::begin(&self.order, &self.runtime, key);
        // Loads in flight may have read what this replaces: whoever asks from now on starts anew.
        self.flights.detach(key);
        for core in &self.cores {
            core.minted(key, write.stamp);
        }
        let mut left = Left { tally: Tally::default(), first: None, others: Vec::new(), require_all };
        for (index, core) in self.cores.iter().enumerate() {
            let began = Began::now(&self.runtime);
            let change = change(core, write.stamp);
            let settled = match core.behind {
                Some(_) => core.queue_at_once(&write, change),
                None => core.settle_at_once(&write, change),
            };
            match settled {
                Ok(settled) => {
                    core.meter.wrote(began, &self.runtime);
                    left.tally.take(core, settled.map_err(|error| error.at_tier(&core.label).for_key(key)));
                }
                Err(change) => left.push(index, self.send_left(index, &write, change)),
            }
        }
        left
    }

    fn send_left(&self, index: usize, write: &Write<'_>, change: Change) -> Sent<'_> {
        let core = &self.cores[index];
        let deadline = self.runtime.now().after(core.options.write_deadline);
        let (mutation, answer) = Mutation::new(core, write, change, deadline);
        // All tiers are written, so that the index is the route's too.
        send_to(core, &self.route.load().written[index].address, mutation, answer)
    }

    /// Waits for what could not be settled at once; says how many tiers had the key. Borrows what is left: each future on
    /// the way would hold a copy, for as long as a caller waits.
    pub(super) async fn await_left(&self, left: &mut Left<'_>) -> Result<u32> {
        if !left.others.is_empty() {
            Box::pin(self.await_all(left)).await;
        } else if let Some((index, sent)) = &mut left.first {
            left.tally.take(&self.cores[*index], self.settle(sent).await);
        }
        std::mem::take(&mut left.tally).result(left.require_all)
    }

    async fn await_all(&self, Left { tally, first, others, .. }: &mut Left<'_>) {
        let waiting = first.iter_mut().chain(others.iter_mut()).map(|(_, sent)| self.settle(sent));
        let settled = join_all(waiting).await;
        for ((index, _), settled) in first.iter().chain(others.iter()).zip(settled) {
            tally.take(&self.cores[*index], settled);
        }
    }
}
