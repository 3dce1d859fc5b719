//! Synchronous stores: each call runs on the runtime's blocking pool, a bounded number at a time.
//!
//! A store that blocks (an embedded database, a file system, a C library) implements [`BlockingBackend`] and is used
//! as `Blocking::new(store)`:
//!
//! ```
//! use std::collections::HashMap;
//! use std::sync::Mutex;
//! use tierkeep::backend::{Blocking, BlockingBackend};
//! use tierkeep::{BackendResult, CacheKey, CacheValue, DeleteStatus, Raw};
//!
//! #[derive(Default)]
//! struct Map(Mutex<HashMap<CacheKey, CacheValue<Raw>>>);
//!
//! impl BlockingBackend for Map {
//!     fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
//!         Ok(self.0.lock().unwrap().get(key).cloned())
//!     }
//!     fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
//!         self.0.lock().unwrap().insert(key.clone(), value);
//!         Ok(())
//!     }
//!     fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
//!         Ok(match self.0.lock().unwrap().remove(key) {
//!             Some(_) => DeleteStatus::Deleted(1),
//!             None => DeleteStatus::Missing,
//!         })
//!     }
//! }
//!
//! let backend = Blocking::new(Map::default()).with_permits(2);
//! ```

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use event_listener::Event;

use super::{Backend, BackendResult, OpenContext, Scope};
use crate::codec::frame;
use crate::codec::{Compressor, Format, PassthroughCompressor, PostcardFormat};
use crate::error::{Error, ErrorKind};
use crate::key::CacheKey;
use crate::key_format::CacheKeyFormat;
use crate::runtime::{RuntimeHandle, TaskError};
use crate::value::{BackendLabel, CacheValue, DeleteStatus, Entry, Meta, Payload, Raw, Stamp};

