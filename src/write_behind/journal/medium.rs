//! What a journal writes to: fjall's files, or in a simulation a log in memory, whose crashes are the simulation's.

use std::path::PathBuf;

#[cfg(feature = "testing")]
use super::simulated::Opened;
use super::store::{Batch, Found, Store};
use super::{JournalReport, Place};
use crate::error::Result;

/// Everything here blocks.
pub(super) enum Medium {
    Files(Store),
    #[cfg(feature = "testing")]
    Simulated(Opened),
}

impl Medium {
    /// Opens it, with what it holds on the medium: a process that was killed may have left it written and not synced, and
    /// from here on it shows.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub(super) fn open(place: &Place) -> Result<(Self, Found)> {
        let (medium, mut found) = match place {
            Place::Directory(directory) => {
                let (store, found) = Store::open(directory)?;
                (Self::Files(store), found)
            }
            #[cfg(feature = "testing")]
            Place::Simulated(log) => {
                let (opened, found) = log.open();
                (Self::Simulated(opened), found)
            }
        };
        let synced =
            found.records.is_empty() || medium.commit(&Batch { sync: true, ..Batch::default() }).is_ok();
        // As what was found elsewhere: it is written again, until that succeeds.
        found.rewrite |= !synced;
        Ok((medium, found))
    }

    /// # Errors
    /// As [`Store::commit`].
    pub(super) fn commit(&self, batch: &Batch) -> Result<()> {
        match self {
            Self::Files(store) => store.commit(batch),
            #[cfg(feature = "testing")]
            Self::Simulated(opened) => opened.commit(batch),
        }
    }

    /// # Errors
    /// As [`Store::reopen`].
    pub(super) fn reopen(&self) -> Result<JournalReport> {
        match self {
            Self::Files(store) => store.reopen(),
            #[cfg(feature = "testing")]
            Self::Simulated(_) => Ok(JournalReport::default()),
        }
    }

    pub(super) fn salvage_finished(&self, moved_aside: &[PathBuf]) {
        match self {
            Self::Files(store) => store.salvage_finished(moved_aside),
            #[cfg(feature = "testing")]
            Self::Simulated(_) => {}
        }
    }

    pub(super) fn close(&self, left: Option<usize>) {
        match self {
            Self::Files(store) => store.close(left),
            #[cfg(feature = "testing")]
            Self::Simulated(opened) => opened.close(),
        }
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        match self {
            Self::Files(store) => store.disk_bytes(),
            #[cfg(feature = "testing")]
            Self::Simulated(_) => 0,
        }
    }
}
