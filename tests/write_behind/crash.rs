//! `kill -9` at random moments, round after round on the same store and journal.
//!
//! `TIERKEEP_CRASH_ROUNDS` says how many rounds there are for each store and each kind of journal; 20 by default, 200 for
//! the nightly run.

#![expect(
    clippy::disallowed_methods,
    reason = "two processes: threads, a wall clock and tasks outside of a cache"
)]

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use tierkeep::Region;
use tierkeep::write_behind::{JournalSync, WriteBehind};

use crate::support::{SERVER, cache, ms, on_tokio, region, store};

const WRITERS: u64 = 4;
const KEYS: u64 = 12;
const INTERVAL: Duration = Duration::from_millis(50);
/// What may come on top of the interval, the longest sync, and twice how late a thread of the child had its turn (for the
/// interval's end, and for the sync), all of which are measured: the syncs of the journal are larger.
const LATE: Duration = Duration::from_millis(250);
/// How often the child says that it has its turns.
const BEAT: Duration = Duration::from_millis(5);
/// How long a child with an interval lives at least: longer than the bound, or losing everything would be within it.
const LIFE: Duration = Duration::from_millis(500);

#[test]
fn what_was_acknowledged_survives_kill_9_over_a_disk_tier() {
    survives("disk");
}

#[test]
fn what_was_acknowledged_survives_kill_9_over_redis() {
    survives(&SERVER.url());
}

/// What one writer does with its `n`th operation: it sets a key to `n`, or removes it.
#[derive(Debug, Clone, Copy)]
struct Operation {
    key: u64,
    removes: bool,
}

