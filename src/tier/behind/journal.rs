//! What the queue has to do with its journal beside putting down what it accepts.

use std::sync::Arc;

use super::super::core::{TierCore, lock};
use super::super::ledger::Ledger;
use super::super::message::{Change, Settlement};
use super::Moment;
use crate::error::Result;
use crate::key::CacheKey;
use crate::observe::EventKind;
use crate::planted::{Plant, planted};
use crate::value::Stamp;
use crate::write_behind::{Recovered, Written};

impl TierCore {
    /// Opens the journal: what an earlier process left in it is pending before anybody asks.
    ///
    /// # Errors
    /// Why it could not be opened.
    pub(crate) async fn open_behind(self: &Arc<Self>) -> Result<()> {
        let Some(behind) = &self.behind else { return Ok(()) };
        let opened = behind.keeper.open(&behind.options, &self.runtime).await;
        let (recovered, sound) = opened.map_err(|error| error.at_tier(&self.label))?;
        if !sound {
            self.tell(EventKind::JournalDamaged);
        }
        let at = self.moment();
        for mut recovered in recovered.into_iter().filter(|_| !planted(Plant::JournalNotReplayed)) {
            self.order.clock.observe(recovered.stamp, at.wall);
            // Older than every write of this process, even if an earlier clock ran ahead.
            recovered.stamp = self.order.inherited(recovered.stamp);
            if let Change::Set(entry) = &mut recovered.change {
                entry.inherited = true;
            }
            self.with_ledger(|ledger, _| ledger.restore(recovered, at));
        }
        Ok(())
    }

    /// A mutation was written through, past the queue: what the journal has of its key must not be replayed over it.
    pub(crate) fn overtaken(&self, key: &CacheKey, stamp: Stamp, settlement: Settlement) -> Option<Written> {
        let behind = self.behind.as_ref().filter(|behind| behind.is_journaled())?;
        let queued = matches!(settlement, Settlement::Queued { .. } | Settlement::Superseded);
        if queued { None } else { behind.keeper.settled_durably(key, stamp) }
    }

    /// Has the journal sync what was given up by now: a repair removes what it was to replace, or has replaced, from the
    /// store, and a crash before the letter was delivered would leave neither. Returns whether that took time.
    pub(in crate::tier) async fn keep_given_up(&self) -> bool {
        let Some(behind) = self.behind.as_ref().filter(|behind| behind.is_journaled()) else { return false };
        let buried =
            lock(&self.ledger).backlog.as_mut().is_some_and(|backlog| std::mem::take(&mut backlog.buried));
        if !buried || planted(Plant::RepairsUnkept) {
            return false;
        }
        if let Some(written) = behind.keeper.sync() {
            // A journal that is closed has synced what it had.
            let _ = written.await;
        }
        true
    }
}

impl Ledger {
    /// Makes pending what an earlier process left in the journal.
    fn restore(&mut self, recovered: Recovered, at: Moment) {
        let Recovered { key, stamp, change, accepted } = recovered;
        self.queue(&key, stamp, change, Moment { wall: accepted, ..at });
        if let Some(backlog) = &mut self.backlog {
            backlog.counts.recovered += 1;
        }
    }
}
