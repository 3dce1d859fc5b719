//! Four processes at work on the same keys: no read shows what must no longer show.
//!
//! A change sets a key, removes it, or clears a region. Two rules. Once a change has returned, confirmed or not, no read
//! of the same process that begins later shows what it replaced. And past the bound after a change was confirmed, no read
//! of any process does. Finding nothing is always allowed. 20 seconds; `TIERKEEP_COHERENCE_SECONDS=600` for ten minutes.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tierkeep::Region;
use tierkeep::runtime::RuntimeHandle;
use tierkeep_test_servers::{FaultProxy, Network, RedisServer};

use crate::process::{BOUND, FALLBACK, Orders, Process, clock};

const PROCESSES: u64 = 4;
const TASKS: u64 = 3;

/// Keys that everybody changes all the time, so that changes overlap.
const BUSY: u64 = 8;

/// Keys above those that are changed seldom and read often: what is missed there shows until its next change. A clear
/// takes the busy ones or these.
const CALM: u64 = 64;

/// Two changes closer than this may have got their stamps in either order: clocks count milliseconds.
const TIE: u64 = 3_000_000;

/// The regions that a process works on.
pub(crate) struct Regions {
    pub(crate) busy: Region<u64, u64>,
    pub(crate) calm: Region<u64, u64>,
}

impl Regions {
    fn of(&self, key: u64) -> &Region<u64, u64> {
        if key < BUSY { &self.busy } else { &self.calm }
    }
}