fn operation(writer: u64, n: u64) -> Operation {
    let mixed = (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    Operation { key: writer + WRITERS * (mixed % KEYS), removes: mixed.is_multiple_of(7) }
}

/// What a key may hold after a crash: what the last of its operations up to `n` left, which the writer was told was
/// done, or what its next operation leaves, which it had begun at most.
#[derive(Default)]
struct Expected {
    /// Per key, all its operations in order: number, whether it removes, and when it was acknowledged (ms).
    operations: HashMap<u64, Vec<(u64, bool, Option<u64>)>>,
}

fn survives(what: &str) {
    let rounds: u64 = std::env::var("TIERKEEP_CRASH_ROUNDS").map_or(20, |text| text.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let mut begun = [0; WRITERS as usize];
    let mut expected = Expected::default();
    let (mut acknowledged, mut pending, mut worst) = (0, 0, Duration::ZERO);
    let mut bound = Duration::ZERO;
    for round in 0..2 * rounds {
        let interval = (round % 2 == 1).then_some(INTERVAL);
        let lines = write_until_killed(what, directory.path(), interval, &begun);
        let killed = lines.killed;
        for (writer, n, at) in lines.acknowledged {
            // Of each writer they come in order.
            let Operation { key, removes } = operation(writer, n);
            expected.operations.entry(key).or_default().push((n, removes, Some(at)));
            begun[writer as usize] = n + 1;
            acknowledged += 1;
        }
        for writer in 0..WRITERS {
            // The one after it may have begun, and may even have been acknowledged without our hearing of it.
            let n = begun[writer as usize];
            let Operation { key, removes } = operation(writer, n);
            expected.operations.entry(key).or_default().push((n, removes, None));
            begun[writer as usize] = n + 1;
        }
        on_tokio(async {
            let cache = cache(store(what, directory.path()), behind(directory.path(), interval)).await;
            let numbers = region(&cache);
            let queued =
                cache.inspect().tiers[1].write_behind.as_ref().map_or(0, |behind| behind.counts.recovered);
            pending += queued;
            let lost = expected.check(&numbers, killed).await;
            match interval {
                None => assert_eq!(lost, None, "round {round}: an acknowledged write is gone"),
                Some(interval) => {
                    let lost = lost.unwrap_or_default();
                    let most = interval + lines.longest_sync + 2 * lines.longest_pause + LATE;
                    assert!(lost <= most, "round {round}: lost what was {lost:?} old, more than {most:?}");
                    (worst, bound) = (worst.max(lost), bound.max(most));
                }
            }
            cache.flush(Duration::from_secs(30)).await.unwrap();
            assert!(cache.shutdown(Duration::from_secs(30)).await.clean);
        });
        // And it is in the store itself, without the queue.
        on_tokio(async {
            let cache = cache(store(what, directory.path()), WriteBehind::memory()).await;
            let lost = expected.check(&region(&cache), killed).await;
            assert!(interval.is_some() || lost.is_none(), "round {round}: it is not in the store");
            expected.settle(&region(&cache)).await;
            cache.shutdown(Duration::from_secs(30)).await;
        });
    }
    assert!(
        acknowledged > 200 * rounds,
        "{acknowledged} writes in 2 x {rounds} rounds: the child hardly wrote"
    );
    assert!(pending > 0, "nothing was ever pending: the journal was not needed");
    // Not through print, which tests that succeed keep to themselves.
    let _ = writeln!(
        std::io::stdout(),
        "{what}: {rounds} rounds with a journal that always syncs, nothing lost, and {rounds} with an interval of \
         {INTERVAL:?}, largest loss {worst:?}, bound {bound:?} (the interval, the longest sync, two pauses of a \
         busy machine, {LATE:?}); {acknowledged} acknowledged, {pending} recovered from the journal"
    );
}

impl Expected {
    /// Compares every key. `None`: each is as its last acknowledged operation or a later one left it. Otherwise how long
    /// before the kill the oldest operation that is gone had been acknowledged.
    async fn check(&self, numbers: &Region<u64, u64>, killed: u64) -> Option<Duration> {
        let mut oldest = None;
        for (key, operations) in &self.operations {
            // A tier that could not be read would look like a loss.
            let lookup = numbers.try_get(key).await.unwrap();
            assert!(lookup.degraded.is_empty(), "key {key} could not be read: {:?}", lookup.degraded);
            let found = lookup.hit.map(|hit| *hit);
            let matches = |(n, removes, _): &(u64, bool, Option<u64>)| match found {
                Some(value) => !removes && value == *n,
                None => *removes,
            };
            let last = operations.iter().rposition(matches);
            let first_lost = match last {
                Some(last) => last + 1,
                None if found.is_none() => 0,
                None => panic!("key {key} holds {found:?}, which was never written: {operations:?}"),
            };
            let lost = operations[first_lost..].iter().find_map(|(_, _, at)| *at);
            if let Some(at) = lost {
                let age = Duration::from_millis(killed.saturating_sub(at));
                oldest = Some(age.max(oldest.unwrap_or_default()));
            }
        }
        oldest
    }

    /// From here on, what is there is what was written last.
    async fn settle(&mut self, numbers: &Region<u64, u64>) {
        for (key, operations) in &mut self.operations {
            let found = numbers.get(key).await.map(|hit| *hit);
            *operations = vec![(found.unwrap_or_default(), found.is_none(), Some(0))];
        }
    }
}

fn behind(directory: &Path, interval: Option<Duration>) -> WriteBehind {
    let sync = interval.map_or(JournalSync::Always, JournalSync::Interval);
    WriteBehind::journal(directory.join("journal"), sync).max_delay(ms(100))
}

struct Lines {
    /// Writer, number, and when (ms of the wall clock).
    acknowledged: Vec<(u64, u64, u64)>,
    killed: u64,
    /// How long a sync took at most meanwhile, of a file on the same disk.
    longest_sync: Duration,
    /// How long a thread of the child was without its turn at most.
    longest_pause: Duration,
}

/// Syncs a file in `directory` over and over for as long as this; returns how long one took at most.
fn longest_sync(directory: &Path, during: Duration) -> Duration {
    let began = Instant::now();
    let mut file = std::fs::File::create(directory.join("sync")).unwrap();
    let mut longest = Duration::ZERO;
    while began.elapsed() < during {
        let one = Instant::now();
        file.write_all(b"as much as a journal writes at a time, or so").unwrap();
        file.sync_data().unwrap();
        longest = longest.max(one.elapsed());
        std::thread::park_timeout(ms(5));
    }
    longest
}

fn wall() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// Lets a child write until it is killed; what it had acknowledged by then.
fn write_until_killed(what: &str, directory: &Path, interval: Option<Duration>, begun: &[u64]) -> Lines {
    let begun: Vec<_> = begun.iter().map(u64::to_string).collect();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_writes_until_killed", "--ignored", "--nocapture"])
        .env("TIERKEEP_CRASH_STORE", what)
        .env("TIERKEEP_CRASH_DIRECTORY", directory)
        .env("TIERKEEP_CRASH_INTERVAL", interval.map_or(0, |interval| interval.as_millis()).to_string())
        .env("TIERKEEP_CRASH_BEGUN", begun.join(","))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let mut acknowledged = Vec::new();
    let parse = |line: &str| -> Option<(u64, u64, u64)> {
        let mut numbers = line.strip_prefix("done ")?.split(' ').map(|word| word.trim().parse().ok());
        // A line that the kill cut short does not end.
        let whole = line.ends_with('\n');
        Some((numbers.next()??, numbers.next()??, numbers.next()??)).filter(|_| whole)
    };
    let mut beats = Vec::new();
    let beat = |line: &str| line.strip_prefix("beat ")?.strip_suffix('\n')?.parse::<u64>().ok();
    // It has begun when it has acknowledged something.
    while acknowledged.is_empty() {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "the child ended before it wrote anything");
        acknowledged.extend(parse(&line));
        beats.extend(beat(&line));
    }
    let pid = child.id();
    let after = Duration::from_millis(RandomState::new().hash_one(pid) % 250);
    let (after, directory) = (if interval.is_some() { LIFE + after } else { after }, directory.to_owned());
    let killer = std::thread::spawn(move || {
        let longest_sync = longest_sync(&directory, after);
        let killed = wall();
        child.kill().unwrap(); // SIGKILL on Unix.
        child.wait().unwrap();
        (killed, longest_sync)
    });
    loop {
        line.clear();
        if out.read_line(&mut line).unwrap() == 0 {
            break;
        }
        acknowledged.extend(parse(&line));
        beats.extend(beat(&line));
    }
    let (killed, longest_sync) = killer.join().unwrap();
    beats.push(killed);
    let pauses = beats.windows(2).map(|pair| ms(pair[1].saturating_sub(pair[0])));
    let longest_pause = pauses.max().unwrap_or_default();
    Lines { acknowledged, killed, longest_sync, longest_pause }
}

#[test]
#[ignore = "run by what_was_acknowledged_survives_kill_9"]
fn child_writes_until_killed() {
    let told = |name: &str| std::env::var(format!("TIERKEEP_CRASH_{name}")).ok();
    let Some(what) = told("STORE") else { return };
    let directory = PathBuf::from(told("DIRECTORY").unwrap());
    let interval: u64 = told("INTERVAL").unwrap().parse().unwrap();
    let interval = (interval > 0).then(|| ms(interval));
    let begun: Vec<u64> = told("BEGUN").unwrap().split(',').map(|number| number.parse().unwrap()).collect();
    std::thread::spawn(|| {
        while writeln!(std::io::stdout(), "beat {}", wall()).is_ok() {
            std::thread::park_timeout(BEAT);
        }
    });
    on_tokio(async {
        let cache = cache(store(&what, &directory), behind(&directory, interval)).await;
        let numbers = region(&cache);
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let numbers = numbers.clone();
                let first = begun[writer as usize];
                tokio::spawn(async move {
                    for n in first.. {
                        let Operation { key, removes } = operation(writer, n);
                        if removes {
                            numbers.remove(&key).await.unwrap();
                        } else {
                            numbers.set(&key, n).await.unwrap();
                        }
                        let mut out = std::io::stdout().lock();
                        if writeln!(out, "done {writer} {n} {}", wall()).and_then(|()| out.flush()).is_err() {
                            return;
                        }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}
