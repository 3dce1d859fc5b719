//! The way of a read: port, then actors from the top down (or as the policy says), then a refill of what missed.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::engine::Engine;
use super::policy::{ReadPolicy, RefillContext, RefillPolicy};
use super::refill::{Refill, is_unweighed};
use super::route::{Route, RouteTier};
use crate::codec::{Header, ValueType, frame};
use crate::error::{Error, ErrorKind, Result};
use crate::hit::Hit;
use crate::key::{CacheKey, KeyProbe};
use crate::observe::{Began, trace};
use crate::order::Fence;
use crate::planted::{Plant, planted};
use crate::runtime::{Envelope, RejectReason};
use crate::tier::{Change, Counters, ErrorPolicy, Message, ReadOp, TierCore};
use crate::value::{Entry, Meta, Object, Payload, Raw, Timestamp};

/// How long callers wait if a planted bug forgets the deadlines.
pub(super) const FAR: Duration = Duration::from_secs(60);

/// A decoded hit.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) object: Object,
    pub(crate) meta: Meta,
    /// The index of the tier that had it.
    pub(crate) tier: usize,
    /// When it was read.
    pub(crate) now: Timestamp,
}

/// An entry that may be used, not decoded yet.
pub(super) struct Usable {
    pub(super) meta: Meta,
    pub(super) now: Timestamp,
    pub(super) held: Held,
}

pub(super) enum Held {
    Object(Object),
    Frame(Header, Raw),
}

/// What became of a read.
pub(crate) struct Reading {
    pub(crate) found: Option<Found>,
    /// Tiers that could not answer, and why.
    pub(crate) degraded: Vec<Error>,
    /// The first failure of a tier whose failures count.
    pub(crate) failed: Option<Error>,
    /// Taken before anything was read: what is loaded now may be filled under it.
    pub(crate) fence: Option<Fence>,
}

