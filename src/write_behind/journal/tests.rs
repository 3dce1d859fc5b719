//! The journal on real files, on a runtime of plain threads.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Condvar, LazyLock};

use smol::block_on;

use super::*;
use crate::runtime::{ActorSpec, Address, BlockingJob, BoxFuture, Instant, Runtime};
use crate::value::{Entry, Meta, Raw, Timestamp};

/// Tasks and jobs each on a thread; jobs can be held.
#[derive(Debug, Clone, Default)]
struct Threads(Arc<(Mutex<bool>, Condvar)>);

impl Threads {
    /// From now on no job begins.
    fn hold(&self) {
        *self.0.0.lock().unwrap() = true;
    }

    fn release(&self) {
        *self.0.0.lock().unwrap() = false;
        self.0.1.notify_all();
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
        let gate = Arc::clone(&self.0);
        std::thread::spawn(move || {
            drop(gate.1.wait_while(gate.0.lock().unwrap(), |held| *held).unwrap());
            job();
        });
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        let wait = deadline.since(self.now());
        Box::pin(async move {
            smol::Timer::after(wait).await;
        })
    }

    fn now(&self) -> Instant {
        static START: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
        Instant::default().after(START.elapsed())
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(1_000_000)
    }

    fn random(&self) -> u64 {
        0
    }

    fn spawn_actor(&self, _: &RuntimeHandle, _: ActorSpec) -> Address {
        unreachable!("a journal starts no actors")
    }
}

fn open_on(threads: &Threads, directory: &Path, sync: JournalSync) -> (Journal, Recovery) {
    block_on(Journal::open(
        &Place::Directory(directory.to_owned()),
        sync,
        &RuntimeHandle::new(threads.clone()),
    ))
    .unwrap()
}

fn open(directory: &Path) -> (Journal, Recovery) {
    open_on(&Threads::default(), directory, JournalSync::Always)
}

const HOUR: JournalSync = JournalSync::Interval(Duration::from_secs(3600));

fn key(id: u64) -> CacheKey {
    CacheKey::from_canonical(format!("user:v1:id={id}"))
}

fn stamp(time: u64) -> Stamp {
    Stamp { time, node: 1 }
}

fn set(id: u64, time: u64, value: impl Into<Raw>) -> Record {
    let entry = Entry::new(Payload::Bytes(value.into()), Meta { stamp: stamp(time), ..Meta::default() });
    Record {
        key: key(id),
        stamp: stamp(time),
        change: Change::Set(entry),
        accepted: Timestamp::from_millis(time),
    }
}

fn put(journal: &Journal, record: &Record) -> Result<()> {
    journal.put(record, WhenFull::Wait).map_or(Ok(()), block_on)
}

/// What is pending, as `id=value` or `id-`, in order.
fn pending(recovery: &Recovery) -> Vec<String> {
    let text = |record: &Record| {
        let id = record.key.to_string().replace("user:v1:id=", "");
        match &record.change {
            Change::Set(Entry { payload: Payload::Bytes(bytes), .. }) => {
                format!("{id}={}", String::from_utf8_lossy(bytes))
            }
            _ => format!("{id}-"),
        }
    };
    recovery.records.iter().map(text).collect()
}

/// What a new process would find if this one were killed now.
fn after_a_kill(directory: &Path) -> Vec<String> {
    let copy = tempfile::tempdir().unwrap();
    let status = Command::new("cp").arg("-r").arg(directory.join("data")).arg(copy.path()).status();
    assert!(status.unwrap().success());
    let (journal, recovery) = open(copy.path());
    block_on(journal.close()).unwrap();
    pending(&recovery)
}

#[test]
fn what_was_acknowledged_is_pending_after_a_kill_the_newest_of_each_key() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, recovery) = open(directory.path());
    assert_eq!((pending(&recovery), recovery.report), (vec![], JournalReport::default()));
    put(&journal, &set(1, 1, "old")).unwrap();
    put(&journal, &set(2, 2, "two")).unwrap();
    put(&journal, &set(1, 4, "new")).unwrap();
    put(&journal, &set(1, 3, "late and older")).unwrap();
    put(&journal, &Record { change: Change::Remove, ..set(3, 5, "") }).unwrap();
    assert_eq!(after_a_kill(directory.path()), ["2=two", "1=new", "3-"]);
    assert_eq!(journal.status().syncs, 5, "each was synced before it was acknowledged");
}

#[test]
fn what_is_settled_is_forgotten_unless_something_newer_was_put() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    for id in 1..=4 {
        put(&journal, &set(id, id, "value")).unwrap();
    }
    journal.settled(&key(1), stamp(1));
    put(&journal, &set(2, 20, "newer")).unwrap();
    journal.settled(&key(2), stamp(2));
    block_on(journal.settled_durably(&key(3), stamp(3))).unwrap();
    assert_eq!(after_a_kill(directory.path()), ["4=value", "2=newer"]);
    assert_eq!(journal.status().records, 2);
    block_on(journal.close()).unwrap();
    assert_eq!(pending(&open(directory.path()).1), ["4=value", "2=newer"]);
}

