//! The open store: look-ups through the generations, and the one writer that fills and drops them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use fjall::{Keyspace, KeyspaceCreateOptions, PersistMode};

use super::generation::{Generation, Summary, cost};
use super::lock::DirectoryLock;
use super::marks::{Mark, Marks, decode_mark, mark_key};
use super::options::Options;
use super::record::{Header, Order};
use super::recovery::{Refusal, open_database, version_file};
use crate::backend::Scope;
use crate::error::{Error, ErrorKind, Result};
use crate::key::CacheKey;
use crate::value::{Raw, Stamp, Timestamp};

const META: &str = "meta";
const EPOCH: &str = "epoch";
const LAYOUT: &str = "layout";
const LAYOUT_VERSION: &[u8] = b"1";

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

/// What a reopened store takes over from the opening that it replaces.
#[derive(Clone, Default)]
pub(super) struct Heritage {
    pub(super) epoch: Option<u32>,
    pub(super) marks: Marks,
    pub(super) clears: u64,
}

/// Fields are dropped in order: fjall closes before the directory is unlocked.
pub(super) struct Database {
    options: Arc<Options>,
    /// Oldest first; never empty.
    generations: RwLock<Arc<[Arc<Generation>]>>,
    meta: Keyspace,
    db: fjall::Database,
    /// Held by whoever writes. Taken before `marks` and `generations`, which are held for moments only.
    writer: Mutex<()>,
    marks: RwLock<Marks>,
    epoch: u32,
    clears: AtomicU64,
    /// The newest generation that may hold records of earlier openings.
    inherited_until: u64,
    _lock: DirectoryLock,
}

