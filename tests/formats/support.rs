//! Values with everything in them, and a backend that is told how to encode.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tierkeep::backend::{Holds, OpenContext};
use tierkeep::codec::{
    BincodeFormat, Compressor, Format, GzipCompressor, JsonFormat, PassthroughCompressor, PostcardFormat,
    RkyvFormat, RonFormat, ZstdCompressor,
};
use tierkeep::{Backend, BackendResult, CacheKey, CacheValue, DeleteStatus, Raw, Tier, async_trait};

#[derive(
    Debug,
    Clone,
    PartialEq,
    Default,
    Serialize,
    Deserialize,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
pub struct Rich {
    pub id: u64,
    pub name: String,
    pub kind: Kind,
    pub more: Option<Box<Kind>>,
    pub sorted: BTreeMap<String, Vec<Option<i64>>>,
    pub hashed: HashMap<u32, String>,
    pub bytes: Vec<u8>,
    pub letter: char,
    pub ratio: f64,
    pub pair: (i128, bool),
    pub text: String,
}

#[derive(
    Debug,
    Clone,
    PartialEq,
    Default,
    Serialize,
    Deserialize,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
#[rkyv(
    serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rkyv::rancor::Source),
    deserialize_bounds(__D::Error: rkyv::rancor::Source),
    bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source))
)]
pub enum Kind {
    #[default]
    Unit,
    Newtype(i8),
    Tuple(u16, String),
    Struct {
        since: Option<u32>,
        #[rkyv(omit_bounds)]
        of: Vec<Kind>,
    },
}

/// A value with nested enums, maps and bytes, and `text` bytes of text.
pub(super) fn rich(text: usize) -> Rich {
    let kinds = vec![Kind::Unit, Kind::Newtype(-7), Kind::Tuple(65_535, "päge\n\"".into())];
    let nested = Kind::Struct { since: None, of: vec![Kind::Struct { since: Some(0), of: kinds }] };
    Rich {
        id: u64::MAX,
        name: "日本語 🦀 \\ \0 ' \" <&>".into(),
        more: Some(Box::new(nested.clone())),
        kind: nested,
        sorted: (0..40).map(|n| (format!("key {n}"), vec![None, Some(i64::MIN), Some(n)])).collect(),
        hashed: (0..40).map(|n| (n * 1_000_003, "x".repeat(n as usize))).collect(),
        bytes: (0..=255).cycle().take(2000).collect(),
        letter: '\u{10FFFF}',
        ratio: 31.245_270_191_439_438,
        pair: (i128::MIN, true),
        text: "Four megabytes of much the same. 0123456789 ".chars().cycle().take(text).collect(),
    }
}

/// Every format, with what they need to write `Rich`.
pub(super) fn formats() -> Vec<Arc<dyn Format>> {
    vec![
        Arc::new(PostcardFormat),
        Arc::new(JsonFormat),
        Arc::new(BincodeFormat),
        Arc::new(RonFormat),
        Arc::new(RkyvFormat::new().register::<Rich>()),
    ]
}

pub(super) fn compressors() -> Vec<Arc<dyn Compressor>> {
    vec![
        Arc::new(PassthroughCompressor),
        Arc::new(GzipCompressor::new(1).with_min_size(0)),
        Arc::new(ZstdCompressor::new(1).with_min_size(0)),
    ]
}

/// Another backend's bytes, encoded as it is told.
#[derive(Clone)]
pub(super) struct Coded {
    pub inner: Arc<dyn Backend>,
    pub format: Arc<dyn Format>,
    pub compressor: Arc<dyn Compressor>,
}

impl Coded {
    pub(super) fn new(inner: impl Backend, format: impl Format, compressor: impl Compressor) -> Self {
        Self { inner: Arc::new(inner), format: Arc::new(format), compressor: Arc::new(compressor) }
    }

    /// A tier that a busy machine does not hurry.
    pub(super) fn tier(&self) -> Tier {
        let minute = Duration::from_secs(60);
        Tier::new(self.clone()).read_deadline(minute).write_deadline(minute).open_deadline(minute)
    }
}

#[async_trait]
impl Backend for Coded {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.inner.read(key).await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.inner.write(key, value).await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        self.inner.remove(key).await
    }

    fn value_format(&self) -> &dyn Format {
        &*self.format
    }

    fn compressor(&self) -> &dyn Compressor {
        &*self.compressor
    }

    fn holds(&self) -> Holds {
        Holds::Bytes
    }

    async fn open(&self, context: &OpenContext) -> BackendResult<()> {
        self.inner.open(context).await
    }
}
