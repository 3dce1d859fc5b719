//! The stores under the caches of these tests, and tiers made of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use event_listener::Event;
use tierkeep::backend::{BlockingBackend, Scope};
use tierkeep::codec::{Compressor, Format, JsonFormat, PassthroughCompressor, PostcardFormat};
use tierkeep::{
    Backend, BackendLabel, BackendResult, BreakerOptions, CacheKey, CacheValue, DeleteStatus, Error,
    ErrorKind, Raw, Stamp, Tier,
};
use tierkeep_sim::MapBackend;

use super::world::{NEVER, Stall};

/// A store of bytes that a test looks into, holds up, and reconfigures while it is in use. Clones are the same store.
#[derive(Clone)]
pub(crate) struct Store(Arc<Inner>);

struct Inner {
    label: &'static str,
    map: MapBackend,
    residual: Duration,
    json: AtomicBool,
    zstd: AtomicBool,
    clears: AtomicBool,
    /// Whether it says that it answers at once, which it does while the gate is open.
    immediate: AtomicBool,
    /// Values longer than this are refused.
    limit: AtomicUsize,
    /// Every call waits here first.
    gate: Gate,
}

impl Store {
    pub(crate) fn new(label: &'static str) -> Self {
        Self::with_residual(label, Duration::from_millis(20))
    }

    /// A store that may apply a call until `residual` after it was dropped.
    pub(crate) fn with_residual(label: &'static str, residual: Duration) -> Self {
        Self(Arc::new(Inner {
            label,
            map: MapBackend::new(),
            residual,
            json: AtomicBool::new(false),
            zstd: AtomicBool::new(false),
            clears: AtomicBool::new(false),
            immediate: AtomicBool::new(false),
            limit: AtomicUsize::new(usize::MAX),
            gate: Gate::new(),
        }))
    }

    /// From the next value on: JSON or postcard, packed with zstd or plain.
    pub(crate) fn encode_as(&self, json: bool, zstd: bool) {
        self.0.json.store(json, Ordering::SeqCst);
        self.0.zstd.store(zstd, Ordering::SeqCst);
    }

    pub(crate) fn limit(&self, bytes: usize) {
        self.0.limit.store(bytes, Ordering::SeqCst);
    }

    /// From now on it can be cleared.
    pub(crate) fn can_clear(self) -> Self {
        self.0.clears.store(true, Ordering::SeqCst);
        self
    }

    /// In process: callers begin its calls themselves.
    pub(crate) fn in_process(self) -> Self {
        self.0.immediate.store(true, Ordering::SeqCst);
        self
    }

    pub(crate) fn map(&self) -> &MapBackend {
        &self.0.map
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.0.gate
    }

    pub(crate) fn holds(&self, key: &CacheKey) -> bool {
        self.0.map.get(key).is_some()
    }

    /// How many handles there are: the test's own, and those of engines.
    pub(crate) fn handles(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// As a tier that is never given up on.
    pub(crate) fn tier(&self) -> Tier {
        patient(self.clone())
    }
}

/// A tier whose deadlines no busy machine misses, without a breaker.
pub(crate) fn patient(backend: impl Backend) -> Tier {
    Tier::new(backend)
        .read_deadline(NEVER)
        .write_deadline(NEVER)
        .open_deadline(NEVER)
        .breaker(BreakerOptions::disabled())
}

#[async_trait]
impl Backend for Store {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.0.gate.pass().await;
        self.0.map.read(key).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.0.gate.pass().await;
        if value.data().len() > self.0.limit.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::TooLarge, "over this store's limit"));
        }
        self.0.map.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.0.gate.pass().await;
        self.0.map.remove(key).await
    }

    async fn clear(&self, scope: &Scope, _: Stamp) -> BackendResult<()> {
        self.0.gate.pass().await;
        if !self.0.clears.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unsupported, "this store cannot clear"));
        }
        for key in self.0.map.contents().keys().filter(|key| scope.covers(key.prefix())) {
            self.0.map.remove(key).await?;
        }
        Ok(())
    }

    fn label(&self) -> BackendLabel {
        BackendLabel::new_static(self.0.label)
    }

    fn value_format(&self) -> &dyn Format {
        if self.0.json.load(Ordering::SeqCst) { &JsonFormat } else { &PostcardFormat }
    }

    fn compressor(&self) -> &dyn Compressor {
        #[cfg(feature = "zstd")]
        if self.0.zstd.load(Ordering::SeqCst) {
            static ZSTD: std::sync::LazyLock<tierkeep::codec::ZstdCompressor> =
                std::sync::LazyLock::new(|| tierkeep::codec::ZstdCompressor::new(3).with_min_size(1));
            return &*ZSTD;
        }
        &PassthroughCompressor
    }

    fn immediate(&self) -> bool {
        self.0.immediate.load(Ordering::SeqCst)
    }

    fn residual(&self) -> Option<Duration> {
        Some(self.0.residual)
    }
}

/// Lets calls through, or holds them until it opens.
pub(crate) struct Gate {
    closed: AtomicBool,
    waiting: AtomicUsize,
    opened: Event,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { closed: AtomicBool::new(false), waiting: AtomicUsize::new(0), opened: Event::new() }
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
        self.opened.notify(usize::MAX);
    }

    /// How many are held up.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    pub(crate) async fn pass(&self) {
        while self.closed.load(Ordering::SeqCst) {
            let opened = self.opened.listen();
            if self.closed.load(Ordering::SeqCst) {
                let _counted = Counted::begin(&self.waiting);
                opened.await;
            }
        }
    }
}

struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The same as a synchronous store, whose calls hang a thread of the blocking pool while its stall is closed.
pub(crate) struct Synchronous {
    pub(crate) store: Store,
    pub(crate) stall: Stall,
}

impl Synchronous {
    /// The map's futures never wait, and the gate of a synchronous store stays open.
    fn now<T>(&self, call: impl Future<Output = BackendResult<T>>) -> BackendResult<T> {
        self.stall.pass();
        futures_util::FutureExt::now_or_never(call).unwrap()
    }
}

impl BlockingBackend for Synchronous {
    fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.now(self.store.read(key))
    }

    fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.now(self.store.write(key, value))
    }

    fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.now(self.store.remove(key))
    }

    fn label(&self) -> BackendLabel {
        self.store.label()
    }
}
