//! The way of a mutation: prepared, announced at every tier, numbered, sent to all, settled everywhere.
//!
//! The order of these steps is the rule. A mutation announces itself at each tier *before* it draws its number: one
//! with a later number therefore finds it announced everywhere, and what that one settles is remembered until this one
//! has arrived. It returns when every tier has settled the key; the policy only says whose confirmation is a success.
//!
//! What each tier is to store is made in [`prepare`]; [`send`] brings a mutation to one tier and waits for it; [`confirm`]
//! has the policies.

mod clear;
mod confirm;
mod outdated;
mod prepare;
mod send;

use std::sync::Arc;

use futures_channel::oneshot;

pub(super) use confirm::nothing;
use confirm::{all, any, last, queued, those};
use outdated::just_before;
use prepare::Prepared;
pub(super) use send::{Sent, send_to};

use super::engine::Engine;
use super::policy::WritePolicy;
use super::route::{Route, RouteTier};
use crate::codec::ValueType;
use crate::error::{Error, ErrorKind, Result};
use crate::key::CacheKey;
use crate::observe::trace;
use crate::order::Write;
use crate::runtime::host::drop_quietly;
use crate::tier::{Change, Mutation, Settled, Settlement};
use crate::value::{DeleteStatus, Meta, Object};

/// Keys of one call under way at once, at most.
const WINDOW: usize = 256;

/// A mutation built for one tier.
pub(super) struct Planned<'a> {
    pub(super) tier: &'a RouteTier,
    pub(super) mutation: Mutation,
    pub(super) answer: oneshot::Receiver<Settled>,
    /// Why this tier removes the key instead of storing the value, where that is a failure.
    pub(super) failed: Option<Error>,
}

impl Engine {
    /// Stores a value in the tiers, as the policy says. `life` are its stamps but for the number.
    pub(crate) fn set<'a>(
        &'a self,
        key: &'a CacheKey,
        object: Object,
        ty: &'a Arc<dyn ValueType>,
        life: &'a Meta,
    ) -> impl Future<Output = Result<()>> + use<'a> {
        trace::write("set", key, self.set_tiers(key, object, ty, life))
    }

    async fn set_tiers(
        &self,
        key: &CacheKey,
        object: Object,
        ty: &Arc<dyn ValueType>,
        life: &Meta,
    ) -> Result<()> {
        self.check_open()?;
        check_length(key)?;
        let Some(mut left) = self.set_at_once(key, &object, &**ty, *life)? else {
            // Boxed, so that the usual way does not carry its state.
            return Box::pin(self.set_in_steps(key, object, ty, *life)).await;
        };
        // Now, while it is at hand: what waits next takes a store's time.
        drop_quietly(object);
        self.await_left(&mut left).await.map(drop)
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
    pub(crate) fn remove<'a>(
        &'a self,
        key: &'a CacheKey,
    ) -> impl Future<Output = Result<DeleteStatus>> + use<'a> {
        trace::write("remove", key, self.remove_from_tiers(key))
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

    /// Announces, numbers and builds the mutation at every tier. From here on each of them settles, whatever happens.
    pub(super) fn begin<'a>(
        &'a self,
        route: &'a Route,
        key: &'a CacheKey,
        changes: impl FnOnce(&Write<'_>) -> Vec<(Change, Option<Error>)>,
    ) -> (Write<'a>, Vec<Planned<'a>>) {
        for tier in &route.written {
            tier.core.announce(key);
        }
        let write = Write::begin(&self.order, &self.runtime, key);
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
        let build = |(tier, (change, failed)): (&'a RouteTier, (Change, Option<Error>))| {
            let deadline = now.after(tier.core.options.write_deadline);
            let (mutation, answer) = Mutation::new(&tier.core, &write, change, deadline);
            Planned { tier, mutation, answer, failed }
        };
        let mutations = route.written.iter().zip(changes(&write)).map(build).collect();
        (write, mutations)
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

/// Why no tier was to store the value.
fn nowhere(route: &Route) -> Error {
    if route.written.is_empty() {
        return Error::new(ErrorKind::Unsupported, "every tier of the cache is read-only");
    }
    Error::new(ErrorKind::TooLarge, "the value is over the `max_value` of every tier that would store it")
}