impl Database {
    pub(super) fn open(
        options: &Arc<Options>,
        lock: DirectoryLock,
        heritage: &Heritage,
    ) -> Result<Self, (Refusal, DirectoryLock)> {
        let opened = open_database(options).and_then(|db| {
            let refused = |e| Refusal::of(&options.directory, e);
            let meta = db.keyspace(META, KeyspaceCreateOptions::default).map_err(refused)?;
            check_layout(&meta).map_err(refused)??;
            let generations = find_generations(&db, &meta, options).map_err(refused)?;
            let (marks, epoch) = begin_epoch(&db, &meta, heritage).map_err(refused)?;
            Ok((db, meta, generations, marks, epoch))
        });
        let (db, meta, generations, marks, epoch) = match opened {
            Ok(opened) => opened,
            Err(refusal) => return Err((refusal, lock)),
        };
        Ok(Self {
            options: Arc::clone(options),
            inherited_until: generations.last().map_or(0, |newest| newest.id),
            generations: RwLock::new(generations.into()),
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
                epoch: self.epoch,
                order: write.stamp.map_or(Order::Clears(clears), Order::Stamp),
                kept_until: write.kept_until,
                stale: write.stale,
            };
            let mut frame = &write.frame[..];
            if let Err(error) = check_key(&write.key).and_then(|()| batch.separate(&write.key, &mut answers))
            {
                answers.push(Some(Err(error)));
                continue;
            }
            if header.is_dead(now) {
                if !self.may_hold(&write.key) {
                    answers.push(Some(Ok(())));
                    continue;
                }
                (header, frame) = (self.tombstone(header.order), &[]);
            }
            batch.add(write.key, &header, frame, &mut answers);
        }
        batch.commit(&mut answers);
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(unanswered()))).collect()
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
            let ready = check_key(key).and_then(|()| batch.separate(key, &mut answers));
            if let Err(error) = ready {
                was_there.push(false);
                answers.push(Some(Err(error)));
                continue;
            }
            // What cannot be read is taken to be there: hiding it matters more than the count.
            let found = self.newest(key);
            was_there.push(found.as_ref().map_or(true, |found| {
                found.as_ref().is_some_and(|found| self.is_live(key, &found.header, now))
            }));
            if found.is_ok_and(|found| found.is_none_or(|found| found.header.tombstone)) {
                answers.push(Some(Ok(())));
            } else {
                batch.add(key.clone(), &tombstone, &[], &mut answers);
            }
        }
        batch.commit(&mut answers);
        let answers = answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(unanswered())));
        answers.zip(was_there).map(|(answer, there)| answer.map(|()| there)).collect()
    }

    /// Hides everything in `scope` up to `stamp`, for good once this returns.
    pub(super) fn clear(&self, scope: &Scope, stamp: Stamp) -> Result<()> {
        let _writer = self.begin_writing();
        self.check_present()?;
        let number = self.clears.fetch_add(1, Ordering::AcqRel) + 1;
        let mark = {
            let mut marks = self.marks.write().unwrap_or_else(PoisonError::into_inner);
            marks.add(scope.clone(), Mark { epoch: self.epoch, stamp, number });
            marks.get(scope).copied()
        };
        if let Some(mark) = mark {
            let mut batch = self.db.batch().durability(Some(PersistMode::SyncAll));
            batch.insert(&self.meta, mark_key(scope), mark.encode());
            batch.commit().map_err(|e| self.failed(e))?;
            self.release_journal(&self.meta)?;
        }
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
            let Some(record) = generation.keyspace.get(key.as_str()).map_err(|e| self.failed(e))? else {
                continue;
            };
            let Some((header, frame)) = Header::decode(&record) else {
                return Err(Error::new(ErrorKind::Decode, "the record on disk has an unknown header"));
            };
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
        Header { tombstone: true, epoch: self.epoch, order, kept_until: None, stale: None }
    }

    /// Commits without ever entering fjall's own waiting loops.
    fn commit(&self, batch: fjall::OwnedWriteBatch, newest: &Generation) -> Result<()> {
        let keyspace = &newest.keyspace;
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
    fn make_room(&self, incoming: u64) -> Result<Arc<Generation>> {
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
        let next = newest.id + 1;
        self.meta
            .insert(Generation::summary_key(newest.id), newest.summary().encode())
            .map_err(|e| self.failed(e))?;
        self.release_journal(&newest.keyspace)?;
        self.release_journal(&self.meta)?;
        let keyspace = self
            .db
            .keyspace(&Generation::name(next), || keyspace_options(&self.options))
            .map_err(|e| self.failed(e))?;
        let generation = Generation::new(next, keyspace, Summary::EMPTY);
        let mut list = self.generations().to_vec();
        list.push(Arc::clone(&generation));
        *self.generations.write().unwrap_or_else(PoisonError::into_inner) = list.into();
        Ok(generation)
    }

    /// Deletes the oldest generation; never the only one.
    fn drop_oldest(&self) -> Result<()> {
        let generations = self.generations();
        let [oldest, rest @ ..] = &generations[..] else { return Ok(()) };
        let Some(second) = rest.first() else { return Ok(()) };
        // First on disk: were it gone from the list only, it would be back after a restart, and by then a newer
        // generation with a tombstone over one of its records might be gone.
        self.db.delete_keyspace(oldest.keyspace.clone()).map_err(|e| self.failed(e))?;
        *self.generations.write().unwrap_or_else(PoisonError::into_inner) = rest.to_vec().into();
        self.meta.remove(Generation::summary_key(oldest.id)).map_err(|e| self.failed(e))?;
        if second.id > self.inherited_until {
            // No record of an earlier opening is left, so the clears of earlier openings hide nothing.
            let gone = self.marks.write().unwrap_or_else(PoisonError::into_inner).take_before(self.epoch);
            for scope in gone {
                self.meta.remove(mark_key(&scope)).map_err(|e| self.failed(e))?;
            }
        }
        Ok(())
    }

    /// Drops the oldest generations as long as every record in them is dead.
    fn drop_dead(&self, now: Timestamp) -> Result<()> {
        self.drop_oldest_while(|summary| summary.kept_until.is_some_and(|at| at <= now))
    }

    /// Drops what a clear of everything up to `stamp` has hidden: the oldest generations with nothing newer in them.
    fn drop_cleared(&self, stamp: Stamp) -> Result<()> {
        if self.newest_generation()?.size() > 0 {
            self.begin_generation()?;
        }
        self.drop_oldest_while(|summary| summary.stamp <= stamp)
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

/// What is committed together: one batch of fjall, all for the newest generation.
struct Batch<'a> {
    database: &'a Database,
    records: Vec<(CacheKey, Header, Vec<u8>)>,
    keys: HashSet<CacheKey>,
    bytes: u64,
    /// Which answers wait for the commit.
    places: Vec<usize>,
}

type Answers = Vec<Option<Result<()>>>;

impl<'a> Batch<'a> {
    fn new(database: &'a Database) -> Self {
        Self { database, records: Vec::new(), keys: HashSet::new(), bytes: 0, places: Vec::new() }
    }

    /// Commits first if `key` is in the batch already: fjall gives all of a batch one number, so of two writes of one
    /// key it could not tell the later.
    fn separate(&mut self, key: &CacheKey, answers: &mut Answers) -> Result<()> {
        if self.keys.contains(key) {
            self.commit(answers);
        }
        Ok(())
    }

    /// Adds a record and its answer, which stays open until the commit.
    fn add(&mut self, key: CacheKey, header: &Header, frame: &[u8], answers: &mut Answers) {
        let record = header.encode(frame);
        let bytes = cost(key.as_str(), &record);
        if self.bytes.saturating_add(bytes) > self.database.options.generation_bytes() {
            self.commit(answers);
        }
        self.places.push(answers.len());
        answers.push(None);
        self.bytes = self.bytes.saturating_add(bytes);
        self.keys.insert(key.clone());
        self.records.push((key, *header, record));
    }

    fn commit(&mut self, answers: &mut Answers) {
        if self.records.is_empty() {
            return;
        }
        let result = self.write();
        for place in self.places.drain(..) {
            if let Some(answer) = answers.get_mut(place) {
                *answer = Some(result.clone());
            }
        }
        self.records.clear();
        self.keys.clear();
        self.bytes = 0;
    }

    fn write(&mut self) -> Result<()> {
        let newest = self.database.make_room(self.bytes)?;
        let mut batch = fjall::OwnedWriteBatch::with_capacity(self.database.db.clone(), self.records.len());
        for (key, header, record) in self.records.drain(..) {
            // Counted before it is there, so that no record is ever newer than its generation's summary.
            newest.count(&header, cost(key.as_str(), &record));
            batch.insert(&newest.keyspace, key.as_str(), record);
        }
        self.database.commit(batch, &newest)
    }
}

fn unanswered() -> Error {
    Error::new(ErrorKind::Backend, "the write was not carried out")
}

fn check_key(key: &CacheKey) -> Result<()> {
    let length = key.as_str().len();
    if (1..=usize::from(u16::MAX)).contains(&length) {
        return Ok(());
    }
    let message = format!("a key of {length} bytes: the disk tier takes 1 to {}", u16::MAX);
    Err(Error::new(ErrorKind::TooLarge, message))
}

fn keyspace_options(options: &Options) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(options.write_buffer())
}

