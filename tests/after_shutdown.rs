//! What a cache that has been shut down still answers.

use std::convert::Infallible;
use std::time::Duration;

use tierkeep::{Cache, ErrorKind, MemoryBackend, Region};
use tierkeep_sim::Sim;

#[test]
fn reads_miss_changes_are_refused_and_loads_run_uncached() {
    let sim = Sim::new(1);
    let done = sim.block_on(async {
        let cache = Cache::builder(sim.runtime()).tier(MemoryBackend::entries(10)).build().await?;
        let names: Region<u32, str> = cache.region("name").ttl(Duration::from_secs(60)).build()?;
        names.set("a", 1).await?;
        assert!(cache.shutdown(Duration::from_secs(1)).await.clean);

        let closed = Some(ErrorKind::Closed);
        assert!(names.get("a").await.is_none());
        assert!(names.get_many(["a"]).await[0].is_none());
        assert!(!names.contains("a").await);
        assert_eq!(names.try_get("a").await.err().map(|error| error.kind()), closed);
        assert_eq!(names.set("a", 2).await.err().map(|error| error.kind()), closed);
        assert_eq!(names.remove("a").await.err().map(|error| error.kind()), closed);
        assert_eq!(names.clear().await.err().map(|error| error.kind()), closed);
        for value in [3, 4] {
            let loaded = names.get_or_load("a", || async { Ok::<_, Infallible>(value) }).await?;
            assert_eq!((*loaded, loaded.tier()), (value, None));
        }
        Ok::<_, tierkeep::Error>(())
    });
    done.unwrap().unwrap();
}
