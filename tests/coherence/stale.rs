//! For how long another process shows what has been replaced, from the moment `set` returned.

use std::io::Write as _;
use std::time::Duration;

use tierkeep_test_servers::{FaultProxy, Network, RedisServer};

use crate::process::{BOUND, Orders, Process};

/// How long a reader goes on while it sees what is older.
const PATIENCE: Duration = Duration::from_secs(60);

/// Prints windows in ns, and returns the longest.
fn report(what: &str, mut windows: Vec<u64>) -> Duration {
    windows.sort_unstable();
    let at = |share: usize| windows[(windows.len() - 1) * share / 100] as f64 / 1e6;
    let (median, p99, max) = (at(50), at(99), at(100));
    // Not through print, which tests that succeed keep to themselves.
    let _ = writeln!(
        std::io::stdout(),
        "stale window, {what}: median {median:.3} ms, p99 {p99:.3} ms, max {max:.3} ms of {}",
        windows.len()
    );
    Duration::from_nanos(*windows.last().unwrap())
}

/// One change in `writer`, and for how long `reader` still shows what was before, in ns.
fn window(writer: &mut Process, reader: &mut Process, key: u64, value: u64, within: Duration) -> u64 {
    let command = format!("await {key} {value} {}", within.as_millis());
    assert_eq!(reader.ask(&command), "waiting");
    let returned = writer.ask_number(&format!("set {key} {value}"));
    let shown = reader.hear();
    let shown: u64 = shown.parse().unwrap_or_else(|_| panic!("key {key}: {shown}"));
    // What began before `set` returned may show anything.
    shown.saturating_sub(returned)
}

fn pair(url: [&str; 2], backplane: bool, cap: u64) -> [Process; 2] {
    let namespace = format!("stale-{backplane}-{cap}");
    let start =
        |url, runtime| Process::start(&Orders { url, namespace: &namespace, runtime, backplane, cap });
    [start(url[0], "tokio"), start(url[1], "smol")]
}

#[test]
fn with_the_backplane_a_change_shows_in_another_process_within_the_bound() {
    let server = RedisServer::start().unwrap();
    let url = server.url();
    let [mut writer, mut reader] = pair([&url, &url], true, 0);
    writer.ask("up 1");
    reader.ask("up 1");
    let windows = (0..300).map(|round| {
        let key = round % 10;
        // The reader holds what is about to be replaced.
        writer.ask_number(&format!("set {key} {}", round * 2 + 1));
        reader.ask(&format!("hold {key} {}", round * 2 + 1));
        window(&mut writer, &mut reader, key, round * 2 + 2, PATIENCE)
    });
    let longest = report("with the backplane", windows.collect());
    assert!(longest <= BOUND, "{longest:?} is over the stated {BOUND:?}");
}

#[test]
fn with_the_backplane_a_partitioned_process_shows_nothing_older_past_the_bound_nor_after_it_heals() {
    let server = RedisServer::start().unwrap();
    let proxy = FaultProxy::to(server.addr()).unwrap();
    let [mut writer, mut reader] = pair([&server.url(), &proxy.url()], true, 0);
    writer.ask("up 1");
    reader.ask("up 1");
    let (mut during, mut after) = (Vec::new(), Vec::new());
    for round in 0..3 {
        let value = round * 10 + 1;
        writer.ask_number(&format!("set 1 {value}"));
        reader.ask(&format!("hold 1 {value}"));
        proxy.set(Network::Blackhole);
        during.push(window(&mut writer, &mut reader, 1, value + 1, PATIENCE));
        proxy.set(Network::Healthy);
        // Healed: what is written from now on shows as soon as it hears again.
        reader.ask("up 1");
        reader.ask(&format!("hold 1 {}", value + 1));
        after.push(window(&mut writer, &mut reader, 1, value + 2, PATIENCE));
    }
    let longest = report("partitioned", during).max(report("after it healed", after));
    assert!(longest <= BOUND, "{longest:?} is over the stated {BOUND:?}");
}

#[test]
fn without_the_backplane_a_change_shows_once_the_cap_is_over() {
    let server = RedisServer::start().unwrap();
    let url = server.url();
    // The default cap is 30 s; the simulator's tests take that long.
    let cap = 1000;
    let [mut writer, mut reader] = pair([&url, &url], false, cap);
    let bound = Duration::from_millis(cap);
    let windows = (0..5).map(|round| {
        writer.ask_number(&format!("set {round} 1"));
        reader.ask(&format!("hold {round} 1"));
        window(&mut writer, &mut reader, round, 2, PATIENCE)
    });
    let longest = report("without it, under a cap of 1 s", windows.collect());
    // Stamps count whole milliseconds; a read begins a while before it looks at the clock.
    assert!(longest <= bound + Duration::from_millis(2), "{longest:?} is over the cap of {bound:?}");
}
