//! What a store that compares tells: another process has written the key later.
//!
//! The mutation counts as settled, superseded by the other process's. But other tiers may show it, or what it replaced,
//! so they drop the key before whoever waits is told; the next read finds the newer value in the store.

use std::sync::{Arc, OnceLock};

use super::core::TierCore;
#[cfg(feature = "backplane")]
use super::core::lock;
use super::counters::Counters;
use super::message::{Mutation, Settlement};
use crate::error::{Error, ErrorKind, Result};
use crate::key::CacheKey;
use crate::planted::{Plant, planted};
use crate::value::Stamp;

/// What a tier's store means to the other tiers and to other processes. Called under no lock, and must not wait.
pub(crate) trait Surroundings: Send + Sync {
    /// The store of `core` holds something newer of the key than this process wrote.
    fn outdated(&self, core: &TierCore, key: &CacheKey);

    /// A store that other processes read has confirmed a change of this process.
    fn confirmed(&self, key: &CacheKey, stamp: Stamp, removed: bool);
}

/// What a writing attempt carries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Carried {
    /// When its value was written, or its removal asked for; zero: what a fill may have left is removed.
    pub(super) stamp: Stamp,
    /// Whether it is a change: not a fill.
    pub(super) changes: bool,
}

#[derive(Default)]
pub(super) struct Outdated(OnceLock<Box<dyn Surroundings>>);

impl TierCore {
    /// Says whom to tell. Once, as the engine is assembled.
    pub(crate) fn surround(&self, surroundings: impl Surroundings + 'static) {
        let _ = self.outdated.0.set(Box::new(surroundings));
    }

    /// A refusal for being older, by a store that compares, is an answer and no failure.
    pub(super) fn compared(&self, error: Error) -> Result<Settlement> {
        if !self.compares || error.kind() != ErrorKind::Superseded {
            return Err(error);
        }
        if let Some(stamp) = error.superseded_by() {
            self.order.clock.observe(stamp, self.runtime.wall());
        }
        Ok(Settlement::Outdated)
    }

    /// What a call made of a key: whoever has to know is told.
    pub(super) fn note_answer(&self, key: &CacheKey, carried: Carried, result: &Result<Settlement>) {
        let (Some(surroundings), Ok(settlement)) = (self.outdated.0.get(), result) else { return };
        // Zero removes what a fill may have left: where there is something newer, nothing of ours is refused.
        if carried.stamp == Stamp::ZERO {
            return;
        }
        match settlement {
            Settlement::Outdated => {
                Counters::one(&self.counters.outdated);
                if !planted(Plant::OutdatedStays) {
                    surroundings.outdated(self, key);
                }
            }
            Settlement::Applied if self.shared && carried.changes => {
                surroundings.confirmed(key, carried.stamp, false);
            }
            Settlement::Removed(_) if self.shared && carried.changes => {
                surroundings.confirmed(key, carried.stamp, true);
            }
            Settlement::Applied | Settlement::Removed(_) => {}
            // No store answers so.
            Settlement::Superseded | Settlement::Queued { .. } => {}
        }
    }

    /// Takes a mutation from beside the mailbox: in a tier with a port, it is carried out when this returns.
    pub(crate) fn arrive_at_once(self: &Arc<Self>, mutation: Mutation) {
        self.arrive(mutation);
        // If another one of the key was being carried out, this one is its successor.
        self.pump();
    }

    /// Whether an entry of the key older than `stamp` may be here, or on its way: not if the fences had moved before
    /// this was asked, and it says no.
    #[cfg(feature = "backplane")]
    pub(crate) fn may_hold_older(&self, key: &CacheKey, stamp: Stamp) -> bool {
        let Some(port) = &self.port else { return true };
        // The ledger first: what is no longer under way there has reached the store.
        lock(&self.ledger).keys.contains_key(key)
            || port.get(&key.probe()).is_some_and(|held| held.meta.stamp < stamp)
    }
}
