//! The way of a mutation: prepared, announced at every tier, numbered, sent to all, settled everywhere.
//!
//! The order of these steps is the rule. A mutation announces itself at each tier *before* it draws its number: one
//! with a later number therefore finds it announced everywhere, and what that one settles is remembered until this one
//! has arrived. It returns when every tier has settled the key; the policy only says whose confirmation is a success.

use std::sync::Arc;

use futures_channel::oneshot;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::encode::Coding;
use super::engine::Engine;
use super::policy::WritePolicy;
use super::read::{FAR, rejection};
use super::refill::{is_oversized, is_unweighed};
use super::route::{Route, RouteTier};
use crate::backend::Scope;
use crate::codec::{Encoded, ValueType};
use crate::error::{Error, ErrorKind, Result};
use crate::key::CacheKey;
use crate::observe::{Began, trace};
use crate::order::{ClearWrite, Write};
use crate::planted::{Plant, planted};
use crate::runtime::{Address, BoxFuture, Envelope, Instant, RejectReason};
use crate::tier::{
    Accepting, Change, ClearOp, Counters, Message, Mutation, Open, Settled, Settlement, TierCore,
};
use crate::value::{DeleteStatus, Entry, Meta, Object, Payload, Stamp};
use crate::write_behind::Written;

/// Keys of one call under way at once, at most.
const WINDOW: usize = 256;

/// A value made ready for each tier, before it is numbered.
enum Prepared {
    Object(u32),
    Encoded(Encoded),
    /// Shares the frame of the tier with this index, which has the same codec and life.
    Shared(usize),
    /// Could not be made ready now, which is this tier's failure: it drops the key, the others get the value.
    Failed(Error),
}

/// A mutation built for one tier.
pub(super) struct Planned {
    pub(super) tier: RouteTier,
    pub(super) mutation: Mutation,
    pub(super) answer: oneshot::Receiver<Settled>,
    /// Why this tier removes the key instead of storing the value, where that is a failure.
    pub(super) failed: Option<Error>,
}

/// A mutation on its way to one tier.
pub(super) struct Sent {
    tier: RouteTier,
    key: CacheKey,
    change: Change,
    write: Arc<Write>,
    deadline: Instant,
    answer: oneshot::Receiver<Settled>,
    open: Open,
    failed: Option<Error>,
    /// Still waiting for room in the mailbox.
    sending: Option<BoxFuture<'static, ()>>,
}

impl Engine {
    /// Stores a value in the tiers, as the policy says. `life` are its stamps but for the number.
    pub(crate) async fn set(
        &self,
        key: &CacheKey,
        object: Object,
        ty: &Arc<dyn ValueType>,
        life: Meta,
    ) -> Result<()> {
        trace::write("set", key, self.set_tiers(key, object, ty, life)).await
    }

    async fn set_tiers(
        &self,
        key: &CacheKey,
        object: Object,
        ty: &Arc<dyn ValueType>,
        life: Meta,
    ) -> Result<()> {
        self.check_open()?;
        check_length(key)?;
        if let Some(require_all) = self.sets_at_once() {
            return self.set_at_once(key, object, life, require_all).await;
        }
        if let Some(queued) = self.queue_at_once(key, &object, &**ty, life) {
            return self.await_queued(queued?).await;
        }
        // Boxed, so that the usual way does not carry its state.
        Box::pin(self.set_in_steps(key, object, ty, life)).await
    }

    async fn set_in_steps(
        &self,
        key: &CacheKey,
        object: Object,
        ty: &Arc<dyn ValueType>,
        life: Meta,
    ) -> Result<()> {
        let route = self.route.load_full();
        if route.tiers.is_empty() {
            // Disabled: what is never held needs no order.
            return Ok(());
        }
        let prepared = self.prepare(&route, &object, ty).await.map_err(|error| error.for_key(key))?;
        let plain_len = |prepared: &Prepared| match prepared {
            Prepared::Encoded(encoded) => encoded.plain_len(),
            _ => 0,
        };
        let plain_len = prepared.iter().map(plain_len).max().unwrap_or(0);
        let (write, mutations) =
            self.begin(&route, key, |write| self.seal(&route, &object, life, write, prepared));
        let stored: Vec<_> =
            mutations.iter().map(|planned| matches!(planned.mutation.change, Change::Set(_))).collect();
        if !stored.contains(&true) {
            // Settled all the same: what was there is removed.
            let failure = self.write_all(mutations).await.into_iter().find_map(Result::err);
            return Err(failure.unwrap_or_else(|| nowhere(&route).for_key(key)));
        }
        let result = match self.write_policy {
            WritePolicy::Sequential => self.write_in_turn(mutations).await,
            WritePolicy::OptimisticParallel { require_all } => {
                let results = self.write_all(mutations).await;
                queued(&route, &results)?;
                // A tier for which the value is too large has removed the key: no confirmation, nor a failure.
                if require_all { all(results) } else { any(those(results, &stored)) }
            }
            WritePolicy::Race => self.write_race(mutations).await,
            WritePolicy::WriteAround => {
                let results = self.write_all(mutations).await;
                queued(&route, &results)?;
                last(results)
            }
        };
        drop(write);
        self.codecs.discard(object, plain_len);
        result
    }