/// The synchronous twin of [`Backend`], for stores whose calls block. See [`Blocking`].
///
/// Each method means what its namesake means there. Calls come from several threads at once, up to the permits. A
/// call that has started runs to its end, whatever became of whoever asked for it. A panic is reported as
/// [`ErrorKind::Panicked`].
pub trait BlockingBackend: Send + Sync + 'static {
    /// The value under `key`, or `None`.
    ///
    /// # Errors
    /// Whatever the store reports; the tier then reads as a miss.
    fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>>;

    /// Stores a value.
    ///
    /// # Errors
    /// Whatever the store reports; the key is then quarantined at the tier.
    fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()>;

    /// Removes a value.
    ///
    /// # Errors
    /// Whatever the store reports; the key is then quarantined at the tier.
    fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus>;

    /// As [`Backend::label`]. Default: `backend`.
    fn label(&self) -> BackendLabel {
        BackendLabel::new_static("backend")
    }

    /// As [`Backend::value_format`]. Default: postcard.
    fn value_format(&self) -> &dyn Format {
        &PostcardFormat
    }

    /// As [`Backend::compressor`]. Default: none.
    fn compressor(&self) -> &dyn Compressor {
        &PassthroughCompressor
    }

    /// As [`Backend::key_format`]. Default: as the key's own text.
    fn key_format(&self) -> &CacheKeyFormat {
        &CacheKeyFormat::UrlEncoded
    }

    /// As [`Backend::read_many`], in one job. Default: one after another.
    fn read_many(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<CacheValue<Raw>>>> {
        keys.iter().map(|key| self.read(key)).collect()
    }

    /// As [`Backend::write_many`], in one job. Default: one after another.
    fn write_many(&self, entries: Vec<(CacheKey, CacheValue<Raw>)>) -> Vec<BackendResult<()>> {
        entries.into_iter().map(|(key, value)| self.write(&key, value)).collect()
    }

    /// As [`Backend::remove_many`], in one job. Default: one after another.
    fn remove_many(&self, keys: &[CacheKey]) -> Vec<BackendResult<DeleteStatus>> {
        keys.iter().map(|key| self.remove(key)).collect()
    }

    /// As [`Backend::read_entries`]. Default: [`read_many`](Self::read_many).
    fn read_entries(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<Entry>>> {
        self.read_many(keys).into_iter().map(|value| Ok(value?.map(Entry::from_raw))).collect()
    }

    /// As [`Backend::write_entries`]. Default: [`write_many`](Self::write_many). Answers in the order of `entries`;
    /// one that is not bytes is [`ErrorKind::Unsupported`].
    fn write_entries(&self, entries: Vec<(CacheKey, Entry)>) -> Vec<BackendResult<()>> {
        let mut answers: Vec<BackendResult<()>> = Vec::with_capacity(entries.len());
        let mut places = Vec::with_capacity(entries.len());
        let mut values = Vec::with_capacity(entries.len());
        for (place, (key, Entry { payload, meta, .. })) in entries.into_iter().enumerate() {
            answers.push(Err(Error::new(ErrorKind::Unsupported, "this backend stores bytes, not objects")));
            if let Payload::Bytes(raw) = payload {
                places.push(place);
                values.push((key, CacheValue::new(raw, meta.kept_until(), meta.stale)));
            }
        }
        for (place, answer) in places.into_iter().zip(self.write_many(values)) {
            if let Some(slot) = answers.get_mut(place) {
                *slot = answer;
            }
        }
        answers
    }

    /// As [`Backend::remove_entries`], in one job. Default: [`remove_many`](Self::remove_many).
    fn remove_entries(&self, entries: Vec<(CacheKey, Stamp)>) -> Vec<BackendResult<DeleteStatus>> {
        let keys: Vec<_> = entries.into_iter().map(|(key, _)| key).collect();
        self.remove_many(&keys)
    }

    /// As [`Backend::clear`].
    ///
    /// # Errors
    /// Default: [`ErrorKind::Unsupported`].
    fn clear(&self, scope: &Scope, stamp: Stamp) -> BackendResult<()> {
        let _ = (scope, stamp);
        Err(Error::new(ErrorKind::Unsupported, "this backend cannot clear"))
    }

    /// As [`Backend::flush`]. Default: nothing to do.
    ///
    /// # Errors
    /// Whatever the store reports.
    fn flush(&self) -> BackendResult<()> {
        Ok(())
    }

    /// As [`Backend::open`]; may be called again while open. Default: nothing to do.
    ///
    /// # Errors
    /// Whatever the store reports: a crash of the tier, which is tried again.
    fn open(&self, context: &OpenContext) -> BackendResult<()> {
        let _ = context;
        Ok(())
    }

    /// As [`Backend::reopen`]. Default: nothing to do.
    ///
    /// # Errors
    /// Whatever the store reports.
    fn reopen(&self) -> BackendResult<()> {
        Ok(())
    }

    /// As [`Backend::compares`]. Default: no.
    fn compares(&self) -> bool {
        false
    }

    /// As [`Backend::shared`]. Default: no.
    fn shared(&self) -> bool {
        false
    }

    /// As [`Backend::authoritative`]. Default: yes.
    fn authoritative(&self) -> bool {
        true
    }
}

/// Makes a [`Backend`] of a [`BlockingBackend`]: each call is one job on the runtime's blocking pool.
///
/// At most `permits` jobs (default 4) run at once; further calls wait without holding a thread. A permit comes back
/// when its *job* returns, never because its caller has gone, so a store that hangs cannot eat the pool; jobs that
/// hang show in [`running_jobs`](Backend::running_jobs). Until [`open`](Backend::open) has succeeded every call is
/// [`ErrorKind::Unavailable`].
///
/// Cancel-safety: dropped while it waits for a permit, a call never runs; dropped later, its job runs to its end.
///
/// The store itself is dropped on the blocking pool too, since closing may block.
pub struct Blocking<B: BlockingBackend> {
    /// `None` only while being dropped.
    store: Option<Arc<B>>,
    permits: Arc<Permits>,
    runtime: RwLock<Option<RuntimeHandle>>,
}

impl<B: BlockingBackend> Blocking<B> {
    /// Runs `store` on the blocking pool, 4 jobs at a time.
    pub fn new(store: B) -> Self {
        Self { store: Some(Arc::new(store)), permits: Arc::new(Permits::new(4)), runtime: RwLock::new(None) }
    }

    /// With `permits` jobs at a time; 0 counts as 1.
    #[must_use]
    pub fn with_permits(mut self, permits: usize) -> Self {
        self.permits = Arc::new(Permits::new(permits.max(1)));
        self
    }

    /// How many jobs may run at once.
    pub fn permits(&self) -> usize {
        self.permits.limit
    }

    fn runtime(&self) -> Option<RuntimeHandle> {
        self.runtime.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) async fn run<T, F>(&self, job: F) -> BackendResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&B) -> BackendResult<T> + Send + 'static,
    {
        let Some(runtime) = self.runtime() else {
            return Err(Error::new(ErrorKind::Unavailable, "the store has not been opened yet"));
        };
        self.run_on(&runtime, job).await
    }

    async fn run_on<T, F>(&self, runtime: &RuntimeHandle, job: F) -> BackendResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&B) -> BackendResult<T> + Send + 'static,
    {
        let Some(store) = self.store.clone() else {
            return Err(Error::new(ErrorKind::Closed, "the store is being dropped"));
        };
        let permit = Permits::acquire(&self.permits).await;
        let job = runtime.spawn_blocking(move || {
            // Dropped last, by return or by unwinding: the permit stands for the job, not for its caller.
            let _permit = permit;
            let result = job(&store);
            drop(store);
            result
        });
        match job.await {
            Ok(result) => result,
            Err(TaskError::Panicked(message)) => {
                Err(Error::new(ErrorKind::Panicked, format!("the store panicked: {message}")))
            }
            Err(TaskError::Aborted) => {
                Err(Error::new(ErrorKind::Unavailable, "the runtime shut down before the store answered"))
            }
        }
    }

    /// One job for several answers; if it fails as a whole, each answer says so.
    async fn run_many<T, F>(&self, count: usize, job: F) -> Vec<BackendResult<T>>
    where
        T: Send + 'static,
        F: FnOnce(&B) -> Vec<BackendResult<T>> + Send + 'static,
    {
        match self.run(move |store| Ok(job(store))).await {
            Ok(answers) => answers,
            Err(error) => (0..count).map(|_| Err(error.clone())).collect(),
        }
    }

    fn store(&self) -> Option<&B> {
        self.store.as_deref()
    }
}

