//! Caches of a memory tier over a store that is written behind.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use tierkeep::backend::{DiskBackend, RedisBackend, RedisDriver};
use tierkeep::write_behind::WriteBehind;
use tierkeep::{Cache, MemoryBackend, Region, Tier};
use tierkeep_test_servers::RedisServer;
use tierkeep_tokio::TokioRuntime;

pub(crate) static SERVER: LazyLock<RedisServer> = LazyLock::new(|| RedisServer::start().unwrap());

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Where the lower tier keeps its entries: `disk`, or the URL of a server.
pub(crate) fn store(what: &str, directory: &Path) -> Tier {
    if what == "disk" {
        let disk = DiskBackend::builder(directory.join("store")).build().unwrap();
        return patient(Tier::new(disk));
    }
    redis(what, "crash")
}

pub(crate) fn redis(url: &str, namespace: &str) -> Tier {
    let redis = RedisBackend::builder(RedisDriver::Tokio).url(url).namespace(namespace).build().unwrap();
    patient(Tier::new(redis))
}

pub(crate) async fn cache(store: Tier, behind: WriteBehind) -> Cache {
    Cache::builder(TokioRuntime::current())
        .tier(MemoryBackend::entries(1_000))
        .tier(store.write_behind(behind))
        .build()
        .await
        .unwrap()
}

pub(crate) fn region(cache: &Cache) -> Region<u64, u64> {
    cache.region("number").no_expiry().build().unwrap()
}

/// Runs `work` on a tokio runtime with two threads.
pub(crate) fn on_tokio<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

/// On a busy machine a read that came too late would look like a loss, and a sync may take longer than a write should.
fn patient(tier: Tier) -> Tier {
    tier.read_deadline(Duration::from_secs(60)).write_deadline(Duration::from_secs(60))
}
