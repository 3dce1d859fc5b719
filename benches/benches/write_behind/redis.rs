//! Acknowledging, throughput, and what reaches the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tierkeep::backend::{RedisBackend, RedisDriver};
use tierkeep::write_behind::WriteBehind;
use tierkeep::{Cache, MemoryBackend, Region, Tier};
use tierkeep_benches::clock::{Watch, process_time};
use tierkeep_benches::values::{Account, Identified};
use tierkeep_benches::{Comparison, Contest, Measure, Outcome, Sampled, Setting, Skipped, Unit};
use tierkeep_test_servers::RedisServer;
use tierkeep_tokio::TokioRuntime;
use tokio::runtime::Runtime;

use crate::zipf::{KEYS, Zipf};

pub(crate) const MEASURES: &[Measure] = &[
    Measure {
        names: &["wb_ack_p50"],
        about: "a set of 125 bytes over memory and Redis until it is acknowledged, median of 8 writers",
        run: acknowledge,
    },
    Measure {
        names: &["wb_throughput", "wb_commands_per_set"],
        about: "64 writers over memory and Redis, Zipf 0.99 over 100,000 keys, a delay of 3 s, the queue drained in the \
                end; \
                commands are what the client sends, not what scripts call inside the server",
        run: throughput,
    },
];

/// How long a change may wait for a newer one of its key. What a crash in memory mode may lose: who wants throughput
/// trades one for the other.
const DELAY: Duration = Duration::from_secs(3);

/// Values that are written in turn: making them is the application's part, and must not be what is measured.
const VALUES: usize = 1024;

/// As docs/write-behind.md recommends for keys that are written over and over: room for twice the keys that are written
/// within a longer delay.
fn coalescing() -> WriteBehind {
    WriteBehind::memory().max_delay(DELAY).entries(2 * KEYS as usize)
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

pub(crate) fn server() -> Result<RedisServer, Skipped> {
    RedisServer::start().map_err(|error| Skipped(format!("redis-server cannot be started: {error}")))
}

/// A cache of memory over Redis, and a region of it.
pub(crate) async fn cache(
    server: &RedisServer,
    behind: Option<WriteBehind>,
) -> (Cache, Region<Account, u64>) {
    let redis = RedisBackend::builder(RedisDriver::Tokio)
        .url(&server.url())
        .namespace("bench")
        .build()
        .expect("a backend");
    let mut tier = Tier::new(redis);
    if let Some(behind) = behind {
        tier = tier.write_behind(behind);
    }
    let memory = MemoryBackend::entries(2 * KEYS as usize);
    let cache =
        Cache::builder(TokioRuntime::current()).tier(memory).tier(tier).build().await.expect("a cache");
    let region = cache.region("bench").no_expiry().build().expect("a region");
    (cache, region)
}

/// Lets `writers` tasks set keys until `time` has passed. Returns how many sets there were, and how long each took if
/// that is asked for.
#[expect(clippy::disallowed_methods, reason = "writers are tasks of the application")]
pub(crate) async fn write(
    region: &Region<Account, u64>,
    zipf: &Arc<Zipf>,
    next: &Arc<AtomicU64>,
    writers: usize,
    time: Duration,
    timed: bool,
) -> (u64, Vec<Duration>) {
    let watch = Watch::start();
    let values: Arc<[Arc<Account>]> = (0..VALUES as u64).map(|id| Arc::new(Account::of(id))).collect();
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let (region, zipf, next, values) =
                (region.clone(), Arc::clone(zipf), Arc::clone(next), Arc::clone(&values));
            tokio::spawn(async move {
                let (mut sets, mut latencies) = (0, Vec::new());
                while watch.elapsed() < time {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    #[expect(clippy::cast_possible_truncation, reason = "one of them will do")]
                    let value = Arc::clone(&values[n as usize % VALUES]);
                    let one = timed.then(Watch::start);
                    region.set(&zipf.key(n), value).await.expect("a set");
                    latencies.extend(one.map(Watch::elapsed));
                    sets += 1;
                    if sets % 64 == 0 {
                        // What never waits would keep its thread from the others, and from the drain.
                        tokio::task::yield_now().await;
                    }
                }
                (sets, latencies)
            })
        })
        .collect();
    let (mut sets, mut latencies) = (0, Vec::new());
    for task in tasks {
        let (more, times) = task.await.expect("a writer");
        sets += more;
        latencies.extend(times);
    }
    (sets, latencies)
}

fn acknowledge(setting: &Setting) -> Outcome {
    let runtime = runtime();
    let (through, behind) = (server()?, server()?);
    let zipf = Arc::new(Zipf::new(7));
    let next = Arc::new(AtomicU64::new(0));
    let (behind_cache, behind) = runtime.block_on(cache(&behind, Some(coalescing())));
    let (through_cache, through) = runtime.block_on(cache(&through, None));
    let p50 = |region: &Region<Account, u64>| {
        let (_, mut latencies) = runtime.block_on(write(region, &zipf, &next, 8, setting.round * 4, true));
        latencies.sort_unstable();
        latencies[latencies.len() / 2].as_secs_f64() * 1e9
    };
    let sides = Contest::new(setting, Unit::Nanos)
        .fixed("write-behind", || p50(&behind))
        .fixed("write-through", || p50(&through))
        .run();
    runtime.block_on(end(&behind_cache));
    runtime.block_on(end(&through_cache));
    Ok(vec![Comparison::new("wb_ack_p50", Unit::Nanos, 20.0, &sides[0], &sides[1])])
}