    /// Removes a key from every tier.
    pub(crate) async fn remove(&self, key: &CacheKey) -> Result<DeleteStatus> {
        trace::write("remove", key, self.remove_from_tiers(key)).await
    }

    async fn remove_from_tiers(&self, key: &CacheKey) -> Result<DeleteStatus> {
        self.check_open()?;
        check_length(key)?;
        if self.removes_at_once() {
            return self.remove_at_once(key).await;
        }
        let route = self.route.load_full();
        if route.tiers.is_empty() {
            return Ok(DeleteStatus::Missing);
        }
        let (write, mutations) =
            self.begin(&route, key, |_| vec![(Change::Remove, None); route.written.len()]);
        let results = self.write_all(mutations).await;
        drop(write);
        let mut copies = 0;
        for settlement in results.iter().flatten() {
            match settlement {
                Settlement::Removed(DeleteStatus::Deleted(n)) => copies += n,
                Settlement::Queued { held: true } => copies += 1,
                _ => {}
            }
        }
        queued(&route, &results)?;
        // By whose word a set would have succeeded: else nobody could tell whether a shared store was told.
        match self.write_policy {
            WritePolicy::OptimisticParallel { require_all: false } | WritePolicy::Race => any(results)?,
            WritePolicy::OptimisticParallel { require_all: true } | WritePolicy::Sequential => all(results)?,
            WritePolicy::WriteAround => last(results)?,
        }
        Ok(if copies > 0 { DeleteStatus::Deleted(copies) } else { DeleteStatus::Missing })
    }

    /// Another process wrote the key later, as the store of `newer` says: the other tiers drop the key at once, and what
    /// is on its way to them is void. Those that compare are told the same by their stores.
    pub(super) fn drop_outdated(&self, newer: &TierCore, key: &CacheKey) {
        let route = self.route.load_full();
        let is_older =
            |tier: &&RouteTier| !std::ptr::eq(Arc::as_ptr(&tier.core), newer) && !tier.core.compares;
        let older: Vec<_> = route.written.iter().filter(is_older).collect();
        // Without a port, the key is in quarantine until it is removed.
        self.drop_key(key, &older, |_, mutation| drop(mutation));
    }

    /// Another process says that it wrote the key with this stamp, and that the shared store has it: the other tiers
    /// drop what they hold of it that is older. Returns how many may hold some.
    #[cfg(feature = "backplane")]
    pub(crate) fn drop_older(&self, key: &CacheKey, stamp: Stamp) -> u64 {
        if planted(Plant::HeardIgnored) {
            return 0;
        }
        let route = self.route.load_full();
        // First of all: what was read below before is void from here on.
        drop(self.order.fences.begin(key.hash_u64()));
        self.flights.detach(key);
        for tier in route.tiers.iter().filter(|tier| tier.core.options.read_only || !tier.core.authoritative)
        {
            tier.core.overrule(key, just_before(stamp));
        }
        let holds_older = |tier: &&RouteTier| !tier.core.shared && tier.core.may_hold_older(key, stamp);
        let older: Vec<_> = route.written.iter().filter(holds_older).collect();
        if !older.is_empty() {
            self.drop_key(key, &older, |tier, mutation| {
                // Without room for it, the key is in quarantine until it is removed.
                drop(tier.address.try_send(Envelope::new(Message::Mutate(mutation))));
            });
        }
        older.len() as u64
    }

