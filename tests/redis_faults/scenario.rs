//! How every fault is shown: warm, broken, healed, and what must hold throughout.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tierkeep::backend::RedisBackend;
use tierkeep::runtime::TaskHandle;
use tierkeep::{BreakerOptions, Cache, MemoryBackend, Tier};

use super::host::Host;
use super::load::{Load, READ_DEADLINE, SETS, WRITE_DEADLINE};
use super::tally::Counts;

/// Tasks at work at once.
const TASKS: usize = 4;
/// How long anything may take that is waited for; it takes seconds, unless the machine stands still.
const PATIENCE: Duration = Duration::from_secs(180);
/// In every server's password, and in nothing else.
pub(crate) const SECRET: &str = "hunter2-of-the-fault-tests";

/// A cache of a small memory tier over Redis, under load.
pub(crate) struct Scenario<'a> {
    fault: &'static str,
    host: &'a Host<'a>,
    load: Arc<Load>,
    tasks: Vec<TaskHandle<()>>,
    broken: Option<Counts>,
    during: Option<Counts>,
    back_after: Option<Duration>,
}

impl<'a> Scenario<'a> {
    pub(crate) fn start(fault: &'static str, host: &'a Host<'a>, redis: RedisBackend) -> Self {
        let redis = Tier::new(redis).read_deadline(READ_DEADLINE).write_deadline(WRITE_DEADLINE).breaker(
            BreakerOptions {
                open: Duration::from_millis(50),
                open_max: Duration::from_millis(400),
                ..BreakerOptions::default()
            },
        );
        let cache = Cache::builder(host.runtime.clone()).tier(MemoryBackend::entries(4)).tier(redis).build();
        let cache = host.block_on(cache).unwrap();
        let load = Arc::new(Load::new(cache, host.runtime.clone()));
        let mut tasks: Vec<_> = (0..TASKS).map(|_| host.runtime.spawn(Arc::clone(&load).work())).collect();
        tasks.push(host.runtime.spawn(Arc::clone(&load).watch()));
        Self { fault, host, load, tasks, broken: None, during: None, back_after: None }
    }

    /// Waits until Redis serves.
    pub(crate) fn warm(&self) {
        self.wait_for("hits before the fault", |counts| counts.redis_hits >= 100);
    }

    /// From here on it is broken. Waits until so many calls have been answered meanwhile, and `bitten` says that the
    /// fault was met.
    pub(crate) fn broken(&mut self, calls: u64, bitten: impl Fn(Counts) -> bool) {
        let before = *self.broken.get_or_insert_with(|| self.load.tally.counts());
        self.wait_for("calls that met the fault", |now| {
            let during = now.since(before);
            during.calls >= calls && bitten(during)
        });
    }

    /// Does something while nobody writes, and all that was written has been answered.
    #[cfg(all(feature = "cluster", feature = "sentinel"))]
    pub(crate) fn without_writes(&self, then: impl FnOnce()) {
        self.load.pause_writes(true);
        self.wait_until("writes to end", || self.load.is_quiet());
        then();
        self.load.pause_writes(false);
    }

    /// From here on it is whole. Waits until Redis serves again, every key of it.
    pub(crate) fn healed(&mut self) {
        let now = self.load.tally.counts();
        self.during = self.broken.map(|before| now.since(before));
        let began = now_is();
        self.wait_for("hits after the fault", |counts| counts.since(now).redis_hits >= 50);
        self.back_after = Some(began.elapsed());
        for key in SETS {
            self.wait_until("each key to be stored and read again", || self.stores(key));
        }
    }

    /// As [`healed`](Self::healed) for a load that does nothing but set, from before the fault until all sets arrive.
    pub(crate) fn healed_by_sets(&mut self) {
        for key in SETS {
            self.wait_until("each key to be stored", || self.stores(key));
        }
        self.load.only_set(false);
        self.healed();
    }

    /// What Redis gave and nobody could decode.
    pub(crate) fn undecoded(&self) -> u64 {
        self.load.cache.inspect().tiers[1].reads.decode_failed
    }

    /// Does nothing but set from here on.
    pub(crate) fn only_set(&self) {
        self.load.only_set(true);
    }

    /// Whether Redis holds what is now set.
    fn stores(&self, key: u64) -> bool {
        self.host.block_on(async {
            let Some(value) = self.load.confirmed_set(key).await else { return false };
            let name = self.load.sets.key(&key);
            let held = self.load.cache.get_from::<super::load::Row>("redis", &name).await;
            // The load may have set it again meanwhile.
            matches!(held, Ok(Some(hit)) if hit.number >= value)
        })
    }

    /// Ends the load, prints what was counted, and asserts what must hold whatever broke.
    pub(crate) fn finish(self) {
        self.load.stop();
        let runtime = self.host.runtime.name();
        self.host.block_on(async {
            for task in self.tasks {
                task.await.expect("no task panics");
            }
        });
        let (cache, inspection) = (&self.load.cache, self.load.cache.inspect());
        let json = serde_json::to_string(&(&inspection, cache.health())).unwrap();
        let inspection = format!("{inspection:?} {json}");
        // What Redis could not be told stays in quarantine, and shutdown says so.
        let healed = self.back_after.is_some();
        let longest = Duration::from_secs(if healed { 10 } else { 1 });
        let shutdown = self.host.block_on(self.load.cache.shutdown(longest));
        let counts = self.load.tally.counts();
        let violations = self.load.violations.lock().unwrap();
        let mut line =
            format!("fault={} runtime={runtime} {counts} violations={}", self.fault, violations.len());
        if let Some(during) = self.during {
            let hits = during.redis_hits + during.memory_hits;
            let (calls, misses, degraded) = (during.calls, during.misses, during.degraded);
            line += &format!(" broken=[calls={calls} hits={hits} misses={misses} degraded={degraded}]");
        }
        if let Some(back) = self.back_after {
            line += &format!(" hits_back_after_ms={}", back.as_millis());
        }
        // Not through print, which tests that succeed keep to themselves.
        let _ = writeln!(std::io::stdout(), "{line}");
        assert!(violations.is_empty(), "{line}\n{violations:#?}");
        assert_eq!(counts.over_deadline, 0, "{line}");
        assert!(shutdown.clean || !healed, "{line}\n{shutdown:?}");
        let errors = self.load.errors.lock().unwrap();
        for told in errors.iter().chain([&inspection, &format!("{:?}", self.load.cache)]) {
            assert!(!told.contains(SECRET), "a secret was told: {told}");
        }
    }

    fn wait_for(&self, what: &str, done: impl Fn(Counts) -> bool) {
        self.wait_until(what, || done(self.load.tally.counts()));
    }

    fn wait_until(&self, what: &str, done: impl Fn() -> bool) {
        let (began, mut looks) = (now_is(), 0);
        while !done() {
            looks += 1;
            // A process that was stopped has not waited.
            if looks > 1_000 && began.elapsed() > PATIENCE {
                let (fault, runtime) = (self.fault, self.host.runtime.name());
                let inspection = self.load.cache.inspect();
                let errors: Vec<_> = self.load.errors.lock().unwrap().iter().take(5).cloned().collect();
                panic!(
                    "fault={fault} runtime={runtime}: waited for {what}: {} {inspection:#?} {errors:#?}",
                    self.load.tally.counts()
                );
            }
            pause();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread that breaks servers lives outside of the runtime")]
fn now_is() -> Instant {
    Instant::now()
}

/// Between two looks at counts that others move.
#[expect(clippy::disallowed_methods, reason = "the thread that breaks servers lives outside of the runtime")]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}
