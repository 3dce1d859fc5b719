//! What a store that compares tells: another process has written the key later.
//!
//! The mutation counts as settled, superseded by the other process's. But other tiers may show it, or what it replaced,
//! so they drop the key before whoever waits is told; the next read finds the newer value in the store.

use std::sync::{Arc, OnceLock};

use super::core::TierCore;
use super::counters::Counters;
use super::message::{Mutation, Settlement};
use crate::error::{Error, ErrorKind, Result};
use crate::key::CacheKey;
use crate::planted::{Plant, planted};
use crate::value::Stamp;

/// Has the other tiers drop a key. Under no lock, and without waiting.
pub(crate) type DropElsewhere = Box<dyn Fn(&TierCore, &CacheKey) + Send + Sync>;

#[derive(Default)]
pub(super) struct Outdated(OnceLock<DropElsewhere>);

impl TierCore {
    /// Says what is done about a key that another process has written later.
    pub(crate) fn on_outdated(&self, drop_elsewhere: DropElsewhere) {
        // Set once, as the engine is assembled.
        let _ = self.outdated.0.set(drop_elsewhere);
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

    /// Has the other tiers drop the key if the store holds something newer than `stamp`.
    pub(super) fn note_outdated(&self, key: &CacheKey, stamp: Stamp, result: &Result<Settlement>) {
        // Zero removes what a fill may have left: where there is something newer, nothing of ours is refused.
        let refused = matches!(result, Ok(Settlement::Outdated)) && stamp > Stamp::ZERO;
        Counters::add(&self.counters.outdated, u64::from(refused));
        if let Some(drop_elsewhere) = self.outdated.0.get()
            && refused
            && !planted(Plant::OutdatedStays)
        {
            drop_elsewhere(self, key);
        }
    }

    /// Takes a mutation from beside the mailbox: in a tier with a port it is carried out when this returns, elsewhere
    /// its key is in quarantine until it is.
    pub(crate) fn arrive_at_once(self: &Arc<Self>, mutation: Mutation) {
        if self.port.is_some() {
            self.arrive(mutation);
            // If another one of the key was being carried out, this one is its successor.
            self.pump();
        }
    }
}
