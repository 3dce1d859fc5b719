//! The journal's files: a store of fjall with one record per key, opened over whatever is there.
//!
//! Everything here blocks, and runs on the blocking pool.

use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use fjall::config::CompressionPolicy;
use fjall::{Keyspace, KeyspaceCreateOptions, PersistMode};

use super::record::{Notes, Piece, Record, decode, encode, encode_notes};
use super::recovery::{Files, Gathered, JournalReport};
use crate::backend::disk::lock::DirectoryLock;
use crate::backend::disk::recovery::{Refusal, data_directory, move_aside, open_database, version_file};
use crate::error::{Error, ErrorKind, Result};
use crate::key::CacheKey;

const PENDING: &str = "pending";
/// Where the notes of the last batch stand. No key is empty.
const NOTES_KEY: &[u8] = &[0];
/// Records are read back only when the journal is opened.
const READ_CACHE: u64 = 1 << 20;
/// Small, since the log is kept for as long as the buffer has not been written out.
const WRITE_BUFFER: u64 = 8 << 20;
/// How much goes into one batch of fjall, in bytes.
const BATCH: usize = 4 << 20;
/// Marks a directory of damaged files whose records are not yet safe elsewhere.
const UNFINISHED: &str = "salvage-unfinished";

/// Holds how many records were left when the journal was closed.
const CLOSED: &str = "closed";

/// fjall makes writers wait for ever behind four unwritten buffers or thirty tables, even after the threads that
/// would write them have died of a full disk. So the journal waits itself, below those, and gives up.
const MAX_SEALED: usize = 2;
const MAX_TABLES: usize = 18;
const BACKLOG_PAUSE: Duration = Duration::from_millis(10);
const BACKLOG_ATTEMPTS: u32 = 200;

/// What is to be made so in the store, all of it or (after a crash) a part.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Per key its record, or `None`: it is forgotten.
    pub(super) changes: Vec<(CacheKey, Option<(u64, Record)>)>,
    pub(super) notes: Notes,
    /// Whether it is to be on the medium when this returns.
    pub(super) sync: bool,
}

/// What opening found, with the numbers that the records have in the store.
pub(super) struct Found {
    pub(super) records: Vec<(u64, Record)>,
    /// Notes that were cut off with the end of a log, while records that they are about may stand before the cut.
    pub(super) settled: Vec<(u64, u64)>,
    /// The next free number.
    pub(super) next: u64,
    pub(super) report: JournalReport,
    /// Whether the store does not hold the records yet: they were found elsewhere.
    pub(super) rewrite: bool,
}

/// Fields are dropped in order: fjall closes before the directory is unlocked.
pub(super) struct Store {
    open: Mutex<Option<Open>>,
    directory: PathBuf,
    /// `None` once it is closed.
    lock: Mutex<Option<DirectoryLock>>,
}

struct Open {
    keyspace: Keyspace,
    db: fjall::Database,
}

impl Store {
    /// Opens or creates the journal in `directory` and reads it. Damage is reported, not refused.
    pub(super) fn open(directory: &Path) -> Result<(Self, Found)> {
        let lock = DirectoryLock::acquire(directory)?;
        let mut report = JournalReport::default();
        let mut gathered = Gathered::default();
        let (open, rewrite) = recover(directory, &mut gathered, &mut report)?;
        let store = Self {
            open: Mutex::new(Some(open)),
            directory: directory.to_owned(),
            lock: Mutex::new(Some(lock)),
        };
        let next = gathered.highest() + 1;
        let settled = if report.cut_bytes > 0 { gathered.settled() } else { Vec::new() };
        let records = gathered.pending();
        report.records = records.len();
        check_closed(directory, &mut report);
        Ok((store, Found { records, settled, next, report, rewrite }))
    }

