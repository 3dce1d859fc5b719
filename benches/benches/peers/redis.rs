//! Redis by many tasks at once, over one connection each: beside hitbox's backend, and beside plain pipelined `GET`s.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::ConnectionManager;
use tierkeep::backend::{RedisBackend, RedisDriver};
use tierkeep::{Cache, CacheKey, Tier};
use tierkeep_benches::clock::Watch;
use tierkeep_benches::peers::{hitbox, tierkeep as own};
use tierkeep_benches::values::{Account, Identified, TTL};
use tierkeep_benches::{Comparison, Contest, Measure, Outcome, Setting, Skipped, Unit, micro};
use tierkeep_test_servers::RedisServer;
use tierkeep_tokio::TokioRuntime;
use tokio::runtime::Runtime;

pub(crate) const MEASURES: &[Measure] = &[
    Measure {
        names: &["redis_read_1_hitbox", "redis_read_1_pipelined"],
        about: "reads of a Redis tier, 125 bytes, one task",
        run: |setting| read(setting, 1, ["redis_read_1_hitbox", "redis_read_1_pipelined"], [1.0, 0.95]),
    },
    Measure {
        names: &["redis_read_16_hitbox", "redis_read_16_pipelined"],
        about: "reads of a Redis tier, 125 bytes, 16 tasks",
        run: |setting| read(setting, 16, ["redis_read_16_hitbox", "redis_read_16_pipelined"], [1.0, 0.8]),
    },
    Measure {
        names: &["redis_read_256_hitbox", "redis_read_256_pipelined"],
        about: "reads of a Redis tier, 125 bytes, 256 tasks",
        run: |setting| read(setting, 256, ["redis_read_256_hitbox", "redis_read_256_pipelined"], [2.0, 1.25]),
    },
    Measure {
        names: &["redis_read_1024_hitbox", "redis_read_1024_pipelined"],
        about: "reads of a Redis tier, 125 bytes, 1,024 tasks",
        run: |setting| {
            read(setting, 1_024, ["redis_read_1024_hitbox", "redis_read_1024_pipelined"], [3.0, 1.5])
        },
    },
    Measure {
        names: WRITE_1,
        about: "writes of a Redis tier, 125 bytes with TTL, one task; stamps compared, and not",
        run: |setting| write(setting, 1, WRITE_1, 1.0),
    },
    Measure {
        names: WRITE_16,
        about: "writes of a Redis tier, 125 bytes with TTL, 16 tasks; stamps compared, and not",
        run: |setting| write(setting, 16, WRITE_16, 1.0),
    },
    Measure {
        names: WRITE_256,
        about: "writes of a Redis tier, 125 bytes with TTL, 256 tasks; stamps compared, and not",
        run: |setting| write(setting, 256, WRITE_256, 2.0),
    },
    Measure {
        names: WRITE_1024,
        about: "writes of a Redis tier, 125 bytes with TTL, 1,024 tasks; stamps compared, and not",
        run: |setting| write(setting, 1_024, WRITE_1024, 2.5),
    },
];

/// Of writes that compare stamps against hitbox's, against our own that do not, and of these against hitbox's.
const WRITE_1: &[&str; 3] =
    &["redis_write_1_hitbox", "redis_write_1_unordered", "redis_write_1_unordered_hitbox"];
const WRITE_16: &[&str; 3] =
    &["redis_write_16_hitbox", "redis_write_16_unordered", "redis_write_16_unordered_hitbox"];
const WRITE_256: &[&str; 3] =
    &["redis_write_256_hitbox", "redis_write_256_unordered", "redis_write_256_unordered_hitbox"];
const WRITE_1024: &[&str; 3] =
    &["redis_write_1024_hitbox", "redis_write_1024_unordered", "redis_write_1024_unordered_hitbox"];

const ENTRIES: u64 = 8_192;
/// Long enough for a thousand tasks to get into step.
const ROUND: Duration = Duration::from_millis(200);

type Seed = hitbox_redis::RedisBackend;

