//! A poison key among many, and a tier that is down for longer than its queue can hold.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tierkeep::runtime::{Instant, RuntimeHandle};
use tierkeep::write_behind::{Overload, Retry, WriteBehind};
use tierkeep::{
    Backend, BackendResult, Cache, CacheKey, CacheValue, DeleteStatus, Error, ErrorKind, MemoryBackend, Raw,
    Region, Tier, async_trait,
};
use tierkeep_sim::Sim;
use tierkeep_test_servers::RedisServer;

use crate::support::{ms, on_tokio, redis};

const KEYS: u64 = 10_000;
const RETRY: Duration = Duration::from_millis(100);

/// A store whose calls take a millisecond, and fail as a whole with the poison in them. Notes when it took the last of
/// the healthy keys.
#[derive(Clone)]
struct Store {
    runtime: RuntimeHandle,
    poison: Option<CacheKey>,
    taken: Arc<Mutex<(std::collections::HashSet<CacheKey>, Instant)>>,
}

#[async_trait]
impl Backend for Store {
    async fn read(&self, _: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(None)
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.write_many(vec![(key.clone(), value)]).await.remove(0)
    }

    async fn write_many(&self, entries: Vec<(CacheKey, CacheValue<Raw>)>) -> Vec<BackendResult<()>> {
        self.runtime.sleep(ms(1)).await;
        if entries.iter().any(|(key, _)| Some(key) == self.poison.as_ref()) {
            return entries.iter().map(|_| Err(Error::new(ErrorKind::Backend, "poison"))).collect();
        }
        let mut taken = self.taken.lock().unwrap();
        taken.0.extend(entries.iter().map(|(key, _)| key.clone()));
        taken.1 = self.runtime.now();
        entries.iter().map(|_| Ok(())).collect()
    }

    async fn remove(&self, _: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(DeleteStatus::Missing)
    }
}

/// How long it takes until every healthy key is in the store.
fn drain(poisoned: bool) -> Duration {
    let sim = Sim::new(7);
    let runtime = RuntimeHandle::new(sim.runtime());
    let poison = CacheKey::parse("number:v1:5000").unwrap_or_else(|| unreachable!("a key"));
    let taken = Arc::new(Mutex::new((std::collections::HashSet::new(), Instant::default())));
    let store =
        Store { runtime: runtime.clone(), poison: poisoned.then(|| poison.clone()), taken: taken.clone() };
    let took = sim.block_on(async move {
        let retry = Retry::default().attempts(5).backoff(RETRY, RETRY);
        let behind = WriteBehind::memory().max_delay(ms(10)).retry(retry);
        let cache = Cache::builder(runtime.clone())
            .tier(MemoryBackend::entries(100))
            .tier(Tier::new(store).label("store").write_behind(behind))
            .build()
            .await
            .unwrap();
        let numbers: Region<u64, u64> = cache.region("number").no_expiry().build().unwrap();
        assert_eq!(numbers.key(&5_000), poison);
        let began = runtime.now();
        for id in 0..KEYS {
            numbers.set(&id, id).await.unwrap();
        }
        cache.flush(Duration::from_secs(60)).await.unwrap();
        let counts = cache.inspect().tiers[1].write_behind.clone().unwrap().counts;
        assert_eq!((counts.dead, counts.applied), (u64::from(poisoned), KEYS - u64::from(poisoned)));
        let taken = taken.lock().unwrap();
        assert_eq!(taken.0.len() as u64, KEYS - u64::from(poisoned));
        taken.1.since(began)
    });
    took.unwrap()
}

#[test]
fn a_poison_key_among_ten_thousand_delays_the_others_by_less_than_a_retry_period() {
    let (clean, poisoned) = (drain(false), drain(true));
    // Not through print, which tests that succeed keep to themselves.
    let _ = writeln!(
        std::io::stdout(),
        "all healthy keys are stored after {poisoned:?}, without the poison after {clean:?}"
    );
    assert!(poisoned < clean + RETRY, "{poisoned:?} instead of {clean:?}: more than {RETRY:?} later");
}

const QUEUE: usize = 4 << 20;
const VALUE: usize = 100_000;

#[test]
fn a_tier_that_is_down_for_long_does_as_its_policy_says_within_its_memory() {
    for policy in ["reject", "block", "drop", "through"] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "overload::child_overloads", "--ignored", "--nocapture"])
            .env("TIERKEEP_OVERLOAD", policy)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{policy}: {text}\n{}", stderr.lines().last().unwrap_or_default());
        for line in text.lines().filter(|line| line.starts_with("overload ")) {
            println!("{line}");
        }
    }
}

#[test]
#[ignore = "run by a_tier_that_is_down_for_long_does_as_its_policy_says_within_its_memory"]
fn child_overloads() {
    let Ok(policy) = std::env::var("TIERKEEP_OVERLOAD") else { return };
    let (overload, sets) = match policy.as_str() {
        "reject" => (Overload::Reject, 600),
        "block" => (Overload::Block(ms(1)), 600),
        "drop" => (Overload::DropOldest, 600),
        _ => (Overload::WriteThrough, 600),
    };
    let server = RedisServer::start().unwrap();
    let url = server.url();
    server.kill().unwrap();
    on_tokio(async {
        let behind = WriteBehind::memory().bytes(QUEUE).overload(overload).max_delay(ms(1));
        let cache = Cache::builder(tierkeep_tokio::TokioRuntime::current())
            .tier(MemoryBackend::entries(10))
            .tier(redis(&url, "overload").write_deadline(ms(20)).write_behind(behind))
            .build()
            .await
            .unwrap();
        let blobs: Region<Vec<u8>, u64> = cache.region("blob").no_expiry().build().unwrap();
        blobs.set(&0, vec![0; VALUE]).await.unwrap();
        let before = resident();
        for id in 1..sets {
            // Memory has it in any case; what the lower tier does about it is counted.
            let _ = blobs.set(&id, vec![0; VALUE]).await;
        }
        let grown = resident().saturating_sub(before);
        let queue = cache.inspect().tiers[1].write_behind.clone().unwrap();
        let counts = queue.counts;
        // Not through print, which tests that succeed keep to themselves.
        let _ = writeln!(
            std::io::stdout(),
            "overload {policy}: {counts:?}, {} queued, memory grew by {} KiB",
            queue.queued,
            grown >> 10
        );
        let accounted = counts.applied + counts.superseded + counts.dead + queue.queued as u64;
        assert_eq!(counts.accepted, accounted, "{queue:?}");
        assert!(queue.bytes <= QUEUE, "{queue:?}");
        match overload {
            Overload::DropOldest => {
                assert_eq!(counts.accepted, sets);
                assert!(counts.dead > 0);
            }
            Overload::WriteThrough => {
                assert_eq!(counts.accepted + counts.written_through, sets);
                assert!(counts.written_through > 0);
            }
            _ => {
                assert_eq!(counts.accepted + counts.rejected, sets);
                assert!(counts.rejected > 0 && counts.dead == 0);
            }
        }
        // The queue, what quarantined keys hold for their repair (16 MiB at most), and half as much that an allocator keeps.
        assert!(2 * grown < 3 * (QUEUE as u64 + (16 << 20)), "memory grew by {grown} bytes");
        std::process::exit(0);
    });
}

/// Bytes that this process has in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string(Path::new("/proc/self/statm")).unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
