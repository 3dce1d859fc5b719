//! The store's life: opened by the tier, reopened when it broke, and in between asked.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use super::database::{Database, Found, Write};
use super::layout::Heritage;
use super::lock::DirectoryLock;
use super::options::Options;
use super::recovery::{Refusal, move_aside};
use crate::backend::{BackendResult, BlockingBackend, OpenContext, Scope};
use crate::codec::{Compressor, Format};
use crate::error::{Error, ErrorKind};
use crate::key::CacheKey;
use crate::runtime::RuntimeHandle;
use crate::value::{BackendLabel, CacheValue, DeleteStatus, Entry, Meta, Payload, Raw, Stamp, Timestamp};

/// How full a disk tier is and what happened to it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct DiskStats {
    /// How many generations it keeps.
    pub generations: usize,
    /// What counts against the capacity, in bytes.
    pub bytes: u64,
    /// What its files take, in bytes, the journal included (which is allocated in pieces of 64 MiB, sparsely).
    pub disk_bytes: u64,
    /// The capacity, in bytes.
    pub capacity_bytes: u64,
    /// How often the directory has been opened, by this process and all before it.
    pub epoch: u32,
    /// Where damaged files were moved to since the tier was built.
    pub moved_aside: Vec<PathBuf>,
}

/// The synchronous store behind [`DiskBackend`](super::DiskBackend).
pub(super) struct DiskStore {
    options: Arc<Options>,
    /// Calls hold it shared while they use the database, so that whoever holds it alone may replace the database.
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    runtime: Option<RuntimeHandle>,
    database: Option<Database>,
    heritage: Heritage,
    moved_aside: Vec<PathBuf>,
}

impl DiskStore {
    pub(super) fn new(options: Options) -> Self {
        Self { options: Arc::new(options), state: RwLock::new(State::default()) }
    }

    pub(super) fn stats(&self) -> BackendResult<DiskStats> {
        self.with(|database, _| {
            let (generations, bytes, disk_bytes) = database.usage()?;
            let epoch = database.epoch();
            Ok((generations, bytes, disk_bytes, epoch))
        })
        .map(|(generations, bytes, disk_bytes, epoch)| DiskStats {
            generations,
            bytes,
            disk_bytes,
            capacity_bytes: self.options.capacity,
            epoch,
            moved_aside: self.state.read().unwrap_or_else(PoisonError::into_inner).moved_aside.clone(),
        })
    }

    /// Runs `call` on the open database with the time of day.
    fn with<T>(&self, call: impl FnOnce(&Database, Timestamp) -> BackendResult<T>) -> BackendResult<T> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        match (&state.database, &state.runtime) {
            (Some(database), Some(runtime)) => call(database, runtime.wall()),
            _ => Err(Error::new(
                ErrorKind::Unavailable,
                format!("the store in `{}` is not open", self.options.directory.display()),
            )),
        }
    }

    fn with_many<T>(
        &self,
        count: usize,
        call: impl FnOnce(&Database, Timestamp) -> Vec<BackendResult<T>>,
    ) -> Vec<BackendResult<T>> {
        match self.with(|database, now| Ok(call(database, now))) {
            Ok(answers) => answers,
            Err(error) => (0..count).map(|_| Err(error.clone())).collect(),
        }
    }

    fn open_into(&self, state: &mut State) -> BackendResult<()> {
        let directory = &self.options.directory;
        let lock = DirectoryLock::acquire(directory)?;
        let opened = match Database::open(&self.options, lock, &state.heritage) {
            Err((Refusal::Damaged(_), lock)) if self.options.reset_if_damaged => {
                state.moved_aside.push(move_aside(directory)?);
                Database::open(&self.options, lock, &state.heritage)
            }
            other => other,
        };
        let database = opened.map_err(|(refusal, _)| refusal.into_error(directory))?;
        state.heritage = database.heritage();
        state.database = Some(database);
        Ok(())
    }
}

