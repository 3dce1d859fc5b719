//! A read or a mutation of a cache whose tiers are all in process: done in one go, by the caller. A mutation is announced,
//! numbered and carried out.
//!
//! The same steps as in [`write`](super::write), in the same order; as nothing is awaited between them, nothing has to be
//! kept for the case that the caller goes away. What a tier does not take at once goes the long way.

use std::sync::Arc;

use futures_util::future::join_all;

use super::engine::Engine;
use super::policy::{ReadPolicy, RefillPolicy, WritePolicy};
use super::write::{Planned, Sent, nothing, send};
use crate::backend::Holds;
use crate::error::{Error, Result};
use crate::hit::Hit;
use crate::key::CacheKey;
use crate::observe::Began;
use crate::order::Write;
use crate::tier::{Change, Counters, Fill, Mutation, Settled, Settlement, TierCore};
use crate::value::{DeleteStatus, Entry, Meta, Object, Payload};

/// What the tiers have made of a mutation.
#[derive(Default)]
struct Tally {
    confirmed: bool,
    copies: u32,
    failure: Option<Error>,
}

impl Tally {
    fn take(&mut self, settled: Settled) {
        match settled {
            Ok(settlement) => {
                self.confirmed = true;
                if let Settlement::Removed(DeleteStatus::Deleted(copies)) = settlement {
                    self.copies += copies;
                }
            }
            Err(error) => self.failure = self.failure.take().or(Some(error)),
        }
    }

    fn result(self, require_all: bool) -> Result<u32> {
        match self.failure {
            Some(error) if require_all || !self.confirmed => Err(error),
            None if !self.confirmed => nothing().map(|_| 0),
            _ => Ok(self.copies),
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
    /// Whether mutations go this way, and if so whether all tiers have to confirm.
    pub(super) fn takes_at_once(&self) -> Option<bool> {
        match self.write_policy {
            WritePolicy::OptimisticParallel { require_all } if self.plain => Some(require_all),
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

    pub(super) async fn set_at_once(
        &self,
        key: &CacheKey,
        object: Object,
        life: Meta,
        require_all: bool,
    ) -> Result<()> {
        let change = |core: &TierCore, write: &Write| {
            let meta = Meta { stamp: write.stamp, ..life }.capped(core.ttl_cap(), life.created);
            Change::Set(Entry::new(Payload::Object(Arc::clone(&object), 0), meta))
        };
        let (tally, left) = self.change_at_once(key, change);
        self.await_left(tally, left).await.result(require_all).map(drop)
    }

    pub(super) async fn remove_at_once(&self, key: &CacheKey) -> Result<DeleteStatus> {
        let (tally, left) = self.change_at_once(key, |_, _| Change::Remove);
        let copies = self.await_left(tally, left).await.result(false)?;
        Ok(if copies > 0 { DeleteStatus::Deleted(copies) } else { DeleteStatus::Missing })
    }

    /// Announces, numbers and carries out a change; returns what is on its way through mailboxes.
    fn change_at_once(
        &self,
        key: &CacheKey,
        change: impl Fn(&TierCore, &Write) -> Change,
    ) -> (Tally, Vec<Sent>) {
        for core in &self.cores {
            core.announce(key);
        }
        let write = Write::begin(&self.order, &self.runtime, key.clone());
        // Loads in flight may have read what this replaces: whoever asks from now on starts anew.
        self.flights.detach(key);
        for core in &self.cores {
            core.minted(key, write.stamp);
        }
        let (mut tally, mut left) = (Tally::default(), Vec::new());
        for (index, core) in self.cores.iter().enumerate() {
            let began = Began::now(&self.runtime);
            match core.settle_at_once(&write, change(core, &write)) {
                Ok(settled) => {
                    core.meter.wrote(began, &self.runtime);
                    tally.take(settled.map_err(|error| error.at_tier(&core.label).for_key(key)));
                }
                Err(change) => left.push(self.send_left(index, &write, change)),
            }
        }
        (tally, left)
    }

    #[cold]
    fn send_left(&self, index: usize, write: &Arc<Write>, change: Change) -> Sent {
        // All tiers are written, so that the index is the route's too.
        let tier = self.route.load().written[index].clone();
        let deadline = self.runtime.now().after(tier.core.options.write_deadline);
        let (mutation, answer) = Mutation::new(&tier.core, write, change, deadline);
        send(Planned { tier, mutation, answer, failed: None })
    }

    async fn await_left(&self, mut tally: Tally, left: Vec<Sent>) -> Tally {
        if !left.is_empty() {
            let settled = join_all(left.into_iter().map(|sent| self.settle(sent))).await;
            settled.into_iter().for_each(|settled| tally.take(settled));
        }
        tally
    }
}
