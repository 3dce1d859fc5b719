//! The clock behind every hit stays right whatever happens to the process: it works, it is stopped, it goes on.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "the operating system's clock is what ours is held against")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use tierkeep::runtime::system_wall;
use tierkeep::{Cache, MemoryBackend, Region};
use tierkeep_smol::SmolRuntime;

const STOPS: usize = 40;
const STOPPED: Duration = Duration::from_millis(25);

/// How long entries live in the child: they expire while it works and while it is stopped.
const TTL: Duration = Duration::from_millis(7);

/// `SIGSTOP` and `SIGCONT` again and again, each time at another point of what the child does.
#[test]
fn a_process_that_was_stopped_shows_nothing_that_has_expired() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process", "--ignored", "--nocapture", "--test-threads=1"])
        .env("TIERKEEP_CLOCK_CHILD", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut lines = BufReader::new(output).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.ends_with("ready")), "the child did not begin");
    let pid = Pid::from_child(&child);
    for stop in 0..STOPS as u64 {
        std::thread::sleep(Duration::from_micros(2_000 + stop * 379 % 9_000));
        kill_process(pid, Signal::STOP).unwrap();
        std::thread::sleep(STOPPED);
        kill_process(pid, Signal::CONT).unwrap();
    }
    // One that has failed has gone, and said why.
    let _ = writeln!(input, "enough");
    let said: Vec<_> = lines.collect();
    assert!(child.wait().unwrap().success(), "{said:#?}");
    let stops = said.iter().find_map(|line| line.strip_prefix("stops ")).unwrap();
    assert!(stops.parse::<usize>().unwrap() >= STOPS / 2, "it was hardly stopped at work: {said:#?}");
}

fn os_wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

#[test]
#[ignore = "run by the other test, in a process of its own"]
fn a_process() {
    if std::env::var_os("TIERKEEP_CLOCK_CHILD").is_none() {
        return;
    }
    static ENOUGH: AtomicBool = AtomicBool::new(false);
    let (cache, numbers) = smol::block_on(async {
        let cache =
            Cache::builder(SmolRuntime::new()).tier(MemoryBackend::entries(10)).build().await.unwrap();
        let numbers: Region<u64, u64> = cache.region("number").ttl(TTL).build().unwrap();
        (cache, numbers)
    });
    // The processor's counter is looked into before it is believed: some tens of milliseconds.
    let began = os_wall();
    while os_wall() < began + 300 {
        system_wall();
    }
    println!("\nready");
    std::thread::spawn(|| {
        std::io::stdin().lock().lines().next();
        ENOUGH.store(true, Ordering::Relaxed);
    });
    let (mut stops, mut last) = (0, os_wall());
    while !ENOUGH.load(Ordering::Relaxed) {
        let before = os_wall();
        let wall = system_wall().as_millis();
        let after = os_wall();
        // If somebody sets the clock meanwhile, it is no business of this test.
        assert!(before <= wall && wall <= after || after < before, "{before} {wall} {after}");
        stops += usize::from(before >= last + 20);
        last = before;
        let (before, hit) = (os_wall(), numbers.peek(&1));
        match hit {
            Some(hit) => {
                let expire = hit.meta().expire.unwrap().as_millis();
                assert!(before < expire, "shown at {before}, and expired at {expire}");
            }
            None => smol::block_on(numbers.set(&1, before)).unwrap(),
        }
    }
    println!("\nstops {stops}");
    assert!(smol::block_on(cache.shutdown(Duration::from_secs(60))).clean);
}