    /// Removes a key from some tiers, without waiting: from those with a port at once, from others `by` some other way.
    fn drop_key(&self, key: &CacheKey, tiers: &[&RouteTier], by: impl Fn(&RouteTier, Mutation)) {
        for tier in tiers {
            tier.core.announce(key);
        }
        let write = Write::begin(&self.order, &self.runtime, key.clone());
        self.flights.detach(key);
        let now = self.runtime.now();
        for tier in tiers {
            let deadline = now.after(tier.core.options.write_deadline);
            let (mutation, _) = Mutation::new(&tier.core, &write, Change::Remove, deadline);
            if tier.core.port.is_some() {
                tier.core.arrive_at_once(mutation);
            } else {
                by(tier, mutation);
            }
        }
    }

    /// Hides a scope in every tier at once, and has the backends record it.
    pub(crate) async fn clear(&self, scope: Scope) -> Result<()> {
        self.check_open()?;
        let route = self.route.load_full();
        let clear = Arc::new(ClearWrite::begin(&self.order, &self.runtime, scope));
        self.flights.detach_scope(&clear.scope);
        #[cfg(feature = "zstd")]
        if clear.scope == Scope::All {
            self.codecs.dictionaries().forgotten();
        }
        // Before anything is awaited: a change that is pending and covered must not be sent after this.
        let forget = |tier: &RouteTier| tier.core.clear_behind(&clear.scope, clear.stamp);
        let forgotten: Vec<_> = route.written.iter().map(forget).collect();
        let answers = route.written.iter().zip(forgotten).map(|(tier, forgotten)| {
            let (op, answer) = ClearOp::new(&tier.core, &clear);
            self.clear_tier(tier, Message::Clear(op), answer, forgotten)
        });
        let answers: Vec<_> = answers.collect();
        #[cfg(feature = "backplane")]
        let (scope, stamp) = (clear.scope.clone(), clear.stamp);
        drop(clear);
        // Every failure is retried in the background; the first one is told.
        let answers = join_all(answers).await;
        #[cfg(feature = "backplane")]
        if let Some(link) = &self.link {
            link.tell_clear(&scope, stamp);
        }
        answers.into_iter().collect::<Result<()>>()
    }

    async fn clear_tier(
        &self,
        tier: &RouteTier,
        message: Message,
        answer: oneshot::Receiver<Result<()>>,
        forgotten: Option<Written>,
    ) -> Result<()> {
        let deadline = self.runtime.now().after(tier.core.options.write_deadline);
        let sent = async {
            if let Some(forgotten) = forgotten {
                forgotten.await?;
            }
            // Rejected, it is recorded later: the tier keeps what is dropped here.
            let sent = tier.address.send(Envelope::new(message)).await;
            sent.map_err(|rejected| rejection(rejected.reason))?;
            answer.await.unwrap_or_else(|_| Err(restarted()))
        };
        self.runtime
            .deadline(deadline, sent)
            .await
            .unwrap_or_else(|| Err(timeout(tier)))
            .map_err(|error| error.at_tier(&tier.core.label))
    }

    /// Encodes and weighs a value as the tiers want it. Before it is numbered: this may take long, and fail.
    async fn prepare(
        &self,
        route: &Route,
        object: &Object,
        ty: &Arc<dyn ValueType>,
    ) -> Result<Vec<Prepared>> {
        let tiers: Vec<&RouteTier> = route.written.iter().collect();
        let codings = self.encode_for(&tiers, object, ty).await;
        let mut prepared = Vec::with_capacity(tiers.len());
        for (tier, coding) in tiers.into_iter().zip(codings) {
            prepared.push(match coding {
                None if is_unweighed(tier) => Prepared::Object(0),
                None => self.weigh(object, ty).await.map_or_else(Prepared::Failed, Prepared::Object),
                Some(Coding::Own(encoded)) => Prepared::Encoded(encoded),
                Some(Coding::SameAs(twin)) => Prepared::Shared(twin),
                // The value's own doing: nothing is changed.
                Some(Coding::Failed(error))
                    if matches!(error.kind(), ErrorKind::Encode | ErrorKind::TooLarge) =>
                {
                    return Err(error.at_tier(&tier.core.label));
                }
                Some(Coding::Failed(error)) => Prepared::Failed(error),
            });
        }
        Ok(prepared)
    }

