//! A store to put under faults.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use tierkeep::{
    Backend, BackendLabel, BackendResult, CacheKey, CacheValue, DeleteStatus, Entry, Error, ErrorKind,
    Payload, Raw, Stamp,
};

type Entries = BTreeMap<CacheKey, CacheValue<Raw>>;

/// A store of bytes in a map: the "remote store" of a test. Clones share their entries, so a test keeps one to look
/// into it. It has no clock: what has expired stays, as the engine decides by the frame's own stamps.
///
/// ```
/// use tierkeep::{Backend, CacheKey, CacheValue, Raw};
/// use tierkeep_sim::{MapBackend, Sim};
///
/// let store = MapBackend::new();
/// let key = CacheKey::new("user", 1, []);
/// let write = store.write(&key, CacheValue::new(Raw::from_static(b"x"), None, None));
/// assert!(matches!(Sim::new(1).block_on(write), Ok(Ok(()))));
/// assert_eq!(store.get(&key), Some(Raw::from_static(b"x")));
/// ```
#[derive(Debug, Clone, Default)]
pub struct MapBackend {
    entries: Arc<Mutex<Entries>>,
    /// The newest stamp of each key, of removed ones too; `None`: it does not compare.
    stamps: Option<Arc<Mutex<BTreeMap<CacheKey, Stamp>>>>,
    label: Option<BackendLabel>,
    residual: Option<Duration>,
    immediate: bool,
}

impl MapBackend {
    /// An empty store with the label `map`.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same entries under another label.
    #[must_use]
    pub fn labelled(mut self, label: impl Into<BackendLabel>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// A store that [compares](Backend::compares) and is [shared](Backend::shared): it remembers the stamp of what was
    /// written or removed last, for ever, and refuses what is older. Give each cache a clone.
    pub fn comparing() -> Self {
        Self { stamps: Some(Arc::default()), ..Self::default() }
    }

    /// The newest stamp under `key`, if it [compares](Self::comparing): of its entry, or of its removal.
    pub fn stamp(&self, key: &CacheKey) -> Option<Stamp> {
        let stamps = self.stamps.as_ref()?;
        stamps.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    /// Makes a change stamped `stamp`, unless it compares and has something newer.
    fn apply<T>(
        &self,
        key: &CacheKey,
        stamp: Stamp,
        change: impl FnOnce(&mut Entries) -> T,
    ) -> BackendResult<T> {
        let mut stamps =
            self.stamps.as_ref().map(|stamps| stamps.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(stamps) = &mut stamps {
            let newest = stamps.entry(key.clone()).or_default();
            if stamp < *newest {
                return Err(Error::superseded(Some(*newest)));
            }
            *newest = stamp;
        }
        Ok(change(&mut self.lock()))
    }

    /// For how long a call that was given up may still be applied: on real clocks, tests rather wait for less than the
    /// 30 s that [`Backend::residual`] says by default.
    #[must_use]
    pub fn with_residual(mut self, residual: Duration) -> Self {
        self.residual = Some(residual);
        self
    }

    /// Says that it answers [at once](Backend::immediate), as it does: by default it stands for a store far away.
    #[must_use]
    pub fn in_process(mut self) -> Self {
        self.immediate = true;
        self
    }

    /// A copy of everything stored.
    pub fn contents(&self) -> BTreeMap<CacheKey, CacheValue<Raw>> {
        self.lock().clone()
    }

    /// The bytes under `key`.
    pub fn get(&self, key: &CacheKey) -> Option<Raw> {
        self.lock().get(key).map(|value| value.data().clone())
    }

    /// Puts bytes under `key` behind the engine's back, with no expiry.
    pub fn put(&self, key: CacheKey, bytes: impl Into<Raw>) {
        self.lock().insert(key, CacheValue::new(bytes.into(), None, None));
    }

    /// Removes everything behind the engine's back.
    pub fn wipe(&self) {
        self.lock().clear();
    }

    /// How many entries it holds.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Backend for MapBackend {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.lock().get(key).cloned())
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.lock().insert(key.clone(), value);
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(match self.lock().remove(key) {
            Some(_) => DeleteStatus::Deleted(1),
            None => DeleteStatus::Missing,
        })
    }

    async fn write_entries(&self, entries: Vec<(CacheKey, Entry)>) -> Vec<BackendResult<()>> {
        let write = |(key, Entry { payload, meta, .. }): (CacheKey, Entry)| {
            let Payload::Bytes(raw) = payload else {
                return Err(Error::new(ErrorKind::Unsupported, "this store holds bytes"));
            };
            let value = CacheValue::new(raw, meta.kept_until(), meta.stale);
            self.apply(&key, meta.stamp, |entries| drop(entries.insert(key.clone(), value)))
        };
        entries.into_iter().map(write).collect()
    }

    async fn remove_entries(&self, entries: Vec<(CacheKey, Stamp)>) -> Vec<BackendResult<DeleteStatus>> {
        let remove = |(key, stamp): (CacheKey, Stamp)| {
            self.apply(&key, stamp, |entries| match entries.remove(&key) {
                Some(_) => DeleteStatus::Deleted(1),
                None => DeleteStatus::Missing,
            })
        };
        entries.into_iter().map(remove).collect()
    }

    fn compares(&self) -> bool {
        self.stamps.is_some()
    }

    fn shared(&self) -> bool {
        self.stamps.is_some()
    }

    fn label(&self) -> BackendLabel {
        self.label.clone().unwrap_or(BackendLabel::new_static("map"))
    }

    fn immediate(&self) -> bool {
        self.immediate
    }

    fn residual(&self) -> Option<Duration> {
        Some(self.residual.unwrap_or(Duration::from_secs(30)))
    }
}
