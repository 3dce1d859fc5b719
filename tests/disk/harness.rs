//! A runtime of plain threads with a settable wall clock, and a disk tier on it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tierkeep::backend::{DiskBackend, DiskBuilder, OpenContext};
use tierkeep::runtime::{ActorSpec, Address, BlockingJob, BoxFuture, Instant, Runtime, RuntimeHandle};
use tierkeep::{
    Backend, BackendResult, CacheKey, CacheValue, Entry, ErrorKind, KeyPart, Meta, Payload, Raw, Stamp,
    Timestamp,
};

pub(crate) use smol::block_on;

pub(crate) const START: u64 = 1_700_000_000_000;

/// Threads for tasks and jobs, and a wall clock that tests set.
#[derive(Debug, Clone)]
pub(crate) struct Threads {
    wall: Arc<AtomicU64>,
}

impl Threads {
    pub(crate) fn new() -> Self {
        Self { wall: Arc::new(AtomicU64::new(START)) }
    }

    pub(crate) fn set_wall(&self, millis: u64) {
        self.wall.store(millis, Ordering::SeqCst);
    }

    pub(crate) fn context(&self) -> OpenContext {
        OpenContext::new(RuntimeHandle::new(self.clone()))
    }
}

#[expect(clippy::disallowed_methods, reason = "this is a runtime")]
impl Runtime for Threads {
    fn name(&self) -> &'static str {
        "threads"
    }

    fn execute(&self, task: BoxFuture<'static, ()>) {
        std::thread::spawn(move || block_on(task));
    }

    fn execute_blocking(&self, job: BlockingJob) {
        std::thread::spawn(job);
    }

    fn sleep_until(&self, _: Instant) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn now(&self) -> Instant {
        Instant::default()
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(self.wall.load(Ordering::SeqCst))
    }

    fn random(&self) -> u64 {
        0
    }

    fn spawn_actor(&self, _: &RuntimeHandle, _: ActorSpec) -> Address {
        unreachable!("backends start no actors")
    }
}

/// An open disk tier, called as if it were synchronous.
pub(crate) struct Disk {
    pub(crate) backend: DiskBackend,
    pub(crate) threads: Threads,
}

impl Disk {
    pub(crate) fn open(directory: &Path) -> Self {
        Self::with(directory, |builder| builder.capacity_bytes(8 << 20))
    }

    pub(crate) fn with(directory: &Path, options: impl FnOnce(DiskBuilder) -> DiskBuilder) -> Self {
        let disk = Self::closed(directory, options);
        disk.start().unwrap();
        disk
    }

    pub(crate) fn closed(directory: &Path, options: impl FnOnce(DiskBuilder) -> DiskBuilder) -> Self {
        let backend = options(DiskBackend::builder(directory)).build().unwrap();
        Self { backend, threads: Threads::new() }
    }

    pub(crate) fn start(&self) -> BackendResult<()> {
        block_on(self.backend.open(&self.threads.context()))
    }

    /// Drops the tier and waits until its files are closed, which happens in the background.
    pub(crate) fn close(self, directory: &Path) {
        drop(self);
        std::fs::File::open(directory.join("LOCK")).unwrap().lock().unwrap();
    }

    /// Writes as the engine does, with a stamp.
    pub(crate) fn put(&self, key: &CacheKey, value: impl Into<Raw>, stamp: u64) {
        self.try_put(key, value, stamp, None).unwrap();
    }

    pub(crate) fn put_until(&self, key: &CacheKey, value: impl Into<Raw>, until: u64) {
        self.try_put(key, value, 1, Some(until)).unwrap();
    }

    pub(crate) fn try_put(
        &self,
        key: &CacheKey,
        value: impl Into<Raw>,
        stamp: u64,
        until: Option<u64>,
    ) -> BackendResult<()> {
        let entries = vec![(key.clone(), entry(value, stamp, until))];
        block_on(self.backend.write_entries(entries)).pop().unwrap()
    }

    pub(crate) fn get(&self, key: &CacheKey) -> Option<Raw> {
        self.try_get(key).unwrap()
    }

    pub(crate) fn try_get(&self, key: &CacheKey) -> BackendResult<Option<Raw>> {
        Ok(block_on(self.backend.read(key))?.map(CacheValue::into_inner))
    }

    pub(crate) fn entry(&self, key: &CacheKey) -> Option<Entry> {
        block_on(self.backend.read_entries(std::slice::from_ref(key))).pop().unwrap().unwrap()
    }

    pub(crate) fn remove(&self, key: &CacheKey) -> tierkeep::DeleteStatus {
        block_on(self.backend.remove(key)).unwrap()
    }

    /// Fills generations with other keys until `count` more have begun.
    pub(crate) fn advance_generations(&self, count: usize) {
        static FILLER: AtomicU64 = AtomicU64::new(0);
        let share = block_on(self.backend.stats()).unwrap().capacity_bytes / 8;
        for _ in 0..count {
            // Just over half a share each: the second one does not fit with the first.
            for _ in 0..2 {
                let size = usize::try_from(share * 6 / 10).unwrap();
                self.put(&key("filler", FILLER.fetch_add(1, Ordering::Relaxed)), vec![7; size], 1);
            }
        }
    }
}

pub(crate) fn key(prefix: &str, id: u64) -> CacheKey {
    CacheKey::new(prefix, 1, [KeyPart::new("id", Some(id.to_string()))])
}

pub(crate) fn stamp(time: u64) -> Stamp {
    Stamp { time, node: 1 }
}

pub(crate) fn entry(value: impl Into<Raw>, stamp_time: u64, until: Option<u64>) -> Entry {
    let meta =
        Meta { stamp: stamp(stamp_time), expire: until.map(Timestamp::from_millis), ..Meta::default() };
    Entry::new(Payload::Bytes(value.into()), meta)
}

pub(crate) fn assert_kind<T: std::fmt::Debug>(result: BackendResult<T>, kind: ErrorKind) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    error.to_string()
}

/// Bytes that a directory really takes on the disk.
pub(crate) fn disk_usage(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    files(directory).iter().filter_map(|path| std::fs::metadata(path).ok()).map(|m| m.blocks() * 512).sum()
}

/// All files below a directory.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(directory) else { return found };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(_) => found.push(entry.path()),
            Err(_) => {}
        }
    }
    found.sort();
    found
}

/// Runs one (ignored) test of this binary in a process of its own, told a directory and a word.
pub(crate) fn child(test: &str, directory: &Path, word: &str) -> Child {
    // Ignored signals stay ignored over `exec`: past a limit on file sizes a write then fails instead of killing.
    Command::new("sh")
        .args(["-c", r#"trap '' XFSZ; exec "$0" "$@""#])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .env("TIERKEEP_DISK_DIRECTORY", directory)
        .env("TIERKEEP_DISK_WORD", word)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// In the child: what the parent told it; `None` when run by hand.
pub(crate) fn told() -> Option<(PathBuf, String)> {
    Some((
        PathBuf::from(std::env::var_os("TIERKEEP_DISK_DIRECTORY")?),
        std::env::var("TIERKEEP_DISK_WORD").ok()?,
    ))
}
