//! The open store: look-ups through the generations, and the one writer that fills and drops them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use fjall::{Keyspace, PersistMode};

use super::batch::Batch;
use super::generation::{Generation, Slot, Summary};
use super::layout::{self, Heritage};
use super::lock::DirectoryLock;
use super::marks::{Mark, Marks, mark_key};
use super::options::Options;
use super::record::{Header, Order};
use super::recovery::{Refusal, version_file};
use crate::backend::Scope;
use crate::error::{Error, ErrorKind, Result};
use crate::key::CacheKey;
use crate::value::{Raw, Stamp, Timestamp};

/// fjall makes writers wait for ever behind four unwritten buffers or thirty tables of a keyspace, even after the
/// threads that would write them have died of a full disk. So the tier waits itself, below those, and gives up.
const MAX_SEALED: usize = 2;
const MAX_TABLES: usize = 18;
const BACKLOG_PAUSE: Duration = Duration::from_millis(10);
const BACKLOG_ATTEMPTS: u32 = 200;

/// A write on its way to the disk.
pub(super) struct Write {
    pub(super) key: CacheKey,
    pub(super) frame: Raw,
    /// `None`: not known.
    pub(super) stamp: Option<Stamp>,
    pub(super) kept_until: Option<Timestamp>,
    pub(super) stale: Option<Timestamp>,
}

/// A live entry.
pub(super) struct Found {
    pub(super) header: Header,
    pub(super) frame: Raw,
    /// Whether an earlier opening wrote it.
    pub(super) inherited: bool,
}

/// Fields are dropped in order: fjall closes before the directory is unlocked.
pub(super) struct Database {
    options: Arc<Options>,
    /// Oldest first; never empty.
    generations: RwLock<Arc<[Arc<Generation>]>>,
    /// Keyspaces that hold no generation.
    free: Mutex<Vec<Slot>>,
    meta: Keyspace,
    db: fjall::Database,
    /// Held by whoever writes. Taken before `marks` and `generations`, which are held for moments only.
    writer: Mutex<()>,
    marks: RwLock<Marks>,
    epoch: u32,
    clears: AtomicU64,
    /// The newest generation that may hold records of earlier openings.
    inherited_until: u32,
    _lock: DirectoryLock,
}

impl Database {
    pub(super) fn open(
        options: &Arc<Options>,
        lock: DirectoryLock,
        heritage: &Heritage,
    ) -> Result<Self, (Refusal, DirectoryLock)> {
        let layout::Opened { db, meta, generations, free, marks, epoch } =
            match layout::open(options, heritage) {
                Ok(opened) => opened,
                Err(refusal) => return Err((refusal, lock)),
            };
        Ok(Self {
            options: Arc::clone(options),
            inherited_until: generations.last().map_or(0, |newest| newest.id),
            generations: RwLock::new(generations.into()),
            free: Mutex::new(free),
            meta,
            db,
            writer: Mutex::new(()),
            marks: RwLock::new(marks),
            epoch,
            clears: AtomicU64::new(heritage.clears),
            _lock: lock,
        })
    }

