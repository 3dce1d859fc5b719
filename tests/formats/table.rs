//! Every format × compressor × backend × runtime: values come back, damaged ones are counted misses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tierkeep::backend::{Blocking, BlockingBackend};
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{
    Backend, BackendResult, Cache, CacheBackend, CacheKey, CacheValue, DeleteStatus, MemoryBackend, Raw,
    Region,
};
use tierkeep_sim::MapBackend;

use super::support::{Coded, Rich, compressors, formats, rich};

/// Empty, with everything in it, more than is encoded on the executor, and 4 MB.
fn values() -> [Arc<Rich>; 4] {
    [Rich::default(), rich(0), rich(40_000), rich(4_000_000)].map(Arc::new)
}

/// A synchronous store, behind the adapter.
#[derive(Default)]
struct Synchronous(Mutex<HashMap<CacheKey, CacheValue<Raw>>>);

impl BlockingBackend for Synchronous {
    fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.0.lock().unwrap().get(key).cloned())
    }

    fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.0.lock().unwrap().insert(key.clone(), value);
        Ok(())
    }

    fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        Ok(self.0.lock().unwrap().remove(key).map_or(DeleteStatus::Missing, |_| DeleteStatus::Deleted(1)))
    }
}

/// The backends, and the directories that the disk tier needs meanwhile.
fn backends() -> Vec<(&'static str, Arc<dyn Backend>, Option<tempfile::TempDir>)> {
    vec![
        ("memory", Arc::new(MemoryBackend::entries(100)), None),
        ("map", Arc::new(MapBackend::new()), None),
        ("synchronous", Arc::new(Blocking::new(Synchronous::default())), None),
        #[cfg(feature = "moka")]
        ("moka", Arc::new(tierkeep::backend::MokaBackend::entries(100)), None),
        #[cfg(feature = "disk")]
        {
            let directory = tempfile::tempdir().unwrap();
            let disk = tierkeep::backend::DiskBackend::builder(directory.path()).capacity_bytes(256 << 20);
            ("disk", Arc::new(disk.build().unwrap()), Some(directory))
        },
    ]
}

/// Runs the table's rows of one runtime. 4 MB take a debug build long: they go through every format and compressor into
/// the store `all_large_in`, and through one pair of them into every other.
async fn rows(runtime: RuntimeHandle, all_large_in: Option<&str>) {
    let values = values();
    for (name, inner, _directory) in backends() {
        for format in formats() {
            for compressor in compressors() {
                let row = format!("{name}, {}, {}", format.name(), compressor.name());
                let coded = Coded { inner: Arc::clone(&inner), format: Arc::clone(&format), compressor };
                let cache = Cache::builder(runtime.clone()).tier(coded.tier()).build().await.unwrap();
                let region: Region<Rich, u32> = cache.region("rich").no_expiry().build().unwrap();
                let plainest = coded.format.name() == "postcard" && coded.compressor.name() == "passthrough";
                let large = plainest || all_large_in == Some(name);
                let values = if large { &values[..] } else { &values[..3] };
                values_come_back(&row, &coded, &region, values).await;
                damage_is_a_counted_miss(&row, &coded, &region).await;
                cache.shutdown(Duration::from_secs(60)).await;
            }
        }
    }
}

async fn values_come_back(row: &str, coded: &Coded, region: &Region<Rich, u32>, values: &[Arc<Rich>]) {
    for (id, value) in values.iter().enumerate() {
        let id = u32::try_from(id).unwrap();
        region.set(&id, Arc::clone(value)).await.unwrap_or_else(|error| panic!("{row}, value {id}: {error}"));
        let found = region.try_get(&id).await.unwrap();
        assert!(found.hit.is_some_and(|hit| hit.value() == value), "{row}, value {id}: {:?}", found.degraded);
    }
    // The backend by itself reads what the cache wrote, and the other way round.
    let found = coded.get::<Rich>(&region.key(&1)).await.unwrap_or_else(|error| panic!("{row}: {error}"));
    assert!(found.is_some_and(|found| *found.data() == values[1]), "{row}: by itself");
    coded.set::<Rich>(&region.key(&7), CacheValue::new(Arc::clone(&values[1]), None, None)).await.unwrap();
    assert!(region.get(&7).await.is_some_and(|hit| *hit.value() == values[1]), "{row}: from itself");
}

async fn damage_is_a_counted_miss(row: &str, coded: &Coded, region: &Region<Rich, u32>) {
    let key = region.key(&1);
    let whole = coded.inner.read(&key).await.unwrap().unwrap().into_inner();
    let mut flipped = whole.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let damaged = [Raw::from(flipped), whole.slice(..whole.len() / 2), Raw::from_static(b"{}"), Raw::new()];
    let count = damaged.len() as u64;
    for raw in damaged {
        coded.inner.write(&key, CacheValue::new(raw, None, None)).await.unwrap();
        assert!(region.get(&1).await.is_none(), "{row}: damaged bytes were served");
    }
    let inspection = region.cache().inspect();
    assert_eq!(inspection.tiers[0].reads.decode_failed, count, "{row}: {:?}", inspection.tiers[0].reads);
}

#[test]
fn on_tokio() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { rows(tierkeep_tokio::TokioRuntime::current().into(), Some("map")).await });
}

#[test]
fn on_async_std() {
    async_std::task::block_on(rows(tierkeep_async_std::AsyncStdRuntime::new().into(), None));
}

#[test]
fn on_smol() {
    smol::block_on(rows(tierkeep_smol::SmolRuntime::new().into(), None));
}

#[test]
fn in_the_simulator() {
    let sim = tierkeep_sim::Sim::new(1);
    sim.block_on(rows(sim.runtime().into(), None)).unwrap();
}