    /// Writes a batch. After an error the store must be reopened, and what it should hold written again.
    pub(super) fn commit(&self, batch: &Batch) -> Result<()> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = &*open else { return Err(self.unavailable("is not open", None)) };
        self.check_present()?;
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| self.write(open, batch)));
        result.unwrap_or_else(|_| Err(self.unavailable("made its store panic", None)))
    }

    fn write(&self, open: &Open, batch: &Batch) -> Result<()> {
        if batch.changes.is_empty() && !batch.sync {
            return Ok(());
        }
        let mut part = open.db.batch();
        if !batch.notes.settled.is_empty() {
            part.insert(&open.keyspace, NOTES_KEY, encode_notes(&batch.notes));
        }
        let mut bytes = 0;
        for (key, record) in &batch.changes {
            match record {
                Some((number, record)) => {
                    let encoded = encode(*number, record);
                    bytes += encoded.len();
                    part.insert(&open.keyspace, key.as_str(), encoded);
                }
                None => part.remove(&open.keyspace, key.as_str()),
            }
            if bytes > BATCH {
                self.wait_for_room(open)?;
                let full = std::mem::replace(&mut part, open.db.batch());
                full.commit().map_err(|e| self.failed(e))?;
                bytes = 0;
            }
        }
        self.wait_for_room(open)?;
        // `fdatasync`: the only other thing that `fsync` would write is the time of the change.
        let mode = if batch.sync { PersistMode::SyncData } else { PersistMode::Buffer };
        if part.is_empty() {
            return open.db.persist(mode).map_err(|e| self.failed(e));
        }
        part.durability(Some(mode)).commit().map_err(|e| self.failed(e))
    }

    fn wait_for_room(&self, open: &Open) -> Result<()> {
        let pause = (Mutex::new(()), Condvar::new());
        for _ in 0..BACKLOG_ATTEMPTS {
            if open.keyspace.sealed_memtable_count() <= MAX_SEALED
                && open.keyspace.l0_table_count() <= MAX_TABLES
            {
                return Ok(());
            }
            open.db.persist(PersistMode::Buffer).map_err(|e| self.failed(e))?;
            // Nobody notifies: fjall offers no event to wait for.
            let guard = pause.0.lock().unwrap_or_else(PoisonError::into_inner);
            drop(pause.1.wait_timeout(guard, BACKLOG_PAUSE));
        }
        Err(Error::new(ErrorKind::Overloaded, "the disk does not keep up with the journal"))
    }

    /// Replaces a store that failed. What it should hold is to be written again afterwards.
    pub(super) fn reopen(&self) -> Result<JournalReport> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // fjall closes only once nobody holds it.
        drop(open.take());
        let mut report = JournalReport::default();
        *open = Some(recover(&self.directory, &mut Gathered::default(), &mut report)?.0);
        Ok(report)
    }

    /// What damaged files held is safe in the store now.
    pub(super) fn salvage_finished(&self, moved_aside: &[PathBuf]) {
        for aside in moved_aside {
            // Left behind, it only makes the next opening read the same files again.
            let _ = fs::remove_file(aside.join(UNFINISHED));
        }
    }

    /// Closes fjall, which syncs, and lets others have the directory. `left`: how many records it holds, so that the
    /// next opening can tell if some are missing.
    pub(super) fn close(&self, left: Option<usize>) {
        drop(self.open.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(left) = left {
            // Without it the next opening only knows less.
            let _ = fs::write(self.directory.join(CLOSED), left.to_string());
        }
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// What its files take, in bytes.
    pub(super) fn disk_bytes(&self) -> u64 {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().and_then(|open| open.db.disk_space().ok()).unwrap_or_default()
    }

    fn check_present(&self) -> Result<()> {
        if version_file(&self.directory).exists() && DirectoryLock::is_in_place(&self.directory) {
            return Ok(());
        }
        Err(self.unavailable("was removed or emptied while in use", None))
    }

    fn failed(&self, error: fjall::Error) -> Error {
        self.unavailable("cannot be written: is the disk full?", Some(error))
    }

    fn unavailable(&self, what: &str, source: Option<fjall::Error>) -> Error {
        let message = format!("the write-behind journal in `{}` {what}", self.directory.display());
        match source {
            Some(source) => {
                Error::new(ErrorKind::Unavailable, format!("{message} ({source})")).with_source(source)
            }
            None => Error::new(ErrorKind::Unavailable, message),
        }
    }
}

/// Opens the store in `directory` and gathers what it holds, past whatever damage. Answers whether something of it was
/// found elsewhere than in the store.
fn recover(directory: &Path, gathered: &mut Gathered, report: &mut JournalReport) -> Result<(Open, bool)> {
    let problems = &mut report.problems;
    for aside in unfinished(directory) {
        report.unreadable += gathered.scan(&Files::all(&aside, problems));
        report.moved_aside.push(aside);
    }
    let data = data_directory(directory);
    // fjall cuts its logs where they stop making sense, without a word, so they are read before it can.
    let logs = Files::logs(&data, problems);
    let opened = match open_store(directory).and_then(|open| read(&open, report).map(|read| (open, read))) {
        Ok(opened) => Ok(opened),
        Err(Refusal::Damaged(what)) => Err(what),
        Err(refusal @ Refusal::Unavailable(_)) => return Err(refusal.into_error(directory)),
    };
    match opened {
        Ok((open, read)) => {
            report.unreadable += gathered.scan(&logs);
            let cut = logs.cut();
            if !cut.is_empty() {
                report.cut_bytes += cut.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
                keep_cut(directory, &cut, report);
            }
            let elsewhere = gathered.merge(read);
            report.salvaged = elsewhere;
            Ok((open, elsewhere > 0))
        }
        Err(what) => {
            report.problems.push(what);
            let aside = move_aside(directory)?;
            let marked = fs::write(aside.join(UNFINISHED), b"");
            if let Err(error) = marked {
                report.problems.push(format!("`{}` cannot be marked ({error})", aside.display()));
            }
            report.unreadable += gathered.scan(&logs);
            drop(logs);
            gathered.scan(&Files::all(&aside, &mut report.problems));
            report.moved_aside.push(aside);
            report.salvaged = gathered.len();
            let open = open_store(directory).map_err(|refusal| refusal.into_error(directory))?;
            Ok((open, true))
        }
    }
}

/// A log that ends too early looks like one that was never longer, unless it is known how much there should be.
fn check_closed(directory: &Path, report: &mut JournalReport) {
    let path = directory.join(CLOSED);
    let Ok(left) = fs::read_to_string(&path) else { return };
    if left.parse() != Ok(report.records) {
        let problem = format!("it was closed with {left} records pending, and {} were found", report.records);
        report.problems.push(problem);
    }
    if let Err(error) = fs::remove_file(&path) {
        report.problems.push(format!("`{}` cannot be removed ({error})", path.display()));
    }
}

fn open_store(directory: &Path) -> std::result::Result<Open, Refusal> {
    let db = open_database(directory, READ_CACHE)?;
    let options = || {
        KeyspaceCreateOptions::default()
            .max_memtable_size(WRITE_BUFFER)
            // Damaged tables are searched for records, which must stand in them as they are.
            .data_block_compression_policy(CompressionPolicy::disabled())
    };
    let keyspace = std::panic::catch_unwind(AssertUnwindSafe(|| db.keyspace(PENDING, options)));
    match keyspace {
        Ok(Ok(keyspace)) => Ok(Open { keyspace, db }),
        Ok(Err(error)) => Err(Refusal::of(directory, error)),
        Err(panic) => Err(Refusal::panicked(&*panic)),
    }
}

/// All records of an open store. One that is not sound is counted and dropped; a table that cannot be read makes the
/// whole store damaged.
fn read(open: &Open, report: &mut JournalReport) -> std::result::Result<Vec<(u64, Record)>, Refusal> {
    let read = || {
        let mut records = Vec::new();
        let mut unsound = Vec::new();
        for guard in open.keyspace.iter() {
            let (key, bytes) = guard.into_inner()?;
            match decode(&bytes) {
                _ if *key == *NOTES_KEY => {}
                Some((Piece::Record(number, record), _)) if *key == *record.key.as_str().as_bytes() => {
                    records.push((number, record));
                }
                _ => unsound.push(key),
            }
        }
        for key in &unsound {
            open.keyspace.remove(key.clone())?;
        }
        Ok((records, unsound.len()))
    };
    match std::panic::catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok((records, unsound))) => {
            report.unreadable += unsound;
            Ok(records)
        }
        // Reading is all that was tried: whatever failed, its bytes could not be understood.
        Ok(Err(error)) => Err(damage(&error)),
        Err(panic) => Err(Refusal::panicked(&*panic)),
    }
}

fn damage(error: &fjall::Error) -> Refusal {
    Refusal::Damaged(error.to_string())
}

/// Directories of damaged files whose records an earlier opening did not come to bringing to safety.
fn unfinished(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut found: Vec<_> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.join(UNFINISHED).exists()).collect();
    found.sort();
    found
}

/// Keeps what was cut off the logs, for a person to look at, until the next time.
fn keep_cut(directory: &Path, cut: &[(&Path, &[u8])], report: &mut JournalReport) {
    for (index, (path, bytes)) in cut.iter().enumerate() {
        let kept = directory.join(format!("cut-{index}"));
        if let Err(error) = fs::write(&kept, bytes) {
            report.problems.push(format!("what was cut off `{}` cannot be kept ({error})", path.display()));
        }
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