/// What a child does for `seconds`: each line tells a call, its key, its value, when it began and when it returned.
pub(crate) async fn work(
    runtime: &RuntimeHandle,
    regions: Arc<Regions>,
    process: u64,
    seconds: u64,
    tell: fn(&str),
) {
    let end = runtime.now().after(Duration::from_secs(seconds));
    let tasks = (0..TASKS).map(|task| {
        let (runtime, regions) = (runtime.clone(), Arc::clone(&regions));
        runtime.clone().spawn(async move {
            let mut next = 0;
            while runtime.now() < end {
                let (random, kind) = (runtime.random(), runtime.random() % 10_000);
                // How many of ten thousand calls set, remove and clear.
                let (key, (sets, removes, clears)) = if random % 2 == 0 {
                    ((random >> 1) % BUSY, (800, 400, 20))
                } else {
                    (BUSY + (random >> 1) % CALM, (80, 40, 2))
                };
                let region = regions.of(key);
                let (call, value, began) = match kind {
                    kind if kind < sets => {
                        // Nobody writes a value twice.
                        next += 1;
                        let value = (next * TASKS + task) * PROCESSES + process;
                        let began = clock();
                        let done = region.set(&key, value).await;
                        (if done.is_ok() { "set" } else { "try-set" }, value, began)
                    }
                    kind if kind < sets + removes => {
                        let began = clock();
                        let done = region.remove(&key).await;
                        (if done.is_ok() { "remove" } else { "try-remove" }, 0, began)
                    }
                    kind if kind < sets + removes + clears => {
                        let began = clock();
                        let done = region.clear().await;
                        (if done.is_ok() { "clear" } else { "try-clear" }, 0, began)
                    }
                    _ => {
                        let began = clock();
                        match region.get(&key).await {
                            Some(hit) => ("get", *hit, began),
                            None => ("miss", 0, began),
                        }
                    }
                };
                tell(&format!("{call} {key} {value} {began} {}", clock()));
                runtime.sleep(Duration::from_micros(runtime.random() % 10_000)).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    tell("done");
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Set,
    Remove,
    Clear,
}

#[derive(Clone, Copy)]
struct Call {
    process: u64,
    key: u64,
    value: u64,
    began: u64,
    ended: u64,
}

/// A call that changes its key, or all keys of its region.
struct Change {
    kind: Kind,
    confirmed: bool,
    call: Call,
}

impl Change {
    fn keys(&self) -> std::ops::Range<u64> {
        match self.kind {
            Kind::Set | Kind::Remove => self.call.key..self.call.key + 1,
            Kind::Clear if self.call.key < BUSY => 0..BUSY,
            Kind::Clear => BUSY..BUSY + CALM,
        }
    }
}

/// Changes of a key in the order of their ends, each with the latest beginning so far and what began then.
#[derive(Default)]
struct Ended(Vec<(u64, u64, Kind)>);

impl Ended {
    fn sort(&mut self) {
        self.0.sort_unstable_by_key(|(ended, ..)| *ended);
        let mut latest = (0, Kind::Set);
        for (_, began, kind) in &mut self.0 {
            if *began >= latest.0 {
                latest = (*began, *kind);
            }
            (*began, *kind) = latest;
        }
    }

    /// What began latest of all that had ended by `time`, if it began after `written`.
    fn since(&self, written: u64, time: u64) -> Option<Kind> {
        let count = self.0.partition_point(|(ended, ..)| *ended <= time);
        let (_, began, kind) = self.0[..count].last()?;
        (*began > written + TIE).then_some(*kind)
    }
}

#[derive(Default)]
struct Log {
    reads: Vec<Call>,
    misses: usize,
    changes: Vec<Change>,
}

impl Log {
    fn hear(&mut self, process: u64, line: &str) {
        let mut words = line.split(' ');
        let what = words.next().unwrap();
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        let call = Call { process, key: number(), value: number(), began: number(), ended: number() };
        let kind = match what.trim_start_matches("try-") {
            "get" => return self.reads.push(call),
            "miss" => return self.misses += 1,
            "set" => Kind::Set,
            "remove" => Kind::Remove,
            "clear" => Kind::Clear,
            other => panic!("`{other}`"),
        };
        self.changes.push(Change { kind, confirmed: !what.starts_with("try-"), call });
    }

    fn add(&mut self, other: Self) {
        self.reads.extend(other.reads);
        self.misses += other.misses;
        self.changes.extend(other.changes);
    }

    fn count(&self, kind: Kind, confirmed: bool) -> usize {
        self.changes.iter().filter(|change| change.kind == kind && change.confirmed == confirmed).count()
    }

    /// What must not have been, and what should have ended it.
    fn violations(&self) -> Vec<(Kind, String)> {
        let mut by_key: HashMap<u64, Ended> = HashMap::new();
        let mut by_process: HashMap<(u64, u64), Ended> = HashMap::new();
        for change in &self.changes {
            let Call { process, began, ended, .. } = change.call;
            for key in change.keys() {
                let end = (ended, began, change.kind);
                by_process.entry((process, key)).or_default().0.push(end);
                if change.confirmed {
                    by_key.entry(key).or_default().0.push(end);
                }
            }
        }
        by_key.values_mut().chain(by_process.values_mut()).for_each(Ended::sort);
        let sets = self.changes.iter().filter(|change| change.kind == Kind::Set);
        let written: HashMap<_, _> = sets.map(|change| (change.call.value, change)).collect();
        let mut violations = Vec::new();
        for read in &self.reads {
            let Call { process, key, value, began, .. } = *read;
            let Some(set) = written.get(&value).filter(|set| set.call.key == key) else {
                violations.push((Kind::Set, format!("process {process}, key {key}: nobody wrote {value}")));
                continue;
            };
            // What its writer could not tell the store lives in its memory, where nobody hears that it is outdated.
            let alone = !set.confirmed && set.call.process == process;
            let bound = u64::try_from((if alone { FALLBACK } else { BOUND }).as_nanos()).unwrap();
            // Whoever wrote it, and however late it arrives: its stamp is of that time.
            let since = |ended: Option<&Ended>, by| ended.and_then(|ended| ended.since(set.call.ended, by));
            let told = |kind, what| {
                (
                    kind,
                    format!("process {process}, key {key}: {value} of process {} {what}", set.call.process),
                )
            };
            if let Some(kind) = since(by_process.get(&(process, key)), began) {
                violations.push(told(kind, "shows after a change of the same process"));
            } else if let Some(kind) = since(by_key.get(&key), began.saturating_sub(bound)) {
                violations.push(told(kind, "shows past the bound"));
            }
        }
        violations
    }

    /// In one line, with the violations by what should have ended the value.
    fn told(&self, seconds: u64, violations: &[(Kind, String)]) -> String {
        let mut line = format!(
            "processes={PROCESSES} seconds={seconds} reads={} misses={}",
            self.reads.len() + self.misses,
            self.misses
        );
        for (name, kind) in [("sets", Kind::Set), ("removes", Kind::Remove), ("clears", Kind::Clear)] {
            let outlived = violations.iter().filter(|(by, _)| *by == kind).count();
            line += &format!(
                " {name}=[confirmed={} unconfirmed={} outlived={outlived}]",
                self.count(kind, true),
                self.count(kind, false)
            );
        }
        line + &format!(" violations={}", violations.len())
    }
}

#[test]
fn four_processes_show_nothing_that_was_promised_to_be_gone() {
    let seconds =
        std::env::var("TIERKEEP_COHERENCE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::to(server.addr()).unwrap();
    let processes = (0..PROCESSES).map(|index| {
        let url = if index == PROCESSES - 1 { proxy.url() } else { server.url() };
        let runtime = if index % 2 == 0 { "tokio" } else { "smol" };
        Process::start(&Orders { url: &url, namespace: "history", runtime, backplane: true, cap: 0 })
    });
    let mut processes: Vec<_> = processes.collect();
    for process in &mut processes {
        process.ask(&format!("up {}", PROCESSES - 1));
    }
    let listeners: Vec<_> = (0..PROCESSES)
        .zip(processes)
        .map(|(index, mut process)| {
            std::thread::spawn(move || {
                process.say(&format!("work {index} {seconds}"));
                let mut log = Log::default();
                loop {
                    match process.hear() {
                        line if line == "done" => return log,
                        line => log.hear(index, &line),
                    }
                }
            })
        })
        .collect();
    // Now and then one process is cut off for longer than the bound; then its connections are, without a word.
    let end = std::time::Instant::now() + Duration::from_secs(seconds);
    let (long, short) = (BOUND * 2 + Duration::from_secs(1), Duration::from_millis(2000));
    let faults = [
        (Network::Blackhole, long),
        (Network::Healthy, short),
        (Network::Refuse, short),
        (Network::Healthy, short),
        (Network::Partition, short),
        (Network::Healthy, short),
        (Network::Refuse, long),
        (Network::Healthy, short),
    ];
    for (fault, time) in faults.into_iter().cycle() {
        if std::time::Instant::now() + time + Duration::from_secs(2) >= end {
            break;
        }
        proxy.set(fault);
        std::thread::sleep(time);
    }
    proxy.set(Network::Healthy);
    let mut log = Log::default();
    for listener in listeners {
        log.add(listener.join().unwrap());
    }
    let violations = log.violations();
    let line = log.told(seconds, &violations);
    // Not through print, which tests that succeed keep to themselves.
    let _ = writeln!(std::io::stdout(), "{line}");
    assert!(violations.is_empty(), "{line}: {:#?}", &violations[..violations.len().min(5)]);
    let enough = [(Kind::Set, 200), (Kind::Remove, 100), (Kind::Clear, 5)];
    let done = enough.iter().all(|(kind, least)| log.count(*kind, true) >= *least);
    assert!(done && log.reads.len() > 1000, "too little was done to say anything: {line}");
}

#[test]
fn the_check_notices() {
    // In ms.
    let call = |process, value, began: u64, ended: u64| Call {
        process,
        key: 1,
        value,
        began: began * 1_000_000,
        ended: ended * 1_000_000,
    };
    let first = || Change { kind: Kind::Set, confirmed: true, call: call(0, 10, 0, 1) };
    let of = |kind, confirmed, reads: Vec<Call>| {
        let changes = vec![first(), Change { kind, confirmed, call: call(0, 20, 10, 11) }];
        Log { reads, misses: 0, changes }.violations().len()
    };
    for kind in [Kind::Set, Kind::Remove, Kind::Clear] {
        assert_eq!(of(kind, true, vec![call(0, 10, 10, 12), call(1, 10, 100, 101)]), 0, "{kind:?}");
        for confirmed in [true, false] {
            assert_eq!(of(kind, confirmed, vec![call(0, 10, 12, 13)]), 1, "{kind:?}: its own");
        }
        assert_eq!(of(kind, true, vec![call(1, 10, 4600, 4601)]), 1, "{kind:?}: another's, past the bound");
        assert_eq!(
            of(kind, false, vec![call(1, 10, 4600, 4601)]),
            0,
            "{kind:?}: nobody said that it was done"
        );
        // Another key of the region.
        let neighbour = Call { key: 2, ..call(1, 10, 4600, 4601) };
        assert_eq!(of(kind, true, vec![neighbour]), 1, "{kind:?}: under a key that nobody wrote it to");
    }
    assert_eq!(of(Kind::Set, true, vec![call(0, 20, 12, 13)]), 0);
    assert_eq!(of(Kind::Set, true, vec![call(1, 30, 12, 13)]), 1, "nobody's");
    let elsewhere = Call { key: BUSY, ..call(0, 0, 10, 11) };
    let changes = vec![first(), Change { kind: Kind::Clear, confirmed: true, call: elsewhere }];
    assert!(
        Log { reads: vec![call(0, 10, 12, 13)], misses: 0, changes }.violations().is_empty(),
        "another region"
    );
    // What a process could not tell the store outlives another's change in its own memory.
    let log = |reader, began| {
        let changes = vec![
            Change { kind: Kind::Set, confirmed: false, call: call(0, 10, 0, 1) },
            Change { kind: Kind::Remove, confirmed: true, call: call(1, 0, 10, 11) },
        ];
        Log { reads: vec![call(reader, 10, began, began + 1)], misses: 0, changes }.violations().len()
    };
    assert_eq!((log(0, 4600), log(0, 30_100), log(1, 4600)), (0, 1, 1));
}
