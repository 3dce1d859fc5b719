//! Two processes wrote one key to different stores: which value is the newer one?

use std::time::Duration;

use tierkeep::composition::ReadPolicy;
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Cache, CacheKey, Result};

use crate::history::Violation;
use crate::map_backend::MapBackend;
use crate::sim::Sim;

/// `Parallel` reads take the newest stamp, whatever lives longest: an old value that never expires, written by one
/// process, loses against a newer one that does, written by another. Returns what is wrong.
pub fn newest_stamp_wins(seed: u64) -> Option<Violation> {
    let sim = Sim::new(seed);
    let runtime = RuntimeHandle::new(sim.runtime());
    let found = sim.block_on(async {
        let key = CacheKey::new("shared", 1, []);
        let (old, new) = (MapBackend::new().labelled("old"), MapBackend::new().labelled("new"));
        write(&runtime, &old, &key, 1, None).await?;
        runtime.sleep(Duration::from_millis(5)).await;
        write(&runtime, &new, &key, 2, Some(Duration::from_secs(60))).await?;
        let both = Cache::builder(runtime.clone()).tier(old).tier(new).read_policy(ReadPolicy::Parallel);
        Ok::<_, tierkeep::Error>(both.build().await?.get::<u64>(&key).await.map(|hit| *hit))
    });
    match found {
        Ok(Ok(Some(2))) => None,
        Ok(other) => {
            Some(Violation::Superseded { what: format!("the newest value is 2, `Parallel` gave {other:?}") })
        }
        Err(stall) => Some(Violation::Stall { what: stall.to_string() }),
    }
}

async fn write(
    runtime: &RuntimeHandle,
    store: &MapBackend,
    key: &CacheKey,
    value: u64,
    ttl: Option<Duration>,
) -> Result<()> {
    let process = Cache::builder(runtime.clone()).tier(store.clone()).build().await?;
    process.set(key, value, ttl).await?;
    process.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