/// Refuses a store that another version of this tier wrote in another way.
fn check_layout(meta: &Keyspace) -> fjall::Result<Result<(), Refusal>> {
    Ok(match meta.get(LAYOUT)? {
        Some(layout) if *layout == *LAYOUT_VERSION => Ok(()),
        Some(_) => Err(Refusal::Damaged("another version of the tier wrote it".to_owned())),
        // Written with the first epoch.
        None => Ok(()),
    })
}

/// The generations on disk, oldest first, and at least one.
fn find_generations(
    db: &fjall::Database,
    meta: &Keyspace,
    options: &Options,
) -> fjall::Result<Vec<Arc<Generation>>> {
    let names = db.list_keyspace_names();
    let mut ids: Vec<_> = names.iter().filter_map(|name| Generation::parse_name(name)).collect();
    ids.sort_unstable();
    if ids.is_empty() {
        ids.push(1);
    }
    let mut generations = Vec::with_capacity(ids.len());
    for (place, &id) in ids.iter().enumerate() {
        let keyspace = db.keyspace(&Generation::name(id), || keyspace_options(options))?;
        let is_newest = place + 1 == ids.len();
        // What is not in tables yet is nearly all the newest generation's.
        let buffered = if is_newest { db.write_buffer_size() } else { 0 };
        let mut summary = Summary::found(keyspace.disk_space().saturating_add(buffered));
        let key = Generation::summary_key(id);
        if is_newest {
            // Of an opening that began to close it; it is written to again.
            meta.remove(key)?;
        } else if let Some(kept) = meta.get(key)? {
            summary = summary.with_encoded(&kept);
        }
        generations.push(Generation::new(id, keyspace, summary));
    }
    Ok(generations)
}

/// Reads the clear marks and takes the next epoch, durably: no record may carry an epoch that a crash takes back.
fn begin_epoch(db: &fjall::Database, meta: &Keyspace, heritage: &Heritage) -> fjall::Result<(Marks, u32)> {
    let mut marks = heritage.marks.clone();
    for guard in meta.prefix("clear/") {
        let (key, value) = guard.into_inner()?;
        if let Some((scope, mark)) = decode_mark(&key, &value) {
            marks.add(scope, mark);
        }
    }
    let stored = meta.get(EPOCH)?.and_then(|bytes| bytes.first_chunk().map(|b| u32::from_le_bytes(*b)));
    // Reopened by the opening that it belonged to last, the store goes on; in every other case openings are told apart.
    let epoch = match heritage.epoch {
        Some(own) if stored == Some(own) => own,
        own => own.max(stored).unwrap_or(0).saturating_add(1),
    };
    let mut batch = db.batch().durability(Some(PersistMode::SyncAll));
    batch.insert(meta, EPOCH, epoch.to_le_bytes());
    batch.insert(meta, LAYOUT, LAYOUT_VERSION);
    for (scope, mark) in marks.iter() {
        batch.insert(meta, mark_key(scope), mark.encode());
    }
    batch.commit()?;
    meta.rotate_memtable()?;
    Ok((marks, epoch))
}