    /// What each tier is to do, with the number in it.
    fn seal(
        &self,
        route: &Route,
        object: &Object,
        life: Meta,
        write: &Write,
        prepared: Vec<Prepared>,
    ) -> Vec<(Change, Option<Error>)> {
        let now = self.runtime.wall();
        let last = route.written.len().saturating_sub(1);
        let mut entries: Vec<Result<Entry>> = Vec::with_capacity(prepared.len());
        for (tier, prepared) in route.written.iter().zip(prepared) {
            let meta = Meta { stamp: write.stamp, ..life }.capped(tier.core.ttl_cap(), now);
            let payload = match prepared {
                Prepared::Object(weight) => Ok(Payload::Object(Arc::clone(object), weight)),
                Prepared::Encoded(encoded) => Ok(Payload::Bytes(encoded.seal(&write.key, &meta))),
                Prepared::Shared(twin) => entries[twin].clone().map(|entry| entry.payload),
                Prepared::Failed(error) => Err(error),
            };
            entries.push(payload.map(|payload| Entry::new(payload, meta)));
        }
        let around = self.write_policy == WritePolicy::WriteAround;
        let change = |(index, entry): (usize, Result<Entry>)| {
            let tier = &route.written[index];
            match entry {
                _ if around && index < last => (Change::Remove, None),
                Err(error) => (Change::Remove, Some(error)),
                Ok(entry) if is_oversized(tier, &entry.payload) => {
                    Counters::one(&tier.core.counters.oversized);
                    (Change::Remove, None)
                }
                Ok(entry) => (Change::Set(entry), None),
            }
        };
        entries.into_iter().enumerate().map(change).collect()
    }

    /// Announces, numbers and builds the mutation at every tier. From here on each of them settles, whatever happens.
    pub(super) fn begin(
        &self,
        route: &Route,
        key: &CacheKey,
        changes: impl FnOnce(&Write) -> Vec<(Change, Option<Error>)>,
    ) -> (Arc<Write>, Vec<Planned>) {
        for tier in &route.written {
            tier.core.announce(key);
        }
        let write = Write::begin(&self.order, &self.runtime, key.clone());
        // Before anything is sent: whoever sees the new value never sees the old one in a tier that is not written.
        for tier in route.read_only() {
            tier.core.overrule(key, write.stamp);
        }
        for tier in route.written.iter().filter(|tier| !tier.core.authoritative) {
            // Its own entry of this very change is shown.
            tier.core.overrule(key, just_before(write.stamp));
        }
        // Loads in flight may have read what this replaces: whoever asks from now on starts anew.
        self.flights.detach(key);
        let now = self.runtime.now();
        let build = |(tier, (change, failed)): (&RouteTier, (Change, Option<Error>))| {
            let deadline = now.after(tier.core.options.write_deadline);
            let (mutation, answer) = Mutation::new(&tier.core, &write, change, deadline);
            Planned { tier: tier.clone(), mutation, answer, failed }
        };
        let mutations = route.written.iter().zip(changes(&write)).map(build).collect();
        (write, mutations)
    }

    pub(super) async fn write_all(&self, mutations: Vec<Planned>) -> Vec<Settled> {
        // All are sent before any is awaited.
        let mut sent: Vec<_> = mutations.into_iter().map(send).collect();
        if sent.len() > 1 {
            return join_all(sent.into_iter().map(|sent| self.settle(sent))).await;
        }
        match sent.pop() {
            Some(sent) => vec![self.settle(sent).await],
            None => Vec::new(),
        }
    }

    async fn write_in_turn(&self, mutations: Vec<Planned>) -> Result<()> {
        let mut result = Ok(());
        for mut planned in mutations {
            if result.is_err() {
                // What the tiers below hold is older than what those above may show.
                planned.mutation.change = Change::Remove;
            }
            planned.mutation.deadline = self.runtime.now().after(planned.tier.core.options.write_deadline);
            let settled = self.settle(send(planned)).await;
            result = result.and(settled.map(drop));
        }
        result
    }

