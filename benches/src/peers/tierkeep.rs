//! Tierkeep: its own side, with default options.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tierkeep::composition::ShutdownReport;
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Cache, Composition, MemoryBackend, Region, Tier};

use crate::values::TTL;

/// A memory tier.
pub fn memory(label: &'static str, entries: usize) -> Tier {
    Tier::new(MemoryBackend::entries(entries)).label(label)
}

/// Composes two tiers on a runtime.
///
/// # Panics
/// If the cache cannot be built.
pub async fn compose(
    runtime: impl Into<RuntimeHandle>,
    upper: impl Into<Composition>,
    lower: impl Into<Composition>,
) -> Cache {
    Cache::builder(runtime).tier(upper).tier(lower).build().await.expect("a cache in memory")
}

/// Opens the region that a bench uses.
///
/// # Panics
/// If it is open with other types.
pub fn region<T>(cache: &Cache, name: &str) -> Region<T, u64>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    cache.region(name).ttl(TTL).build().expect("a region of its own")
}

/// Ends a cache, and checks that nothing went wrong behind the figures.
///
/// # Panics
/// If the cache did not end cleanly, or a tier failed meanwhile.
pub async fn shutdown(cache: &Cache) {
    let inspection = cache.inspect();
    for tier in &inspection.tiers {
        assert_eq!(tier.restarts, 0, "tier {} was restarted", tier.label.as_str());
        assert!(!tier.bypassed, "tier {} is bypassed", tier.label.as_str());
    }
    let ShutdownReport { clean, .. } = cache.shutdown(std::time::Duration::from_secs(30)).await;
    assert!(clean, "the cache did not end cleanly");
}
