//! The journal of a tier, if it has one. Without the feature `disk` there is none to have.

use crate::backend::Scope;
use crate::error::Result;
use crate::key::CacheKey;
use crate::runtime::{BoxFuture, RuntimeHandle};
use crate::tier::message::Change;
use crate::value::{Stamp, Timestamp};

#[cfg(feature = "disk")]
use super::journal::{Journal, JournalReport, JournalStatus, Record, WhenFull};
#[cfg(feature = "disk")]
use super::options::Durability;
use super::options::WriteBehindOptions;

/// Resolves when something is on the medium.
pub(crate) type Written = BoxFuture<'static, Result<()>>;

/// A write that an earlier process accepted and did not see applied.
pub(crate) struct Recovered {
    pub(crate) key: CacheKey,
    pub(crate) stamp: Stamp,
    pub(crate) change: Change,
    pub(crate) accepted: Timestamp,
}

#[derive(Default)]
pub(crate) struct Keeper {
    #[cfg(feature = "disk")]
    journal: std::sync::OnceLock<Journal>,
}

#[cfg(feature = "disk")]
impl Keeper {
    /// Opens the journal, and says what is in it and whether it was sound.
    pub(crate) async fn open(
        &self,
        options: &WriteBehindOptions,
        runtime: &RuntimeHandle,
    ) -> Result<(Vec<Recovered>, bool)> {
        let Durability::Journal { place, sync } = &options.durability else { return Ok((Vec::new(), true)) };
        let (journal, recovery) = Journal::open(place, *sync, runtime).await?;
        let sound = recovery.report.is_clean();
        // Once, as the engine starts.
        let _ = self.journal.set(journal);
        let recovered = recovery.records.into_iter().map(|record| {
            let Record { key, stamp, change, accepted } = record;
            Recovered { key, stamp, change, accepted }
        });
        Ok((recovered.collect(), sound))
    }

    /// Puts a change down; `None`: it may be acknowledged at once. `refuse`: rather than to wait until a failing journal
    /// can be written again.
    pub(crate) fn put(
        &self,
        key: &CacheKey,
        stamp: Stamp,
        change: &Change,
        accepted: Timestamp,
        refuse: bool,
    ) -> Option<Written> {
        let journal = self.journal.get()?;
        let record = Record { key: key.clone(), stamp, change: change.clone(), accepted };
        let full = if refuse { WhenFull::Refuse } else { WhenFull::Wait };
        journal.put(&record, full).map(|written| Box::pin(written) as Written)
    }

    /// The changes of a key up to this stamp need be kept no longer.
    pub(crate) fn settled(&self, key: &CacheKey, stamp: Stamp) {
        if let Some(journal) = self.journal.get() {
            journal.settled(key, stamp);
        }
    }

    /// Where the journal has the changes of a key up to this stamp, for [`settled_at`](Self::settled_at).
    pub(crate) fn number(&self, key: &CacheKey, stamp: Stamp) -> Option<u64> {
        self.journal.get()?.number(key, stamp)
    }

    /// What was put down with this number need be kept no longer; what was put down anew since, must.
    pub(crate) fn settled_at(&self, key: &CacheKey, number: u64) {
        if let Some(journal) = self.journal.get() {
            journal.settled_at(key, number);
        }
    }

    /// As [`settled`](Self::settled), for what was overtaken by a write that is not in the journal.
    pub(crate) fn settled_durably(&self, key: &CacheKey, stamp: Stamp) -> Option<Written> {
        Some(Box::pin(self.journal.get()?.settled_durably(key, stamp)))
    }

    pub(crate) fn forget(&self, scope: &Scope, stamp: Stamp) -> Option<Written> {
        Some(Box::pin(self.journal.get()?.forget(scope, stamp)))
    }

    /// Everything put down by now is on the medium when this resolves.
    pub(crate) fn sync(&self) -> Option<Written> {
        Some(Box::pin(self.journal.get()?.sync()))
    }

    pub(crate) async fn close(&self) -> Result<()> {
        match self.journal.get() {
            Some(journal) => journal.close().await,
            None => Ok(()),
        }
    }

    pub(crate) fn status(&self) -> Option<JournalStatus> {
        self.journal.get().map(Journal::status)
    }

    pub(crate) fn report(&self) -> Option<JournalReport> {
        self.journal.get().map(Journal::report)
    }
}

#[cfg(not(feature = "disk"))]
impl Keeper {
    pub(crate) async fn open(
        &self,
        _: &WriteBehindOptions,
        _: &RuntimeHandle,
    ) -> Result<(Vec<Recovered>, bool)> {
        Ok((Vec::new(), true))
    }

    pub(crate) fn put(&self, _: &CacheKey, _: Stamp, _: &Change, _: Timestamp, _: bool) -> Option<Written> {
        None
    }

    pub(crate) fn settled(&self, _: &CacheKey, _: Stamp) {}

    pub(crate) fn number(&self, _: &CacheKey, _: Stamp) -> Option<u64> {
        None
    }

    pub(crate) fn settled_at(&self, _: &CacheKey, _: u64) {}

    pub(crate) fn settled_durably(&self, _: &CacheKey, _: Stamp) -> Option<Written> {
        None
    }

    pub(crate) fn forget(&self, _: &Scope, _: Stamp) -> Option<Written> {
        None
    }

    pub(crate) fn sync(&self) -> Option<Written> {
        None
    }

    pub(crate) async fn close(&self) -> Result<()> {
        Ok(())
    }
}