/// A server, and all that reads and writes it.
struct Bench {
    runtime: Runtime,
    tasks: u64,
    ordered: (Cache, Arc<Vec<CacheKey>>),
    unordered: (Cache, Arc<Vec<CacheKey>>),
    seed: (Arc<Seed>, Arc<Vec<hitbox_core::CacheKey>>),
    pipelined: (ConnectionManager, Arc<Vec<String>>),
    _server: RedisServer,
}

impl Bench {
    fn start(tasks: u64) -> Result<Self, Skipped> {
        let server = RedisServer::start().map_err(|error| Skipped(error.to_string()))?;
        let runtime = micro::runtime();
        let url = server.url();
        let (ordered, unordered, seed, pipelined) = runtime.block_on(async {
            let client = redis::Client::open(url.as_str()).expect("a Redis URL");
            let manager = client.get_connection_manager().await.expect("a connection");
            let seed = hitbox_redis::RedisBackend::builder()
                .connection(hitbox_redis::ConnectionMode::single(&url))
                .build()
                .expect("a hitbox backend");
            (cache(&url, "ordered", true).await, cache(&url, "unordered", false).await, seed, manager)
        });
        let bench = Self {
            tasks,
            ordered,
            unordered,
            seed: (Arc::new(seed), Arc::new((0..ENTRIES).map(|id| hitbox::key("bench", id)).collect())),
            pipelined: (pipelined, Arc::new((0..ENTRIES).map(|id| format!("plain:{id}")).collect())),
            runtime,
            _server: server,
        };
        bench.runtime.block_on(bench.fill());
        Ok(bench)
    }

    async fn fill(&self) {
        let mut manager = self.pipelined.0.clone();
        for id in 0..ENTRIES {
            let at = index(id);
            let account = Account::of(id);
            for (cache, keys) in [&self.ordered, &self.unordered] {
                cache.set(&keys[at], account.clone(), Some(TTL)).await.expect("a set in Redis");
            }
            hitbox::set(&*self.seed.0, &self.seed.1[at], account).await;
            // As large as our own frame.
            let _: () = manager.set(&self.pipelined.1[at], vec![7_u8; 165]).await.expect("a set in Redis");
        }
    }

    /// Runs the tasks, each with its share of `operations`; `work` is given a task's first operation and their number.
    fn run<F, W>(&self, operations: u64, work: F) -> Duration
    where
        F: Fn(u64, u64) -> W,
        W: Future<Output = ()> + Send + 'static,
    {
        let share = operations.div_ceil(self.tasks);
        self.runtime.block_on(async {
            let watch = Watch::start();
            let tasks: Vec<_> = (0..self.tasks).map(|task| self.runtime.spawn(work(task, share))).collect();
            for task in tasks {
                task.await.expect("a bench task");
            }
            let took = watch.elapsed();
            // As long as the operations that were asked for would have taken.
            took.mul_f64(ratio(operations, share * self.tasks))
        })
    }

    fn reads(&self, operations: u64) -> Duration {
        let tasks = self.tasks;
        self.run(operations, |task, share| {
            let (cache, keys) = self.ordered.clone();
            async move {
                for n in 0..share {
                    let id = (task + n * tasks) % ENTRIES;
                    let hit = cache.get::<Account>(&keys[index(id)]).await.expect("Redis has it");
                    assert_eq!(hit.id(), id);
                }
            }
        })
    }

    fn seed_reads(&self, operations: u64) -> Duration {
        let tasks = self.tasks;
        self.run(operations, |task, share| {
            let (seed, keys) = self.seed.clone();
            async move {
                for n in 0..share {
                    let id = (task + n * tasks) % ENTRIES;
                    let value: Account = hitbox::get(&*seed, &keys[index(id)]).await.expect("Redis has it");
                    assert_eq!(value.id(), id);
                }
            }
        })
    }

    /// Bytes, which nobody decodes.
    fn pipelined_reads(&self, operations: u64) -> Duration {
        let tasks = self.tasks;
        self.run(operations, |task, share| {
            let (mut manager, keys) = self.pipelined.clone();
            async move {
                for n in 0..share {
                    let id = (task + n * tasks) % ENTRIES;
                    let bytes: Vec<u8> = manager.get(&keys[index(id)]).await.expect("Redis has it");
                    assert_eq!(bytes.len(), 165);
                }
            }
        })
    }