impl<B: BlockingBackend> Drop for Blocking<B> {
    fn drop(&mut self) {
        // Without a runtime nothing was opened, so there is nothing whose closing could block.
        if let (Some(store), Some(runtime)) = (self.store.take(), self.runtime()) {
            runtime.execute_blocking(Box::new(move || drop(store)));
        }
    }
}

impl<B: BlockingBackend> fmt::Debug for Blocking<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocking").field("permits", &self.permits.limit).finish_non_exhaustive()
    }
}

#[async_trait]
impl<B: BlockingBackend> Backend for Blocking<B> {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        let key = key.clone();
        self.run(move |store| store.read(&key)).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        let key = key.clone();
        self.run(move |store| store.write(&key, value)).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        let key = key.clone();
        self.run(move |store| store.remove(&key)).await
    }

    fn label(&self) -> BackendLabel {
        self.store().map_or_else(|| BackendLabel::new_static("backend"), B::label)
    }

    fn value_format(&self) -> &dyn Format {
        self.store().map_or(&PostcardFormat, B::value_format)
    }

    fn compressor(&self) -> &dyn Compressor {
        self.store().map_or(&PassthroughCompressor, B::compressor)
    }

    fn key_format(&self) -> &CacheKeyFormat {
        self.store().map_or(&CacheKeyFormat::UrlEncoded, B::key_format)
    }

    async fn read_many(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<CacheValue<Raw>>>> {
        let keys = keys.to_vec();
        self.run_many(keys.len(), move |store| store.read_many(&keys)).await
    }

    async fn write_many(&self, entries: Vec<(CacheKey, CacheValue<Raw>)>) -> Vec<BackendResult<()>> {
        self.run_many(entries.len(), move |store| store.write_many(entries)).await
    }

    async fn remove_many(&self, keys: &[CacheKey]) -> Vec<BackendResult<DeleteStatus>> {
        let keys = keys.to_vec();
        self.run_many(keys.len(), move |store| store.remove_many(&keys)).await
    }

    async fn read_entries(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<Entry>>> {
        let keys = keys.to_vec();
        self.run_many(keys.len(), move |store| store.read_entries(&keys)).await
    }

    async fn write_entries(&self, entries: Vec<(CacheKey, Entry)>) -> Vec<BackendResult<()>> {
        self.run_many(entries.len(), move |store| store.write_entries(entries)).await
    }

    async fn remove_entries(&self, entries: Vec<(CacheKey, Stamp)>) -> Vec<BackendResult<DeleteStatus>> {
        self.run_many(entries.len(), move |store| store.remove_entries(entries)).await
    }

    async fn clear(&self, scope: &Scope, stamp: Stamp) -> BackendResult<()> {
        let scope = scope.clone();
        self.run(move |store| store.clear(&scope, stamp)).await
    }

    async fn flush(&self) -> BackendResult<()> {
        self.run(B::flush).await
    }

    async fn open(&self, context: &OpenContext) -> BackendResult<()> {
        let given = context.clone();
        self.run_on(&context.runtime, move |store| store.open(&given)).await?;
        // Only now: until the store is open, calls answer `Unavailable` without troubling it.
        let mut runtime = self.runtime.write().unwrap_or_else(PoisonError::into_inner);
        *runtime = Some(context.runtime.clone());
        Ok(())
    }

    async fn reopen(&self) -> BackendResult<()> {
        self.run(B::reopen).await
    }

    fn residual(&self) -> Option<Duration> {
        None
    }

    fn running_jobs(&self) -> usize {
        self.permits.running.load(Ordering::Relaxed)
    }

    fn compares(&self) -> bool {
        self.store().is_some_and(B::compares)
    }

    fn shared(&self) -> bool {
        self.store().is_some_and(B::shared)
    }

    fn authoritative(&self) -> bool {
        self.store().is_none_or(B::authoritative)
    }
}

impl Entry {
    /// An entry of which only the bytes and the store's own stamps are known: the frame's stamps decide.
    pub(crate) fn from_raw(value: CacheValue<Raw>) -> Self {
        let meta = Meta { expire: value.expire(), stale: value.stale(), ..Meta::default() };
        Self { payload: Payload::Bytes(value.into_inner()), meta, inherited: false }
    }

    /// The same entry with another stamp. Bytes that are no frame stay as they are.
    pub(crate) fn restamped(mut self, stamp: Stamp) -> Self {
        if let Payload::Bytes(raw) = &self.payload
            && let Ok(raw) = frame::restamp(raw, stamp)
        {
            self.payload = Payload::Bytes(raw);
        }
        self.meta.stamp = stamp;
        self.inherited = false;
        self
    }
}

/// A counting semaphore whose waiters need no particular runtime.
struct Permits {
    limit: usize,
    running: AtomicUsize,
    freed: Event,
}

impl Permits {
    fn new(limit: usize) -> Self {
        Self { limit, running: AtomicUsize::new(0), freed: Event::new() }
    }

    /// Waits for a permit. Dropped while waiting, it takes none: a listener that is dropped with its notification
    /// passes it on.
    async fn acquire(permits: &Arc<Self>) -> Permit {
        loop {
            if let Some(permit) = Self::try_acquire(permits) {
                return permit;
            }
            let freed = permits.freed.listen();
            // Again, now that a release in between would be heard.
            if let Some(permit) = Self::try_acquire(permits) {
                return permit;
            }
            freed.await;
        }
    }

    fn try_acquire(permits: &Arc<Self>) -> Option<Permit> {
        permits
            .running
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < permits.limit).then_some(n + 1))
            .ok()
            .map(|_| Permit(Arc::clone(permits)))
    }
}

struct Permit(Arc<Permits>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
        // `notify_additional`: two releases must wake two waiters even if the first has not run yet.
        self.0.freed.notify_additional(1);
    }
}