impl Engine {
    /// The topmost tier's answer through its port, if it has one and has the key: no wait, no message, no allocation.
    #[inline]
    pub(crate) fn peek<T: Send + Sync + 'static>(&self, probe: &KeyProbe<'_>) -> Option<Hit<T>> {
        if self.read_policy == ReadPolicy::Parallel || self.is_closed() {
            return None;
        }
        self.peek_at(self.cores.first()?, probe)
    }

    /// The answer of the first port that has the key, whatever the policy. Tiers without one are passed over: each
    /// tier has settled every mutation, so none holds an older value than another that shows one.
    pub(crate) fn peek_all<T: Send + Sync + 'static>(&self, probe: &KeyProbe<'_>) -> Option<Hit<T>> {
        self.cores.iter().find_map(|core| self.peek_at(core, probe))
    }

    /// What is not usable is counted, with its reason, by the full read that follows.
    #[inline]
    fn peek_at<T: Send + Sync + 'static>(&self, core: &TierCore, probe: &KeyProbe<'_>) -> Option<Hit<T>> {
        let port = core.port.as_ref()?;
        let shown = if core.is_open() { None } else { core.shown(&probe.to_key()).ok()? };
        // Looked at in place, and never taken apart: each copy of the stamps is a stall.
        let packed = match shown {
            None => port.hit(probe)?,
            Some(Change::Set(entry)) => entry.into(),
            Some(Change::Remove) => return None,
        };
        let stamp = packed.stamp();
        if self.order.hides(probe, stamp) || core.hides(probe, stamp.time) {
            return None;
        }
        let now = self.runtime.wall();
        if packed.expire().is_some_and(|at| at <= now) {
            return None;
        }
        let hit = Hit::of(packed, core.label.clone(), now)?;
        core.counters.port_hits.one();
        Some(hit)
    }

    /// Reads a key from the tiers, as the policy says, and refills what missed.
    pub(crate) async fn read(&self, key: &CacheKey, ty: &Arc<dyn ValueType>) -> Reading {
        trace::read(key, self.read_tiers(key, ty)).await
    }

    pub(super) async fn read_tiers(&self, key: &CacheKey, ty: &Arc<dyn ValueType>) -> Reading {
        let route = self.route.load_full();
        // Before anything is read: a mutation from here on voids the refill.
        let mut reading = Reading {
            found: None,
            degraded: Vec::new(),
            failed: None,
            fence: self.order.fences.take(key.hash_u64()),
        };
        let missed = match self.read_policy {
            ReadPolicy::Sequential => self.read_in_turn(&route, key, ty, &mut reading).await,
            ReadPolicy::Race => self.read_race(&route, key, ty, &mut reading).await,
            ReadPolicy::Parallel => self.read_all(&route, key, ty, &mut reading).await,
        };
        if planted(Plant::FenceLate) {
            reading.fence = self.order.fences.take(key.hash_u64());
        }
        if let (Some(found), Some(fence)) = (&reading.found, reading.fence) {
            self.refill(&route, key, ty, found, fence, missed);
        }
        reading
    }

    async fn read_in_turn(
        &self,
        route: &Route,
        key: &CacheKey,
        ty: &Arc<dyn ValueType>,
        reading: &mut Reading,
    ) -> Vec<usize> {
        let mut missed = Vec::new();
        for index in 0..route.tiers.len() {
            let result = self.read_tier(route, index, key, ty).await;
            reading.found = reading.take(&route.tiers[index], index, result, &mut missed);
            if reading.found.is_some() {
                break;
            }
        }
        missed
    }

    async fn read_race(
        &self,
        route: &Route,
        key: &CacheKey,
        ty: &Arc<dyn ValueType>,
        reading: &mut Reading,
    ) -> Vec<usize> {
        let mut missed = Vec::new();
        let mut reads: FuturesUnordered<_> = (0..route.tiers.len())
            .map(|index| async move { (index, self.read_tier(route, index, key, ty).await) })
            .collect();
        while let Some((index, result)) = reads.next().await {
            reading.found = reading.take(&route.tiers[index], index, result, &mut missed);
            if reading.found.is_some() {
                break;
            }
        }
        missed
    }

    async fn read_all(
        &self,
        route: &Route,
        key: &CacheKey,
        ty: &Arc<dyn ValueType>,
        reading: &mut Reading,
    ) -> Vec<usize> {
        let reads = (0..route.tiers.len()).map(|index| self.read_tier(route, index, key, ty));
        let mut missed = Vec::new();
        let mut hits: Vec<Found> = Vec::new();
        for (index, result) in join_all(reads).await.into_iter().enumerate() {
            hits.extend(reading.take(&route.tiers[index], index, result, &mut missed));
        }
        // `None` is "never expires", and so the latest. On a tie the topmost wins: `max_by_key` takes the last.
        let rank = |found: &Found| {
            let forever = planted(Plant::NoExpiryIsFreshest) && found.meta.expire.is_none();
            (forever, found.meta.stamp, found.meta.expire.unwrap_or(Timestamp::MAX))
        };
        let best = hits.iter().rev().max_by_key(|found| rank(found)).cloned();
        if let Some(best) = &best {
            missed.extend(hits.iter().filter(|hit| hit.meta.stamp < best.meta.stamp).map(|hit| hit.tier));
        }
        reading.found = best;
        missed
    }

    /// Reads one tier. An error means that it could not say.
    async fn read_tier(
        &self,
        route: &Route,
        index: usize,
        key: &CacheKey,
        ty: &Arc<dyn ValueType>,
    ) -> Result<Option<Found>> {
        let tier = &route.tiers[index];
        let counters = &tier.core.counters;
        let found = match self.fetch(tier, key).await? {
            Ok(Some(entry)) => {
                let decoded = matches!(entry.payload, Payload::Bytes(_));
                let accepted = self.accept(tier, index, key, ty, entry).await;
                if decoded {
                    tier.core.note_decode(&accepted);
                }
                accepted
            }
            Ok(None) => {
                Counters::one(&counters.misses);
                Ok(None)
            }
            Err(error) => Err(error),
        };
        found.map_err(|error| {
            counters.degraded(error.kind());
            error.at_tier(&tier.core.label).for_key(key)
        })
    }

    /// What one tier holds. The outer error means that it was not asked, which is counted already.
    pub(super) async fn fetch(&self, tier: &RouteTier, key: &CacheKey) -> Result<Result<Option<Entry>>> {
        let counters = &tier.core.counters;
        let shown = tier.core.shown(key).map_err(|error| {
            Counters::one(&counters.quarantined);
            error.at_tier(&tier.core.label).for_key(key)
        })?;
        let entry = match (shown, &tier.core.port) {
            (Some(Change::Set(entry)), _) => Ok(Some(entry)),
            (Some(Change::Remove), _) => Ok(None),
            (None, Some(port)) => {
                Counters::one(&counters.port_reads);
                Ok(port.get(&key.probe()))
            }
            (None, None) => self.ask(tier, key).await,
        };
        if let Ok(Some(Entry { payload: Payload::Bytes(raw), .. })) = &entry {
            Counters::add(&counters.bytes_read, raw.len() as u64);
        }
        Ok(entry)
    }

    /// Reads the tier with this label, for tests.
    #[cfg(feature = "testing")]
    pub(crate) async fn read_from(
        &self,
        label: &str,
        key: &CacheKey,
        ty: &Arc<dyn ValueType>,
    ) -> Result<Option<Found>> {
        let route = self.route.load_full();
        match route.tiers.iter().position(|tier| tier.core.label.as_str() == label) {
            Some(index) => self.read_tier(&route, index, key, ty).await,
            None => Err(Error::new(ErrorKind::Config, format!("there is no tier `{label}`"))),
        }
    }

    /// Asks a tier behind calls, through its actor's mailbox only where the actor does not run or is busy, within the tier's read deadline.
    pub(super) async fn ask(&self, tier: &RouteTier, key: &CacheKey) -> Result<Option<Entry>> {
        if !tier.serving {
            return Err(Error::new(ErrorKind::Unavailable, "the tier is down and will be tried again"));
        }
        let began = Began::now(&self.runtime);
        if let Some(result) = tier.core.read_in_place(key) {
            tier.core.meter.read(began, &self.runtime);
            return result;
        }
        let within = if planted(Plant::NoDeadline) { FAR } else { tier.core.options.read_deadline };
        let deadline = self.runtime.now().after(within);
        let (read, answer) = ReadOp::new(key.clone(), deadline);
        // What waits in the mailbox came first.
        let read = if tier.address.is_empty() { tier.core.read_at_once(read) } else { Some(read) };
        let answer = match read {
            // In the tier's queue, where its deadline is watched.
            None => answer.await,
            Some(read) => {
                if let Err(rejected) = tier.address.try_send(Envelope::new(Message::Read(read))) {
                    return Err(rejection(rejected.reason));
                }
                let answer = self.runtime.deadline(deadline, answer).await;
                answer.unwrap_or_else(|| Ok(Err(tier.core.overdue_read())))
            }
        };
        tier.core.meter.read(began, &self.runtime);
        answer.unwrap_or_else(|_| Err(restarted_read()))
    }

    /// Takes an entry from a tier: hidden, expired, undecodable or of another type is as good as absent.
    async fn accept(
        &self,
        tier: &RouteTier,
        index: usize,
        key: &CacheKey,
        ty: &Arc<dyn ValueType>,
        entry: Entry,
    ) -> Result<Option<Found>> {
        let Some(usable) = self.usable(tier, key, entry)? else { return Ok(None) };
        self.decode_usable(tier, index, ty, usable).await.map(Some)
    }

    /// Decodes an entry that may be used.
    pub(super) async fn decode_usable(
        &self,
        tier: &RouteTier,
        index: usize,
        ty: &Arc<dyn ValueType>,
        usable: Usable,
    ) -> Result<Found> {
        let Usable { meta, now, held } = usable;
        let object = match held {
            Held::Object(object) => object,
            Held::Frame(header, payload) => {
                #[cfg(feature = "zstd")]
                self.find_dictionary(tier, &header, ty.dictionary()).await;
                self.codecs.decode(header, payload, Arc::clone(ty)).await?
            }
        };
        self.found(&tier.core, index, object, (meta, now), ty)
    }

    /// An object that a tier holds, if it is one of the type that is asked for.
    pub(super) fn found(
        &self,
        core: &TierCore,
        tier: usize,
        object: Object,
        (meta, now): (Meta, Timestamp),
        ty: &Arc<dyn ValueType>,
    ) -> Result<Found> {
        if Any::type_id(&*object) != ty.of_type() {
            return Err(Error::new(
                ErrorKind::TypeMismatch,
                format!("the entry is not a `{}`; use another region or key", ty.type_name()),
            ));
        }
        Counters::one(&core.counters.hits);
        Ok(Found { object, meta, tier, now })
    }

    /// Opens an entry from a tier; one that is hidden or expired is as good as absent.
    pub(super) fn usable(&self, tier: &RouteTier, key: &CacheKey, entry: Entry) -> Result<Option<Usable>> {
        let counters = &tier.core.counters;
        let (meta, held) = match entry.payload {
            Payload::Object(object, _) => (entry.meta, Held::Object(object)),
            Payload::Bytes(raw) => {
                let (header, payload) = frame::open(&raw, key)?;
                (header.meta, Held::Frame(header, payload))
            }
        };
        let now = self.runtime.wall();
        self.order.clock.observe(meta.stamp, now);
        let Some(meta) = self.order.admit(key.prefix(), meta, entry.inherited) else {
            Counters::one(&counters.cleared);
            return Ok(None);
        };
        if tier.core.hides(&key.probe(), meta.stamp.time) {
            Counters::one(&counters.cleared);
            return Ok(None);
        }
        if meta.is_expired(now) {
            Counters::one(&counters.expired);
            return Ok(None);
        }
        Ok(Some(Usable { meta, now, held }))
    }

    /// Hands a hit to the refill lane for the tiers above it that missed.
    pub(super) fn refill(
        &self,
        route: &Route,
        key: &CacheKey,
        ty: &Arc<dyn ValueType>,
        found: &Found,
        fence: Fence,
        mut missed: Vec<usize>,
    ) {
        missed.retain(|&index| index < found.tier && !route.tiers[index].core.options.read_only);
        // A replica may lag behind what the tiers above have dropped.
        let lags = !route.tiers[found.tier].core.authoritative;
        if missed.is_empty() || lags || !self.wants_refill(route, key, found) {
            return;
        }
        // Those in process at once, without a message; what has to be encoded or weighed takes the lane.
        missed.retain(|&index| {
            let tier = &route.tiers[index];
            !is_unweighed(tier) || !self.fill_at_once(tier, key, &found.object, found.meta, fence)
        });
        if missed.is_empty() {
            return;
        }
        let refill = Refill {
            key: key.clone(),
            object: Arc::clone(&found.object),
            ty: Arc::clone(ty),
            meta: found.meta,
            fence,
            tiers: missed,
        };
        if self.lane.try_send(Envelope::new(refill)).is_err() {
            // Losing a refill costs a later miss.
            self.refills_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn wants_refill(&self, route: &Route, key: &CacheKey, found: &Found) -> bool {
        match &self.refill_policy {
            RefillPolicy::Always => true,
            RefillPolicy::Never => false,
            RefillPolicy::When(predicate) => {
                let from = &route.tiers[found.tier].core.label;
                let context = RefillContext { key, from, meta: &found.meta };
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| predicate(&context)))
                    .unwrap_or(false)
            }
        }
    }

    /// Whether some tier holds the key, fresh: ports are looked into, other tiers are read.
    pub(crate) async fn contains(&self, key: &CacheKey, ty: &Arc<dyn ValueType>) -> bool {
        if self.is_closed() {
            return false;
        }
        let route = self.route.load_full();
        for index in 0..route.tiers.len() {
            if let Ok(Some(_)) = self.read_tier(&route, index, key, ty).await {
                return true;
            }
        }
        false
    }
}

