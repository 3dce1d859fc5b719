//! What a case is run on.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::{Backend, OpenContext};
use crate::key::{CacheKey, KeyPart};
use crate::runtime::RuntimeHandle;
use crate::value::{CacheValue, DeleteStatus, Raw, Stamp, Timestamp};

/// A fresh, empty backend and the runtime that it is called on.
#[derive(Clone)]
pub struct Subject {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) runtime: RuntimeHandle,
}

impl Subject {
    /// To be called from within `runtime`, if that makes a difference to the backend.
    pub fn new(runtime: impl Into<RuntimeHandle>, backend: impl Backend) -> Self {
        Self { backend: Arc::new(backend), runtime: runtime.into() }
    }

    pub(super) async fn open(&self) {
        let opened = self.backend.open(&OpenContext::new(self.runtime.clone())).await;
        opened.unwrap_or_else(|error| panic!("the backend does not open: {error}"));
    }

    /// The bytes under `key`.
    pub(super) async fn read(&self, key: &CacheKey) -> Option<Raw> {
        self.value(key).await.map(CacheValue::into_inner)
    }

    /// The value under `key`, with its stamps.
    pub(super) async fn value(&self, key: &CacheKey) -> Option<CacheValue<Raw>> {
        self.backend.read(key).await.unwrap_or_else(|error| panic!("reading `{key}`: {error}"))
    }

    /// Writes bytes without expiry.
    pub(super) async fn write(&self, key: &CacheKey, bytes: impl Into<Raw>) {
        self.write_value(key, CacheValue::new(bytes.into(), None, None)).await;
    }

    pub(super) async fn write_value(&self, key: &CacheKey, value: CacheValue<Raw>) {
        self.backend.write(key, value).await.unwrap_or_else(|error| panic!("writing `{key}`: {error}"));
    }

    pub(super) async fn remove(&self, key: &CacheKey) -> DeleteStatus {
        self.backend.remove(key).await.unwrap_or_else(|error| panic!("removing `{key}`: {error}"))
    }

    /// The time of day, later by `seconds`.
    pub(super) fn ahead(&self, seconds: u64) -> Timestamp {
        self.runtime.wall().after(Duration::from_secs(seconds))
    }

    /// The time of day, earlier by `seconds`.
    pub(super) fn ago(&self, seconds: u64) -> Timestamp {
        Timestamp::from_millis(self.runtime.wall().as_millis().saturating_sub(seconds * 1000))
    }

    /// A stamp of now; those with a greater `count` are later.
    pub(super) fn stamp(&self, count: u16) -> Stamp {
        Stamp { time: (self.runtime.wall().as_millis() << 16) + u64::from(count), node: 1 }
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("backend", &self.backend.label()).finish_non_exhaustive()
    }
}

/// A key of the region that most cases use.
pub(super) fn key(id: impl fmt::Display) -> CacheKey {
    key_in("contract", id)
}

pub(super) fn key_in(prefix: &str, id: impl fmt::Display) -> CacheKey {
    CacheKey::new(prefix, 1, [KeyPart::new("id", Some(id.to_string()))])
}

/// Bytes that do not compress and that tell their seed.
pub(super) fn noise(seed: u64, length: usize) -> Raw {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}