#[test]
fn what_an_earlier_process_left_is_older_than_what_comes_whatever_its_clock_said() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    for id in 1..=4 {
        put(&journal, &set(id, 1_000 + id, "from a clock that ran ahead")).unwrap();
    }
    block_on(journal.close()).unwrap();
    let (journal, recovery) = open(directory.path());
    assert_eq!(recovery.records.len(), 4);
    put(&journal, &set(1, 1, "now")).unwrap();
    journal.settled(&key(2), stamp(2));
    block_on(journal.sync()).unwrap();
    assert_eq!(after_a_kill(directory.path()).len(), 3);
    block_on(journal.forget(&Scope::All, stamp(0))).unwrap();
    assert_eq!(after_a_kill(directory.path()), ["1=now"]);
}

#[test]
fn a_clear_covers_what_was_put_before_it_and_what_comes_late() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    for id in 1..=3 {
        put(&journal, &set(id, 10 * id, "value")).unwrap();
    }
    block_on(journal.forget(&Scope::Prefix("user".into()), stamp(20))).unwrap();
    put(&journal, &set(4, 15, "numbered before the clear")).unwrap();
    put(&journal, &set(5, 25, "after it")).unwrap();
    assert_eq!(after_a_kill(directory.path()), ["3=value", "5=after it"]);
}

#[test]
fn an_expired_value_comes_back_as_a_removal() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    let mut record = set(1, 1, "short-lived");
    if let Change::Set(entry) = &mut record.change {
        entry.meta.expire = Some(Timestamp::from_millis(999_999));
    }
    put(&journal, &record).unwrap();
    drop(journal);
    let (_, recovery) = open(directory.path());
    assert_eq!((pending(&recovery), recovery.report.expired), (vec!["1-".to_owned()], 1));
}

#[test]
fn changes_that_arrive_during_a_sync_share_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let threads = Threads::default();
    let (journal, _) = open_on(&threads, directory.path(), JournalSync::Always);
    threads.hold();
    let mut answers = vec![journal.put(&set(0, 1, "first"), WhenFull::Wait).unwrap()];
    // The writer has taken the first: the rest comes too late for its batch.
    while !journal.shared.is_taken() {
        std::thread::yield_now();
    }
    answers.extend((1..=64).map(|id| journal.put(&set(id, id + 1, "value"), WhenFull::Wait).unwrap()));
    threads.release();
    for answer in answers {
        block_on(answer).unwrap();
    }
    let status = journal.status();
    assert_eq!((status.writes, status.syncs), (65, 2));
}

#[test]
fn an_interval_acknowledges_at_once_and_syncs_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open_on(&Threads::default(), directory.path(), HOUR);
    for id in 1..=3 {
        assert!(journal.put(&set(id, id, "value"), WhenFull::Wait).is_none());
    }
    block_on(journal.sync()).unwrap();
    assert_eq!(journal.status().lag_ms, 0);
    assert!(journal.put(&set(4, 4, "value"), WhenFull::Wait).is_none());
    // Written without waiting for the hour: a process that is killed loses nothing.
    while after_a_kill(directory.path()).len() < 4 {}
    assert_eq!(journal.status().syncs, 1);
    block_on(journal.close()).unwrap();

    let every = JournalSync::Interval(Duration::from_millis(5));
    let (journal, recovery) = open_on(&Threads::default(), directory.path(), every);
    assert_eq!(recovery.records.len(), 4);
    assert!(journal.put(&set(5, 5, "value"), WhenFull::Wait).is_none());
    while journal.status().syncs == 0 {
        std::thread::yield_now();
    }
}

#[test]
fn an_interval_that_cannot_be_kept_stops_acknowledging() {
    let directory = tempfile::tempdir().unwrap();
    let threads = Threads::default();
    let every = JournalSync::Interval(Duration::from_millis(1));
    let (journal, _) = open_on(&threads, directory.path(), every);
    threads.hold();
    let mut time = 1;
    let waiting = loop {
        time += 1;
        if let Some(waiting) = journal.put(&set(1, time, "value"), WhenFull::Wait) {
            break waiting;
        }
        std::thread::yield_now();
    };
    threads.release();
    block_on(waiting).unwrap();
    assert_eq!(after_a_kill(directory.path()), ["1=value"]);
}

#[test]
fn a_directory_in_use_is_a_clear_error_and_free_after_closing() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    let runtime = RuntimeHandle::new(Threads::default());
    let place = Place::Directory(directory.path().to_owned());
    let second = block_on(Journal::open(&place, JournalSync::Always, &runtime));
    let error = second.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("another process"), "{error}");
    put(&journal, &set(1, 1, "the first still works")).unwrap();
    block_on(journal.close()).unwrap();
    assert_eq!(put(&journal, &set(2, 2, "too late")).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(pending(&open(directory.path()).1), ["1=the first still works"]);
}