    pub(super) fn heritage(&self) -> Heritage {
        let marks = self.marks.read().unwrap_or_else(PoisonError::into_inner).clone();
        Heritage { epoch: Some(self.epoch), marks, clears: self.clears.load(Ordering::Acquire) }
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The live entry under `key` at `now`.
    pub(super) fn get(&self, key: &CacheKey, now: Timestamp) -> Result<Option<Found>> {
        check_key(key)?;
        Ok(self.newest(key)?.filter(|found| self.is_live(key, &found.header, now)))
    }

    /// Stores entries, in order; answers in the same order. Those that are dead at `now` only hide what came before.
    pub(super) fn put(&self, writes: Vec<Write>, now: Timestamp) -> Vec<Result<()>> {
        let _writer = self.begin_writing();
        let mut answers = Vec::with_capacity(writes.len());
        let mut batch = Batch::new(self);
        let clears = self.clears.load(Ordering::Acquire);
        if let Err(error) = self.check_present().and_then(|()| self.drop_dead(now)) {
            return writes.iter().map(|_| Err(error.clone())).collect();
        }
        for write in writes {
            let mut header = Header {
                tombstone: false,
                generation: 0, // Known when its batch is written.
                epoch: self.epoch,
                order: write.stamp.map_or(Order::Clears(clears), Order::Stamp),
                kept_until: write.kept_until,
                stale: write.stale,
            };
            let mut frame = write.frame;
            if let Err(error) = check_key(&write.key) {
                answers.push(Some(Err(error)));
                continue;
            }
            batch.separate(&write.key, &mut answers);
            if header.is_dead(now) {
                if !self.may_hold(&write.key) {
                    answers.push(Some(Ok(())));
                    continue;
                }
                (header, frame) = (self.tombstone(header.order), Raw::new());
            }
            batch.add(write.key, header, frame, &mut answers);
        }
        batch.finish(answers)
    }

    /// Removes keys; answers whether each was there.
    pub(super) fn remove(&self, keys: &[CacheKey], now: Timestamp) -> Vec<Result<bool>> {
        let _writer = self.begin_writing();
        if let Err(error) = self.check_present() {
            return keys.iter().map(|_| Err(error.clone())).collect();
        }
        let tombstone = self.tombstone(Order::Clears(self.clears.load(Ordering::Acquire)));
        let mut answers = Vec::with_capacity(keys.len());
        let mut was_there = Vec::with_capacity(keys.len());
        let mut batch = Batch::new(self);
        for key in keys {
            if let Err(error) = check_key(key) {
                was_there.push(false);
                answers.push(Some(Err(error)));
                continue;
            }
            batch.separate(key, &mut answers);
            // What cannot be read is taken to be there: hiding it matters more than the count.
            let found = self.newest(key);
            was_there.push(found.as_ref().map_or(true, |found| {
                found.as_ref().is_some_and(|found| self.is_live(key, &found.header, now))
            }));
            if found.is_ok_and(|found| found.is_none_or(|found| found.header.tombstone)) {
                answers.push(Some(Ok(())));
            } else {
                batch.add(key.clone(), tombstone, Raw::new(), &mut answers);
            }
        }
        let answers = batch.finish(answers).into_iter();
        answers.zip(was_there).map(|(answer, there)| answer.map(|()| there)).collect()
    }

    /// Hides everything in `scope` up to `stamp`, for good once this returns.
    pub(super) fn clear(&self, scope: &Scope, stamp: Stamp) -> Result<()> {
        let _writer = self.begin_writing();
        self.check_present()?;
        let number = self.clears.fetch_add(1, Ordering::AcqRel) + 1;
        let mark = Mark { epoch: self.epoch, stamp, number };
        let mark = self.marks.write().unwrap_or_else(PoisonError::into_inner).add(scope, mark);
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&self.meta, mark_key(scope), mark.encode());
        batch.commit().map_err(|e| self.failed(e))?;
        self.release_journal(&self.meta)?;
        if *scope == Scope::All {
            // From here on it is only about space: the clear itself stands.
            let _ = self.drop_cleared(stamp);
        }
        Ok(())
    }

    /// Makes what was acknowledged durable.
    pub(super) fn flush(&self, now: Timestamp) -> Result<()> {
        let _writer = self.begin_writing();
        self.check_present()?;
        self.db.persist(PersistMode::SyncAll).map_err(|e| self.failed(e))?;
        self.drop_dead(now)
    }

    /// Whether the handle still works and its directory is still there; costs a look at the file system.
    pub(super) fn check_healthy(&self) -> Result<()> {
        self.check_present()?;
        // Flushes a buffer that is empty, and fails if an earlier failure closed the database for good.
        self.db.persist(PersistMode::Buffer).map_err(|e| self.failed(e))
    }

    /// An empty batch of fjall.
    pub(super) fn batch(&self, records: usize) -> fjall::OwnedWriteBatch {
        fjall::OwnedWriteBatch::with_capacity(self.db.clone(), records)
    }

    /// How much a batch may hold.
    pub(super) fn batch_limit(&self) -> u64 {
        self.options.generation_bytes()
    }

    /// Generations, bytes written to them, and bytes on the disk with the journal.
    pub(super) fn usage(&self) -> Result<(usize, u64, u64)> {
        let generations = self.generations();
        let written = generations.iter().map(|g| g.size()).sum();
        Ok((generations.len(), written, self.db.disk_space().map_err(|e| self.failed(e))?))
    }

