//! A store of bytes below our memory tier: moka with expiry per entry, exactly what hitbox's backend is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;
use tierkeep::codec::{Compressor, Format, PassthroughCompressor, PostcardFormat};
use tierkeep::{
    Backend, BackendLabel, BackendResult, CacheKey, CacheValue, DeleteStatus, Raw, Timestamp, async_trait,
};

/// Frames in moka. Clones share the entries.
#[derive(Clone)]
pub struct BytesBackend {
    entries: Cache<CacheKey, CacheValue<Raw>>,
    format: Arc<dyn Format>,
    compressor: Arc<dyn Compressor>,
}

impl BytesBackend {
    /// Holds up to `entries` entries: postcard, plain.
    pub fn new(entries: u64) -> Self {
        let entries = Cache::builder().max_capacity(entries).expire_after(Expiration).build();
        Self { entries, format: Arc::new(PostcardFormat), compressor: Arc::new(PassthroughCompressor) }
    }

    /// Has values in another format.
    #[must_use]
    pub fn format(mut self, format: impl Format) -> Self {
        self.format = Arc::new(format);
        self
    }

    /// Has values compressed.
    #[must_use]
    pub fn compressor(mut self, compressor: impl Compressor) -> Self {
        self.compressor = Arc::new(compressor);
        self
    }
}

struct Expiration;

impl Expiry<CacheKey, CacheValue<Raw>> for Expiration {
    fn expire_after_create(&self, _: &CacheKey, value: &CacheValue<Raw>, _: Instant) -> Option<Duration> {
        life(value)
    }

    fn expire_after_update(
        &self,
        _: &CacheKey,
        value: &CacheValue<Raw>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        life(value)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "moka wants to know how long, and hitbox's backend reads the clock too"
)]
fn life(value: &CacheValue<Raw>) -> Option<Duration> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    value.ttl(Timestamp::from_millis(millis))
}

#[async_trait]
impl Backend for BytesBackend {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.entries.get(key).await)
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.entries.insert(key.clone(), value).await;
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(match self.entries.remove(key).await {
            Some(_) => DeleteStatus::Deleted(1),
            None => DeleteStatus::Missing,
        })
    }

    fn label(&self) -> BackendLabel {
        BackendLabel::new_static("l2")
    }

    fn immediate(&self) -> bool {
        true
    }

    fn value_format(&self) -> &dyn Format {
        &*self.format
    }

    fn compressor(&self) -> &dyn Compressor {
        &*self.compressor
    }
}