impl BlockingBackend for DiskStore {
    fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.with(|database, now| Ok(database.get(key, now)?.map(into_value)))
    }

    fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.write_many(vec![(key.clone(), value)]).pop().unwrap_or(Ok(()))
    }

    fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.remove_many(std::slice::from_ref(key)).pop().unwrap_or(Ok(DeleteStatus::Missing))
    }

    fn label(&self) -> BackendLabel {
        self.options.label.clone()
    }

    fn value_format(&self) -> &dyn Format {
        &*self.options.format
    }

    fn compressor(&self) -> &dyn Compressor {
        &*self.options.compressor
    }

    fn read_many(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<CacheValue<Raw>>>> {
        self.with_many(keys.len(), |database, now| {
            keys.iter().map(|key| Ok(database.get(key, now)?.map(into_value))).collect()
        })
    }

    fn write_many(&self, entries: Vec<(CacheKey, CacheValue<Raw>)>) -> Vec<BackendResult<()>> {
        self.with_many(entries.len(), |database, now| {
            let writes = entries.into_iter().map(|(key, value)| Write {
                key,
                stamp: None,
                kept_until: value.expire(),
                stale: value.stale(),
                frame: value.into_inner(),
            });
            database.put(writes.collect(), now)
        })
    }

    fn remove_many(&self, keys: &[CacheKey]) -> Vec<BackendResult<DeleteStatus>> {
        self.with_many(keys.len(), |database, now| {
            let status = |there| if there { DeleteStatus::Deleted(1) } else { DeleteStatus::Missing };
            database.remove(keys, now).into_iter().map(|answer| answer.map(status)).collect()
        })
    }

    fn read_entries(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<Entry>>> {
        self.with_many(keys.len(), |database, now| {
            keys.iter().map(|key| Ok(database.get(key, now)?.map(into_entry))).collect()
        })
    }

    fn write_entries(&self, entries: Vec<(CacheKey, Entry)>) -> Vec<BackendResult<()>> {
        if entries.iter().any(|(_, entry)| matches!(entry.payload, Payload::Object(..))) {
            let error = Error::new(ErrorKind::Unsupported, "the disk tier stores bytes, not objects");
            return entries.iter().map(|_| Err(error.clone())).collect();
        }
        self.with_many(entries.len(), |database, now| {
            let writes = entries.into_iter().filter_map(|(key, entry)| match entry.payload {
                Payload::Bytes(frame) => Some(Write {
                    key,
                    frame,
                    stamp: Some(entry.meta.stamp),
                    kept_until: entry.meta.kept_until(),
                    stale: entry.meta.stale,
                }),
                Payload::Object(..) => None,
            });
            database.put(writes.collect(), now)
        })
    }

    fn clear(&self, scope: &Scope, stamp: Stamp) -> BackendResult<()> {
        self.with(|database, _| database.clear(scope, stamp))
    }

    fn flush(&self) -> BackendResult<()> {
        self.with(Database::flush)
    }

    fn open(&self, context: &OpenContext) -> BackendResult<()> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.runtime = Some(context.runtime.clone());
        if state.database.is_some() {
            return Ok(());
        }
        self.open_into(&mut state)
    }

    fn reopen(&self) -> BackendResult<()> {
        if self.with(|database, _| database.check_healthy()).is_ok() {
            return Ok(());
        }
        // Waits until the calls that are under way have returned: fjall closes only once nobody holds it.
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(broken) = state.database.take() {
            if broken.check_healthy().is_ok() {
                // Somebody else has reopened it meanwhile.
                state.database = Some(broken);
                return Ok(());
            }
            state.heritage = broken.heritage();
        }
        self.open_into(&mut state)
    }
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore").field("directory", &self.options.directory).finish_non_exhaustive()
    }
}

fn into_value(found: Found) -> CacheValue<Raw> {
    CacheValue::new(found.frame, found.header.kept_until, found.header.stale)
}

fn into_entry(found: Found) -> Entry {
    let stamp = match found.header.order {
        super::record::Order::Stamp(stamp) => stamp,
        super::record::Order::Clears(_) => Stamp::ZERO,
    };
    let meta = Meta { stamp, stale: found.header.stale, expire: found.header.kept_until, ..Meta::default() };
    Entry { payload: Payload::Bytes(found.frame), meta, inherited: found.inherited }
}
