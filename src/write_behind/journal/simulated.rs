//! A journal's medium in memory, for simulations: it outlives the process, or the machine, as far as a disk does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::JournalReport;
use super::record::Record;
use super::store::{Batch, Found};
use crate::error::{Error, ErrorKind, Result};
use crate::key::CacheKey;

/// A log that stands for a journal's directory in a simulation, where there are neither files nor threads. Clones are
/// the same log: keep one, end the process that writes to it, and open it in the next.
///
/// A batch is written whole or not at all. What was written survives the process ([`kill`](Self::kill)), what was synced
/// the machine ([`power_off`](Self::power_off)).
#[derive(Debug, Clone, Default)]
pub struct SimulatedLog(Arc<Mutex<Log>>);

/// A key with its record and the number of that, or `None`: it is forgotten.
type Changed = (CacheKey, Option<(u64, Record)>);

#[derive(Debug, Default)]
struct Log {
    batches: Vec<Vec<Changed>>,
    /// How many of them are synced.
    synced: usize,
    /// Which opening may write.
    opening: u64,
    /// Batches that fail before one succeeds again.
    failing: u32,
}

impl SimulatedLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the process that writes: what it has written stays, and nothing that it writes from here on counts.
    pub fn kill(&self) {
        self.lock().opening += 1;
    }

    /// As [`kill`](Self::kill), and of what was not synced only the first batches stay: `kept` of so many.
    pub fn power_off(&self, kept: impl FnOnce(usize) -> usize) {
        let mut log = self.lock();
        log.opening += 1;
        let unsynced = log.batches.len() - log.synced;
        let kept = log.synced + kept(unsynced).min(unsynced);
        log.batches.truncate(kept);
    }

    /// Lets the next `batches` fail, as a full disk does.
    pub fn fail(&self, batches: u32) {
        self.lock().failing = batches;
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(&self) -> (Opened, Found) {
        let mut log = self.lock();
        log.opening += 1;
        let mut records = BTreeMap::new();
        let mut next = 1;
        for (key, record) in log.batches.iter().flatten() {
            next = record.as_ref().map_or(next, |(number, _)| next.max(number + 1));
            match record {
                Some(record) => records.insert(key.clone(), record.clone()),
                None => records.remove(key),
            };
        }
        let report = JournalReport { records: records.len(), ..JournalReport::default() };
        let records = records.into_values().collect();
        let found = Found { records, settled: Vec::new(), next, report, rewrite: false };
        (Opened { log: self.clone(), opening: log.opening }, found)
    }
}

impl PartialEq for SimulatedLog {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SimulatedLog {}

/// The log as one process has it open.
pub(super) struct Opened {
    log: SimulatedLog,
    opening: u64,
}

impl Opened {
    pub(super) fn commit(&self, batch: &Batch) -> Result<()> {
        let mut log = self.log.lock();
        if log.opening != self.opening || log.failing > 0 {
            log.failing = log.failing.saturating_sub(1);
            return Err(Error::new(ErrorKind::Unavailable, "the simulated journal cannot be written"));
        }
        if !batch.changes.is_empty() {
            log.batches.push(batch.changes.clone());
        }
        if batch.sync {
            log.synced = log.batches.len();
        }
        Ok(())
    }

    pub(super) fn close(&self) {
        let mut log = self.log.lock();
        if log.opening == self.opening {
            log.synced = log.batches.len();
        }
    }
}