#[test]
fn what_the_journal_cannot_keep_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    let long = Record { key: CacheKey::from_canonical("k".repeat(65_536)), ..set(1, 1, "") };
    assert_eq!(put(&journal, &long).unwrap_err().kind(), ErrorKind::TooLarge);
    let object = Entry::new(Payload::Object(Arc::new(7_u8), 1), Meta::default());
    let object = Record { change: Change::Set(object), ..set(1, 1, "") };
    assert_eq!(put(&journal, &object).unwrap_err().kind(), ErrorKind::Unsupported);
}

/// A directory in memory where there is one: for what does not depend on a disk and would be slow on it.
pub(super) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Bytes that a directory really takes on the disk.
fn disk_usage(directory: &Path) -> u64 {
    let output = Command::new("du").arg("-s").arg("-B1").arg(directory).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn files_stay_bounded_however_much_goes_through() {
    let directory = scratch();
    let (journal, _) = open_on(&Threads::default(), directory.path(), HOUR);
    let value = Raw::from(vec![7; 64 << 10]);
    let mut most = 0;
    for id in 0..8_000_u64 {
        journal.put(&set(id, id + 1, value.clone()), WhenFull::Wait);
        if let Some(settled) = id.checked_sub(64) {
            journal.settled(&key(settled), stamp(settled + 1));
        }
        if id % 256 == 0 {
            block_on(journal.sync()).unwrap();
            most = most.max(disk_usage(directory.path()));
        }
    }
    block_on(journal.sync()).unwrap();
    assert_eq!(journal.status().records, 64);
    // 500 MiB went through.
    println!("at most {} MiB on disk", most >> 20);
    assert!(most < 192 << 20, "{most} bytes on disk for 4 MiB that are pending");
}

#[test]
fn what_is_put_anew_outlives_the_settling_of_what_was_there() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path());
    put(&journal, &set(1, 1, "dead")).unwrap();
    let letter = journal.number(&key(1), stamp(1)).unwrap();
    put(&journal, &set(1, 1, "redriven")).unwrap();
    journal.settled_at(&key(1), letter);
    assert_eq!(journal.status().records, 1);
    let letter = journal.number(&key(1), stamp(1)).unwrap();
    journal.settled_at(&key(1), letter);
    assert_eq!(journal.status().records, 0);
}

#[test]
fn a_full_disk_refuses_or_delays_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    // Ignored signals stay ignored over `exec`: past a limit on file sizes a write then fails instead of killing.
    let output = Command::new("sh")
        .args(["-c", r#"trap "" XFSZ; exec "$0" "$@""#])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "write_behind::journal::tests::child_meets_a_full_disk",
            "--ignored",
            "--nocapture",
        ])
        .env("TIERKEEP_JOURNAL_DIRECTORY", directory.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    // With one test thread the harness begins the line.
    let last = text.lines().find_map(|line| line.split_once("acknowledged up to ")).unwrap().1;
    let last: usize = last.parse().unwrap();
    let (_, recovery) = open(directory.path());
    assert_eq!(recovery.records.len(), last, "{:?}", recovery.report);
}

/// A limit on the size of files stands for the full disk: the log cannot grow, and fjall closes itself for good.
#[test]
#[ignore = "run by a_full_disk_refuses_or_delays_and_loses_nothing"]
fn child_meets_a_full_disk() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Ok(directory) = std::env::var("TIERKEEP_JOURNAL_DIRECTORY") else { return };
    let (journal, _) = open(Path::new(&directory));
    let before = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(1 << 20), maximum: before.maximum }).unwrap();
    let value = Raw::from(vec![1; 100_000]);
    let refused = (1..200).find_map(|id| {
        let answer = journal.put(&set(id, id, value.clone()), WhenFull::Refuse);
        answer.and_then(|answer| block_on(answer).err()).map(|error| (id, error))
    });
    let (id, error) = refused.expect("the limit was never met");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("disk full"), "{error}");
    // It fell back to memory, and a caller who was refused takes it back.
    journal.settled(&key(id), stamp(id));
    assert!(journal.status().failing.is_some_and(|why| why.contains("disk full")));
    let waiting = journal.put(&set(id, id, value.clone()), WhenFull::Wait).unwrap();
    let refused = journal.put(&set(id + 1, id + 1, value), WhenFull::Refuse).map(block_on);
    assert!(refused.is_some_and(|answer| answer.is_err()), "told at once");
    // It is pending instead of an older one that was acknowledged: one of the two is kept.
    let refused = journal.put(&set(1, id + 2, "newer"), WhenFull::Refuse).map(block_on);
    assert!(refused.is_some_and(|answer| answer.is_err()), "told at once");
    journal.settled(&key(1), stamp(1));
    setrlimit(Resource::Fsize, before).unwrap();
    block_on(waiting).unwrap();
    assert_eq!(journal.status().failing, None);
    put(&journal, &set(id + 1, id + 1, "goes on")).unwrap();
    println!("acknowledged up to {}", id + 1);
    // As if killed: nothing is closed.
    std::process::exit(0);
}
