//! Four processes at work on the same keys: no read shows what must no longer show.
//!
//! Two rules. Once a change has returned confirmed, no read of the same process that begins later shows what it replaced.
//! And past the bound, no read of any process does. 20 seconds; `TIERKEEP_COHERENCE_SECONDS=600` for ten minutes.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::Duration;

use tierkeep::Region;
use tierkeep::runtime::RuntimeHandle;
use tierkeep_test_servers::{FaultProxy, Network, RedisServer};

use crate::process::{BOUND, Orders, Process, clock};

const PROCESSES: u64 = 4;
const TASKS: u64 = 3;
const KEYS: u64 = 8;

/// Two changes closer than this may have got their stamps in either order: clocks count milliseconds.
const TIE: u64 = 3_000_000;

/// What a child does for `seconds`: each line tells a call, its key, its value, when it began and when it returned.
pub(crate) async fn work(
    runtime: &RuntimeHandle,
    numbers: &Region<u64, u64>,
    process: u64,
    seconds: u64,
    tell: fn(&str),
) {
    let end = runtime.now().after(Duration::from_secs(seconds));
    let tasks = (0..TASKS).map(|task| {
        let (runtime, numbers) = (runtime.clone(), numbers.clone());
        runtime.clone().spawn(async move {
            let mut next = 0;
            while runtime.now() < end {
                let key = runtime.random() % KEYS;
                if runtime.random() % 10 == 0 {
                    // Nobody writes a value twice.
                    next += 1;
                    let value = (next * TASKS + task) * PROCESSES + process;
                    let began = clock();
                    let confirmed = numbers.set(&key, value).await.is_ok();
                    let call = if confirmed { "set" } else { "try" };
                    tell(&format!("{call} {key} {value} {began} {}", clock()));
                } else {
                    let began = clock();
                    if let Some(hit) = numbers.get(&key).await {
                        tell(&format!("get {key} {} {began} {}", *hit, clock()));
                    }
                }
                runtime.sleep(Duration::from_micros(runtime.random() % 10_000)).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    tell("done");
}

struct Call {
    process: u64,
    key: u64,
    value: u64,
    began: u64,
    ended: u64,
}

/// Confirmed changes in the order of their ends, each with the latest beginning so far.
#[derive(Default)]
struct Confirmed(Vec<(u64, u64)>);

impl Confirmed {
    fn of(mut changes: Vec<(u64, u64)>) -> Self {
        changes.sort_unstable();
        let mut latest = 0;
        for (_, began) in &mut changes {
            latest = latest.max(*began);
            *began = latest;
        }
        Self(changes)
    }

    /// The latest beginning of a change that had ended by `time`.
    fn by(&self, time: u64) -> u64 {
        let count = self.0.partition_point(|(ended, _)| *ended <= time);
        count.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}

#[derive(Default)]
struct Log {
    reads: Vec<Call>,
    confirmed: Vec<Call>,
    /// By value: when the call that wrote it returned confirmed; `None`: it may be applied at any time.
    written: HashMap<u64, Option<u64>>,
}

impl Log {
    fn hear(&mut self, process: u64, line: &str) {
        let mut words = line.split(' ');
        let call = words.next().unwrap();
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        let call_of = Call { process, key: number(), value: number(), began: number(), ended: number() };
        match call {
            "get" => self.reads.push(call_of),
            "set" => {
                self.written.insert(call_of.value, Some(call_of.ended));
                self.confirmed.push(call_of);
            }
            "try" => drop(self.written.insert(call_of.value, None)),
            other => panic!("`{other}`"),
        }
    }

    fn add(&mut self, other: Self) {
        self.reads.extend(other.reads);
        self.confirmed.extend(other.confirmed);
        self.written.extend(other.written);
    }

    /// What must not have been.
    fn violations(&self) -> Vec<String> {
        let mut by_key: HashMap<u64, Vec<(u64, u64)>> = HashMap::new();
        let mut by_process: HashMap<(u64, u64), Vec<(u64, u64)>> = HashMap::new();
        for call in &self.confirmed {
            by_key.entry(call.key).or_default().push((call.ended, call.began));
            by_process.entry((call.process, call.key)).or_default().push((call.ended, call.began));
        }
        let by_key: HashMap<_, _> =
            by_key.into_iter().map(|(key, calls)| (key, Confirmed::of(calls))).collect();
        let by_process: HashMap<_, _> =
            by_process.into_iter().map(|(key, calls)| (key, Confirmed::of(calls))).collect();
        let bound = u64::try_from(BOUND.as_nanos()).unwrap();
        let mut violations = Vec::new();
        for read in &self.reads {
            let Some(written) = self.written.get(&read.value) else {
                violations.push(format!("key {}: nobody wrote {}", read.key, read.value));
                continue;
            };
            let Some(written) = written else { continue };
            let replaced = |changes: Option<&Confirmed>, by: u64| {
                changes.is_some_and(|changes| changes.by(by) > written + TIE)
            };
            if replaced(by_process.get(&(read.process, read.key)), read.began) {
                violations.push(format!(
                    "process {}, key {}: its own change was undone: {}",
                    read.process, read.key, read.value
                ));
            } else if replaced(by_key.get(&read.key), read.began.saturating_sub(bound)) {
                violations.push(format!(
                    "process {}, key {}: {} past the bound",
                    read.process, read.key, read.value
                ));
            }
        }
        violations
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
    // Now and then one process is cut off; then its connections are, without a word.
    let end = std::time::Instant::now() + Duration::from_secs(seconds);
    let faults = [Network::Blackhole, Network::Healthy, Network::Refuse, Network::Healthy];
    for fault in faults.into_iter().cycle() {
        if std::time::Instant::now() + Duration::from_secs(4) >= end {
            break;
        }
        proxy.set(fault);
        std::thread::sleep(Duration::from_millis(2500));
    }
    proxy.set(Network::Healthy);
    let mut log = Log::default();
    for listener in listeners {
        log.add(listener.join().unwrap());
    }
    let violations = log.violations();
    // Not through print, which tests that succeed keep to themselves.
    let _ = writeln!(
        std::io::stdout(),
        "processes={PROCESSES} seconds={seconds} reads={} writes_confirmed={} writes_unconfirmed={} violations={}",
        log.reads.len(),
        log.confirmed.len(),
        log.written.len() - log.confirmed.len(),
        violations.len()
    );
    assert!(log.reads.len() > 1000 && log.confirmed.len() > 100, "too little was done to say anything");
    assert!(
        violations.is_empty(),
        "{} of them: {:?}",
        violations.len(),
        &violations[..violations.len().min(5)]
    );
}

#[test]
fn the_check_notices() {
    let call = |process, value, began: u64, ended: u64| Call {
        process,
        key: 1,
        value,
        began: began * 1_000_000,
        ended: ended * 1_000_000,
    };
    let of = |reads: Vec<Call>| {
        let confirmed = vec![call(0, 10, 0, 1), call(0, 20, 10, 11)];
        let written = confirmed.iter().map(|call| (call.value, Some(call.ended))).collect();
        Log { reads, confirmed, written }.violations().len()
    };
    assert_eq!(of(vec![call(0, 20, 12, 13), call(1, 10, 100, 101)]), 0);
    assert_eq!(of(vec![call(0, 10, 12, 13)]), 1, "its own");
    assert_eq!(of(vec![call(1, 10, 4600, 4601)]), 1, "another's, past the bound");
    assert_eq!(of(vec![call(1, 30, 12, 13)]), 1, "nobody's");
}