    fn generations(&self) -> Arc<[Arc<Generation>]> {
        Arc::clone(&self.generations.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn begin_writing(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest record under `key`, dead or alive: whatever lies in older generations is hidden by it.
    fn newest(&self, key: &CacheKey) -> Result<Option<Found>> {
        for generation in self.generations().iter().rev() {
            let Some(record) = generation.slot.keyspace.get(key.as_str()).map_err(|e| self.failed(e))? else {
                continue;
            };
            let Some((header, frame)) = Header::decode(&record) else {
                return Err(Error::new(ErrorKind::Decode, "the record on disk has an unknown header"));
            };
            if header.generation != generation.id {
                continue;
            }
            // Copied: a slice would keep a whole block of the store in memory.
            let frame = Raw::copy_from_slice(frame);
            return Ok(Some(Found { header, frame, inherited: header.epoch < self.epoch }));
        }
        Ok(None)
    }

    fn may_hold(&self, key: &CacheKey) -> bool {
        self.newest(key).map_or(true, |found| found.is_some_and(|found| !found.header.tombstone))
    }

    fn is_live(&self, key: &CacheKey, header: &Header, now: Timestamp) -> bool {
        !header.is_dead(now)
            && !self.marks.read().unwrap_or_else(PoisonError::into_inner).cover(key.prefix(), header)
    }

    fn tombstone(&self, order: Order) -> Header {
        Header { tombstone: true, generation: 0, epoch: self.epoch, order, kept_until: None, stale: None }
    }

    /// Commits without ever entering fjall's own waiting loops.
    pub(super) fn commit(&self, batch: fjall::OwnedWriteBatch, newest: &Generation) -> Result<()> {
        let keyspace = &newest.slot.keyspace;
        let pause = (Mutex::new(()), Condvar::new());
        for attempt in 0.. {
            if keyspace.sealed_memtable_count() <= MAX_SEALED && keyspace.l0_table_count() <= MAX_TABLES {
                break;
            }
            self.db.persist(PersistMode::Buffer).map_err(|e| self.failed(e))?;
            if attempt >= BACKLOG_ATTEMPTS {
                let message = "the disk does not keep up with the writes";
                return Err(Error::new(ErrorKind::Overloaded, message));
            }
            // Nobody notifies: fjall offers no event to wait for.
            let guard = pause.0.lock().unwrap_or_else(PoisonError::into_inner);
            drop(pause.1.wait_timeout(guard, BACKLOG_PAUSE));
        }
        let mode = if self.options.sync_every_write { PersistMode::SyncAll } else { PersistMode::Buffer };
        batch.durability(Some(mode)).commit().map_err(|e| self.failed(e))
    }

    /// The newest generation, with room for `incoming` bytes: a new one if need be, and the oldest dropped for it.
    pub(super) fn make_room(&self, incoming: u64) -> Result<Arc<Generation>> {
        if incoming > self.options.capacity {
            let message =
                format!("{incoming} bytes are more than the tier's {} bytes", self.options.capacity);
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        let share = self.options.generation_bytes();
        let mut newest = self.newest_generation()?;
        let held = newest.summary().bytes;
        if held > 0 && held.saturating_add(incoming) > share {
            newest = self.begin_generation()?;
        } else if held.saturating_add(incoming) <= share {
            // It was made together with the room for a full share.
            return Ok(newest);
        }
        loop {
            let generations = self.generations();
            let others: u64 = generations.iter().rev().skip(1).map(|g| g.size()).sum();
            if generations.len() == 1 || others.saturating_add(incoming.max(share)) <= self.options.capacity {
                return Ok(newest);
            }
            self.drop_oldest()?;
        }
    }

    fn newest_generation(&self) -> Result<Arc<Generation>> {
        self.generations()
            .last()
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::Backend, "no generation is open"))
    }

    /// Closes the newest generation and opens the next.
    fn begin_generation(&self) -> Result<Arc<Generation>> {
        let newest = self.newest_generation()?;
        let slot = match self.free.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            Some(slot) => slot,
            None => layout::make_slot(&self.db, &self.options).map_err(|e| self.failed(e))?,
        };
        let next = Generation::new(newest.id.wrapping_add(1), slot, Summary::EMPTY);
        let mut batch = self.db.batch();
        batch.insert(&self.meta, newest.slot.key(), newest.encode(true));
        batch.insert(&self.meta, next.slot.key(), next.encode(false));
        if let Err(error) = batch.commit() {
            self.free.lock().unwrap_or_else(PoisonError::into_inner).push(next.slot.clone());
            return Err(self.failed(error));
        }
        let mut list = self.generations().to_vec();
        list.push(Arc::clone(&next));
        self.replace_generations(list);
        self.release_journal(&newest.slot.keyspace)?;
        self.release_journal(&self.meta)?;
        Ok(next)
    }

    /// Drops the oldest generation; never the only one.
    fn drop_oldest(&self) -> Result<()> {
        let generations = self.generations();
        let [oldest, rest @ ..] = &generations[..] else { return Ok(()) };
        let Some(second) = rest.first() else { return Ok(()) };
        let mut batch = self.db.batch();
        batch.remove(&self.meta, oldest.slot.key());
        if second.id > self.inherited_until {
            // No record of an earlier opening is left, so the clears of earlier openings hide nothing.
            let gone = self.marks.write().unwrap_or_else(PoisonError::into_inner).take_before(self.epoch);
            for scope in gone {
                batch.remove(&self.meta, mark_key(&scope));
            }
        }
        // First on disk: were it gone from the list only, it would be back after a restart, and by then a newer
        // generation with a tombstone over one of its records might be gone.
        batch.commit().map_err(|e| self.failed(e))?;
        self.replace_generations(rest.to_vec());
        oldest.slot.empty().map_err(|e| self.failed(e))?;
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(oldest.slot.clone());
        // fjall deletes the files of what was cleared when it next writes out a buffer, of whichever keyspace.
        self.release_journal(&self.meta)
    }

    fn replace_generations(&self, list: Vec<Arc<Generation>>) {
        *self.generations.write().unwrap_or_else(PoisonError::into_inner) = list.into();
    }

    /// Drops the oldest generations as long as every record in them is dead.
    fn drop_dead(&self, now: Timestamp) -> Result<()> {
        self.drop_oldest_while(|summary| summary.kept_until.is_some_and(|at| at <= now))
    }

    /// Drops what a clear of everything up to `stamp` has hidden: the oldest generations with nothing newer in them.
    fn drop_cleared(&self, stamp: Stamp) -> Result<()> {
        let covered = |summary: &Summary| summary.stamp <= stamp;
        // A new one only if that frees all others: else many clears would leave many small generations.
        if self.newest_generation()?.size() > 0 && self.generations().iter().all(|g| covered(&g.summary())) {
            self.begin_generation()?;
        }
        self.drop_oldest_while(covered)
    }

    fn drop_oldest_while(&self, dead: impl Fn(&Summary) -> bool) -> Result<()> {
        loop {
            let generations = self.generations();
            let droppable = generations.len() > 1 && generations.first().is_some_and(|g| dead(&g.summary()));
            if !droppable {
                return Ok(());
            }
            self.drop_oldest()?;
        }
    }

    /// Has a keyspace's buffer written out, since a journal is kept for as long as any buffer needs it.
    fn release_journal(&self, keyspace: &Keyspace) -> Result<()> {
        keyspace.rotate_memtable().map(drop).map_err(|e| self.failed(e))
    }

    fn check_present(&self) -> Result<()> {
        let directory = &self.options.directory;
        if version_file(directory).exists() && DirectoryLock::is_in_place(directory) {
            return Ok(());
        }
        let message = format!("the directory `{}` was removed or emptied while in use", directory.display());
        Err(Error::new(ErrorKind::Unavailable, message))
    }

    fn failed(&self, error: fjall::Error) -> Error {
        let directory = self.options.directory.display();
        match error {
            fjall::Error::Poisoned => Error::new(
                ErrorKind::Unavailable,
                format!("an earlier write to `{directory}` failed: is the disk full? Waiting to be reopened"),
            ),
            other => Error::backend(other),
        }
    }
}

fn check_key(key: &CacheKey) -> Result<()> {
    let length = key.as_str().len();
    if (1..=usize::from(u16::MAX)).contains(&length) {
        return Ok(());
    }
    let message = format!("a key of {length} bytes: the disk tier takes 1 to {}", u16::MAX);
    Err(Error::new(ErrorKind::TooLarge, message))
}
