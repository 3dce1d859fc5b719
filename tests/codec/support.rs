//! What the codec's tests share: runtimes, values, keys and forged frames.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tierkeep::codec::{CodecOptions, Codecs, Compressor, Format, frame, value_type};
use tierkeep::runtime::{ActorSpec, Address, BlockingJob, BoxFuture, Instant, Runtime, RuntimeHandle};
use tierkeep::{
    Backend, BackendResult, CacheKey, CacheValue, DeleteStatus, KeyPart, Meta, Object, Raw, Stamp, Timestamp,
};

/// A value with most of what serde offers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct User {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) tags: Vec<String>,
    pub(super) role: Role,
    pub(super) scores: BTreeMap<String, f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Role {
    Guest,
    Member(u32),
    Admin { since: i64, by: Option<Box<Role>> },
}

pub(super) fn user(id: u64) -> User {
    User {
        id,
        name: format!("name of {id}"),
        tags: vec!["a".into(), "tag with spaces".into()],
        role: Role::Admin { since: -7, by: Some(Box::new(Role::Member(3))) },
        scores: BTreeMap::from([("x".into(), 0.1), ("y".into(), -1e300)]),
    }
}

pub(super) fn key(id: u32) -> CacheKey {
    CacheKey::new("user", 1, [KeyPart::new("id", Some(id.to_string()))])
}

/// Written now, stale after 4 minutes, expired after 5.
pub(super) fn typical_meta() -> Meta {
    let now = 1_790_000_000_000;
    Meta {
        stamp: Stamp { time: now << 16 | 3, node: 0xA1B2_C3D4 },
        created: Timestamp::from_millis(now),
        stale: Some(Timestamp::from_millis(now + 240_000)),
        expire: Some(Timestamp::from_millis(now + 300_000)),
        retain: None,
    }
}

/// Blocking jobs wait until the test runs them, and the clock stands where the test puts it.
#[derive(Debug, Clone, Default)]
pub(super) struct HandRuntime(Arc<Mutex<Jobs>>, pub(super) Arc<AtomicU64>);

#[derive(Default)]
struct Jobs(Vec<BlockingJob>);

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Jobs({})", self.0.len())
    }
}

impl HandRuntime {
    /// How many jobs have been handed to the runtime and not run.
    pub(super) fn held(&self) -> usize {
        self.0.lock().unwrap().0.len()
    }

    /// Runs the oldest job; false if there is none.
    pub(super) fn run_one(&self) -> bool {
        let job = {
            let mut jobs = self.0.lock().unwrap();
            if jobs.0.is_empty() { None } else { Some(jobs.0.remove(0)) }
        };
        job.map(|job| job()).is_some()
    }

    /// Drops the oldest job, as a runtime does that shuts down.
    pub(super) fn drop_one(&self) {
        let job = self.0.lock().unwrap().0.remove(0);
        drop(job);
    }
}

impl Runtime for HandRuntime {
    fn name(&self) -> &'static str {
        "hand"
    }

    fn execute(&self, _: BoxFuture<'static, ()>) {
        panic!("the codec spawns no tasks");
    }

    fn execute_blocking(&self, job: BlockingJob) {
        self.0.lock().unwrap().0.push(job);
    }

    fn sleep_until(&self, _: Instant) -> BoxFuture<'static, ()> {
        panic!("the codec does not sleep");
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.1.load(Ordering::SeqCst))
    }

    fn wall(&self) -> Timestamp {
        panic!("the codec reads no clock");
    }

    fn random(&self) -> u64 {
        panic!("the codec draws no randomness");
    }

    fn parallelism(&self) -> usize {
        4
    }

    fn spawn_actor(&self, _: &RuntimeHandle, _: ActorSpec) -> Address {
        panic!("the codec spawns no actors");
    }
}

pub(super) fn codecs(options: CodecOptions) -> (Arc<Codecs>, HandRuntime) {
    let runtime = HandRuntime::default();
    let codecs = Codecs::new(options, &RuntimeHandle::new(runtime.clone())).unwrap();
    (codecs, runtime)
}

pub(super) fn default_codecs() -> Arc<Codecs> {
    codecs(CodecOptions::default()).0
}

/// A backend that only says how its values are encoded.
pub(super) struct Coded<F, C>(pub(super) F, pub(super) C);

#[async_trait]
impl<F: Format, C: Compressor> Backend for Coded<F, C> {
    async fn read(&self, _: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(None)
    }

    async fn write(&self, _: &CacheKey, _: CacheValue<Raw>) -> BackendResult<()> {
        Ok(())
    }

    async fn remove(&self, _: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(DeleteStatus::Missing)
    }

    fn value_format(&self) -> &dyn Format {
        &self.0
    }

    fn compressor(&self) -> &dyn Compressor {
        &self.1
    }
}

/// The frame of `value` under `key(1)`.
pub(super) fn sealed<T>(value: &T, format: &dyn Format, compressor: &dyn Compressor) -> Raw
where
    T: Clone + Serialize + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let object: Object = Arc::new(value.clone());
    let encoded = default_codecs().encode_now(&object, &*value_type::<T>(), format, compressor).unwrap();
    encoded.seal(&key(1), &typical_meta())
}

/// Opens a frame under `key(1)` and decodes it.
pub(super) fn read<T>(raw: &Raw) -> tierkeep::Result<(Meta, Arc<T>)>
where
    T: Serialize + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let (header, payload) = frame::open(raw, &key(1))?;
    let object = default_codecs().decode_now(&header, &payload, &*value_type::<T>())?;
    Ok((header.meta, object.downcast().unwrap()))
}

/// What a hostile store can claim about a payload, with checksums that fit.
pub(super) struct Forged<'a> {
    pub(super) format: u8,
    pub(super) compressor: u8,
    pub(super) dictionary: Option<u64>,
    pub(super) plain_len: u64,
    pub(super) payload_len: u64,
    pub(super) payload: &'a [u8],
}

impl<'a> Forged<'a> {
    pub(super) fn plain(payload: &'a [u8]) -> Self {
        Self::packed(0, 0, payload)
    }

    pub(super) fn packed(compressor: u8, plain_len: u64, payload: &'a [u8]) -> Self {
        let payload_len = payload.len() as u64;
        Self { format: 1, compressor, dictionary: None, plain_len, payload_len, payload }
    }

    pub(super) fn seal(&self) -> Raw {
        let mut out =
            vec![0xC7, b'T', 1, u8::from(self.dictionary.is_some()) << 3, self.format, self.compressor];
        self.dictionary.into_iter().for_each(|id| varint(&mut out, id));
        out.extend([0; 12]);
        out.push(0);
        out.extend(checksum(key(1).as_str().as_bytes()).to_le_bytes());
        if self.compressor != 0 {
            varint(&mut out, self.plain_len);
        }
        varint(&mut out, self.payload_len);
        out.extend(&checksum(self.payload).to_le_bytes()[..4]);
        let sum = checksum(&out).to_le_bytes();
        out.extend(&sum[..4]);
        out.extend(self.payload);
        out.into()
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7F {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn checksum(bytes: &[u8]) -> u64 {
    twox_hash::XxHash3_64::oneshot(bytes)
}