impl Reading {
    /// Takes a tier's answer: a hit is handed on, a tier that a refill should reach is `missed`, a failure is noted.
    fn take(
        &mut self,
        tier: &RouteTier,
        index: usize,
        result: Result<Option<Found>>,
        missed: &mut Vec<usize>,
    ) -> Option<Found> {
        match result {
            Ok(Some(found)) => return Some(found),
            Ok(None) => missed.push(index),
            Err(error) => {
                missed.extend(is_damaged(&error).then_some(index));
                if tier.core.options.on_error == ErrorPolicy::Fail {
                    self.failed.get_or_insert_with(|| error.clone());
                }
                self.degraded.push(error);
            }
        }
        None
    }
}

/// Whether what the tier holds is of no use to anyone, so that a refill may replace it.
fn is_damaged(error: &Error) -> bool {
    error.kind() == ErrorKind::Decode
}

pub(super) fn restarted_read() -> Error {
    Error::new(ErrorKind::Restarted, "the tier was restarted; read again")
}

pub(super) fn rejection(reason: RejectReason) -> Error {
    match reason {
        RejectReason::Full => Error::new(ErrorKind::Overloaded, "the tier's mailbox is full"),
        RejectReason::Stopped => Error::new(ErrorKind::Closed, "the cache has been shut down"),
        _ => Error::new(ErrorKind::Unavailable, "the tier is down and will be tried again"),
    }
}