/// What the scripts that compare stamps call inside the server, where it counts as any command does. Nobody sends these:
/// with stamps compared, every change is a script's. See `src/backend/redis/script.rs`.
const INSIDE: [&str; 11] =
    ["time", "getrange", "get", "set", "unlink", "del", "hexists", "hget", "hlen", "hset", "hvals"];
/// What a connection says about itself, and who asks for the counts.
const ASIDE: [&str; 7] =
    ["info", "hello", "ping", "client|setinfo", "client|id", "client|setname", "client|tracking"];

/// Commands that the client has sent to the server so far: a script for a whole batch is one.
fn sent(server: &RedisServer) -> u64 {
    let stats = server.command(&["INFO", "commandstats"]).expect("INFO").text();
    let counted = stats.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let ours = !INSIDE.contains(&name) && !ASIDE.contains(&name);
        rest.split(',').next()?.parse::<u64>().ok().filter(|_| ours)
    });
    counted.sum()
}

/// The processors' time that the server has taken so far, in seconds.
fn server_time(server: &RedisServer) -> f64 {
    let stats = server.command(&["INFO", "cpu"]).expect("INFO").text();
    let used = stats.lines().filter_map(|line| {
        let (name, seconds) = line.split_once(':')?;
        seconds.trim().parse::<f64>().ok().filter(|_| matches!(name, "used_cpu_user" | "used_cpu_sys"))
    });
    used.sum()
}

/// Where a side's time went, over all its rounds: what it set, what its store was sent, and the processors' time.
struct Costs<'a> {
    cache: &'a Cache,
    server: &'a RedisServer,
    sets: u64,
    client: Duration,
    seconds: f64,
}

impl<'a> Costs<'a> {
    fn new(cache: &'a Cache, server: &'a RedisServer) -> Self {
        Self { cache, server, sets: 0, client: Duration::ZERO, seconds: 0.0 }
    }

    /// Sets for as long as `run` does, and until everything is in the store. Returns how many there were, and their rate.
    fn round(&mut self, run: impl FnOnce() -> u64) -> (u64, f64) {
        let (watch, client) = (Watch::start(), process_time());
        let sets = run();
        let seconds = watch.elapsed().as_secs_f64();
        self.client += process_time() - client;
        (self.sets, self.seconds) = (self.sets + sets, self.seconds + seconds);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let rate = sets as f64 / seconds;
        (sets, rate)
    }

    fn tell(&self, side: &str) {
        let keys = self.cache.inspect().tiers[1].writes.keys_in_calls;
        let calls = self.cache.inspect().tiers[1].writes.calls;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let (sets, keys, per_call) = (self.sets as f64, keys as f64, keys as f64 / calls.max(1) as f64);
        eprintln!(
            "  {side}: {:.0} sets/s; {:.0} keys/s to the store in calls of {per_call:.0}, {:.3} a set; \
             a set takes {:.2} us of the client's processors, {:.2} us of the server's",
            sets / self.seconds,
            keys / self.seconds,
            keys / sets,
            self.client.as_secs_f64() * 1e6 / sets,
            server_time(self.server) * 1e6 / sets,
        );
    }
}

fn throughput(setting: &Setting) -> Outcome {
    let runtime = runtime();
    let servers = (server()?, server()?);
    let zipf = Arc::new(Zipf::new(7));
    let next = Arc::new(AtomicU64::new(0));
    let behind = coalescing();
    let (behind_cache, behind) = runtime.block_on(cache(&servers.0, Some(behind)));
    let (through_cache, through) = runtime.block_on(cache(&servers.1, None));
    // Long enough for the delay to come round several times; what is queued in the end counts as part of the round.
    let time = (setting.round * 50).max(DELAY * 3);
    let setting = &Setting { rounds: setting.rounds.min(5), ..setting.clone() };
    let run = |cache: &Cache, region: &Region<Account, u64>| {
        let (sets, _) = runtime.block_on(write(region, &zipf, &next, 64, time, false));
        runtime.block_on(cache.flush(Duration::from_secs(60))).expect("a flush");
        sets
    };
    let mut costs = (Costs::new(&behind_cache, &servers.0), Costs::new(&through_cache, &servers.1));
    let mut per_set = Vec::new();
    let sides = Contest::new(setting, Unit::PerSecond)
        .fixed("write-behind", || {
            let before = sent(&servers.0);
            let (sets, rate) = costs.0.round(|| run(&behind_cache, &behind));
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            per_set.push((sent(&servers.0) - before) as f64 / sets as f64);
            rate
        })
        .fixed("write-through", || costs.1.round(|| run(&through_cache, &through)).1)
        .run();
    costs.0.tell("write-behind");
    costs.1.tell("write-through");
    runtime.block_on(end(&behind_cache));
    runtime.block_on(end(&through_cache));
    per_set.sort_unstable_by(f64::total_cmp);
    let commands = Sampled {
        label: "write-behind",
        median: per_set[per_set.len() / 2],
        range: (per_set[0], per_set[per_set.len() - 1]),
    };
    let promised = Sampled { label: "promised", median: 0.25, range: (0.25, 0.25) };
    Ok(vec![
        Comparison::new("wb_throughput", Unit::PerSecond, 5.0, &sides[0], &sides[1]),
        Comparison::new("wb_commands_per_set", Unit::PerOperation, 1.0, &commands, &promised),
    ])
}

/// Ends a cache, and checks that nothing was lost behind the figures.
pub(crate) async fn end(cache: &Cache) {
    if let Some(queue) = &cache.inspect().tiers[1].write_behind {
        assert_eq!((queue.counts.dead, queue.counts.rejected), (0, 0), "{queue:?}");
    }
    assert!(cache.shutdown(Duration::from_secs(60)).await.clean, "the cache did not end cleanly");
}