    async fn write_race(&self, mutations: Vec<Planned>) -> Result<()> {
        let sent: Vec<_> = mutations.into_iter().map(send).collect();
        let keys: Vec<_> = sent
            .iter()
            .map(|sent| {
                let Sent { tier, key, write, change, open, .. } = sent;
                (Arc::clone(&tier.core), key.clone(), write.stamp, change.clone(), open.clone())
            })
            .collect();
        let race = |sent: Sent| async move {
            let stores = matches!(sent.change, Change::Set(_));
            (stores, self.settle(sent).await)
        };
        // Queues first: without them nobody wins.
        let (queued, others): (Vec<_>, Vec<_>) =
            sent.into_iter().partition(|sent| sent.tier.core.behind.is_some());
        let mut queues = queued.len();
        let mut unqueued = None;
        let queued = queued.into_iter().map(|sent| (true, sent));
        let race = |(queue, sent)| async move {
            let (stores, settled) = race(sent).await;
            (queue, stores, settled)
        };
        let mut racing: FuturesUnordered<_> =
            queued.chain(others.into_iter().map(|sent| (false, sent))).map(race).collect();
        let mut failure = None;
        let mut won = false;
        while let Some((queue, stores, settled)) = racing.next().await {
            queues -= usize::from(queue);
            if let Err(error) = &settled
                && queue
            {
                unqueued = unqueued.or(Some(error.clone()));
            }
            won |= stores && settled.is_ok();
            match settled {
                _ if queues == 0 && unqueued.is_none() && won => {
                    // Those that have not answered settle by quarantine, until they confirm. No effect on the others.
                    for (core, key, stamp, change, open) in
                        keys.into_iter().filter(|_| !planted(Plant::RaceLoserShows))
                    {
                        core.expire(&key, stamp, change, &open);
                    }
                    return Ok(());
                }
                Ok(_) => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        unqueued.or(failure).map_or_else(|| nothing().map(drop), Err)
    }

    /// Waits until a tier has settled the mutation; at its deadline, settles it by quarantine.
    pub(super) async fn settle(&self, sent: Sent) -> Settled {
        let Sent { tier, key, change, write, deadline, mut answer, open, failed, sending } = sent;
        let stamp = write.stamp;
        let began = Began::now(&self.runtime);
        // The stripe is released with the last mutation, not with the last waiter.
        drop(write);
        // What is settled already needs no timer.
        let at_once = answer.try_recv().ok().flatten();
        let waiting = async {
            if let Some(sending) = sending {
                sending.await;
            }
            answer.await
        };
        let deadline = if planted(Plant::NoDeadline) { deadline.after(FAR) } else { deadline };
        let settled = match at_once {
            Some(settled) => settled,
            None => match self.runtime.deadline(deadline, waiting).await {
                Some(Ok(settled)) => settled,
                // The mutation was dropped, which has quarantined its key.
                Some(Err(_)) => Err(restarted()),
                None => {
                    tier.core.expire(&key, stamp, change, &open);
                    Err(timeout(&tier))
                }
            },
        };
        tier.core.meter.wrote(began, &self.runtime);
        let settled = match settled {
            Ok(settlement) => match tier.core.overtaken(&key, stamp, settlement) {
                None => Ok(settlement),
                Some(written) => match self.runtime.deadline(deadline, written).await {
                    Some(written) => written.map(|()| settlement),
                    None => Err(timeout(&tier)),
                },
            },
            failed => failed,
        };
        let settled = settled.and_then(|settlement| failed.map_or(Ok(settlement), Err));
        settled.map_err(|error| error.at_tier(&tier.core.label).for_key(&key))
    }

    /// How many keys of one call may be on their way at once: what the tiers' mailboxes take without turning any away
    /// (but for very small ones), and no more than is good for the executor. A call of more keys takes as many times the
    /// tiers' deadlines, at most.
    pub(crate) fn window(&self) -> usize {
        let route = self.route.load();
        let mailboxes = route.tiers.iter().filter(|tier| tier.core.port.is_none());
        mailboxes.map(|tier| tier.core.options.mailbox).min().unwrap_or(WINDOW).clamp(16, WINDOW)
    }
}

/// Sends a mutation to its tier; if the mailbox is full, waiting for room is part of settling it.
pub(super) fn send(planned: Planned) -> Sent {
    if planned.tier.core.behind.is_some() {
        return send_behind(planned);
    }
    send_through(planned)
}

/// Queues a mutation in a write-behind tier, in the caller's own task.
fn send_behind(planned: Planned) -> Sent {
    let Planned { tier, mutation, answer, failed } = planned;
    let key = mutation.key().clone();
    let change = mutation.change.clone();
    let write = Arc::clone(&mutation.write);
    let open = mutation.open.clone();
    let (deadline, sending) = match tier.core.accept(mutation) {
        Accepting::Through(mutation) => {
            return send_through(Planned { tier, mutation, answer, failed });
        }
        Accepting::Settled { deadline } => (deadline, None),
        Accepting::Waiting { deadline, waiting } => (deadline, Some(waiting)),
    };
    Sent { tier, key, change, write, deadline, answer, open, failed, sending }
}

fn send_through(Planned { tier, mutation, answer, failed }: Planned) -> Sent {
    let key = mutation.key().clone();
    let change = mutation.change.clone();
    let write = Arc::clone(&mutation.write);
    let open = mutation.open.clone();
    let deadline = mutation.deadline;
    let Some(mutation) = tier.core.take_at_once(mutation) else {
        return Sent { tier, key, change, write, deadline, answer, open, failed, sending: None };
    };
    // As reads do; the ledger takes mutations in any order, so that one in the mailbox may come after this.
    let mutation = if tier.address.is_empty() { tier.core.write_at_once(mutation) } else { Some(mutation) };
    let Some(mutation) = mutation else {
        return Sent { tier, key, change, write, deadline, answer, open, failed, sending: None };
    };
    let sending = match tier.address.try_send(Envelope::new(Message::Mutate(mutation))) {
        Ok(()) => None,
        Err(rejected) if rejected.reason == RejectReason::Full => {
            Counters::one(&tier.core.counters.waited);
            let address = Address::clone(&tier.address);
            Some(Box::pin(async move { drop(address.send(rejected.message).await) }) as BoxFuture<'static, ()>)
        }
        // Down or stopped: dropping it quarantines the key.
        Err(_) => None,
    };
    Sent { tier, key, change, write, deadline, answer, open, failed, sending }
}

/// What is older than this is older than `stamp`, and its own entry is not.
fn just_before(stamp: Stamp) -> Stamp {
    Stamp { time: stamp.time.saturating_sub(1), ..stamp }
}

/// No tier holds a longer key, so that none has to be told.
fn check_length(key: &CacheKey) -> Result<()> {
    if key.is_too_long() {
        let message =
            format!("the key's text is over the limit of {} bytes; hash what is long", CacheKey::MAX_LEN);
        // Not named in the error: it would be the error's largest part.
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    Ok(())
}

/// Without its queue having it, a mutation of a write-behind tier is not acknowledged, whoever else confirmed it.
fn queued(route: &Route, results: &[Settled]) -> Result<()> {
    let of_queue = |(tier, result): (&RouteTier, &Settled)| {
        tier.core.behind.as_ref().and_then(|_| result.as_ref().err().cloned())
    };
    route.written.iter().zip(results).find_map(of_queue).map_or(Ok(()), Err)
}

fn any(results: Vec<Settled>) -> Result<()> {
    let mut failure = None;
    for result in results {
        match result {
            Ok(_) => return Ok(()),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or_else(|| nothing().map(drop), Err)
}

fn all(results: Vec<Settled>) -> Result<()> {
    results.into_iter().try_for_each(|result| result.map(drop))
}

fn last(mut results: Vec<Settled>) -> Result<()> {
    results.pop().unwrap_or_else(nothing).map(drop)
}

pub(super) fn nothing() -> Settled {
    Err(Error::new(ErrorKind::Unsupported, "every tier of the cache is read-only"))
}

/// The results of the tiers that were to store the value.
fn those(results: Vec<Settled>, stored: &[bool]) -> Vec<Settled> {
    results.into_iter().zip(stored).filter_map(|(result, stored)| stored.then_some(result)).collect()
}

/// Why no tier was to store the value.
fn nowhere(route: &Route) -> Error {
    if route.written.is_empty() {
        return Error::new(ErrorKind::Unsupported, "every tier of the cache is read-only");
    }
    Error::new(ErrorKind::TooLarge, "the value is over the `max_value` of every tier that would store it")
}

fn restarted() -> Error {
    Error::new(ErrorKind::Restarted, "the tier was restarted before it answered; its key is in quarantine")
}

fn timeout(tier: &RouteTier) -> Error {
    let deadline = tier.core.options.write_deadline;
    Error::new(
        ErrorKind::Timeout,
        format!("not confirmed within the write deadline of {} ms", deadline.as_millis()),
    )
}
