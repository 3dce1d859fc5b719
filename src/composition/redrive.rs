//! Queueing a dead letter again, unless something newer has come.

use std::sync::Arc;

use super::engine::Engine;
use super::route::{Route, RouteTier};
use crate::codec::frame;
use crate::error::{Error, ErrorKind, Result};
use crate::key::CacheKey;
use crate::tier::{Change, TierCore};
use crate::value::{Entry, Payload, Stamp};
use crate::write_behind::{DeadLetter, Redriven};

/// An announcement of a key at every tier: what settles there while it lives is remembered.
struct Announced<'k> {
    cores: Vec<Arc<TierCore>>,
    key: &'k CacheKey,
}

impl<'k> Announced<'k> {
    fn at(route: &Route, key: &'k CacheKey) -> Self {
        let cores: Vec<_> = route.written.iter().map(|tier| Arc::clone(&tier.core)).collect();
        cores.iter().for_each(|core| core.announce(key));
        Self { cores, key }
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.cores.iter().for_each(|core| core.forget(self.key));
    }
}

impl Engine {
    /// Announced before anything is read: a mutation that settles between the look and the queueing is remembered, and
    /// the stripe is busy, so that no refill or load that began earlier comes between either.
    pub(crate) async fn redrive(&self, letter: &DeadLetter) -> Result<Redriven> {
        self.check_open()?;
        let route = self.route.load_full();
        let target = route.written.iter().find(|tier| tier.core.label == letter.tier);
        let Some(target) = target.filter(|tier| tier.core.behind.is_some()) else {
            let message = format!("there is no write-behind tier labelled `{}`", letter.tier);
            return Err(Error::new(ErrorKind::Config, message).for_key(&letter.key));
        };
        let _announced = Announced::at(&route, &letter.key);
        let _busy = self.order.fences.begin(letter.key.hash_u64());
        self.flights.detach(&letter.key);
        for tier in &route.written {
            let newest = match self.newest(tier, &letter.key).await {
                Ok(newest) => newest,
                // The store itself has to say; of another tier that cannot, the ledger knows what is under way.
                Err(error) if Arc::ptr_eq(&tier.core, &target.core) => {
                    return Err(error.at_tier(&tier.core.label).for_key(&letter.key));
                }
                Err(_) => None,
            };
            if newest.is_some_and(|stamp| stamp > letter.stamp) {
                return Ok(Redriven::Superseded);
            }
        }
        let redriven = async {
            let (redriven, written) = target.core.redrive(letter)?;
            match written {
                Some(written) => written.await.map(|()| redriven),
                None => Ok(redriven),
            }
        };
        redriven.await.map_err(|error: Error| error.at_tier(&target.core.label).for_key(&letter.key))
    }

    /// The stamp of what a tier holds of a key, whether it may be shown or not.
    async fn newest(&self, tier: &RouteTier, key: &CacheKey) -> Result<Option<Stamp>> {
        let entry = match (tier.core.shown(key), &tier.core.port) {
            (Ok(Some(Change::Set(entry))), _) => Some(entry),
            (Ok(Some(Change::Remove)), _) => None,
            (_, Some(port)) => port.get(&key.probe()),
            (_, None) => self.ask(tier, key).await?,
        };
        Ok(entry.and_then(|entry| stamp(&entry, key)))
    }
}

fn stamp(entry: &Entry, key: &CacheKey) -> Option<Stamp> {
    match &entry.payload {
        Payload::Object(..) => Some(entry.meta.stamp),
        // What cannot be read is nothing newer.
        Payload::Bytes(raw) => frame::open(raw, key).ok().map(|(header, _)| header.meta.stamp),
    }
}