    /// Each task reads its last write back, at the end.
    fn writes(&self, (cache, keys): &(Cache, Arc<Vec<CacheKey>>), operations: u64) -> Duration {
        let tasks = self.tasks;
        self.run(operations, |task, share| {
            let (cache, keys) = (cache.clone(), Arc::clone(keys));
            async move {
                let template = Account::of(task);
                for n in 0..share {
                    let key = &keys[index((task + n * tasks) % ENTRIES)];
                    cache.set(key, template.clone().renumbered(n), Some(TTL)).await.expect("a set in Redis");
                }
                let last = &keys[index((task + (share - 1) * tasks) % ENTRIES)];
                let hit = cache.get::<Account>(last).await.expect("it was set");
                assert_eq!(hit.id(), share - 1);
            }
        })
    }

    fn seed_writes(&self, operations: u64) -> Duration {
        let tasks = self.tasks;
        self.run(operations, |task, share| {
            let (seed, keys) = self.seed.clone();
            async move {
                let template = Account::of(task);
                for n in 0..share {
                    let key = &keys[index((task + n * tasks) % ENTRIES)];
                    hitbox::set(&*seed, key, template.clone().renumbered(n)).await;
                }
                let last = &keys[index((task + (share - 1) * tasks) % ENTRIES)];
                let value: Account = hitbox::get(&*seed, last).await.expect("it was set");
                assert_eq!(value.id(), share - 1);
            }
        })
    }

    fn end(self) {
        self.runtime.block_on(own::shutdown(&self.ordered.0));
        self.runtime.block_on(own::shutdown(&self.unordered.0));
    }
}

/// A cache of a Redis tier alone; its deadlines are such that none is missed on a busy machine.
async fn cache(url: &str, namespace: &str, compare: bool) -> (Cache, Arc<Vec<CacheKey>>) {
    let redis = RedisBackend::builder(RedisDriver::Tokio)
        .url(url)
        .namespace(namespace)
        .compare_stamps(compare)
        .build()
        .expect("a Redis backend");
    let patience = Duration::from_secs(10);
    let tier = Tier::new(redis).read_deadline(patience).write_deadline(patience);
    let cache = Cache::builder(TokioRuntime::current()).tier(tier).build().await.expect("a cache over Redis");
    let region = own::region::<Account>(&cache, "bench");
    let keys = (0..ENTRIES).map(|id| region.key(&id)).collect();
    (cache, Arc::new(keys))
}

fn read(setting: &Setting, tasks: u64, names: [&'static str; 2], goals: [f64; 2]) -> Outcome {
    let bench = Bench::start(tasks)?;
    let sides = Contest::new(setting, Unit::PerSecond)
        .round(ROUND)
        .timed("tierkeep", |operations| bench.reads(operations))
        .timed("hitbox", |operations| bench.seed_reads(operations))
        .timed("pipelined GET", |operations| bench.pipelined_reads(operations))
        .run();
    bench.end();
    Ok(vec![
        Comparison::new(names[0], Unit::PerSecond, goals[0], &sides[0], &sides[1]),
        Comparison::new(names[1], Unit::PerSecond, goals[1], &sides[0], &sides[2]),
    ])
}

fn write(setting: &Setting, tasks: u64, names: &[&'static str; 3], goal: f64) -> Outcome {
    let bench = Bench::start(tasks)?;
    let sides = Contest::new(setting, Unit::PerSecond)
        .round(ROUND)
        .timed("tierkeep", |operations| bench.writes(&bench.ordered, operations))
        .timed("hitbox", |operations| bench.seed_writes(operations))
        .timed("tierkeep without comparing", |operations| bench.writes(&bench.unordered, operations))
        .run();
    bench.end();
    Ok(vec![
        Comparison::new(names[0], Unit::PerSecond, goal, &sides[0], &sides[1]),
        Comparison::informative(names[1], Unit::PerSecond, &sides[0], &sides[2]),
        Comparison::informative(names[2], Unit::PerSecond, &sides[2], &sides[1]),
    ])
}

fn index(id: u64) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "some millions of operations")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}
